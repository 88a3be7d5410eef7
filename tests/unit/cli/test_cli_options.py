"""Flags tell the truth about their variable and default, and a node's name never leaves its folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aevorium.cli import options
from aevorium.errors import AevoriumError, ConfigError
from aevorium.inputs import parse_nodes, read_schema
from aevorium.schema.table import TableSchema
from aevorium.settings import Settings, environment_names, load_settings
from aevorium.workspace import Workspace


@pytest.mark.parametrize(
    ("option", "setting"),
    [
        (options.Epsilon, "epsilon"),
        (options.Delta, "delta"),
        (options.Recipe, "recipe"),
        (options.Trust, "trust"),
        (options.Rounds, "num_rounds"),
        (options.Epochs, "training_epochs"),
        (options.BatchSize, "batch_size"),
        (options.NoiseMultiplier, "dp_noise_multiplier"),
        (options.Seed, "seed"),
        (options.WorkspaceFolder, "workspace"),
    ],
    ids=lambda value: value if isinstance(value, str) else "option",
)
def test_the_help_of_a_flag_names_its_variable_and_default(option, setting):
    text = option.__metadata__[0].help
    default = Settings.model_fields[setting].default
    variable, shown = re.fullmatch(r".*\(env ([A-Z_]+), (?:default )?(.+)\)\.", text).groups()
    assert variable in environment_names(setting)
    assert shown == ("unset" if default is None else f"{default:g}" if isinstance(default, float) else str(default))


@given(name=st.text(max_size=70))
def test_a_name_that_passes_is_a_folder_of_its_own(name: str) -> None:
    """Whatever is accepted as a name stays inside the folder of the nodes, one level deep."""
    try:
        parse_nodes([f"{name}={__file__}"])
    except AevoriumError:
        return
    root = Path("workspace").resolve()
    home = Workspace(root).node_home(name).resolve()
    assert home.parent == root / "nodes"
    assert home.name == name


def test_a_schema_comes_with_the_text_it_was_read_from(tmp_path: Path) -> None:
    schema, text = read_schema("synthea")
    assert TableSchema.from_toml(text, source="text").content_hash == schema.content_hash
    path = tmp_path / "own.toml"
    path.write_text("\ufeff" + text, encoding="utf-8")
    assert read_schema(str(path)) == (schema, text)


def test_of_two_names_in_a_settings_file_the_variable_s_counts_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "aevorium.toml"
    file.write_text("NUM_ROUNDS = 2\nnum_rounds = 9", encoding="utf-8")
    found = load_settings()
    assert (found.values.num_rounds, found.origins["num_rounds"].text) == (2, "NUM_ROUNDS in aevorium.toml")
    file.write_bytes("recipe = 'é'".encode("latin-1"))
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_settings()
