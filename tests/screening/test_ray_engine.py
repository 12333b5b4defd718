"""A run on a real local Ray cluster of several processes is, byte for byte, the run of the local engine."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fragile_reading
import openpyxl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fragile_reading import CRASHES, HANGS, FragileLoad, WaitingReading
from rdkit import Chem

from mora_lite.errors import DeviceError, InputError, OutputError
from mora_lite.machine.journal import Journal
from mora_lite.machine.workers import WorkerDied
from mora_lite.scoring import parallel
from mora_lite.screening import campaign, ray_cluster, ray_engine, shards
from mora_lite.screening.campaign import Campaign, screen_library
from mora_lite.screening.models import torch_source
from mora_lite.screening.ray_cluster import connected
from mora_lite.screening.ray_engine import ShardScorer, ShardWork, divide
from mora_lite.screening.ray_reader import END, Reading
from mora_lite.screening.run_directory import RunDirectory, open_run
from mora_lite.screening.shards import Scored
from mora_lite.tables.library import open_library

N_ROWS, N_SHARDS = 100, 7


@pytest.fixture(scope="module")
def files(molecules: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """100 rows in a table, a list, an SDF, a Parquet file and a workbook, whose ends fall into the middle of shards."""
    folder = tmp_path_factory.mktemp("library")
    texts = iter([*molecules[:22], "not a molecule", *molecules, *molecules])
    table = [f"{smiles},mol {i}" for i, smiles in zip(range(22), texts, strict=False)]
    lines = ["smiles,name", *table, "CCO,one,too many", "CCN,caf\xe9"]
    (folder / "a.csv").write_bytes("\n".join(lines).encode("latin-1"))
    (folder / "b.smi.gz").write_bytes(gzip.compress("".join(f"{next(texts)} {i}\n" for i in range(20)).encode()))
    blocks = [Chem.MolToMolBlock(Chem.MolFromSmiles(smiles)) for smiles in ("CCO", "c1ccccc1", "C[C@H](N)O")]
    (folder / "c.sdf").write_text("$$$$\n".join([*blocks, "broken\n\n\n  9  9\nM  END\n", *blocks]) + "$$$$\n")
    column = [next(texts) for _ in range(29)]
    pq.write_table(pa.table({"smiles": column, "id": list(map(str, range(29)))}), folder / "d.parquet")
    book = openpyxl.Workbook()
    for row in [["SMILES", "name"], *([next(texts), f"cell {i}"] for i in range(20))]:
        book.worksheets[0].append(row)
    book.save(folder / "e.xlsx")
    return [str(folder / name) for name in ("a.csv", "b.smi.gz", "c.sdf", "d.parquet", "e.xlsx")]


@pytest.fixture(scope="module", autouse=True)
def small_shards() -> Iterator[None]:
    """16 rows, in the driver only: reader and actors must learn it from the run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "CPU_WINDOW_ROWS", 8)
        patch.setattr(campaign, "SHARD_ROWS", 16)
        yield


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    if find_spec("ray") is None:
        pytest.skip("the extra `ray` is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(fragile_reading.__file__).parent))  # of Ray's processes
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


def planned(path: Path, files: list[str], pack: Path) -> tuple[Campaign, RunDirectory, Any]:
    library = open_library(files)
    plan = Campaign.plan(library, torch_source(str(pack), device="cpu"))
    return plan, open_run(path, plan.settings, resume=False, force=False), library


def assert_same_run(path: Path, wanted: Path) -> None:
    names = sorted(p.name for p in path.iterdir() if not p.name.startswith(".lock"))
    assert names == sorted(p.name for p in wanted.iterdir() if not p.name.startswith(".lock"))
    assert any(name.startswith("part-") for name in names)
    for name in names:
        if name == "report.html":  # has the time and the command
            continue
        assert (path / name).read_bytes() == (wanted / name).read_bytes(), name


def test_killed_processes_do_not_end_a_run_and_its_bytes_are_those_of_the_local_engine(
    ray, files, calibrated_pack_path, local_run, tmp_path, capfd, monkeypatch
):
    """First the reader is killed, which waits until then, then an actor, then a process in which an actor scores.

    The local engine has begun the run.
    """
    run_path = begun_like(local_run, tmp_path / "run")
    (begun := tmp_path / "begun").mkdir()
    waiting = {"go": str(tmp_path / "go"), "begun": str(begun)}

    def slowly(*arguments: Any) -> tuple[ShardWork, Reading]:
        work, reading = divide(*arguments)
        return work, WaitingReading(**vars(reading), **waiting)

    killed: list[int] = []
    seen: list[tuple[int, int]] = []

    def kill(n_rows: int, library: Any) -> None:
        seen.append((n_rows, library.bytes_read))
        actors = processes("ShardScorer")
        if len(seen) == 1:
            killed.append(kill_one([psutil.Process(int(file.name)) for file in begun.iterdir()]))
            Path(waiting["go"]).touch()
        elif len(seen) == 3:
            killed.append(kill_one(actors))
        elif len(seen) == 5:
            killed.append(kill_one([child for actor in actors for child in actor.children()]))

    monkeypatch.setattr(ray_engine, "divide", slowly)
    options: Any = {"pack": str(calibrated_pack_path), "device": "cpu", "workers": 2, "resume": True}
    summary = screen_library(files, run_path, engine="ray", on_progress=kill, **options)
    assert len(killed) == 3
    assert len(list(begun.iterdir())) == 2
    assert len(seen) == N_SHARDS - 1
    assert (summary.progress.rows, summary.progress.skipped) == (N_ROWS - 16, 16)
    assert seen[-1] == (N_ROWS, sum(Path(file).stat().st_size for file in files))
    out, err = capfd.readouterr()
    assert not out + err  # not a word of Ray
    assert_same_run(run_path, local_run)

    # Nothing is left to do: no actor is started, and the command only ranks.
    assert screen(run_path, files, calibrated_pack_path, "--resume", "--engine", "ray") == 0
    out, err = capfd.readouterr()
    assert not out
    assert err.startswith(f"{run_path}: 100 rows, 97 ok, 100 rows kept from before; 0 in ")
    assert_same_run(run_path, local_run)


def begun_like(run: Path, path: Path) -> Path:
    """The same run when it had but one shard."""
    path.mkdir()
    manifest = json.loads((run / "manifest.json").read_text())
    manifest |= {"rows": None, "shards": {"0": manifest["shards"]["0"]}}
    (path / "manifest.json").write_text(json.dumps(manifest))
    shutil.copy(run / "part-00000.parquet", path)
    return path


def processes(name: str) -> list[psutil.Process]:
    """Those of this driver's Ray that have `name` in their command."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += [process] if name in " ".join(process.cmdline()) else []
    return found


def kill_one(found: list[psutil.Process]) -> int:
    """kill -9."""
    found[0].kill()
    return found[0].pid


def test_a_molecule_that_hangs_or_crashes_rdkit_is_a_row(ray, calibrated_pack_path, tmp_path):
    """As in the processes of the local engine, with the same words."""
    file, texts = tmp_path / "a.smi", ["C", HANGS, "CC", CRASHES, "CCC"]
    file.write_text("\n".join(texts))
    source = torch_source(str(calibrated_pack_path), device="cpu")
    fragile = replace(source, load=FragileLoad(**vars(source.load)))
    summary = screen_library(file, tmp_path / "run", engine="ray", source=lambda: fragile, time_limit=1.5)
    assert summary.counts.counts == {"ok": 3, "timeout": 1, "crashed": 1}

    scorer = parallel.make_scorer(torch_source(str(calibrated_pack_path)).load, shards.ShardRows("parquet"))
    with open_library(file) as library:
        scored = scorer(next(library.windows(8)), {1: "timeout", 3: "crashed"}, lambda item: None)
    schema = shards.result_schema(source.tasks, source.calibrated)
    journal = Journal(tmp_path / "journal", shards.Scored.of)
    shards.write_shard(tmp_path / "wanted.parquet", [scored], schema, "parquet", journal)
    assert (tmp_path / "run" / "part-00000.parquet").read_bytes() == (tmp_path / "wanted.parquet").read_bytes()


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
        self.begin = SimpleNamespace(remote=self._begin)
        self.n = n - 1

    def _begin(self, number: int) -> int:
        self.n += 1
        return self.n


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "import_ray", lambda: SimpleNamespace(get=lambda value: value))


@pytest.fixture
def all_here(monkeypatch: pytest.MonkeyPatch, no_cluster: None) -> None:
    """Reader and one actor in this process; with `small_screens` also what it scores in."""

    def answers(work: ShardWork, reading: Reading, *_: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        scorer = ShardScorer(work, SimpleNamespace(begin=SimpleNamespace(remote=lambda number: 1)))
        for block in reading.blocks():
            answer = scorer(block)
            yield answer["shard"][0].as_py(), json.loads(answer["about"][0].as_py())

    monkeypatch.setattr(ray_engine, "_answers", answers)


@pytest.fixture
def work(files: list[str], calibrated_pack_path: Path, tmp_path: Path) -> tuple[ShardWork, Reading]:
    plan, run, library = planned(tmp_path / "run", files, calibrated_pack_path)
    return divide(plan.source, plan.schema, plan.columns, run, library)


def answer(work: tuple[ShardWork, Reading], number: int = 0, tries: int = 1) -> dict[str, Any]:
    """What the driver is told of a shard; `END` is the last of all."""
    result = ShardScorer(work[0], Tries(tries))(list(work[1].blocks())[number])
    return json.loads(result["about"][0].as_py())


@pytest.mark.usefixtures("all_here", "small_screens")
def test_a_damaged_file_is_told_after_what_comes_before_it(files, calibrated_pack_path, tmp_path, capfd):
    pack, second = calibrated_pack_path, Path(files[1])
    assert screen(tmp_path / "local", files, pack) == 0
    plan, run, library = planned(tmp_path / "run", files, pack)
    content = second.read_bytes()
    try:
        second.write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match=f"^{second} is damaged after line [0-9]+: "):
            plan.score_on_ray(run, library)
    finally:
        second.write_bytes(content)
    assert list(run.shards) == [0, 1]
    capfd.readouterr()
    assert screen(tmp_path / "run", files, pack, "--resume", "--engine", "ray") == 0
    assert "24 rows kept from before; 76 in" in capfd.readouterr().err
    assert_same_run(tmp_path / "run", tmp_path / "local")


@pytest.mark.usefixtures("all_here", "small_screens")
def test_parts_of_a_run_are_those_of_the_local_engine(files, calibrated_pack_path, tmp_path, capfd):
    pack = calibrated_pack_path
    for name, arguments in (("local", []), ("run", ["--engine", "ray"])):
        assert screen(tmp_path / name, files, pack, "--shard", "1/2", *arguments) == 0
        assert ": 52 rows, 51 ok, 48 rows kept from before; 52 in" in capfd.readouterr().err
    assert_same_run(tmp_path / "run", tmp_path / "local")
    assert screen(tmp_path / "run", files, pack, "--shard", "2/2", "--engine", "ray") == 0
    assert screen(tmp_path / "run", files, pack, "--resume", "--engine", "ray") == 0
    assert "100 rows kept from before; 0 in" in capfd.readouterr().err


def test_a_machine_that_is_not_like_the_driver_is_told(work):
    load = work[0].source.load
    assert load(device="cpu").tasks == work[0].source.tasks
    for name in ("mora_lite", "torch", "rdkit", "pack_sha256", "dtype"):
        other = replace(load, settings=load.settings | {name: "0.0"})
        with pytest.raises(DeviceError, match=rf"{name.replace('_', ' ')} .* 0\.0: make the machines alike"):
            other(device="cpu")


@pytest.mark.usefixtures("no_cluster", "small_screens")
def test_what_a_journal_holds_is_not_scored_again(work):
    """It holds no row of a window that is said to have four, which shows that no other is scored in its place."""
    whole = answer(work, 1)
    assert (whole["kept"], whole["entry"]["rows"]) == (0, 12)
    empty = shards.encode_rows(pa.RecordBatch.from_pylist([], work[0].schema), "parquet")
    journal = Journal(work[0].run.journal(1), Scored.of)
    journal.append([replace(empty, counts={"ok": 4}).entry()])
    journal.close()
    rest = answer(work, 1)
    assert (rest["kept"], rest["entry"]["rows"]) == (4, 12)
    assert pq.read_metadata(work[0].run.file(1)).num_rows == 8
    assert answer(work, END)["rows"] == N_ROWS


@pytest.mark.usefixtures("no_cluster", "small_screens")
def test_a_run_directory_that_an_actor_does_not_see_is_told(work, tmp_path):
    elsewhere = replace(work[0], run=replace(work[0].run, path=tmp_path / "nowhere"))
    assert answer((elsewhere, work[1]))["kind"] == "OutputError"


@pytest.mark.usefixtures("no_cluster")
def test_a_shard_that_kills_its_actors_is_given_up(monkeypatch, work):
    begun: list[int] = []

    @contextmanager
    def dying(*_: Any, **__: Any) -> Iterator[Any]:
        def score(jobs: Iterator[Any]) -> Iterator[Scored]:
            begun.append(len(begun))
            raise WorkerDied("a worker process died")
            yield

        yield score

    monkeypatch.setattr(ray_engine, "scoring", dying)
    told = answer(work, 3, tries=3)
    assert told["kind"] == "DeviceError"
    assert told["error"].startswith("4 actors died at part-00003.parquet (out of memory?)")
    assert len(begun) == 2
    tries = ray_cluster.Tries()
    assert [tries.begin(3), tries.begin(3), tries.begin(1)] == [1, 2, 1]


def test_actors_share_the_cores_beside_their_gpus():
    """A machine that is gone does not count, one without GPUs only where all score on CPUs."""
    machines = [({"CPU": 16.0, "GPU": 2.0}, True), ({"CPU": 8.0}, True), ({"CPU": 64.0, "GPU": 8.0}, False)]
    nodes = [{"Resources": resources, "Alive": alive} for resources, alive in machines]
    assert ray_engine._resources(SimpleNamespace(nodes=lambda: nodes), gpu=True) == (2, 8)
    assert ray_engine._resources(SimpleNamespace(nodes=lambda: nodes), gpu=False) == (24, 1)
    assert ray_engine._resources(SimpleNamespace(nodes=lambda: nodes[1:]), gpu=True) == (0, 1)


def test_a_file_that_only_the_actor_sees_is_told(monkeypatch, files, calibrated_pack_path, tmp_path):
    plan, run, library = planned(tmp_path / "run", files, calibrated_pack_path)
    parts: list[tuple[int, int]] = []
    about = {"entry": {"rows": 16, "bytes": 5}, "kept": 0, "skipped": 16, "bytes_read": 5}
    monkeypatch.setattr(
        ray_engine, "_answers", lambda work, reading, *_: parts.append(reading.part) or iter([(1, about)])
    )
    with pytest.raises(OutputError, match=r"part-00001.parquet, and it is not here: .* all machines .* share"):
        plan.score_on_ray(run, library, part=(1, 3))
    assert not run.shards
    assert parts == [(1, 3)]


def test_what_can_be_read_only_once_is_refused(monkeypatch, run, pack_path, tmp_path):
    monkeypatch.setattr(ray_engine, "import_ray", lambda: None)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"CCO\n")))
    code, _, err = run("screen", "-", "-o", tmp_path / "run", "--pack", pack_path, "--engine", "ray")
    assert code == 2
    assert err == "error: --engine ray: got standard input, which can be read only once, expected files\n"
    assert not (tmp_path / "run").exists()
