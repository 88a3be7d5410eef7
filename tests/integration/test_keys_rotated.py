"""Keys are exchanged under a workspace: nothing is unreadable at any moment, whenever the process is killed."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aevorium.cli.app import main
from aevorium.diffusion.checkpoint import load_checkpoint, read_header, save_checkpoint
from aevorium.diffusion.denoiser import DenoiserConfig, TabularDiffusion, named_arrays, to_vector
from aevorium.diffusion.layout import Layout
from aevorium.errors import ArtefactError
from aevorium.governance.chain import AuditChain
from aevorium.governance.keys import KeySet
from aevorium.governance.secrets import Secrets
from aevorium.rotation import drop_old_keys, rotate_keys
from aevorium.workspace import Workspace

CONFIG = DenoiserConfig(layout=Layout(continuous=1, categories=(2,), missing_of=(None,)), width=8, blocks=1)
ROUNDS = (1, 2, 3, 4)
SIZE = len(to_vector(TabularDiffusion(CONFIG, priors=[np.ones(2)], generator=torch.Generator())))


def write(workspace: Workspace, number: int, *, secrets: Secrets) -> None:
    save_checkpoint(
        workspace.checkpoint(number),
        arrays=named_arrays(CONFIG, np.full(SIZE, number, dtype=np.float32)),
        model=CONFIG,
        schema_hash="5c",
        run_id="run",
        round_number=number,
        algorithm="dp-sgd",
        cipher=secrets.keys.load_or_create(),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    workspace, secrets = Workspace(folder / "workspace").create(), Secrets.in_files(folder / "keys" / "checkpoint.key")
    for number in ROUNDS:
        write(workspace, number, secrets=secrets)
    AuditChain(workspace.database, key=secrets.log).append(actor="s", action="run_finished", detail={})
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "desk"))


@pytest.fixture
def workspace(folder: Path) -> Workspace:
    return Workspace(folder / "workspace")


@pytest.fixture
def secrets(folder: Path) -> Secrets:
    return Secrets.in_files(folder / "keys" / "checkpoint.key")


def assert_readable(workspace: Workspace, keys: KeySet) -> None:
    assert tuple(workspace.checkpoints()) == ROUNDS
    for number, path in workspace.checkpoints().items():
        found = load_checkpoint(path, cipher=keys, schema_hash="5c", run_id="run", round_number=number)
        np.testing.assert_array_equal(found.vector, np.full(SIZE, number, dtype=np.float32))


def keys_of(workspace: Workspace) -> list[str]:
    return [read_header(path).key_id for path in workspace.checkpoints().values()]


def test_every_checkpoint_is_under_the_new_key_and_the_old_one_can_go(workspace: Workspace, secrets: Secrets) -> None:
    old = secrets.keys.load()
    result = rotate_keys([workspace], secrets=secrets)
    both = secrets.keys.load()
    assert (result.is_new, len(result.files)) == (True, len(ROUNDS))
    assert both.key_ids == (result.key_id, old.key_id)
    assert result.older == (old.key_id,)
    assert keys_of(workspace) == [result.key_id] * len(ROUNDS)
    assert_readable(workspace, both)

    assert drop_old_keys([workspace], secrets=secrets) == (old.key_id,)
    assert secrets.keys.load().key_ids == (result.key_id,)
    assert_readable(workspace, secrets.keys.load())
    with pytest.raises(ArtefactError) as caught:
        assert_readable(workspace, old)
    assert caught.value.code == "CHECKPOINT_KEY_WRONG"
    assert drop_old_keys([workspace], secrets=secrets) == ()


def test_a_rotation_is_in_the_log_by_ids_and_never_by_keys(
    workspace: Workspace, secrets: Secrets, folder: Path
) -> None:
    old = secrets.keys.load().key_id
    new = rotate_keys([workspace], secrets=secrets).key_id
    drop_old_keys([workspace], secrets=secrets)
    chain = AuditChain(workspace.database)
    entries = {entry.action: entry.detail for entry in chain.entries()[1:]}
    names = [workspace.checkpoint(number).name for number in ROUNDS]
    assert entries == {
        "key_added": {"key": new, "older": [old]},
        "keys_rotated": {"key": new, "files": names},
        "keys_dropped": {"key": new, "dropped": [old]},
    }
    assert [checkpoint["length"] for checkpoint in chain.checkpoints()] == [1, 2, 3, 4]
    key = (folder / "keys" / "checkpoint.key").read_text(encoding="ascii").strip()
    for path in workspace.root.iterdir():
        assert key.encode() not in path.read_bytes(), path


KILLED = """
import os, shutil, sys
from pathlib import Path
from aevorium.governance.secrets import Secrets
from aevorium.rotation import drop_old_keys, rotate_keys
from aevorium.workspace import Workspace

def rotate(folder, moment):
    seen = 0

    def perhaps_die(event, arguments):
        # Every change of a file's name is a step of the rotation: before it, the process ends without a word.
        nonlocal seen
        if event in ("os.rename", "os.link", "os.remove", "os.chmod", "sqlite3.connect"):
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), 9)

    sys.addaudithook(perhaps_die)
    secrets = Secrets.in_files(folder / "keys" / "checkpoint.key")
    rotate_keys([Workspace(folder / "workspace")], secrets=secrets)
    drop_old_keys([Workspace(folder / "workspace")], secrets=secrets)
    os._exit(0)

moment, status = 0, 9
while status == 9:
    moment += 1
    folder = Path(shutil.copytree(sys.argv[1], Path(sys.argv[2]) / str(moment)))
    child = os.fork()
    if not child:
        try:
            rotate(folder, moment)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
assert status == 0, status
print(moment)
"""


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="copies of one process, each killed at another step")
def test_killed_at_every_step_nothing_is_lost_and_a_second_rotation_finishes(made: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", KILLED, str(made), str(tmp_path)]
    process = subprocess.run(arguments, capture_output=True, check=False, timeout=200, text=True)
    assert process.returncode == 0, process.stderr
    moments, half = int(process.stdout), 0
    for moment in range(1, moments + 1):
        folder = tmp_path / str(moment)
        workspace, secrets = Workspace(folder / "workspace"), Secrets.in_files(folder / "keys" / "checkpoint.key")
        keys, under = secrets.keys.load(), set(keys_of(workspace))
        assert_readable(workspace, keys)
        assert AuditChain(workspace.database).verify().is_sound
        result = rotate_keys([workspace], secrets=secrets)
        half += len(under) == 2
        assert result.is_new == (under == {keys.key_id}), "what was begun is finished, not begun again"
        assert keys_of(workspace) == [result.key_id] * len(ROUNDS)
        drop_old_keys([workspace], secrets=secrets)
        assert_readable(workspace, secrets.keys.load())
        assert len(secrets.keys.load().keys) == 1
    assert moments > 20
    assert half >= len(ROUNDS) - 1, "it was killed between any two files"


def test_a_run_that_goes_on_writes_with_the_new_key(workspace: Workspace, secrets: Secrets) -> None:
    """Its keys are read anew for each checkpoint: the next one needs no old key."""
    rotate_keys([workspace], secrets=secrets)
    write(workspace, 5, secrets=secrets)
    drop_old_keys([workspace], secrets=secrets)
    found = load_checkpoint(
        workspace.checkpoint(5), cipher=secrets.keys.load(), schema_hash="5c", run_id="run", round_number=5
    )
    assert found.vector[0] == 5


def test_an_old_key_stays_as_long_as_a_file_needs_it(workspace: Workspace, secrets: Secrets) -> None:
    saved = workspace.checkpoint(2).read_bytes()
    rotate_keys([workspace], secrets=secrets)
    workspace.checkpoint(2).write_bytes(saved)
    with pytest.raises(ArtefactError) as caught:
        drop_old_keys([workspace], secrets=secrets)
    assert caught.value.code == "CHECKPOINT_KEY_WRONG"
    assert_readable(workspace, secrets.keys.load())
    result = rotate_keys([workspace], secrets=secrets)
    assert (result.is_new, result.files) == (False, (workspace.checkpoint(2),))


@pytest.mark.parametrize("harm", ["damaged", "strange key"])
def test_a_file_that_cannot_be_read_stops_no_other_and_keeps_the_old_keys(
    workspace: Workspace, secrets: Secrets, tmp_path: Path, harm: str
) -> None:
    before = secrets.keys.load()
    if harm == "damaged":
        workspace.checkpoint(1).write_bytes(workspace.checkpoint(1).read_bytes()[:-100])
    else:
        write(workspace, 1, secrets=Secrets.in_files(tmp_path / "other.key"))
    data = workspace.checkpoint(1).read_bytes()
    with pytest.raises(ArtefactError) as caught:
        rotate_keys([workspace], secrets=secrets)
    assert caught.value.code == ("CHECKPOINT_DAMAGED" if harm == "damaged" else "CHECKPOINT_KEY_WRONG")
    keys = secrets.keys.load()
    assert keys.key_ids[1:] == before.key_ids
    assert [read_header(workspace.checkpoint(number)).key_id for number in ROUNDS[1:]] == [keys.key_id] * 3
    assert workspace.checkpoint(1).read_bytes() == data
    with pytest.raises(ArtefactError):
        drop_old_keys([workspace], secrets=secrets)


TOGETHER = """
import sys
from pathlib import Path
from aevorium.governance.secrets import Secrets
from aevorium.rotation import rotate_keys
from aevorium.workspace import Workspace

folder, name = Path(sys.argv[1]), sys.argv[2]
secrets = Secrets.in_files(folder / "keys" / "checkpoint.key")
print("ready", flush=True)
sys.stdin.readline()
print(sum(rotate_keys([Workspace(folder / name)], secrets=secrets).is_new for _ in range(8)))
"""


def test_two_workspaces_that_rotate_the_same_keys_at_once_lose_none(folder: Path, secrets: Secrets) -> None:
    names = ("workspace", "other")
    shutil.copytree(folder / names[0], folder / names[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(folder), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    answers = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        answers.append(int(out))
    assert len(secrets.keys.load().keys) == 1 + sum(answers)
    for name in names:
        assert_readable(Workspace(folder / name), secrets.keys.load())


class Desk:
    """What is typed is answered; everything that was shown is kept."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.workspace, self._capsys, self.shown = folder / "workspace", capsys, ""

    def type(self, *arguments: str, status: int = 0, json_too: bool = True) -> Any:
        told = io.StringIO()
        with redirect_stdout(told):
            found = main([*arguments, *(["--json"] if json_too else [])])
        captured = self._capsys.readouterr()
        self.shown += told.getvalue() + captured.out + captured.err
        assert found == status, self.shown
        if not json_too:
            return None
        answer = json.loads(told.getvalue().splitlines()[-1])
        return answer["data"] if status == 0 else answer["error"]

    def rotate(self, *options: str, status: int = 0) -> Any:
        return self.type("keys", "rotate", "--workspace", str(self.workspace), *options, status=status)


@pytest.fixture
def desk(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("AEVORIUM_KEY_FILE", str(folder / "keys" / "checkpoint.key"))
    return Desk(folder, capsys)


def test_the_command_rotates_and_drops(desk: Desk, workspace: Workspace, secrets: Secrets) -> None:
    old = (secrets.log.path.parent / "checkpoint.key").read_text().strip()
    first = desk.rotate()
    assert (first["is_new"], len(first["files"]), first["dropped"]) == (True, 4, [])
    assert desk.rotate("--drop-old", status=2)["code"] == "CONFIG_INVALID", "nobody can be asked"
    second = desk.rotate("--drop-old", "--yes")
    assert (second["older"], len(second["dropped"])) == ([], 2)
    shown = desk.type("keys", "show")
    assert (shown["key_id"], shown["older"]) == (second["key_id"], [])
    desk.type("keys", "show", json_too=False)
    assert_readable(workspace, secrets.keys.load())
    for secret in (old, (secrets.log.path.parent / "checkpoint.key").read_text().strip()):
        assert secret not in desk.shown


def test_a_workspace_without_a_run_has_nothing_to_rotate(desk: Desk, tmp_path: Path) -> None:
    desk.workspace = tmp_path / "none"
    assert desk.rotate(status=1)["code"] == "ARTEFACT_NOT_FOUND"
    assert not desk.workspace.exists()


def test_the_keys_of_the_environment_are_exchanged_by_who_sets_them(
    desk: Desk, workspace: Workspace, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = secrets.log.path.parent / "checkpoint.key"
    old, new = file.read_text().strip(), "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    file.unlink()
    monkeypatch.setenv("AEVORIUM_KEY", old)
    assert desk.rotate(status=2)["code"] == "KEY_SOURCE_FIXED"
    monkeypatch.setenv("AEVORIUM_KEY", f"{new},{old}")
    assert len(desk.rotate()["files"]) == 4
    assert desk.rotate("--drop-old", "--yes", status=2)["code"] == "KEY_SOURCE_FIXED"
    monkeypatch.setenv("AEVORIUM_KEY", new)
    assert desk.type("keys", "show")["key_id"] == KeySet.parse(new.encode()).key_id
    desk.type("config", "show")
    desk.type("config", "show", json_too=False)
    assert_readable(workspace, KeySet.parse(new.encode()))
    monkeypatch.setenv("AEVORIUM_KEY", old)
    assert desk.rotate(status=2)["code"] == "KEY_SOURCE_FIXED"
    with pytest.raises(ArtefactError) as caught:
        assert_readable(workspace, KeySet.parse(old.encode()))
    assert caught.value.code == "CHECKPOINT_KEY_WRONG"
    monkeypatch.setenv("AEVORIUM_KEY", f"{new[:-3]}xyz")
    assert desk.type("keys", "show", status=1)["code"] == "KEY_INVALID"
    desk.type("keys", "show", "--verbose", status=1, json_too=False)
    assert not file.exists()
    for secret in (old, new, new[:-3]):
        assert secret not in desk.shown


def test_a_key_in_the_workspace_is_refused(
    desk: Desk, workspace: Workspace, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = workspace.root / "sub" / "checkpoint.key"
    inside.parent.mkdir()
    (secrets.log.path.parent / "checkpoint.key").replace(inside)
    monkeypatch.setenv("AEVORIUM_KEY_FILE", str(inside))
    monkeypatch.setenv("AEVORIUM_AUDIT_KEY_FILE", str(secrets.log.path))
    error = desk.rotate(status=2)
    assert error["code"] == "KEY_MISPLACED"
