"""Tables and questions of the tiny text packs that tests share."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from mora_lite.adapter.lowrank import AdapterConfig
from mora_lite.text.sequences import Prompt

SIZES = AdapterConfig(32, 2, 32, 1, adapted_layers=4, rank=8, alpha=16.0)
PAIRS = [("CO", "C=O"), ("CCO", "CC=O"), ("Cl.c1ccccc1", "Clc1ccccc1"), ("CN", "C#N"), ("CC(C)O", "CC(C)=O")]
PROMPT = Prompt.of_template("In: {}\nOut: ", 0)
OXIDATIONS = [("CO", "C=O"), ("CCO", "CC=O"), ("CN", "C#N"), ("CC(C)O", "CC(C)=O"), ("CCl", "C")]
QUESTIONS = [
    ("CCO", "Carbons?", "two"),
    ("CCO", "Acid?", "no"),
    ("CC(=O)O", "Acid?", "yes"),
    ("CCC", "Carbons?", "three"),
    ("CCC", "Acid?", "no"),
]
AMINATIONS = [("C" * n + "O.N" + "C" * m, "C" * n + "N" + "C" * m) for n in range(1, 15) for m in range(1, 15)]
FORWARD, RETRO = "What is the product?", "What are the reactants?"


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
