"""`StudyStore`: studies that runs are made of: a schema, a privacy target, a recipe. Public knowledge only."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping, Select, insert, select

from aevorium.errors import ArtefactError
from aevorium.state.store import Store
from aevorium.state.tables import STUDIES

__all__ = ["Study", "StudyStore"]


@dataclass(frozen=True)
class Study:
    """A study. It never changes: another schema or target is another study.

    Attributes:
        number: Its place in the order of registration.
        id: Its name for the world.
        name: What people call it.
        actor: Who registered it.
        created_at: UTC, ISO 8601.
        schema_text: Its schema as TOML.
        schema_hash: Content hash of that schema.
        choices: What was chosen, as JSON values.
    """

    number: int
    id: str
    name: str
    actor: str
    created_at: str
    schema_text: str
    schema_hash: str
    choices: Mapping[str, Any]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class StudyStore:
    """The studies of a server.

    Args:
        store: The database.
        now: The clock.
    """

    def __init__(self, store: Store, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._store = store
        self._now = now

    def add(
        self,
        *,
        name: str,
        actor: str,
        schema_text: str,
        schema_hash: str,
        choices: Mapping[str, Any],
        note: Callable[[Study], object] = lambda _: None,
    ) -> Study:
        """Registers a study.

        Args:
            name: What people call it.
            actor: Who registers it.
            schema_text: Its schema as TOML.
            schema_hash: Content hash of that schema.
            choices: What was chosen, as JSON values.
            note: Told of the study before it is there; if it fails, there is none.
        """
        study_id = secrets.token_hex(8)
        with self._store.write() as connection:
            connection.execute(
                insert(STUDIES).values(
                    id=study_id,
                    name=name,
                    actor=actor,
                    created_at=self._now().astimezone(UTC).isoformat(timespec="milliseconds"),
                    schema_text=schema_text,
                    schema_hash=schema_hash,
                    choices=dict(choices),
                )
            )
            study = _study(connection.execute(_of(study_id)).mappings().one())
            note(study)
        return study

    def find(self, study_id: str) -> Study:
        """The study of this id; raises ArtefactError (STUDY_NOT_FOUND) if there is none."""
        with self._store.read() as connection:
            row = connection.execute(_of(study_id)).mappings().first()
        if row is None:
            raise ArtefactError("STUDY_NOT_FOUND", "There is no such study.")
        return _study(row)

    def page(self, *, before: int | None = None, limit: int) -> tuple[Study, ...]:
        """Studies, newest first.

        Args:
            before: Only those registered before the study of this number.
            limit: How many at most.
        """
        query = select(STUDIES).order_by(STUDIES.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(STUDIES.c.number < before)
        with self._store.read() as connection:
            return tuple(_study(row) for row in connection.execute(query).mappings())


def _of(study_id: str) -> Select[Any]:
    return select(STUDIES).where(STUDIES.c.id == study_id)


def _study(row: RowMapping) -> Study:
    return Study(**{name: row[name] for name in Study.__dataclass_fields__})
