"""What a server keeps secret, and where from: the keys of checkpoints, and the key that signs its audit log.

Keys come from one of three places, each of which may hold several, newest first (`keys.KeySet`). None of them is the
workspace: a key beside what it encrypts protects nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol

from cryptography.fernet import Fernet
from pydantic import SecretStr

from aevorium.errors import ArtefactError, ConfigError
from aevorium.governance.keys import KeySet, load_keys, load_or_create_keys, read_secret, replace_secret
from aevorium.governance.signing import SigningKey
from aevorium.settings import Settings

__all__ = ["EnvironmentKeys", "FileKeys", "KeyringKeys", "Keys", "Secrets"]

_AUDIT_HINT = "Choose another with AEVORIUM_AUDIT_KEY_FILE."


class Keys(Protocol):
    """A place that holds the keys of checkpoints. It is read at each use: keys may change while a process runs."""

    @property
    def source(self) -> Literal["file", "environment", "keyring"]:
        """What kind of place it is."""
        ...

    @property
    def place(self) -> str:
        """The place in words. Safe to show."""
        ...

    def exists(self) -> bool:
        """Whether there is a key."""
        ...

    def load(self) -> KeySet:
        """The keys; raises ArtefactError (KEY_INVALID) if there are none that can be used."""
        ...

    def load_or_create(self) -> KeySet:
        """The keys; the first is made if there is none."""
        ...

    def add(self) -> KeySet:
        """Makes a key, the newest from now on, and keeps the others."""
        ...

    def keep_newest(self) -> KeySet:
        """Drops all keys but the newest."""
        ...


@dataclass(frozen=True)
class FileKeys:
    """Keys in a file that only its owner can read.

    Attributes:
        path: The file.
    """

    path: Path
    source: Literal["file"] = field(default="file", init=False)

    @property
    def place(self) -> str:
        """The file."""
        return str(self.path)

    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def load(self) -> KeySet:
        """Reads the file; raises ArtefactError (KEY_INVALID)."""
        return load_keys(self.path)

    def load_or_create(self) -> KeySet:
        """Reads the file, made with one key if absent; raises as `load`, and ConfigError (WORKSPACE_UNWRITABLE)."""
        return load_or_create_keys(self.path)

    def add(self) -> KeySet:
        """Writes a new key above the others; raises as `load_or_create`."""
        self.load()
        replace_secret(self.path, Fernet.generate_key() + b"\n" + read_secret(self.path))
        return self.load()

    def keep_newest(self) -> KeySet:
        """Leaves the first key in the file alone; raises as `load_or_create`."""
        self.load()
        replace_secret(self.path, _first(read_secret(self.path)))
        return self.load()


@dataclass(frozen=True)
class EnvironmentKeys:
    """Keys in the variable AEVORIUM_KEY, separated by commas. Whoever sets it exchanges them.

    Attributes:
        secret: Its value.
    """

    secret: SecretStr
    source: Literal["environment"] = field(default="environment", init=False)
    place: str = field(default="AEVORIUM_KEY", init=False)

    def exists(self) -> bool:
        """It does."""
        return True

    def load(self) -> KeySet:
        """The keys; raises ArtefactError (KEY_INVALID)."""
        try:
            return KeySet.parse(self.secret.get_secret_value().encode())
        except ValueError:
            # Without its cause: nothing of the value may reach a log.
            raise ArtefactError(
                "KEY_INVALID",
                "The variable AEVORIUM_KEY holds no Fernet key. Each is 44 characters of base64; commas separate them.",
            ) from None

    def load_or_create(self) -> KeySet:
        """The same as `load`."""
        return self.load()

    def add(self) -> KeySet:
        """Raises ConfigError (KEY_SOURCE_FIXED): no process can change the variable for others."""
        raise ConfigError(
            "KEY_SOURCE_FIXED",
            "A new key cannot be put into AEVORIUM_KEY. Only who sets the variable can.",
            hint="Put a new key before the old one, AEVORIUM_KEY=NEW,OLD, and type the command again.",
        )

    def keep_newest(self) -> KeySet:
        """The keys, if there is one; else raises ConfigError (KEY_SOURCE_FIXED)."""
        found = self.load()
        if len(found.keys) == 1:
            return found
        raise ConfigError(
            "KEY_SOURCE_FIXED",
            "Old keys cannot be taken out of AEVORIUM_KEY. Only who sets the variable can.",
            hint="Everything here is under the first key: set AEVORIUM_KEY to it alone.",
        )


@dataclass(frozen=True)
class KeyringKeys:
    """Keys in the keyring of the system: Keychain, Credential Locker, Secret Service. Needs the extra `keyring`."""

    source: Literal["keyring"] = field(default="keyring", init=False)
    place: str = field(default="the system's keyring, service aevorium, name checkpoint-keys", init=False)

    def exists(self) -> bool:
        """Whether it holds an entry; raises as `load`."""
        return self._read() is not None

    def load(self) -> KeySet:
        """The keys; raises ArtefactError (KEY_INVALID, KEYRING_UNAVAILABLE), ConfigError (DEPENDENCY_MISSING)."""
        return self._parsed(self._read())

    def load_or_create(self) -> KeySet:
        """The keys, the first made if there is none; raises as `load`."""
        return self.load() if self.exists() else self._write(Fernet.generate_key().decode())

    def add(self) -> KeySet:
        """Puts a new key before the others; raises as `load`."""
        text = self._read()
        self._parsed(text)
        return self._write(f"{Fernet.generate_key().decode()},{text}")

    def keep_newest(self) -> KeySet:
        """Leaves the first key alone; raises as `load`."""
        text = self._read()
        self._parsed(text)
        return self._write(_first(str(text).encode()).decode())

    def _read(self) -> str | None:
        library = _keyring()
        with _unlocked(library):
            found = library.get_password("aevorium", "checkpoint-keys")
        return None if found is None else str(found)

    def _write(self, text: str) -> KeySet:
        library = _keyring()
        with _unlocked(library):
            library.set_password("aevorium", "checkpoint-keys", text)
        # Read back: a backend that keeps nothing would cost every checkpoint.
        if self._read() != text:
            raise ArtefactError("KEYRING_UNAVAILABLE", "The system's keyring does not keep what is put into it.")
        return self.load()

    def _parsed(self, text: str | None) -> KeySet:
        if text is None:
            raise ArtefactError("KEY_INVALID", f"There is no key in {self.place}. The first run makes it.")
        try:
            return KeySet.parse(text.encode())
        except ValueError:
            # Without its cause: nothing of the value may reach a log.
            raise ArtefactError("KEY_INVALID", f"The entry in {self.place} holds no Fernet key.") from None


@dataclass(frozen=True)
class Secrets:
    """What a server keeps secret.

    Attributes:
        keys: Where the keys of checkpoints are.
        log: Signs its audit log.
    """

    keys: Keys
    log: SigningKey

    @classmethod
    def of(cls, settings: Settings) -> Secrets:
        """The secrets that the settings name."""
        found = cls.in_files(settings.key_file, audit_key_file=settings.audit_key_file)
        if settings.key is not None:
            return replace(found, keys=EnvironmentKeys(settings.key))
        return replace(found, keys=KeyringKeys()) if settings.key_source == "keyring" else found

    @classmethod
    def in_files(cls, key_file: Path, *, audit_key_file: Path | None = None) -> Secrets:
        """Secrets in files.

        Args:
            key_file: The keys of checkpoints.
            audit_key_file: The key of the audit log; `audit.key` in the same folder if None.
        """
        return cls(FileKeys(key_file), SigningKey(audit_key_file or key_file.with_name("audit.key"), hint=_AUDIT_HINT))

    def open(self, workspace: Path) -> Secrets:
        """Makes the keys if there are none, and checks them, before anything is begun that needs them.

        Raises:
            ArtefactError: KEY_INVALID, KEYRING_UNAVAILABLE.
            ConfigError: KEY_MISPLACED, WORKSPACE_UNWRITABLE, DEPENDENCY_MISSING.
        """
        self.require_apart(workspace)
        self.keys.load_or_create()
        return self

    def require_apart(self, workspace: Path) -> None:
        """Passes if no secret lies in a workspace: whoever is given its files would be given the keys too.

        Raises:
            ConfigError: KEY_MISPLACED.
        """
        for path in self._files():
            if path.resolve().is_relative_to(workspace.resolve()):
                raise ConfigError(
                    "KEY_MISPLACED",
                    f"The key file {str(path)!r} lies in the workspace {str(workspace)!r}. A key beside what it"
                    " protects is no protection.",
                )

    def lies_beside(self, table: Path) -> bool:
        """Whether a secret lies in the folder of a table."""
        return any(path.resolve().parent == table.resolve().parent for path in self._files())

    def _files(self) -> list[Path]:
        return [self.log.path, *([self.keys.path] if isinstance(self.keys, FileKeys) else [])]


def _first(secret: bytes) -> bytes:
    return secret.replace(b",", b" ").split()[0]


def _keyring() -> ModuleType:
    try:
        return import_module("keyring")
    except ImportError as error:
        raise ConfigError(
            "DEPENDENCY_MISSING",
            "The library 'keyring' is not installed. AEVORIUM_KEY_SOURCE = keyring needs it.",
            hint="Type: pip install 'aevorium[keyring]'",
        ) from error


@contextmanager
def _unlocked(library: ModuleType) -> Iterator[None]:
    """Tells of a keyring that is locked, or not there, by the name of its error alone."""
    try:
        yield
    except library.errors.KeyringError as error:
        raise ArtefactError(
            "KEYRING_UNAVAILABLE", f"The system's keyring cannot be used. {type(error).__name__}."
        ) from None
