"""From what a person names to what the use cases take: schemas, nodes, policies, the files behind a workspace."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aevorium.errors import ArtefactError, ConfigError, DataError
from aevorium.governance.policy import NodePolicy, load_policy
from aevorium.schema.table import BUNDLED, TableSchema, load_schema
from aevorium.workspace import Workspace, write_atomically

__all__ = [
    "NodeFiles",
    "check_name",
    "parse_keys",
    "parse_nodes",
    "parse_policies",
    "read_node_files",
    "read_schema",
    "write_node_files",
]

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NODE_FILES = "node_files.json"
_EXAMPLES = {"--node": "patients.csv", "--policy": "policy.toml", "--enrol": "node.pub"}


class NodeFiles(BaseModel):
    """Which tables the simulated nodes of a workspace hold, so that `validate` finds them. For this machine only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    nodes: dict[str, Path] = Field(description="The table of each node.")
    holdout: Path | None = Field(default=None, description="Records that no node holds, to compare with.")


def read_schema(source: str) -> tuple[TableSchema, str]:
    """Reads a schema file, or a bundled schema, together with its text.

    Raises:
        SchemaError: SCHEMA_NOT_FOUND or SCHEMA_INVALID.
    """
    schema = load_schema(source)
    if source in BUNDLED:
        return schema, resources.files("aevorium.schema").joinpath("presets", f"{source}.toml").read_text("utf-8")
    return schema, Path(source).read_text(encoding="utf-8-sig")


def parse_nodes(values: Sequence[str]) -> dict[str, Path]:
    """Reads `--node NAME=FILE`, in order.

    Raises:
        ConfigError: CONFIG_INVALID, if one cannot be read as that, or two have the same name.
        DataError: DATA_NOT_FOUND, so that a misspelt path costs nothing.
    """
    nodes: dict[str, Path] = {}
    for value in values:
        name, file = _split(value, flag="--node")
        # A name becomes a folder, and file systems differ in whether letters of another case name the same one.
        twin = next((other for other in nodes if other.casefold() == name.casefold()), None)
        if twin is not None:
            raise ConfigError(
                "CONFIG_INVALID",
                f"--node {value!r} is not possible. There is already a node {twin!r}.",
                hint="Give every node a name of its own.",
            )
        nodes[name] = Path(file)
    for path in nodes.values():
        if not path.exists():
            raise DataError("DATA_NOT_FOUND", f"No data file {str(path)!r}.")
    return nodes


def parse_keys(values: Sequence[str]) -> dict[str, Path]:
    """Reads `--enrol NAME=KEY.pub`.

    Raises:
        ConfigError: CONFIG_INVALID, if one cannot be read as that.
    """
    return {name: Path(file) for name, file in (_split(value, flag="--enrol") for value in values)}


def check_name(name: str, *, flag: str) -> str:
    """A node's name, if it is one.

    Raises:
        ConfigError: CONFIG_INVALID.
    """
    # The name becomes a folder's on any system: Windows drops a dot at the end.
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise ConfigError(
            "CONFIG_INVALID",
            f"{flag} {name!r} is not possible. A node's name may hold letters, digits, '.', '_' and '-', 64 at most, "
            "and not end with a dot.",
            hint="Choose another name.",
        )
    return name


def parse_policies(values: Sequence[str], *, nodes: Sequence[str]) -> dict[str, NodePolicy]:
    """Reads `--policy FILE` (every node) and `--policy NAME=FILE` (one node, which then counts).

    Args:
        values: What was given.
        nodes: Names of the nodes.

    Returns:
        The policies by node; a node that has none is absent.

    Raises:
        ConfigError: CONFIG_INVALID or POLICY_INVALID.
    """
    for_all: NodePolicy | None = None
    for_one: dict[str, NodePolicy] = {}
    for value in values:
        if "=" not in value or Path(value).is_file():
            if for_all is not None:
                raise ConfigError(
                    "CONFIG_INVALID", f"--policy {value!r} is not possible. A policy for every node was given already."
                )
            for_all = load_policy(Path(value))
            continue
        name, file = _split(value, flag="--policy")
        if name not in nodes or name in for_one:
            reason = "It has one already" if name in for_one else f"The nodes are {', '.join(nodes)}"
            raise ConfigError("CONFIG_INVALID", f"--policy {value!r} is not possible for node {name!r}. {reason}.")
        for_one[name] = load_policy(Path(file))
    shared = {} if for_all is None else dict.fromkeys(nodes, for_all)
    return {**shared, **for_one}


def write_node_files(workspace: Workspace, *, nodes: Mapping[str, Path], holdout: Path | None = None) -> None:
    """Notes where the tables of simulated nodes lie.

    Raises:
        ConfigError: WORKSPACE_UNWRITABLE.
    """
    files = NodeFiles(
        nodes={name: path.resolve() for name, path in nodes.items()},
        holdout=None if holdout is None else holdout.resolve(),
    )
    with write_atomically(workspace.root / _NODE_FILES, mode=0o600) as path:
        path.write_text(files.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_node_files(workspace: Workspace) -> NodeFiles | None:
    """What `write_node_files` noted; None if nothing was.

    Raises:
        ArtefactError: ARTEFACT_NOT_FOUND, if the note cannot be read.
    """
    path = workspace.root / _NODE_FILES
    try:
        return NodeFiles.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise ArtefactError(
            "ARTEFACT_NOT_FOUND",
            f"The note {str(path)!r} of where the tables lie cannot be read.",
            hint="Name the tables with --real.",
        ) from error


def _split(value: str, *, flag: str) -> tuple[str, str]:
    name, sign, file = value.partition("=")
    if not sign or not name or not file:
        raise ConfigError(
            "CONFIG_INVALID",
            f"{flag} {value!r} is not possible. NAME=FILE is expected.",
            hint=f"For example: {flag} clinic={_EXAMPLES[flag]}",
        )
    return check_name(name, flag=flag), file
