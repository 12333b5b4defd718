"""What asking in other orders brings, and how sure an answer is: right answers by their agreement and probability.

    python benchmarks/agreement.py uspto500mt_train.csv.gz --where split=valid --rows 1000 --answers FILE
    python benchmarks/agreement.py uspto50k.csv.gz --task retro --where gln_split=test --rows 1000 --answers FILE

Questions about the first N rows of one random order (seed 0), each also in `--spellings` other orders, which vote as in
`generate`: `exact` is what they elect, `exact_alone` what the question gets as it is. With `--answers FILE` each row is
a line of JSON in FILE, and a run that was stopped goes on behind the last one. Shares of right answers are made to rise
with the number of orders that agree (isotonic regression): they are what an agreement is worth. One line of JSON on
stdout; `auc` is the chance that a right answer has more of it than a wrong one.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reactions_pack import MAX_NEW_TOKENS, Row, ask, in_parts, random_questions

from mora_lite import load_text
from mora_lite.chem.smiles import canonical
from mora_lite.text.checks import agreement, elect, in_other_orders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--task", choices=("forward", "retro", "reagents"), default="forward")
    parser.add_argument("--where", metavar="COLUMN=VALUE", help="rows that count")
    parser.add_argument("--pack", default="reactions")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--spellings", type=int, default=8)
    parser.add_argument("--answers", type=Path, help="a file of the answers, continued if it is there")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    rows = random_questions(args.table, args.where, args.task, args.rows)
    answerer = load_text(args.pack, device=args.device).answerer

    def answer(part: Sequence[Row]) -> list[dict[str, Any]]:
        started = time.perf_counter()
        sources, asked, _ = (list(column) for column in zip(*part, strict=True))
        texts = ask(answerer, part, 1, args.batch, {})
        others = in_other_orders(answerer, sources, asked, args.spellings, MAX_NEW_TOKENS, args.batch)
        seconds = (time.perf_counter() - started) / len(part)
        return [
            {"own": [canonical(row[0][0]), math.exp(row[0][1])], "others": of_row, "seconds": seconds}
            for row, of_row in zip(texts, others, strict=True)
        ]

    done = in_parts(rows, answer, 16 if args.answers else len(rows), args.answers)
    counts, probabilities, right, own_right = [], [], [], []
    for record in done:
        own, p = record["own"]
        elected = elect({} if own is None else {own: p}, record["others"])
        best = next(iter(elected), None)
        counts.append(round(agreement(best, record["others"]) * args.spellings) if best else 0)
        probabilities.append(elected.get(best, 0.0))
        right.append(best == record["target"])
        own_right.append(own == record["target"])
    n_of = [counts.count(k) for k in range(args.spellings + 1)]
    right_of = [sum(r for r, c in zip(right, counts, strict=True) if c == k) for k in range(args.spellings + 1)]
    result = {
        "table": args.table.name,
        "rows": len(rows),
        "exact": round(sum(right) / len(rows), 4),
        "exact_alone": round(sum(own_right) / len(rows), 4),
        "won": sum(r and not o for r, o in zip(right, own_right, strict=True)),
        "lost": sum(o and not r for r, o in zip(right, own_right, strict=True)),
        "rows_by_agreement": n_of,
        "right_by_agreement": right_of,
        "worth": [round(share, 3) for share in rising(right_of, n_of)],
        "auc_agreement": auc([float(count) for count in counts], right),
        "auc_probability": auc(probabilities, right),
        "seconds": round(sum(record["seconds"] for record in done), 1),
    }
    print(json.dumps(result))


def rising(right: Sequence[int], rows: Sequence[int]) -> list[float]:
    """Shares `right / rows` made to rise: neighbours that fall are joined. One row right and one wrong are added to
    each, so that few rows prove little.
    """
    blocks: list[list[float]] = []  # right, rows, how many counts
    for r, n in zip(right, rows, strict=True):
        blocks.append([r + 1.0, n + 2.0, 1.0])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] > blocks[-1][0] * blocks[-2][1]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    return [r / n for r, n, width in blocks for _ in range(int(width))]


def auc(values: Sequence[float], right: Sequence[bool]) -> float | None:
    """Chance that a right row has the larger value; ties count half. None where all are right or wrong."""
    good = [value for value, r in zip(values, right, strict=True) if r]
    bad = [value for value, r in zip(values, right, strict=True) if not r]
    if not good or not bad:
        return None
    wins = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
    return round(wins / (len(good) * len(bad)), 4)


if __name__ == "__main__":
    main()
