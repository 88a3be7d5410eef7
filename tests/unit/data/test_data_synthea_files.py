"""Exports as they lie on disk: where they are found, how they are read, and what is said about bad ones."""

import gzip
import tracemalloc

import pyarrow as pa
import pytest
from synthea_exports import Export

from aevorium.data.export import SyntheaExport
from aevorium.data.synthea import prepare_export
from aevorium.errors import DataError

SECRET = "Zaphod-1234"


def refused(directory, code):
    with pytest.raises(DataError) as caught:
        prepare_export(directory)
    assert caught.value.code == code
    assert SECRET not in caught.value.message + caught.value.hint
    return caught.value


@pytest.mark.parametrize("folder", ["csv", "."])
def test_the_folder_or_its_parent_is_accepted(folder, tmp_path):
    Export().write(tmp_path / folder)
    assert prepare_export(tmp_path).findings.kept == 1


def test_a_folder_that_holds_tables_wins_over_one_below_it(tmp_path):
    Export().write(tmp_path)
    Export().patient("p2").encounter("p2").write(tmp_path / "csv")
    assert prepare_export(tmp_path).findings.kept == 1


def test_no_folder(tmp_path):
    assert "absent" in refused(tmp_path / "absent", "DATA_NOT_FOUND").message


@pytest.mark.parametrize("name", ["H1.tgz", "H1.tar.gz", "H1.ZIP"])
def test_an_archive_is_to_be_extracted(name, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    assert "Extract" in refused(tmp_path / name, "DATA_UNREADABLE").hint


def test_a_table_instead_of_the_folder(tmp_path):
    Export().write(tmp_path)
    assert "folder" in refused(tmp_path / "patients.csv", "DATA_UNREADABLE").hint


def test_all_that_is_missing_is_named_at_once(tmp_path):
    Export().write(tmp_path)
    (tmp_path / "allergies.csv").unlink()
    (tmp_path / "procedures.csv").write_text("PATIENT,CODE\n")
    (tmp_path / "patients.csv").write_text("Id,GENDER\np1,F\n")
    (tmp_path / "medications.csv").write_text("")
    (tmp_path / "conditions.csv").write_text("START;STOP;PATIENT;ENCOUNTER;CODE;DESCRIPTION\n")
    (tmp_path / "observations.csv").write_text("DATE,PATIENT,CODE,VALUE,UNITS\n", encoding="utf-16")
    (tmp_path / "encounters.csv.gz").write_bytes(gzip.compress(b"Id\n"))
    message = refused(tmp_path, "SYNTHEA_INCOMPLETE").message
    for part in (
        "allergies.csv is missing",
        "procedures.csv lacks the column START or DATE",
        "patients.csv lacks the columns BIRTHDATE, DEATHDATE",
        "medications.csv is empty",
        "conditions.csv is not separated by commas",
        "observations.csv is not UTF-8 text",
        "encounters.csv and encounters.csv.gz are both there",
    ):
        assert part in message


def test_an_empty_folder_lacks_all_seven(tmp_path):
    assert refused(tmp_path, "SYNTHEA_INCOMPLETE").message.count("is missing") == 7


@pytest.mark.parametrize("table", ["patients", "encounters"])
def test_only_headers(table, tmp_path):
    export = Export()
    export.rows[table] = []
    refused(export.write(tmp_path), "DATA_EMPTY")


def test_other_tables_may_have_no_rows(tmp_path):
    result = prepare_export(Export().write(tmp_path))
    assert result.findings.rows["allergies"] == 0
    assert "allergies 0" in "\n".join(result.findings.lines())


def test_nobody_is_left(tmp_path):
    export = Export(empty=True).patient(SECRET, birth="2015-01-01").encounter(SECRET)
    refused(export.write(tmp_path), "DATA_EMPTY")


def test_encounters_without_any_date(tmp_path):
    export = Export(empty=True).patient("p1").encounter("p1", start=SECRET)
    refused(export.write(tmp_path), "DATA_EMPTY")


def test_duplicate_patients(tmp_path):
    export = Export(empty=True).patient(SECRET).patient(SECRET).patient("p2").encounter(SECRET)
    assert "1 rows repeat" in refused(export.write(tmp_path), "DATA_DUPLICATE_UNIT").message


def test_patients_without_an_id_are_refused(tmp_path):
    result = prepare_export(Export().patient("").encounter("").write(tmp_path))
    assert result.findings.refused == {"without an id": 1}


@pytest.mark.parametrize("table", ["conditions", "patients"])
def test_latin_1_where_it_is_read(table, tmp_path):
    export = Export().condition("p1", f"Ménière {SECRET}").patient("p2", gender="é").write(tmp_path)
    path = export / f"{table}.csv"
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    assert f"{table}.csv" in refused(export, "DATA_UNREADABLE").message


def test_latin_1_where_nobody_reads_it_does_not_matter(tmp_path):
    """Older Synthea on Windows wrote names in the machine's own code page."""
    export = Export()
    export.rows["patients"][0]["LAST"] = "Peña"
    path = export.write(tmp_path) / "patients.csv"
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    assert prepare_export(tmp_path).findings.kept == 1


def test_a_byte_order_mark_and_windows_line_ends(tmp_path):
    Export().write(tmp_path)
    for path in tmp_path.glob("*.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    result = prepare_export(tmp_path)
    assert result.findings.kept == 1
    assert result.findings.unreadable == {}


def test_quoted_commas_and_line_breaks(tmp_path):
    export = Export().condition("p1", 'Diabetes, "type 2"\nof adults').condition("p1", "Anemia")
    row = prepare_export(export.write(tmp_path)).frame.iloc[0]
    assert row[["Diagnosis", "ConditionCount"]].tolist() == ["Diabetes", 2]


@pytest.mark.parametrize("table", ["medications", "patients"])
def test_a_row_that_was_cut_short(table, tmp_path):
    path = Export().event("medications", "p1").write(tmp_path) / f"{table}.csv"
    path.write_text(path.read_text() + f"{SECRET},2\n")
    message = refused(tmp_path, "DATA_UNREADABLE").message
    assert f"{table}.csv" in message
    assert "A row has 2 fields where the header has" in message


def test_a_damaged_archive_of_a_table(tmp_path):
    Export().write(tmp_path, gzipped=True)
    path = tmp_path / "encounters.csv.gz"
    path.write_bytes(path.read_bytes()[:-12])
    refused(tmp_path, "DATA_UNREADABLE")
    path.write_bytes(b"no gzip")
    refused(tmp_path, "DATA_UNREADABLE")


def test_memory_does_not_grow_with_the_observations(tmp_path, monkeypatch):
    """Arrow reads ahead by 32 blocks, 40 MB of text and columns, whether the file has 100 MB or many times that."""
    export = Export()
    for _ in range(20):
        export.observation("p1", "8302-2", "170.1", units="cm")
    export.observation("p1", "2339-0", "70", units="mg/dL").observation("p1", "2339-0", "71", units="mg/dL")
    path = export.write(tmp_path) / "observations.csv"
    header, rows = path.read_text().split("\n", 1)
    with path.open("w") as file:
        file.write(header + "\n")
        block = rows * 500
        for _ in range(100_000_000 // len(block)):
            file.write(block)
        file.write(rows.replace("2015", "2016"))
    size = path.stat().st_size
    assert size > 95_000_000

    held, read = [], SyntheaExport.batches

    def watched(self, table):
        for batch in read(self, table):
            held.append(pa.total_allocated_bytes())
            yield batch

    monkeypatch.setattr(SyntheaExport, "batches", watched)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        result = prepare_export(tmp_path)
        _, python_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert result.frame.loc[0, "Glucose"] == 71.0
    assert result.findings.rows["observations"] > 1_000_000
    assert len(held) > 90
    assert max(held) - before < 48_000_000
    assert python_peak < 24_000_000
