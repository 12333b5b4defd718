"""Text packs from tables: trained, stopped and continued, tested."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from text_packs import FORWARD, RETRO, write

from mora_lite.errors import InputError, OutputError, PackError
from mora_lite.text import loop, pipeline
from mora_lite.text.evaluation import answer_metrics, answer_rows, evaluate_text
from mora_lite.text.loop import TextProgress, TextTrainConfig
from mora_lite.text.pack import ADAPTER, load_text_pack, open_text_pack
from mora_lite.text.pipeline import train_text
from mora_lite.text.sequences import load_tokenized_pairs

CPU = torch.device("cpu")


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
    assert "its probability the model's own" in card  # which `generate` prints beside it
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
    answerer = load_text_pack(pack, base=base_path, device="cpu")
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
    assert load_text_pack(pack, base=base_path, device="cpu").model.n_soft > 0


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


def test_another_base_of_the_same_shape_is_another_run(make: Any, base_path: Path, tmp_path: Path) -> None:
    make("pack")
    other = Path(shutil.copytree(base_path, tmp_path / "other"))
    weights = {name: 1.1 * tensor for name, tensor in load_file(other / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="belongs to a run with other settings, data or adapters"):
        make("pack", base=str(other), force=True)


def test_two_tables_of_one_name_are_refused(make: Any, reactions: Path, base_path: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    again = Path(shutil.copy(reactions, tmp_path / "more"))
    with pytest.raises(InputError, match=r"some\.csv: two tables have this name"):
        train_text("forward", [reactions, again], tmp_path / "pack", base=str(base_path))


def test_a_test_table_is_the_whole_test(make: Any, reactions: Path, base_path: Path, tmp_path: Path) -> None:
    """Of a pack that was trained with one no other rows are held out by a rule, so none are taken for it."""
    held = write(tmp_path / "held.csv", ("reactants", "product"), [("CCCCO", "CCCC=O"), ("CCCCCO", "CCCCC=O")])
    pack = make("pack", tests=[held], split=None)
    options: dict[str, Any] = {"base": str(base_path), "device": "cpu"}
    assert evaluate_text(pack, held, **options)["rows"] == 2
    with pytest.raises(InputError, match=r"some\.csv: is not held\.csv, by which pack was tested"):
        evaluate_text(pack, reactions, **options)
    assert evaluate_text(pack, reactions, split="all", **options)["rows"] == 7


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
        load_text_pack(pack, device="cpu", dtype="float32")


def test_several_directions_are_one_pack_that_knows_its_questions(reacting: Path) -> None:
    manifest = open_text_pack(reacting).manifest
    assert manifest["task"] == "ask"
    assert manifest["questions"] == {"forward": FORWARD, "retro": RETRO}
    facts = manifest["provenance"]
    assert facts["rows"] == {"train": 6, "valid": 0, "test": 4}
    assert facts["shares"] == {"forward": pytest.approx(4 / 9), "retro": pytest.approx(5 / 9)}
    assert (facts["test"]["rows"], facts["test"]["rows_forward/both"], facts["test"]["rows_retro/both"]) == (2, 1, 1)


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
        load_text_pack(open_text_pack(path), base=base_path, device="cpu", dtype="float32").model.trained()
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


def test_a_table_of_the_test_that_is_missing_is_told(forward_pack: Path, tmp_path: Path) -> None:
    opened = open_text_pack(forward_pack)
    provenance = {"held_out": "by product", "tests": {"some.csv": "0" * 64}}
    pack = replace(opened, manifest=opened.manifest | {"provenance": provenance})
    with pytest.raises(InputError, match=r"cannot read .*missing\.csv: No such file"):
        evaluate_text(pack, tmp_path / "missing.csv")


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": -1}, {"beams": 0}])
def test_numbers_of_an_evaluation_that_cannot_be_are_told(tmp_path: Path, wrong: dict[str, int]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(InputError, match=f"{name}: got {value}, expected 1 or more"):
        evaluate_text(tmp_path, tmp_path / "some.csv", **wrong)
