from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from aevorium.diffusion.checkpoint import (
    ModelCheckpoint,
    encrypt_anew,
    load_checkpoint,
    read_header,
    save_checkpoint,
)
from aevorium.diffusion.denoiser import DenoiserConfig, TabularDiffusion, load_vector, named_arrays, to_vector
from aevorium.diffusion.layout import Layout
from aevorium.errors import ArtefactError, ConfigError
from aevorium.governance.keys import KeySet

LAYOUT = Layout(continuous=2, categories=(2, 3), missing_of=(0, None))
CONFIG = DenoiserConfig(layout=LAYOUT, width=8, blocks=2)
SCHEMA = "5c" * 32
RUN = "0123456789abcdef"
KEY = KeySet.parse(b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
OTHER_KEY = KeySet.parse(b"OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2NTQzMjEwOTg=")


def make_vector() -> np.ndarray:
    priors = [np.ones(2), np.ones(3)]
    model = TabularDiffusion(CONFIG, priors=priors, generator=torch.Generator().manual_seed(1))
    return np.random.default_rng(1).normal(size=len(to_vector(model))).astype(np.float32)


def save(
    path: Path, *, vector: np.ndarray | None = None, round_number: int = 3, key: KeySet = KEY, run_id: str = RUN
) -> Path:
    save_checkpoint(
        path,
        arrays=named_arrays(CONFIG, make_vector() if vector is None else vector),
        model=CONFIG,
        schema_hash=SCHEMA,
        run_id=run_id,
        round_number=round_number,
        algorithm="dp-sgd",
        cipher=key,
    )
    return path


@pytest.fixture
def path(tmp_path) -> Path:
    return save(tmp_path / "global_model_round_3.npz")


def load(
    path: Path,
    *,
    key: KeySet = KEY,
    schema_hash: str = SCHEMA,
    model: DenoiserConfig | None = CONFIG,
    run_id: str = RUN,
    round_number: int = 3,
) -> ModelCheckpoint:
    return load_checkpoint(
        path, cipher=key, schema_hash=schema_hash, run_id=run_id, round_number=round_number, model=model
    )


def code_of(path: Path, **given: object) -> str:
    with pytest.raises(ArtefactError) as caught:
        load(path, **given)  # type: ignore[arg-type]
    return caught.value.code


def rewrite(path: Path, **members: np.ndarray) -> None:
    with np.load(path) as outer:
        kept = {name: outer[name] for name in outer.files}
    with path.open("wb") as file:
        np.savez(file, **{**kept, **members})


def bytes_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)


def test_a_checkpoint_gives_back_the_model(path):
    found = load(path)
    np.testing.assert_array_equal(found.vector, make_vector())
    assert found.vector.dtype == np.float32
    assert (found.header.round, found.header.algorithm, found.header.model) == (3, "dp-sgd", CONFIG)
    model = TabularDiffusion(found.header.model, priors=[np.ones(2), np.ones(3)], generator=torch.Generator())
    load_vector(model, found.vector)
    assert load(path, model=None).header == found.header


def test_the_file_is_an_npz_and_its_header_needs_no_key(path):
    with np.load(path, allow_pickle=False) as outer:
        assert set(outer.files) == {"header", "payload"}
        header = json.loads(outer["header"].tobytes())
    assert (header["schema_version"], header["run_id"]) == (2, RUN)
    assert header["schema_hash"] == SCHEMA
    assert header["key_id"] == KEY.key_id
    assert header["arrays"]["inward.weight"] == [8, LAYOUT.dimension]
    assert read_header(path).model == CONFIG


def test_no_weight_lies_in_the_file_in_the_clear(tmp_path):
    """Looked for as float32 and float64, whole and in part, in the file and in each of its members."""
    vector = np.full_like(make_vector(), 1.2345678)
    path = save(tmp_path / "m.npz", vector=vector)
    with zipfile.ZipFile(path) as archive:
        contents = [path.read_bytes(), *(archive.read(name) for name in archive.namelist())]
    for data in contents:
        assert vector[:2].tobytes() not in data
        assert vector[:2].astype(np.float64).tobytes() not in data
        assert b"1.2345" not in data
    inner = io.BytesIO()
    np.savez(inner, a=vector)
    assert vector[:2].tobytes() in inner.getvalue(), "the search itself must find plain weights"


def test_the_same_model_is_encrypted_differently_each_time(tmp_path):
    first, second = save(tmp_path / "a.npz"), save(tmp_path / "b.npz")
    with np.load(first) as one, np.load(second) as other:
        assert one["header"].tobytes() == other["header"].tobytes()
        assert one["payload"].tobytes() != other["payload"].tobytes()


def test_a_missing_file(tmp_path):
    assert code_of(tmp_path / "none.npz") == "ARTEFACT_NOT_FOUND"
    with pytest.raises(ArtefactError) as caught:
        read_header(tmp_path / "none.npz")
    assert caught.value.code == "ARTEFACT_NOT_FOUND"


def test_another_key(path):
    assert code_of(path, key=OTHER_KEY) == "CHECKPOINT_KEY_WRONG"


def test_another_key_that_calls_itself_the_right_one(path):
    class Liar:
        key_id, key_ids = KEY.key_id, KEY.key_ids
        decrypt = staticmethod(OTHER_KEY.decrypt)
        encrypt = staticmethod(OTHER_KEY.encrypt)

    assert code_of(path, key=Liar()) == "CHECKPOINT_DAMAGED"


def test_another_schema(path):
    assert code_of(path, schema_hash="00" * 32) == "CHECKPOINT_SCHEMA_MISMATCH"


@pytest.mark.parametrize(
    "model",
    [
        CONFIG.model_copy(update={"width": 16}),
        CONFIG.model_copy(update={"blocks": 3}),
        CONFIG.model_copy(
            update={"layout": Layout(continuous=1, categories=(2, 3, 1), missing_of=(0,))},
        ),
    ],
)
def test_another_size_of_model(path, model):
    assert code_of(path, model=model) == "CHECKPOINT_MODEL_MISMATCH"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.2, 0.5, 0.9, 0.99, 0.9999])
def test_a_file_cut_short(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert code_of(path) == "CHECKPOINT_DAMAGED"


def test_the_last_byte_missing(path):
    path.write_bytes(path.read_bytes()[:-1])
    assert code_of(path) == "CHECKPOINT_DAMAGED"


def outcome(path: Path) -> ModelCheckpoint | str:
    """The checkpoint, or the code of the refusal."""
    try:
        return load(path)
    except ArtefactError as error:
        return error.code


def test_a_flipped_byte_anywhere_is_refused_or_means_nothing(path):
    """Some bytes of a zip file, such as its times, mean nothing; whatever loads must be the model that was saved."""
    data, vector, header = path.read_bytes(), make_vector(), read_header(path)
    refused = 0
    for place in range(0, len(data), max(1, len(data) // 150)):
        changed = bytearray(data)
        changed[place] ^= 0x15
        path.write_bytes(bytes(changed))
        found = outcome(path)
        if isinstance(found, str):
            assert found == "CHECKPOINT_DAMAGED"
            refused += 1
        else:
            np.testing.assert_array_equal(found.vector, vector)
            assert found.header == header
    assert refused > 120


def test_bytes_around_the_members_may_be_wrong_without_a_crash(path):
    """The zip's own structures: local headers, the central directory and its end, many bytes set to 0 and 255."""
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.infolist()[-1].header_offset
    places = [*range(0, 160, 2), *range(start, start + 160, 3), *range(len(data) - 180, len(data), 2)]
    for place in places:
        for value in (0, 255):
            changed = bytearray(data)
            changed[place] = value
            path.write_bytes(bytes(changed))
            found = outcome(path)
            assert found == "CHECKPOINT_DAMAGED" or isinstance(found, ModelCheckpoint)


@pytest.mark.parametrize("changes", [{"round": 4}, {"algorithm": "other"}, {"encryption": "none"}])
def test_a_header_that_was_edited(path, changes):
    with np.load(path) as outer:
        header = json.loads(outer["header"].tobytes())
    rewrite(path, header=bytes_array(json.dumps({**header, **changes}).encode()))
    assert code_of(path) == "CHECKPOINT_DAMAGED"


def test_a_header_of_another_checkpoint(path, tmp_path):
    with np.load(save(tmp_path / "other.npz", round_number=9)) as outer:
        rewrite(path, header=outer["header"])
    assert code_of(path) == "CHECKPOINT_DAMAGED"
    assert read_header(path).round == 9, "only loading with the key proves a header"


@pytest.mark.parametrize(
    "header", [b"", b"{}", b"\xff\xfe", b"[]", b"null", b'{"schema_version": 1}', b'{"schema_version": 99}']
)
def test_a_header_that_is_none(path, header):
    rewrite(path, header=bytes_array(header))
    assert code_of(path) == "CHECKPOINT_DAMAGED"
    with pytest.raises(ArtefactError) as caught:
        read_header(path)
    assert caught.value.code == "CHECKPOINT_DAMAGED"


def forge(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Puts an inner file of one's own behind the right key, with the seal of the header that is there."""
    import hashlib

    with np.load(path) as outer:
        seal = bytes_array(hashlib.sha256(outer["header"].tobytes()).digest())
    inner = io.BytesIO()
    np.savez(inner, seal=seal, **arrays)
    rewrite(path, payload=bytes_array(KEY.encrypt(inner.getvalue())))


def inner_arrays() -> dict[str, np.ndarray]:
    return {f"a{n}": array for n, array in enumerate(named_arrays(CONFIG, make_vector()).values())}


def test_arrays_of_other_shapes_or_kinds_than_the_header_says(path):
    arrays = inner_arrays()
    forge(path, arrays)
    load(path, model=None)
    for changed in (arrays["a0"].T, arrays["a0"][:-1], arrays["a0"].astype(str), arrays["a0"].astype(np.complex64)):
        forge(path, {**arrays, "a0": changed})
        assert code_of(path) == "CHECKPOINT_DAMAGED"
    del arrays["a0"]
    forge(path, arrays)
    assert code_of(path) == "CHECKPOINT_DAMAGED"


class Boom:
    """Shows whether anybody unpickled it."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize("member", ["header", "payload"])
def test_a_pickle_outside_is_refused_unread(path, member):
    rewrite(path, **{member: np.array([Boom()], dtype=object)})
    assert code_of(path) == "CHECKPOINT_DAMAGED"


def test_a_pickle_inside_is_refused_unread(path):
    forge(path, {**inner_arrays(), "a0": np.array([Boom()], dtype=object)})
    assert code_of(path) == "CHECKPOINT_DAMAGED"


def test_a_bare_pickle_or_array_in_place_of_the_file_is_refused(path):
    import pickle

    path.write_bytes(pickle.dumps([1, 2, 3]))
    assert code_of(path) == "CHECKPOINT_DAMAGED"
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    assert code_of(path) == "CHECKPOINT_DAMAGED"
    path.write_text("Age,Gender\n1,F\n", encoding="utf-8")
    assert code_of(path) == "CHECKPOINT_DAMAGED"


def test_a_checkpoint_is_written_whole_or_not_at_all(path):
    before = path.read_bytes()

    class Failing:
        key_id, key_ids = KEY.key_id, KEY.key_ids

        def encrypt(self, data: bytes) -> bytes:
            raise OSError(28, "No space left on device")

        def decrypt(self, token: bytes) -> bytes:
            raise AssertionError

    with pytest.raises((OSError, ConfigError)):
        save(path, key=Failing())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_checkpoint(path, monkeypatch):
    before = path.read_bytes()

    def half(file, **members):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    original = np.savez
    monkeypatch.setattr(np, "savez", lambda file, **m: half(file) if "payload" in m else original(file, **m))
    with pytest.raises(ConfigError) as caught:
        save(path, round_number=4)
    assert caught.value.code == "WORKSPACE_UNWRITABLE"
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
def test_only_the_owner_can_read_a_checkpoint(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("other", [{"round_number": 5}, {"run_id": "fedcba9876543210"}])
def test_a_whole_file_in_the_place_of_another_is_refused(tmp_path, other):
    """Copied over it, with its own header, by someone who has no key."""
    place = save(tmp_path / "global_model_round_3.npz")
    place.write_bytes(save(tmp_path / "other.npz", **other).read_bytes())
    assert code_of(place) == "CHECKPOINT_MISPLACED"


def test_a_header_cannot_be_edited_to_fit_another_place(tmp_path):
    path = save(tmp_path / "global_model_round_5.npz")
    with np.load(path) as outer:
        header = json.loads(outer["header"].tobytes())
    rewrite(path, header=bytes_array(json.dumps({**header, "round": 5}, indent=1).encode()))
    assert code_of(path, round_number=5) == "CHECKPOINT_DAMAGED"


def test_encrypting_anew_changes_the_key_and_nothing_else(path):
    before = load(path)
    both = KeySet((*OTHER_KEY.keys, *KEY.keys))
    encrypt_anew(path, cipher=both)
    found = load(path, key=both)
    assert found.header == before.header.model_copy(update={"key_id": OTHER_KEY.key_id})
    np.testing.assert_array_equal(found.vector, before.vector)
    np.testing.assert_array_equal(load(path, key=OTHER_KEY).vector, before.vector)
    assert code_of(path) == "CHECKPOINT_KEY_WRONG"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_cannot_be_read_is_not_encrypted_anew(path):
    data = path.read_bytes()
    with pytest.raises(ArtefactError) as caught:
        encrypt_anew(path, cipher=OTHER_KEY)
    assert caught.value.code == "CHECKPOINT_KEY_WRONG"
    assert path.read_bytes() == data


def test_a_file_of_the_first_version_is_read(path):
    """It named no run; its round is checked all the same."""
    with np.load(path) as outer:
        header, payload = json.loads(outer["header"].tobytes()), outer["payload"].tobytes()
    del header["run_id"]
    text = json.dumps({**header, "schema_version": 1}, indent=1).encode()
    with np.load(io.BytesIO(KEY.decrypt(payload))) as inner:
        members = {name: inner[name] for name in inner.files}
    written = io.BytesIO()
    np.savez(written, **{**members, "seal": bytes_array(hashlib.sha256(text).digest())})
    rewrite(path, header=bytes_array(text), payload=bytes_array(KEY.encrypt(written.getvalue())))
    assert load(path).header.run_id is None
    assert code_of(path, round_number=4) == "CHECKPOINT_MISPLACED"
