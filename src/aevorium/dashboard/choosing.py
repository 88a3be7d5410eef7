"""Choosing a model: the newest first, with names that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from aevorium.client.answers import ModelView
from aevorium.dashboard import session
from aevorium.dashboard.states import empty
from aevorium.dashboard.wording import epsilon, moment

__all__ = ["choose_model", "label_of", "models"]


def models() -> list[ModelView]:
    """Every model that rows can be drawn from; if there is none, says how there will be one."""
    found = session.api().models()
    if not found:
        empty("There is no model yet. It is what a run leaves behind.", page="training", label="Order a run")
    return found


def label_of(model: ModelView) -> str:
    """A model in one line."""
    return f"{model.study}, ε {epsilon(model.epsilon)}, {moment(model.started_at)} ({model.id[:6]})"


def choose_model(found: Sequence[ModelView], *, key: str, label: str = "Run", index: int = 0) -> ModelView:
    """Asks for one of the models."""
    chosen: ModelView = st.selectbox(label, found, format_func=label_of, key=key, index=index)
    return chosen
