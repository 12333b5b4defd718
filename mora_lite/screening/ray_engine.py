"""Screening on a Ray cluster: the shards of a run are shared out over actors by Ray Data.

Only the way of the rows differs from a run without Ray. `ray_reader` reads the library in one process and sends a shard
at a time to an actor, which does what such a run does: it parses and scores in worker processes that survive bad
molecules (`scoring.parallel`) and writes the file with the same `write_shard`; what comes back to the driver is the
shard's entry for the manifest. So bytes, manifest and --resume are those of a run without Ray, and either of them can
finish what the other began. The run's directory must be on a file system that all machines share, the library need not.

Ray Data has checkpoints of its own (`CheckpointConfig`, beta in 2.60). They are not used: they list the ids of all rows
that a write finished, load that list at the start and delete it at the end, and know neither the settings nor the bytes
of the files. The manifest has one entry for 65,536 rows, a SHA-256 for each file, and runs without Ray read it too.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .. import errors
from ..errors import DeviceError, InputError, MoraLiteError, OutputError
from ..machine.journal import Journal
from ..machine.workers import WorkerDied, default_workers, usable_cores
from ..scoring.parallel import CPU, ModelSource, scoring
from ..tables.library import Library
from ..tables.source import STDIO, is_stream
from .ray_cluster import Tries, connected, import_ray
from .ray_reader import END, Reading, datasource, windows_of
from .run_directory import RunDirectory
from .shards import Scored, ScreenProgress, ShardRows, write_shard

if TYPE_CHECKING:
    from ..model import Model
    from .models import LoadPack

MAX_TRIES = 4  # of one shard. Ray Data replaces dead actors without end, also where it is the shard that kills them


def check_ray(library: Library) -> None:
    """Before the work: is Ray here, and can another process read the library? Raises `DeviceError` or `InputError`."""
    import_ray()
    for path in filter(is_stream, library.files):
        name = "standard input" if path == STDIO else path
        raise InputError(f"--engine ray: got {name}, which can be read only once, expected files")


def score_on_ray(
    source: ModelSource,
    schema: pa.Schema,
    columns: tuple[str | None, str | None],
    run: RunDirectory,
    library: Library,
    *,
    workers: int | None = None,
    part: tuple[int, int] = (0, 1),
    time_limit: float = 30.0,
    address: str | None = None,
    on_progress: Callable[[ScreenProgress], None] = lambda progress: None,
) -> ScreenProgress:
    """Score the unfinished shards on the Ray cluster at `address`, or on a local one that ends with this call.

    Shards are entered into the manifest as they come, in any order.

    source: a pack's. schema: of the shards. columns: the SMILES and the name column that the user named.
    library: is told how much of it was read, and gets the notes of its reader.
    workers: actors, by default one for each GPU, or for each CPU where there are no GPUs.
    time_limit: seconds for parsing one molecule.

    Raises what went wrong in the reader or an actor, if it is a `MoraLiteError`, and `DeviceError` when Ray gives up.
    """
    if run.is_whole:
        return ScreenProgress(skipped=run.rows or 0)
    progress, started = ScreenProgress(), time.perf_counter()
    work, reading = divide(source, schema, columns, run, library, part, time_limit)
    end: dict[str, Any] = {}
    n_kept = n_bytes = 0
    for number, about in _answers(work, reading, library.bytes_total, len(source.devices), workers, address):
        if number == END:
            end = about  # an error in it waits until the shards before are there
            continue
        _enter(run, number, about)
        n_kept += about["kept"]
        progress.rows += about["entry"]["rows"] - about["kept"]
        progress.skipped = max(progress.skipped, about["skipped"] + n_kept)
        progress.seconds = time.perf_counter() - started
        n_bytes = max(n_bytes, about["bytes_read"])
        library.read_elsewhere(n_bytes)
        on_progress(progress)
    _raise_error(end)
    library.notes += end["notes"]
    progress.skipped = end["skipped"] + n_kept
    if part[1] == 1:
        run.set_rows(end["rows"])
    progress.seconds = time.perf_counter() - started
    return progress


def divide(
    source: ModelSource,
    schema: pa.Schema,
    columns: tuple[str | None, str | None],
    run: RunDirectory,
    library: Library,
    part: tuple[int, int] = (0, 1),
    time_limit: float = 30.0,
) -> tuple[ShardWork, Reading]:
    """What the actors and what the reader must know. Arguments as for `score_on_ray`."""
    from .models import LoadPack

    load, settings = source.load, run.settings
    if not isinstance(load, LoadPack):
        raise InputError("--engine ray: got an exported folder, expected a pack: screen the folder without Ray")
    work = ShardWork(
        replace(run, path=run.path.resolve(), manifest=run.manifest.resolve(), shards={}, listed=set()),
        replace(source, load=LoadAlike(load, settings), devices=(source.devices[0].split(":")[0],)),
        schema,
        time_limit,
    )
    files = tuple(map(os.path.abspath, library.files))
    return work, Reading(
        files, columns, settings["window_rows"], settings["shard_windows"], frozenset(run.shards), part
    )


def _enter(run: RunDirectory, number: int, about: dict[str, Any]) -> None:
    """Enter a shard that an actor has made. Raises what went wrong there."""
    _raise_error(about)
    file = run.file(number)
    if not (file.exists() and file.stat().st_size == about["entry"]["bytes"]):
        raise OutputError(
            f"an actor wrote {file}, and it is not here: the run's directory must be on a file system that all "
            "machines of the cluster share"
        )
    run.add(number, about["entry"])
    run.journal(number).unlink(missing_ok=True)


def _raise_error(about: dict[str, Any]) -> None:
    if "error" in about:
        raise getattr(errors, about["kind"])(about["error"])


@dataclass(frozen=True)
class LoadAlike:
    """Loads a pack on a machine that must be like the driver's, or the shards would not be of one kind.

    settings: of the run.
    """

    load: LoadPack
    settings: dict[str, Any]

    def __call__(self, *, device: str, threads: int | None = None) -> Model:
        from .models import torch_source

        pack = (
            self.load.pack if Path(self.load.pack).is_dir() else self.settings["pack"]
        )  # a shipped one lies elsewhere
        load = replace(self.load, pack=pack)
        here = torch_source(
            pack, tasks=load.tasks, device=device, dtype=load.dtype, confidence=load.confidence
        ).settings
        for name, value in here.items():
            if value != self.settings[name]:
                raise DeviceError(
                    f"machine {platform.node()} of the cluster has {name.replace('_', ' ')} {value}, and the run was "
                    f"begun with {self.settings[name]}: make the machines alike, or leave this one out"
                )
        return load(device=device, threads=threads)


@dataclass(frozen=True)
class ShardWork:
    """What an actor must know to make any shard; sent to it once.

    run: without its shards, its paths absolute. source: with one device.
    workers: processes of one actor. time_limit: seconds for parsing one molecule.
    """

    run: RunDirectory
    source: ModelSource
    schema: pa.Schema
    time_limit: float = 30.0
    workers: int = 1

    @property
    def shard_rows(self) -> int:
        """Rows of every shard but the last."""
        return int(self.run.settings["window_rows"] * self.run.settings["shard_windows"])


class ShardScorer:
    """The work of an actor: a shard's rows in, its entry out. Ray Data makes one for each actor and calls it."""

    def __init__(self, work: ShardWork, tries: Any):
        """tries: handle of the actor `Tries`."""
        self._work, self._tries = work, tries
        self._open = ExitStack()
        self._scoring: Callable[[Iterator[Any]], Iterator[Any]] | None = None

    def __call__(self, block: pa.Table) -> pa.Table:
        """Take a block of `Reading.blocks`; returns its number and `about`, to which `entry` and `kept` are added.

        kept: rows that the shard's journal had. A `MoraLiteError` is a result, as there: as an exception Ray would wrap
        it.
        """
        number, about = block["shard"][0].as_py(), json.loads(block["about"][0].as_py())
        if number != END:
            try:
                about |= self._score(number, block["rows"][0])
            except MoraLiteError as error:
                about = {"kind": type(error).__name__, "error": str(error)}
        return pa.table({"shard": [number], "about": [json.dumps(about)]})

    def _score(self, number: int, rows: pa.Scalar) -> dict[str, Any]:
        while import_ray().get(self._tries.begin.remote(number)) <= MAX_TRIES:
            try:
                return self._write(number, rows)
            except WorkerDied:  # as after the death of an actor, which has only this process more
                self._open.close()
                self._scoring = None
        raise DeviceError(
            f"{MAX_TRIES} actors died at {self._work.run.file(number).name} (out of memory?); use fewer --workers"
        )

    def _write(self, number: int, rows: pa.Scalar) -> dict[str, Any]:
        work, settings = self._work, self._work.run.settings
        if self._scoring is None:
            output = ShardRows.of_run(settings)
            processes = scoring(work.source, output, workers=work.workers, time_limit=work.time_limit)
            self._scoring = self._open.enter_context(processes)
        journal = Journal(work.run.journal(number), Scored.of).read()
        n_kept = sum(scored.n_rows for scored in journal.kept)
        windows = islice(windows_of(rows, number * work.shard_rows + 1), len(journal.kept), None)
        file = work.run.file(number)
        entry = write_shard(file, self._scoring(windows), work.schema, settings["format"], journal)
        return {"entry": entry, "kept": n_kept}


def _answers(
    work: ShardWork, reading: Reading, n_bytes: int | None, n_devices: int, workers: int | None, address: str | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """What `ShardScorer` returns for each shard, as they are finished, and what `Reading.blocks` says at the end."""
    gpu = work.source.devices != (CPU,)
    local = max(n_devices, usable_cores()) if gpu else workers or default_workers()
    with connected(address, local, n_devices if gpu else 0) as ray:
        available, cores = _resources(ray, gpu)
        if not available:
            raise DeviceError(f"the Ray cluster has no {'GPU' if gpu else 'CPU'} for --device {work.source.devices[0]}")
        shards = (n_bytes or 0) // work.shard_rows + 1  # or fewer: hardly a row takes less than a byte, packed or not
        n = min(workers or available, available, shards)
        tries = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tries).remote()
        # The reader waits most of the time, and has no core of its own, for there may be but one.
        read = ray.data.read_datasource(datasource(reading), num_cpus=0, override_num_blocks=1)
        done = read.map_batches(
            ShardScorer,
            fn_constructor_args=(replace(work, workers=cores), tries),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=n, max_tasks_in_flight_per_actor=1),
            num_cpus=cores,
            num_gpus=1 if gpu else None,
        )
        try:
            # Without prefetching: a shard that is finished must not wait for the next one before it is entered.
            for batch in done.iter_batches(batch_size=1, prefetch_batches=0):
                yield int(batch["shard"][0]), json.loads(batch["about"][0])
        except ray.exceptions.RayTaskError:
            raise  # a bug in an actor: its traceback says more
        except ray.exceptions.RayError as error:
            words = " ".join(str(error).split())[:300]
            raise DeviceError(f"Ray gave up ({words})") from None


def _resources(ray: Any, gpu: bool) -> tuple[int, int]:
    """How many actors the cluster has room for, and the cores of each: one, or its share of those beside the GPUs."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not gpu:
        return int(sum(node.get("CPU", 0) for node in nodes)), 1
    nodes = [node for node in nodes if node.get("GPU", 0) >= 1]
    cores = min((int(node.get("CPU", 1) // node["GPU"]) for node in nodes), default=1)
    return int(sum(node["GPU"] for node in nodes)), max(cores, 1)
