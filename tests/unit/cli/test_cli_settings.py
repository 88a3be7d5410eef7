"""Settings: which source wins, what each value says of its origin, and what is refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from aevorium.cli.app import main
from aevorium.errors import ConfigError
from aevorium.settings import Settings, environment_names, load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder without a settings file."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_defaults_are_those_of_the_contract() -> None:
    values = load_settings().values
    assert (values.epsilon, values.delta, values.recipe, values.trust) == (3.0, 1e-5, "warm-start", "local")
    assert (values.num_rounds, values.training_epochs, values.batch_size) == (5, None, None)
    assert values.dp_noise_multiplier is None
    assert values.workspace == Path("workspace")


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [load_settings()]
    (folder / "aevorium.toml").write_text("num_rounds = 2\n", encoding="utf-8")
    seen.append(load_settings())
    monkeypatch.setenv("NUM_ROUNDS", "3")
    seen.append(load_settings())
    monkeypatch.setenv("AEVORIUM_NUM_ROUNDS", "4")
    seen.append(load_settings())
    seen.append(load_settings({"num_rounds": 6, "epsilon": None}))
    assert [found.values.num_rounds for found in seen] == [5, 2, 3, 4, 6]
    assert [found.origins["num_rounds"].kind for found in seen] == [
        "default", "file", "environment", "environment", "flag",
    ]  # fmt: skip
    assert [found.origins["num_rounds"].text for found in seen[2:]] == ["NUM_ROUNDS", "AEVORIUM_NUM_ROUNDS", "--rounds"]
    assert seen[-1].origins["epsilon"].kind == "default"


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_can_be_set_by_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "epsilon": "0.5",
        "delta": "1e-6",
        "recipe": "dp-sgd",
        "trust": "local",
        "dp_noise_multiplier": "1.5",
        "server_address": "far.example:9000",
        "key_source": "keyring",
        "device": "cpu",
        "nodes": "a=7",
        "api_origins": "https://portal.example",
        "api_rate": "50/second",
        "api_url": "http://aevorium.example",
        "oidc_roles": "it=engineer",
        "oidc_scope": "api://aevorium/use openid",
        "oidc_token": "id",
        "dashboard_url": "https://study.example",
        "log_json": "false",
    }
    read: dict[str, object] = {
        "nodes": {"a": Path("7")},
        "api_origins": ("https://portal.example",), "oidc_roles": {"it": "engineer"}, "log_json": False,
    }  # fmt: skip
    for variable in environment_names(name):
        with monkeypatch.context() as only:
            for other in environment_names(name):
                only.delenv(other, raising=False)
            only.setenv(variable, values.get(name, "7"))
            found = load_settings()
            assert found.origins[name].text == variable
            value = getattr(found.values, name)
            assert value == (read[name] if name in read else type(value)(values.get(name, "7")))


@pytest.mark.parametrize("text", ["a", "=x.csv", "a=", "a=x.csv,a=y.csv", "../a=x.csv", "a/b=x.csv", "a.=x.csv"])
def test_nodes_of_the_worker_are_names_and_tables(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEVORIUM_NODES", text)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert caught.value.code == "CONFIG_INVALID"
    assert "AEVORIUM_NODES" in caught.value.message


def test_nodes_of_the_worker_may_be_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEVORIUM_NODES", "north = n.csv, south=s.parquet")
    assert load_settings().values.nodes.keys() == {"north", "south"}


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEVORIUM_EPSILON", "")
    found = load_settings()
    assert (found.values.epsilon, found.origins["epsilon"].kind) == (3.0, "default")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NUM_ROUNDS", "abc"),
        ("NUM_ROUNDS", "0"),
        ("NUM_ROUNDS", "-1"),
        ("TRAINING_EPOCHS", "0"),
        ("BATCH_SIZE", "1.5"),
        ("DP_NOISE_MULTIPLIER", "-0.1"),
        ("DP_NOISE_MULTIPLIER", "inf"),
        ("AEVORIUM_EPSILON", "0"),
        ("AEVORIUM_EPSILON", "nan"),
        ("AEVORIUM_DELTA", "1"),
        ("AEVORIUM_DELTA", "0"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=variable) as caught:
        load_settings()
    assert caught.value.code == "CONFIG_INVALID"


def test_an_infinite_epsilon_is_a_choice() -> None:
    assert load_settings({"epsilon": math.inf}).values.epsilon == math.inf


@pytest.mark.parametrize(
    ("text", "reason"),
    [("rouns = 2", "rouns"), ("rounds = = 2", "TOML"), ("epsilon = 'x'", "epsilon"), ("num_rounds = 0", "num_rounds")],
)
def test_a_wrong_settings_file_is_explained(folder: Path, text: str, reason: str) -> None:
    (folder / "aevorium.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=reason) as caught:
        load_settings()
    assert caught.value.code == "CONFIG_INVALID"


def test_noise_and_epsilon_together_are_refused_wherever_each_comes_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DP_NOISE_MULTIPLIER", "0.3")
    assert load_settings().values.dp_noise_multiplier == 0.3
    with pytest.raises(ConfigError, match=r"--epsilon.*DP_NOISE_MULTIPLIER") as caught:
        load_settings({"epsilon": 3.0})
    assert caught.value.code == "CONFIG_CONFLICT"
    (folder / "aevorium.toml").write_text("epsilon = 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"aevorium\.toml"):
        load_settings()


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AEVORIUM_DATABASE", "postgresql+psycopg://ann:hunter2@host/name")
    assert main(["config", "show", "--json"]) == 0
    shown = capsys.readouterr()
    assert "hunter2" not in shown.out + shown.err
    assert json.loads(shown.out)["data"]["database"]["value"] == "set, not shown"
    assert "hunter2" not in repr(load_settings().values)
