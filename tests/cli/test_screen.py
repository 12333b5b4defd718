"""`mora-lite screen` from outside: the directory it leaves, what it says, exit codes, and that no kill matters."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import csv, parquet

from mora_lite.machine.files import lock
from mora_lite.scoring import parallel
from mora_lite.screening import campaign
from mora_lite.screening.campaign import screen_library

LINES = ["CCO a", "C1CC b", "CCCC c", "", "N d", "CCN e", "C1CCCCC1 f", "xx g", "c1ccccc1 h", "CC i", "O j", "CCC k"]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """14 rows, two of them of a second kind of failure; two shards where screens are small."""
    path = tmp_path / "library.smi"
    path.write_text("\n".join([*LINES, "C#C l", "CO m"]) + "\n")
    return path


@pytest.fixture
def screen(run: Any, calibrated_pack_path: Path, tmp_path: Path) -> Any:
    """Runs the command on the tiny pack; `run` in a temporary folder is its directory."""

    def screen(*arguments: object, output: Path = tmp_path / "run") -> tuple[int, str, str]:
        options = ("--pack", calibrated_pack_path, "--device", "cpu", "--dtype", "float32", "--workers", 1)
        code, out, err = run("screen", *arguments, "-o", output, *options)
        assert out == ""
        return code, out, err

    return screen


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir() if not file.name.startswith(".lock"))


def results(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for pattern in ("part-*", "top.csv") for file in path.glob(pattern)}


# --- in spawned processes, with windows of the true size


def test_a_library_becomes_shards_a_ranked_list_and_a_report(
    screen: Any, library: Path, tmp_path: Path, calibrated_pack_path: Path
) -> None:
    code, _, err = screen(library, "--top", 4, "--by", "size - polarity", "--where", "row < 100 and size > -1000")
    assert code == 2  # `row` is no score
    assert not (tmp_path / "run").exists()
    code, _, err = screen(library, "--top", 4, "--by", "size - polarity", "--where", "size > -1000")
    assert code == 0, err
    assert names(tmp_path / "run") == ["manifest.json", "part-00000.parquet", "report.html", "top.csv"]
    head, *failures = err.splitlines()
    assert head.startswith(f"{tmp_path / 'run'}: 14 rows, 11 ok; 14 in ")
    assert failures == [
        "  2 unparsable; the first is row 2: unclosed ring",
        "  1 empty; the first is row 4: no SMILES in this row",
        f"4 hits (highest size - polarity, where size > -1000) in {tmp_path / 'run' / 'top.csv'}, "
        f"report {tmp_path / 'run' / 'report.html'}",
        f"next: mora-lite explain {tmp_path / 'run' / 'top.csv'} --pack {calibrated_pack_path} "
        f"--task size,polarity,mass -o {tmp_path / 'run' / 'hits.html'}",
    ]
    rows = parquet.read_table(tmp_path / "run" / "part-00000.parquet").to_pandas()
    assert rows["name"].tolist() == ["a", "b", "c", "", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m"]
    good = rows[rows["status"] == "ok"]
    scores = good["size"] - good["polarity [e]"]
    top = csv.read_csv(tmp_path / "run" / "top.csv").to_pandas()
    assert top["rank"].tolist() == [1, 2, 3, 4]
    assert top["row"].tolist() == good["row"][scores.sort_values(ascending=False, kind="stable").index].tolist()[:4]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "highest size - polarity, where size &gt; -1000" in page
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["rows"] == 14
    assert manifest["shards"]["0"]["counts"] == {"empty": 1, "ok": 11, "unparsable": 2}


def test_a_small_library_is_scored_in_this_process_to_the_same_bytes(
    library: Path, calibrated_pack_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one thread as workers are; Python's own number of threads is left as it was."""
    started: list[Any] = []
    start = parallel.WorkerPool._start
    monkeypatch.setattr(parallel.WorkerPool, "_start", lambda pool: started.append(pool._make) or start(pool))
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        # Without workers a process reads the rows alone that native code leaves to RDKit.
        for name, workers, made in (("here", None, "RdkitParser"), ("there", 1, "make_scorer")):
            started.clear()
            screen_library(library, tmp_path / name, pack=str(calibrated_pack_path), device="cpu", workers=workers)
            assert [make.__name__ for make in started] == [made]
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)
    assert results(tmp_path / "here") == results(tmp_path / "there")


def test_a_row_that_takes_too_long_is_a_row(library: Path, calibrated_pack_path: Path, tmp_path: Path) -> None:
    """Spawned processes import this module under a name of its own, where the parser is slow for one molecule."""
    (tmp_path / "slow.py").write_text(
        "import sys, time\nfrom mora_lite.chem.featurizer import Featurizer\n"
        "from mora_lite.scoring import parallel\n"
        "make_scorer, parse = parallel.make_scorer, Featurizer.parse_molecule\n"
        "def parse_slowly(self, text):\n    time.sleep(3600 if text == 'CCN' else 0)\n    return parse(self, text)\n"
        "def make(*arguments):\n    Featurizer.parse_molecule, Featurizer.is_native = parse_slowly, False\n"
        "    return make_scorer(*arguments)\n"
        "def main():\n    from mora_lite.cli.app import main\n    parallel.make_scorer = make\n"
        "    sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", "import slow; slow.main()", "screen", library, "-o", tmp_path / "run"]
    done = subprocess.run(
        [*command, "--pack", calibrated_pack_path, "--device", "cpu", "--workers", "1", "--time-limit", "2"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "1 timeout; the first is row 6: parsing took longer than the time limit" in done.stderr
    status = parquet.read_table(tmp_path / "run" / "part-00000.parquet")["status"].to_pylist()
    assert status[5] == "timeout"
    assert status.count("ok") == 10


# --- small, in this process


@pytest.mark.usefixtures("small_screens")
def test_resume_begins_goes_on_and_ranks_anew(screen: Any, library: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert screen(library, "--resume", "--tasks", "size")[0] == 0
    wanted = results(path)
    assert sorted(wanted) == ["part-00000.parquet", "part-00001.parquet", "top.csv"]
    code, _, err = screen(library, "--tasks", "size")
    assert code == 2
    assert "holds a run already: --resume to go on with it, --force to replace it" in err
    (path / "part-00001.parquet").write_bytes(b"damaged")
    (path / ".part-00001.parquet.00ff.part").touch()
    code, _, err = screen(library, "--resume", "--tasks", "size")
    assert code == 0
    assert err.startswith("note: part-00001.parquet is not what it was: it is made again\n")
    assert "14 rows, 11 ok, 12 rows kept from before; 2 in " in err
    assert results(path) == wanted
    assert names(path) == ["manifest.json", "part-00000.parquet", "part-00001.parquet", "report.html", "top.csv"]
    assert screen(library, "--resume", "--tasks", "size", "--top", 3, "--ascending", "--where", "size < 1e9")[0] == 0
    top = csv.read_csv(path / "top.csv")
    assert top.num_rows == 3
    assert top["size"].to_pylist() == sorted(top["size"].to_pylist())
    assert screen(library, "--force", "--tasks", "mass", "--format", "csv")[0] == 0
    assert names(path) == ["manifest.json", "part-00000.csv", "part-00001.csv", "report.html", "top.csv"]


@pytest.mark.usefixtures("small_screens")
def test_parts_are_merged_by_resume(screen: Any, library: Path, tmp_path: Path) -> None:
    assert screen(library, output=tmp_path / "whole")[0] == 0
    for shard in ("1/2", "2/2"):
        code, _, err = screen(library, "--shard", shard)
        assert code == 0
        assert "--resume without --shard makes top.csv" in err
        assert not (tmp_path / "run" / "top.csv").exists()
    assert screen(library, "--resume")[0] == 0
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    assert screen(library, "--shard", "3/2")[0] == 2


@pytest.mark.usefixtures("small_screens")
@pytest.mark.parametrize("text", ["xx\nyy\n", "C1CC\n"])
def test_nothing_but_failures_is_exit_code_1(screen: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "a.smi").write_text(text)
    assert screen(tmp_path / "a.smi")[0] == 1
    assert csv.read_csv(tmp_path / "run" / "top.csv").num_rows == 0


@pytest.mark.usefixtures("small_screens")
def test_a_library_without_rows_is_no_failure(screen: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,smiles\n")
    code, _, err = screen(tmp_path / "a.csv")
    assert code == 0
    assert ": 0 rows, 0 ok; 0 in " in err
    assert names(tmp_path / "run") == ["manifest.json", "report.html", "top.csv"]


@pytest.mark.usefixtures("small_screens")
def test_wrong_use_is_one_line_before_the_work(screen: Any, library: Path, tmp_path: Path) -> None:
    for arguments, words in [
        ([library, "--where", "size >"], "--where|expression"),
        ([library, "--where", "size + 1"], "condition"),
        ([library, "--by", "siez"], "did you mean size"),
        ([library, "--by", "size > 1"], "--by"),
        ([library, "--format", "xlsx"], "expected parquet or csv"),
        ([library, "--tasks", "none"], "none"),
        ([library, "--shard", "0/2"], "--shard"),
        ([library, "--top", "0"], "got '0'|0 is not in the range"),
        ([library, "--confidence", "1"], "confidence"),
        ([library, "--resume", "--force"], "give one of the two"),
        ([tmp_path / "none.smi"], "no such file"),
        ([tmp_path / "*.sdf"], "no file matches"),
    ]:
        code, _, err = screen(*arguments)
        assert code == 2, arguments
        assert any(word in err for word in words.split("|")), err
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        assert not (tmp_path / "run").exists() or not results(tmp_path / "run")
    for place in (library, library / "run"):
        code, _, err = screen(library, output=place)
        assert code == 2
        assert err.startswith(f"error: cannot write in {place}: ")


@pytest.mark.usefixtures("small_screens")
def test_changed_input_or_a_run_beside_is_told(screen: Any, library: Path, tmp_path: Path) -> None:
    assert screen(library)[0] == 0
    before = results(tmp_path / "run")
    library.write_text(library.read_text() + "CCO\n")
    code, _, err = screen(library, "--resume")
    assert code == 2
    assert 'begun with inputs {"file": "library.smi"' in err
    assert err.count("\n") == 1
    with lock(tmp_path / "run"):
        code, _, err = screen(library, "--force")
    assert code == 2
    assert "another run is writing to" in err
    assert results(tmp_path / "run") == before


# --- kills


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As workers have."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
@pytest.mark.usefixtures("small_screens", "one_thread")
def test_a_run_that_is_killed_ends_in_the_same_bytes(
    screen: Any, tmp_path: Path, calibrated_pack_path: Path, molecules: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when so many shards are there, and a little later; so that it does not matter how fast the machine is.

    `benchmarks/kill_resume.py` does the same more often.
    """
    library = tmp_path / "library.smi"
    library.write_text("".join(f"{molecules[i % 60]} m{i}\n" for i in range(2000)))
    monkeypatch.setattr(parallel, "CPU_WINDOW_ROWS", 50)
    monkeypatch.setattr(campaign, "SHARD_ROWS", 150)
    assert screen(library, output=tmp_path / "whole")[0] == 0
    wanted = results(tmp_path / "whole")
    assert len(wanted) == 15  # 14 shards of 3 windows, and top.csv
    driver = (
        "import sys\nfrom mora_lite.scoring import parallel\nfrom mora_lite.screening import campaign\n"
        "parallel.CPU_WINDOW_ROWS, campaign.SHARD_ROWS = 50, 150\n"
        "from mora_lite.cli.app import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", driver, "screen", library, "-o", tmp_path / "killed", "--resume"]
    options = ["--pack", calibrated_pack_path, "--device", "cpu", "--dtype", "float32", "--workers", "1"]
    chance = random.Random(0)
    for n_shards in (0, 2, 6):
        process = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            while process.poll() is None and len(list((tmp_path / "killed").glob("part-*"))) < n_shards:
                time.sleep(0.01)
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, 0.3))
        finally:
            with suppress(ProcessLookupError):  # it may have ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert results(tmp_path / "killed").items() <= wanted.items()
    assert screen(library, "--resume", output=tmp_path / "killed")[0] == 0
    assert results(tmp_path / "killed") == wanted
    assert names(tmp_path / "killed") == names(tmp_path / "whole")
