"""What containers may do and see: Dockerfile, compose.yaml, Kubernetes manifests, and the scripts beside them."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from filelock import FileLock

from aevorium.federation.identity import read_public_key
from aevorium.settings import load_settings

ROOT = Path(__file__).parents[2]
ROLES = ("server", "node", "api", "dashboard")
STATE = "/var/lib/aevorium"


def _stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage of the Dockerfile, those of its parents first."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    stages: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        if word == "FROM":
            parent, _, name = rest.partition(" AS ")
            current = stages[name] = list(stages.get(parent, []))
        else:
            current.append((word, rest.strip()))
    return stages


STAGES = _stages()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def _last(stage: str, word: str) -> str:
    return [rest for found, rest in STAGES[stage] if found == word][-1]


def _mounts(service: str) -> dict[str, tuple[str, bool]]:
    """Where each source is mounted, and whether it can be written there."""
    found = {}
    for mount in SERVICES[service].get("volumes", []):
        if isinstance(mount, str):
            source, target, *mode = mount.split(":")
            found[source] = target, mode != ["ro"]
        else:
            found[mount["source"]] = mount["target"], not mount.get("read_only", False)
    return found


@pytest.mark.parametrize("role", ROLES)
def test_an_image_runs_as_a_fixed_user_and_is_asked_for_its_health(role: str) -> None:
    assert _last(role, "USER") == "10001:10001"
    options, _, command = _last(role, "HEALTHCHECK").partition(" CMD ")
    assert "--interval" in options
    program, script, asked = json.loads(command)
    assert (program, script, asked) == ("python", "/opt/aevorium/health.py", role)
    assert ("COPY", "deploy/health.py deploy/setup.py ./") in STAGES[role]
    for word in ("ENTRYPOINT", "CMD"):
        assert json.loads(_last(role, word))


def test_an_image_installs_extras_that_exist_and_the_torch_of_the_requirements() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for role in ROLES:
        wheel = re.findall(r"\.whl\)\[([a-z,]+)\]", " ".join(rest for _, rest in STAGES[role]))
        assert role in wheel[-1].split(",")
        assert set(wheel[-1].split(",")) <= set(project["optional-dependencies"])
    arguments = dict(rest.split("=", 1) for word, rest in STAGES["torch"] if word == "ARG")
    assert f"torch=={arguments['TORCH_VERSION']}" in (ROOT / "requirements.txt").read_text()
    assert f'CPU_INDEX = "{arguments["TORCH_INDEX"]}"' in (ROOT / "start.py").read_text()
    assert f'image.version="{project["version"]}"' in _last("base", "LABEL")
    assert {service["image"].partition(":")[2] for service in SERVICES.values()} == {project["version"]}


def test_what_is_copied_exists_and_is_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*", "all is kept out that is not named"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert let_in == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "src",
        "deploy/health.py",
        "deploy/setup.py",
    }
    assert {"**/*.key", "**/*.db", "**/*.csv", "**/.env*"} <= set(rules)
    copied = {
        source
        for instructions in STAGES.values()
        for word, rest in instructions
        if word == "COPY" and "--from" not in rest
        for source in shlex.split(rest)[:-1]
    }
    assert {source.removeprefix("./") for source in copied} == let_in
    for source in let_in:
        assert (ROOT / source).exists(), source


def test_no_image_is_built_with_a_secret() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "type=secret" not in text
    assert not re.search(r"(?i)^(ARG|ENV).*(password|token|secret)", text, re.MULTILINE)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_right_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "user", "devices", "pid", "ipc"} & set(service)
    assert all(target.startswith(STATE) for target, _ in _mounts(name).values())
    assert service["build"]["target"] in STAGES
    is_once = service["restart"] == "no"
    assert is_once or service["restart"] == "unless-stopped"
    assert ("healthcheck" in service) == is_once, "a service keeps the health check of its image"


def test_nobody_sees_a_nodes_data_but_the_node() -> None:
    private = {
        "a": {"node-a", "${NODE_A_TABLE:-./deploy/no-table}"},
        "b": {"node-b", "${NODE_B_TABLE:-./deploy/no-table}"},
    }
    for name in SERVICES:
        for letter, sources in private.items():
            if not name.startswith(f"node-{letter}"):
                assert not sources & set(_mounts(name)), f"{name} sees the data of node {letter}"
    for letter, sources in private.items():
        mounts = _mounts(f"node-{letter}")
        assert set(mounts) == sources | {"public"}
        assert [source for source, (_, is_written) in mounts.items() if is_written] == [f"node-{letter}"]
        assert SERVICES[f"node-{letter}"]["networks"] == ["federation"]
        assert set(_mounts(f"node-{letter}-key")) == {f"node-{letter}", "enrolled"}
    assert COMPOSE["networks"]["federation"]["internal"] is True
    assert "keys" not in _mounts("api"), "the API opens no checkpoint"
    assert not SERVICES["dashboard"].get("volumes")


def test_the_first_key_is_made_where_the_api_looks_for_it() -> None:
    places = [SERVICES[name]["environment"]["AEVORIUM_DATABASE"] for name in ("setup", "api", "server")]
    assert len(set(places)) == 1
    assert set(SERVICES["setup"]["networks"]) == set(SERVICES["api"]["networks"])
    assert [name for name in SERVICES if SERVICES[name].get("network_mode") == "none"] == ["node-a-key", "node-b-key"]


def test_what_is_published_is_for_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert set(ports) == {"127.0.0.1:8000:8000", "127.0.0.1:8501:8501", "${SERVER_PUBLISH:-127.0.0.1:8091}:8091"}


def test_services_wait_for_what_they_need_and_settings_are_documented() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            is_once = SERVICES[needed]["restart"] == "no"
            assert how["condition"] == ("service_completed_successfully" if is_once else "service_healthy"), name
    text = (ROOT / "compose.yaml").read_text()
    variables = set(re.findall(r"\$\{([A-Z_]+)", text))
    documented = set(re.findall(r"^#([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert variables == documented
    assert variables >= {"NODE_A_TABLE", "NODE_B_TABLE"}


def _manifests(folder: str) -> list[dict[str, Any]]:
    files = sorted((ROOT / "deploy" / "kubernetes" / folder).glob("*.yaml"))
    named = yaml.safe_load((ROOT / "deploy" / "kubernetes" / folder / "kustomization.yaml").read_text())["resources"]
    assert sorted(named) == [path.name for path in files if path.name != "kustomization.yaml"]
    return [document for name in named for document in yaml.safe_load_all((files[0].parent / name).read_text())]


@pytest.mark.parametrize("folder", ["server", "node"])
def test_a_pod_meets_the_restricted_profile(folder: str) -> None:
    manifests = _manifests(folder)
    namespace = next(found for found in manifests if found["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = [found["spec"]["template"]["spec"] for found in manifests if found["kind"] in ("StatefulSet", "Deployment")]
    assert pods
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        if "fsGroup" in pod["securityContext"]:
            assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
        for container in pod["containers"]:
            assert container["readinessProbe"]["exec"]["command"][:2] == ["python", "/opt/aevorium/health.py"]
            assert container["readinessProbe"]["exec"]["command"][2] in ROLES
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            for variable in container.get("env", []):
                if "DATABASE" in variable["name"]:
                    assert set(variable["valueFrom"]) == {"secretKeyRef"}
        assert not any("hostPath" in volume for volume in pod["volumes"])
    assert not any(found["kind"] == "Secret" for found in manifests)


@pytest.mark.parametrize("folder", ["server", "node"])
def test_a_namespace_lets_nothing_pass_by_default(folder: str) -> None:
    policies = [found["spec"] for found in _manifests(folder) if found["kind"] == "NetworkPolicy"]
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in policies
    if folder == "node":
        assert not any("ingress" in policy for policy in policies)


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"deploy_{name}", ROOT / "deploy" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class _Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health/live" else 404)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def answering() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), _Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_health_is_what_the_door_says(
    answering: HTTPServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    health = _script("health")
    port = answering.server_port
    # What a proxy would say is no word about this container.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setattr(health, "checks", lambda environment: {"api": health.Door(f"127.0.0.1:{port}").is_well})
    assert health.main(["api"]) == 0
    monkeypatch.setattr(_Answer, "status", 503)
    assert health.main(["api"]) == 1
    monkeypatch.setattr(health, "checks", lambda environment: {"api": health.Door("127.0.0.1:1").is_well})
    assert health.main(["api"]) == 1
    assert health.main([]) == health.main(["other"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(("role", "lock"), [("server", "workspace/.worker.lock"), ("node", "home/north/.lock")])
def test_server_and_node_are_well_while_they_hold_their_lock(
    role: str, lock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEVORIUM_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("AEVORIUM_NODE_HOME", str(tmp_path / "home"))
    command = [sys.executable, ROOT / "deploy" / "health.py", role]
    path = tmp_path / lock
    path.parent.mkdir(parents=True)
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1
    with FileLock(path):
        assert subprocess.run(command, check=False).returncode == 0
    path.touch()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1
    # To be asked takes the lock from nobody.
    with FileLock(path, timeout=0):
        pass


def test_health_needs_no_library() -> None:
    script = "import sys; sys.argv = ['health']; import runpy; runpy.run_path(sys.orig_argv[-1], run_name='health')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script, ROOT / "deploy" / "health.py"], check=False)
    assert done.returncode == 0


def test_setup_lets_the_nodes_in_and_shows_a_key_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = _script("setup")
    monkeypatch.setattr(setup, "STATE", tmp_path)
    for name in ("workspace", "keys", "audit", "node", "public", "enrolled"):
        (tmp_path / name).mkdir(mode=0o700)
    monkeypatch.setenv("AEVORIUM_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("AEVORIUM_KEY_FILE", str(tmp_path / "keys" / "checkpoint.key"))
    monkeypatch.setenv("AEVORIUM_AUDIT_KEY_FILE", str(tmp_path / "audit" / "audit.key"))
    monkeypatch.setenv("AEVORIUM_NODE_HOME", str(tmp_path / "node"))
    assert setup.main(["node", "A"]) == setup.main(["node", "A"]) == setup.main(["server"]) == 0
    first = capsys.readouterr().out
    assert first.count("aev_") == 1
    assert setup.main(["server"]) == 0
    assert "aev_" not in capsys.readouterr().out
    federation = tmp_path / "workspace" / "federation"
    assert read_public_key(federation / "nodes" / "A.pub") == read_public_key(tmp_path / "enrolled" / "A.pub")
    assert (tmp_path / "public" / "ca.crt").read_bytes() == (federation / "ca.crt").read_bytes()
    assert [path.name for path in (tmp_path / "public").iterdir()] == ["ca.crt"], "and no key"
    assert b"PRIVATE" not in (tmp_path / "enrolled" / "A.pub").read_bytes()

    (tmp_path / "node" / "A" / "node.key").unlink()
    assert setup.main(["node", "A"]) == 2, "another key under the same name is not let in"
    assert "A.pub" in capsys.readouterr().err


def test_setup_leaves_the_first_key_to_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = _script("setup")
    for name in ("workspace", "keys", "public", "enrolled"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(setup, "STATE", tmp_path)
    monkeypatch.setenv("AEVORIUM_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("AEVORIUM_KEY_FILE", str(tmp_path / "keys" / "checkpoint.key"))
    assert setup.main(["server", "--without-key"]) == 0
    assert not setup._has_api_key(load_settings().values)


def _program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="a script for Linux")
@pytest.mark.parametrize(
    ("user", "apt", "said"),
    [("1000", "exit 0", "may not install it"), ("0", "exit 100", "does not answer")],
)
def test_a_machine_without_the_packages_says_so_and_goes_on(tmp_path: Path, user: str, apt: str, said: str) -> None:
    for name in ("bash", "timeout"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    _program(tmp_path, "id", f"echo {user}")
    _program(tmp_path, "apt-get", apt)
    environment = {"PATH": str(tmp_path), "POSTGRESQL_PROGRAMS": str(tmp_path / "none")}
    command = [tmp_path / "bash", ROOT / ".ci" / "packages"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("PostgreSQL", "Chromium"):
        assert f"{name}: " in done.stdout
        assert said in next(line for line in done.stdout.splitlines() if line.startswith(name) and "skipped" in line)


@pytest.mark.skipif(sys.platform == "win32", reason="a script for Linux and macOS")
@pytest.mark.parametrize(
    ("docker", "said"),
    [
        (None, "Docker is not installed"),
        ("exit 1", "Docker Compose is not installed"),
        ('[ "$1" = compose ]', "Docker does not answer"),
    ],
)
def test_the_start_says_what_is_missing(tmp_path: Path, docker: str | None, said: str) -> None:
    for name in ("bash", "dirname"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    if docker is not None:
        _program(tmp_path, "docker", docker)
    done = subprocess.run(
        [tmp_path / "bash", ROOT / "run_docker.sh"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert said in done.stderr
