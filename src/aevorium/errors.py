"""Every error a person can meet, in one catalogue.

The tree::

    AevoriumError
    ├── UserError            something the person can change
    │   ├── ConfigError      a flag, a setting, a file of settings
    │   ├── DataError        a table that cannot be used as it is
    │   ├── SchemaError      a schema file that cannot be used
    │   ├── ArtefactError    a file of a workspace: missing, damaged, of another study
    │   ├── PolicyRefused    the steward's policy says no
    │   └── BudgetExceeded   the privacy budget says no
    ├── FederationError      nodes or servers that did not answer, or too few of them
    └── InternalError        our own bug

A message reads "Problem. Reason." and the hint says what to do. Neither ever holds a patient's value: both may be
shown on another machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "CATALOGUE",
    "AevoriumError",
    "ArtefactError",
    "BudgetExceeded",
    "ConfigError",
    "DataError",
    "ExitStatus",
    "FederationError",
    "InternalError",
    "PolicyRefused",
    "SchemaError",
    "UserError",
]


class ExitStatus(IntEnum):
    """What a command's exit status means (fixed by the product's contract)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    NOT_REACHABLE = 4
    BUG = 5


@dataclass(frozen=True)
class CatalogueEntry:
    """What is known of an error code before it happens.

    Attributes:
        summary: One sentence that is safe to show to anyone.
        remedy: What to do about it.
        exit_status: The status with which a command ends.
        http_status: The status with which the API answers.
    """

    summary: str
    remedy: str
    exit_status: ExitStatus = ExitStatus.FAILED
    http_status: int = 400


_USAGE, _REFUSED, _AWAY, _BUG = ExitStatus.USAGE, ExitStatus.REFUSED, ExitStatus.NOT_REACHABLE, ExitStatus.BUG

CATALOGUE: dict[str, CatalogueEntry] = {
    # settings and flags
    "CONFIG_INVALID": CatalogueEntry(
        "A setting has a value that is not allowed.", "Correct the setting named.", _USAGE, 422
    ),
    "CONFIG_CONFLICT": CatalogueEntry("Two settings contradict each other.", "Give only one of them.", _USAGE, 422),
    "FEATURE_UNAVAILABLE": CatalogueEntry(
        "This version cannot do that.", "Use one of the forms that the help lists.", _USAGE, 501
    ),
    "DEVICE_NOT_FOUND": CatalogueEntry(
        "This machine has no such device, or PyTorch cannot use it.", "Use --device cpu, or auto.", _USAGE, 501
    ),
    "DEPENDENCY_MISSING": CatalogueEntry(
        "A library that this command needs is not installed.", "Install the extra named.", _USAGE, 501
    ),
    # schemas
    "SCHEMA_NOT_FOUND": CatalogueEntry("The schema file does not exist.", "Check the path.", _USAGE, 404),
    "SCHEMA_INVALID": CatalogueEntry("The schema file cannot be used.", "Correct the entry named.", _USAGE, 422),
    "EXPRESSION_INVALID": CatalogueEntry(
        "A rule, constraint or condition cannot be parsed.", "See the grammar in the schema documentation.", _USAGE, 422
    ),
    "CONSTRAINT_UNSATISFIABLE": CatalogueEntry(
        "Almost no generated row satisfies the constraints.", "Relax the constraint named, or train on more data."
    ),
    "CONDITION_UNSATISFIABLE": CatalogueEntry(
        "Next to no generated row is of the kind asked for.",
        "Relax the condition, leave the category out, or ask for no more rows than were found.",
    ),
    # tables
    "DATA_NOT_FOUND": CatalogueEntry("The data file does not exist.", "Check the path.", _USAGE, 404),
    "DATA_UNREADABLE": CatalogueEntry(
        "The data file cannot be read.", "Save it as UTF-8 CSV with commas.", http_status=422
    ),
    "DATA_EMPTY": CatalogueEntry("The table holds no rows.", "Give a file with at least one record.", http_status=422),
    "DATA_COLUMN_MISSING": CatalogueEntry(
        "The table lacks a column of the schema.", "Add the column, or take it out of the schema.", http_status=422
    ),
    "DATA_CATEGORY_UNKNOWN": CatalogueEntry(
        "A column holds categories that the schema does not list.",
        "Add them to the schema, or declare an 'other' category.",
        http_status=422,
    ),
    "DATA_NOT_NUMERIC": CatalogueEntry(
        "A continuous column holds text.", "Correct the cells, or declare the column categorical.", http_status=422
    ),
    "DATA_MISSING_UNDECLARED": CatalogueEntry(
        "A column has empty cells but its schema entry does not say 'missing = true'.",
        "Declare it, or fill the cells.",
        http_status=422,
    ),
    "DATA_DUPLICATE_UNIT": CatalogueEntry(
        "A unit (patient) appears in more than one row.", "Keep one record per unit.", http_status=422
    ),
    "SYNTHEA_INCOMPLETE": CatalogueEntry(
        "A table or column of the Synthea export is missing.", "Export all seven tables as CSV.", http_status=422
    ),
    # files of a workspace
    "WORKSPACE_UNWRITABLE": CatalogueEntry(
        "The workspace cannot be written.", "Choose another with --workspace, or free the disk.", _USAGE, 507
    ),
    "ARTEFACT_NOT_FOUND": CatalogueEntry(
        "The workspace does not hold the file that this command needs.",
        "Run the command that makes it first.",
        http_status=404,
    ),
    # jobs and access
    "UNAUTHENTICATED": CatalogueEntry(
        "The API does not know who asks.",
        "Send 'Authorization: Bearer KEY' with a key that a steward made; from the API's own machine, the token that it"
        " printed counts too.",
        _REFUSED,
        401,
    ),
    "FORBIDDEN": CatalogueEntry(
        "The key's role does not allow this.", "Ask a steward for a key of another role.", _REFUSED, 403
    ),
    "API_UNPROTECTED": CatalogueEntry(
        "The API would be open to other machines without any key.",
        "Make a key first, name an issuer of tokens, or listen on this machine alone.",
        _USAGE,
    ),
    "RATE_LIMITED": CatalogueEntry(
        "There were too many requests in a short time.",
        "Wait as long as the header Retry-After says. AEVORIUM_API_RATE sets the limit.",
        _REFUSED,
        429,
    ),
    "ISSUER_UNREACHABLE": CatalogueEntry(
        "The issuer of tokens cannot be asked for its keys.",
        "Try again soon, or use an API key. If it stays: check AEVORIUM_OIDC_ISSUER and the way to it.",
        _AWAY,
        503,
    ),
    "NOT_READY": CatalogueEntry("The API cannot serve requests yet.", "Try again soon.", _AWAY, 503),
    "REQUEST_INVALID": CatalogueEntry(
        "A request's fields do not hold what they should.", "Correct the fields named.", _USAGE, 422
    ),
    "REQUEST_TOO_LARGE": CatalogueEntry("A request's body is too long.", "Send less, and say its length.", _USAGE, 413),
    "ROUTE_NOT_FOUND": CatalogueEntry("There is nothing at this address.", "See /docs.", _USAGE, 404),
    "METHOD_NOT_ALLOWED": CatalogueEntry("This address takes another method.", "See /docs.", _USAGE, 405),
    "JOB_NOT_FOUND": CatalogueEntry(
        "There is no job of this id.", "List them, and take an id from there.", http_status=404
    ),
    "JOB_INTERRUPTED": CatalogueEntry(
        "A job's process ended before the job did.",
        "What nodes had released stays charged. Start it again if it is still wanted.",
        http_status=500,
    ),
    "QUEUE_FULL": CatalogueEntry("Too many jobs wait.", "Ask again when some have ended.", http_status=429),
    "IDEMPOTENCY_KEY_REUSED": CatalogueEntry(
        "An idempotency key came with another request than the first time.",
        "Send a new key with a new request.",
        _USAGE,
        409,
    ),
    "STUDY_NOT_FOUND": CatalogueEntry(
        "There is no study of this id.", "List them, and take an id from there.", http_status=404
    ),
    "PLANNING_LIMIT_EXCEEDED": CatalogueEntry(
        "The server's people agreed to order no more in this period.",
        "Raise the limit, open a new planning period, or order a smaller ε. Nodes keep their own limits.",
        _REFUSED,
        409,
    ),
    "DATASET_NOT_READY": CatalogueEntry(
        "The table is not made yet.", "Wait until its state is 'succeeded'.", http_status=409
    ),
    "DATASET_DAMAGED": CatalogueEntry(
        "The table's file is not the one that was made.", "Order it again with the same seed.", http_status=500
    ),
    "RANGE_NOT_SATISFIABLE": CatalogueEntry(
        "The file does not have the part that was asked for.", "Ask for the whole of it, without Range.", _USAGE, 416
    ),
    "RUN_WITHOUT_RESULTS": CatalogueEntry(
        "The run has no results, or none yet.", "Look at its state and its events.", http_status=409
    ),
    "RUN_NOT_FOUND": CatalogueEntry(
        "There is no finished run of this id.", "List them, and take an id from there.", http_status=404
    ),
    "API_KEY_NOT_FOUND": CatalogueEntry("There is no API key of this id.", "List them.", _USAGE, 404),
    "CHECKPOINT_DAMAGED": CatalogueEntry("The checkpoint is damaged or incomplete.", "Use another round's checkpoint."),
    "CHECKPOINT_KEY_WRONG": CatalogueEntry(
        "The checkpoint was encrypted with another key.", "Give the key that was in use when it was written."
    ),
    "CHECKPOINT_MISPLACED": CatalogueEntry(
        "The checkpoint is one of another round or run.", "Put the file back that belongs there."
    ),
    "CHECKPOINT_SCHEMA_MISMATCH": CatalogueEntry(
        "The checkpoint belongs to another schema.", "Use the workspace of its own study."
    ),
    "CHECKPOINT_MODEL_MISMATCH": CatalogueEntry(
        "The checkpoint holds a model of another size.", "Use the model settings of its own study."
    ),
    "CHECKPOINT_OUTDATED": CatalogueEntry(
        "The checkpoint was made with another version of Aevorium.",
        "Generate with the version that made it, or run the study anew.",
    ),
    "KEY_INVALID": CatalogueEntry(
        "The encryption key cannot be used.", "Give a Fernet key, readable by its owner only."
    ),
    "KEY_MISPLACED": CatalogueEntry(
        "A key lies beside what it protects.",
        "Move the file out of the workspace, and name it with AEVORIUM_KEY_FILE or AEVORIUM_AUDIT_KEY_FILE.",
        _USAGE,
        409,
    ),
    "KEY_SOURCE_FIXED": CatalogueEntry(
        "The keys come from a place that this command cannot change.",
        "Change AEVORIUM_KEY where it is set.",
        _USAGE,
        409,
    ),
    "KEYRING_UNAVAILABLE": CatalogueEntry(
        "The system's keyring cannot be used.",
        "Unlock it, or keep the key in a file (AEVORIUM_KEY_SOURCE = file).",
        http_status=503,
    ),
    "AUDIT_BROKEN": CatalogueEntry("The audit log or the statement does not verify.", "Treat its claims as unproven."),
    "PRIVACY_AUDIT_FAILED": CatalogueEntry(
        "Nodes of this installation give away more of a record than they charge for.",
        "Start no run with this installation. Compare its code hash with that of a release, and report what was found.",
    ),
    "AUDIT_KEY_WRONG": CatalogueEntry(
        "The key is not the one that the audit log is signed with.",
        "Put the first key of the log back; without it, start a new workspace.",
    ),
    "DATABASE_UNUSABLE": CatalogueEntry(
        "A database of this node or server cannot be used.",
        "Restore the file from a backup; without its ledger a node does not know what it has spent.",
        http_status=507,
    ),
    # policy and budget
    "POLICY_INVALID": CatalogueEntry("The policy file cannot be used.", "Correct the entry named.", _USAGE, 422),
    "POLICY_SCHEMA_REFUSED": CatalogueEntry(
        "The node's policy does not allow this schema.", "Ask the steward to allow it.", _REFUSED, 403
    ),
    "POLICY_PURPOSE_REFUSED": CatalogueEntry(
        "The node's policy does not allow this purpose.", "Ask the steward to allow it.", _REFUSED, 403
    ),
    "POLICY_SERVER_REFUSED": CatalogueEntry(
        "The node's policy does not allow this server.", "Ask the steward to allow it.", _REFUSED, 403
    ),
    "POLICY_CODE_REFUSED": CatalogueEntry(
        "The node's policy does not allow the version of Aevorium that the node runs.",
        "Ask the steward to review this version and to list its hash, or install one that is listed.",
        _REFUSED,
        403,
    ),
    "POLICY_DELTA_REFUSED": CatalogueEntry(
        "The study's δ is above the node's limit.", "Lower --delta, or ask the steward.", _REFUSED, 403
    ),
    "AGGREGATION_TOO_FEW_NODES": CatalogueEntry(
        "Too few nodes for secure aggregation.", "Take at least three nodes, or --trust local.", _REFUSED, 409
    ),
    "POLICY_MIN_PATIENTS": CatalogueEntry(
        "The node's noisy patient count is below the minimum of its policy.",
        "Take part with more patients, or ask the steward to lower min_patients.",
        _REFUSED,
        403,
    ),
    "POLICY_PERIOD_UNSIGNED": CatalogueEntry(
        "The policy names a budget period that its steward did not open.",
        "Set the label back, or open the period with 'aevorium budget new-period'.",
        _REFUSED,
        403,
    ),
    "PERIOD_USED": CatalogueEntry(
        "A budget period of this name was opened before.",
        "Choose a label that was never used, such as '2027b'.",
        _USAGE,
        409,
    ),
    "STEWARD_KEY_WRONG": CatalogueEntry(
        "The steward's key is not the one that signed this node's first statement.",
        "Put the first steward.key back into the node's home.",
        http_status=409,
    ),
    "POLICY_CONSENT_REFUSED": CatalogueEntry(
        "The node's steward declined this plan.",
        "Ask the steward why; a changed plan is a new question.",
        _REFUSED,
        403,
    ),
    "POLICY_CONSENT_AWAITED": CatalogueEntry(
        "The node's steward did not decide on this plan in time.",
        "Nothing was spent. Run again once the steward has agreed: the same plan passes at once then.",
        _REFUSED,
        403,
    ),
    "CONSENT_UNKNOWN": CatalogueEntry(
        "No plan of this name was asked of the node.",
        "See what was: aevorium budget requests --node NAME",
        _USAGE,
        404,
    ),
    "BUDGET_EXCEEDED": CatalogueEntry(
        "The plan costs more privacy budget than the node has left.",
        "Lower --epsilon, or ask the steward for a higher limit or a new period.",
        _REFUSED,
        403,
    ),
    "SCHEMA_MISMATCH": CatalogueEntry(
        "The study's schema is not the one that the node holds its data in.",
        "Give server and node the same schema file.",
        _REFUSED,
        409,
    ),
    "RELEASE_OUTSIDE_PLAN": CatalogueEntry(
        "The server asked a node for something that the agreed plan does not hold.",
        "Nothing was released. Find out why the server deviates.",
        _REFUSED,
        403,
    ),
    # federation
    "NODE_NOT_READY": CatalogueEntry(
        "A node cannot take part; its own console says why.", "Ask the node's steward.", http_status=409
    ),
    "NODE_UNREACHABLE": CatalogueEntry(
        "A node did not answer.", "Start the node, and look at its own console.", _AWAY, 503
    ),
    "MESSAGE_INVALID": CatalogueEntry(
        "A message between server and node cannot be read.", "Run the same version on both sides.", http_status=502
    ),
    "REPLY_UNUSABLE": CatalogueEntry(
        "A node's reply was refused: its numbers are not finite, or not of the form that was asked for.",
        "Run the same version on both sides; if they do, ask the node's steward what it sends.",
        http_status=502,
    ),
    "SERVER_UNREACHABLE": CatalogueEntry(
        "The server does not answer.", "Start the server, and check the address.", _AWAY, 503
    ),
    "PORT_UNAVAILABLE": CatalogueEntry(
        "The port cannot be listened on.", "Stop what uses it, or choose another with SERVER_PORT.", _AWAY, 503
    ),
    "NODE_NAME_TAKEN": CatalogueEntry(
        "Another node has this name.", "Choose another with --name, or stop that node.", _USAGE, 409
    ),
    "DATA_PART_TAKEN": CatalogueEntry(
        "Every part of the data is held by a node already.",
        "Give this node a table of its own with --data.",
        _USAGE,
        409,
    ),
    "REQUEST_EXPIRED": CatalogueEntry(
        "A request reached the node after its time had passed.", "Nothing was released. Run again.", http_status=504
    ),
    "RUN_MISSED": CatalogueEntry(
        "The run ended without this node: it came after the plan was agreed.",
        "Start the node before the server has enough nodes.",
        http_status=409,
    ),
    "TOO_FEW_NODES": CatalogueEntry(
        "Too few nodes answered for the round to count.", "Bring the nodes back and run again.", _AWAY, 503
    ),
    "RUN_INTERRUPTED": CatalogueEntry(
        "The run was stopped before its end.", "What was released stays charged; start a new run.", http_status=409
    ),
    "INTERNAL": CatalogueEntry("Something failed inside Aevorium.", "Report it, with the log.", _BUG, 500),
}


class AevoriumError(Exception):
    """An error with a code of the catalogue.

    Args:
        code: A key of `CATALOGUE`.
        message: "Problem. Reason." in full sentences; never a patient's value.
        hint: What to do; the catalogue's remedy when None.
    """

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.entry = CATALOGUE[code]
        self.message = message
        self.hint = self.entry.remedy if hint is None else hint

    @property
    def exit_status(self) -> ExitStatus:
        """The status with which a command ends."""
        return self.entry.exit_status

    @property
    def http_status(self) -> int:
        """The status with which the API answers."""
        return self.entry.http_status

    @property
    def docs(self) -> str:
        """The documentation page of this code, relative to the project's root."""
        return f"docs/ERRORS.md#{self.code.lower()}"


class UserError(AevoriumError):
    """Something that the person at the keyboard can change."""


class ConfigError(UserError):
    """A flag, a setting, or a file of settings."""


class DataError(UserError):
    """A table that cannot be used as it is."""


class SchemaError(UserError):
    """A schema file that cannot be used."""


class ArtefactError(UserError):
    """A file of a workspace that is missing, damaged, or belongs to another study."""


class PolicyRefused(UserError):
    """The steward's policy says no."""


class BudgetExceeded(UserError):
    """The privacy budget says no."""


class FederationError(AevoriumError):
    """Nodes or servers that did not answer, or too few of them."""


class InternalError(AevoriumError):
    """Our own bug."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__("INTERNAL", message, hint=hint)
