"""Trains chemprop, or mora-lite, by its command on the sets of `sets.py` and scores its test predictions.

    python benchmarks/chemprop_sets.py --chemprop VENV/bin/chemprop --data DIR -o RESULTS.jsonl --sets delaney bace
    python benchmarks/chemprop_sets.py --mora-lite VENV/bin/mora-lite --data DIR -o RESULTS.jsonl --sets delaney --trees

Both read the same table, with the same column that says which part a row belongs to, and have their default settings;
mora-lite starts from structures alone (`--start` says otherwise). chemprop needs an environment of its own (`pip
install chemprop==2.3.1`). Runs that RESULTS holds already are left out, so it can be stopped and started. One line of
JSON for each run.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
from sets import SETS, LabelledSet, Rows, read_set, test_metric


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    program = parser.add_mutually_exclusive_group(required=True)
    program.add_argument("--chemprop", help="the program")
    program.add_argument("--mora-lite", help="the program")
    parser.add_argument("--data", type=Path, required=True, help="folder of the .csv.gz files")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=50, help="of chemprop, whose default is 50")
    parser.add_argument("--start", default="structures", help="of mora-lite's encoder")
    parser.add_argument("--trees", action="store_true", help="of mora-lite")
    options = parser.parse_args()
    model = "chemprop" if options.chemprop else "mora-lite --trees" if options.trees else "mora-lite"
    settings = {"epochs": options.epochs} if options.chemprop else {"start": options.start}
    done = []
    if options.out.exists():
        done = [json.loads(line) for line in options.out.read_text().splitlines()]
    for seed in options.seeds:
        for name in options.sets:
            facts = {"set": name, "model": model, "seed": seed, **settings}
            if not any(facts.items() <= result.items() for result in done):
                result = {**facts, **run(options, SETS[name], seed)}
                with options.out.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                print(json.dumps(result), flush=True)


def run(options: argparse.Namespace, labelled: LabelledSet, seed: int) -> dict:
    rows = read_set(options.data, labelled, seed)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if options.chemprop:
            write_table(Path(folder, "data.csv"), labelled, rows, "val")
            predicted = chemprop(options, Path(folder), labelled, seed)
        else:
            write_table(Path(folder, "data.csv"), labelled, rows, "valid")
            predicted = mora_lite(options, Path(folder), labelled, rows, seed)
    value = test_metric(labelled, rows.targets[rows.split == "test"], predicted)
    seconds = round(time.perf_counter() - started, 1)
    return {"metric": labelled.metric, "value": value, "seconds": seconds, "date": date.today().isoformat()}


def write_table(path: Path, labelled: LabelledSet, rows: Rows, valid: str) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["smiles", *labelled.targets, "split"])
        for smiles, targets, split in zip(rows.smiles, rows.targets, rows.split, strict=True):
            cells = ["" if np.isnan(t) else repr(float(t)) for t in targets]
            writer.writerow([smiles, *cells, valid if split == "valid" else split])


def chemprop(options: argparse.Namespace, folder: Path, labelled: LabelledSet, seed: int) -> np.ndarray:
    """Predictions of the test rows, float64 `[N, P]`."""
    command = ["train", "-i", str(folder / "data.csv"), "-o", str(folder / "out"), "--smiles-columns", "smiles"]
    command += ["--target-columns", *labelled.targets, "--splits-column", "split", "--accelerator", "cpu"]
    command += ["--task-type", "regression" if labelled.kind == "value" else "classification"]
    command += ["--epochs", str(options.epochs), "--data-seed", str(seed), "--pytorch-seed", str(seed)]
    call([options.chemprop, *command])
    return read_predictions(folder / "out" / "model_0" / "test_predictions.csv", labelled)


def mora_lite(options: argparse.Namespace, folder: Path, labelled: LabelledSet, rows: Rows, seed: int) -> np.ndarray:
    """Likewise."""
    targets = [part for name in labelled.targets for part in ("--target", f"{name}:{labelled.kind}")]
    command = ["train", str(folder / "data.csv"), "-o", str(folder / "pack"), *targets, "--split", "split"]
    command += ["--start", options.start, "--seed", str(seed), "--device", "cpu", *["--trees"] * options.trees]
    call([options.mora_lite, *command])
    test = [smiles for smiles, split in zip(rows.smiles, rows.split, strict=True) if split == "test"]
    (folder / "test.csv").write_text("\n".join(["smiles", *test]) + "\n")
    predict = [options.mora_lite, "predict", str(folder / "test.csv"), "--pack", str(folder / "pack"), "--short"]
    call([*predict, "-o", str(folder / "test_predictions.csv"), "--device", "cpu"])
    return read_predictions(folder / "test_predictions.csv", labelled)


def call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])


def read_predictions(path: Path, labelled: LabelledSet) -> np.ndarray:
    with path.open(newline="") as file:
        return np.array([[float(row[t]) for t in labelled.targets] for row in csv.DictReader(file)])


if __name__ == "__main__":
    main()
