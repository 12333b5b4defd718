"""Text packs: saved, loaded, damaged; and `mora-lite generate` on one, with a tiny random model that has learnt."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reactions
import torch
from fake_hub import FakeHub
from safetensors.torch import load_file

import mora_lite
from mora_lite.adapter.lowrank import TARGET_MODULES, AdapterConfig
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.smiles import canonical
from mora_lite.errors import CheckpointError, DeviceError, OutputError, PackError
from mora_lite.lm.base import NF4Source
from mora_lite.lm.captured_generation import CapturedGenerator
from mora_lite.lm.decoder import Decoder
from mora_lite.packs.manifest import seal
from mora_lite.publish import push_to_hub
from mora_lite.quant.formats import open_checkpoint
from mora_lite.quant.nf4 import dequantize_nf4, quantize_nf4
from mora_lite.text.loop import TextRun, TextTrainConfig
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
from mora_lite.text.pairs import TextPair
from mora_lite.text.sequences import Batches, Prompt, tokenize_pairs

CPU = torch.device("cpu")
SIZES = AdapterConfig(32, 2, 32, 1, adapted_layers=4, rank=8, alpha=16.0)
PAIRS = [("CO", "C=O"), ("CCO", "CC=O"), ("Cl.c1ccccc1", "Clc1ccccc1"), ("CN", "C#N"), ("CC(C)O", "CC(C)=O")]
EXACT = ["--dtype", "float32"]  # in 16 bits a draw that is nearly between two tokens may turn with the batch
PROMPT = Prompt.of_template("In: {}\nOut: ", 0)


@pytest.fixture(scope="module")
def pack_path(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text pack that has learnt five reactions by heart. Not to be changed."""
    checkpoint = open_checkpoint(base_path)
    tokenizer = checkpoint.tokenizer()
    reactions = [TextPair(source, target, "train", "some") for source, target in PAIRS]
    data = tokenize_pairs(reactions, tokenizer, {}, copies=1)
    torch.manual_seed(0)
    model = TextModel(SIZES, Decoder.from_checkpoint(NF4Source(checkpoint)), "mora")
    batches = Batches(data, np.arange(5), PROMPT.pieces(tokenizer), 64 * 5, seed=0)
    folder = tmp_path_factory.mktemp("text")
    run = TextRun(model, batches, TextTrainConfig(steps=150, peak_lr=5e-3), folder / "run", CPU)
    run.train()
    base = {"name": str(base_path), "sha256": checkpoint.source_sha256}
    save_text_pack(
        folder / "pack", run.load_ema_weights(), task="forward", prompt=PROMPT, base=base, provenance={"seed": 0}
    )
    return folder / "pack"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "some.csv"
    path.write_text("name,smiles\na,CO\nb,C1CC\nc,OCC\nd,\ne,c1ccccc1.Cl\nf,NC\n")
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_pack_comes_back_and_answers_alone_as_in_a_batch(pack_path: Path) -> None:
    opened = open_text_pack(pack_path)
    assert (opened.task, opened.prompt) == ("forward", PROMPT)
    answerer = load_text_pack(opened, device=CPU, dtype=torch.float32)
    sources = [source for source, _ in PAIRS]
    graphs, ids = Featurizer(standardize="none").read_smiles(sources), answerer.ids(sources)
    for beams in (1, 3):
        together = answerer.answer(ids, graphs, beams=beams, max_new_tokens=20)
        assert [canonical(row[0].text) for row in together] == [target for _, target in PAIRS]
        assert all(len(row) == beams for row in together)
        for i in range(len(sources)):
            alone = answerer.answer(ids[i : i + 1], graphs.select([i]), beams=beams, max_new_tokens=20)
            assert [answer.text for answer in alone[0]] == [answer.text for answer in together[i]]


def test_python_asks_in_smiles(pack_path: Path) -> None:
    model = mora_lite.load_text(pack_path, device="cpu", dtype="float32")
    found = model.ask(["OCC", "C1CC", "CO", "", "C" * 300], max_new_tokens=12, beams=3)
    assert [len(answers) for answers in found] == [3, 0, 3, 0, 0]
    assert [answers[0].text for answers in (found[0], found[2])] == ["CC=O", "C=O"]
    assert found[0][0].score >= found[0][1].score
    assert model.ask([]) == []


def test_a_pack_in_8_bits_answers_the_same_from_fewer_bytes(pack_path: Path, tmp_path: Path) -> None:
    whole = load_text_pack(open_text_pack(pack_path), device=CPU, dtype=torch.float32)
    base = open_text_pack(pack_path).base
    save_text_pack(
        tmp_path / "small", whole.model, task="forward", prompt=PROMPT, base=base, provenance={"seed": 0}, bits=8
    )
    small = load_text_pack(open_text_pack(tmp_path / "small"), device=CPU, dtype=torch.float32)
    for name, weight in whole.model.trained().items():
        step = weight.abs().amax(-1, keepdim=True) / 127 if weight.ndim > 1 else weight.abs() / 1000
        assert torch.all((small.model.trained()[name] - weight).abs() <= 0.51 * step + 4e-5), name
    sizes = [(path / ADAPTER).stat().st_size for path in (pack_path, tmp_path / "small")]
    assert sizes[1] < 0.85 * sizes[0]  # half, but for small matrices, which stay in 16 bits
    sources = [source for source, _ in PAIRS]
    answers = [[row[0].text for row in pack.ask(sources, max_new_tokens=12)] for pack in (small, whole)]
    assert answers[0] == answers[1]


def test_a_pack_in_4_bits_is_nf4(pack_path: Path, tmp_path: Path) -> None:
    whole = load_text_pack(open_text_pack(pack_path), device=CPU, dtype=torch.float32)
    path, name, base = tmp_path / "four", "hypernet.head.weight", open_text_pack(pack_path).base
    save_text_pack(path, whole.model, task="forward", prompt=PROMPT, base=base, provenance={}, bits=4)
    four = load_text_pack(open_text_pack(path), device=CPU, dtype=torch.float32).model.trained()
    assert torch.equal(four[name], dequantize_nf4(quantize_nf4(whole.model.trained()[name], double=True)))
    assert (path / ADAPTER).stat().st_size < 0.8 * (pack_path / ADAPTER).stat().st_size
    damaged = load_file(path / ADAPTER)
    damaged[f"{name}.absmax"] = damaged[f"{name}.absmax"][1:]
    with pytest.raises(CheckpointError, match=r"needs .* bytes of codes"):
        from_stored(damaged)


def test_scales_without_their_matrix_are_weights_too_many(pack_path: Path, tmp_path: Path) -> None:
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


def test_recorded_steps_answer_the_same(pack_path: Path) -> None:
    """On a GPU greedy answers come from them; here each step runs by itself."""
    answerer = load_text_pack(open_text_pack(pack_path), device=CPU, dtype=torch.float32)
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
    pack_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answerer = load_text_pack(open_text_pack(pack_path), device=CPU, dtype=torch.float32)
    questions, graphs = answerer.ids(["CO"]), Featurizer(standardize="none").read_smiles(["CO"])
    plain = answerer.answer(questions, graphs, max_new_tokens=12)

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    answerer.captured = CapturedGenerator(answerer.model.decoder)
    monkeypatch.setattr(answerer.captured, "generate_answers", fail)
    assert answerer.answer(questions, graphs, max_new_tokens=12) == plain
    assert "steps cannot be recorded, which is slower: CUDA error: operation not permitted" in caplog.text


def test_where_memory_runs_out_fewer_rows_are_taken(pack_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answerer = load_text_pack(open_text_pack(pack_path), device=CPU, dtype=torch.float32)
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


def test_the_answer_comes_from_the_graph_too(pack_path: Path) -> None:
    """The same text with the graph of another molecule is another question."""
    answerer = load_text_pack(open_text_pack(pack_path), device=CPU, dtype=torch.float32)
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
    loaded = load_text_pack(open_text_pack(tmp_path / "pack"), device=CPU, dtype=torch.float32)
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


def test_a_pack_without_target_modules_is_one_of_ffn_in_the_uppermost_layers(pack_path: Path) -> None:
    """Its manifest and the shapes of its weights are those that packs had then."""
    opened = open_text_pack(pack_path)
    assert not {"places", "layers"} & set(opened.manifest["sizes"])
    sizes = AdapterConfig.from_dict(opened.manifest["sizes"])
    assert (sizes.target_modules, sizes.layers, sizes.adapted_layers) == (("ffn",), (), 4)
    weights = load_file(pack_path / ADAPTER)
    assert weights["c"].shape == (4, 8, 64)
    assert weights["hypernet.head.weight"].shape == (64 * 8, 32)


@pytest.mark.parametrize("damage", ["adapter", "manifest", "gone", "no pack"])
def test_a_damaged_pack_is_refused(pack_path: Path, tmp_path: Path, damage: str) -> None:
    path = Path(shutil.copytree(pack_path, tmp_path / "pack"))
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


def test_another_base_is_refused(pack_path: Path, base_path: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(base_path, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rope_theta": 2.0}))
    with pytest.raises(PackError, match="is not the base model"):
        load_text_pack(open_text_pack(pack_path), base=other, device=CPU, dtype=torch.float32)


def test_a_pack_replaces_only_a_text_pack(pack_path: Path, tmp_path: Path, base_path: Path) -> None:
    model = load_text_pack(open_text_pack(pack_path), device=CPU, dtype=torch.float32).model
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


def test_generate_writes_a_row_for_each_row(run: Any, pack_path: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    code, stdout, err = run("generate", table, "--pack", pack_path, "-o", out, "--max-tokens", 20)
    assert (code, stdout) == (0, "")
    rows = read(out)
    assert [row["name"] for row in rows] == list("abcdef")
    assert [row["product"] for row in rows] == ["C=O", "", "CC=O", "", "Clc1ccccc1", "C#N"]
    assert [row["status"] for row in rows] == ["ok", "unparsable", "ok", "empty", "ok", "ok"]
    assert "6 rows, 4 ok" in err
    code, _, err = run("generate", table, "--pack", pack_path, "-o", out)
    assert code == 2
    assert "exists" in err


def test_generate_tells_of_a_pack_of_version_1(run: Any, pack_path: Path, table: Path, tmp_path: Path) -> None:
    first = Path(shutil.copytree(pack_path, tmp_path / "first"))
    manifest = json.loads((first / MANIFEST).read_text())
    assert manifest.pop("featurizer")["standardize"] == "none"
    (first / MANIFEST).write_text(seal(manifest))
    for pack, notes in ((first, 1), (pack_path, 0)):
        code, _, err = run("generate", table, "--pack", pack, "-o", tmp_path / "out.csv", "--max-tokens", 4, "--force")
        assert code == 0
        assert err.count("note: this pack reads molecules by graph codes of version 1") == notes


def test_generate_gives_several_answers(run: Any, pack_path: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    code, _, err = run("generate", table, "--pack", pack_path, "-o", out, "--top", 2, "--beams", 8, "--max-tokens", 20)
    assert code == 0, err
    rows = read(out)
    assert list(rows[0]) == [
        *("name", "smiles", "product", "product_2", "probability", "probability_2", "balanced", "balanced_2"),
        *("status", "error"),
    ]
    assert rows[0]["product"] == "C=O"
    for row in rows:
        for answer in (row["product"], row["product_2"]):
            assert not answer or canonical(answer) == answer
        assert not row["product_2"] or row["product_2"] != row["product"]


def test_what_is_drawn_depends_on_seed_and_question_alone(run: Any, pack_path: Path, tmp_path: Path) -> None:
    """Not on the rows beside it, their number or their order: seven rows at a time, one, and another table."""
    sources = ["CO", "OCC", "c1ccccc1.Cl", "CN", "CC(C)O", "CCN", "CS", "CCl", "C"]
    table, other = tmp_path / "some.csv", tmp_path / "other.csv"
    table.write_text("smiles\n" + "".join(f"{source}\n" for source in sources))
    other.write_text("smiles\n" + "".join(f"{source}\n" for source in sources[:3:-1]))

    def answers(table: Path, *options: object) -> dict[str, str]:
        out = tmp_path / "out.csv"
        code, _, err = run(
            "generate", table, "--pack", pack_path, "-o", out, "--force", "--max-tokens", 12, *options, *EXACT
        )
        assert code == 0, err
        return {row["smiles"]: row["product"] + row["error"] for row in read(out)}

    drawn = answers(table, "--temperature", 1.5, "--seed", 5, "--batch-size", 7)
    assert answers(table, "--temperature", 1.5, "--seed", 5, "--batch-size", 1) == drawn
    assert answers(other, "--temperature", 1.5, "--seed", 5) == {source: drawn[source] for source in sources[:3:-1]}
    assert answers(table, "--temperature", 1.5, "--seed", 6) != drawn
    greedy = answers(table)
    assert greedy != drawn
    assert answers(table, "--temperature", 0) == greedy


def test_several_answers_that_are_drawn_differ(
    run: Any, pack_path: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Any text counts: few that a tiny model draws are molecules.
    monkeypatch.setattr("mora_lite.text.stream.canonical", lambda text: text or None)
    out = tmp_path / "out.csv"
    options = ["--pack", pack_path, "-o", out, "--force", "--max-tokens", 12, "--temperature", 2, *EXACT]
    code, _, err = run("generate", table, *options)
    first = [row["product"] for row in read(out)]
    code, _, err = run("generate", table, *options, "--top", 3)
    assert code == 0, err
    several = [[row[name] for name in ("product", "product_2", "product_3") if row[name]] for row in read(out)]
    assert max(map(len, several)) == 3
    for own, one in zip(several, first, strict=True):
        assert own[:1] == [one] * bool(one)  # more are drawn where more are wanted; the first stays the first
        assert len(set(own)) == len(own)


def test_answers_that_are_no_molecule_are_a_status(run: Any, pack_path: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "one.csv", tmp_path / "out.csv"
    table.write_text("smiles\nCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC\n" + "C" * 120 + "\n")
    code, _, err = run("generate", table, "--pack", pack_path, "-o", out, "--max-tokens", 1)
    rows = read(out)
    assert rows[1]["status"] == "too_long"
    assert "tokens, more than" in rows[1]["error"]
    assert rows[0]["status"] in ("ok", "no_molecule")
    assert code == (0 if rows[0]["status"] == "ok" else 1), err


def test_a_smiles_that_is_typed_is_answered_on_stdout(run: Any, pack_path: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "out.csv", tmp_path / "page.html"
    table = tmp_path / "one.csv"
    table.write_text("smiles\nCCO.CCN\n")
    options = ["--pack", pack_path, "--max-tokens", 12]
    _, stdout, _ = run("generate", "CCO.CCN", *options, "--report", page)
    assert "CCO" in page.read_text(encoding="utf-8")
    run("generate", table, *options, "-o", out)
    assert list(csv.DictReader(io.StringIO(stdout))) == read(out)
    run("generate", "CCO.CCN", *options, "-o", out, "--force")
    assert out.read_text(encoding="utf-8") == stdout.replace("\r\n", "\n")
    code, stdout, err = run("generate", "missing.csv", *options)
    assert (code, stdout) == (2, "")
    assert "no such file: missing.csv" in err
    code, stdout, _ = run("generate", "C1CC", *options)
    assert code == 1, "no row has an answer"
    assert next(csv.DictReader(io.StringIO(stdout)))["status"] == "unparsable"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "retro"], "got retro"),
        (["--question", "Why?"], "the pack is for forward and takes none"),
        (["--seed", "1"], "only sampled answers"),
        (["--temperature", "1", "--beams", "3"], "got 3 with a temperature; expected one of the two"),
        (["--temperature", "1", "--top-p", "0"], "got 1.0 and 0.0; expected 0 or more, and a share"),
        (["--top", "3", "--beams", "2"], "top: got 3 with 2 beams"),
        (["--base", "nowhere"], "nowhere: neither a path nor a known base model"),
    ],
)
def test_generate_tells_what_is_wrong(run: Any, pack_path: Path, table: Path, options: list[str], message: str) -> None:
    code, stdout, err = run("generate", table, "--pack", pack_path, *options)
    assert (code, stdout) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(p.name for p in table.parent.iterdir()) == ["some.csv"]


def test_the_benchmark_prepares_trains_resumes_and_writes_a_pack(
    base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "".join(f"{'C' * n}O.N{'C' * m},{'C' * n}N{'C' * m}\n" for n in range(1, 15) for m in range(1, 15))
    (tmp_path / "some.csv").write_text("reactants,product\n" + lines)

    def call(*arguments: object) -> list[dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", ["reactions.py", *map(str, arguments), "--base", str(base_path)])
        reactions.main()
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    data = tmp_path / "data.npz"
    made = call("prepare", tmp_path / "some.csv", "--data", data, "--copies", 2)[-1]
    options = [
        "--data",
        data,
        "--folder",
        tmp_path / "run",
        "--tokens",
        640,
        "--rank",
        4,
        "--target-modules",
        "q,k,v,o,ffn",
        "--seconds",
        60,
        "--stop",
        0.01,
    ]
    first = call("train", *options)
    again = call("train", *options, "--votes", 2, "--out", tmp_path / "pack", "--answers", tmp_path / "answers.csv")
    votes = again.pop()
    assert first[-1]["kind"] == again[-1]["kind"] == "result"
    assert (votes["kind"], votes["rows"]) == ("votes", again[-1]["rows"])
    assert 0 < first[-1]["steps"] == again[0]["step"] < again[-1]["steps"]
    assert first[-1]["seconds"] < again[-1]["seconds"]
    assert again[-1]["rows"] == len(read(tmp_path / "answers.csv")) > 0
    assert again[-1]["rows"] + again[-1]["train_rows"] <= made["rows"]
    assert 0 <= again[-1]["exact"] <= 1
    assert open_text_pack(tmp_path / "pack").task == "forward"


def test_a_text_pack_travels_by_the_hub(hub: FakeHub, pack_path: Path, table: Path, tmp_path: Path, run: Any) -> None:
    url = push_to_hub(pack_path, "chemist/forward")
    assert url == f"{hub.endpoint}/chemist/forward"
    pushed = hub.files("chemist/forward")
    assert pushed is not None
    assert set(pushed) == {"text_pack.json", "adapter.safetensors", "README.md"}
    assert "--pack hf:chemist/forward\n" in pushed["README.md"].decode()
    answers = []
    for pack in (str(pack_path), "hf:chemist/forward"):
        out = tmp_path / "out.csv"
        code, _, err = run("generate", table, "--pack", pack, "-o", out, "--force", "--max-tokens", 12)
        assert code == 0, err
        answers.append(read(out))
    assert answers[0] == answers[1]
    assert "is a text pack, which has no ONNX form" in run("export", "hf:chemist/forward", "-o", tmp_path / "onnx")[2]
