"""Nothing is forgotten: training leaves the base model as it was, and without an adapter that is what answers."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import adapters_off
import numpy as np
import pytest
import torch

from mora_lite.adapter.lowrank import AdapterConfig
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import GraphBatch
from mora_lite.lm.base import NF4Source
from mora_lite.lm.decoder import Decoder
from mora_lite.lm.generation import generate
from mora_lite.lm.perplexity import perplexity, text_perplexity
from mora_lite.quant.formats import open_checkpoint
from mora_lite.text.loop import TextRun, TextTrainConfig
from mora_lite.text.model import TextModel
from mora_lite.text.pack import load_text_pack, open_text_pack, save_text_pack
from mora_lite.text.pairs import TextPair
from mora_lite.text.sequences import Batches, Prompt, tokenize_pairs

CPU = torch.device("cpu")
TEXT = "The base model reads this text, molecule or not: CCO, c1ccccc1."
SIZES = AdapterConfig(32, 1, 32, 1, adapted_layers=4, rank=4, alpha=8.0)
PROMPT = Prompt.of_template("In: {}\nOut: ", 0)


def digest(decoder: Decoder) -> str:
    """SHA-256 of all numbers of a decoder, by name."""
    sha = hashlib.sha256()
    for name, tensor in sorted(decoder.state_dict().items()):
        sha.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return sha.hexdigest()


@pytest.fixture(scope="module")
def base(base_path: Path) -> Decoder:
    """The loaded base alone, in 4 bits."""
    return Decoder.from_checkpoint(NF4Source(open_checkpoint(base_path)))


@pytest.fixture(scope="module")
def ids(base_path: Path) -> torch.Tensor:
    return torch.tensor([open_checkpoint(base_path).tokenizer()(TEXT).input_ids])


@pytest.fixture(scope="module", params=["mora", "static"])
def trained(request: pytest.FixtureRequest, base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text pack after some steps of training; that they left the base alone is asserted here."""
    checkpoint = open_checkpoint(base_path)
    tokenizer = checkpoint.tokenizer()
    reactions = [TextPair(source, target, "train", "some") for source, target in [("CO", "C=O"), ("CN", "C#N")]]
    data = tokenize_pairs(reactions, tokenizer, {}, copies=1)
    torch.manual_seed(0)
    model = TextModel(SIZES, Decoder.from_checkpoint(NF4Source(checkpoint)), request.param)
    before = digest(model.decoder)
    batches = Batches(data, np.arange(2), PROMPT.pieces(tokenizer), 64 * 2, seed=0)
    folder = tmp_path_factory.mktemp("off")
    run = TextRun(model, batches, TextTrainConfig(steps=20, peak_lr=1e-2), folder / "run", CPU)
    run.train()
    finished = run.load_ema_weights()
    assert finished.c.abs().max() > 0, "it has learnt something"
    assert digest(model.decoder) == digest(finished.decoder) == before
    facts = {"name": str(base_path), "sha256": checkpoint.source_sha256}
    save_text_pack(folder / "pack", finished, task="forward", prompt=PROMPT, base=facts, provenance={})
    return folder / "pack"


@pytest.fixture
def model(trained: Path) -> TextModel:
    return load_text_pack(open_text_pack(trained), device="cpu", dtype="float32").model


def graph(smiles: str = "CCO") -> GraphBatch:
    return Featurizer().read_smiles([smiles]).batch()


@torch.no_grad()
def test_without_an_adapter_it_is_the_base_bit_for_bit(model: TextModel, base: Decoder, ids: torch.Tensor) -> None:
    assert digest(model.decoder) == digest(base)
    expected = base.logits(ids)
    on = model.decoder.logits(ids, branch=model.branch(graph(), 1))
    assert not torch.allclose(on, expected, atol=1e-3), "with one it is another model"
    assert torch.equal(model.decoder.logits(ids), expected), "and again the base, after an adapter was on"
    assert generate(model.decoder, ids.tolist(), max_new_tokens=8) == generate(base, ids.tolist(), max_new_tokens=8)


@torch.no_grad()
def test_an_adapter_with_c_at_zero_is_the_base_bit_for_bit(model: TextModel, base: Decoder, ids: torch.Tensor) -> None:
    branch = model.branch(graph(), 1)
    zero = replace(branch, c=torch.zeros_like(branch.c))
    assert torch.equal(model.decoder.logits(ids, branch=zero), base.logits(ids))


def test_perplexity_is_that_of_the_base(model: TextModel, base_path: Path, ids: torch.Tensor) -> None:
    source = NF4Source(open_checkpoint(base_path))
    window = 40
    alone = text_perplexity(source, TEXT, window)
    assert perplexity(model.decoder.logits, ids, window) == alone

    def adapted(piece: torch.Tensor) -> torch.Tensor:
        return model.decoder.logits(piece, branch=model.branch(graph(), 1))

    assert perplexity(adapted, ids, window) != alone


def test_the_benchmark_prints_the_table(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["adapters_off.py", str(trained)])
    adapters_off.main()
    found = json.loads(capsys.readouterr().out)
    assert found["perplexity_base"] == found["perplexity_adapter_off"] == found["perplexity_c_zero"]
    assert found["perplexity_adapter_on"] != found["perplexity_base"]
    assert found["same_tensors"] is found["same_logits"] is True
