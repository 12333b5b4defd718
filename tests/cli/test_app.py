"""The program from outside: exit codes, what goes to which stream, and how fast it starts."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from atom_counter import AtomCounter

import mora_lite
from mora_lite.cli import info, tables
from mora_lite.cli.options import split_names
from mora_lite.errors import DeviceError, PackError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "molecules.csv"
SUPPORT = Path(__file__).resolve().parents[1] / "support"
HEAVY = (
    "torch",
    "rdkit",
    "numpy",
    "pandas",
    "pyarrow",
    "transformers",
    "torch_geometric",
    "safetensors",
    "gguf",
)
COMMANDS = (
    "predict",
    "info",
    "evaluate",
    "evaluate-text",
    "train",
    "train-text",
    "pretrain",
    "quantize",
    "pull",
)


@pytest.fixture
def fake_load(monkeypatch):
    """`mora_lite.load` without a pack; the list holds the arguments of every call."""
    calls = []

    def load(pack, **options):
        calls.append((pack, options))
        if pack == "qm8":
            raise PackError("no pack 'qm8': did you mean qm9?\nknown: qm9")
        if options["device"] == "cuda":
            raise DeviceError("device: got 'cuda', but there is no CUDA device here")
        return AtomCounter(("homo", "toxic"), ("Ha", ""), (-1 / 8, 1))

    monkeypatch.setitem(mora_lite.__dict__, "load", load)  # setattr would import torch first
    return calls


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(tmp_path, text="name,smiles\nethanol,CCO\nbad,C1CC\n"):
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8")
    return path


def start(*arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


# --- predict


def test_predict_writes_beside_the_input_and_keeps_stdout_silent(tmp_path, run, fake_load):
    code, out, err = run("predict", table(tmp_path))
    assert (code, out) == (0, "")
    assert (tmp_path / "a.predictions.csv").read_text(encoding="utf-8").splitlines() == [
        "name,smiles,homo [Ha],toxic,status,error",
        "ethanol,CCO,-0.375,3,ok,",
        "bad,C1CC,,,unparsable,unclosed ring",
    ]
    first, second = err.splitlines()
    assert "a.predictions.csv: 2 rows, 1 ok, " in first
    assert "molecules/s" in first
    assert second == "  1 unparsable; the first is row 2: unclosed ring"
    assert fake_load == [("admet", {"device": "auto", "dtype": "auto", "tasks": None, "confidence": 0.9})]


def test_predict_to_stdout_prints_nothing_but_the_table(tmp_path, run, fake_load):
    code, out, _ = run("predict", table(tmp_path), "-o", "-")
    assert code == 0
    header, *rows = csv.reader(io.StringIO(out))
    assert header[-2:] == ["status", "error"]
    assert len(rows) == 2
    assert os.listdir(tmp_path) == ["a.csv"]


def test_predict_reads_standard_input(monkeypatch, run, fake_load):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"smiles\nCCO\n")))
    code, out, _ = run("predict", "-")
    assert code == 0
    assert out.splitlines()[1] == "CCO,-0.375,3,ok,"


def test_options_reach_the_model(tmp_path, run, fake_load):
    options = ["-p", "other", "-t", "a, b,", "--device", "cpu", "--dtype", "float32", "--confidence", "0.5"]
    run("predict", table(tmp_path), *options)
    wanted = {"device": "cpu", "dtype": "float32", "tasks": ["a", "b"], "confidence": 0.5}
    assert fake_load == [("other", wanted)]


def test_a_header_alone_is_no_failure(tmp_path, run, fake_load):
    code, _, err = run("predict", table(tmp_path, "smiles\n"))
    assert code == 0
    assert "0 rows" in err


def test_the_exit_code_is_1_when_no_row_could_be_scored(tmp_path, run, fake_load):
    code, _, err = run("predict", table(tmp_path, "smiles\nxx\n\nC1CC\n"))
    assert code == 1
    assert "0 ok" in err
    assert (tmp_path / "a.predictions.csv").exists()


def test_notices_go_to_stderr(tmp_path, run, fake_load):
    code, _, err = run("predict", table(tmp_path, "CCO\nc1ccccc1\n"))
    assert code == 0
    assert err.startswith("note: ")
    assert "has no header" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.csv"], "no such file: none.csv"),
        (["."], "is a directory"),
        (["empty.csv"], "is empty"),
        (["plain.csv"], "no SMILES column among 'id', 'value'"),
        (["a.csv", "--smiles-column", "smile"], "did you mean smiles?"),
        (["a.csv", "-o", "taken.csv"], "taken.csv exists: use --force"),
        (["a.csv", "-o", "a.csv", "--force"], "is the table being read"),
        (["a.csv", "-o", "none/out.csv"], "no such directory"),
        (["a.csv", "--pack", "qm8"], "did you mean qm9?"),
        (["a.csv", "--device", "cuda"], "no CUDA device"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(in_tmp, run, fake_load, arguments, words):
    table(in_tmp)
    Path("empty.csv").touch()
    Path("plain.csv").write_text("id,value\n1,2\n")
    Path("taken.csv").write_text("precious")
    before = sorted(os.listdir())
    code, out, err = run("predict", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert sorted(os.listdir()) == before
    assert Path("taken.csv").read_text() == "precious"


def test_a_taken_name_is_told_before_the_model_is_loaded(tmp_path, run, fake_load):
    (tmp_path / "a.predictions.csv").touch()
    assert run("predict", table(tmp_path))[0] == 2
    assert fake_load == []


def test_wrong_usage_is_exit_code_2(run):
    assert run("predict")[0] == 2
    assert run("predict", "a.csv", "--batch-size", "0")[0] == 2
    assert run("predikt")[0] == 2


def test_a_bug_keeps_its_traceback(tmp_path, run, monkeypatch):
    def load(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setitem(mora_lite.__dict__, "load", load)  # setattr would import torch first
    with pytest.raises(ZeroDivisionError):
        run("predict", table(tmp_path))


def test_an_interrupt_leaves_nothing_behind(tmp_path, run, fake_load, monkeypatch):
    def score(self, graphs, batch_size=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(AtomCounter, "score_graphs", score)
    code, _, err = run("predict", table(tmp_path))
    assert (code, err) == (130, "interrupted\n")
    assert os.listdir(tmp_path) == ["a.csv"]


# A model that is slow enough to be stopped, in a process of its own.
SLOW = f"""
import sys, time
sys.path.append({str(SUPPORT)!r})
import mora_lite
from atom_counter import AtomCounter
class Model(AtomCounter):
    def score_graphs(self, graphs, batch_size=None):
        if len(graphs) and SLEEP:  # of no molecules only the columns are wanted
            print("scoring", file=sys.stderr, flush=True)
            time.sleep(30)
        return super().score_graphs(graphs)
mora_lite.load = lambda *_, **__: Model()
from mora_lite.cli.app import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_process_leaves_nothing_behind(tmp_path, number, code):
    process = start("-c", SLOW.replace("SLEEP", "True"), "predict", str(table(tmp_path)))
    assert b"scoring\n" in iter(process.stderr.readline, b"")
    assert len(os.listdir(tmp_path)) == 2  # the table and the unfinished part
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert b"Traceback" not in err
    assert os.listdir(tmp_path) == ["a.csv"]


@pytest.mark.skipif(os.name != "posix", reason="pipes are POSIX")
def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    path = table(tmp_path, "smiles\n" + "CCO\n" * 4000)
    process = start("-c", SLOW.replace("SLEEP", "False"), "predict", str(path), "-o", "-")
    assert process.stdout.readline() == b"smiles,atoms,mass [Da],status,error\n"
    process.stdout.close()
    err = process.stderr.read()
    process.wait(timeout=20)
    assert err == b""
    assert process.returncode == 141


# --- the other commands


def test_the_version_is_printed(run):
    assert run("--version") == (0, f"mora-lite {mora_lite.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_in_80_columns(run, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(command, "--help")
    assert code == 0
    assert max(len(line) for line in out.splitlines()) <= 80


def test_info_prints_all_sections(run):
    code, out, _ = run("info")
    assert code == 0
    for word in ["versions", "devices", "packs", "caches", "torch", "rdkit", "cpu"]:
        assert word in out
    code, out, _ = run("info", "--json")
    described = json.loads(out)
    assert set(described) == {"versions", "devices", "packs", "caches"}
    assert "native reader" in described["versions"]["SMILES"]  # is used, or why not
    assert described["packs"]["reactions"]["tasks"] == ["forward", "retro", "reagents"]


def test_nested_facts_fit_in_one_line():
    assert info._show({"": "H100", "gib": 79.1, "flags": ["a", "b"], "x": None}) == "H100, gib 79.1, flags a b, x none"


VALUE = {"unit": "Ha", "mae": 0.0023456, "n": 10}
CLASS = {"roc_auc": 0.9, "n": 10}


def test_figures_are_a_table_of_values_and_one_of_classes(capsys):
    tables.print_evaluation({"homo": VALUE, "toxic": CLASS, "count": {"unit": "", "n": 0, "mae": None}})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["values"], ["task", "mae", "n"], ["homo", "[Ha]", "0.002346", "10"], ["count", "0"],
        ["classes"], ["task", "roc", "auc", "n"], ["toxic", "0.9", "10"],
    ]  # fmt: skip


def test_breakdowns_follow_the_figures_each_under_its_task(capsys):
    rows = [{"scaffold": "c1ccc(C[n+]2ccccc2)cc1", "n": 3}, {"scaffold": "[red]", "n": 1}]
    tables.print_evaluation({"homo": VALUE}, {"homo": {"by_scaffold": rows, "by_domain": []}})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[4:] == [
        ["homo", "[Ha],", "by", "scaffold"], ["scaffold", "n"], ["c1ccc(C[n+]2ccccc2)cc1", "3"], ["[red]", "1"],
    ]  # fmt: skip


def test_a_breakdown_fits_the_terminal_without_losing_a_digit(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    figures = {f"mean_thing_{i}": -123.4567 - i for i in range(4)}
    tables.print_evaluation({"homo": VALUE}, {"homo": {"by_scaffold": [{"scaffold": "C" * 70, **figures}]}})
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    last = lines[-1].split()
    assert last[0].endswith("…")
    assert last[1:] == ["-123.5", "-124.5", "-125.5", "-126.5"]


@pytest.mark.parametrize(
    ("text", "names"), [(None, None), ("", None), (" , ", None), ("a", ["a"]), ("a, b,", ["a", "b"])]
)
def test_lists_of_names_are_split(text, names):
    assert split_names(text) == names


# --- start-up


def test_help_imports_nothing_heavy_and_is_quick():
    code = (
        "import sys\nfrom mora_lite.cli.app import main\nmain(['predict', '--help'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    best = 9.0
    for _ in range(3):
        # Processor time, which a busy machine does not stretch as it does the time on the clock.
        before = os.times()
        out, err = start("-c", code).communicate(timeout=60)
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        best = min(best, spent)
    assert b"--smiles-column" in out
    assert err.strip() == b"[]"
    assert best < 0.5  # seconds


def test_the_package_is_a_program_too():
    out, _ = start("-m", "mora_lite.cli", "--version").communicate(timeout=20)
    assert out.decode().strip() == f"mora-lite {mora_lite.__version__}"


def test_the_bundled_example_has_19_good_rows_and_one_bad(tmp_path, run, fake_load):
    code, _, err = run("predict", EXAMPLE, "-o", tmp_path / "out.csv")
    assert code == 0
    assert "20 rows, 19 ok" in err
    script = EXAMPLE.with_name("show_table.py")
    out, _ = start(str(script), str(tmp_path / "out.csv")).communicate(timeout=20)
    lines = out.decode().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert lines[-1] == "unclosed ring (C1CCO): unparsable, unclosed ring"
