"""Tables, and text packs of tiny random models that have learnt something by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from text_packs import OXIDATIONS, PAIRS, PROMPT, QUESTIONS, SIZES, write

from mora_lite.lm.base import NF4Source
from mora_lite.lm.decoder import Decoder
from mora_lite.quant.formats import open_checkpoint
from mora_lite.text.loop import TextRun, TextTrainConfig
from mora_lite.text.model import TextModel
from mora_lite.text.pack import save_text_pack
from mora_lite.text.pairs import TextPair
from mora_lite.text.pipeline import train_text
from mora_lite.text.sequences import Batches, tokenize_pairs

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def forward_pack(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@pytest.fixture
def reactions(tmp_path: Path) -> Path:
    """Five reactions that train; three of them are asked again as the test, with products of their own."""
    rows = [(source, product, "train") for source, product in OXIDATIONS]
    rows += [("CCCO", "CCC=O", "test"), ("CCCN", "CCC#N", "test")]
    return write(tmp_path / "some.csv", ("reactants", "product", "part"), rows)


@pytest.fixture
def make(reactions: Path, base_path: Path, tmp_path: Path) -> Any:
    def make(name: str, steps: int = 6, **options: Any) -> Any:
        common: dict[str, Any] = {"base": str(base_path), "rank": 4, "copies": 2, "split": "part", "device": "cpu"}
        config = TextTrainConfig(steps=steps, peak_lr=5e-3)
        return train_text("forward", [reactions], tmp_path / name, config=config, **common | options)

    return make


def learn(task: str, table: Path, steps: int, peak_lr: float, base_path: Path, **options: Any) -> Path:
    """The pack of a model that learns all training rows of a table by heart, beside the table."""
    config, pack = TextTrainConfig(steps=steps, peak_lr=peak_lr), table.with_name("pack")
    common: dict[str, Any] = {"base": str(base_path), "rank": 8, "copies": 1, "split": "part", "device": "cpu"}
    train_text(task, [table], pack, config=config, **common | options)
    return pack


@pytest.fixture(scope="session")
def asked(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that has learnt five questions by heart. Not to be changed."""
    header, rows = ("smiles", "question", "answer", "part"), [(*question, "train") for question in QUESTIONS]
    table = write(tmp_path_factory.mktemp("asked") / "questions.csv", header, rows)
    return learn("ask", table, 180, 5e-3, base_path)


@pytest.fixture(scope="session")
def reacting(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that has learnt both ways of three reactions by heart, by their questions. Not to be changed."""
    rows = [(source, product, "train") for source, product in OXIDATIONS[:3]]
    rows += [("CCCO", "CCC=O", "test"), ("CCCN", "CCC#N", "test")]
    table = write(tmp_path_factory.mktemp("reacting") / "both.csv", ("reactants", "product", "part"), rows)
    return learn("forward=4,retro=5", table, 150, 8e-3, base_path, test_rows=1, bits=8)
