"""Starts Aevorium on a fresh machine. Needs nothing but Python 3.11 or newer; the standard library does the rest.

python start.py            makes .venv, installs, runs the demo
python start.py install    the environment only
python start.py test       installs, then runs the tests
python start.py check      installs, then everything that the gate runs
Add --cpu to take PyTorch's CPU build from PyTorch's own index: smaller where there is no GPU.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
BIN = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
ACTIVATE = r".venv\Scripts\activate" if os.name == "nt" else "source .venv/bin/activate"
STAMP = ENVIRONMENT / "installed.txt"
LOG = ROOT / ".venv-install.log"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

CHECKS = (
    ("lint", ["-m", "ruff", "check", "."], "python -m ruff check --fix ."),
    ("format", ["-m", "ruff", "format", "--check", "."], "python -m ruff format ."),
    ("types", ["-m", "mypy"], "correct the types named above"),
    (
        "imports",
        ["-c", "from importlinter.cli import lint_imports_command as check; check()"],
        "move the import named above",
    ),
    (
        "processes",
        ["-m", "pytest", "-q", "-n", "0", "tests/e2e", "--run-e2e"],
        "python -m pytest -q -n 0 tests/e2e --run-e2e",
    ),
    (
        "long tests",
        ["-m", "pytest", "-q", "-m", "long", "--run-long"],
        "python -m pytest -q -m long --run-long --last-failed",
    ),
    ("tests", ["-m", "pytest", "-q"], "python -m pytest -q --last-failed"),
)


def say(text: str) -> None:
    """Prints a line at once."""
    print(text, flush=True)


def wanted_stamp() -> str:
    """What the environment is made from: when it changes, the environment is installed again."""
    content = b"".join((ROOT / name).read_bytes() for name in ("requirements.txt", "pyproject.toml"))
    return hashlib.sha256(content + sys.version.encode()).hexdigest()


def has_pip() -> bool:
    """Whether the environment is whole: an interrupted start leaves one without pip."""
    if not PYTHON.is_file():
        return False
    command = [str(PYTHON), "-m", "pip", "--version"]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def make_environment() -> None:
    """Makes an empty environment with pip."""
    say(f"Making {ENVIRONMENT.name} with Python {sys.version.split()[0]}")
    try:
        venv.create(ENVIRONMENT, with_pip=True, clear=ENVIRONMENT.exists())
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"The environment cannot be made: {error}")
        say("Check that the disk can be written. On Debian and Ubuntu, type: sudo apt install python3-venv")
        sys.exit(1)


def install(*, cpu: bool) -> None:
    """Makes the environment, unless it is there already."""
    if STAMP.is_file() and STAMP.read_text() == wanted_stamp():
        return
    if not has_pip():
        make_environment()
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "-r", "requirements.txt"]
    if cpu:
        command += ["--extra-index-url", CPU_INDEX]
        say(f"Taking PyTorch's CPU build from {CPU_INDEX}")
    say("Installing what Aevorium needs (some minutes and about 2 GB the first time)")
    with LOG.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        for line in process.stdout or ():
            log.write(line)
            if line.startswith(("Collecting", "Installing", "Successfully")):
                say("  " + line.strip()[:110])
        status = process.wait()
    if status:
        tail = LOG.read_text(encoding="utf-8").splitlines()[-8:]
        say("\n".join(["The installation failed. The last lines of pip:", *("  " + line for line in tail)]))
        say(f"The whole log is {LOG.name}. Check the network and the disk, then type the command again.")
        sys.exit(1)
    STAMP.write_text(wanted_stamp())


def run(arguments: list[str]) -> int:
    """Runs the environment's Python."""
    return subprocess.run([str(PYTHON), *arguments], cwd=ROOT, check=False).returncode


def check() -> int:
    """Runs every check, and says after each failure what mends it."""
    failed = []
    for name, arguments, remedy in CHECKS:
        say(f"== {name}")
        if run(arguments):
            failed.append(f"{name} failed. What mends it: {remedy}")
    for line in failed:
        say(line)
    return 1 if failed else 0


def main() -> int:
    """Does what was asked for."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--cpu"]
    verb = arguments[0] if arguments else "demo"
    if sys.version_info < (3, 11):  # noqa: UP036 - the machine's own Python may be older
        say(f"Aevorium needs Python 3.11 or newer. This is {sys.version.split()[0]}.")
        say("Install a newer one from python.org, then type: python3.11 start.py")
        return 2
    if verb in ("-h", "--help") or verb not in ("demo", "install", "test", "check"):
        say(__doc__ or "")
        return 0 if verb in ("-h", "--help") else 2
    install(cpu="--cpu" in sys.argv)
    if verb == "install":
        say("Installed. Type: python start.py")
        return 0
    if verb == "test":
        return run(["-m", "pytest", "-q", *arguments[1:]])
    if verb == "check":
        return check()
    status = run(["-m", "aevorium", "demo", *arguments[1:]])
    if not status:
        say(f"The command aevorium is there once you typed: {ACTIVATE}")
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("Stopped. Type the command again to go on.")
        sys.exit(1)
