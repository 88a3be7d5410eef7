# Builds the images and starts server, nodes, API and dashboard. Linux and macOS: run_docker.sh
$ErrorActionPreference = "Continue"
Set-Location $PSScriptRoot

function Stop-WithReason([string] $Reason) {
    [Console]::Error.WriteLine($Reason)
    exit 1
}

function Test-Docker([string[]] $Arguments) {
    & docker @Arguments 2>&1 | Out-Null
    return $LASTEXITCODE -eq 0
}

if (-not (Get-Command docker -ErrorAction SilentlyContinue)) {
    Stop-WithReason "Docker is not installed. See https://docs.docker.com/get-docker/"
}
if (-not (Test-Docker compose, version)) {
    Stop-WithReason "Docker Compose is not installed. It is the plugin 'docker compose', version 2.24 or newer."
}
if (-not (Test-Docker info)) {
    Stop-WithReason "Docker does not answer. Start Docker Desktop, then type .\run_docker.ps1 again."
}

# Once the federation is up, the ports are taken by itself.
if (-not (docker compose ps --quiet --status running)) {
    foreach ($port in 8000, 8091, 8501) {
        $client = New-Object System.Net.Sockets.TcpClient
        try {
            $client.Connect("127.0.0.1", $port)
            Stop-WithReason "Port $port is taken by another program. End it, then type .\run_docker.ps1 again."
        }
        catch [System.Management.Automation.MethodInvocationException] { }
        finally { $client.Dispose() }
    }
}

docker compose build
if ($LASTEXITCODE -ne 0) {
    Stop-WithReason "The images were not built. What failed is above: most often the network, or a full disk."
}
# In a container that is removed at once: what it shows is in no log.
docker compose run --rm setup
if ($LASTEXITCODE -ne 0) {
    Stop-WithReason "The volumes are not ready. What is wrong is above."
}
docker compose up --detach --wait --wait-timeout 300
if ($LASTEXITCODE -ne 0) {
    docker compose ps --all
    Stop-WithReason "Not everything came up. See why with: docker compose logs"
}

Write-Output @"

API        http://localhost:8000/docs
Dashboard  http://localhost:8501
Server     localhost:8091, for nodes

The first API key is shown above, the first time only. More: docker compose exec api aevorium api key create NAME --role ROLE
What the nodes say: docker compose logs --follow node-a node-b
To stop: docker compose down (the volumes with all results and ledgers stay)
"@
