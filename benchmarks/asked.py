"""Does the language of a question carry? An endpoint that was never trained is asked by its prompt.

    python benchmarks/asked.py admet.csv.gz --recipe examples/admet.toml -o RESULTS.jsonl --seeds 0 1 2

For each endpoint of `LEFT_OUT`, seed and language model (pretrained, or with every matrix shuffled) a scorer is trained
on all other endpoints of the table, kindred ones of the same target left out too. It has one read-out for all prompts,
and none past the language model: what differs between two endpoints is their prompts alone. Then it is asked the prompt
of the endpoint left out, of all molecules that have a value and, where that is many, of 2,000 of them. The measure is
the ROC-AUC, of log-odds for a class. Baselines: the answer to the trained prompt that is nearest by the cosine of its
state at the answer token, and the trained prompt that ranks best, which nobody could know beforehand. Every figure is
on molecules that may have trained other endpoints, as a user's question would be.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from variants import compile_shuffled

from mora_lite.adapter.lowrank import AdapterConfig
from mora_lite.chem.graph import GraphBatch
from mora_lite.hub.bases import resolve_base
from mora_lite.lm.base import CompiledBase, compile_base
from mora_lite.lm.prefix import CompiledPrompts
from mora_lite.machine.device import keep_freed_memory, training_autocast, training_dtype
from mora_lite.scoring.scorer import Scorer
from mora_lite.scoring.tasks import Task
from mora_lite.training.checks import choose_scales
from mora_lite.training.dataset import Dataset, read_dataset
from mora_lite.training.loop import OptimizerConfig, RunState, predict_scores, scheduled_rate
from mora_lite.training.losses import TargetStats, task_loss
from mora_lite.training.pipeline import fitted_tasks, infer_task_kinds, standardize
from mora_lite.training.pretrain import load_encoder
from mora_lite.training.recipe import Recipe, read_recipe

# asked -> what is not trained
LEFT_OUT = {
    "CYP2C19_inhibitor": ("CYP2C19_inhibitor",),
    "hERG_blocker": ("hERG_blocker", "hERG_pIC50"),
    "PAMPA": ("PAMPA",),
    "RLM_unstable": ("RLM_unstable", "CLint_RLM"),
    "SR-MMP": ("SR-MMP",),
}
SIZES = AdapterConfig(adapted_layers=2)
SETTINGS = OptimizerConfig(peak_lr=1e-3, encoder_lr_scale=0.5)
BATCH, PROMPTS_A_STEP, WARMUP, MOST_ASKED = 128, 8, 100, 2000


class AskedScorer(Scorer):
    """One read-out for all prompts, of what a molecule changes in the state of the answer token."""

    def __init__(self, base: CompiledBase, dtype: torch.dtype):
        super().__init__(SIZES, base.upper(SIZES.adapted_layers, dtype), base.prompts)
        width = self.readout.shape[1]
        self.readout = nn.Parameter(torch.randn(1, width) * width**-0.5)
        self.offset = nn.Parameter(torch.zeros(1))
        a = torch.zeros(1, SIZES.adapted_layers, width, SIZES.rank)
        with torch.no_grad():
            self.unchanged = self.upper.score(self.prompts, a, self.c, self.scale)  # [1, P, D]

    def ask(self, batch: GraphBatch, at: list[int]) -> Tensor:
        """z-scores float32 `[B, len(at)]` of these prompts."""
        tokens = self.encode(batch)
        prompts: CompiledPrompts = self.prompts.select(at)
        hidden = self.upper.score(prompts, self.hypernet(tokens), self.c, self.scale)
        return self.read_out(hidden - self.unchanged[:, at], tokens.molecules)


def train(scorer: AskedScorer, data: Dataset, trained: list[int], classes: list[bool], steps: int, seed: int) -> None:
    """Each step draws some prompts, then for each of them as many molecules that have a value of it."""
    device = torch.device("cpu")
    stats = TargetStats.of(data.targets[:, trained], [classes[i] for i in trained], [1.0] * len(trained))
    rows_of = [np.flatnonzero(~np.isnan(data.targets[:, i])) for i in trained]
    rng = np.random.default_rng(seed)
    state = RunState(scorer, SETTINGS, "", device)
    scorer.train()
    for step in range(steps):
        chosen = rng.choice(len(trained), PROMPTS_A_STEP, replace=False)
        rows = np.unique(np.concatenate([rng.choice(rows_of[i], BATCH // PROMPTS_A_STEP) for i in chosen]))
        state.set_learning_rate(step, scheduled_rate(step, steps, WARMUP))
        at = [trained[i] for i in chosen]
        batch = data.graphs.select(rows).batch().rounded()
        with training_autocast(device):
            scores = scorer.ask(batch, at)
        task_loss(
            scores[: len(rows)], torch.from_numpy(data.targets[rows][:, at]), stats.at_tasks(chosen), 1.0
        ).backward()
        state.update()
        state.optimizer.zero_grad(set_to_none=False)
    with torch.no_grad():
        for name, weight in state.ema_weights.items():
            state.named[name].copy_(weight)
    scorer.eval()


def ask(
    base: CompiledBase, data: Dataset, tasks: tuple[Task, ...], asked: str, steps: int, seed: int, start: Path | None
) -> dict[str, Any]:
    """Train without `asked` and its kin, and ask it."""
    names = [task.name for task in tasks]
    index, classes = names.index(asked), [task.is_class for task in tasks]
    trained = [i for i, name in enumerate(names) if name not in LEFT_OUT[asked]]
    torch.manual_seed(seed)
    scorer = AskedScorer(base, training_dtype(torch.device("cpu")))
    scorer.encoder.load_state_dict((load_encoder(start) if start else load_encoder()).state_dict())
    train(scorer, data, trained, classes, steps, seed)
    rows = np.flatnonzero(~np.isnan(data.targets[:, index]))
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:MOST_ASKED])
    part = data.at(rows)
    truth = part.targets[:, index]
    scores = predict_scores(lambda batch: scorer.ask(batch, [index, *trained]), part, torch.device("cpu"))
    auc = [float(roc_auc_score(truth, column)) for column in scores.T.numpy()]
    states = nn.functional.normalize(scorer.unchanged[0], dim=-1)
    nearest = int((states[trained] @ states[index]).argmax())
    best = int(np.argmax(auc[1:]))
    return {
        "asked": auc[0],
        "nearest": auc[1 + nearest],
        "nearest_task": names[trained[nearest]],
        "best": auc[1 + best],
        "best_task": names[trained[best]],
        "rows": len(rows),
    }


def read(table: Path, recipe: Recipe) -> tuple[Dataset, tuple[Task, ...]]:
    """z-scores of the recipe's tasks that are not auxiliary."""
    recipe = replace(recipe, tasks=tuple(task for task in recipe.tasks if not task.auxiliary))
    data = read_dataset(
        table, recipe.smiles or None, [task.column for task in recipe.tasks], featurizer=recipe.featurizer
    )
    data = data.at(np.flatnonzero(~np.isnan(data.targets).all(axis=1)))
    recipe, _ = choose_scales(infer_task_kinds(recipe, data), data, data)
    tasks = fitted_tasks(recipe, data)
    return standardize(data, tasks), tasks


def compile_prompts(base: Path, tasks: tuple[Task, ...], shuffled: bool) -> CompiledBase:
    prompts = [task.prompt for task in tasks]
    if shuffled:
        return compile_shuffled(base, prompts, SIZES.adapted_layers, seed=0)
    return compile_base(base, prompts, SIZES.adapted_layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--start", type=Path, help="encoder of `mora-lite pretrain`; the one that ships if left out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--asked", nargs="+", default=list(LEFT_OUT))
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    keep_freed_memory()
    data, tasks = read(options.table, read_recipe(options.recipe))
    base = resolve_base(options.base)
    compiled = {model: compile_prompts(base, tasks, model == "shuffled") for model in ("pretrained", "shuffled")}
    done = options.output.read_text().splitlines() if options.output.exists() else []
    for seed in options.seeds:
        for asked in options.asked:
            for model, weights in compiled.items():
                key = {"asked_task": asked, "model": model, "seed": seed, "steps": options.steps}
                if any(key.items() <= json.loads(line).items() for line in done):
                    continue
                started = time.perf_counter()
                row = key | ask(weights, data, tasks, asked, options.steps, seed, options.start)
                row["seconds"] = round(time.perf_counter() - started, 1)
                with options.output.open("a") as out:
                    out.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
