"""A screening campaign: a library, the tasks it is scored for, the processes that score, the hits and the report."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from ..chem.drawing import drawing_problem
from ..errors import InputError
from ..machine.files import replacing
from ..scoring.engine import CPU, ModelSource, scoring
from ..scoring.tasks import Task
from ..status import StatusCounts
from ..tables.prepared_files import AnyLibrary, PreparedLibrary, open_any_library
from ..tables.source import describe_file, file_state, is_stream
from .expression import CONDITION, NUMBER, Expression, parse_expression
from .ranking import rank
from .ray_engine import ShardWork, check_ray, score_on_ray
from .report import write_report
from .run_directory import FORMATS, RESUME_HINT, RunDirectory, lock, open_run, parse_part
from .shards import (
    CPU_WINDOW_ROWS,
    SHARD_WINDOWS,
    WINDOW_ROWS,
    ScreenProgress,
    ShardRows,
    csv_text,
    read_shards,
    result_schema,
    score_shards,
    unfinished_windows,
)
from .summary import LibrarySummary

ENGINES = ("local", "ray")


def screen_library(
    paths: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    pack: str = "admet",
    tasks: list[str] | None = None,
    shard_format: str = "parquet",
    top: int = 100,
    by: str | None = None,
    where: str | None = None,
    ascending: bool = False,
    resume: bool = False,
    force: bool = False,
    device: str = "auto",
    workers: int | None = None,
    dtype: str = "auto",
    confidence: float = 0.9,
    smiles_column: str | None = None,
    name_column: str | None = None,
    shard: str = "1/1",
    time_limit: float = 30.0,
    engine: str = "local",
    ray_address: str | None = None,
    source: ModelSource | None = None,
    on_note: Callable[[str], None] = lambda note: None,
    on_progress: Callable[[int, AnyLibrary], None] = lambda n_rows, library: None,
) -> ScreenSummary:
    """Score a library of any size into the directory `output`: shards, top.csv and report.html, in constant memory.

    paths, smiles_column, name_column: of the library, as for `open_library`; or prepared libraries.
    pack, tasks, dtype, confidence: as for `mora_lite.load`. device: likewise, or several like `cuda:0,cuda:1`.
    top, by, where, ascending: the `top` rows that meet the condition `where`, those with the highest (lowest) `by`
        first, an expression, by default the first task.
    resume, force: continue the run in `output`, or replace it.
    workers: processes. They are spawned, so a script must call this under `if __name__ == "__main__":`.
    shard: `2/4` for the second of four machines that share the work. time_limit: seconds for parsing one molecule.
    source: a model in place of `pack`, with its tasks, device, dtype and confidence.
    on_note: called with each line for the user. on_progress: called with the number of rows done and the library.
    """
    _check_engine(engine, ray_address)
    part = parse_part(shard)
    with open_any_library(paths, smiles_column, name_column) as library:
        for note in library.notes:
            on_note(note)
        for_ray = check_ray(library) if engine == "ray" else None
        columns = smiles_column, name_column
        campaign = Campaign.plan(library, pack, tasks, shard_format, device, dtype, confidence, columns, source)
        for note in campaign.source.featurizer.notes:
            on_note(note)
        ranking = campaign.ranking(top, by, where, ascending)  # read before the work, which a typo must not cost
        options: dict[str, Any] = {"workers": workers, "part": part}
        options["on_progress"] = lambda progress: on_progress(progress.skipped + progress.rows, library)

        def score(run: RunDirectory) -> ScreenProgress:
            if for_ray is None:
                return campaign.score(run, library, time_limit=time_limit, **options)
            work, n_devices = campaign.shard_work(run, for_ray), len(campaign.source.devices)
            return score_on_ray(work, run, for_ray, n_devices=n_devices, address=ray_address, **options)

        return campaign.run(Path(output), ranking, score, part, resume, force, on_note)


def _check_engine(engine: str, ray_address: str | None) -> None:
    if engine not in ENGINES:
        raise InputError(f"--engine: got {engine!r}, expected {' or '.join(ENGINES)}")
    if ray_address is not None and engine != "ray":
        raise InputError("--ray-address is for --engine ray: give both or neither")


class ScreenSummary(NamedTuple):
    """What became of the rows. counts: of all finished shards. progress: of this session. is_part: of a shared run."""

    counts: StatusCounts
    progress: ScreenProgress
    is_part: bool

    def lines(self, where: str) -> list[str]:
        """The summary for people: one line, and one more for each reason of failure."""
        counts, progress = self.counts, self.progress
        rate = progress.rows / progress.seconds if progress.seconds else 0.0
        skipped = f", {progress.skipped:,} rows kept from before" if progress.skipped else ""
        return [
            f"{where}: {counts.n_rows:,} rows, {counts.n_ok:,} ok{skipped}; {progress.rows:,} in "
            f"{progress.seconds:.1f} s ({rate:,.0f} molecules/s)",
            *counts.failures(),
            *(["when all parts are in one directory, --resume without --shard makes top.csv"] if self.is_part else []),
        ]


class Ranking(NamedTuple):
    """What top.csv holds: the first `n` rows in the order of `by`, of those that meet `where`."""

    n: int
    by: Expression
    where: Expression | None
    ascending: bool

    @property
    def title(self) -> str:
        order = "lowest" if self.ascending else "highest"
        condition = f", where {self.where.text}" if self.where else ""
        return f"{order} {self.by.text}{condition}"


@dataclass(frozen=True)
class Campaign:
    """What is to be scored, and by what. Made by `Campaign.plan`.

    settings: all that the shards' bytes depend on, in plain types, for the manifest.
    columns: the SMILES and the name column that the user named.
    file_states: input file -> its `file_state` when its SHA-256 was taken.
    """

    source: ModelSource
    settings: dict[str, Any]
    columns: tuple[str | None, str | None]
    file_states: dict[str, tuple[int, int] | None]

    @classmethod
    def plan(
        cls,
        library: AnyLibrary,
        pack: str = "admet",
        tasks: list[str] | None = None,
        shard_format: str = "parquet",
        device: str = "auto",
        dtype: str = "auto",
        confidence: float = 0.9,
        columns: tuple[str | None, str | None] = (None, None),
        source: ModelSource | None = None,
    ) -> Campaign:
        """Look up pack, tasks and devices, and read the input files' SHA-256.

        columns: as the field. source: another model in place of the pack.
        """
        if shard_format not in FORMATS:
            raise InputError(f"--format: got {shard_format!r}, expected {' or '.join(FORMATS)}")
        if source is None:
            source = _source_of(pack, tasks=tasks, device=device, dtype=dtype, confidence=confidence)
        if isinstance(library, PreparedLibrary) and library.featurizer != source.featurizer:
            raise InputError(
                f"the library was prepared for packs with {library.featurizer}, {source.name} has {source.featurizer}; "
                f"prepare it for this one: mora-lite prepare --pack {pack}"
            )
        file_states = {path: file_state(path) for path in library.files}
        window_rows = min(WINDOW_ROWS, CPU_WINDOW_ROWS) if source.devices == (CPU,) else WINDOW_ROWS
        settings = source.settings | {
            "format": shard_format,
            "inputs": [describe_file(path) for path in library.files],
            "smiles_column": columns[0],
            "name_column": columns[1],
            "window_rows": window_rows,
            "shard_windows": SHARD_WINDOWS * (WINDOW_ROWS // window_rows),
        }
        return cls(source, settings, columns, file_states)

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.source.tasks

    @property
    def schema(self) -> pa.Schema:
        """Of the shards."""
        return result_schema(self.tasks, self.source.calibrated)

    def ranking(self, n: int, by: str | None, where: str | None, ascending: bool) -> Ranking:
        """Read the expressions. Raises `InputError` for what is wrong in them."""
        read = partial(parse_expression, tasks=self.tasks, columns=self.schema.names)
        formula = read(by if by is not None else f"`{self.tasks[0].name}`").must_be(NUMBER, "--by")
        condition = None if where is None else read(where).must_be(CONDITION, "--where")
        return Ranking(n, formula, condition, ascending)

    def score(
        self,
        run: RunDirectory,
        library: AnyLibrary,
        *,
        workers: int | None = None,
        part: tuple[int, int] = (0, 1),
        time_limit: float = 30.0,
        on_progress: Callable[[ScreenProgress], None] = lambda progress: None,
    ) -> ScreenProgress:
        """Score the unfinished shards in `workers` processes of this machine.

        time_limit: seconds for parsing one molecule. Raises `InputError` when an input file has changed by the end.
        """
        n_rows, is_prepared = run.settings["window_rows"], isinstance(library, PreparedLibrary)
        windows: Iterator[Any] = (
            unfinished_windows(library, run, part, n_rows) if is_prepared else library.windows(n_rows)
        )
        digest = any(map(is_stream, library.files))
        finish = ShardRows(run.settings["format"])
        with scoring(self.source, finish, workers=workers, time_limit=time_limit, prepared=is_prepared) as score:
            progress = score_shards(run, windows, score, self.schema, part=part, digest=digest, on_progress=on_progress)
        for path, state in self.file_states.items():
            if file_state(path) != state:
                raise InputError(f"{path} changed while it was read, so the results are of no one state: use --force")
        return progress

    def shard_work(self, run: RunDirectory, library: PreparedLibrary) -> ShardWork:
        """What an actor on a Ray cluster must know."""
        from .models import LoadPack

        load = self.source.load
        if not isinstance(load, LoadPack):
            raise InputError("--engine ray: got an exported folder, expected a pack: screen the folder without Ray")
        return ShardWork(
            replace(run, path=run.path.resolve(), manifest=run.manifest.resolve(), shards={}, listed=set()),
            tuple(os.path.abspath(path) for path in library.files),
            library.n_rows,
            Path(load.pack),
            load.tasks,
            self.source.devices[0].split(":")[0],
            load.dtype,
            load.confidence,
            self.schema,
        )

    def counts(self, run: RunDirectory) -> StatusCounts:
        """Rows by status, of all finished shards."""
        counts: Counter[str] = Counter()
        first: dict[str, tuple[int, str]] = {}
        for number in sorted(run.shards):
            counts.update(run.shards[number]["counts"])
            first = {**run.shards[number]["first"], **first}
        return StatusCounts(counts, {status: (row, reason) for status, (row, reason) in first.items()})

    def run(
        self,
        path: Path,
        ranking: Ranking,
        score: Callable[[RunDirectory], ScreenProgress],
        part: tuple[int, int],
        resume: bool,
        force: bool,
        on_note: Callable[[str], None],
    ) -> ScreenSummary:
        """Score into the directory `path` by `score`, then write top.csv and the report, unless this is only a part."""
        name = f"{part[0] + 1}-of-{part[1]}" if part[1] > 1 else ""
        with lock(path, name, alone=force):
            run = open_run(path, self.settings, part=name, resume=resume, force=force)
            for note in run.notes:
                on_note(note)
            progress = score(run)
            summary = ScreenSummary(self.counts(run), progress, bool(name))
            if not name:
                self.finish(run, progress, ranking)
                if drawing_problem():
                    on_note(drawing_problem())
        return summary

    def finish(self, run: RunDirectory, progress: ScreenProgress, ranking: Ranking) -> None:
        """Write top.csv and report.html from the shards."""
        summary = LibrarySummary(self.tasks)

        def shards() -> Iterator[pa.Table]:
            yield self.schema.empty_table()  # so that top.csv has its columns even if the library is empty
            for shard in read_shards(run, self.schema):
                summary.add(shard)
                yield shard

        hits = rank(shards(), ranking.by, max(ranking.n, 1), ranking.where, ranking.ascending).slice(0, ranking.n)
        with replacing(run.path / "top.csv", RESUME_HINT) as file:
            file.write(csv_text(hits))
        write_report(run.path / "report.html", self._metadata(run, progress), self.tasks, summary, hits, ranking.title)

    def _metadata(self, run: RunDirectory, progress: ScreenProgress) -> dict[str, str]:
        """What the report says of the run: label -> text."""
        settings = run.settings
        programs = [name for name in ("mora_lite", "torch", "onnxruntime", "rdkit") if name in settings]
        versions = (f"{name.replace('_', '-')} {settings[name]}" for name in programs)
        metadata = {
            "Pack": f"{self.source.name} ({len(self.tasks)} tasks, {settings['dtype']})",
            "Library": _join_names([entry["file"] for entry in settings["inputs"]]),
            "Machine": f"{self.source.machine}, {platform.system()}",
            "Versions": ", ".join(versions),
            "Finished": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "Command": shlex.join(["mora-lite", *sys.argv[1:]]),
        }
        if progress.rows and progress.seconds:
            metadata["Speed"] = (
                f"{progress.rows / progress.seconds:,.0f} molecules/s, {progress.rows:,} in this session"
            )
        return metadata


def _source_of(pack: str, **options: Any) -> ModelSource:
    from .models import torch_source  # an exported folder needs no torch

    return torch_source(pack, **options)


def _join_names(files: Sequence[str]) -> str:
    return ", ".join(files[:3]) + (f" and {len(files) - 3:,} more" if len(files) > 3 else "")
