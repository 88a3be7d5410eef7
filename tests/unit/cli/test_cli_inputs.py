"""`--node NAME=FILE`, `--policy`, and the note of where a workspace's tables lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aevorium.errors import AevoriumError, ArtefactError, ConfigError, DataError
from aevorium.inputs import parse_nodes, parse_policies, read_node_files, write_node_files
from aevorium.workspace import Workspace


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "a=b.csv"
    path.write_text("x\n1\n", encoding="utf-8")
    return path


def test_nodes_keep_their_order_and_a_file_may_hold_an_equals_sign(table: Path) -> None:
    names = ["hospital", "A.1", "b_2-c"]
    found = parse_nodes([f"{name}={table}" for name in names])
    assert list(found) == names
    assert set(found.values()) == {table}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "../a", "a b", "ü", "a.", "a:b", "x" * 65, "a\nb", "a\0b"]
)
def test_a_name_that_is_no_folder_everywhere_is_refused(name: str, table: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_nodes([f"{name}={table}"])
    assert caught.value.code == "CONFIG_INVALID"


@pytest.mark.parametrize("value", ["A", "A=", "=", "=file.csv"])
def test_another_form_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="NAME=FILE") as caught:
        parse_nodes([value])
    assert caught.value.code == "CONFIG_INVALID"


def test_two_nodes_of_one_name_are_refused_even_if_only_the_case_differs(table: Path) -> None:
    for twin in ("A", "a"):
        with pytest.raises(ConfigError) as caught:
            parse_nodes([f"A={table}", f"{twin}={table}"])
        assert caught.value.code == "CONFIG_INVALID"


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv") as caught:
        parse_nodes([f"A={tmp_path / 'none.csv'}"])
    assert caught.value.code == "DATA_NOT_FOUND"


def _policy(path: Path, limit: float) -> Path:
    path.write_text(f"[budget]\nmax_epsilon = {limit}\n", encoding="utf-8")
    return path


def test_a_node_has_its_own_policy_or_that_of_all_or_none(tmp_path: Path) -> None:
    general, own = _policy(tmp_path / "all.toml", 2.0), _policy(tmp_path / "own.toml", 1.0)
    found = parse_policies([f"B={own}", str(general)], nodes=["A", "B"])
    assert {name: policy.budget.max_epsilon for name, policy in found.items()} == {"A": 2.0, "B": 1.0}
    assert list(parse_policies([f"B={own}"], nodes=["A", "B"])) == ["B"]
    assert parse_policies([], nodes=["A"]) == {}


def test_policies_that_contradict_each_other_or_name_nobody_are_refused(tmp_path: Path) -> None:
    file = _policy(tmp_path / "all.toml", 2.0)
    for values in ([str(file), str(file)], [f"A={file}", f"A={file}"], [f"C={file}"], [str(tmp_path / "none.toml")]):
        with pytest.raises(AevoriumError) as caught:
            parse_policies(values, nodes=["A", "B"])
        assert caught.value.exit_status == 2


def test_the_note_of_the_tables_is_for_its_owner_and_says_when_it_is_damaged(tmp_path: Path, table: Path) -> None:
    workspace = Workspace(tmp_path / "workspace").create()
    assert read_node_files(workspace) is None
    write_node_files(workspace, nodes={"A": table}, holdout=table)
    found = read_node_files(workspace)
    assert found is not None
    assert found.nodes == {"A": table.resolve()}
    assert found.holdout == table.resolve()
    (note,) = workspace.root.iterdir()
    if os.name == "posix":
        assert note.stat().st_mode & 0o077 == 0
    note.write_text("{", encoding="utf-8")
    with pytest.raises(ArtefactError):
        read_node_files(workspace)
