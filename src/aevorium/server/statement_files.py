"""The files of a run's privacy statement, and what the signed log says of them. Safe to release."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aevorium.errors import ArtefactError
from aevorium.governance.chain import AuditChain
from aevorium.governance.code import code_hash
from aevorium.server.statement_form import PrivacyStatement
from aevorium.server.statement_page import statement_page
from aevorium.workspace import Workspace, write_atomically

__all__ = ["Issued", "read_issued", "statement_forms", "statement_hash", "write_statement"]


def statement_forms(workspace: Workspace) -> dict[Path, Callable[[PrivacyStatement], str]]:
    """What writes each form, by its file."""
    return {
        workspace.privacy_statement: statement_page,
        workspace.privacy_statement_json: PrivacyStatement.to_json,
    }


def statement_hash(text: str) -> str:
    """SHA-256 (hex) of a file's text in UTF-8, lines ending as on Unix."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Issued:
    """What the server's signed log holds of a run's results.

    Attributes:
        hashes: SHA-256 (hex) of the record and of both forms of the statement, by the file's name; empty for a run that
            logged none.
        code: Hash of the code of the server that wrote them; empty likewise.
    """

    hashes: Mapping[str, str]
    code: str

    @property
    def is_of_another_version(self) -> bool:
        """Whether other code than this wrote them: words and rules may then differ from ours."""
        return self.code not in ("", code_hash())


def write_statement(workspace: Workspace, statement: PrivacyStatement) -> dict[str, object]:
    """Writes both forms.

    Args:
        workspace: The workspace of the run, with its record.
        statement: The statement.

    Returns:
        What `read_issued` reads, for the signed log: it tells a later version, which words statements in its own way,
        that record and statement are as they were issued.
    """
    for path, render in statement_forms(workspace).items():
        with write_atomically(path) as temporary:
            temporary.write_text(render(statement), encoding="utf-8", newline="\n")
    files = (workspace.study, *statement_forms(workspace))
    hashes = {path.name: statement_hash(path.read_text(encoding="utf-8")) for path in files}
    return {"hashes": hashes, "code": code_hash()}


def read_issued(workspace: Workspace, *, run_id: str) -> Issued:
    """What the server's log holds of a run's results.

    Args:
        workspace: The workspace of the run.
        run_id: The run.
    """
    try:
        entries = AuditChain(workspace.database).entries() if workspace.database.is_file() else ()
    except ArtefactError:  # a damaged log is a finding of its own
        entries = ()
    for entry in entries:
        if entry.action == "results_written" and entry.detail.get("run_id") == run_id:
            return Issued(hashes=entry.detail.get("hashes", {}), code=entry.detail.get("code", ""))
    return Issued(hashes={}, code="")
