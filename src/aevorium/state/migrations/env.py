"""Runs the steps on the connection that `Store` holds; there is no other way in, and no file of settings."""

from __future__ import annotations

from alembic import context

from aevorium.state.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
context.run_migrations()
