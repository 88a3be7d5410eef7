"""Makes new volumes ready, in a container that runs once and ends: `python setup.py server|node NAME`.

A node's key is made where it stays; only its public half goes into the folder `enrolled`, from where the server's setup
lets it in. The other way goes the certificate of the server's authority, through the folder `public`. So no container
ever sees both the server's state and a node's. Started again, it changes nothing.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from aevorium.api.configuration import database_of
from aevorium.cli.app import main as aevorium
from aevorium.errors import AevoriumError, ConfigError
from aevorium.federation.identity import Authority, load_or_create_node_key, public_pem, read_public_key
from aevorium.node.home import NodeHome
from aevorium.settings import Settings, load_settings
from aevorium.state.api_keys import ApiKeyStore
from aevorium.state.store import Store
from aevorium.workspace import Workspace, write_atomically

__all__ = ["main", "prepare_node", "prepare_server"]

STATE = Path("/var/lib/aevorium")


def prepare_server(settings: Settings, *, public: Path, enrolled: Path) -> list[str]:
    """Makes the authority, hands out its certificate, and lets in the nodes whose keys lie in a folder.

    Args:
        settings: Where the workspace and the keys are.
        public: Where nodes look for the certificate.
        enrolled: Public keys of nodes, NAME.pub.

    Returns:
        What was done, line by line. Safe to release.

    Raises:
        ConfigError: WORKSPACE_UNWRITABLE; NODE_NAME_TAKEN.
        ArtefactError: KEY_INVALID.
    """
    federation = Workspace(settings.workspace).federation
    folders = [settings.workspace, settings.key_file.parent, public]
    if settings.audit_key_file is not None:
        folders.append(settings.audit_key_file.parent)
    for folder in folders:
        _require_writable(folder)
    authority = Authority(federation)
    with write_atomically(public / "ca.crt") as temporary:
        temporary.write_bytes(authority.certificate_file.read_bytes())
    lines = [f"The server's identity is {authority.fingerprint}."]
    for source in sorted(enrolled.glob("*.pub")):
        key, fingerprint = read_public_key(source)
        _enrol(key, target=federation / "nodes" / source.name)
        lines.append(f"Node {source.stem} is let in, with the key {fingerprint}.")
    return lines


def prepare_node(name: str, *, root: Path, enrolled: Path) -> list[str]:
    """Makes a node's key, if it has none, and puts its public half where the server's setup finds it.

    Args:
        name: The node's name.
        root: The folder of nodes' homes.
        enrolled: Takes the public key.

    Returns:
        What was done, line by line. Safe to release.

    Raises:
        ConfigError: WORKSPACE_UNWRITABLE; NODE_NAME_TAKEN.
        ArtefactError: KEY_INVALID.
    """
    for folder in (root, enrolled):
        _require_writable(folder)
    public = public_pem(load_or_create_node_key(NodeHome(root / name).key_file))
    _enrol(public, target=enrolled / f"{name}.pub")
    return [f"Node {name} has the key {read_public_key(enrolled / f'{name}.pub')[1]}."]


def _enrol(public: bytes, *, target: Path) -> None:
    if target.is_file():
        if read_public_key(target)[0] == public:
            return
        raise ConfigError(
            "NODE_NAME_TAKEN",
            f"Node {target.stem!r} is not let in. Another key is enrolled under its name, in {str(target)!r}.",
            hint="Remove that file if its node is gone, or choose another name.",
        )
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with write_atomically(target) as temporary:
        temporary.write_bytes(public)


def _require_writable(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            "WORKSPACE_UNWRITABLE",
            f"The volume at {str(folder)!r} cannot be written. {error.strerror or type(error).__name__}.",
            hint="It should belong to the user 10001, group 10001.",
        ) from error


def _has_api_key(settings: Settings) -> bool:
    store = Store(database_of(settings))
    try:
        return bool(ApiKeyStore(store).all())
    finally:
        store.close()


def main(arguments: Sequence[str]) -> int:
    """Prepares the volumes of one role.

    A server's first API key is shown once, unless `--without-key` says that a person will make it: what a container
    prints is kept by many platforms.
    """
    settings = load_settings().values
    enrolled = STATE / "enrolled"
    try:
        match list(arguments):
            case ["node", name]:
                lines = prepare_node(name, root=settings.node_home, enrolled=enrolled)
            case ["server"] | ["server", "--without-key"]:
                lines = prepare_server(settings, public=STATE / "public", enrolled=enrolled)
            case _:
                sys.stderr.write("Usage: python setup.py node NAME | server [--without-key]\n")
                return 2
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        if arguments[0] == "node" or "--without-key" in arguments:
            return 0
        if _has_api_key(settings):
            sys.stdout.write("API keys exist. Make more with: aevorium api key create NAME --role ROLE\n")
            return 0
    except AevoriumError as error:
        sys.stderr.write(f"{error.message} {error.hint or ''}\n")
        return error.exit_status
    return aevorium(["api", "key", "create", "first", "--role", "steward"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
