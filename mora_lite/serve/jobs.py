"""Tables that people gave: each a job whose number nobody can guess, with files in a temporary folder, and an end."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ..errors import InputError, MoraLiteError
from ..machine.files import temporary_folder
from ..scoring.predictor import Predictor
from ..scoring.stream import AnswerColumns
from ..status import StatusCounts
from ..tables.formats import TableFormat
from ..tables.library import Library, Window, open_library
from ..tables.parsed import ParsedWindow
from ..tables.sdf import with_smiles
from ..tables.source import PARQUET, first_bytes, packing_of
from ..tables.writers import continued
from .limits import Limits
from .results import Results, ResultWriter, View
from .worker import BusyError, ModelThread

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
ENDINGS = (".csv", ".tsv", ".txt", ".smi", ".smiles", ".cxsmiles", ".sdf", ".sd", ".mol", ".xlsx", ".xlsm")
REFUSED = (".xls",)  # but by an error that says what to do
IN_WORDS = {  # options that who reads the page does not have -> what can be done instead
    "choose one with --smiles-column": "call the one to be read smiles",
    "name it with --smiles-column": "call it smiles",
}
STEP_ROWS = 64  # scored at a time; a question that comes meanwhile waits for that
FOLDER = "mora-lite-serve-"


@dataclass
class Job:
    """One table.

    name: of the file, as it is shown. state: waiting, running, done or failed. error: why it failed.
    n_rows: done so far. share: of the file that is read, 0 to 1. counts: rows by status. notes: lines for people.
    is_sent: whether its file is here whole.
    """

    id: str
    name: str
    folder: Path
    state: str = WAITING
    error: str = ""
    n_rows: int = 0
    share: float = 0.0
    counts: StatusCounts = field(default_factory=StatusCounts)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    results: Results | None = None
    touched: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    is_sent: bool = False

    @property
    def is_over(self) -> bool:
        return self.state in (DONE, FAILED)

    @property
    def n_bytes(self) -> int:
        """That its files take. What is worked on may go meanwhile."""
        n = 0
        with suppress(FileNotFoundError):
            for entry in self.folder.iterdir():
                with suppress(FileNotFoundError):
                    n += entry.stat().st_size
        return n


class Jobs:
    """The jobs of a server, and the folder with their files, which goes when the server ends.

    parse: reads a window safely.
    """

    def __init__(self, worker: ModelThread[Predictor], parse: Callable[[Window], ParsedWindow], limits: Limits):
        remove_abandoned()
        self._worker, self._parse, self._limits = worker, parse, limits
        self._folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir=temporary_folder()))
        self._jobs: dict[str, Job] = {}
        self._lock = threading.RLock()
        # One file is opened at a time: a workbook may take hundreds of MiB and a minute.
        self._opening = ThreadPoolExecutor(1, "opening")
        # Nor does anybody wait for the whole download of somebody else: an SDF of many rows takes minutes.
        self._downloads = ModelThread(lambda: None, limits.downloads, name="downloads", sets_threads=False)
        self._downloads.start()

    def new(self, name: str) -> Job:
        """A job without a file; `start` it, or `remove` it. Raises `InputError` for a kind of file that is not read."""
        shown = re.sub(r"[^\w. ()+-]", "_", os.path.basename(name.replace("\\", "/")))[-80:]
        if Path(shown).suffix.lower() not in ENDINGS + REFUSED:
            raise InputError(f"got the file {shown!r}, expected a name that ends in {', '.join(ENDINGS)}")
        with self._lock:
            self._make_room()
            job = Job(secrets.token_urlsafe(16), shown, Path(tempfile.mkdtemp(dir=self._folder)))
            self._jobs[job.id] = job
        return job

    def upload_path(self, job: Job) -> Path:
        """Where the file of the job belongs; its name is ours."""
        return job.folder / f"table{Path(job.name).suffix.lower()}"

    def start(self, job: Job) -> Future[None]:
        """Work on the job's file from now on, once it has been opened, which is when the answer comes.

        The state of the job tells whether it can be read. The answer raises `BusyError`, or `InputError` for a file
        that is not taken.
        """
        job.is_sent = True
        return self._opening.submit(self._open, job)

    def _open(self, job: Job) -> None:
        path = self.upload_path(job)
        self._check(path)
        try:
            library = open_library([path], cells=True)
        except Exception as error:
            self._fail(job, error)
            path.unlink(missing_ok=True)
            return
        try:
            self._worker.work_on(lambda model: self._steps(job, model, library))
        except BusyError:
            library.close()
            raise

    def get(self, number: str) -> Job | None:
        """The job, if it is there still; it is kept longer for being asked for."""
        job = self._jobs.get(number)
        if job is not None:
            job.touched = time.monotonic()
        return job

    def remove(self, job: Job) -> None:
        """Stop the job, and delete what there is of it."""
        job.cancelled, job.results = True, None  # Windows deletes no file that is mapped into memory
        with self._lock:
            self._jobs.pop(job.id, None)
        if job.state != RUNNING:  # else the thread that works on it
            shutil.rmtree(job.folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove jobs that nobody has asked for in a long time."""
        oldest = time.monotonic() - self._limits.kept_seconds
        for job in list(self._jobs.values()):
            if job.touched < oldest:
                self.remove(job)

    def close(self) -> None:
        """Delete all files."""
        self._opening.shutdown(wait=False, cancel_futures=True)
        self._downloads.stop()
        for job in list(self._jobs.values()):
            self.remove(job)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __len__(self) -> int:
        return len(self._jobs)

    def _make_room(self) -> None:
        """Remove the oldest results while all take more than the limit. Raises `BusyError` where that is not enough."""
        self.sweep()
        most = self._limits.upload_bytes  # also of a file that is on its way
        used = {job.id: job.n_bytes if job.is_sent else most for job in list(self._jobs.values())}
        for job in sorted((job for job in list(self._jobs.values()) if job.is_over), key=lambda job: job.touched):
            if sum(used.values()) + most <= self._limits.kept_bytes:
                break
            used.pop(job.id, None)
            self.remove(job)
        if sum(used.values()) + most > self._limits.kept_bytes:
            raise BusyError("the server keeps as many results as it may; try again later, or delete some")
        if len(self._jobs) >= self._limits.waiting:
            over = [job for job in list(self._jobs.values()) if job.is_over]
            if not over:
                raise BusyError(f"{self._limits.waiting} tables wait already; try again in a minute")
            self.remove(min(over, key=lambda job: job.touched))

    def _check(self, path: Path) -> None:
        start = first_bytes(str(path))
        if kind := "Parquet" if start == PARQUET else packing_of(start):
            raise InputError(
                f"got a {kind} file, expected plain text, SDF or .xlsx; unpack it, or use mora-lite predict"
            )
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > self._limits.unpacked_bytes:
                raise InputError(
                    f"the workbook has {unpacked >> 20:,} MiB when it is unpacked, and at most "
                    f"{self._limits.unpacked_bytes >> 20:,} are read; save it as CSV, or use mora-lite predict"
                )

    def _steps(self, job: Job, model: Predictor, library: Library) -> Iterator[None]:
        """The work on a job, some rows at a time. What goes wrong becomes its state."""
        try:
            with library:
                if job.cancelled:
                    return
                job.state = RUNNING
                yield from self._score(job, model, library)
            job.state = DONE if not job.cancelled else FAILED
        except Exception as error:
            self._fail(job, error)
        finally:
            self.upload_path(job).unlink(missing_ok=True)
            if job.cancelled:
                shutil.rmtree(job.folder, ignore_errors=True)

    def _fail(self, job: Job, error: Exception) -> None:
        """Say in the job's state what went wrong. The table of one user is not the end of the server."""
        words = f"the table could not be read or scored ({type(error).__name__})"
        if isinstance(error, MoraLiteError):
            words = str(error).replace(str(self.upload_path(job)), job.name)
            for option, others in IN_WORDS.items():
                words = words.replace(option, others)
        job.state, job.error = FAILED, words

    def _score(self, job: Job, model: Predictor, library: Library) -> Iterator[None]:
        output, answers, form = job.folder / "results.arrow", AnswerColumns(), TableFormat("csv")
        kinds, path, index = answers.kinds(model), str(self.upload_path(job)), library.smiles_index
        job.notes = [note.replace(path, job.name) for note in library.notes]
        with ResultWriter(output, library.columns, kinds) as writer:
            for window in library.windows(STEP_ROWS):
                if not job.n_rows:
                    form = continued("results.csv", library, window.cells)
                started = time.perf_counter()
                parsed = self._parse(window)
                scores = model.score_parsed(parsed)
                values = answers.columns(scores, model.tasks)
                job.counts.count(scores.status, scores.error)
                cells = with_smiles(window.cells, index, window.records, parsed.smiles, scores.status)
                written = writer.write(cells, window.records, parsed.smiles, values, scores.status, scores.error)
                job.seconds += time.perf_counter() - started
                self._count(job, window, library, written)
                yield
                if job.cancelled:
                    return
        job.notes = [note.replace(path, job.name) for note in library.notes]
        job.results = Results.open(output, library.columns, index, model.tasks, kinds, form)

    def _count(self, job: Job, window: Window, library: Library, written: int) -> None:
        """Note what is done. Raises `InputError` where a limit is reached."""
        job.n_rows += len(window.records)
        job.share = library.share_done(job.n_rows) or 0.0
        limits, advice = self._limits, "use mora-lite predict for it, or give it in parts"
        if job.n_rows > limits.rows:
            raise InputError(f"{job.name} has more than {limits.rows:,} rows; {advice}")
        if job.seconds > limits.table_seconds:
            raise InputError(f"{job.name} took more than {limits.table_seconds:,.0f} seconds; {advice}")
        if written > limits.kept_bytes // 2:
            raise InputError(f"the results of {job.name} take more than {limits.kept_bytes >> 21:,} MiB; {advice}")

    def describe(self, job: Job) -> dict[str, Any]:
        """The state of a job in plain types."""
        results = job.results
        return {
            "id": job.id,
            "name": job.name,
            "state": job.state,
            "error": job.error,
            "n_rows": job.n_rows,
            "n_ok": job.counts.n_ok,
            "share": 1.0 if job.state == DONE else round(job.share, 4),
            "seconds": round(job.seconds, 2),
            "failures": {
                status: {"n_rows": n, "first_row": job.counts.first[status][0], "error": job.counts.first[status][1]}
                for status, n in list(job.counts.counts.items())
                if status in job.counts.first
            },
            "notes": job.notes,
            "columns": [] if results is None else results.columns,
            "smiles_index": None if results is None else results.smiles_index,
            "values": [] if results is None else list(results.kinds),
        }

    def download(
        self, job: Job, results: Results, view: View, form: str, lay_out: Callable[[str, str], str]
    ) -> Future[Path]:
        """Write the rows of a finished job as `view` has them, in turns with other downloads. form: csv, xlsx or sdf.

        The answer is the file, which whoever asked deletes; until it comes it may be cancelled. lay_out: as of
        `Results.write`. Raises `BusyError` when too many wait; the answer raises `InputError` for a wrong view, and
        when the job is removed meanwhile.
        """
        path, answer = job.folder / f"download-{secrets.token_hex(4)}.{form}", Future[Path]()

        def steps(_: None) -> Iterator[None]:
            failure: Exception | None = None
            try:
                with closing(results.write(path, results.order(view), lay_out)) as blocks:
                    for _ in blocks:
                        yield
                        if job.cancelled or answer.cancelled():
                            break
            except Exception as error:
                failure = error
            if job.cancelled:
                failure = InputError("the table was deleted meanwhile")
            if not answer.set_running_or_notify_cancel():
                path.unlink(missing_ok=True)
            elif failure is not None:
                answer.set_exception(failure)
            else:
                answer.set_result(path)

        self._downloads.work_on(steps)
        return answer


def remove_abandoned() -> None:
    """Delete the folders of servers that were killed."""
    for folder in temporary_folder().glob(f"{FOLDER}*-*"):
        number = folder.name.removeprefix(FOLDER).split("-")[0]
        is_number = number.isdecimal() and len(number) < 10  # as those of processes are
        if folder.is_dir() and not folder.is_symlink() and is_number and not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)
