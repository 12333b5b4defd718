"""A tiny text pack that has learnt a few reactions by heart, both ways and for their reagents.

The words of its questions are short: its base reads 128 tokens, each a letter.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

from mora_lite.hub.packs import TEXT_MANIFEST
from mora_lite.packs.manifest import seal
from mora_lite.text.loop import TextTrainConfig
from mora_lite.text.pipeline import train_text

QUESTIONS = {
    "forward": "Product?",
    "retro": "Reactants?",
    "reagents": "Reagents to {product}?",
}
REACTIONS = [("CO", "O=O", "C=O"), ("CCO", "O=O", "CC=O"), ("Cl.c1ccccc1", "ClCl", "Clc1ccccc1")]


def make_reaction_pack(folder: Path, base: Path, questions: dict[str, str] | None = None, steps: int = 140) -> Path:
    """Train it over the model at `base`; returns the pack's folder. questions: by direction, of `QUESTIONS`."""
    questions = QUESTIONS if questions is None else questions
    table = folder / "reactions.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("smiles", "question", "answer", "part"))
        for reactants, reagents, product in REACTIONS:
            asked = {"forward": (reactants, product), "retro": (product, reactants), "reagents": (reactants, reagents)}
            for direction, words in questions.items():
                source, answer = asked[direction]
                writer.writerow((source, words.format(product=product), answer, "train"))
    train_text(
        "ask",
        [table],
        folder / "pack",
        config=TextTrainConfig(steps=steps, peak_lr=5e-3, tokens=576),
        base=str(base),
        rank=8,
        copies=1,
        split="part",
        device="cpu",
    )
    manifest = json.loads((folder / "pack" / TEXT_MANIFEST).read_text())
    manifest["questions"] = questions
    (folder / "pack" / TEXT_MANIFEST).write_text(seal(manifest))
    return folder / "pack"
