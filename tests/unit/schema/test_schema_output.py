import gc
import weakref

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from aevorium.errors import ConfigError
from aevorium.schema.output import write_table
from aevorium.schema.table import TableSchema

SCHEMA = TableSchema.model_validate(
    {
        "name": "t",
        "columns": {
            "n": {"kind": "continuous", "min": 0, "max": 10**7, "integer": True, "missing": True},
            "x": {"kind": "continuous", "min": -1, "max": 10**7, "missing": True},
            "c": {"kind": "categorical", "categories": ["ä b", "NA"], "missing": True},
        },
    }
)


def frame(
    n=(1.0, np.nan, 3_000_000), x=(1 / 3, 1234567.8 + 1 / 3, np.nan), c=("ä b", None, "NA"), categories=("ä b", "NA")
):
    return pd.DataFrame({"n": n, "x": x, "c": pd.Categorical(c, categories=list(categories))})


def test_csv_is_plain(tmp_path):
    path = tmp_path / "out.csv"
    assert write_table([frame(), frame(x=(-0.0, 1e-9, 100.0))], path, SCHEMA) == 6
    assert path.read_bytes().decode("utf-8") == (
        "n,x,c\n1,0.333333,ä b\n,1234570,\n3000000,,NA\n1,0,ä b\n,1e-9,\n3000000,100,NA\n"
    )


def test_csv_quotes_only_if_a_category_or_a_name_needs_it(tmp_path):
    columns = {'a,"b': {"kind": "categorical", "categories": ["x,y", 'say "hi"', "two\nlines"]}}
    schema = TableSchema.model_validate({"name": "t", "columns": columns})
    values = pd.Categorical(["x,y", 'say "hi"', "two\nlines"])
    write_table([pd.DataFrame({'a,"b': values})], tmp_path / "out.csv", schema)
    assert (tmp_path / "out.csv").read_bytes() == b'"a,""b"\n"x,y"\n"say ""hi"""\n"two\nlines"\n'
    assert pd.read_csv(tmp_path / "out.csv")['a,"b'].tolist() == list(values)


def test_parquet_has_types(tmp_path):
    path = tmp_path / "out.PARQUET"
    assert write_table([frame(), frame()], path, SCHEMA) == 6
    table = pyarrow.parquet.read_table(path)
    assert table.schema.types == [pa.int64(), pa.float64(), pa.string()]
    assert table.column("n").to_pylist() == [1, None, 3_000_000] * 2
    assert table.column("x").to_pylist() == [0.333333, 1234570.0, None] * 2
    assert table.column("c").to_pylist() == ["ä b", None, "NA"] * 2


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_no_frames_make_a_table_without_rows(tmp_path, name):
    assert write_table([], tmp_path / name, SCHEMA) == 0
    read = pd.read_csv if name.endswith("csv") else pd.read_parquet
    assert read(tmp_path / name).columns.tolist() == ["n", "x", "c"]


def test_columns_are_written_in_the_order_of_the_schema(tmp_path):
    write_table([frame()[["c", "x", "n"]].assign(extra=1)], tmp_path / "out.csv", SCHEMA)
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").startswith("n,x,c\n1,0.333333,ä b\n")


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_frames_are_not_kept(tmp_path, name):
    alive = []

    def frames():
        for _ in range(3):
            made = frame()
            alive.append(weakref.ref(made))
            yield made
            del made
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 1

    assert write_table(frames(), tmp_path / name, SCHEMA) == 9


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path, name):
    def frames():
        yield frame()
        raise KeyboardInterrupt

    path = tmp_path / name
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_table(frames(), path, SCHEMA)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, name):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal = pytest.importorskip("signal")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    values = np.random.default_rng(0).random(200_000)
    large = frame(n=np.arange(200_000.0), x=values, c=["NA"] * 200_000)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(ConfigError) as caught:
            write_table([large], tmp_path / name, SCHEMA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.code == "WORKSPACE_UNWRITABLE"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.xlsx", "out", "out.csv.gz"])
def test_another_format_is_refused_before_any_work(tmp_path, name):
    def frames():
        raise AssertionError("consumed")
        yield

    with pytest.raises(ConfigError) as caught:
        write_table(frames(), tmp_path / name, SCHEMA)
    assert caught.value.code == "CONFIG_INVALID"


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(ConfigError, match="folder"):
        write_table([], tmp_path / "out.csv", SCHEMA)
