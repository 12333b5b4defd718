"""Tables as jobs: their limits, and their end."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

import mora_lite
from mora_lite.errors import InputError
from mora_lite.serve import jobs as jobs_module
from mora_lite.serve.jobs import Jobs
from mora_lite.serve.limits import Limits
from mora_lite.serve.results import View
from mora_lite.serve.worker import BusyError, ModelThread
from mora_lite.tables.library import open_library
from mora_lite.tables.parsed import parse_window


@pytest.fixture(scope="module")
def worker(calibrated_pack_path):
    worker = ModelThread(lambda: mora_lite.load(calibrated_pack_path, device="cpu"), 50)
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture
def make(worker, tmp_path, monkeypatch):
    """Jobs with given limits, in a folder of the test's own."""
    monkeypatch.setattr(jobs_module.tempfile, "tempdir", str(tmp_path))
    made = []

    def make(**limits):
        made.append(Jobs(worker, parse_window, Limits(**limits)))
        return made[-1]

    yield make
    for jobs in made:
        jobs.close()
    assert not list(tmp_path.iterdir()), "nothing stays"


def give(jobs, content, name="a.csv"):
    """A job, and the wait for its end."""
    job = jobs.new(name)
    jobs.upload_path(job).write_bytes(content)
    jobs.start(job).result(60)
    end = time.monotonic() + 60
    while not job.is_over:
        assert time.monotonic() < end
        time.sleep(0.01)
    return job


def test_more_rows_than_the_limit_are_refused(make):
    jobs = make(rows=100)
    assert give(jobs, b"smiles\n" + b"CCO\n" * 100).state == "done"
    job = give(jobs, b"smiles\n" + b"CCO\n" * 101)
    assert job.state == "failed"
    assert "more than 100 rows" in job.error


def test_more_work_than_the_limit_is_refused(make):
    job = give(make(table_seconds=0.0), b"smiles\nCCO\n")
    assert "took more than 0 seconds" in job.error


def test_results_larger_than_the_limit_are_refused(make):
    job = give(make(kept_bytes=64 << 10, upload_bytes=100), b"smiles,text\n" + b"CCO,%s\n" % (b"x" * 1000) * 200)
    assert "the results of a.csv take more than" in job.error


def test_the_oldest_results_go_when_there_is_no_room(make):
    jobs = make(kept_bytes=400 << 10, upload_bytes=200 << 10)
    content = b"smiles,text\n" + b"CCO,%s\n" % (b"x" * 1000) * 60
    first, second = give(jobs, content), give(jobs, content)
    assert jobs.get(first.id)
    third, fourth = give(jobs, content), give(jobs, content)
    left = [job for job in (first, second, third, fourth) if jobs.get(job.id)]
    assert fourth in left
    assert second not in left, "it was asked for before the first was"
    assert sum(job.n_bytes for job in left) < 400 << 10


def test_files_may_go_while_they_are_counted(make, monkeypatch):
    """As the table of a job does that another thread ends."""
    jobs = make()
    job = jobs.new("a.csv")
    for name, content in (("table.csv", b"CCO"), ("results.arrow", b"1234567")):
        (job.folder / name).write_bytes(content)
    gone = job.folder / "table.csv"
    stat = type(gone).stat

    def stat_late(path, **options):
        if path == gone:
            raise FileNotFoundError(path)
        return stat(path, **options)

    monkeypatch.setattr(type(gone), "stat", stat_late)
    assert job.n_bytes == 7
    monkeypatch.undo()
    jobs.remove(job)
    assert job.n_bytes == 0
    assert not job.folder.exists()


def test_results_are_deleted_when_nobody_asks_for_them(make):
    jobs = make(kept_seconds=0.2)
    job = give(jobs, b"smiles\nCCO\n")
    jobs.sweep()
    assert jobs.get(job.id)
    time.sleep(0.3)
    jobs.sweep()
    assert jobs.get(job.id) is None
    assert not job.folder.exists()


def test_a_workbook_that_unpacks_to_too_much_is_refused(make):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b"0" * (3 << 20))
    jobs = make(unpacked_bytes=2 << 20)
    job = jobs.new("bomb.xlsx")
    jobs.upload_path(job).write_bytes(packed.getvalue())
    with pytest.raises(InputError, match="when it is unpacked"):
        jobs.start(job).result(60)


def test_an_error_that_nobody_expected_ends_one_job_only(make, monkeypatch):
    jobs = make()
    monkeypatch.setattr(jobs, "_parse", lambda window: 1 / 0)
    job = give(jobs, b"smiles\nCCO\n")
    assert job.error == "the table could not be read or scored (ZeroDivisionError)"
    monkeypatch.undo()
    assert give(make(), b"smiles\nCCO\n").state == "done"


def test_nobody_waits_while_a_table_is_opened(make, worker, monkeypatch):
    """A workbook of 84 kB can take a minute until its first row."""
    jobs, opened, asked = make(), open_library, threading.Event()

    def open_late(*arguments, **options):
        assert asked.wait(60), "a question was not answered meanwhile"
        return opened(*arguments, **options)

    monkeypatch.setattr(jobs_module, "open_library", open_late)
    with ThreadPoolExecutor(1) as uploads:
        upload = uploads.submit(give, jobs, b"smiles\nCCO\n")
        time.sleep(0.2)
        worker.ask(lambda model: model.tasks).result(30)
        asked.set()
        assert upload.result().state == "done"


def test_tables_share_the_model(make):
    """A short table does not wait for the end of a long one that came before."""
    jobs = make()
    long = jobs.new("long.csv")
    jobs.upload_path(long).write_bytes(b"smiles\n" + b"CCO\n" * 20_000)
    jobs.start(long).result(60)
    assert give(jobs, b"smiles\nCCO\n").state == "done"
    assert not long.is_over
    jobs.remove(long)


def test_a_folder_that_no_server_left_does_not_keep_one_from_starting(make, tmp_path):
    other = tmp_path / f"mora-lite-serve-{10**20}-x"
    other.mkdir()
    make()
    assert other.exists()
    other.rmdir()


@pytest.mark.skipif(not hasattr(psutil.Process, "memory_maps"), reason="psutil lists no mapped files here")
def test_tables_are_deleted_where_no_open_file_can_be(make, monkeypatch):
    """As on Windows, where a file that is mapped into memory stays."""
    remove = jobs_module.shutil.rmtree

    def remove_closed(folder, ignore_errors):
        if not any(entry.path.startswith(str(folder)) for entry in psutil.Process().memory_maps()):
            remove(folder, ignore_errors)

    monkeypatch.setattr(jobs_module.shutil, "rmtree", remove_closed)
    jobs = make()
    first, _ = give(jobs, b"smiles\nCCO\n"), give(jobs, b"smiles\nCCO\n")
    jobs.remove(first)
    assert not first.folder.exists()
    jobs.close()


# --- downloads


def slow_layout(name, smiles):
    """As RDKit takes its time."""
    time.sleep(0.01)
    return f"{name}\n\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n"


def download(jobs, job, form="csv", **view):
    return jobs.download(job, job.results, View(**view), form, slow_layout)


def test_a_short_download_does_not_wait_for_the_end_of_a_long_one(make):
    jobs = make()
    job = give(jobs, b"smiles\n" + b"CCO\n" * 300)
    long, short = download(jobs, job, "sdf"), download(jobs, job)
    assert short.result(60).read_bytes().count(b"\n") == 301
    assert not long.done()
    assert long.result(60).read_bytes().count(b"$$$$") == 300


def test_a_download_that_nobody_waits_for_ends_and_leaves_nothing(make):
    jobs = make()
    job = give(jobs, b"smiles\n" + b"CCO\n" * 500)
    left = download(jobs, job, "sdf")
    time.sleep(0.1)
    assert left.cancel()
    download(jobs, job).result(60).unlink()  # in turns: both have had their last
    download(jobs, job).result(60).unlink()
    assert [path.name for path in job.folder.iterdir()] == ["results.arrow"]


def test_a_download_of_a_table_that_is_deleted_meanwhile_says_so(make):
    jobs = make()
    job = give(jobs, b"smiles\n" + b"CCO\n" * 500)
    writing = download(jobs, job, "sdf")
    jobs.remove(job)
    with pytest.raises(InputError, match="the table was deleted meanwhile"):
        writing.result(60)


def test_a_wrong_view_is_an_error_of_its_own_download(make):
    jobs = make()
    job = give(jobs, b"smiles\nCCO\n")
    with pytest.raises(InputError, match="no column 'none'"):
        download(jobs, job, sort="none").result(60)
    assert download(jobs, job).result(60).exists()


def test_more_downloads_than_the_limit_are_refused(make):
    jobs = make(downloads=2)
    job = give(jobs, b"smiles\n" + b"CCO\n" * 500)
    waiting = [download(jobs, job, "sdf") for _ in range(2)]
    with pytest.raises(BusyError, match="2 tables wait already; try again in a minute"):
        _ = [download(jobs, job, "sdf") for _ in range(2)]  # one of those before may be at work
    jobs.remove(job)
    assert all(one.exception(60) for one in waiting)


# --- limits of all


def test_tables_that_are_sent_at_once_count_before_they_have_come(make):
    jobs = make(kept_bytes=100 << 10, upload_bytes=60 << 10)
    first = jobs.new("a.csv")
    with pytest.raises(BusyError, match="keeps as many results as it may"):
        jobs.new("b.csv")
    jobs.remove(first)
    jobs.new("b.csv")


def test_too_many_waiting_is_said(worker, make):
    started = []
    small = ModelThread(lambda: started.append(1), waiting=2)  # type: ignore[arg-type]
    for _ in range(2):
        small.ask(len)
    with pytest.raises(BusyError, match="2 requests wait already"):
        small.ask(len)
