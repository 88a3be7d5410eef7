"""Where keys come from, and that none of them is ever shown."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from aevorium.cli.app import main
from aevorium.errors import AevoriumError, ArtefactError, ConfigError
from aevorium.governance.keys import KeySet, load_keys, replace_secret
from aevorium.governance.secrets import EnvironmentKeys, FileKeys, KeyringKeys, Keys, Secrets
from aevorium.settings import load_settings

FIRST = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
SECOND = "OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2NTQzMjEwOTg="


class Keyring(SimpleNamespace):
    """A stand-in for the library: one backend that keeps, one that is locked, one that forgets."""

    class KeyringError(Exception):
        pass

    def __init__(self, *, kind: str = "open") -> None:
        super().__init__(errors=SimpleNamespace(KeyringError=self.KeyringError))
        self.kind, self.kept = kind, {}

    def get_password(self, service: str, name: str) -> str | None:
        if self.kind == "locked":
            raise self.KeyringError(f"locked, and it held {FIRST}")
        return self.kept.get((service, name))

    def set_password(self, service: str, name: str, text: str) -> None:
        if self.kind != "forgets":
            self.kept[service, name] = text


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Keyring:
    made = Keyring()
    monkeypatch.setitem(sys.modules, "keyring", made)
    return made


@pytest.fixture(params=["file", "keyring"])
def keys(request: pytest.FixtureRequest, tmp_path: Path, keyring: Keyring) -> Keys:
    return FileKeys(tmp_path / "keys" / "checkpoint.key") if request.param == "file" else KeyringKeys()


def test_a_place_makes_adds_and_drops_keys(keys: Keys) -> None:
    assert not keys.exists()
    first = keys.load_or_create()
    token = first.encrypt(b"weights")
    assert keys.exists()
    assert keys.load_or_create() == keys.load()
    both = keys.add()
    assert both.key_ids == (both.key_id, first.key_id)
    assert both.decrypt(token) == b"weights"
    assert keys.add().key_ids[1:] == both.key_ids
    newest = keys.load().key_id
    assert keys.keep_newest().key_ids == (newest,)
    assert keys.keep_newest().key_ids == (newest,)
    with pytest.raises(ValueError, match="none of these keys"):
        keys.load().decrypt(token)


def test_nothing_is_added_to_what_cannot_be_read(tmp_path: Path, keyring: Keyring) -> None:
    """Or an old key would be lost by a mistake in its file."""
    path = tmp_path / "key"
    replace_secret(path, f"{FIRST}\nno key".encode())
    keyring.kept["aevorium", "checkpoint-keys"] = f"{FIRST},no key"
    for keys in (FileKeys(path), KeyringKeys()):
        for change in (keys.load, keys.add, keys.keep_newest):
            with pytest.raises(ArtefactError) as caught:
                change()
            assert caught.value.code == "KEY_INVALID"
    assert path.read_text(encoding="ascii") == f"{FIRST}\nno key\n"
    assert keyring.kept["aevorium", "checkpoint-keys"] == f"{FIRST},no key"


def test_a_new_key_stays_its_owner_s(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path / "key")
    keys.load_or_create()
    keys.add()
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert len((tmp_path / "key").read_text(encoding="ascii").split()) == 2
    (tmp_path / "key").chmod(0o640)
    for change in (keys.load, keys.add, keys.keep_newest):
        with pytest.raises(ArtefactError) as caught:
            change()
        assert "chmod 600" in caught.value.hint


@pytest.mark.parametrize(
    "text", [f"{FIRST},{SECOND}", f"{FIRST} , {SECOND}", f"{FIRST}\n{SECOND}\n", f" {FIRST}  {SECOND}"]
)
def test_keys_are_read_newest_first_however_they_are_separated(text: str) -> None:
    found = EnvironmentKeys(SecretStr(text)).load()
    assert found == KeySet.parse(text.encode())
    assert found.key_ids == (KeySet.parse(FIRST.encode()).key_id, KeySet.parse(SECOND.encode()).key_id)


def test_the_environment_is_never_changed() -> None:
    two = EnvironmentKeys(SecretStr(f"{FIRST},{SECOND}"))
    for change in (two.add, two.keep_newest):
        with pytest.raises(ConfigError) as caught:
            change()
        assert caught.value.code == "KEY_SOURCE_FIXED"
    assert EnvironmentKeys(SecretStr(FIRST)).keep_newest().key_ids == two.load().key_ids[:1]


def test_without_its_library_a_keyring_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigError) as caught:
        KeyringKeys().load()
    assert (caught.value.code, caught.value.exit_status) == ("DEPENDENCY_MISSING", 2)
    assert "aevorium[keyring]" in caught.value.hint


@pytest.mark.parametrize("kind", ["locked", "forgets"])
def test_a_keyring_that_cannot_be_used(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", Keyring(kind=kind))
    with pytest.raises(ArtefactError) as caught:
        KeyringKeys().load_or_create()
    assert caught.value.code == "KEYRING_UNAVAILABLE"
    assert FIRST not in "".join(traceback.format_exception(caught.value))


def test_the_environment_wins_over_the_keyring_and_that_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(Secrets.of(load_settings().values).keys, FileKeys)
    monkeypatch.setenv("AEVORIUM_KEY_SOURCE", "keyring")
    assert isinstance(Secrets.of(load_settings().values).keys, KeyringKeys)
    monkeypatch.setenv("AEVORIUM_KEY", FIRST)
    assert isinstance(Secrets.of(load_settings().values).keys, EnvironmentKeys)


def test_the_audit_key_lies_beside_the_key_file_or_where_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AEVORIUM_KEY_FILE", str(tmp_path / "a" / "key"))
    assert Secrets.of(load_settings().values).log.path == tmp_path / "a" / "audit.key"
    monkeypatch.setenv("AEVORIUM_AUDIT_KEY_FILE", str(tmp_path / "b.key"))
    assert Secrets.of(load_settings().values).log.path == tmp_path / "b.key"


def test_no_secret_may_lie_in_the_workspace(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (tmp_path / "link").symlink_to(workspace)
    Secrets.in_files(tmp_path / "key").open(workspace)
    for misplaced in (
        Secrets.in_files(workspace / "key", audit_key_file=tmp_path / "audit.key"),
        Secrets.in_files(tmp_path / "key", audit_key_file=workspace / "deep" / "audit.key"),
        Secrets.in_files(tmp_path / "link" / "key", audit_key_file=tmp_path / "audit.key"),
    ):
        with pytest.raises(ConfigError) as caught:
            misplaced.open(workspace)
        assert (caught.value.code, caught.value.exit_status) == ("KEY_MISPLACED", 2)
    assert list(workspace.iterdir()) == []


def test_a_secret_beside_a_table_is_noticed(tmp_path: Path) -> None:
    table = tmp_path / "tables" / "a.csv"
    assert not Secrets.in_files(tmp_path / "key").lies_beside(table)
    assert Secrets.in_files(tmp_path / "tables" / "key").lies_beside(table)
    assert Secrets.in_files(tmp_path / "key", audit_key_file=tmp_path / "tables" / "audit.key").lies_beside(table)


@pytest.mark.parametrize("name", ["key", "KEY", "AEVORIUM_KEY", "aevorium_key"])
def test_a_file_of_settings_is_no_place_for_a_key(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "aevorium.toml").write_text(f'{name} = "{FIRST}"\n', encoding="utf-8")
    assert main(["config", "show", "--json"]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["code"] == "CONFIG_INVALID"
    assert FIRST not in captured.out + captured.err


def test_a_key_is_in_no_answer_no_error_and_no_text_of_an_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AEVORIUM_KEY", f"{FIRST},{SECOND}")
    monkeypatch.setenv("AEVORIUM_EPSILON", "0.5")
    for arguments in (
        ["config", "show"],
        ["keys", "show"],
        ["doctor"],
        ["config", "show", "--json"],
        ["keys", "show", "--json"],
    ):
        assert main(arguments) == 0
    monkeypatch.setenv("AEVORIUM_EPSILON", "-1")
    assert main(["config", "show", "--verbose"]) == 2
    monkeypatch.setenv("AEVORIUM_EPSILON", "1")
    monkeypatch.setenv("AEVORIUM_KEY", f"{FIRST},short")
    for arguments in (["keys", "show", "--verbose"], ["doctor", "--verbose"]):
        assert main(arguments) == 1
    captured = capsys.readouterr()
    settings = load_settings()
    try:
        Secrets.of(settings.values).keys.load()
    except AevoriumError as error:
        log = "".join(traceback.format_exception(error))
    shown = (
        captured.out + captured.err + repr(settings) + str(settings.values) + repr(Secrets.of(settings.values)) + log
    )
    assert "set, not shown" in captured.out
    for secret in (FIRST, SECOND, FIRST[:20], SECOND[:20]):
        assert secret not in shown


def test_a_set_of_keys_does_not_show_itself(tmp_path: Path) -> None:
    replace_secret(tmp_path / "key", f"{FIRST}\n{SECOND}".encode())
    found = load_keys(tmp_path / "key")
    assert FIRST[:16] not in repr(found) + str(found)
    assert SECOND[:16] not in repr(found) + str(found)
