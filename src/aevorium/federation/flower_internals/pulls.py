"""How soon Flower asks again for a part of a message that is still on its way."""

from __future__ import annotations

from flwr.supercore.inflatable import inflatable_utils

__all__ = ["answer_pulls_sooner"]

_FIRST_WAIT, _LONGEST_WAIT = 0.02, 1.0


def answer_pulls_sooner() -> None:
    """Makes the first retry for a part of a message that is still on its way come at once instead of after 1 s."""
    for function in (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree):
        defaults = function.__kwdefaults__ or {}
        function.__kwdefaults__ = {**defaults, "initial_backoff": _FIRST_WAIT, "backoff_cap": _LONGEST_WAIT}
