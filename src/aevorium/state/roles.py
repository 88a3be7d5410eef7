"""The roles of people."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["ROLES", "Role"]

Role = Literal["steward", "engineer", "researcher", "auditor"]
ROLES: tuple[Role, ...] = get_args(Role)
