#!/usr/bin/env bash
# Builds the images and starts server, nodes, API and dashboard. Windows: run_docker.ps1
set -euo pipefail
cd "$(dirname "$0")"

stop() {
  printf '%s\n' "$@" >&2
  exit 1
}

command -v docker >/dev/null || stop "Docker is not installed. See https://docs.docker.com/get-docker/"
docker compose version >/dev/null 2>&1 ||
  stop "Docker Compose is not installed. It is the plugin 'docker compose', version 2.24 or newer."
docker info >/dev/null 2>&1 ||
  stop "Docker does not answer. Start it, or see whether this account may use it: docker info"

# Once the federation is up, the ports are taken by itself.
if [ -z "$(docker compose ps --quiet --status running)" ]; then
  for port in 8000 8091 8501; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      stop "Port $port is taken by another program. End it, then type ./run_docker.sh again."
    fi
  done
fi

docker compose build || stop "The images were not built. What failed is above: most often the network, or a full disk."
# In a container that is removed at once: what it shows is in no log.
docker compose run --rm setup || stop "The volumes are not ready. What is wrong is above."
docker compose up --detach --wait --wait-timeout 300 || {
  docker compose ps --all
  stop "Not everything came up. See why with: docker compose logs"
}

cat <<'END'

API        http://localhost:8000/docs
Dashboard  http://localhost:8501
Server     localhost:8091, for nodes

The first API key is shown above, the first time only. More: docker compose exec api aevorium api key create NAME --role ROLE
What the nodes say: docker compose logs --follow node-a node-b
To stop: docker compose down (the volumes with all results and ledgers stay)
END
