"""Ed25519 keys in files, and signatures over canonical JSON (RFC 8785) that the public half alone can check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from aevorium.errors import ArtefactError, ConfigError
from aevorium.governance.keys import create_secret, read_secret
from aevorium.workspace import write_atomically

__all__ = ["SigningKey", "is_signed", "read_public_key"]


class SigningKey:
    """A private key in a file, made at first use; its public half lies beside it as `.pub`.

    The file is read at each use, so that one that others could read meanwhile signs nothing more.

    Args:
        path: The file.
        hint: What to do if it cannot be written.
    """

    def __init__(self, path: Path, *, hint: str) -> None:
        self.path = path
        self._hint = hint

    def exists(self) -> bool:
        """Whether the key was made."""
        return self.path.is_file()

    @property
    def public_key(self) -> str:
        """The public half (hex). Safe to show.

        Raises:
            ArtefactError: KEY_INVALID.
            ConfigError: WORKSPACE_UNWRITABLE, if no key can be made.
        """
        return _hex(self._load_or_create().public_key())

    def sign(self, content: Mapping[str, Any]) -> str:
        """The signature (hex) of some content as canonical JSON.

        Raises:
            ArtefactError: KEY_INVALID.
            ConfigError: WORKSPACE_UNWRITABLE, if no key can be made.
        """
        return self._load_or_create().sign(rfc8785.dumps(dict(content))).hex()

    def _load_or_create(self) -> Ed25519PrivateKey:
        create_secret(self.path, _new_key, hint=self._hint)
        try:
            key = load_pem_private_key(read_secret(self.path), password=None)
        except (ValueError, TypeError) as error:
            raise ArtefactError("KEY_INVALID", f"The key file {str(self.path)!r} holds no signing key.") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ArtefactError("KEY_INVALID", f"The key file {str(self.path)!r} holds no Ed25519 key.")
        public = self.path.with_suffix(".pub")
        if not public.exists():
            with write_atomically(public) as temporary:
                temporary.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return key


def is_signed(content: Mapping[str, Any], *, signature: str, public_key: str) -> bool:
    """Whether a signature (hex) of some content was made with the private half of a key (hex)."""
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        public.verify(bytes.fromhex(signature), rfc8785.dumps(dict(content)))
    except (ValueError, InvalidSignature, rfc8785.CanonicalizationError):
        return False
    return True


def read_public_key(text: str) -> str:
    """A public key as hex, from a file (PEM, such as `steward.pub`) or as 64 hex digits.

    Raises:
        ConfigError: CONFIG_INVALID.
    """
    try:
        path = Path(text)
        if path.is_file():
            key = load_pem_public_key(path.read_bytes())
            if not isinstance(key, Ed25519PublicKey):
                raise ValueError("no Ed25519 key")
            return _hex(key)
        return _hex(Ed25519PublicKey.from_public_bytes(bytes.fromhex(text)))
    except (OSError, ValueError) as error:
        raise ConfigError(
            "CONFIG_INVALID",
            f"--public-key {text!r} is no public key of a log. It should be a file such as steward.pub (of a node) or"
            " audit.pub (of a server), or 64 hex digits.",
        ) from error


def _new_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _hex(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
