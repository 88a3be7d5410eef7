"""`aevorium audit verify`: is the chain of a workspace sound, and do ledgers, budget file and statement agree?

ε is computed again from the events in each node's ledger; no stored figure is believed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aevorium.errors import ArtefactError
from aevorium.governance.chain import AuditChain, AuditEntry
from aevorium.governance.checkpoints import check_checkpoints
from aevorium.governance.log_file import LogJudgement, judge_log, read_log
from aevorium.governance.periods import PeriodHistory
from aevorium.governance.steward import check_signatures
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import is_within
from aevorium.privacy.ledger import LedgerRun, SqliteLedger
from aevorium.privacy.phases import plan_budget
from aevorium.schema.table import TableSchema
from aevorium.server.record import NodeRecord, StudyRecord, load_study
from aevorium.server.statement import node_size, privacy_statement
from aevorium.server.statement_files import Issued, read_issued, statement_forms, statement_hash
from aevorium.workspace import Workspace

__all__ = ["Finding", "VerificationResult", "check_log", "verify_export", "verify_workspace"]


_AS_ISSUED = "It is as it was issued: the server's log holds its hash."
_NOT_ISSUED = "It is not the one that was issued: the server's log holds another hash."
_OTHER_WORDS = "Another version of Aevorium (code {}…) chose its words, which only that version can write anew."

_VERDICT = {True: "ok", False: "BROKEN", None: "not checked"}


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        subject: What was checked.
        is_sound: Whether it holds; None if it could not be checked here.
        text: What was found, in one sentence.
    """

    subject: str
    is_sound: bool | None
    text: str


@dataclass(frozen=True)
class VerificationResult:
    """What a verification found.

    Attributes:
        checks: Everything that was checked, in order.
    """

    checks: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether all that could be checked here holds."""
        return all(check.is_sound is not False for check in self.checks)

    @property
    def findings(self) -> tuple[str, ...]:
        """One line for each check."""
        return tuple(f"{_VERDICT[check.is_sound]}: {check.subject}. {check.text}" for check in self.checks)


def verify_export(path: Path, *, public_key: str | None = None, earlier: Path | None = None) -> VerificationResult:
    """Checks an exported `audit_log.json` by itself, offline.

    Args:
        path: The file.
        public_key: The key of the log (hex), known from elsewhere: the steward's of a node, or a server's. That of the
            log's first checkpoint if None.
        earlier: An earlier export of the same log, which this one must continue.

    Raises:
        ArtefactError: ARTEFACT_NOT_FOUND, or AUDIT_BROKEN if it is no audit log at all.
    """
    judgement = judge_log(read_log(path), public_key=public_key)
    subject = f"Audit log {path.name!r}"
    if judgement.problem is not None:
        return VerificationResult((Finding(subject, False, judgement.problem),))
    statements = _check_statements(
        f"Steward's statements in {path.name!r}",
        judgement.entries,
        public_key=public_key,
        is_needed=judgement.public_key is None,
    )
    continued = () if earlier is None else (_check_earlier(earlier, judgement, public_key=public_key),)
    return VerificationResult(
        (
            Finding(subject, True, _size(judgement.entries)),
            _checkpoint_finding(f"Checkpoints in {path.name!r}", judgement, is_pinned=public_key is None),
            *statements,
            *continued,
        )
    )


def _size(entries: Sequence[AuditEntry]) -> str:
    return f"{len(entries)} entries, head {entries[-1].hash[:16] if entries else 'none'}."


def _checkpoint_finding(subject: str, judgement: LogJudgement, *, is_pinned: bool) -> Finding:
    if judgement.signing_problem is not None:
        return Finding(subject, False, judgement.signing_problem)
    if judgement.signed is None:
        return Finding(subject, None, "None: an older version of Aevorium wrote the log, and signed no checkpoints.")
    return Finding(subject, True, f"{judgement.signed}, {'pinned by the first' if is_pinned else 'the one given'}.")


def _check_earlier(path: Path, later: LogJudgement, *, public_key: str | None) -> Finding:
    """Whether a log goes on where an earlier export of it ended: the way to see that its end was cut off."""
    subject = f"Continuation of {path.name!r}"
    earlier = judge_log(read_log(path), public_key=public_key)
    problem = earlier.problem or earlier.signing_problem
    if problem is not None:
        return Finding(subject, False, f"The earlier log itself does not verify. {problem}")
    if earlier.public_key != later.public_key and earlier.public_key is not None:
        return Finding(subject, False, "The two logs are signed with different keys.")
    for before, now in zip(earlier.entries, later.entries, strict=False):
        if before.hash != now.hash:
            return Finding(subject, False, f"Entry {now.seq} is another than it was then.")
    if len(later.entries) < len(earlier.entries):
        first, last = len(later.entries) + 1, len(earlier.entries)
        return Finding(subject, False, f"It had {last} entries then: from entry {first} on, they were cut off.")
    return Finding(subject, True, f"Its {len(earlier.entries)} entries are all here, unchanged.")


def verify_workspace(
    workspace: Workspace, *, homes: Sequence[Path] = (), public_key: str | None = None, own_key: str | None = None
) -> VerificationResult:
    """Checks the workspace of a run: chains, checkpoints, views, ledgers, budget file, statement.

    Args:
        workspace: The workspace.
        public_key: The key (hex) that must have signed the server's log; that of its first checkpoint if None.
        own_key: The key (hex) with which this machine signs its logs. A log of another key may be another machine's, or
            one that was written anew: the result says that only who holds the right key can tell.
        homes: Folders with homes of nodes, by name, that are on this machine. A real node that is in none of them
            cannot be checked here, and the result says so.

    Raises:
        ArtefactError: ARTEFACT_NOT_FOUND, if there is no run in it.
    """
    record, schema = load_study(workspace)
    issued = read_issued(workspace, run_id=record.run_id)
    checks = [
        *check_log("the server", workspace.database, workspace.audit_log, head=record.audit_head, key=public_key),
        *_check_own(workspace, own_key if public_key is None else None),
        *_check_nodes(record, workspace, homes=homes, issued=issued),
        *_check_statement(record, schema, workspace, issued=issued),
    ]
    return VerificationResult(tuple(checks))


def check_log(owner: str, chain: Path, view: Path, *, head: str | None, key: str | None) -> Iterator[Finding]:
    """The chain itself, its checkpoints, and the file that is a view of it.

    Args:
        owner: Whose it is.
        chain: The chain.
        view: The file.
        head: The hash of an entry that it must hold.
        key: The key (hex) that must have signed it; that of its first checkpoint if None.
    """
    sound = _check_chain(f"Audit chain of {owner}", chain, head=head)
    yield sound
    if not sound.is_sound:
        return
    signed, pinned = _check_signed(owner, chain, public_key=key)
    yield signed
    if owner != "the server" and not view.is_file():
        yield Finding(
            f"Audit log of {owner}", None, f"The file {view.name!r} is not there: no request was answered yet."
        )
        return
    yield _check_view(f"Audit log of {owner}", view, chain, public_key=key or pinned)


def _check_own(workspace: Workspace, own_key: str | None) -> Iterator[Finding]:
    """Whether the server's log is one of this machine's, as far as anybody can know here."""
    pinned = check_checkpoints(AuditChain(workspace.database).checkpoints(), heads=()).public_key
    if own_key is not None and pinned not in (None, own_key):
        text = (
            f"It is {str(pinned)[:16]}…, this machine's is {own_key[:16]}…. Give the one that you expect: --public-key."
        )
        yield Finding("Key of the server's log", None, text)


def _check_chain(subject: str, path: Path, *, head: str | None) -> Finding:
    if not path.is_file():
        return Finding(subject, False, f"The file {path.name!r} is missing.")
    report = AuditChain(path).verify(expected_head=head)
    if report.problem is not None:
        return Finding(subject, False, report.problem.message)
    return Finding(subject, True, f"{report.length} entries, head {report.head[:16]}.")


def _check_signed(owner: str, path: Path, *, public_key: str | None) -> tuple[Finding, str | None]:
    """Whether a sound chain is the one that was signed, and with which key.

    Args:
        owner: Whose chain it is.
        path: The chain.
        public_key: The key (hex) that must have signed it; that of its first checkpoint if None.
    """
    subject, chain = f"Checkpoints of {owner}", AuditChain(path)
    # Entries may be added meanwhile: checkpoints read first are about entries read later, never the other way round.
    checkpoints, entries = chain.checkpoints(), chain.entries()
    found = check_checkpoints(checkpoints, heads=[entry.hash for entry in entries], public_key=public_key)
    if found.problem is not None:
        return Finding(subject, False, found.problem), found.public_key
    if entries and not found.count:
        return Finding(subject, False, "There is none: nothing shows that the chain was not written anew."), None
    behind = len(entries) - found.covered
    rest = f", {behind} more since" if behind else ""
    text = f"{found.count} over {found.covered} entries{rest}, signed with the key {str(found.public_key)[:16]}…"
    return Finding(subject, True, f"{text}."), found.public_key


def _check_view(subject: str, view_path: Path, chain_path: Path, *, public_key: str | None) -> Finding:
    """The exported file must be a beginning of the chain: entries may have been added since, none changed.

    It is signed as a whole, the chain up to its last checkpoint: what was cut off the chain behind that shows here.
    """
    try:
        view = read_log(view_path)
    except ArtefactError as error:
        return Finding(subject, False, error.message)
    entries = AuditChain(chain_path).export()
    if not entries and not view.entries:
        return Finding(subject, True, "No entry yet, in the file or in the chain.")
    if view.entries != entries[: len(view.entries)] or not view.entries:
        return Finding(subject, False, "The file differs from the chain that it is a view of.")
    judgement = judge_log(view, public_key=public_key)
    problem = judgement.problem or judgement.signing_problem
    if problem is not None:
        return Finding(subject, False, problem)
    return Finding(subject, True, f"{len(view.entries)} entries, as in the chain.")


def _check_nodes(
    record: StudyRecord, workspace: Workspace, *, homes: Sequence[Path], issued: Issued
) -> Iterator[Finding]:
    budget = _read_budget(workspace)
    told = {node.name: node for node in record.nodes}
    for name in record.plan.nodes:
        home = workspace.node_home(name)
        here = [root / name for root in homes if (root / name / "ledger.db").is_file()]
        if not record.is_simulated_federation:
            if not here:
                said = told[name].spent if name in told else None
                text = f"It lies with the node; ε = {said} is what the node said at the end of the run."
                yield Finding(f"Ledger of node {name!r}", None, text)
                continue
            home = here[0]
        elif not home.exists() and here:
            # The run of a server whose nodes outlive its runs.
            home = here[0]
        log = list(check_log(f"node {name!r}", home / "audit.db", home / "audit_log.json", head=None, key=None))
        yield from log
        if log[0].is_sound:
            yield from _check_steward(name, home)
        subject = f"Ledger of node {name!r}"
        if not (home / "ledger.db").is_file():
            yield Finding(subject, False, "The file 'ledger.db' is missing.")
            continue
        run = SqliteLedger(home / "ledger.db").run(record.run_id)
        if run is None:
            yield Finding(subject, False, f"It knows no run {record.run_id}.")
            continue
        yield _check_run(subject, run, record, claimed=budget.get(name), told_of=told.get(name), issued=issued)


def _check_steward(node: str, home: Path) -> Iterator[Finding]:
    """Whether the statements are signed, and every period that a run was charged to is among those opened."""
    chain, subject = AuditChain(home / "audit.db"), f"Statements of the steward of node {node!r}"
    opened = {each.budget.period for each in PeriodHistory.of(chain).limits}
    used = SqliteLedger(home / "ledger.db").periods() if (home / "ledger.db").is_file() else ()
    strange = next((period for period in used if period not in opened), None)
    if strange is not None:
        yield Finding(subject, False, f"None opens the period {strange!r}, and runs are charged to it.")
        return
    entries = chain.entries()
    signed = check_checkpoints(chain.checkpoints(), heads=[entry.hash for entry in entries]).public_key
    spoken = check_signatures(entries).public_key
    if signed is not None and spoken is not None and signed != spoken:
        text = f"They are signed with the key {spoken[:16]}…, the checkpoints with {signed[:16]}…: one key signs both."
        yield Finding(subject, False, text)
        return
    yield from _check_statements(subject, entries)


def _check_statements(
    subject: str, entries: Sequence[AuditEntry], *, public_key: str | None = None, is_needed: bool = True
) -> Iterator[Finding]:
    """Whether every period, limit and consent is signed with one key.

    Nothing is found in a chain of no node, such as a server's, unless a key is given that must have signed something.
    """
    report = check_signatures(entries, public_key=public_key)
    if report.problem is not None:
        yield Finding(subject, False, report.problem)
    elif report.count:
        text = f"{report.count} signed with the key {str(report.public_key)[:16]}…"
        yield Finding(subject, True, f"{text}, the one given." if public_key else f"{text}, pinned by the first.")
    elif public_key is not None and is_needed:
        yield Finding(subject, False, "It holds none, so the key given has signed nothing.")


def _check_run(
    subject: str, run: LedgerRun, record: StudyRecord, *, claimed: object, told_of: NodeRecord | None, issued: Issued
) -> Finding:
    plan = record.plan
    told = None if told_of is None else told_of.spent
    spent = epsilon(run.events, delta=plan.delta)
    if hashlib.sha256(run.plan_json.encode()).hexdigest() != plan.content_hash:
        return Finding(subject, False, "The plan that the node agreed to is not the one of the study's record.")
    # Nodes have equal schedules where a patient may be at several: those of one, as often, are those of any of them.
    together = epsilon(run.events * plan.max_nodes_per_patient, delta=plan.delta)
    if together > plan.epsilon:
        return Finding(subject, False, f"Its events cost ε = {together:g}, more than the claim of {plan.epsilon:g}.")
    if record.status == "finished" and claimed != (spent if spent < float("inf") else "Infinity"):
        return Finding(subject, False, f"Its events cost ε = {spent:g}; the budget file says {claimed}.")
    # A server that was killed holds no spend yet (`running`); every other record must say what the ledger says.
    if told != spent and not (told is None and record.status == "running"):
        return Finding(subject, False, f"Its events cost ε = {spent:g}; the study's record says {told}.")
    # Another version may have divided the budget by other rules.
    if not issued.is_of_another_version and not _is_stated(run, record, told_of):
        return Finding(subject, False, "It holds events that the study's record and statement do not.")
    return Finding(
        subject,
        True,
        f"{len(run.releases)} releases cost ε = {spent:g} at δ = {plan.delta:g}, within the claim of {plan.epsilon:g}.",
    )


def _is_stated(run: LedgerRun, record: StudyRecord, node: NodeRecord | None) -> bool:
    """Whether a node released nothing but what the record's plan, sizes and count say; a lost node released less."""
    size = None if node is None else node_size(record, node)
    if not record.plan.is_private or size is None:
        return True
    return is_within(run.events, plan_budget(record.plan, records=record.records).events(size))


def _read_budget(workspace: Workspace) -> dict[str, object]:
    """What the budget file says each node spent; empty if it cannot be read."""
    try:
        view = json.loads(workspace.privacy_budget.read_text(encoding="utf-8"))
        return {str(name): entry["spent"] for name, entry in view["nodes"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _check_statement(
    record: StudyRecord, schema: TableSchema, workspace: Workspace, *, issued: Issued
) -> Iterator[Finding]:
    """The record, and both forms of the statement against what record and plan say."""
    forms = statement_forms(workspace)
    if record.status != "finished":
        exists = any(path.exists() for path in forms)
        text = (
            "The run did not finish, so none may exist."
            if exists
            else "None: the run did not finish. No claim is made."
        )
        yield Finding("Privacy statement", not exists, text)
        return
    statement, hashes = privacy_statement(record, schema), issued.hashes
    if workspace.study.name in hashes:
        is_same = hashes[workspace.study.name] == statement_hash(workspace.study.read_text(encoding="utf-8"))
        yield Finding("Study's record", is_same, _AS_ISSUED if is_same else _NOT_ISSUED)
    for path, render in forms.items():
        subject = f"Privacy statement {path.name!r}"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            yield Finding(subject, False, "It is missing or cannot be read.")
            continue
        if path.name in hashes and hashes[path.name] != statement_hash(text):
            yield Finding(subject, False, _NOT_ISSUED)
        elif text == render(statement):
            claim = f"ε = {statement.epsilon:g}, δ = {statement.delta:g}"
            yield Finding(subject, True, f"It says what the ledgers say: {claim}.")
        elif path.name in hashes and issued.is_of_another_version:
            yield Finding(subject, None, f"{_AS_ISSUED} {_OTHER_WORDS.format(issued.code[:16])}")
        else:
            yield Finding(subject, False, "It differs from what the run's record and plan say.")
