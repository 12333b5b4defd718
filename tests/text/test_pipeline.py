"""Text packs from tables: trained, stopped and continued, tested, and what `mora-lite train-text` prints."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rdkit import Chem
from safetensors.torch import load_file

from mora_lite.cli import progress
from mora_lite.errors import InputError, OutputError, PackError
from mora_lite.machine.device import training_dtype
from mora_lite.text import loop, pipeline
from mora_lite.text.evaluation import answer_metrics, answer_rows, evaluate_text
from mora_lite.text.loop import TextProgress, TextTrainConfig
from mora_lite.text.pack import ADAPTER, load_text_pack, open_text_pack
from mora_lite.text.pipeline import train_text
from mora_lite.text.sequences import load_tokenized_pairs

CPU = torch.device("cpu")
PAIRS = [("CO", "C=O"), ("CCO", "CC=O"), ("CN", "C#N"), ("CC(C)O", "CC(C)=O"), ("CCl", "C")]
QUESTIONS = [
    ("CCO", "Carbons?", "two"),
    ("CCO", "Acid?", "no"),
    ("CC(=O)O", "Acid?", "yes"),
    ("CCC", "Carbons?", "three"),
    ("CCC", "Acid?", "no"),
]


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def reactions(tmp_path: Path) -> Path:
    """Five reactions that train; three of them are asked again as the test, with products of their own."""
    rows = [(source, product, "train") for source, product in PAIRS]
    rows += [("CCCO", "CCC=O", "test"), ("CCCN", "CCC#N", "test")]
    return write(tmp_path / "some.csv", ("reactants", "product", "part"), rows)


@pytest.fixture
def make(reactions: Path, base_path: Path, tmp_path: Path) -> Any:
    def make(name: str, steps: int = 6, **options: Any) -> Any:
        common: dict[str, Any] = {"base": str(base_path), "rank": 4, "copies": 2, "split": "part", "device": "cpu"}
        config = TextTrainConfig(steps=steps, peak_lr=5e-3)
        return train_text("forward", [reactions], tmp_path / name, config=config, **common | options)

    return make


def test_a_table_becomes_a_pack_that_says_what_it_is(make: Any, base_path: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    pack = make("pack", on_note=lines.append)
    facts = open_text_pack(pack.path).manifest["provenance"]
    assert lines == ["preparing 7 rows", "rows: 5 train, 0 valid, 2 test", "answering 2 test rows"]
    assert (facts["rows"], facts["held_out"], facts["steps"], facts["seed"]) == (
        {"train": 5, "valid": 0, "test": 2},
        "part",
        6,
        0,
    )
    assert {"exact", "valid", "levenshtein", "bleu", "morgan"} <= set(facts["test"])
    assert facts["test"]["rows"] == 2
    assert set(facts["tables"]) == {"some.csv"}
    assert pack.base["name"] == "tiny-llama"
    assert len(pack.base["sha256"]) == 64
    assert str(tmp_path) not in json.dumps(pack.manifest)  # a path is nobody else's business
    card = (pack.path / "README.md").read_text()
    assert card.startswith('---\nlibrary_name: "mora-lite"\n')
    assert f"| {facts['test']['levenshtein']:.4g} |" in card
    assert "mora-lite generate molecules.csv --pack ./pack" in card
    assert str(tmp_path) not in card


def test_the_figures_are_those_of_the_pack_on_disk(
    make: Any, base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What answered the test rows are the pack's rounded weights, and loaded again it gives the same figures."""
    answered: dict[str, torch.Tensor] = {}

    def look(answerer: Any, *arguments: Any) -> list[list[str]]:
        answered.update({name: weights.clone() for name, weights in answerer.model.trained().items()})
        return answer_rows(answerer, *arguments)

    monkeypatch.setattr(pipeline, "answer_rows", look)
    pack = make("pack", steps=20)
    held = load_file(pack.path / ADAPTER)
    assert all(torch.equal(answered[name], held[name].float()) for name in held)
    answerer = load_text_pack(pack, base=base_path, device=CPU, dtype=training_dtype(CPU))
    data = load_tokenized_pairs(tmp_path / "pack.run" / "sequences.npz")
    rows = np.array([5, 6])
    assert answer_metrics(data, rows, answer_rows(answerer, data, rows)) == pack.manifest["provenance"]["test"]


@pytest.mark.parametrize("variant", ["static", "static-large"])
def test_static_adapters_are_the_baseline(make: Any, variant: str) -> None:
    pack = make("pack", steps=2, adapter=variant)
    sizes = pack.manifest["sizes"]
    assert pack.manifest["adapter"] == "static"
    assert sizes["rank"] == 4 if variant == "static" else sizes["rank"] > 100
    assert pack.manifest["provenance"]["variant"] == variant


def test_modules_and_layers_are_kept_in_the_pack(make: Any) -> None:
    sizes = make("pack", steps=2, target_modules=("ffn", "q"), layers=(0, 2)).manifest["sizes"]
    assert (sizes["places"], list(sizes["layers"]), sizes["adapted_layers"]) == ("qm", [0, 2], 2)


def test_soft_tokens_are_a_kind_of_their_own(make: Any, base_path: Path) -> None:
    pack = make("pack", steps=2, adapter="prompt")
    assert pack.manifest["adapter"] == "prompt"
    assert load_text_pack(pack, base=base_path, device=CPU, dtype=training_dtype(CPU)).model.n_soft > 0


def test_a_run_that_ctrl_c_stopped_ends_with_the_same_weights(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal waits for the end of the step, and a checkpoint is written before it takes effect."""
    straight = make("straight", steps=8)
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_REPORTS", -1.0)

    def press(at: TextProgress) -> None:
        if at.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        make("parts", steps=8, on_progress=press, on_note=lines.append)
    assert "stopped after 3 steps" in lines[-1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    lines.clear()
    # Nothing is prepared again.
    monkeypatch.setattr(pipeline, "tokenize_pairs", None)
    parts = make("parts", steps=8, on_note=lines.append)
    assert any("going on after 3 steps" in line for line in lines)
    one, other = load_file(straight.path / ADAPTER), load_file(parts.path / ADAPTER)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_test_that_is_stopped_leaves_a_pack_without_its_figures(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "answer_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            make("pack", steps=2)
    assert make("other", steps=2, test_rows=0).manifest["provenance"]["test"] == {}
    pack = make("pack", steps=2, force=True, test_rows=1)
    assert pack.manifest["provenance"]["test"]["rows"] == 1
    assert open_text_pack(pack.path).manifest == pack.manifest


def test_a_changed_table_is_another_run(make: Any, reactions: Path) -> None:
    make("pack")
    reactions.write_text(reactions.read_text() + "CCCCO,CCCC=O,train\n")
    with pytest.raises(InputError, match="belongs to a run with other settings, data or adapters"):
        make("pack", force=True)


def test_what_is_there_is_not_replaced_unasked(make: Any, tmp_path: Path) -> None:
    make("pack", steps=2)
    with pytest.raises(OutputError, match="exists; choose another name or use --force"):
        make("pack", steps=2)
    make("pack", steps=2, force=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("precious")
    with pytest.raises(OutputError, match="is not a text pack"):
        make("other", force=True)
    assert not (tmp_path / "other.run").exists()  # told before the work


def test_tables_that_cannot_be_trained_on_are_told(make: Any, reactions: Path, tmp_path: Path, base_path: Path) -> None:
    with pytest.raises(InputError, match="got 'no', but no table has that column"):
        make("pack", split="no")
    reactions.write_text("reactants,product,part\nCO,C=O,test\n")
    with pytest.raises(InputError, match="all are held out"):
        make("pack")
    reactions.unlink()
    with pytest.raises(InputError, match="no such table"):
        make("pack")


def test_a_pack_whose_base_is_a_path_says_how_to_name_it(make: Any) -> None:
    pack = make("pack", steps=2)
    with pytest.raises(PackError, match="say where it is with --base"):
        load_text_pack(pack, device=CPU, dtype=torch.float32)


@pytest.fixture(scope="module")
def asked(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that has learnt five questions by heart. Not to be changed."""
    folder = tmp_path_factory.mktemp("asked")
    table = write(
        folder / "questions.csv", ("smiles", "question", "answer", "part"), [(*q, "train") for q in QUESTIONS]
    )
    train_text(
        "ask",
        [table],
        folder / "pack",
        config=TextTrainConfig(steps=120, peak_lr=5e-3),
        base=str(base_path),
        rank=8,
        copies=1,
        split="part",
        device="cpu",
    )
    return folder / "pack"


def test_each_row_may_have_its_own_question(run: Any, asked: Path, base_path: Path, tmp_path: Path) -> None:
    rows = [(smiles, question) for smiles, question, _ in QUESTIONS]
    table = write(
        tmp_path / "some.csv", ("smiles", "Question"), [*rows, ("C(O)C", "  Acid?\n"), ("CCO", " "), ("x", "Acid?")]
    )
    out = tmp_path / "out.csv"
    options = ["--pack", asked, "--base", base_path, "-o", out, "--max-tokens", 12]
    code, _, err = run("generate", table, *options)
    assert code == 0, err
    assert [row["answer"] for row in read(out)] == [*(answer for *_, answer in QUESTIONS), "no", "", ""]
    assert [row["status"] for row in read(out)] == ["ok"] * 6 + ["no_question", "unparsable"]
    code, _, err = run("generate", table, *options, "--force", "--question", "Acid?")
    assert [row["answer"] for row in read(out)] == ["no", "no", "yes", "no", "no", "no", "no", ""]
    assert "note: the column Question is not used" in err


@pytest.mark.parametrize("options", [[], ["--question", " "]])
def test_a_question_is_needed(run: Any, asked: Path, base_path: Path, tmp_path: Path, options: list[str]) -> None:
    table = write(tmp_path / "some.csv", ("smiles",), [("CCO",)])
    code, _, err = run("generate", table, "--pack", asked, "--base", base_path, *options)
    assert code == 2
    assert "say what to ask with --question, or in a column named question" in err


FORWARD, RETRO = "What is the product?", "What are the reactants?"


@pytest.fixture(scope="module")
def reacting(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that has learnt both ways of three reactions by heart, by their questions. Not to be changed."""
    folder = tmp_path_factory.mktemp("reacting")
    rows = [(source, product, "train") for source, product in PAIRS[:3]]
    rows += [("CCCO", "CCC=O", "test"), ("CCCN", "CCC#N", "test")]
    train_text(
        "forward=4,retro=5",
        [write(folder / "both.csv", ("reactants", "product", "part"), rows)],
        folder / "pack",
        config=TextTrainConfig(steps=150, peak_lr=8e-3),
        base=str(base_path),
        rank=8,
        copies=1,
        split="part",
        device="cpu",
        test_rows=1,
        bits=8,
    )
    return folder / "pack"


def test_several_directions_are_one_pack_that_knows_its_questions(reacting: Path) -> None:
    manifest = open_text_pack(reacting).manifest
    assert manifest["task"] == "ask"
    assert manifest["questions"] == {"forward": FORWARD, "retro": RETRO}
    facts = manifest["provenance"]
    assert facts["rows"] == {"train": 6, "valid": 0, "test": 4}
    assert facts["shares"] == {"forward": pytest.approx(4 / 9), "retro": pytest.approx(5 / 9)}
    assert (facts["test"]["rows"], facts["test"]["rows_forward/both"], facts["test"]["rows_retro/both"]) == (2, 1, 1)


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


def test_training_starts_from_another_pack(make: Any, reacting: Path, base_path: Path, tmp_path: Path) -> None:
    """What a few steps could not teach is there from the start."""
    losses: list[float] = []
    with pytest.raises(InputError, match=r"start: .* has another sizes; train over the same"):
        make("other", start=reacting)
    pack = train_text(
        "forward,retro",
        [reacting.with_name("both.csv")],
        tmp_path / "again",
        config=TextTrainConfig(steps=1, peak_lr=1e-9),
        base=str(base_path),
        split="part",
        device="cpu",
        rank=8,
        copies=1,
        test_rows=0,
        start=reacting,
        on_progress=lambda progress: losses.append(progress.loss),
    )
    assert losses[-1] < 0.5
    before, after = (
        load_text_pack(open_text_pack(path), base=base_path, device=CPU, dtype=torch.float32).model.trained()
        for path in (reacting, tmp_path / "again")
    )
    assert pack.manifest["provenance"]["started_from"] == open_text_pack(reacting).manifest["files"][ADAPTER]["sha256"]
    torch.testing.assert_close(before["c"], after["c"], atol=1e-3, rtol=1e-3)


def test_the_short_checkpoint_goes_on_elsewhere(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the bytes: weights and their average in 16 bits. The optimiser starts anew."""
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_REPORTS", -1.0)

    def press(at: TextProgress) -> None:
        if at.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make("here", steps=8, on_progress=press)
    whole, short = (tmp_path / "here.run" / name for name in ("checkpoint.safetensors", "short.safetensors"))
    assert short.stat().st_size < 0.25 * whole.stat().st_size
    (tmp_path / "there.run").mkdir()
    short.rename(tmp_path / "there.run" / short.name)
    lines: list[str] = []
    pack = make("there", steps=8, on_note=lines.append)
    assert any("going on after 3 steps" in line for line in lines)
    assert pack.manifest["provenance"]["steps"] == 8
    (tmp_path / "elsewhere.run").mkdir()
    (tmp_path / "there.run" / "checkpoint.safetensors").unlink()
    (tmp_path / "there.run" / short.name).rename(tmp_path / "elsewhere.run" / short.name)
    with pytest.raises(InputError, match=r"short.safetensors belongs to a run with other settings"):
        make("elsewhere", steps=9)


def test_a_pack_of_reactions_is_asked_by_the_task_and_its_answers_are_checked(
    run: Any, reacting: Path, base_path: Path, tmp_path: Path
) -> None:
    options = ["--pack", reacting, "--base", base_path, "--max-tokens", 12, "--dtype", "float32", "--force"]
    table, out = write(tmp_path / "in.csv", ("smiles",), [("CO",), ("OCC",), ("x",)]), tmp_path / "out.csv"
    code, _, err = run("generate", table, *options, "-o", out, "--spellings", 2)
    assert code == 0, err
    assert f"note: asked of each row: {FORWARD}" in err
    rows = read(out)
    assert list(rows[0]) == ["smiles", "product", "probability", "balanced", "agreement", "status", "error"]
    assert [row["product"] for row in rows] == ["C=O", "CC=O", ""]
    assert [row["balanced"] for row in rows] == ["true", "true", ""]
    assert all(0.5 < float(row["probability"]) <= 1 for row in rows[:2])
    assert all(float(row["agreement"]) in (0, 0.5, 1) for row in rows[:2])
    back, page = write(tmp_path / "back.csv", ("smiles",), [("C=O",), ("CC=O",)]), tmp_path / "page.html"
    code, _, err = run("generate", back, *options, "-o", out, "--task", "retro", "--report", page)
    assert code == 0, err
    rows = read(out)
    assert [(row["reactants"], row["balanced"], row["round_trip"]) for row in rows] == [
        ("CO", "true", "true"),
        ("CCO", "true", "true"),
    ]
    assert page.read_text().count("<svg") == 4
    code, _, err = run("generate", back, *options, "-o", out, "--task", "reagents")
    assert (code, err.count("\n")) == (2, 1)
    assert "is for ask and forward and retro" in err


def test_each_row_of_reactions_may_go_its_own_way(run: Any, reacting: Path, base_path: Path, tmp_path: Path) -> None:
    rows = [("OC", FORWARD, "x"), ("C=O", RETRO, "y"), ("CO", "Why?", "z")]
    table, out = write(tmp_path / "in.csv", ("smiles", "question", "name"), rows), tmp_path / "out.csv"
    options = ["--pack", reacting, "--base", base_path, "--max-tokens", 12, "--dtype", "float32", "-o", out]
    assert run("generate", table, *options)[0] == 0
    found = read(out)
    assert [row["answer"] for row in found[:2]] == ["C=O", "CO"]
    assert [(row["balanced"], row["round_trip"]) for row in found] == [("true", ""), ("true", "true"), ("", "")]
    assert run("generate", table, *options, "--force", "--short")[0] == 0
    assert list(read(out)[0]) == ["smiles", "question", "name", "answer", "status", "error"]


def test_molecules_come_from_an_sdf_too(run: Any, reacting: Path, base_path: Path, tmp_path: Path) -> None:
    (tmp_path / "in.sdf").write_text(
        "".join(f"{Chem.MolToMolBlock(Chem.MolFromSmiles(s))}$$$$\n" for s in ("CO", "CCO"))
    )
    options = ["--pack", reacting, "--base", base_path, "--max-tokens", 12, "--dtype", "float32"]
    code, _, err = run("generate", tmp_path / "in.sdf", *options)
    assert code == 0, err
    rows = read(tmp_path / "in.answers.csv")
    assert [(row["smiles"], row["product"]) for row in rows] == [("CO", "C=O"), ("CCO", "CC=O")]


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
