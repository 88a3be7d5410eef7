"""The use case of exchanging keys: a new key, and every encrypted file of a workspace under it.

The order is what makes it safe to be killed at any moment: the new key stands beside the old ones, on the disk, before
anything is encrypted with it; each file is replaced as a whole; an old key goes only when nothing is under it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from aevorium.diffusion.checkpoint import encrypt_anew, read_header
from aevorium.errors import ArtefactError
from aevorium.governance.chain import AuditChain
from aevorium.governance.keys import KeySet
from aevorium.governance.secrets import Secrets
from aevorium.workspace import Workspace, synchronise

__all__ = ["RotationResult", "drop_old_keys", "rotate_keys"]

_ACTOR = "key holder"


@dataclass(frozen=True)
class RotationResult:
    """What a rotation did.

    Attributes:
        key_id: The id of the key that encrypts from now on.
        older: The ids of those that still decrypt.
        is_new: Whether the key was made now; otherwise a rotation that was begun earlier was finished.
        files: The files that were encrypted anew.
    """

    key_id: str
    older: tuple[str, ...]
    is_new: bool
    files: tuple[Path, ...]


def rotate_keys(
    workspaces: Sequence[Workspace], *, secrets: Secrets, done: Callable[[Path], None] = lambda path: None
) -> RotationResult:
    """Puts every encrypted file of some workspaces under the newest key, which is made unless one is not in use yet.

    If any file is under an older key, a rotation was cut off, or began in another workspace: it is finished, and no
    further key is made. Old keys stay, and decrypt.

    Args:
        workspaces: They; each with the log of a run.
        secrets: The keys, and the key that signs the logs.
        done: Told of each file that was encrypted anew.

    Raises:
        ArtefactError: KEY_INVALID, KEYRING_UNAVAILABLE, AUDIT_KEY_WRONG; CHECKPOINT_DAMAGED or CHECKPOINT_KEY_WRONG for
            the first file that could not be read, after all others.
        ConfigError: KEY_SOURCE_FIXED, KEY_MISPLACED, WORKSPACE_UNWRITABLE.
    """
    with _alone(workspaces, secrets=secrets):
        keys = secrets.keys.load()
        is_new = not any(
            _key_of(path) in keys.key_ids[1:] for workspace in workspaces for path in _behind(workspace, keys)
        )
        if is_new:
            keys = secrets.keys.add()
            for workspace in workspaces:
                _note(workspace, "key_added", {"key": keys.key_id, "older": keys.key_ids[1:]}, secrets=secrets)
        files: list[Path] = []
        problem: ArtefactError | None = None
        for workspace in workspaces:
            changed, failed = _encrypt_all(workspace, keys, done=done)
            files += changed
            problem = problem or failed
            names = [path.name for path in changed]
            _note(workspace, "keys_rotated", {"key": keys.key_id, "files": names}, secrets=secrets)
    if problem is not None:
        raise problem
    return RotationResult(key_id=keys.key_id, older=keys.key_ids[1:], is_new=is_new, files=tuple(files))


def drop_old_keys(workspaces: Sequence[Workspace], *, secrets: Secrets) -> tuple[str, ...]:
    """Drops all keys but the newest, if no file of these workspaces needs them. What others need is not known here.

    Args:
        workspaces: They.
        secrets: The keys, and the key that signs the logs.

    Returns:
        The ids of the keys that were dropped.

    Raises:
        ArtefactError: CHECKPOINT_KEY_WRONG, if a file is not under the newest key; or as `rotate_keys`.
        ConfigError: As `rotate_keys`.
    """
    with _alone(workspaces, secrets=secrets):
        keys = secrets.keys.load()
        for workspace in workspaces:
            behind = _behind(workspace, keys)
            if behind:
                raise ArtefactError(
                    "CHECKPOINT_KEY_WRONG",
                    f"Old keys cannot be dropped. The checkpoint {str(behind[0])!r} is not under the newest key,"
                    f" {keys.key_id}.",
                    hint="Type: aevorium keys rotate",
                )
            # What was renamed must be on the disk before the key of what it replaced is gone.
            synchronise(workspace.root)
        dropped = keys.key_ids[1:]
        secrets.keys.keep_newest()
        for workspace in workspaces if dropped else ():
            _note(workspace, "keys_dropped", {"key": keys.key_id, "dropped": dropped}, secrets=secrets)
    return dropped


@contextmanager
def _alone(workspaces: Sequence[Workspace], *, secrets: Secrets) -> Iterator[None]:
    """Keeps other rotations from the keys, and runs from encrypting meanwhile; checks what can be checked before."""
    with ExitStack() as held:
        folder = secrets.log.path.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        held.enter_context(FileLock(folder / ".keys.lock"))
        for workspace in workspaces:
            secrets.require_apart(workspace.root)
            AuditChain(workspace.database, key=secrets.log).require_key()
            held.enter_context(FileLock(workspace.key_lock))
        yield


def _behind(workspace: Workspace, keys: KeySet) -> list[Path]:
    """The files that are not under the newest key; one that cannot be read may be under any."""
    return [path for path in workspace.checkpoints().values() if _key_of(path) != keys.key_id]


def _key_of(path: Path) -> str | None:
    try:
        return read_header(path).key_id
    except ArtefactError:
        return None


def _encrypt_all(
    workspace: Workspace, keys: KeySet, *, done: Callable[[Path], None]
) -> tuple[list[Path], ArtefactError | None]:
    changed: list[Path] = []
    problem: ArtefactError | None = None
    for path in _behind(workspace, keys):
        try:
            encrypt_anew(path, cipher=keys)
        except ArtefactError as error:
            problem = problem or error
            continue
        changed.append(path)
        done(path)
    return changed, problem


def _note(workspace: Workspace, action: str, detail: dict[str, object], *, secrets: Secrets) -> None:
    chain = AuditChain(workspace.database, key=secrets.log)
    chain.append(actor=_ACTOR, action=action, detail=detail)
    chain.write_view(workspace.audit_log)
