"""Shards hold what `Model.score` finds, a row for a row, in both forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mora_lite import load
from mora_lite.errors import InputError, OutputError
from mora_lite.machine.journal import Journal
from mora_lite.model import Model
from mora_lite.scoring.parallel import make_scorer, score_on
from mora_lite.screening import shards
from mora_lite.screening.run_directory import RunDirectory, open_run
from mora_lite.screening.shards import (
    Scored,
    ShardRows,
    encode_rows,
    from_ipc,
    read_shards,
    result_rows,
    result_schema,
    score_shards,
)
from mora_lite.status import NOT_FINITE, REASONS
from mora_lite.tables.formats import rounded
from mora_lite.tables.library import Window
from mora_lite.tables.parsed import ParsedWindow, parse_window
from mora_lite.tables.records import Record

SHARD_WINDOWS = 3
WINDOWS = [
    Scored({"ok": 2, "empty": 1}, {"empty": (2, "no SMILES")}, b"some\nrows\x00", "ab"),
    Scored({"ok": 1}, {}, b""),
    Scored({"ok": 4}, {}, b"\xff" * 5000),
]
NAMES = ["001", "", "NA", 'a"b', "x,y", "two\nlines", "caf\udce9", "null", "\t", "1e5", "é", " b "]


@pytest.fixture(scope="module")
def calibrated(calibrated_pack_path: Path) -> Model:
    return load(calibrated_pack_path, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def window(molecules: list[str]) -> Window:
    texts = [*molecules, "C1CC", "", "C" * 500, "x\udcff"]
    records = [Record(NAMES[i % len(NAMES)], text, "") for i, text in enumerate(texts)]
    return Window(11, [*records, Record("last", "CC", "3 cells for 2 columns; beyond: \udcff")])


def windows_of(window: Window, n_rows: int) -> Iterator[Window]:
    for start in range(0, len(window.records), n_rows):
        yield Window(1 + start, window.records[start : start + n_rows])


def scoring(model: Model, form: str) -> Callable[[Iterator[Any]], Iterator[Scored]]:
    work = make_scorer(lambda **_: model, ShardRows(form))
    return lambda jobs: (work(job, {}, lambda item: None) for job in jobs)


def rows_of(model: Model, parsed: ParsedWindow) -> pa.RecordBatch:
    return result_rows(model.tasks, parsed, model.score_parsed(parsed))


def begin(path: Path, form: str = "parquet", resume: bool = False) -> RunDirectory:
    return open_run(path, {"format": form, "shard_windows": SHARD_WINDOWS}, resume=resume, force=False)


def schema_of(model: Model) -> pa.Schema:
    return result_schema(model.tasks, model.calibrator is not None)


# --- rows


def test_a_row_holds_what_the_model_finds(calibrated: Model, window: Window) -> None:
    batch = rows_of(calibrated, parse_window(window))
    wanted = calibrated.score(["" if record.fault else record.text for record in window.records])
    ok = np.array([status == "ok" for status in wanted.status])
    assert batch.column("row").to_pylist() == list(range(11, 11 + len(ok)))
    assert batch.column("status").to_pylist() == [*wanted.status[:-1], "malformed"]
    assert batch.column("error").to_pylist() == [*wanted.error[:-1], "3 cells for 2 columns; beyond: ?"]
    assert batch.column("name").cast(pa.binary()).to_pylist()[6] == b"caf\xe9"
    columns = wanted.columns(calibrated.tasks)
    assert batch.schema.names == ["row", "name", "smiles", *columns, "status", "error"]
    for name, column in columns.items():
        assert batch.column(name).is_null().to_pylist() == (~ok).tolist()
        shown = rounded(column[ok]) if column.dtype.kind == "f" else column[ok]
        assert batch.column(name).filter(pa.array(ok)).to_pylist() == shown.tolist(), name


def test_a_pack_without_calibration_has_values_only(model: Model) -> None:
    batch = rows_of(model, parse_window(Window(1, [Record("a", "CCO", ""), Record("b", "xx", "")])))
    assert batch.schema.names == ["row", "name", "smiles", *(task.column for task in model.tasks), "status", "error"]
    assert batch.schema == schema_of(model)


def test_a_value_that_is_no_number_is_a_status(calibrated: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = parse_window(Window(1, [Record("", text, "") for text in ("CCO", "xx", "CC", "CCC")]))
    values = calibrated.score_graphs(rows.graphs)
    values[1, 0], values[2, 2] = np.nan, np.inf
    monkeypatch.setattr(calibrated, "score_graphs", lambda *_: values)
    batch = rows_of(calibrated, rows)
    assert batch.column("status").to_pylist() == ["ok", "unparsable", "not_finite", "not_finite"]
    assert batch.column("error").to_pylist()[2:] == [REASONS[NOT_FINITE]] * 2
    for name in batch.schema.names[3:-2]:
        assert batch.column(name).is_null().to_pylist() == [False, True, True, True], name


def test_rows_without_any_molecule_are_rows(calibrated: Model) -> None:
    batch = rows_of(calibrated, parse_window(Window(1, [Record("", "", ""), Record("", "xx", "")])))
    assert batch.schema == schema_of(calibrated)
    assert batch.column("in_domain").to_pylist() == [None, None]
    scored = encode_rows(batch, "csv")
    assert scored.counts == {"empty": 1, "unparsable": 1}
    assert scored.first["empty"] == (1, "no SMILES in this row")


def test_marked_rows_are_left_out(calibrated: Model) -> None:
    seen: list[int] = []
    job = Window(5, [Record("", "CCO", ""), Record("", "CC", ""), Record("", "C", "")])
    work = make_scorer(lambda **_: calibrated, ShardRows("parquet"))
    scored = work(job, {0: "timeout", 2: "crashed"}, seen.append)
    assert from_ipc(scored.data).column("status").to_pylist() == ["timeout", "ok", "crashed"]
    assert scored.first["timeout"] == (5, "parsing took longer than the time limit")
    assert scored.first["crashed"] == (7, "parsing ended the process that did it")
    assert seen == [0, 1, 2, -1]


# --- shards


def test_csv_and_parquet_shards_agree(calibrated: Model, window: Window, tmp_path: Path) -> None:
    tables = []
    for form in ("parquet", "csv"):
        run = begin(tmp_path / form, form)
        score_shards(run, windows_of(window, 4), scoring(calibrated, form), schema_of(calibrated))
        assert [file.name for file in run.finished()] == [f"part-{i:05d}.{form}" for i in range(6)]
        tables.append(pa.concat_tables(read_shards(run, schema_of(calibrated))))
    a, b = tables
    a.validate(full=True)
    assert a.schema == b.schema
    assert a.num_rows == len(window.records)
    for name in a.schema.names:
        if a.schema.field(name).type == pa.string():  # CSV has no nulls of text
            texts = [cell.decode("utf-8", "replace") for cell in b[name].cast(pa.binary()).to_pylist()]
            assert [text or "" for text in a[name].to_pylist()] == texts, name
        else:
            assert a[name].to_pylist() == b[name].to_pylist(), name


def test_infinite_intervals_and_long_names_come_back_from_csv(calibrated: Model, tmp_path: Path) -> None:
    records = [Record("n" * 3_000_000 + "\n,", "CCO", ""), *[Record("a\nb" * 1000, "CC", "")] * 500]
    batch = rows_of(calibrated, parse_window(Window(1, records)))
    i = batch.schema.get_field_index("size_lo")
    batch = batch.set_column(i, batch.schema.field(i), pa.array([float("-inf")] * len(batch), pa.float32()))
    run = begin(tmp_path, "csv")
    score_shards(
        run, [Window(1, records)], lambda jobs: (encode_rows(batch, "csv") for _ in jobs), schema_of(calibrated)
    )
    (table,) = read_shards(run, schema_of(calibrated))
    assert table["size_lo"].to_pylist() == [float("-inf")] * 501
    assert table["name"].to_pylist() == [record.name for record in records]


def test_shards_of_one_part_only(calibrated: Model, window: Window, tmp_path: Path) -> None:
    run = begin(tmp_path)
    progress = score_shards(
        run, windows_of(window, 4), scoring(calibrated, "parquet"), schema_of(calibrated), part=(1, 4)
    )  # 65 rows: shards of 12, the last of 5
    assert sorted(run.shards) == [1, 5]
    assert (progress.rows, progress.skipped) == (17, 48)
    assert run.rows is None


def test_a_shard_that_cannot_be_read_is_told(calibrated: Model, tmp_path: Path) -> None:
    for form in ("csv", "parquet"):
        run = begin(tmp_path / form, form)
        run.shards[0] = {}
        for content in (b"no such thing", None):
            if content:
                run.file(0).write_bytes(content)
            else:
                run.file(0).unlink()
            with pytest.raises(OutputError, match=f"part-00000.{form} cannot be read: .*; --resume makes it again"):
                list(read_shards(run, schema_of(calibrated)))


def test_shards_do_not_depend_on_the_window_a_row_is_in(calibrated: Model, window: Window, tmp_path: Path) -> None:
    tables, some = [], Window(1, window.records[50:])
    for n_rows in (2, 7, 100):
        run = begin(tmp_path / str(n_rows))
        score_shards(run, windows_of(some, n_rows), scoring(calibrated, "parquet"), schema_of(calibrated))
        tables.append(pa.concat_tables(map(pq.read_table, run.finished())).combine_chunks())
    for table in tables[1:]:
        for name in table.schema.names:
            assert (
                table[name].cast(pa.binary()) == tables[0][name].cast(pa.binary())
                if name == "name"
                else (table[name].equals(tables[0][name]))
            )


# --- input that can be read only once


@pytest.mark.parametrize("n_first", [6, 7, 12], ids=["at a border", "within a shard", "at a border again"])
@pytest.mark.parametrize("change", ["same", "early", "late", "fewer", "more", "name"])
def test_other_rows_than_before_are_noticed(model: Model, tmp_path: Path, n_first: int, change: str) -> None:
    records = [Record(f"{i}", "C" * (1 + i), "") for i in range(n_first)]

    def score(rows: list[Record], resume: bool) -> None:
        run = begin(tmp_path, resume=resume)
        windows = windows_of(Window(1, rows), 2)
        score_shards(run, windows, scoring(model, "parquet"), schema_of(model), digest=True)

    score(records, False)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    changed = {
        "same": records,
        "early": [Record("0", "N", ""), *records[1:]],
        "late": [*records[:-1], Record(records[-1].name, "N", "")],
        "fewer": records[:-1],
        "more": [*records, Record("more", "C", "")],
        "name": [*records[:-1], Record("another", records[-1].text, "")],
    }[change]
    if change == "same" or (change == "more" and n_first % 6 == 0):
        score(changed, True)  # rows that begin a shard of their own are no contradiction
        assert before["part-00000.parquet"] == (tmp_path / "part-00000.parquet").read_bytes()
    else:
        with pytest.raises(InputError, match="are not those that it was made of: give the same input, or --force"):
            score(changed, True)
        assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


# --- where another device scores


def test_scoring_here_is_scoring_in_the_workers(calibrated: Model, window: Window) -> None:
    jobs = list(windows_of(window, 9))
    there = list(scoring(calibrated, "csv")(iter(jobs)))
    ready = (parse_window(job) for job in jobs)
    assert list(score_on([calibrated, calibrated], ready, ShardRows("csv"))) == there


def test_an_error_of_a_model_reaches_the_caller(calibrated: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the device is gone")

    parsed = parse_window(Window(1, [Record("", "C", "")]))
    monkeypatch.setattr(calibrated, "score_graphs", fail)
    with pytest.raises(RuntimeError, match="the device is gone"):
        list(score_on([calibrated], iter([parsed] * 5), ShardRows("csv")))


@pytest.mark.parametrize("seconds", [0.0, 1000.0])
def test_windows_are_kept_in_time_and_when_writing_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(shards, "COMMIT_SECONDS", seconds)
    journal = Journal(tmp_path / "journal", Scored.of).read()
    kept_meanwhile = []

    def results():
        for window in WINDOWS:
            yield window
            kept_meanwhile.append(len(Journal(journal.path, Scored.of).read().kept))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(shards._kept_and_new(results(), journal))
    assert kept_meanwhile == ([1, 2, 3] if seconds == 0 else [0, 0, 0])
    assert Journal(journal.path, Scored.of).read().kept == WINDOWS
