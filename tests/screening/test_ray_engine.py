"""A run on a real local Ray cluster of two actors is, byte for byte, the run of the local engine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mora_lite.errors import DeviceError, InputError, OutputError
from mora_lite.screening import campaign, ray_cluster, ray_engine, shards
from mora_lite.screening.campaign import Campaign
from mora_lite.screening.ray_cluster import connected
from mora_lite.screening.ray_engine import ShardScorer, ShardWork, score_on_ray
from mora_lite.screening.run_directory import RunDirectory, open_run
from mora_lite.tables.library import open_library
from mora_lite.tables.prepared import SCHEMA, prepare
from mora_lite.tables.prepared_files import PreparedLibrary, PreparedWriter, write_prepared

N_SHARDS = 7


@pytest.fixture(scope="module")
def files(molecules: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """100 rows in two prepared files, whose row groups and ends fall into the middle of windows and shards."""
    folder = tmp_path_factory.mktemp("prepared")
    texts = [*molecules, "not a molecule", *molecules][:100]
    for name, rows in (("a", texts[:59]), ("b", texts[59:])):
        (folder / f"{name}.smi").write_text("".join(f"{smiles} {i}\n" for i, smiles in enumerate(rows)))
        with (
            open_library([folder / f"{name}.smi"]) as library,
            PreparedWriter(folder / f"{name}.parquet", library.files) as writer,
        ):
            write_prepared(map(prepare, library.windows(7)), writer)
    return [str(folder / "a.parquet"), str(folder / "b.parquet")]


@pytest.fixture(scope="module", autouse=True)
def small_shards() -> Iterator[None]:
    """16 rows, in the driver only: actors must learn it from the run."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (campaign, shards):
            patch.setattr(module, "WINDOW_ROWS", 8)
            patch.setattr(module, "SHARD_WINDOWS", 2)
        yield


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    if find_spec("ray") is None:
        pytest.skip("the extra `ray` is not installed")
    with connected(None, 2) as ray:
        yield ray


@pytest.fixture(scope="module")
def local_run(files: list[str], calibrated_pack_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the local engine makes of the library."""
    path = tmp_path_factory.mktemp("local") / "run"
    assert screen(path, files, calibrated_pack_path, "--workers", "1") == 0
    return path


def screen(path: Path, files: list[str], pack: Path, *arguments: str) -> int:
    from mora_lite.cli.app import main

    return main(["screen", *files, "-o", str(path), "--pack", str(pack), "--device", "cpu", *arguments])


def planned(path: Path, files: list[str], pack: Path, *, resume: bool = False) -> tuple[ShardWork, RunDirectory, Any]:
    library = PreparedLibrary(files)
    plan = Campaign.plan(library, pack=str(pack), device="cpu")
    run = open_run(path, plan.settings, resume=resume, force=False)
    return plan.shard_work(run, library), run, library


def assert_same_run(path: Path, wanted: Path) -> None:
    names = sorted(p.name for p in path.iterdir() if not p.name.startswith(".lock"))
    assert names == sorted(p.name for p in wanted.iterdir() if not p.name.startswith(".lock"))
    assert sum(name.startswith("part-") for name in names) == N_SHARDS
    for name in (*(name for name in names if name.startswith("part-")), "top.csv", "manifest.json"):
        assert (path / name).read_bytes() == (wanted / name).read_bytes(), name


def test_a_run_goes_on_after_an_error_and_a_killed_actor_and_ends_in_the_bytes_of_the_local_engine(
    ray, files, calibrated_pack_path, local_run, tmp_path, capfd
):
    """The error: a byte of the library is wrong for a while. It comes out of the actor as it would of this process."""
    path, second = tmp_path / "run", Path(files[1])
    work, run, library = planned(path, files, calibrated_pack_path)
    content = second.read_bytes()
    column = pq.ParquetFile(second).metadata.row_group(1).column(len(SCHEMA) - 1)  # the fingerprints
    at = column.data_page_offset + column.total_compressed_size - 1
    try:
        second.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        with pytest.raises(InputError, match=f"^{second} cannot be read as Parquet after [0-9]+ rows: "):
            score_on_ray(work, run, library, workers=1)
    finally:
        second.write_bytes(content)
    out, err = capfd.readouterr()
    assert not out + err  # not a word of Ray

    work, run, library = planned(path, files, calibrated_pack_path, resume=True)
    before = len(run.shards)
    assert before < N_SHARDS - 2
    killed: list[int] = []
    seen: list[tuple[int, int]] = []

    def kill(progress: Any) -> None:
        seen.append((progress.rows, library.bytes_read))
        if not killed:
            killed.append(kill_actor())

    progress = score_on_ray(work, run, library, on_progress=kill)
    assert killed
    assert len(seen) == N_SHARDS - before
    assert progress.skipped == 16 * before
    assert progress.skipped + progress.rows == 100
    assert seen[-1] == (progress.rows, library.bytes_total)
    out, err = capfd.readouterr()
    assert not out + err

    # Nothing is left to do: no actor is started, and the command only ranks.
    assert screen(path, files, calibrated_pack_path, "--resume", "--engine", "ray") == 0
    out, err = capfd.readouterr()
    assert not out
    assert err.startswith(f"{path}: 100 rows, 99 ok, 100 rows kept from before; 0 in ")
    assert_same_run(path, local_run)


def kill_actor() -> int:
    """kill -9 to one of the processes of this driver's Ray that score."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "ShardScorer" in " ".join(process.cmdline()):
                process.kill()
                return process.pid
    raise AssertionError("no actor")


def test_what_an_interrupted_ray_began_the_local_engine_finishes(
    ray, files, calibrated_pack_path, local_run, tmp_path, capfd, monkeypatch
):
    @contextmanager
    def interrupting() -> Iterator[Any]:
        def on_progress(n_rows: int, library: Any) -> None:
            raise KeyboardInterrupt

        yield on_progress

    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["mora_lite.cli.screen"], "progress_bar", interrupting)
        assert screen(path, files, calibrated_pack_path, "--engine", "ray", "--workers", "1") == 130
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("stopped: 16 rows are scored and kept in ")
    assert err.endswith("interrupted\n")
    assert len(json.loads((path / "manifest.json").read_text())["shards"]) == 1
    assert screen(path, files, calibrated_pack_path, "--resume", "--workers", "1") == 0
    assert "16 rows kept from before; 84 in" in capfd.readouterr().err
    assert_same_run(path, local_run)


# --- without a cluster


class Tries:
    """In the place of the actor's handle, and of `ray.get`, which here gets what it is given."""

    def __init__(self, n: int = 1):
        self.begin = SimpleNamespace(remote=lambda number: n)


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "import_ray", lambda: SimpleNamespace(get=lambda value: value))


def answer(work: ShardWork, number: int = 0, tries: int = 1) -> tuple[str, str]:
    """What the driver gets for a shard: the kind of error and its text."""
    result = ShardScorer(work, Tries(tries))({"shard": np.array([number])})
    return result["kind"][0], result["error"][0]


def test_a_machine_that_is_not_like_the_driver_is_told(no_cluster, files, calibrated_pack_path, tmp_path):
    work, _, _ = planned(tmp_path / "run", files, calibrated_pack_path)
    assert work.n_shards == N_SHARDS
    assert [work.n_rows(number) for number in range(N_SHARDS)] == [16] * 6 + [4]
    for name in ("mora_lite", "torch", "rdkit", "pack_sha256", "dtype"):
        other = replace(work, run=replace(work.run, settings=work.run.settings | {name: "0.0"}))
        kind, text = answer(other)
        assert kind == "DeviceError"
        assert f"{name.replace('_', ' ')} " in text
        assert "0.0: make the machines alike" in text
    kind, text = answer(replace(work, files=work.files[:1]))
    assert kind == "InputError"
    assert "sees 59 rows" in text
    assert "the driver 100: the library must be on a file system that all machines share" in text
    elsewhere = replace(work.run, path=tmp_path / "nowhere")
    assert answer(replace(work, run=elsewhere))[0] == "OutputError"


def test_a_shard_that_kills_its_actors_is_given_up(no_cluster, files, calibrated_pack_path, tmp_path):
    work, _, _ = planned(tmp_path / "run", files, calibrated_pack_path)
    kind, text = answer(work, 3, tries=ray_engine.MAX_TRIES + 1)
    assert kind == "DeviceError"
    assert text.startswith("4 actors died at part-00003.parquet (out of memory?)")
    tries = ray_cluster.Tries()
    assert [tries.begin(3), tries.begin(3), tries.begin(1)] == [1, 2, 1]


def test_a_file_that_only_the_actor_sees_is_told(monkeypatch, files, calibrated_pack_path, tmp_path):
    work, run, library = planned(tmp_path / "run", files, calibrated_pack_path)
    todo: list[int] = []
    answers = [(1, {"rows": 16, "bytes": 5})]
    monkeypatch.setattr(ray_engine, "_finished_shards", lambda work, numbers, *_: todo.extend(numbers) or iter(answers))
    with pytest.raises(OutputError, match=r"part-00001.parquet, and it is not here: .* all machines .* share"):
        score_on_ray(work, run, library, part=(1, 3))
    assert not run.shards
    assert todo == [1, 4]


def test_without_ray_the_extra_is_named(run, monkeypatch, files, pack_path, tmp_path):
    monkeypatch.setitem(sys.modules, "ray.data", None)
    code, _, err = run("screen", *files, "-o", tmp_path / "run", "--pack", pack_path, "--engine", "ray")
    assert code == 2
    assert err.startswith("error: --engine ray needs Ray")
    assert err.endswith('pip install "mora-lite[ray]"\n')
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [["--engine", "spark"], ["--ray-address", "auto"]])
def test_wrong_options_are_one_line(run, arguments, files, tmp_path):
    code, _, err = run("screen", *files, "-o", tmp_path / "run", *arguments)
    assert code == 2
    assert len(err.splitlines()) == 1


def test_texts_are_refused(monkeypatch, run, table_path, pack_path, tmp_path):
    monkeypatch.setattr(ray_engine, "import_ray", lambda: None)
    code, _, err = run("screen", table_path, "-o", tmp_path / "run", "--pack", pack_path, "--engine", "ray")
    assert code == 2
    assert f"{table_path} is not prepared" in err
    assert "`mora-lite prepare` first" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://head:10001", "head:port"])
def test_an_address_that_does_not_answer_is_told_at_once(monkeypatch, address):
    idle = SimpleNamespace(is_initialized=lambda: False)
    monkeypatch.setattr(ray_cluster, "import_ray", lambda: idle)
    with pytest.raises(DeviceError, match=f"{address}.*--ray-address auto"), connected(address, 1):
        pass


def test_a_library_is_read_from_any_row(files):
    library = PreparedLibrary(files)
    rows = pa.Table.from_batches(library.batches(100)).to_pylist()
    for start in (0, 1, 6, 7, 58, 59, 60, 99, 100, 500):
        got = pa.Table.from_batches(library.batches(9, start), SCHEMA)
        assert got.to_pylist() == rows[start:], start
        assert library.rows_read == max(start, 100)


def test_what_need_not_be_scored_is_not_read(monkeypatch, files, pack_path, tmp_path):
    _, run, library = planned(tmp_path / "run", files, pack_path)
    run.shards[1] = {}
    read: list[int] = []
    batches = PreparedLibrary.batches
    monkeypatch.setattr(PreparedLibrary, "batches", lambda self, n, row: read.append(row) or batches(self, n, row))
    windows = list(shards.unfinished_windows(library, run, (1, 2), 8))
    assert read == [48, 80]
    assert [len(window) for window in windows] == [8] * 12 + [4]
    assert [window.column("row")[0].as_py() for window in windows if not isinstance(window, range)] == [49, 57, 81, 89]
