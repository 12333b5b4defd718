"""Encoder alone, static adapters and MoRA side by side: same base, data, split, steps and seeds; and ablations of MoRA.

    python benchmarks/adapters.py --data DIR -o RESULTS.jsonl --sets delaney lipo bace qm9_10k
    python benchmarks/adapters.py --data DIR -o RESULTS.jsonl --sets delaney bace --variants K=1 K=8 R=2 R=32 text ...

For each set and seed the encoder is trained with a small head; from there each variant is trained for the same further
steps with the same settings. The metrics are those of the comparison with chemprop (`sets.py`). Runs that RESULTS holds
already are left out. One line of JSON for each run.

encoder   goes on with the head, no language model
static    graph tokens as a soft prompt (S=8) + static LoRA (rank 64) on all matrices of the upper layers
mora      K=4, R=8, branch at the answer position, NF4; all that is answered comes out of the language model
product   the same with the direct read-out from the molecule token beside it, as `mora-lite train` makes packs
K=, R=    MoRA with other numbers of adapted layers and ranks
all       branch at all positions of the prompt       text      the molecule's SMILES in the prompt as well
bf16      the base before 4 bits                      random    every matrix of the base shuffled, then NF4
shuffled  the MoRA above, each molecule given another molecule's weights (no training of its own)
mean      the mean of encoder and mora (no training of its own)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sets import SETS, LabelledSet, read_set, test_metric
from variants import (
    AllPositionsScorer,
    KeyedGraphs,
    StaticScorer,
    TextScorer,
    compile_shuffled,
    text_prompts,
)

from mora_lite.adapter.encoder import EncoderBaseline, GraphEncoder
from mora_lite.adapter.lowrank import AdapterConfig
from mora_lite.chem.featurizer import Featurizer
from mora_lite.hub.bases import resolve_base
from mora_lite.lm.base import CompiledBase, compile_base
from mora_lite.machine.device import training_dtype
from mora_lite.scoring.scorer import Scorer
from mora_lite.training.checks import choose_scales
from mora_lite.training.dataset import Dataset
from mora_lite.training.loop import TrainConfig, fit, predict_scores
from mora_lite.training.losses import TargetStats
from mora_lite.training.pipeline import fitted_tasks, new_scorer, standardize
from mora_lite.training.pretrain import STARTS, load_encoder
from mora_lite.training.recipe import DEFAULT_SIZES, ENCODER, MORA, Recipe, TaskRecipe

CPU = torch.device("cpu")
DTYPE = training_dtype(CPU)
SIZES = AdapterConfig()
MAIN = ("encoder", "static", "mora", "product")
# More data than the other sets and computed without noise: the settings of the recipe of QM9, larger batches.
QM9 = {"batch_size": 128, "peak_lr": 1e-3, "dropout": 0.0, "huber": 0.0, "warmup_steps": 200, "ema_decay": 0.995}


class Comparison:
    """One set with one seed."""

    def __init__(self, labelled: LabelledSet, data: Path, seed: int, start: Path | None):
        self.labelled, self.seed, self.start = labelled, seed, start
        rows = read_set(data, labelled, seed)
        featurizer = Featurizer()
        parsed = [featurizer.parse_smiles(text).mol for text in rows.smiles]
        good = np.array([i for i, mol in enumerate(parsed) if mol is not None])
        graphs = featurizer.graphs([parsed[i] for i in good])
        truth, split = rows.targets[good], rows.split[good]
        smiles = [rows.smiles[i] for i in good]
        whole = Dataset(smiles, graphs, truth.astype(np.float32), np.arange(len(good)), len(good), labelled.name)
        self.all = whole
        parts = {name: whole.at(np.flatnonzero(split == name)) for name in ("train", "valid", "test")}
        recipe = Recipe(labelled.name, tuple(TaskRecipe(t, kind=labelled.kind) for t in labelled.targets))
        recipe, _ = choose_scales(recipe, parts["train"], parts["valid"])
        self.tasks = fitted_tasks(recipe, parts["train"])
        self.truth = {name: part.targets for name, part in parts.items()}
        self.parts = {name: standardize(part, self.tasks) for name, part in parts.items()}
        n = truth.shape[1]
        self.stats = TargetStats.of(self.parts["train"].targets, [labelled.kind == "class"] * n, [1.0] * n)
        self.path = resolve_base("smollm2-135m")
        self.prompts = [f"Question: What is the {t} of the molecule? Answer:" for t in labelled.targets]
        self.stages = {"encoder": replace(ENCODER, seed=seed), "variant": replace(MORA, seed=seed)}
        if labelled.name.startswith("qm9"):
            changed: dict[str, Any] = QM9
            self.stages = {
                "encoder": replace(self.stages["encoder"], **changed, epochs=20, encoder_lr_scale=1.0, patience=0),
                "variant": replace(self.stages["variant"], **changed, epochs=6, patience=0),
            }
        self.seconds = 0.0
        self.encoder_head = self.first_stage()
        self.base = compile_base(self.path, self.prompts, SIZES.adapted_layers)
        self.scores: dict[str, np.ndarray] = {}

    def fit(self, model: torch.nn.Module, settings: TrainConfig, parts: dict[str, Dataset] | None = None) -> None:
        parts = parts or self.parts
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            fit(model, parts["train"], parts["valid"], self.stats, settings, Path(folder), CPU)
        self.seconds = time.perf_counter() - started

    def first_stage(self) -> EncoderBaseline:
        torch.manual_seed(self.seed)
        encoder = GraphEncoder(SIZES.encoder_width, SIZES.encoder_layers)
        if self.start is not None:
            encoder = load_encoder(self.start)
        model = EncoderBaseline(encoder, len(self.prompts))
        self.fit(model, self.stages["encoder"])
        return model

    def score(self, scores: np.ndarray, part: str = "test") -> float:
        """z-scores `[N, P]` -> the set's metric."""
        mean, deviation = (np.array([getattr(t, name) for t in self.tasks]) for name in ("mean", "deviation"))
        values = scores * deviation + mean
        predicted = np.stack([task.in_unit(values[:, i]) for i, task in enumerate(self.tasks)], axis=1)
        return test_metric(self.labelled, self.truth[part], predicted)

    def mora(self, base: CompiledBase, sizes: AdapterConfig = SIZES) -> Scorer:
        return new_scorer(sizes, base, self.encoder_head, CPU, self.seed + 1)

    def run(self, variant: str) -> dict[str, Any]:
        """Train one variant and compute its metric."""
        parts, torch_seed = self.parts, self.seed + 1
        torch.manual_seed(torch_seed)
        model: torch.nn.Module
        if variant == "encoder":
            model = EncoderBaseline(GraphEncoder(SIZES.encoder_width, SIZES.encoder_layers), len(self.prompts))
            model.load_state_dict(self.encoder_head.state_dict())
        elif variant == "static":
            model = StaticScorer(SIZES, self.base, self.encoder_head.encoder, DTYPE, soft=8, rank=64)
        elif variant == "mora":
            model = self.mora(self.base)
        elif variant == "product":
            model = self.mora(self.base, DEFAULT_SIZES)
        elif variant.startswith(("K=", "R=")):
            number = int(variant[2:])
            sizes = replace(SIZES, adapted_layers=number) if variant[0] == "K" else replace(SIZES, rank=number)
            sizes = replace(sizes, alpha=2.0 * sizes.rank)
            base = compile_base(self.path, self.prompts, number) if variant[0] == "K" else self.base
            model = self.mora(base, sizes)
        elif variant == "all":
            model = AllPositionsScorer(SIZES, self.base, self.path, self.prompts[0], DTYPE)
            model.start_from(self.encoder_head)
        elif variant == "text":
            store = text_prompts(self.path, self.all.smiles, self.prompts[0], SIZES.adapted_layers, DTYPE)
            model = TextScorer(SIZES, self.base.upper(SIZES.adapted_layers, DTYPE), store)
            model.start_from(self.encoder_head)
            keyed: Any = {name: replace(p, graphs=KeyedGraphs(p.graphs, p.rows)) for name, p in parts.items()}
            parts = keyed
        elif variant == "bf16":
            model = self.mora(compile_base(self.path, self.prompts, SIZES.adapted_layers, four_bit=False))
        elif variant == "random":
            model = self.mora(compile_shuffled(self.path, self.prompts, SIZES.adapted_layers, self.seed))
        else:
            sys.exit(f"unknown variant {variant!r}")
        self.fit(model, self.stages["variant"], parts)
        with torch.no_grad():
            scores = {name: predict_scores(model.eval(), parts[name], CPU).numpy() for name in ("valid", "test")}
        self.scores[variant] = scores["test"]
        if variant == "mora":
            assert isinstance(model, Scorer)
            self.scores["shuffled"] = self.shuffled(model)
        n = sum(
            p.numel() for name, p in model.named_parameters() if p.requires_grad and not name.startswith("encoder.")
        )
        figures = {"valid": self.score(scores["valid"], "valid"), "trained_beside_encoder": n}
        return {"value": self.score(scores["test"]), **figures, "seconds": round(self.seconds, 1)}

    def shuffled(self, model: Scorer) -> np.ndarray:
        """Scores of the test molecules when each gets the weights of another one."""
        batch = self.parts["test"].graphs.batch()
        n = len(self.parts["test"])
        order = torch.from_numpy(np.random.default_rng(self.seed).permutation(n))
        with torch.no_grad(), torch.autocast("cpu", DTYPE, enabled=torch.float32 != DTYPE):
            tokens = model.encode(batch.rounded())
            a, molecules = model.hypernet(tokens)[:n][order], tokens.molecules[:n]
            hidden = model.upper.score(model.prompts, a, model.c, model.scale)
            return model.read_out(hidden, molecules).float().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the .csv.gz files")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=list(MAIN))
    parser.add_argument("--start", default="pretrained", choices=(*STARTS, "random"), help="of the encoder")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    here = Path(__file__).resolve().parent
    commit = subprocess.run(
        ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    done = set()
    if options.out.exists():
        done = {
            (r["set"], r["seed"], r["start"], r["model"]) for r in map(json.loads, options.out.read_text().splitlines())
        }

    def write(labelled: LabelledSet, seed: int, model: str, result: dict[str, Any]) -> None:
        facts = {"set": labelled.name, "seed": seed, "start": options.start, "model": model, "metric": labelled.metric}
        line = json.dumps({**facts, **result, "date": date.today().isoformat(), "commit": commit})
        with options.out.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    for seed in options.seeds:
        for name in options.sets:
            todo = [v for v in options.variants if (name, seed, options.start, v) not in done]
            if not todo:
                continue
            start = None if name.startswith("qm9") else STARTS.get(options.start)
            one = Comparison(SETS[name], options.data, seed, start)
            for variant in todo:
                write(SETS[name], seed, variant, one.run(variant))
            if "mora" in one.scores:
                write(SETS[name], seed, "shuffled", {"value": one.score(one.scores["shuffled"])})
                if "encoder" in one.scores:
                    write(
                        SETS[name], seed, "mean", {"value": one.score((one.scores["encoder"] + one.scores["mora"]) / 2)}
                    )


if __name__ == "__main__":
    main()
