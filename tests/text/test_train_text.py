"""`mora-lite train-text` and `evaluate-text`: what they print and refuse, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from text_packs import read, write

from mora_lite.cli import progress
from mora_lite.text import loop
from mora_lite.text.evaluation import evaluate_text
from mora_lite.text.pack import open_text_pack


def test_each_direction_of_a_pack_is_evaluated_by_its_task(reacting: Path, base_path: Path, run: Any) -> None:
    table = reacting.with_name("both.csv")
    options = ["--base", base_path, "--dtype", "float32", "--json"]
    code, stdout, err = run("evaluate-text", reacting, table, *options, "--task", "retro", "--split", "all")
    assert code == 0, err
    figures = json.loads(stdout)["figures"]
    assert (figures["rows"], figures["rows_retro/both"]) == (5, 5)
    assert figures["exact"] >= 0.6  # the three that it knows by heart
    code, stdout, err = run("evaluate-text", reacting, table, *options, "--task", "forward")
    assert (code, json.loads(stdout)["figures"]["rows"]) == (0, 2)  # the test rows
    code, _, err = run("evaluate-text", reacting, table, *options)
    assert (code, err.count("\n")) == (2, 1)
    assert "answers forward and retro; say which with --task" in err


def test_rows_that_are_not_evaluated_are_told(forward_pack: Path, base_path: Path, run: Any, tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("reactants,product\nCO,C=O\nC1CC,CC\nCCO,CC=O\n")
    options = ["--base", base_path, "--split", "all", "--dtype", "float32"]
    code, stdout, err = run("evaluate-text", forward_pack, table, *options)
    assert (code, stdout.splitlines()[2].split()[:2]) == (0, ["2", "1"]), err
    assert "left out: 1 row that cannot be used" in err


def test_the_command_trains_and_prints_the_figures(run: Any, reactions: Path, base_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    options = [
        "--task",
        "forward",
        "--minutes",
        0.02,
        "--rank",
        4,
        "--copies",
        1,
        "--split",
        "part",
        "--base",
        base_path,
    ]
    code, stdout, err = run("train-text", reactions, *options, "-o", out)
    assert code == 0, err
    assert stdout.splitlines()[0] == "forward, test rows"
    assert stdout.splitlines()[1].split()[:3] == ["rows", "exact", "valid"]
    assert stdout.splitlines()[2].split()[0] == "2"
    assert "step" in err
    assert open_text_pack(out).manifest["provenance"]["seconds"] >= 1.2
    code, _, err = run("generate", reactions, "--pack", out, "--base", base_path, "--smiles-column", "reactants")
    assert len(read(tmp_path / "some.answers.csv")) == 7
    code, again, err = run("evaluate-text", out, reactions, "--base", base_path)
    assert (code, again) == (0, stdout), err  # the metrics that training printed
    assert evaluate_text(out, reactions, base=base_path) == open_text_pack(out).manifest["provenance"]["test"]
    code, text, _ = run("evaluate-text", out, reactions, "--base", base_path, "--split", "all", "--limit", 3, "--json")
    assert json.loads(text)["figures"] == evaluate_text(out, reactions, base=base_path, split="all", limit=3)
    assert json.loads(text)["figures"]["rows"] == 3
    assert run("evaluate-text", out, reactions, "--base", base_path, "--split", "valid")[0] == 2
    code, _, err = run("evaluate", out, reactions)
    assert (code, err.strip()) == (2, f"error: {out}: got a text pack, expected one of values; use evaluate-text")
    assert "admet is not a text pack" in run("evaluate-text", "admet", reactions)[2]


@pytest.mark.parametrize(
    ("task", "header", "rows", "column"),
    [
        ("reagents", "reactants,reagents", ["CCO.CC(=O)O,OS(=O)(=O)O", "CCN.CCCl,[Na+].[OH-]"], "reagents"),
        ("describe", "smiles,description", ["CCO,An alcohol.", "CCN,An amine."], "description"),
        ("ask", "smiles,question,answer", ["CCO,Acid?,no", "CC(=O)O,Acid?,yes"], "answer"),
    ],
)
def test_every_task_goes_from_table_to_answers(
    run: Any, base_path: Path, tmp_path: Path, task: str, header: str, rows: list[str], column: str
) -> None:
    table, out = tmp_path / "some.csv", tmp_path / "pack"
    table.write_text(f"{header},part\n{rows[0]},train\n{rows[1]},test\n")
    options = ["--task", task, "--minutes", 0.005, "--rank", 4, "--split", "part", "--base", base_path]
    code, stdout, err = run("train-text", table, *options, "-o", out)
    assert code == 0, err
    assert stdout.startswith(f"{task}, test rows\nrows")
    assert ("valid" in stdout) == (task == "reagents")
    assert ("meteor" in stdout) == (task != "reagents")
    assert column in (out / "README.md").read_text()
    first = header.split(",", maxsplit=1)[0]
    run("generate", table, "--pack", out, "--base", base_path, "--smiles-column", first, "--max-tokens", 4)
    answered = read(tmp_path / "some.answers.csv")
    assert len(answered) == 2
    own = column if column not in header else f"{column} (mora-lite)"
    assert {own, "status", "error"} <= set(answered[0])
    assert {row["status"] for row in answered} <= {"ok", "no_molecule"}


def test_several_tables_have_their_own_rows_of_figures(
    run: Any, reactions: Path, base_path: Path, tmp_path: Path
) -> None:
    other = write(tmp_path / "other.csv", ("reactants", "product", "part"), [("CCCCO", "CCCC=O", "test")])
    options = ["--task", "retro", "--minutes", 0.005, "--rank", 4, "--split", "part", "--base", base_path]
    code, stdout, err = run("train-text", reactions, other, *options, "-o", tmp_path / "pack")
    assert code == 0, err
    assert [line.split()[:2] for line in stdout.splitlines()[2:5]] == [["all", "3"], ["other", "1"], ["some", "2"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "forwards"], "did you mean forward"),
        (["--task", "retro", "--split", "scaffold"], "split: got scaffold"),
        (["--task", "forward,describe"], "got describe among several; only forward, retro, reagents train together"),
        (["--task", "forward=1,retro=x"], "got 'retro=x'; expected a weight above 0, like retro=2"),
        (["--task", "retro", "--bits", "3"], "bits: got 3, expected one of 16, 8, 4"),
        (["--task", "retro", "--test", "none.csv"], "none.csv: no such table"),
        (["--task", "forward,reagents"], "training rows: got none for reagents; leave it out of the task"),
        (["--task", "retro", "--minutes", "0"], "minutes: got 0.0, expected more than 0"),
        (["--task", "retro", "--adapter", "lora"], "adapter: got 'lora', expected mora, static, static-large"),
        (["--task", "retro", "--target-modules", "q,x"], "target_modules: got 'q,x', expected some of q,k,v,o,ffn"),
        (["--task", "retro", "--layers", "2-x"], "--layers: got '2-x'; expected numbers and ranges"),
        (["--task", "retro", "--layers", "2-9"], "adapted layers: got numbers 2, 3, 4, 5, 6, 7, 8, 9, expected 1 to 4"),
    ],
)
def test_impossible_options_are_refused_in_one_line(
    run: Any, reactions: Path, base_path: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    code, stdout, err = run("train-text", reactions, "-o", tmp_path / "pack", "--base", base_path, *options)
    assert (code, stdout) == (2, "")
    assert message in err.strip().splitlines()[-1]
    assert not (tmp_path / "pack").exists()


def test_ctrl_c_ends_the_command_and_the_same_command_goes_on(
    run: Any, reactions: Path, base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train-text", reactions, "--task", "forward", "--split", "part", "--base", base_path, "--rank", 4]
    command += ["--copies", 1, "--minutes", 0.02, "-o", tmp_path / "pack"]
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_REPORTS", -1.0)
    with monkeypatch.context() as patch:
        say = progress.say

        def press(line: str) -> None:
            say(line)
            if line.startswith("step"):
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(progress, "say", press)
        code, stdout, err = run(*command)
    assert (code, stdout) == (130, "")
    *_, note, kept, _, again, end = err.splitlines()
    assert note.startswith("note: stopped after 1 steps")
    assert kept.startswith("stopped: the last checkpoint of training is kept in")
    assert again.split() == ["mora-lite", *map(str, command)]
    assert end == "interrupted"
    assert not (tmp_path / "pack").exists()
    code, stdout, err = run(*command)
    assert code == 0
    assert "note: going on after 1 steps" in err
    assert stdout
