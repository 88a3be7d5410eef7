"""Checkpoints: a model as an `.npz` file that explains itself and is encrypted before it touches the disk.

The file is a real npz with two members: `header`, JSON in the clear, and `payload`, an encrypted inner npz with the
named arrays and the SHA-256 of the header. A header that was exchanged therefore shows, and so does a whole file that
was put in the place of another: the header says of which run and round it is. No pickle is ever loaded.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aevorium.diffusion.denoiser import DenoiserConfig
from aevorium.errors import ArtefactError
from aevorium.workspace import write_atomically

__all__ = [
    "CheckpointHeader",
    "Cipher",
    "ModelCheckpoint",
    "encrypt_anew",
    "load_checkpoint",
    "read_header",
    "save_checkpoint",
]


class Cipher(Protocol):
    """Authenticated encryption with the newest of some keys; all of them decrypt."""

    @property
    def key_id(self) -> str:
        """Says which key encrypts."""
        ...

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Says which keys decrypt."""
        ...

    def encrypt(self, data: bytes) -> bytes:
        """The token for some data."""
        ...

    def decrypt(self, token: bytes) -> bytes:
        """The data of a token; raises ValueError if it was made with another key, or was changed."""
        ...


class CheckpointHeader(BaseModel):
    """What the file says of itself. Safe to show."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(default=2, description="Version of the file's format; the first named no run.")
    run_id: str | None = Field(default=None, description="The run that it is of; None in version 1.")
    schema_hash: str = Field(description="Content hash of the table's schema.")
    round: int = Field(ge=0, description="The round after which it was written.")
    algorithm: str = Field(description="The recipe that trained it.")
    model: DenoiserConfig = Field(description="Size and shape of the model.")
    key_id: str = Field(description="Which key it is encrypted with.")
    arrays: dict[str, tuple[int, ...]] = Field(description="Names and shapes of the arrays.")
    encryption: str = Field(default="Fernet (AES-128-CBC, HMAC-SHA256)", description="How the payload is encrypted.")


@dataclass(frozen=True)
class ModelCheckpoint:
    """A checkpoint as loaded.

    Attributes:
        header: What it says of itself.
        arrays: Its named arrays.
    """

    header: CheckpointHeader
    arrays: dict[str, NDArray[np.float32]]

    @property
    def vector(self) -> NDArray[np.float32]:
        """All parameters as one flat vector, in the order of the model."""
        return np.concatenate([self.arrays[name].reshape(-1) for name in self.header.arrays])


def save_checkpoint(
    path: Path,
    *,
    arrays: dict[str, NDArray[np.float32]],
    model: DenoiserConfig,
    schema_hash: str,
    run_id: str,
    round_number: int,
    algorithm: str,
    cipher: Cipher,
) -> None:
    """Writes a checkpoint, whole or not at all.

    Args:
        path: Where it goes.
        arrays: The model's parameters by name, in its order.
        model: Size and shape of the model.
        schema_hash: Content hash of the table's schema.
        run_id: The run.
        round_number: The round after which it is written.
        algorithm: The recipe that trained it.
        cipher: Encrypts the arrays.
    """
    header = CheckpointHeader(
        schema_hash=schema_hash,
        run_id=run_id,
        round=round_number,
        algorithm=algorithm,
        model=model,
        key_id=cipher.key_id,
        arrays={name: array.shape for name, array in arrays.items()},
    )
    _write(path, header=header, arrays=arrays, cipher=cipher)


def encrypt_anew(path: Path, *, cipher: Cipher) -> None:
    """Encrypts a checkpoint with the newest key; it stays readable at every moment.

    Raises:
        ArtefactError: ARTEFACT_NOT_FOUND, CHECKPOINT_DAMAGED, CHECKPOINT_KEY_WRONG.
        ConfigError: WORKSPACE_UNWRITABLE.
    """
    text, payload = _members(path)
    header = _parse_header(text, path)
    arrays = _decrypt(payload, text, header, cipher=cipher, path=path)
    _write(path, header=header.model_copy(update={"key_id": cipher.key_id}), arrays=arrays, cipher=cipher)


def _write(path: Path, *, header: CheckpointHeader, arrays: dict[str, NDArray[np.float32]], cipher: Cipher) -> None:
    text = header.model_dump_json(indent=1).encode()
    inner = io.BytesIO()
    seal = np.frombuffer(hashlib.sha256(text).digest(), dtype=np.uint8)
    # Numbered, since names of parameters hold dots and may be anything.
    np.savez(inner, allow_pickle=False, seal=seal, **{f"a{n}": array for n, array in enumerate(arrays.values())})
    payload = np.frombuffer(cipher.encrypt(inner.getvalue()), dtype=np.uint8)
    with write_atomically(path, mode=0o600) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, header=np.frombuffer(text, dtype=np.uint8), payload=payload)


def read_header(path: Path) -> CheckpointHeader:
    """Reads what a checkpoint says of itself, without a key; only `load_checkpoint` proves it.

    Raises:
        ArtefactError: CHECKPOINT_DAMAGED, ARTEFACT_NOT_FOUND.
    """
    return _parse_header(_members(path)[0], path)


def load_checkpoint(
    path: Path,
    *,
    cipher: Cipher,
    schema_hash: str,
    run_id: str,
    round_number: int,
    model: DenoiserConfig | None = None,
) -> ModelCheckpoint:
    """Reads a checkpoint.

    Args:
        path: The file.
        cipher: Decrypts it.
        schema_hash: The schema that it must belong to.
        run_id: The run that it must be of; a file of version 1 names none, and may be of any.
        round_number: The round that it must be of.
        model: The size and shape that it must have; None takes what it has.

    Raises:
        ArtefactError: ARTEFACT_NOT_FOUND, CHECKPOINT_DAMAGED, CHECKPOINT_SCHEMA_MISMATCH, CHECKPOINT_MISPLACED,
            CHECKPOINT_MODEL_MISMATCH, CHECKPOINT_KEY_WRONG.
    """
    text, payload = _members(path)
    header = _parse_header(text, path)
    if header.schema_hash != schema_hash:
        raise ArtefactError(
            "CHECKPOINT_SCHEMA_MISMATCH", f"The checkpoint {str(path)!r} belongs to another schema. The hashes differ."
        )
    if model is not None and header.model != model:
        raise ArtefactError(
            "CHECKPOINT_MODEL_MISMATCH",
            f"The checkpoint {str(path)!r} holds a model of another size. It has width {header.model.width} and"
            f" {header.model.blocks} blocks, {model.width} and {model.blocks} are expected.",
        )
    arrays = _decrypt(payload, text, header, cipher=cipher, path=path)
    # Only now is it certain that the file says of itself what it was written with.
    if header.round != round_number or header.run_id not in (None, run_id):
        raise ArtefactError(
            "CHECKPOINT_MISPLACED",
            f"The checkpoint {str(path)!r} is not the one that belongs there. It is of round {header.round} of run"
            f" {header.run_id}; round {round_number} of run {run_id} is expected.",
        )
    return ModelCheckpoint(header=header, arrays=arrays)


def _decrypt(
    payload: bytes, text: bytes, header: CheckpointHeader, *, cipher: Cipher, path: Path
) -> dict[str, NDArray[np.float32]]:
    if header.key_id not in cipher.key_ids:
        raise ArtefactError(
            "CHECKPOINT_KEY_WRONG",
            f"The checkpoint {str(path)!r} was encrypted with key {header.key_id}; given: {', '.join(cipher.key_ids)}.",
        )
    changed = "Its contents were changed since it was written"
    try:
        inner = cipher.decrypt(payload)
    except ValueError as error:
        raise _damaged(path, changed) from error
    members = _parse_npz(inner, path=path, otherwise=changed)
    try:
        seal = members["seal"].tobytes()
        arrays = {name: members[f"a{number}"] for number, name in enumerate(header.arrays)}
    except KeyError as error:
        raise _damaged(path, changed) from error
    if seal != hashlib.sha256(text).digest():
        raise _damaged(path, "Its header is not the one that it was written with")
    if any(arrays[name].shape != shape or arrays[name].dtype != np.float32 for name, shape in header.arrays.items()):
        raise _damaged(path, "Its arrays are not those that its header says")
    return arrays


def _members(path: Path) -> tuple[bytes, bytes]:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ArtefactError("ARTEFACT_NOT_FOUND", f"No checkpoint {str(path)!r}.") from error
    except OSError as error:
        raise _damaged(path, f"It cannot be read: {error.strerror or type(error).__name__}") from error
    otherwise = "It is cut short, or no checkpoint at all"
    members = _parse_npz(data, path=path, otherwise=otherwise)
    if not {"header", "payload"} <= members.keys():
        raise _damaged(path, otherwise)
    return members["header"].tobytes(), members["payload"].tobytes()


def _parse_npz(data: bytes, *, path: Path, otherwise: str) -> dict[str, NDArray[Any]]:
    """The arrays of an npz, from memory: of a file that is no zip, NumPy would leave the handle open."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib, tokenize and NumPy raise a dozen kinds on damaged bytes
        raise _damaged(path, otherwise) from error


def _parse_header(text: bytes, path: Path) -> CheckpointHeader:
    try:
        return CheckpointHeader.model_validate_json(text)
    except ValidationError as error:
        raise _damaged(path, "Its header cannot be read") from error


def _damaged(path: Path, reason: str) -> ArtefactError:
    return ArtefactError("CHECKPOINT_DAMAGED", f"The checkpoint {str(path)!r} cannot be used. {reason}.")
