"""A campaign ends in the same bytes however often it is stopped, and says what it was."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import csv

from mora_lite.chem.drawing import drawing_problem
from mora_lite.errors import DeviceError, InputError, OutputError
from mora_lite.machine.device import choose_devices
from mora_lite.machine.workers import default_workers
from mora_lite.scoring.parallel import ModelSource
from mora_lite.screening import campaign
from mora_lite.screening.campaign import Campaign, ScreenSummary, screen_library
from mora_lite.screening.models import torch_source
from mora_lite.screening.run_directory import RunDirectory, open_run, parse_part
from mora_lite.screening.shards import ScreenProgress
from mora_lite.tables.library import open_library

pytestmark = pytest.mark.usefixtures("small_screens")
BAD = ["C1CC broken", "", "C" * 450, "xx \udcff"]


class Stop(Exception):
    pass


def write_list(path: Path, lines: Sequence[str]) -> Path:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
    return path


@pytest.fixture
def library(tmp_path: Path, molecules: list[str]) -> Path:
    """30 rows: three shards."""
    lines = [f"{smiles} m{i}" for i, smiles in enumerate(molecules[:26])]
    return write_list(tmp_path / "library.smi", [*lines[:20], *BAD, *lines[20:]])


def score(
    path: Path,
    *inputs: Path | str,
    pack: Path,
    resume: bool = False,
    part: str = "",
    stop_after: int | None = None,
    top: int = 5,
    by: str | None = None,
    source: ModelSource | None = None,
    shard_format: str = "parquet",
    columns: tuple[str | None, str | None] = (None, None),
    **options: Any,
) -> tuple[RunDirectory, ScreenProgress]:
    """From beginning to end as the command does it; `stop_after` so many windows."""

    def stop(progress: ScreenProgress) -> None:
        nonlocal stop_after
        if stop_after is not None:
            stop_after -= 1
            if stop_after < 0:
                raise Stop

    with open_library([str(file) for file in inputs]) as library:
        source = source or torch_source(str(pack), device="cpu", dtype="float32", **options)
        campaign = Campaign.plan(library, source, shard_format, columns)
        ranking = campaign.ranking(top, by, None, False)
        run = open_run(path, campaign.settings, part=part, resume=resume, force=False)
        numbers = parse_part(part.replace("-of-", "/") or "1/1")
        progress = campaign.score(run, library, workers=1, part=numbers, on_progress=stop)
        if not part:
            campaign.finish(run, progress, ranking, library)
    return run, progress


def results(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for pattern in ("part-*", "top.csv") for file in path.glob(pattern)}


def test_a_list_without_rows_is_refused_before_the_work(tmp_path: Path, pack_path: Path, library: Path) -> None:
    with pytest.raises(InputError, match="--top: got 0, expected 1 or more"):
        score(tmp_path / "run", library, pack=pack_path, top=0)
    assert not (tmp_path / "run").exists()


# --- any stop, the same bytes


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_run_that_is_stopped_anywhere_ends_in_the_same_bytes(
    tmp_path: Path, calibrated_pack_path: Path, library: Path, form: str
) -> None:
    score(tmp_path / "whole", library, pack=calibrated_pack_path, shard_format=form)
    wanted = results(tmp_path / "whole")
    assert sorted(wanted) == [f"part-0000{i}.{form}" for i in range(3)] + ["top.csv"]

    @given(st.lists(st.integers(0, 7), max_size=3))
    @settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def holds(stops: list[int]) -> None:
        path = tmp_path / "stopped"
        shutil.rmtree(path, ignore_errors=True)
        for stop_after in [*stops, None]:
            try:
                run, _ = score(
                    path, library, pack=calibrated_pack_path, shard_format=form, stop_after=stop_after, resume=True
                )
            except Stop:
                assert not list(path.glob(".*.part"))
        assert results(path) == wanted
        assert sum(entry["rows"] for entry in run.shards.values()) == run.rows == 30

    holds()


def test_what_is_finished_is_not_scored_again(tmp_path: Path, pack_path: Path, library: Path) -> None:
    with pytest.raises(Stop):
        score(tmp_path / "run", library, pack=pack_path, stop_after=4)
    run, progress = score(tmp_path / "run", library, pack=pack_path, resume=True)
    assert (progress.skipped, progress.rows) == (20, 10)  # of the second shard two windows are kept
    assert run.rows == 30
    _, progress = score(tmp_path / "run", library, pack=pack_path, resume=True)
    assert (progress.skipped, progress.rows, progress.seconds) == (30, 0, 0.0)


def test_counts_and_first_failures_are_those_of_the_whole_run(
    tmp_path: Path, pack_path: Path, library: Path, molecules: list[str]
) -> None:
    with pytest.raises(Stop):
        score(tmp_path / "run", library, pack=pack_path, stop_after=6)
    run, progress = score(tmp_path / "run", library, pack=pack_path, resume=True)
    with open_library([library]) as opened:
        campaign = Campaign.plan(opened, torch_source(str(pack_path), device="cpu"))
    counts, ranking = campaign.counts(run), campaign.ranking(10, None, None, False)
    assert counts.counts == {"ok": 26, "unparsable": 2, "empty": 1, "too_large": 1}
    assert counts.first["unparsable"] == (21, "unclosed ring")
    assert counts.first["too_large"][0] == 23
    lines = ScreenSummary(counts, progress, False, ranking).lines("run")
    assert lines[0].startswith("run: 30 rows, 26 ok, 28 rows kept from before; 2 in ")
    assert lines[1] == "  2 unparsable; the first is row 21: unclosed ring"
    assert lines[2:-1] == counts.failures()[1:]
    assert lines[-1] == "no hits: no row could be ranked; run/top.csv has a header only, report run/report.html"


@pytest.mark.parametrize("n_rows", [0, 1, 11, 12, 13, 24])
def test_a_library_may_end_anywhere(tmp_path: Path, calibrated_pack_path: Path, n_rows: int) -> None:
    library = write_list(tmp_path / "a.csv", ["smiles", *["CCO"] * n_rows])
    for resume in (False, True):
        run, _ = score(tmp_path / "run", library, pack=calibrated_pack_path, resume=resume)
        assert run.rows == n_rows
        assert len(run.shards) == -(-n_rows // 12)
        top = csv.read_csv(tmp_path / "run" / "top.csv")
        assert top.num_rows == min(n_rows, 5)
        assert top.column_names[:4] == ["rank", "row", "name", "smiles"]
        assert top["row"].to_pylist() == list(range(1, 1 + min(n_rows, 5)))  # ties: the first rows
        assert top.column_names[-2:] == ["status", "error"]


def test_a_row_that_was_made_again_is_the_same(tmp_path: Path, pack_path: Path, library: Path) -> None:
    run, _ = score(tmp_path / "run", library, pack=pack_path)
    wanted = results(tmp_path / "run")
    run.file(0).write_bytes(b"damaged")
    run.file(2).unlink()
    again, progress = score(tmp_path / "run", library, pack=pack_path, resume=True)
    assert (progress.rows, len(again.notes)) == (18, 2)
    assert results(tmp_path / "run") == wanted


# --- libraries


def test_rows_are_numbered_through_all_files(tmp_path: Path, pack_path: Path, library: Path) -> None:
    table = write_list(tmp_path / "b.csv", ["id,smiles", "b1,CCO", "b2,CCN"])
    run, _ = score(tmp_path / "run", library, table, library, pack=pack_path)
    rows = pa.concat_tables(map(pq.read_table, run.finished()))
    assert rows["row"].to_pylist() == list(range(1, 63))
    assert rows["name"][30:33].to_pylist() == ["b1", "b2", "m0"]
    assert [entry["file"] for entry in run.settings["inputs"]] == ["library.smi", "b.csv", "library.smi"]


def test_parts_of_two_machines_make_one_run(tmp_path: Path, pack_path: Path, library: Path) -> None:
    score(tmp_path / "whole", library, pack=pack_path)
    for i in (2, 1):
        score(tmp_path / f"part {i}", library, pack=pack_path, part=f"{i}-of-2")
    for file in (tmp_path / "part 2").iterdir():
        file.rename(tmp_path / "part 1" / file.name)
    run, progress = score(tmp_path / "part 1", library, pack=pack_path, resume=True)
    assert progress.rows == 0
    assert results(tmp_path / "part 1") == results(tmp_path / "whole")
    assert sum(entry["rows"] for entry in run.shards.values()) == 30


def test_a_library_that_changes_while_it_is_read_is_told(tmp_path: Path, pack_path: Path, library: Path) -> None:
    def grow(progress: ScreenProgress) -> None:
        with library.open("a") as file:
            file.write("CCO late\n")

    with open_library([str(library)]) as opened:
        campaign = Campaign.plan(opened, torch_source(str(pack_path), device="cpu", dtype="float32"))
        run = open_run(tmp_path / "run", campaign.settings, part="", resume=False, force=False)
        with pytest.raises(InputError, match=r"library\.smi changed while it was read"):
            campaign.score(run, opened, workers=1, on_progress=grow)


def test_a_library_that_changed_is_told(tmp_path: Path, pack_path: Path, library: Path) -> None:
    score(tmp_path / "run", library, pack=pack_path)
    with library.open("a") as file:
        file.write("CCO\n")
    with pytest.raises(OutputError, match=r'begun with inputs \{"file": "library.smi", "bytes": .* --force to start'):
        score(tmp_path / "run", library, pack=pack_path, resume=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_read_once_and_compared(tmp_path: Path, pack_path: Path, library: Path) -> None:
    """As from `<(zcat library.gz)`; a digest of the file would take the rows away."""
    score(tmp_path / "whole", library, pack=pack_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def score_pipe(text: bytes, resume: bool) -> ScreenProgress:
        thread = threading.Thread(target=lambda: pipe.write_bytes(text), daemon=True)
        thread.start()
        _, progress = score(tmp_path / "run", pipe, pack=pack_path, resume=resume)
        thread.join()
        return progress

    text = library.read_bytes()
    assert score_pipe(text, False).rows == 30
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    assert score_pipe(text, True).rows == 0
    for other in (text.replace(b"m1\n", b"mm\n"), text + b"CCO\n", text[: text.index(b"xx")]):
        with pytest.raises(InputError, match="are not those that it was made of"):
            score_pipe(other, True)


def test_names_may_be_any_bytes(tmp_path: Path, calibrated_pack_path: Path) -> None:
    """Also in top.csv and the report, also where a record has too many cells."""
    table = tmp_path / "a.csv"
    table.write_bytes(
        b'id,smiles\n001,CCO\n"caf\xe9 ""x"", y",CCN\n"<script>\n",CC\n\xff,"C1\xfe"\nx,C,\xff,\xfe\nNA,C\n\x01,N\n'
    )
    tops = []
    for form in ("parquet", "csv"):
        run, _ = score(tmp_path / form, table, pack=calibrated_pack_path, shard_format=form, top=10)
        tops.append((run.path / "top.csv").read_bytes())
        page = (run.path / "report.html").read_bytes().decode("utf-8")
        assert "caf\N{REPLACEMENT CHARACTER}" in page
        assert "<script>\n<" not in page
        assert "malformed" in page
    assert tops[0] == tops[1]
    assert b'"caf\xe9 ""x"", y"' in tops[0]
    assert b",001," in tops[0]


def test_a_column_name_may_be_any_bytes(tmp_path: Path, calibrated_pack_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_bytes(b"smiles,IC50 (\xb5M)\nCCO,1 \xb5M\nCCN,2\n")
    for form in ("parquet", "csv"):
        run, _ = score(tmp_path / form, table, pack=calibrated_pack_path, shard_format=form, top=10)
        header, *rows = (run.path / "top.csv").read_bytes().splitlines()
        assert ",IC50 (\N{REPLACEMENT CHARACTER}M),".encode() in header
        assert sum(b",1 \xb5M," in row for row in rows) == 1
    pq.read_table(tmp_path / "parquet" / "part-00000.parquet").validate(full=True)


# --- from Python


def test_one_call_screens_a_library(tmp_path: Path, calibrated_pack_path: Path, library: Path) -> None:
    score(tmp_path / "parts", library, pack=calibrated_pack_path)
    notes: list[str] = []
    done: list[tuple[int, float]] = []
    options: dict[str, Any] = {"pack": str(calibrated_pack_path), "device": "cpu", "dtype": "float32", "top": 5}
    summary = screen_library(
        library,
        tmp_path / "run",
        **options,
        on_note=notes.append,
        on_progress=lambda n_rows, opened: done.append((n_rows, opened.share_done(n_rows))),
    )
    assert results(tmp_path / "run") == results(tmp_path / "parts")
    assert (summary.counts.n_rows, summary.counts.n_ok, summary.progress.rows) == (30, 26, 30)
    assert notes == [] if not drawing_problem() else [drawing_problem()]
    assert done[-1] == (30, 1.0)
    (tmp_path / "run" / "part-00001.parquet").unlink()
    options |= {"on_note": notes.append, "on_progress": lambda n_rows, opened: done.append((n_rows, opened.n_kept))}
    screen_library(library, tmp_path / "run", **options, resume=True)
    assert "part-00001.parquet is missing: it is made again" in notes
    assert done[-1] == (30, 18)
    assert results(tmp_path / "run") == results(tmp_path / "parts")


def test_force_never_removes_what_is_to_be_read(tmp_path: Path, pack_path: Path, library: Path) -> None:
    score(tmp_path / "run", library, pack=pack_path)
    before = results(tmp_path / "run")
    for file in ("top.csv", "part-00000.parquet"):
        with pytest.raises(OutputError, match=f"{file} is in .*run, the run that --force replaces"):
            screen_library(tmp_path / "run" / file, tmp_path / "run", pack=str(pack_path), force=True)
    assert results(tmp_path / "run") == before


def test_a_device_that_gives_up_leaves_a_run_that_goes_on(
    tmp_path: Path, calibrated_pack_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(*_: Any, **__: Any) -> Any:
        raise DeviceError("a worker process died (killed: out of memory?); use fewer --workers")

    options: dict[str, Any] = {"pack": str(calibrated_pack_path), "device": "cpu", "dtype": "float32"}
    with monkeypatch.context() as patch:
        patch.setattr(campaign, "scoring", give_up)
        with pytest.raises(DeviceError, match="use fewer --workers; what is finished is kept: --resume goes on"):
            screen_library(library, tmp_path / "run", **options)
    assert screen_library(library, tmp_path / "run", **options, resume=True).counts.n_rows == 30


# --- plans


def test_two_confidences_or_forms_are_two_runs(tmp_path: Path, calibrated_pack_path: Path, library: Path) -> None:
    score(tmp_path / "run", library, pack=calibrated_pack_path)
    for changes, words in [
        ({"confidence": 0.8}, "begun with confidence 0.9, and now it is 0.8"),
        ({"shard_format": "csv"}, 'begun with format "parquet", and now it is "csv"'),
        ({"tasks": ["size"]}, "begun with tasks"),
        ({"columns": ("2", None)}, "begun with smiles column null"),
    ]:
        with pytest.raises(OutputError, match=words):
            score(tmp_path / "run", library, pack=calibrated_pack_path, resume=True, **changes)
    with pytest.raises(InputError, match="confidence"):
        score(tmp_path / "other", library, pack=calibrated_pack_path, confidence=2.0)
    assert not (tmp_path / "other").exists()
    with pytest.raises(InputError, match="--format: got 'xlsx', expected parquet or csv"):
        score(tmp_path / "run", library, pack=calibrated_pack_path, shard_format="xlsx")


def test_devices_are_of_one_kind() -> None:
    assert choose_devices("cpu") == (torch.device("cpu"),)
    for wrong in ("", ",", "cpu,meta"):
        with pytest.raises((InputError, DeviceError)):
            choose_devices(wrong)
    assert default_workers() >= 1


def test_another_device_scores_the_same(tmp_path: Path, pack_path: Path, library: Path) -> None:
    """A device that is not the CPU gets rows that threads and processes parsed; here it is the CPU."""

    score(tmp_path / "cpu", library, pack=pack_path)
    source = torch_source(str(pack_path), device="cpu", dtype="float32")
    score(tmp_path / "other", library, pack=pack_path, source=replace(source, devices=("cpu:0", "cpu:0")))
    assert results(tmp_path / "other") == results(tmp_path / "cpu")


def test_properties_and_percentiles_are_columns_of_the_shards(
    library: Path, calibrated_pack_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mora_lite.context import approved
    from mora_lite.scoring import predictor

    monkeypatch.setattr(predictor, "approved_smiles", lambda: approved.approved_smiles()[:20])
    options: Any = {"pack": str(calibrated_pack_path), "device": "cpu", "dtype": "float32", "workers": 1}
    options |= {"extras": True, "percentiles": True}
    screen_library(library, tmp_path / "run", where="mol_weight > 30 and size_percentile >= 0 and PAINS < 1", **options)
    shards = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "run").glob("part-*.parquet"))])
    failed = [status != "ok" for status in shards["status"].to_pylist()]
    assert [value is None for value in shards["mol_weight"].to_pylist()] == failed
    assert [value is None for value in shards["size_percentile"].to_pylist()] == failed
    top = csv.read_csv(tmp_path / "run" / "top.csv")
    assert min(top["mol_weight"].to_pylist()) > 30
    with pytest.raises(InputError, match="no column 'QED' without --extras: add the option"):
        screen_library(library, tmp_path / "other", where="QED > 0.5", pack=str(calibrated_pack_path), device="cpu")
