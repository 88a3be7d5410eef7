"""What the packages offer says what it is for, and the client is in the reference of the API."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import aevorium
from aevorium.client import Client

REFERENCE = Path(__file__).parents[2] / "docs" / "API_REFERENCE.md"
# A step between versions of the database can be loaded by its migration alone.
PACKAGES = sorted(
    module.name
    for module in pkgutil.walk_packages(aevorium.__path__, "aevorium.")
    if module.name != "aevorium.__main__" and ".migrations." not in module.name
)


def _undocumented(name: str, thing: object) -> Iterator[str]:
    """The names of what says nothing: itself, and the public methods and properties that a class defines."""
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return
    if not (thing.__doc__ or "").strip():
        yield name
    if inspect.isclass(thing) and thing.__module__.startswith("aevorium"):
        # A field whose value is a function is described with the fields.
        fields = getattr(thing, "__dataclass_fields__", {})
        for method, value in vars(thing).items():
            is_callable = isinstance(value, property | classmethod | staticmethod) or inspect.isfunction(value)
            if (
                is_callable
                and method not in fields
                and not method.startswith("_")
                and not inspect.getdoc(getattr(thing, method))
            ):
                yield f"{name}.{method}"


@pytest.mark.parametrize("package", PACKAGES)
def test_all_that_is_offered_is_there_and_says_what_it_is_for(package: str) -> None:
    module = importlib.import_module(package)
    assert (module.__doc__ or "").strip()
    offered = getattr(module, "__all__", [])
    silent = [found for name in offered for found in _undocumented(name, getattr(module, name))]
    assert silent == []


def test_what_says_nothing_is_found() -> None:
    class Silent:
        def method(self) -> None: ...

    Silent.__module__ = "aevorium.made_up"
    assert list(_undocumented("Silent", Silent)) == ["Silent", "Silent.method"]


def test_every_method_of_the_client_is_in_the_reference() -> None:
    section = REFERENCE.read_text(encoding="utf-8").split("## The client in Python")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)\(", section, re.MULTILINE))
    public = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")}
    assert named == public
