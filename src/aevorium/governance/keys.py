"""Secret files, made once and readable by their owner alone, and the keys of checkpoints, which are in one of them.

Several keys stand one below the other, the newest first: it encrypts, and all of them decrypt. So nothing is unreadable
at any moment while a key is exchanged for another.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from aevorium.errors import ArtefactError, ConfigError
from aevorium.workspace import synchronise, write_atomically

__all__ = ["Key", "KeySet", "create_secret", "load_keys", "load_or_create_keys", "read_secret", "replace_secret"]

_OTHERS = 0o077


@dataclass(frozen=True)
class Key:
    """A Fernet key (AES-128-CBC with HMAC-SHA256).

    Attributes:
        fernet: The cipher.
        key_id: First 16 hex digits of the key's SHA-256: says which key, not what it is. Safe to show.
    """

    fernet: Fernet = field(repr=False, compare=False)
    key_id: str

    @classmethod
    def from_bytes(cls, secret: bytes) -> Key:
        """Raises ValueError if it is no Fernet key."""
        return cls(fernet=Fernet(secret), key_id=hashlib.sha256(secret).hexdigest()[:16])

    def encrypt(self, data: bytes) -> bytes:
        """The token for some data."""
        return self.fernet.encrypt(data)

    def decrypt(self, token: bytes) -> bytes:
        """The data of a token; raises ValueError if it was not made with this key, or was changed."""
        try:
            return self.fernet.decrypt(token)
        except InvalidToken as error:
            raise ValueError("the token was not made with this key, or was changed") from error


@dataclass(frozen=True)
class KeySet:
    """The keys in use: a cipher that encrypts with the newest and decrypts with any.

    Attributes:
        keys: Newest first; at least one.
    """

    keys: tuple[Key, ...]

    @classmethod
    def parse(cls, secret: bytes) -> KeySet:
        """Reads keys that lines, spaces or commas separate; raises ValueError if one is none, or there is none."""
        keys = tuple(Key.from_bytes(each) for each in re.split(rb"[\s,]+", secret.strip()) if each)
        if not keys:
            raise ValueError("there is no key")
        return cls(keys)

    @property
    def key_id(self) -> str:
        """The id of the newest key: the one that encrypts."""
        return self.keys[0].key_id

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of all keys, newest first. Safe to show."""
        return tuple(key.key_id for key in self.keys)

    def encrypt(self, data: bytes) -> bytes:
        """The token for some data, made with the newest key."""
        return self._fernet.encrypt(data)

    def decrypt(self, token: bytes) -> bytes:
        """The data of a token; raises ValueError if it was made with none of these keys, or was changed."""
        try:
            return self._fernet.decrypt(token)
        except InvalidToken as error:
            raise ValueError("the token was made with none of these keys, or was changed") from error

    @property
    def _fernet(self) -> MultiFernet:
        return MultiFernet([key.fernet for key in self.keys])


def load_or_create_keys(path: Path) -> KeySet:
    """Reads a key file, or makes one that only its owner can read.

    Raises:
        ArtefactError: KEY_INVALID.
        ConfigError: WORKSPACE_UNWRITABLE, if it cannot be made.
    """
    create_secret(path, Fernet.generate_key, hint="Choose another with AEVORIUM_KEY_FILE.")
    return load_keys(path)


def load_keys(path: Path) -> KeySet:
    """Reads a key file.

    Raises:
        ArtefactError: KEY_INVALID, if it is absent, readable by others, or holds anything but Fernet keys.
    """
    try:
        return KeySet.parse(read_secret(path))
    except ValueError as error:
        raise ArtefactError("KEY_INVALID", f"The key file {str(path)!r} holds no Fernet key.") from error


def create_secret(path: Path, make: Callable[[], bytes], *, hint: str) -> None:
    """Makes a file that only its owner can read, unless there is one.

    Of two threads or processes that make it at the same time, one does and both use its key.

    Args:
        path: The file; its folder is made when absent.
        make: Makes the secret.
        hint: What to do if the file cannot be written.

    Raises:
        ConfigError: WORKSPACE_UNWRITABLE, if it cannot be made.
    """
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Written under a name of its own and linked into place: nobody ever reads half a key. Only the owner can
        # read what mkstemp makes.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(make().rstrip() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            # A link, unlike a rename, never takes the place of a key that was made meanwhile.
            with suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            "WORKSPACE_UNWRITABLE",
            f"Cannot write the key file {str(path)!r}. {error.strerror or type(error).__name__}.",
            hint=hint,
        ) from error


def replace_secret(path: Path, secret: bytes) -> None:
    """Puts another secret into a file that only its owner can read, at once and for good.

    The folder is synchronised too: what is written afterwards may rely on the new secret even if power fails.

    Raises:
        ConfigError: WORKSPACE_UNWRITABLE.
    """
    with write_atomically(path, mode=0o600) as temporary:
        temporary.write_bytes(secret.rstrip() + b"\n")
    synchronise(path.parent)


def read_secret(path: Path) -> bytes:
    """Reads a file that only its owner may be able to read.

    Raises:
        ArtefactError: KEY_INVALID, if it is absent, or readable by others.
    """
    try:
        secret = path.read_bytes().strip()
        mode = path.stat().st_mode
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ArtefactError("KEY_INVALID", f"The key file {str(path)!r} cannot be read. {reason}.") from error
    if os.name == "posix" and mode & _OTHERS:
        raise ArtefactError(
            "KEY_INVALID",
            f"The key file {str(path)!r} can be read by others than its owner (mode {mode & 0o777:o}).",
            hint=f"Type: chmod 600 {path}",
        )
    return secret
