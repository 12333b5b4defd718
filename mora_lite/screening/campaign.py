"""A screening campaign: what is to be scored by what, the processes that do it, the ranked list and the report."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from pyarrow import csv

from .. import __version__
from ..errors import InputError
from ..machine.device import choose_device, choose_dtype, processor_name
from ..machine.files import digest_file, replacing
from ..machine.prefetch import read_ahead
from ..machine.workers import WorkerPool, default_workers
from ..packs.pack import Pack, open_pack
from ..scoring.conformal import check_confidence
from ..scoring.tasks import Task, choose_tasks
from ..status import OK, StatusCounts
from ..tables.library import Library, expand_paths, open_library
from ..tables.prepared_files import PreparedLibrary, is_prepared
from ..tables.table import STDIO
from .expression import CONDITION, NUMBER, Expression, parse_expression
from .ranking import rank
from .report import write_report
from .run_directory import FORMATS, RESUME_HINT, RunDirectory
from .shards import (
    SHARD_WINDOWS,
    WINDOW_ROWS,
    Job,
    Scored,
    ScreenProgress,
    make_preparer,
    make_scorer,
    read_shards,
    result_schema,
    score_on,
    screen,
    unfinished_windows,
)
from .summary import LibrarySummary


class Ranking(NamedTuple):
    """What top.csv holds: `n` rows by `by`, of those that fulfil `where`."""

    n: int
    by: Expression
    where: Expression | None
    ascending: bool

    @property
    def title(self) -> str:
        order = "lowest" if self.ascending else "highest"
        condition = f", where {self.where.text}" if self.where else ""
        return f"{order} {self.by.text}{condition}"


def open_any_library(
    paths: Sequence[str], smiles_column: str | None = None, name_column: str | None = None
) -> Library | PreparedLibrary:
    """A library of texts, or a prepared one. Raises `InputError`, also when the files are of both kinds."""
    files = expand_paths(paths)
    prepared = [path for path in files if path != STDIO and os.path.isfile(path) and is_prepared(path)]
    if prepared and len(prepared) < len(files):
        other = next(path for path in files if path not in prepared)
        raise InputError(f"{prepared[0]} is a prepared library and {other} is not: screen the two kinds apart")
    return PreparedLibrary(files) if prepared else open_library(files, smiles_column, name_column)


@dataclass(frozen=True)
class Campaign:
    """settings: all that the shards' bytes depend on, of plain types. devices: those that score. states: of the input
    files when their SHA-256 was taken, by name (`_state`)."""

    pack: Pack
    tasks: tuple[Task, ...]
    devices: tuple[torch.device, ...]
    dtype: str
    confidence: float
    settings: dict[str, Any]
    states: dict[str, tuple[int, int] | None]

    @classmethod
    def plan(
        cls,
        library: Library | PreparedLibrary,
        *,
        pack: str = "admet",
        tasks: list[str] | None = None,
        form: str = "parquet",
        device: str = "auto",
        dtype: str = "auto",
        confidence: float = 0.9,
        columns: tuple[str | None, str | None] = (None, None),
    ) -> Campaign:
        """columns: the SMILES and the name column asked for. Raises `MoraLiteError` for what does not exist."""
        if form not in FORMATS:
            raise InputError(f"--format: got {form!r}, expected {' or '.join(FORMATS)}")
        check_confidence(confidence)
        opened, devices = open_pack(pack), choose_devices(device)
        chosen = tuple(opened.tasks[i] for i in choose_tasks(opened.tasks, tasks))
        number_type = str(choose_dtype(dtype, devices[0])).removeprefix("torch.")
        states = {path: _state(path) for path in library.files}
        settings = {
            "mora_lite": __version__,
            "torch": torch.__version__,
            "rdkit": metadata.version("rdkit"),
            "pack": opened.name,
            "pack_sha256": opened.manifest["sha256"],
            "tasks": [task.name for task in chosen],
            "confidence": confidence,
            "format": form,
            "device": devices[0].type,
            "dtype": number_type if dtype == "auto" else f"{number_type} as asked",
            "inputs": [describe_file(path) for path in library.files],
            "smiles_column": columns[0],
            "name_column": columns[1],
            "window_rows": WINDOW_ROWS,
            "shard_windows": SHARD_WINDOWS,
        }
        return cls(opened, chosen, devices, dtype, confidence, settings, states)

    @property
    def schema(self) -> pa.Schema:
        """Columns of the shards."""
        return result_schema(self.tasks, self.pack.has("calibration") and self.pack.has("domain"))

    def ranking(self, n: int, by: str | None, where: str | None, ascending: bool) -> Ranking:
        """Read the expressions. Raises `InputError` for what is wrong in them."""
        read = partial(parse_expression, tasks=self.tasks, columns=self.schema.names)
        formula = read(by if by is not None else f"`{self.tasks[0].name}`").must_be(NUMBER, "--by")
        condition = None if where is None else read(where).must_be(CONDITION, "--where")
        return Ranking(n, formula, condition, ascending)

    def score(
        self,
        run: RunDirectory,
        library: Library | PreparedLibrary,
        *,
        workers: int | None = None,
        part: tuple[int, int] = (0, 1),
        time_limit: float = 30.0,
        on_progress: Callable[[ScreenProgress], None] = lambda progress: None,
    ) -> ScreenProgress:
        """Score what is not scored yet. workers: processes; time_limit: seconds for parsing one molecule.

        Raises `InputError` when an input file has changed by the end.
        """
        progress = self._score(run, library, workers, part, time_limit, on_progress)
        for path, state in self.states.items():
            if _state(path) != state:
                raise InputError(f"{path} changed while it was read, so the results are of no one state: use --force")
        return progress

    def _score(
        self,
        run: RunDirectory,
        library: Library | PreparedLibrary,
        workers: int | None,
        part: tuple[int, int],
        time_limit: float,
        on_progress: Callable[[ScreenProgress], None],
    ) -> ScreenProgress:
        n = workers or default_workers()
        names, form = [task.name for task in self.tasks], run.settings["format"]
        windows: Iterator[Any] = (
            library.windows(WINDOW_ROWS)
            if isinstance(library, Library)
            else unfinished_windows(library, run, part, WINDOW_ROWS)
        )
        rest: dict[str, Any] = {"part": part, "digest": any(map(is_stream, library.files)), "on_progress": on_progress}
        if self.devices[0].type == "cpu":
            arguments = (str(self.pack.path.resolve()), names, self.dtype, self.confidence, form)
            with WorkerPool[Job, Scored](n, make_scorer, arguments, time_limit) as pool:
                return screen(run, windows, pool.results, self.schema, **rest)
        from ..model import load

        options: dict[str, Any] = {"dtype": self.dtype, "tasks": names, "confidence": self.confidence}
        models = [load(self.pack.path, device=str(device), **options) for device in self.devices]
        with WorkerPool[Job, bytes](n, make_preparer, (), time_limit) as preparers:

            def score(jobs: Iterator[Any]) -> Iterator[Scored]:
                ready = preparers.results(jobs) if isinstance(library, Library) else read_ahead(jobs)
                return score_on(models, ready, form)

            return screen(run, windows, score, self.schema, **rest)

    def counts(self, run: RunDirectory) -> StatusCounts:
        """Rows by status, of all finished shards."""
        counts: Counter[str] = Counter()
        first: dict[str, tuple[int, str]] = {}
        for number in sorted(run.shards):
            counts.update(run.shards[number]["counts"])
            first = {**run.shards[number]["first"], **first}
        return StatusCounts(counts, {status: (row, reason) for status, (row, reason) in first.items()})

    def finish(self, run: RunDirectory, progress: ScreenProgress, ranking: Ranking) -> None:
        """Write top.csv and report.html from the shards."""
        summary = LibrarySummary(self.tasks)

        def shards() -> Iterator[pa.Table]:
            yield self.schema.empty_table()  # so that top.csv has its columns whatever the library holds
            for shard in read_shards(run, self.schema):
                summary.add(shard)
                yield shard

        hits = rank(shards(), ranking.by, max(ranking.n, 1), ranking.where, ranking.ascending).slice(0, ranking.n)
        with replacing(run.path / "top.csv", RESUME_HINT) as file:
            csv.write_csv(hits, file, csv.WriteOptions(quoting_style="needed"))
        facts = self._facts(run, progress)
        title = ranking.title
        write_report(
            run.path / "report.html", facts=facts, tasks=self.tasks, summary=summary, hits=hits, hits_title=title
        )

    def _facts(self, run: RunDirectory, progress: ScreenProgress) -> dict[str, str]:
        settings = run.settings
        versions = (f"{name.replace('_', '-')} {settings[name]}" for name in ("mora_lite", "torch", "rdkit"))
        facts = {
            "Pack": f"{self.pack.name} ({len(self.tasks)} tasks, {settings['dtype']})",
            "Library": _named([entry["file"] for entry in settings["inputs"]]),
            "Machine": ", ".join([*sorted({processor_name(device) for device in self.devices}), platform.system()]),
            "Versions": ", ".join(versions),
            "Finished": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "Command": shlex.join(["mora-lite", *sys.argv[1:]]),
        }
        if progress.rows and progress.seconds:
            facts["Speed"] = f"{progress.rows / progress.seconds:,.0f} molecules/s, {progress.rows:,} in this session"
        return facts


def is_stream(path: str) -> bool:
    """Whether what is read from the file is gone then: standard input, a pipe like `<(zcat library.gz)`."""
    return path == STDIO or (os.path.exists(path) and not os.path.isfile(path))


def _named(files: Sequence[str]) -> str:
    return ", ".join(files[:3]) + (f" and {len(files) - 3:,} more" if len(files) > 3 else "")


def describe_file(path: str) -> dict[str, Any]:
    """What a manifest says of an input."""
    if is_stream(path):
        return {"file": "standard input" if path == STDIO else "a pipe"}
    return {"file": Path(path).name, "bytes": os.path.getsize(path), "sha256": digest_file(path)}


def _state(path: str) -> tuple[int, int] | None:
    """Size and time of the last change; None of a stream."""
    if is_stream(path) or not os.path.exists(path):
        return None
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


def choose_devices(names: str) -> tuple[torch.device, ...]:
    """`auto` (all CUDA devices, else the CPU), or one or more of a kind: `cuda:0,cuda:1`. Raises `DeviceError`."""
    first = choose_device() if names == "auto" else None
    if first is not None:
        n = torch.cuda.device_count() if first.type == "cuda" else 0
        return tuple(torch.device("cuda", i) for i in range(n)) or (first,)
    devices = tuple(choose_device(name.strip()) for name in names.split(",") if name.strip())
    if not devices or len({device.type for device in devices}) > 1:
        raise InputError(f"--device: got {names!r}, expected one device, or several CUDA devices like cuda:0,cuda:1")
    return devices


def summary_lines(where: str, counts: StatusCounts, progress: ScreenProgress) -> list[str]:
    """For people: one line, and one more for each reason of failure."""
    rate = progress.rows / progress.seconds if progress.seconds else 0.0
    kept = f", {progress.skipped:,} rows kept from before" if progress.skipped else ""
    n_rows = counts.n_rows
    head = f"{where}: {n_rows:,} rows, {counts.counts[OK]:,} ok{kept}; {progress.rows:,} in {progress.seconds:.1f} s"
    return [f"{head} ({rate:,.0f} molecules/s)", *counts.failures()]
