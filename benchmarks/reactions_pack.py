"""How many answers of the pack `reactions` are exactly right, on test tables of USPTO.

    python benchmarks/reactions_pack.py uspto500mt_test.csv.gz --task forward --rows 1000
    python benchmarks/reactions_pack.py uspto500mt_test.csv.gz --task reagents --rows 1000
    python benchmarks/reactions_pack.py uspto50k.csv.gz --task retro --where gln_split=test --rows 1000 --beams 10

The rows are the first N of one random order (seed 0). An answer is right if its canonical SMILES is that of the table.
One line of JSON on stdout, with a 95 % interval of the share.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from mora_lite import load_text
from mora_lite.chem.smiles import canonical
from mora_lite.text.pairs import format_question


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--task", choices=("forward", "retro", "reagents"), required=True)
    parser.add_argument("--where", metavar="COLUMN=VALUE", help="rows that count")
    parser.add_argument("--pack", default="reactions")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    rows = random_questions(args.table, args.where, args.task, args.rows)
    answerer = load_text(args.pack, device=args.device)
    ids = answerer.ids([format_question(source, question) for source, question, _ in rows])
    graphs = answerer.featurizer.read_smiles([source for source, _, _ in rows])
    started = time.perf_counter()
    answers = answerer.answer(ids, graphs, beams=args.beams, max_new_tokens=192, batch_size=args.batch)
    seconds = time.perf_counter() - started
    texts = [[canonical(text.text) for text in row] for row in answers]
    exact = sum(row[0] == target for row, (_, _, target) in zip(texts, rows, strict=True)) / len(rows)
    result = {
        "task": args.task,
        "table": args.table.name,
        "rows": len(rows),
        "exact": round(exact, 4),
        "half_width": round(1.96 * math.sqrt(exact * (1 - exact) / len(rows)), 4),
        "valid": round(sum(row[0] is not None for row in texts) / len(rows), 4),
    }
    if args.beams > 1:
        result["any_beam"] = round(
            sum(target in row for row, (_, _, target) in zip(texts, rows, strict=True)) / len(rows), 4
        )
    print(json.dumps({**result, "seconds": round(seconds, 1), "torch": torch.__version__}))


def random_questions(path: Path, where: str | None, task: str, n: int) -> list[tuple[str, str, str]]:
    """The first n `questions` of one random order (seed 0) of the rows. where: as `--where`."""
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        column, _, value = (where or "").partition("=")
        table = [row for row in csv.DictReader(file) if not column or row[column] == value]
    random.Random(0).shuffle(table)
    return list(islice(questions(table, task), n))


def questions(table: list[dict[str, str]], task: str) -> Iterator[tuple[str, str, str]]:
    """Source, question and target of each row, canonical; rows without reagents are no question for them."""
    for row in table:
        product, reactants = canonical(row["product"]), canonical(row["reactants"])
        assert product is not None
        assert reactants is not None
        if task == "forward":
            source = canonical(".".join(filter(None, (row["reactants"], row["reagents"]))))
            assert source is not None
            yield source, "What is the product?", product
        elif task == "retro":
            yield product, "What are the reactants?", reactants
        elif row["reagents"]:
            reagents = canonical(row["reagents"])
            assert reagents is not None
            yield reactants, f"Which reagents turn it into {product}?", reagents


if __name__ == "__main__":
    main()
