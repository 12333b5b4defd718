"""A screening campaign: a library, the tasks it is scored for, the processes that score, the hits and the report."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa

from ..chem.drawing import drawing_problem
from ..errors import DeviceError, InputError
from ..machine.files import lock, replacing
from ..machine.workers import check_guarded
from ..scoring.parallel import ModelSource, scoring
from ..scoring.tasks import Task
from ..status import MAX_EXPLAINED, SHOWN_TASKS, StatusCounts, counted
from ..tables.library import Library, open_library, telling_notes
from ..tables.source import describe_file, file_state, is_stream
from .expression import CONDITION, NUMBER, parse_expression
from .hits import Ranking, add_library_columns, find_hits
from .model_choice import ENGINES, ModelChoice
from .ray_engine import check_ray, score_on_ray
from .report import write_report
from .run_directory import FORMATS, RESUME_HINT, RunDirectory, check_kept, open_run, parse_part
from .shards import (
    OPTIONAL_COLUMNS,
    SHARD_ROWS,
    ScreenProgress,
    ShardRows,
    csv_text,
    read_shards,
    result_schema,
    score_shards,
)
from .summary import LibrarySummary

RAY = "ray"  # in place of an engine: a pack in torch, on a cluster


def screen_library(
    paths: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    pack: str | Path = "admet",
    tasks: str | Sequence[str] | None = None,
    shard_format: str = "parquet",
    top: int = 100,
    by: str | None = None,
    where: str | None = None,
    ascending: bool = False,
    unique: bool = False,
    diverse: bool = False,
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
    extras: bool = False,
    percentiles: bool = False,
    engine: str = "auto",
    provider: str = "auto",
    ray_address: str | None = None,
    source: Callable[[], ModelSource] | None = None,
    command: str = "",
    on_note: Callable[[str], None] = lambda note: None,
    on_progress: Callable[[int, Library], None] = lambda n_rows, library: None,
) -> ScreenSummary:
    """Score a library of any size into the directory `output`: shards, top.csv and report.html, in constant memory.

    paths, smiles_column, name_column: of the library, as for `open_library`.
    pack, tasks, dtype, confidence: as for `mora_lite.load`. device: likewise, or several like `cuda:0,cuda:1`.
    engine: `torch` for a pack, `onnx` for an exported folder as `pack`, with `provider`; `auto` takes the right one.
    `ray` scores a pack on the cluster at `ray_address`, or on a local one.
    top, by, where, ascending: the `top` rows that meet `where`, first the highest (lowest) `by`, or the first task.
    unique: only the best row of each molecule. diverse: only hits that are not alike. shard_format: parquet or csv.
    resume, force: continue the run in `output`, or replace it. extras, percentiles: as in `Predictor.score`.
    workers: processes. They are spawned, so a script must call this under `if __name__ == "__main__":`.
    shard: `2/4` for the second of four machines that share the work. time_limit: seconds for parsing one molecule.
    source: gives a model in place of `pack`. command: for the report. on_note: takes lines. on_progress: rows, library.
    """
    on_ray = _check_call(engine, ray_address)
    part, columns = parse_part(shard), (smiles_column, name_column)
    choice = ModelChoice(str(pack), "torch" if on_ray else engine, provider, device, dtype, tasks, confidence)
    with open_library(paths, *columns) as library, telling_notes(library, on_note):
        check_kept(Path(output), library.files if force else [])
        if on_ray:
            check_ray(library)
        beside = {"extras": extras, "percentiles": percentiles}
        campaign = Campaign.plan(library, (source or choice.source)(), shard_format, columns, beside, command)
        ranking = campaign.ranking(top, by, where, ascending, unique, diverse)  # now, so that a typo costs no work
        score = partial(campaign.score_on_ray, address=ray_address) if on_ray else campaign.score
        tell = partial(_tell, library=library, on_progress=on_progress)
        score = partial(score, library=library, workers=workers, part=part, time_limit=time_limit, on_progress=tell)
        return campaign.run(Path(output), ranking, score, part, resume, force, on_note, library)


def _check_call(engine: str, ray_address: str | None) -> bool:
    """Whether Ray is asked for. Raises `InputError`."""
    check_guarded()
    if engine not in (*ENGINES, RAY):
        raise InputError(f"--engine: got {engine!r}, expected {', '.join((*ENGINES, RAY))}")
    if ray_address is not None and engine != RAY:
        raise InputError("--ray-address is for --engine ray: give both or neither")
    return engine == RAY


def _tell(done: ScreenProgress, library: Library, on_progress: Callable[[int, Library], None]) -> None:
    library.n_kept = done.skipped
    on_progress(done.skipped + done.rows, library)


class ScreenSummary(NamedTuple):
    """What became of the rows.

    counts: of all finished shards. progress: of this session. is_part: of a shared run.
    ranking: how the rows of top.csv are chosen. n_hits: how many there are. next_command: that looks closer at them.
    """

    counts: StatusCounts
    progress: ScreenProgress
    is_part: bool
    ranking: Ranking
    n_hits: int = 0
    next_command: str = ""

    def lines(self, where: str) -> list[str]:
        """The summary for people: one line, one more for each reason of failure, and what was written."""
        counts, progress = self.counts, self.progress
        rate = progress.rows / progress.seconds if progress.seconds else 0.0
        skipped = f", {progress.skipped:,} rows kept from before" if progress.skipped else ""
        return [
            f"{where}: {counts.n_rows:,} rows, {counts.n_ok:,} ok{skipped}; {progress.rows:,} in "
            f"{progress.seconds:.1f} s ({rate:,.0f} molecules/s)",
            *counts.failures(),
            *self._written(Path(where)),
        ]

    def _written(self, path: Path) -> list[str]:
        if self.is_part:
            return ["when all parts are in one directory, --resume without --shard makes top.csv"]
        hits = f"{counted(self.n_hits, 'hit')} ({self.ranking.title}) in {path / 'top.csv'}"
        if not self.n_hits:
            reason = f" meets {self.ranking.where.text}" if self.ranking.where else " could be ranked"
            hits = f"no hits: no row{reason}; {path / 'top.csv'} has a header only"
        lines = [f"{hits}, report {path / 'report.html'}"]
        return [*lines, f"next: {self.next_command}"] if self.n_hits and self.next_command else lines


@dataclass(frozen=True)
class Campaign:
    """What is to be scored, and by what. Made by `Campaign.plan`.

    settings: all that the shards' bytes depend on, in plain types, for the manifest.
    columns: the SMILES and the name column that the user named.
    file_states: input file -> its `file_state` when its SHA-256 was taken. command: that asked for it, if one did.
    """

    source: ModelSource
    settings: dict[str, Any]
    columns: tuple[str | None, str | None]
    file_states: dict[str, tuple[int, int] | None]
    command: str = ""

    @classmethod
    def plan(
        cls,
        library: Library,
        source: ModelSource,
        shard_format: str = "parquet",
        columns: tuple[str | None, str | None] = (None, None),
        beside: Mapping[str, bool] = MappingProxyType({}),
        command: str = "",
    ) -> Campaign:
        """Read the input files' SHA-256. columns, command: as the fields. beside: which of `OPTIONAL_COLUMNS` to add.

        Raises `InputError` for another format of shards than `FORMATS`.
        """
        if shard_format not in FORMATS:
            raise InputError(f"--format: got {shard_format!r}, expected {' or '.join(FORMATS)}")
        file_states = {path: file_state(path) for path in library.files}
        settings = (
            source.settings
            | {
                "format": shard_format,
                "inputs": [describe_file(path) for path in library.files],
                "smiles_column": columns[0],
                "name_column": columns[1],
                "window_rows": source.window_rows,
                "shard_windows": SHARD_ROWS // source.window_rows,
            }
            | {name: True for name in OPTIONAL_COLUMNS if beside.get(name)}
        )
        return cls(source, settings, columns, file_states, command)

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.source.tasks

    @property
    def schema(self) -> pa.Schema:
        """Of the shards."""
        beside = ShardRows.of_run(self.settings).beside(self.tasks)
        return result_schema(self.tasks, self.source.calibrated, beside)

    def ranking(
        self,
        n: int,
        by: str | None,
        where: str | None,
        ascending: bool,
        unique: bool = False,
        diverse: bool = False,
    ) -> Ranking:
        """Read the expressions. Raises `InputError` for what is wrong in them, and where `n` is below 1."""
        if n < 1:
            raise InputError(f"--top: got {n}, expected 1 or more rows for top.csv")
        read = partial(parse_expression, tasks=self.tasks, columns=self.schema.names)
        formula = read(by if by is not None else f"`{self.tasks[0].name}`").must_be(NUMBER, "--by")
        condition = None if where is None else read(where).must_be(CONDITION, "--where")
        return Ranking(n, formula, condition, ascending, unique, diverse)

    def score(
        self,
        run: RunDirectory,
        library: Library,
        *,
        workers: int | None = None,
        part: tuple[int, int] = (0, 1),
        time_limit: float = 30.0,
        on_progress: Callable[[ScreenProgress], None] = lambda progress: None,
    ) -> ScreenProgress:
        """Score the unfinished shards in `workers` processes of this machine.

        time_limit: seconds for parsing one molecule. Raises `InputError` when an input file has changed by the end.
        """
        windows = library.windows(run.settings["window_rows"])
        digest = any(map(is_stream, library.files))
        output = ShardRows.of_run(run.settings)
        with scoring(self.source, output, workers=workers, time_limit=time_limit) as score:
            progress = score_shards(run, windows, score, self.schema, part=part, digest=digest, on_progress=on_progress)
        self._check_inputs()
        return progress

    def _check_inputs(self) -> None:
        for path, state in self.file_states.items():
            if file_state(path) != state:
                raise InputError(f"{path} changed while it was read, so the results are of no one state: use --force")

    def score_on_ray(self, run: RunDirectory, library: Library, **options: Any) -> ScreenProgress:
        """Score the unfinished shards on a Ray cluster. options: as for `ray_engine.score_on_ray`."""
        progress = score_on_ray(self.source, self.schema, self.columns, run, library, **options)
        self._check_inputs()
        return progress

    def counts(self, run: RunDirectory) -> StatusCounts:
        """Rows by status, of all finished shards."""
        counts = StatusCounts()
        for _, entry in sorted(run.shards.items()):
            counts.add(entry["counts"], {status: (row, reason) for status, (row, reason) in entry["first"].items()})
        return counts

    def run(
        self,
        path: Path,
        ranking: Ranking,
        score: Callable[[RunDirectory], ScreenProgress],
        part: tuple[int, int],
        resume: bool,
        force: bool,
        on_note: Callable[[str], None],
        library: Library,
    ) -> ScreenSummary:
        """Score into the directory `path` by `score`, then write top.csv and the report, unless this is only a part."""
        name = f"{part[0] + 1}-of-{part[1]}" if part[1] > 1 else ""
        for note in self.source.featurizer.notes:
            on_note(note)
        with lock(path, name, alone=force):
            run = open_run(path, self.settings, part=name, resume=resume, force=force)
            for note in run.notes:
                on_note(note)
            try:
                progress, n_hits = score(run), 0
            except DeviceError as error:
                raise DeviceError(f"{error}; {RESUME_HINT}") from None
            if not name:
                n_hits = self.finish(run, progress, ranking, library)
                if drawing_problem():
                    on_note(drawing_problem())
        looked_at = self.source.has_training and n_hits <= MAX_EXPLAINED
        next_command = self._closer_look(path / "top.csv") if looked_at else ""
        return ScreenSummary(self.counts(run), progress, bool(name), ranking, n_hits, next_command)

    def _closer_look(self, top: Path) -> str:
        """The command that draws the hits, with what made their values and known molecules beside them."""
        few = len(self.tasks) <= SHOWN_TASKS
        tasks = ["--task", ",".join(task.name for task in self.tasks)] if few else []
        page = ["-o", str(top.with_name("hits.html"))]
        return shlex.join(["mora-lite", "explain", str(top), "--pack", self.source.address, *tasks, *page])

    def finish(
        self, run: RunDirectory, progress: ScreenProgress, ranking: Ranking, library: Library | None = None
    ) -> int:
        """Write top.csv and report.html from the shards; returns the number of hits.

        library: whose columns top.csv has besides, where it can be read again.
        """
        summary = LibrarySummary(self.tasks, self.counts(run))

        def shards() -> Iterator[pa.Table]:
            yield self.schema.empty_table()  # so that top.csv has its columns even if the library is empty
            for shard in read_shards(run, self.schema):
                summary.add(shard)
                yield shard

        hits = find_hits(shards(), ranking, self.source.featurizer)
        whole = hits
        if library is not None and not any(map(is_stream, library.files)):
            whole = add_library_columns(hits, partial(open_library, library.files, *self.columns, cells=True))
        with replacing(run.path / "top.csv", RESUME_HINT) as file:
            file.write(csv_text(whole))
        title = ranking.title
        write_report(run.path / "report.html", self._metadata(run, progress), self.tasks, summary, hits, title)
        return hits.num_rows

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
        }
        if self.command:
            metadata["Command"] = self.command
        if progress.rows and progress.seconds:
            metadata["Speed"] = (
                f"{progress.rows / progress.seconds:,.0f} molecules/s, {progress.rows:,} in this session"
            )
        return metadata


def _join_names(files: Sequence[str]) -> str:
    return ", ".join(files[:3]) + (f" and {len(files) - 3:,} more" if len(files) > 3 else "")
