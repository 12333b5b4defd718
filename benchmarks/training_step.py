"""Molecules per second of a training step on a CPU, with one of its measures switched off. One variant a process.

    python benchmarks/training_step.py qm9.csv.gz encoder --without padding
    python benchmarks/training_step.py qm9.csv.gz whole --without compile

`whole` needs the base model (mora-lite pull smollm2-135m). The first steps are left out of the figures.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from mora_lite.adapter.encoder import EncoderBaseline, GraphEncoder
from mora_lite.hub.bases import resolve_base
from mora_lite.machine.device import keep_freed_memory
from mora_lite.training import pipeline
from mora_lite.training.dataset import read_dataset
from mora_lite.training.recipe import read_recipe

BATCH, WARM_UP, STEPS = 512, 6, 36
RECIPE = Path(__file__).resolve().parent.parent / "examples" / "qm9.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="qm9.csv.gz")
    parser.add_argument("what", choices=["encoder", "whole"])
    parser.add_argument("--without", choices=["padding", "mallopt", "compile"], action="append", default=[])
    args = parser.parse_args()
    if "mallopt" not in args.without:
        keep_freed_memory()
    if "compile" in args.without:
        pipeline.shutil.which = lambda _: None  # no compiler, no torch.compile
    graphs = read_dataset(args.data, "smiles", []).graphs
    order = np.random.default_rng(0).permutation(len(graphs))
    recipe = read_recipe(RECIPE)
    model: torch.nn.Module = EncoderBaseline(GraphEncoder(), len(recipe.tasks))
    if args.what == "whole":
        prompts = [task.prompt for task in recipe.tasks]
        base = pipeline.compile_base(resolve_base(recipe.base), prompts, recipe.adapter.adapted_layers)
        model = pipeline.new_scorer(recipe.adapter, base, model, torch.device("cpu"), 1, compiled=True)
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)
    seconds = []
    for step in range(STEPS):
        part = graphs.select(np.sort(order[step * BATCH : (step + 1) * BATCH]))
        started = time.perf_counter()
        batch = part.batch() if "padding" in args.without else part.batch().rounded()
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(batch)
        scores[:BATCH].float().abs().mean().backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    counted = seconds[WARM_UP:]
    print(
        f"{args.what} without {', '.join(args.without) or 'nothing'}: {BATCH / np.median(counted):,.0f} molecules/s "
        f"(median of {len(counted)} steps; mean {BATCH / np.mean(counted):,.0f}), {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
