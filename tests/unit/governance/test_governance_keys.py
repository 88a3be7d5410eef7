from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest

from aevorium.errors import ArtefactError, ConfigError
from aevorium.governance.keys import Key, load_keys, load_or_create_keys

posix = pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")


def test_a_key_is_made_once_and_read_from_then_on(tmp_path):
    path = tmp_path / "keys" / "key"
    made = load_or_create_keys(path)
    written = path.read_bytes()
    again = load_or_create_keys(path)
    assert path.read_bytes() == written
    assert again.key_id == load_keys(path).key_id == made.key_id
    assert again.decrypt(made.encrypt(b"weights")) == b"weights"
    assert list(path.parent.iterdir()) == [path]


def test_two_keys_are_different(tmp_path):
    first, second = load_or_create_keys(tmp_path / "a"), load_or_create_keys(tmp_path / "b")
    assert first.key_id != second.key_id
    with pytest.raises(ValueError, match="with none of these keys"):
        second.decrypt(first.encrypt(b"weights"))


@pytest.mark.parametrize("place", [0, 1, 12, 40, -1])
def test_a_changed_token_is_refused(tmp_path, place):
    key = load_or_create_keys(tmp_path / "key")
    token = bytearray(key.encrypt(b"weights" * 10))
    token[place] ^= 1
    with pytest.raises(ValueError, match="changed"):
        key.decrypt(bytes(token))


def test_a_key_does_not_show_itself(tmp_path):
    path = tmp_path / "key"
    key = load_or_create_keys(path)
    secret = path.read_text(encoding="ascii").strip()
    assert secret not in repr(key)
    assert secret[:16] not in repr(key)
    assert key.key_id not in secret
    assert len(key.key_id) == 16


@posix
def test_only_its_owner_can_read_a_key_even_if_the_umask_is_open(tmp_path):
    path = tmp_path / "keys" / "key"
    before = os.umask(0)
    try:
        load_or_create_keys(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620, 0o601])
def test_a_key_that_others_may_touch_is_refused(tmp_path, mode):
    path = tmp_path / "key"
    load_or_create_keys(path)
    path.chmod(mode)
    for load in (load_keys, load_or_create_keys):
        with pytest.raises(ArtefactError) as caught:
            load(path)
        assert caught.value.code == "KEY_INVALID"
        assert "chmod 600" in (caught.value.hint or "")


@pytest.mark.parametrize("content", [b"", b"\n", b"no key", b"A" * 44, b"A" * 43 + b"\xff", b"\x00" * 32, b"QQ==" * 11])
def test_a_file_that_holds_no_key_is_refused_and_stays_as_it_is(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    for load in (load_keys, load_or_create_keys):
        with pytest.raises(ArtefactError) as caught:
            load(path)
        assert caught.value.code == "KEY_INVALID"
        assert caught.value.__cause__ is not None
    assert path.read_bytes() == content


def test_a_missing_key_is_not_made_by_reading(tmp_path):
    with pytest.raises(ArtefactError) as caught:
        load_keys(tmp_path / "key")
    assert caught.value.code == "KEY_INVALID"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_a_key(tmp_path):
    with pytest.raises(ArtefactError) as caught:
        load_or_create_keys(tmp_path)
    assert caught.value.code == "KEY_INVALID"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_or_create_keys(tmp_path / "file" / "key")
    assert caught.value.code == "WORKSPACE_UNWRITABLE"


def test_key_ids_follow_from_the_key():
    """Written into every checkpoint: they must not change from version to version."""
    assert Key.from_bytes(b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").key_id == "bf9e5cb7dacfea07"


CREATE = """
import sys
from pathlib import Path
from aevorium.governance.keys import load_or_create_keys

print("ready", flush=True)
sys.stdin.readline()
for number in range(30):
    print(load_or_create_keys(Path(sys.argv[1]) / f"key{number}").key_id)
"""


def test_two_processes_that_make_a_key_at_once_use_the_same(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0].split() == outputs[1][0].split()
    assert len(set(outputs[0][0].split())) == 30
    assert len(list(tmp_path.iterdir())) == 30


def test_threads_of_one_process_that_make_a_key_at_once_use_the_same(tmp_path):
    """A simulated federation: every node of one process may be the first."""
    found: list[object] = []
    for number in range(20):
        path = tmp_path / f"key{number}"
        barrier = threading.Barrier(4)

        def create(path=path, barrier=barrier):
            barrier.wait()
            try:
                found.append(load_or_create_keys(path).key_id)
            except Exception as error:
                found.append(error)

        threads = [threading.Thread(target=create) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(str, found[-4:]))) == 1, found[-4:]
        assert isinstance(found[-1], str), found[-1]
    assert len(list(tmp_path.iterdir())) == 20
