"""Trains chemprop with its default settings on the sets of `sets.py` and scores its test predictions.

    python benchmarks/chemprop_sets.py --chemprop VENV/bin/chemprop --data DIR -o RESULTS.jsonl --sets delaney bace

chemprop needs an environment of its own (`pip install chemprop==2.3.1`). Runs that RESULTS holds already are left out,
so it can be stopped and started. One line of JSON for each run.
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
from sets import SETS, LabelledSet, read_set, test_metric


def run(chemprop: str, data: Path, labelled: LabelledSet, seed: int, epochs: int) -> dict:
    rows = read_set(data, labelled, seed)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "data.csv")
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["smiles", *labelled.targets, "split"])
            for smiles, targets, split in zip(rows.smiles, rows.targets, rows.split, strict=True):
                cells = ["" if np.isnan(t) else repr(float(t)) for t in targets]
                writer.writerow([smiles, *cells, "val" if split == "valid" else split])
        command = [chemprop, "train", "-i", str(table), "-o", f"{folder}/out", "--smiles-columns", "smiles"]
        command += ["--target-columns", *labelled.targets, "--splits-column", "split", "--accelerator", "cpu"]
        command += ["--task-type", "regression" if labelled.kind == "value" else "classification"]
        command += ["--epochs", str(epochs), "--data-seed", str(seed), "--pytorch-seed", str(seed)]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
        seconds = time.perf_counter() - started
        with Path(folder, "out", "model_0", "test_predictions.csv").open(newline="") as file:
            predicted = np.array([[float(r[t]) for t in labelled.targets] for r in csv.DictReader(file)])
    value = test_metric(labelled, rows.targets[rows.split == "test"], predicted)
    return {
        "set": labelled.name,
        "model": "chemprop",
        "seed": seed,
        "metric": labelled.metric,
        "value": value,
        "seconds": round(seconds, 1),
        "epochs": epochs,
        "date": date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chemprop", default="chemprop")
    parser.add_argument("--data", type=Path, required=True, help="folder of the .csv.gz files")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=50, help="chemprop's default is 50")
    options = parser.parse_args()
    done = set()
    if options.out.exists():
        done = {(r["set"], r["seed"]) for r in map(json.loads, options.out.read_text().splitlines())}
    for name in options.sets:
        for seed in options.seeds:
            if (name, seed) not in done:
                result = run(options.chemprop, options.data, SETS[name], seed, options.epochs)
                with options.out.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
