"""Virtual environments of the peers and of the scores, made when they are first needed, with pinned versions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ENVIRONMENTS", "Environment", "interpreter", "versions"]

_TOLD = (
    "aevorium", "ctgan", "dp-accounting", "dpmm", "flwr", "numpy", "opacus", "opendp", "pandas", "scikit-learn",
    "scipy", "sdmetrics", "torch", "xgboost-cpu",
)  # fmt: skip
"""Packages whose versions a result names."""


@dataclass(frozen=True)
class Environment:
    """An environment of its own, apart from Aevorium's.

    Attributes:
        name: Name of its folder.
        packages: What is installed, pinned.
        python: Newest Python that it works with, as (major, minor).
    """

    name: str
    packages: tuple[str, ...]
    python: tuple[int, int] = (3, 13)


ENVIRONMENTS = {
    "scores": Environment("scores", ("sdmetrics==0.32.0", "xgboost-cpu==3.2.0", "scikit-learn==1.9.1")),
    "plots": Environment("plots", ("matplotlib==3.11.2",)),
    "dpmm": Environment("dpmm", ("dpmm==0.1.9",), python=(3, 11)),
    "ctgan": Environment("ctgan", ("ctgan==0.12.1", "torch==2.13.0")),
}


def interpreter(name: str, *, cache: Path) -> Path:
    """The Python of an environment, which is made if it is not there, or is one of other versions.

    Args:
        name: A key of `ENVIRONMENTS`.
        cache: The folder that holds environments.

    Raises:
        RuntimeError: No Python of this machine is old enough, or the packages cannot be installed.
    """
    wanted = ENVIRONMENTS[name]
    folder = cache / "environments" / name
    python, marker = folder / "bin" / "python", folder / "installed.json"
    pins = json.dumps(wanted.packages)
    if marker.is_file() and marker.read_text(encoding="utf-8") == pins:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [_base_python(wanted), "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted.packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - commands of this file
        if done.returncode:
            raise RuntimeError(f"the environment {name!r} cannot be made: {_last_line(done.stderr)}")
    marker.write_text(pins, encoding="utf-8")
    return python


def versions(python: Path) -> dict[str, str]:
    """Python and the packages of an environment that bear on a result."""
    code = (
        "import json, platform; from importlib.metadata import distributions;"
        "print(json.dumps({'python': platform.python_version(),"
        "**{d.metadata['Name'].lower(): d.version for d in distributions()}}))"
    )
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    found: dict[str, str] = json.loads(done.stdout)
    return {name: version for name, version in sorted(found.items()) if name == "python" or name in _TOLD}


def _base_python(wanted: Environment) -> str:
    if sys.version_info[:2] <= wanted.python:
        return sys.executable
    name = "python{}.{}".format(*wanted.python)
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"the environment {wanted.name!r} needs {name}, which this machine does not have")
    return found


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
