"""Installs the wheel for each role into an environment of its own, and tries there what its container starts with.

Outside the clone's folder: what works here is in the wheel. Takes minutes and some GB, so it is no part of the tests.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = next(line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("torch=="))
EXTRAS = re.findall(r"FROM torch AS (\w+)\n.*\n.*\.whl\)\[([a-z,]+)\]", (ROOT / "Dockerfile").read_text())


def run(command: list[str | Path], *, folder: Path, environment: dict[str, str] | None = None) -> str:
    """Runs a command in a folder; what it says if it fails ends the check."""
    full = {name: value for name, value in {**os.environ, **(environment or {})}.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=full, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def serve(program: Path, folder: Path, environment: dict[str, str]) -> None:
    """Starts the API as its container does, and asks it for its health as that does."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8000)) == 0:
            sys.exit("Port 8000 is taken: the health check of the API would ask somebody else.")
    run([program, "api", "key", "create", "Ann", "--role", "steward"], folder=folder, environment=environment)
    with (folder / "api.log").open("w") as log:
        full = {name: value for name, value in {**os.environ, **environment}.items() if name != "PYTHONPATH"}
        api = subprocess.Popen([program, "api"], cwd=folder, env=full, stdout=log, stderr=log)  # noqa: S603
    try:
        health = [program.with_name("python"), "-I", ROOT / "deploy" / "health.py", "api"]
        end = time.monotonic() + 60
        while subprocess.run(health, capture_output=True, check=False).returncode:  # noqa: S603
            if time.monotonic() > end or api.poll() is not None:
                sys.exit("The API does not come up.\n" + (folder / "api.log").read_text())
            time.sleep(0.5)
    finally:
        api.terminate()
        api.wait(20)


def check(role: str, extras: str, *, wheel: Path, folder: Path) -> None:
    """Installs for one role, and tries it."""
    venv.create(folder / "environment", with_pip=True)
    program = folder / "environment" / "bin" / "aevorium"
    pip = [program.with_name("python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, TORCH], folder=folder)
    run([*pip, f"{wheel}[{extras}]"], folder=folder)
    state = {name: folder / name for name in ("workspace", "keys", "audit", "node")}
    environment = {
        "AEVORIUM_WORKSPACE": str(state["workspace"]),
        "AEVORIUM_KEY_FILE": str(state["keys"] / "checkpoint.key"),
        "AEVORIUM_AUDIT_KEY_FILE": str(state["audit"] / "audit.key"),
        "AEVORIUM_NODE_HOME": str(state["node"]),
        "AEVORIUM_API_HOST": "0.0.0.0",  # noqa: S104 - as in its container
    }
    run([program, "--help"], folder=folder, environment=environment)
    said = run([program, "doctor"], folder=folder, environment=environment)
    if not re.search(rf"installed for: .*\b{role}\b", said):
        sys.exit(f"doctor does not say that this is a {role}:\n{said}")
    run([program.with_name("python"), "-I", "-c", f"import {MODULES[role]}"], folder=folder, environment=environment)
    run([program.with_name("python"), "-I", "-c", SETUP, ROOT / "deploy"], folder=folder, environment=environment)
    if role == "api":
        serve(program, folder, environment)
    sys.stdout.write(f"{role}: ok\n")
    sys.stdout.flush()


MODULES = {"server": "aevorium.serving", "node": "aevorium.joining", "api": "aevorium.api.app"}
"""What each role's command loads once it is typed."""

SETUP = "import sys; sys.path.insert(0, sys.argv[1]); import setup"
"""The script that prepares volumes finds what it needs."""


def main() -> None:
    """Builds the wheel and checks it for every role whose image has PyTorch."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
        run(command, folder=folder)
        wheel = next(folder.glob("*.whl"))
        for role, extras in EXTRAS:
            (folder / role).mkdir()
            check(role, extras, wheel=wheel, folder=folder / role)


if __name__ == "__main__":
    main()
