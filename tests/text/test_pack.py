"""Text packs: saved, loaded, damaged, and carried by the hub, with a tiny random model that has learnt."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import torch
from fake_hub import FakeHub
from safetensors.torch import load_file
from text_packs import PAIRS, PROMPT, SIZES, read

import mora_lite
from mora_lite.adapter.lowrank import TARGET_MODULES, AdapterConfig
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.smiles import canonical
from mora_lite.errors import CheckpointError, DeviceError, OutputError, PackError
from mora_lite.lm.base import NF4Source
from mora_lite.lm.captured_generation import CapturedGenerator
from mora_lite.lm.decoder import Decoder
from mora_lite.machine.files import file_entry, write_tensors
from mora_lite.packs.manifest import seal
from mora_lite.publish import push_to_hub
from mora_lite.quant.formats import open_checkpoint
from mora_lite.quant.nf4 import dequantize_nf4, quantize_nf4
from mora_lite.text.model import TextModel
from mora_lite.text.pack import (
    ADAPTER,
    MANIFEST,
    from_stored,
    load_text_pack,
    open_text_pack,
    save_text_pack,
    to_stored,
)

CPU = torch.device("cpu")


def test_a_pack_comes_back_and_answers_alone_as_in_a_batch(forward_pack: Path) -> None:
    opened = open_text_pack(forward_pack)
    assert (opened.task, opened.prompt) == ("forward", PROMPT)
    answerer = load_text_pack(opened, device="cpu", dtype="float32")
    sources = [source for source, _ in PAIRS]
    graphs, ids = Featurizer(standardize="none").read_smiles(sources), answerer.ids(sources)
    for beams in (1, 3):
        together = answerer.answer(ids, graphs, beams=beams, max_new_tokens=20)
        assert [canonical(row[0].text) for row in together] == [target for _, target in PAIRS]
        assert all(len(row) == beams for row in together)
        for i in range(len(sources)):
            alone = answerer.answer(ids[i : i + 1], graphs.select([i]), beams=beams, max_new_tokens=20)
            assert [answer.text for answer in alone[0]] == [answer.text for answer in together[i]]


def test_python_asks_in_smiles(forward_pack: Path) -> None:
    model = mora_lite.load_text(forward_pack, device="cpu", dtype="float32")
    found = model.generate(["OCC", "C1CC", "CO", "", "C" * 300], max_new_tokens=12, beams=3, top=3)
    assert [bool(row.answers) for row in found] == [True, False, True, False, False]
    assert [row.answers[0] for row in (found[0], found[2])] == ["CC=O", "C=O"]
    assert found[0].probabilities == sorted(found[0].probabilities, reverse=True)
    assert model.generate([]) == []


def test_of_a_table_of_pandas_the_reactions_are_asked_about(forward_pack: Path) -> None:
    model = mora_lite.load_text(forward_pack, device="cpu", dtype="float32")
    table = pd.DataFrame({"id": ["a"], "expected": ["CC=O"], "rxn": ["CCO>O>CC=O"]})
    assert [row.source for row in model.generate(table)] == ["CCO.O"]
    assert [row.source for row in model.generate(table, smiles_column="expected")] == ["CC=O"]


@pytest.mark.parametrize("kind", [pd.DataFrame, pa.table])
def test_the_columns_of_a_table_are_read_as_the_command_reads_them(
    forward_pack: Path, reacting: Path, base_path: Path, kind: Any
) -> None:
    forward = mora_lite.load_text(forward_pack, device="cpu", dtype="float32")
    sides = {"Product SMILES": ["CC=O", "C=O"], "Reactant SMILES": ["CCO", "CO"], "Reagents": ["O", None], "mg": [1, 2]}
    assert [row.source for row in forward.generate(kind(sides))] == ["CCO.O", "CO"]
    assert [row.source for row in forward.generate(kind(sides), smiles_column="Product SMILES")] == ["CC=O", "C=O"]
    both = mora_lite.load_text(reacting, base_path, device="cpu", dtype="float32")
    assert [row.source for row in both.generate(kind(sides), task="retro", beams=1)] == ["CC=O", "C=O"]
    asked = kind({"smiles": ["CC=O", "CCO"], "question": ["What are the reactants?", "What is the product?"]})
    assert [row.direction for row in both.generate(asked, beams=1)] == ["retro", "forward"]


def test_a_pack_in_8_bits_answers_the_same_from_fewer_bytes(forward_pack: Path, tmp_path: Path) -> None:
    whole = load_text_pack(open_text_pack(forward_pack), device="cpu", dtype="float32")
    base = open_text_pack(forward_pack).base
    save_text_pack(
        tmp_path / "small", whole.model, task="forward", prompt=PROMPT, base=base, provenance={"seed": 0}, bits=8
    )
    small = load_text_pack(open_text_pack(tmp_path / "small"), device="cpu", dtype="float32")
    for name, weight in whole.model.trained().items():
        step = weight.abs().amax(-1, keepdim=True) / 127 if weight.ndim > 1 else weight.abs() / 1000
        assert torch.all((small.model.trained()[name] - weight).abs() <= 0.51 * step + 4e-5), name
    sizes = [(path / ADAPTER).stat().st_size for path in (forward_pack, tmp_path / "small")]
    assert sizes[1] < 0.85 * sizes[0]  # half, but for small matrices, which stay in 16 bits
    sources = [source for source, _ in PAIRS]
    graphs, ids = Featurizer(standardize="none").read_smiles(sources), whole.ids(sources)
    answers = [[row[0].text for row in pack.answer(ids, graphs, max_new_tokens=12)] for pack in (small, whole)]
    assert answers[0] == answers[1]


def test_a_pack_in_4_bits_is_nf4(forward_pack: Path, tmp_path: Path) -> None:
    whole = load_text_pack(open_text_pack(forward_pack), device="cpu", dtype="float32")
    path, name, base = tmp_path / "four", "hypernet.head.weight", open_text_pack(forward_pack).base
    save_text_pack(path, whole.model, task="forward", prompt=PROMPT, base=base, provenance={}, bits=4)
    four = load_text_pack(open_text_pack(path), device="cpu", dtype="float32").model.trained()
    assert torch.equal(four[name], dequantize_nf4(quantize_nf4(whole.model.trained()[name], double=True)))
    assert (path / ADAPTER).stat().st_size < 0.8 * (forward_pack / ADAPTER).stat().st_size
    damaged = load_file(path / ADAPTER)
    damaged[f"{name}.absmax"] = damaged[f"{name}.absmax"][1:]
    with pytest.raises(CheckpointError, match=r"needs .* bytes of codes"):
        from_stored(damaged)


def test_scales_without_their_matrix_are_weights_too_many(forward_pack: Path, tmp_path: Path) -> None:
    weights = {"w": torch.randn(64, 64), "b": torch.randn(64)}
    stored = to_stored(weights, 8)
    assert {name: tensor.dtype for name, tensor in stored.items()} == {
        "w": torch.int8,
        "w.scale": torch.float16,
        "b": torch.float16,
    }
    assert from_stored(stored).keys() == weights.keys()
    del stored["w"]
    assert from_stored(stored).keys() == {"w.scale", "b"}


def test_recorded_steps_answer_the_same(forward_pack: Path) -> None:
    """On a GPU greedy answers come from them; here each step runs by itself."""
    answerer = load_text_pack(open_text_pack(forward_pack), device="cpu", dtype="float32")
    questions, graphs = (
        answerer.ids([source for source, _ in PAIRS]),
        Featurizer(standardize="none").read_smiles([source for source, _ in PAIRS]),
    )
    assert answerer.captured is None
    plain = answerer.answer(questions, graphs, max_new_tokens=12)
    answerer.captured = CapturedGenerator(answerer.model.decoder)
    recorded = answerer.answer(questions, graphs, max_new_tokens=12)
    assert [text.text for (text,) in recorded] == [text.text for (text,) in plain]
    assert [text.score for (text,) in recorded] == pytest.approx([text.score for (text,) in plain], abs=1e-5)
    drawn = {"temperature": 5.0, "seeds": list(range(len(PAIRS)))}
    assert answerer.answer(questions, graphs, max_new_tokens=12, **drawn) != plain


def test_where_steps_cannot_be_recorded_they_run_one_by_one(
    forward_pack: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answerer = load_text_pack(open_text_pack(forward_pack), device="cpu", dtype="float32")
    questions, graphs = answerer.ids(["CO"]), Featurizer(standardize="none").read_smiles(["CO"])
    plain = answerer.answer(questions, graphs, max_new_tokens=12)

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    answerer.captured = CapturedGenerator(answerer.model.decoder)
    monkeypatch.setattr(answerer.captured, "generate_answers", fail)
    assert answerer.answer(questions, graphs, max_new_tokens=12) == plain
    assert "steps cannot be recorded, which is slower: CUDA error: operation not permitted" in caplog.text


def test_where_memory_runs_out_fewer_rows_are_taken(forward_pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answerer = load_text_pack(open_text_pack(forward_pack), device="cpu", dtype="float32")
    questions, graphs = (
        answerer.ids([source for source, _ in PAIRS]),
        Featurizer(standardize="none").read_smiles([source for source, _ in PAIRS]),
    )
    plain, whole, taken, most = answerer.answer(questions, graphs, max_new_tokens=12), answerer._answer, [], 2

    def little_memory(ids: Any, *rest: Any) -> Any:
        taken.append(len(ids))
        if len(ids) > most:
            raise torch.OutOfMemoryError("out of memory")
        return whole(ids, *rest)

    monkeypatch.setattr(answerer, "_answer", little_memory)
    assert answerer.answer(questions, graphs, max_new_tokens=12) == plain
    assert taken == [5, 3, 2, 2, 1]
    most = 0
    with pytest.raises(DeviceError, match="one row at a time"):
        answerer.answer(questions, graphs, max_new_tokens=12)


def test_the_answer_comes_from_the_graph_too(forward_pack: Path) -> None:
    """The same text with the graph of another molecule is another question."""
    answerer = load_text_pack(open_text_pack(forward_pack), device="cpu", dtype="float32")
    own, other = (Featurizer(standardize="none").read_smiles([text]) for text in ("CO", "Cl.c1ccccc1"))
    a = answerer.answer(answerer.ids(["CO"]), own, beams=2, max_new_tokens=20)
    b = answerer.answer(answerer.ids(["CO"]), other, beams=2, max_new_tokens=20)
    assert a[0][0].score != pytest.approx(b[0][0].score, abs=1e-3)


WAYS = [
    ("mora", {"target_modules": TARGET_MODULES}),
    ("mora", {"target_modules": ("q", "v"), "layers": (0, 3), "adapted_layers": 2}),
    ("static", {"target_modules": ("o", "ffn")}),
    ("prompt", {}),
]


@pytest.mark.parametrize(("kind", "change"), WAYS)
def test_modules_layers_and_soft_tokens_come_back(
    base_path: Path, tmp_path: Path, kind: str, change: dict[str, Any]
) -> None:
    """And rows in batches of different lengths have the answers that they have alone."""
    checkpoint = open_checkpoint(base_path)
    torch.manual_seed(3)
    sizes = replace(SIZES, **change)
    model = TextModel(sizes, Decoder.from_checkpoint(NF4Source(checkpoint)), kind)
    torch.nn.init.normal_(model.c, std=0.3)
    base = {"name": str(base_path), "sha256": checkpoint.source_sha256}
    save_text_pack(tmp_path / "pack", model, task="forward", prompt=PROMPT, base=base, provenance={})
    loaded = load_text_pack(open_text_pack(tmp_path / "pack"), device="cpu", dtype="float32")
    assert (loaded.model.sizes, loaded.model.kind) == (sizes, kind)
    assert loaded.max_tokens == 128 - loaded.model.n_soft  # soft tokens take room
    for name, tensor in model.trained().items():
        assert torch.equal(loaded.model.trained()[name], tensor.half().float()), name
    sources = [source for source, _ in PAIRS]
    graphs, ids = Featurizer(standardize="none").read_smiles(sources), loaded.ids(sources)
    for beams in (1, 2):
        together = loaded.answer(ids, graphs, beams=beams, max_new_tokens=8)
        for i in range(len(sources)):
            alone = loaded.answer(ids[i : i + 1], graphs.select([i]), beams=beams, max_new_tokens=8)
            assert [answer.text for answer in alone[0]] == [answer.text for answer in together[i]]


def test_a_pack_without_target_modules_is_one_of_ffn_in_the_uppermost_layers(forward_pack: Path) -> None:
    """Its manifest and the shapes of its weights are those that packs had then."""
    opened = open_text_pack(forward_pack)
    assert not {"places", "layers"} & set(opened.manifest["sizes"])
    sizes = AdapterConfig.from_dict(opened.manifest["sizes"])
    assert (sizes.target_modules, sizes.layers, sizes.adapted_layers) == (("ffn",), (), 4)
    weights = load_file(forward_pack / ADAPTER)
    assert weights["c"].shape == (4, 8, 64)
    assert weights["hypernet.head.weight"].shape == (64 * 8, 32)


@pytest.mark.parametrize("damage", ["adapter", "manifest", "gone", "no pack"])
def test_a_damaged_pack_is_refused(forward_pack: Path, tmp_path: Path, damage: str) -> None:
    path = Path(shutil.copytree(forward_pack, tmp_path / "pack"))
    if damage == "adapter":
        content = bytearray((path / ADAPTER).read_bytes())
        content[-1] ^= 1
        (path / ADAPTER).write_bytes(content)
    elif damage == "manifest":
        manifest = json.loads((path / MANIFEST).read_text())
        manifest["sizes"]["rank"] = 4
        (path / MANIFEST).write_text(json.dumps(manifest))
    elif damage == "gone":
        (path / ADAPTER).unlink()
    else:
        (path / MANIFEST).unlink()
    with pytest.raises(PackError, match=r"damaged|not a text pack"):
        open_text_pack(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": None}, r"damaged \(KeyError: 'prompt'\); get the pack again"),
        ({"prompt": {"before": "", "between": "x", "end": "0"}}, r"damaged \(TypeError: end: got str, expected int\)"),
        ({"base": {"name": "x"}}, r"damaged \(KeyError: 'sha256'\)"),
        ({"provenance": None}, r"damaged \(KeyError: 'provenance'\)"),
        ({"questions": {"forward": 3}}, r"damaged \(TypeError: forward: got int, expected str\)"),
        ({"asked": "Acid?"}, r"damaged \(TypeError: asked: got str, expected list\)"),
        ({"task": "fly"}, "a pack for the task 'fly', which this version lacks; update mora-lite"),
        ({"sizes": {"rank": "four"}}, r"does not fit its manifest \(TypeError: .*\); get the pack again"),
        ({"adapter": "wings"}, "adapter: got 'wings', expected mora"),
    ],
)
def test_a_forged_manifest_is_one_line(forward_pack: Path, tmp_path: Path, changes: dict, words: str) -> None:
    """None: without the entry."""
    path = Path(shutil.copytree(forward_pack, tmp_path / "pack"))
    manifest = json.loads((path / MANIFEST).read_text()) | changes
    (path / MANIFEST).write_text(seal({name: entry for name, entry in manifest.items() if entry is not None}))
    with pytest.raises(PackError, match=words) as caught:
        load_text_pack(open_text_pack(path), device="cpu", dtype="float32")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_that_are_no_matrices_are_one_line(forward_pack: Path, tmp_path: Path, bits: int) -> None:
    path = Path(shutil.copytree(forward_pack, tmp_path / "pack"))
    stored = to_stored({name: weight.float() for name, weight in load_file(path / ADAPTER).items()}, bits)
    name = "hypernet.head.weight"
    part = f"{name}.scale" if bits == 8 else f"{name}.absmax"
    write_tensors(path / ADAPTER, stored | {part: stored[part].flatten()[:3]})
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"] = {ADAPTER: file_entry(path / ADAPTER)}
    (path / MANIFEST).write_text(seal(manifest))
    with pytest.raises(PackError, match=r"adapter\.safetensors is damaged.*; get the pack again"):
        load_text_pack(open_text_pack(path), device="cpu", dtype="float32")


def test_another_base_is_refused(forward_pack: Path, base_path: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(base_path, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rope_theta": 2.0}))
    with pytest.raises(PackError, match="is not the base model"):
        load_text_pack(open_text_pack(forward_pack), base=other, device="cpu", dtype="float32")


def test_a_pack_replaces_only_a_text_pack(forward_pack: Path, tmp_path: Path, base_path: Path) -> None:
    model = load_text_pack(open_text_pack(forward_pack), device="cpu", dtype="float32").model
    facts: dict[str, Any] = {"task": "retro", "prompt": PROMPT, "base": {"name": "x", "sha256": "y"}, "provenance": {}}
    path = tmp_path / "pack"
    save_text_pack(path, model, **facts)
    with pytest.raises(OutputError, match="exists"):
        save_text_pack(path, model, **facts)
    save_text_pack(path, model, **facts, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pack"]  # no parts are left
    (path / MANIFEST).unlink()
    with pytest.raises(OutputError, match="not a text pack"):
        save_text_pack(path, model, **facts, force=True)


def test_a_text_pack_travels_by_the_hub(
    hub: FakeHub, forward_pack: Path, table: Path, tmp_path: Path, run: Any
) -> None:
    url = push_to_hub(forward_pack, "chemist/forward")
    assert url == f"{hub.endpoint}/chemist/forward"
    pushed = hub.files("chemist/forward")
    assert pushed is not None
    assert set(pushed) == {"text_pack.json", "adapter.safetensors", "README.md"}
    assert "--pack hf:chemist/forward\n" in pushed["README.md"].decode()
    answers = []
    for pack in (str(forward_pack), "hf:chemist/forward"):
        out = tmp_path / "out.csv"
        code, _, err = run("generate", table, "--pack", pack, "-o", out, "--force", "--max-tokens", 12)
        assert code == 0, err
        answers.append(read(out))
    assert answers[0] == answers[1]
    assert "is a text pack, which has no ONNX form" in run("export", "hf:chemist/forward", "-o", tmp_path / "onnx")[2]
