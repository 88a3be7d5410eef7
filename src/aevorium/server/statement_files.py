"""The files of a run's privacy statement: both forms, and what the signed log says of them. Safe to release."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from aevorium.errors import ArtefactError
from aevorium.governance.chain import AuditChain
from aevorium.server.statement_form import PrivacyStatement
from aevorium.server.statement_page import statement_page
from aevorium.workspace import Workspace, write_atomically

__all__ = ["issued_statements", "statement_forms", "statement_hash", "write_statement"]


def statement_forms(workspace: Workspace) -> dict[Path, Callable[[PrivacyStatement], str]]:
    """What writes each form, by its file."""
    return {
        workspace.privacy_statement: statement_page,
        workspace.privacy_statement_json: PrivacyStatement.to_json,
    }


def statement_hash(text: str) -> str:
    """SHA-256 (hex) of a form's text in UTF-8, lines ending as on Unix."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_statement(workspace: Workspace, statement: PrivacyStatement) -> dict[str, str]:
    """Writes both forms.

    Args:
        workspace: The workspace of the run.
        statement: The statement.

    Returns:
        The hash of each file by its name. In the signed log it tells a later version, which words statements in its own
        way, that the files are as they were issued.
    """
    hashes = {}
    for path, render in statement_forms(workspace).items():
        text = render(statement)
        with write_atomically(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        hashes[path.name] = statement_hash(text)
    return hashes


def issued_statements(workspace: Workspace, *, run_id: str) -> dict[str, str]:
    """The hash of each form as the server issued it, by the file's name; empty if its log tells of none.

    Args:
        workspace: The workspace of the run.
        run_id: The run.
    """
    try:
        entries = AuditChain(workspace.database).entries() if workspace.database.is_file() else ()
    except ArtefactError:  # a damaged log is a finding of its own
        return {}
    for entry in entries:
        if entry.action == "results_written" and entry.detail.get("run_id") == run_id:
            return dict(entry.detail.get("statements", {}))
    return {}
