"""Screening on a Ray cluster: the shards of a run are shared out over actors by Ray Data.

Only the processes differ from the local engine's. An actor loads the model once, takes the number of a shard, reads its
rows from the prepared library, scores them with the same `WindowScorer` and writes the file with the same
`write_shard`; what comes back to the driver is the shard's entry for the manifest. So bytes, manifest and --resume are
those of the local engine, and either engine can finish a run that the other began. The rows never pass through Ray:
each actor sees library and run directory by the same paths as the driver, on a shared file system.

Ray Data has checkpoints of its own (`CheckpointConfig`, beta in 2.60). They are not used: they list the ids of all rows
that a write finished, load that list at the start and delete it at the end, and know neither the settings nor the bytes
of the files. The manifest has one entry for 65,536 rows, a SHA-256 for each file, and both engines read it.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__, errors
from ..errors import DeviceError, InputError, MoraLiteError, OutputError
from ..scoring.engine import WindowScorer
from ..tables.library import Library as PreparedLibrary
from .journal import Journal
from .ray_cluster import Tries, connected, import_ray
from .run_directory import RunDirectory
from .shards import ScreenProgress, to_ipc, write_shard

if TYPE_CHECKING:
    import pyarrow as pa

    from ..tables.library import Library

MAX_TRIES = 4  # of one shard. Ray Data replaces dead actors without end, also where it is the shard that kills them


def check_ray(library: Library | PreparedLibrary) -> PreparedLibrary:
    """Before the work: is Ray here, and can every actor read its own rows? Raises `DeviceError` or `InputError`."""
    import_ray()
    if not isinstance(library, PreparedLibrary):
        raise InputError(
            f"--engine ray: {library.files[0]} is not prepared, and of texts no shard can be read by itself: "
            "run `mora-lite prepare` first and screen what it wrote"
        )
    return library


def score_on_ray(
    work: ShardWork,
    run: RunDirectory,
    library: PreparedLibrary,
    *,
    n_devices: int = 1,
    workers: int | None = None,
    part: tuple[int, int] = (0, 1),
    address: str | None = None,
    on_progress: Callable[[ScreenProgress], None] = lambda progress: None,
) -> ScreenProgress:
    """Score the unfinished shards on the Ray cluster at `address`, or on a local one that ends with this call.

    Shards are entered into the manifest as they come, in any order.

    n_devices: GPUs of this machine, for a local cluster.
    workers: actors, by default one for each GPU, or for each CPU where there are no GPUs.

    Raises what went wrong in an actor, if it is a `MoraLiteError`, and `DeviceError` when Ray gives up.
    """
    progress, started = ScreenProgress(), time.perf_counter()
    todo = [number for number in range(part[0], work.n_shards, part[1]) if number not in run.shards]
    progress.skipped = library.n_rows - sum(map(work.n_rows, todo))
    if todo:
        for number, entry in _finished_shards(work, todo, n_devices, workers, address):
            file = run.file(number)
            if not (file.exists() and file.stat().st_size == entry["bytes"]):
                raise OutputError(
                    f"an actor wrote {file}, and it is not here: the run's directory must be on a file system that all "
                    "machines of the cluster share"
                )
            run.add(number, entry)
            run.journal(number).unlink(missing_ok=True)
            progress.rows += entry["rows"]
            progress.seconds = time.perf_counter() - started
            library.rows_read = progress.skipped + progress.rows
            on_progress(progress)
    if part[1] == 1:
        run.set_rows(library.n_rows)
    progress.seconds = time.perf_counter() - started
    return progress


@dataclass(frozen=True)
class ShardWork:
    """What an actor must know to make any shard; sent to it once.

    run: without its shards, its paths absolute. files: of the library, absolute. tasks: their names.
    """

    run: RunDirectory
    files: tuple[str, ...]
    library_rows: int
    pack: Path
    tasks: tuple[str, ...]
    device: str
    dtype: str
    confidence: float
    schema: pa.Schema

    @property
    def shard_rows(self) -> int:
        """Rows of every shard but the last."""
        return self.run.settings["window_rows"] * self.run.settings["shard_windows"]

    @property
    def n_shards(self) -> int:
        return -(-self.library_rows // self.shard_rows)

    def n_rows(self, number: int) -> int:
        return min(self.shard_rows, self.library_rows - number * self.shard_rows)


class ShardScorer:
    """The work of an actor: the number of a shard in, its entry out. Ray Data makes one for each actor and calls it."""

    def __init__(self, work: ShardWork, tries: Any):
        """tries: handle of the actor `Tries`."""
        self._work, self._tries = work, tries
        self._opened: tuple[WindowScorer, PreparedLibrary] | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Returns the one number in `batch["shard"]` with its `entry` as JSON, or the `kind` and text of an `error`.

        A `MoraLiteError` is a result: as an exception Ray would wrap it, or retry it if it came from `__init__`.
        """
        number = int(batch["shard"][0])
        try:
            entry, kind, error = json.dumps(self._score(number)), "", ""
        except MoraLiteError as caught:
            entry, kind, error = "", type(caught).__name__, str(caught)
        return {"shard": [number], "entry": [entry], "kind": [kind], "error": [error]}

    def _score(self, number: int) -> dict[str, Any]:
        if import_ray().get(self._tries.begin.remote(number)) > MAX_TRIES:
            raise DeviceError(
                f"{MAX_TRIES} actors died at {self._work.run.file(number).name} (out of memory?); what is finished is "
                "kept: use --resume with fewer --workers"
            )
        if self._opened is None:
            self._opened = _open_scorer(self._work), _open_library(self._work)
        scorer, library = self._opened
        settings = self._work.run.settings
        first_row, n_rows = number * self._work.shard_rows, settings["window_rows"]
        journal = Journal(self._work.run.journal(number)).read()
        windows = library.batches(n_rows, first_row + len(journal.kept) * n_rows)
        todo = islice(windows, settings["shard_windows"] - len(journal.kept))
        results = (scorer(to_ipc(window), {}, lambda item: None) for window in todo)
        file = self._work.run.file(number)
        return write_shard(file, results, self._work.schema, settings["format"], journal=journal)


def _open_scorer(work: ShardWork) -> WindowScorer:
    """Load the model, on a machine that must be like the driver's, or the shards would not be of one kind."""
    import torch

    from ..machine.device import choose_device, choose_dtype
    from ..packs.pack import open_pack
    from .models import LoadPack

    settings = work.run.settings
    pack = str(work.pack) if work.pack.is_dir() else settings["pack"]  # a shipped one lies elsewhere on each machine
    here = {
        "mora_lite": __version__,
        "torch": torch.__version__,
        "rdkit": metadata.version("rdkit"),
        "pack_sha256": open_pack(pack).manifest["sha256"],
        "dtype": str(choose_dtype(work.dtype, choose_device(work.device))).removeprefix("torch."),
    }
    for name, value in here.items():
        if value != settings[name].removesuffix(" as asked"):
            raise DeviceError(
                f"machine {platform.node()} of the cluster has {name.replace('_', ' ')} {value}, and the run was begun "
                f"with {settings[name]}: make the machines alike, or leave this one out"
            )
    load = LoadPack(pack, work.dtype, work.tasks, work.confidence)
    model = load(device=work.device, threads=1 if work.device == "cpu" else None)
    return WindowScorer(model, settings["format"])


def _open_library(work: ShardWork) -> PreparedLibrary:
    library = PreparedLibrary(work.files)
    if library.n_rows != work.library_rows:
        raise InputError(
            f"machine {platform.node()} of the cluster sees {library.n_rows:,} rows in {work.files[0]} and the others, "
            f"and the driver {work.library_rows:,}: the library must be on a file system that all machines share"
        )
    return library


def _finished_shards(
    work: ShardWork, todo: list[int], n_devices: int, workers: int | None, address: str | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each shard and its entry, as they are finished."""
    from ..machine.workers import default_workers

    gpu = work.device == "cuda"
    n_local = n_devices if gpu else workers or default_workers()
    with connected(address, n_local, n_local if gpu else 0) as ray:
        available = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 0))
        if not available:
            raise DeviceError(f"the Ray cluster has no {'GPU' if gpu else 'CPU'} for --device {work.device}")
        n = min(workers or available, available, len(todo))
        tries = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tries).remote()
        # One block and one task for a shard: more in a task would come back all at its end.
        shards = ray.data.from_items([{"shard": number} for number in todo], override_num_blocks=len(todo))
        done = shards.map_batches(
            ShardScorer,
            fn_constructor_args=(work, tries),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=n, max_tasks_in_flight_per_actor=1),
            num_cpus=1,
            num_gpus=1 if gpu else None,
        )
        try:
            # Without prefetching: a shard that is finished must not wait for the next one before it is entered.
            for batch in done.iter_batches(batch_size=1, prefetch_batches=0):
                if batch["kind"][0]:
                    raise getattr(errors, batch["kind"][0])(batch["error"][0])
                yield int(batch["shard"][0]), json.loads(batch["entry"][0])
        except ray.exceptions.RayTaskError:
            raise  # a bug in an actor: its traceback says more
        except ray.exceptions.RayError as error:
            words = " ".join(str(error).split())[:300]
            raise DeviceError(f"Ray gave up ({words}); what is finished is kept: --resume goes on") from None
