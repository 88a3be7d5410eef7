"""Long lists in pages: a page holds as many lines as a person reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import streamlit as st

__all__ = ["LINES", "next_of", "position", "turn", "window"]

Item = TypeVar("Item")

LINES = 20


def position(key: str) -> int | None:
    """The cursor of the page that is shown; None on the first."""
    visited: list[int] = st.session_state.get(f"_at_{key}", [])
    return visited[-1] if visited else None


def turn(key: str, *, following: int | None, back: str = "Newer", forth: str = "Older") -> None:
    """Draws the buttons that turn the page, if there is more than one.

    Args:
        key: The list.
        following: The next page's cursor; None on the last.
        back: What the page before is called.
        forth: What the next one is called.
    """
    visited: list[int] = st.session_state.get(f"_at_{key}", [])
    if not visited and following is None:
        return

    def go_back() -> None:
        st.session_state[f"_at_{key}"] = visited[:-1]

    def go_forth() -> None:
        st.session_state[f"_at_{key}"] = [*visited, following]

    with st.container(horizontal=True):
        st.button(back, key=f"{key}-back", disabled=not visited, on_click=go_back)
        st.button(forth, key=f"{key}-forth", disabled=following is None, on_click=go_forth)
        st.caption(f"Page {len(visited) + 1}")


def window(key: str, items: Sequence[Item], *, lines: int = LINES) -> Sequence[Item]:
    """The part of a whole list that is shown.

    Args:
        key: The list.
        items: All of it.
        lines: How many are shown.
    """
    start = position(key) or 0
    if start >= len(items):
        start = 0
        st.session_state.pop(f"_at_{key}", None)
    return items[start : start + lines]


def next_of(key: str, items: Sequence[Item], *, lines: int = LINES) -> int | None:
    """Where the next window begins; None if there is none."""
    start = (position(key) or 0) + lines
    return start if start < len(items) else None
