"""How many answers of the pack `reactions` are exactly right, on test tables of USPTO.

    python benchmarks/reactions_pack.py uspto500mt_test.csv.gz --task forward --rows 1000
    python benchmarks/reactions_pack.py uspto500mt_test.csv.gz --task reagents --rows 1000
    python benchmarks/reactions_pack.py uspto50k.csv.gz --task retro --where gln_split=test --rows 1000 --beams 10

The rows are the first N of one random order (seed 0). An answer is right if its canonical SMILES is that of the table;
with beams the spellings of an answer share its probability, as in `generate`. With `--answers FILE` each row is a line
of JSON in FILE, and a run that was stopped goes on behind the last one. `--round-trip 3` asks what each of the first
three sets of reactants gives, and puts those that give the product back before the others. `--like FILE` has the greedy
answers of another pack: where each of their tokens is the likeliest for this pack too they are its answers, and only
the other rows are generated. One line of JSON on stdout; intervals are Wilson's, 95 %.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from mora_lite import load_text
from mora_lite.chem.graph import Graphs
from mora_lite.chem.smiles import canonical
from mora_lite.text.answerer import Answerer
from mora_lite.text.checks import greedy
from mora_lite.text.pairs import format_question, reader_of
from mora_lite.text.tasks import QUESTIONS

TOPS = (1, 3, 5, 10)
MAX_NEW_TOKENS = 192
Row = tuple[str, str, str]  # source, question, target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--task", choices=("forward", "retro", "reagents"), required=True)
    parser.add_argument("--where", metavar="COLUMN=VALUE", help="rows that count")
    parser.add_argument("--pack", default="reactions")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--round-trip", type=int, default=0, metavar="N", help="of the first N answers, for retro")
    parser.add_argument("--answers", type=Path, help="a file of the answers, continued if it is there")
    parser.add_argument("--like", type=Path, help="answers of another pack, greedy")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    rows = random_questions(args.table, args.where, args.task, args.rows)
    answerer = load_text(args.pack, device=args.device).answerer
    like = (
        {r["source"]: r["texts"][0] for r in map(json.loads, args.like.read_text().splitlines())} if args.like else {}
    )

    def answer(part: Sequence[Row]) -> list[dict[str, Any]]:
        started = time.perf_counter()
        texts = ask(answerer, part, args.beams, args.batch, like)
        records: list[dict[str, Any]] = [{"texts": row, "answers": merge(row)} for row in texts]
        if args.round_trip:
            back = products(answerer, [record["answers"][: args.round_trip] for record in records], args.batch)
            for record, made in zip(records, back, strict=True):
                record["back"] = made
        return [{**record, "seconds": (time.perf_counter() - started) / len(part)} for record in records]

    # Without a file all rows at once: those of one length share a batch.
    done = in_parts(rows, answer, max(2 * args.batch // args.beams, 32) if args.answers else len(rows), args.answers)
    print(json.dumps(summary(args, rows, done)))


def ask(
    answerer: Answerer, rows: Sequence[Row], beams: int, batch: int, like: dict[str, tuple[str, float]]
) -> list[list[tuple[str, float]]]:
    """The answers of each row with the logarithms of their probabilities, the likeliest first.

    like: greedy answers by source; those that this pack gives too are not generated again.
    """
    ids = answerer.ids([format_question(source, question) for source, question, _ in rows])
    graphs = answerer.featurizer.read_smiles([source for source, _, _ in rows])
    known = [like.get(source) for source, _, _ in rows]
    texts = confirm(answerer, ids, graphs, [text and text[0] for text in known], batch)
    rest = [i for i, row in enumerate(texts) if not row]
    found = answerer.answer(
        [ids[i] for i in rest],
        graphs.select(rest),
        beams=beams,
        max_new_tokens=MAX_NEW_TOKENS,
        batch_size=max(1, batch // beams),
    )
    for i, row in zip(rest, found, strict=True):
        texts[i] = [(text.text, text.score) for text in row]
    return texts


@torch.no_grad()
def confirm(
    answerer: Answerer, ids: list[list[int]], graphs: Graphs, known: Sequence[str | None], batch: int
) -> list[list[tuple[str, float]]]:
    """Of each row the known text, if its tokens are all the likeliest; else nothing."""
    texts: list[list[tuple[str, float]]] = [[] for _ in ids]
    rows = [i for i, text in enumerate(known) if text]
    known_ids = answerer.ids([known[i] or "" for i in rows])
    answers = {i: [*tokens, answerer.end] for i, tokens in zip(rows, known_ids, strict=True)}
    decoder = answerer.model.decoder
    for at in range(0, len(rows), batch):
        part = rows[at : at + batch]
        full = [[*answerer.before, *ids[i], *answerer.between, *answers[i]] for i in part]
        tokens = torch.tensor([row + [0] * (max(map(len, full)) - len(row)) for row in full], device=answerer.device)
        with torch.autocast(answerer.device.type, decoder.dtype, enabled=decoder.dtype != torch.float32):
            branch = answerer.model.branch(graphs.select(part).batch(answerer.device), len(part))
        branch = replace(branch, a=branch.a.to(decoder.dtype), c=branch.c.to(decoder.dtype))
        hidden = decoder.hidden(tokens, branch=branch)
        for row, i in enumerate(part):
            start = len(full[row]) - len(answers[i]) - 1
            scores = decoder.head(hidden[row, start : len(full[row]) - 1]).float().log_softmax(-1)
            label = torch.tensor(answers[i], device=answerer.device)
            if bool((scores.argmax(-1) == label).all()):
                texts[i] = [(known[i] or "", float(scores.gather(1, label[:, None]).sum()))]
    return texts


def merge(texts: Sequence[tuple[str, float]]) -> list[tuple[str | None, float]]:
    """Canonical answers, their spellings added up; what is no molecule comes last."""
    out: dict[str | None, float] = {}
    for text, score in texts:
        answer = canonical(text)
        out[answer] = out.get(answer, 0.0) + math.exp(score)
    return sorted(out.items(), key=lambda pair: (pair[0] is None, -pair[1]))


def products(
    answerer: Answerer, found: Sequence[Sequence[tuple[str | None, float]]], batch: int
) -> list[list[str | None]]:
    """What each answer, a set of reactants, gives by the forward question."""
    sets = [answer for answers in found for answer, _ in answers if answer is not None]
    questions = [QUESTIONS["forward"]] * len(sets)
    made = iter(greedy(answerer, sets, sets, questions, MAX_NEW_TOKENS, batch) if sets else [])
    return [[None if answer is None else next(made)[0] for answer, _ in answers] for answers in found]


def in_parts(
    rows: Sequence[Row], make: Callable[[Sequence[Row]], list[dict[str, Any]]], size: int, path: Path | None
) -> list[dict[str, Any]]:
    """What `make` makes of the rows, `size` at a time, added to the file `path` as it comes; what is there is kept."""
    done = [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []
    assert [record["source"] for record in done] == [source for source, _, _ in rows[: len(done)]], "other rows"
    for at in range(len(done), len(rows), size):
        part = rows[at : at + size]
        records = [
            {"source": source, "target": target, **record}
            for (source, _, target), record in zip(part, make(part), strict=True)
        ]
        done += records
        if path:
            with path.open("a") as file:
                file.writelines(json.dumps(record) + "\n" for record in records)
    return done[: len(rows)]


def summary(args: argparse.Namespace, rows: Sequence[Row], done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    answers = [[answer for answer, _ in record["answers"]] for record in done]
    targets = [target for _, _, target in rows]
    result = {
        "task": args.task,
        "table": args.table.name,
        "pack": args.pack,
        "rows": len(rows),
        **tops(answers, targets, args.beams),
        "valid": round(sum(row[0] is not None for row in answers) / len(rows), 4),
    }
    if args.round_trip:
        gives = [[product == record["source"] for product in record["back"]] for record in done]
        ordered = [
            [a for _, a in sorted(zip(good, row, strict=False), key=lambda pair: not pair[0])] + row[len(good) :]
            for row, good in zip(answers, gives, strict=True)
        ]
        result["round_trip_first"] = tops(ordered, targets, args.beams)
        result["round_trip_of_first"] = round(sum(row[0] for row in gives) / len(rows), 4)
    return {**result, "seconds": round(sum(record["seconds"] for record in done), 1), "torch": torch.__version__}


def tops(answers: Sequence[Sequence[str | None]], targets: Sequence[str], beams: int) -> dict[str, Any]:
    """Share of rows whose target is among the first K answers, with its interval, for each K that there is."""
    found = {}
    for k in (k for k in TOPS if k <= beams):
        right = sum(target in row[:k] for row, target in zip(answers, targets, strict=True))
        found["exact" if k == 1 else f"top_{k}"] = [
            round(x, 4) for x in (right / len(targets), *wilson(right, len(targets)))
        ]
    return found


def wilson(right: int, rows: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share."""
    share, extra = right / rows, z * z / rows
    half = z * math.sqrt(share * (1 - share) / rows + extra / (4 * rows))
    return (share + extra / 2 - half) / (1 + extra), (share + extra / 2 + half) / (1 + extra)


def random_questions(path: Path, where: str | None, task: str, n: int) -> list[tuple[str, str, str]]:
    """The first n questions, as training asks them, of one random order (seed 0) of the rows. where: as `--where`."""
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        column, _, value = (where or "").partition("=")
        table = [row for row in csv.DictReader(file) if not column or row[column] == value]
    random.Random(0).shuffle(table)
    asked = chain.from_iterable(map(reader_of([task], in_words=True).pairs, table))
    return [(pair.source, pair.question, pair.target) for pair in islice(asked, n)]


if __name__ == "__main__":
    main()
