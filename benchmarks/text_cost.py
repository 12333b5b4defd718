"""What answers in text and their training cost on a CPU, beside transformers with bitsandbytes and PEFT.

    mora-lite quantize smollm2-135m -o smollm2-nf4 --no-perplexity
    python benchmarks/text_cost.py smollm2-nf4 --rounds 3

Both sides read the same NF4 weights. Ours makes the adapter of each row out of its graph (rank 64 beside each
feed-forward block, the pack `reactions`); the other side has one LoRA of rank 64 at each output projection of attention
(576 to 576, the shapes of our branch), the same for all rows. Answering: 24 greedy tokens after 64 random ones, with 1
and 32 rows, by a plain loop over the model with its cache, which is quicker than `generate` of transformers. Training:
a step of 16 rows of 128 tokens, loss over the last 48 of each, backward, clip and AdamW. All is computed in bfloat16.
Each measurement is a process of its own, one after the other in turns, and `--rounds` of them; tokens per second of the
wall clock and of processor time are medians, memory is the process's peak. JSON lines on stdout.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NEW, PROMPT, REPEATS = 24, 64, 2
ROWS, WIDTH, ANSWER = 16, 128, 48  # of a training step
SIDES = {
    "ours": ("answer 1", "answer 32", "train"),
    "ours in 4 bits": ("answer 1", "answer 32"),
    "ours static": ("train",),
    "transformers": ("answer 1", "answer 32", "train"),
}
MOLECULE = "CC(=O)Nc1ccc(O)cc1.O=C(O)c1ccccc1Cl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of `mora-lite quantize`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("SIDE", "WHAT"), help="one measurement in this process")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.model, *args.one)))
        return
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(args.rounds):
        for what in ("answer 1", "answer 32", "train"):
            for side in (side for side, measured in SIDES.items() if what in measured):
                command = [sys.executable, __file__, str(args.model), "--one", side, what]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                lines = done.stdout.splitlines()
                found = json.loads(lines[-1]) if lines else {"error": done.stderr.strip()[-300:]}
                print(json.dumps({"side": side, "what": what, **found}), flush=True)
                runs.setdefault((side, what), []).append(found)
    for (side, what), found in runs.items():
        good = [run for run in found if "error" not in run]
        if good:
            medians = {name: round(statistics.median(run[name] for run in good), 1) for name in good[0]}
            print(json.dumps({"median": len(good), "side": side, "what": what, **medians}))


def measure(folder: Path, side: str, what: str) -> dict[str, float]:
    import torch

    torch.manual_seed(0)
    kind, _, rows = what.partition(" ")
    if side == "transformers":
        run = their_answers(folder, int(rows)) if kind == "answer" else their_step(folder)
    else:
        run = our_answers(folder, int(rows), side) if kind == "answer" else our_step(folder, side)
    run()  # the first call compiles and allocates
    wall, cpu = [], []
    for _ in range(REPEATS):
        started, used = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    tokens = int(rows) * NEW if kind == "answer" else ROWS * WIDTH
    return {
        "tokens_per_s": tokens / statistics.median(wall),
        "tokens_per_cpu_s": tokens / statistics.median(cpu),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def our_answers(folder: Path, rows: int, side: str) -> Callable[[], None]:
    from dataclasses import replace

    import torch

    from mora_lite.fast.prepacked import prepack
    from mora_lite.lm.base import load_decoder, open_nf4
    from mora_lite.lm.generation import generate_answers
    from mora_lite.text.pairs import FEATURIZER

    source, cpu = open_nf4(folder), torch.device("cpu")
    budget = 0 if side == "ours in 4 bits" else None
    model = our_model(load_decoder(source, torch.bfloat16, cpu, budget), "mora").eval()
    prepack(model.decoder)
    ids = torch.randint(100, 40_000, (rows, PROMPT)).tolist()
    graphs = FEATURIZER.read_smiles([MOLECULE] * rows)

    def run() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            branch = model.branch(graphs.batch(cpu), rows)
        branch = replace(branch, a=branch.a.bfloat16(), c=branch.c.bfloat16())
        generate_answers(model.decoder, ids, branch=branch, max_new_tokens=NEW)

    return run


def our_model(decoder: Any, kind: str) -> Any:
    from mora_lite.adapter.lowrank import AdapterConfig
    from mora_lite.text.model import TextModel

    return TextModel(AdapterConfig(256, 4, 256, 2, decoder.sizes.layers, 64, alpha=128.0), decoder, kind)


def our_step(folder: Path, side: str) -> Callable[[], None]:
    import torch

    from mora_lite.lm.base import load_decoder, open_nf4
    from mora_lite.lm.layer_ops import choose_layer_ops
    from mora_lite.machine.device import keep_freed_memory
    from mora_lite.text.pairs import FEATURIZER
    from mora_lite.text.sequences import TextBatch
    from mora_lite.training.loop import OptimizerConfig, RunState

    keep_freed_memory()
    cpu = torch.device("cpu")
    model = our_model(load_decoder(open_nf4(folder), torch.bfloat16, cpu), "static" if "static" in side else "mora")
    model.decoder.use_ops(choose_layer_ops(cpu))
    state = RunState(model.train(), OptimizerConfig(), "", cpu)
    state.set_learning_rate(1, 0.1)
    ids = torch.randint(100, 40_000, (ROWS, WIDTH))
    at = torch.arange(ROWS * WIDTH).view(ROWS, WIDTH)[:, -ANSWER - 1 : -1].flatten()
    graphs = FEATURIZER.read_smiles([MOLECULE] * ROWS).batch().padded(24 * ROWS + 1, 64 * ROWS)
    batch = TextBatch(ids, at, ids[:, -ANSWER:].flatten(), graphs)

    def run() -> None:
        model(batch).backward()
        state.update()
        state.optimizer.zero_grad(set_to_none=False)

    return run


def their_model(folder: Path) -> Any:
    import torch
    from bitsandbytes.nn import Linear4bit
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    for weight in model.parameters():  # a folder in 4 bits is loaded in its own types, float16 and float32 for products
        if weight.is_floating_point():
            weight.data = weight.data.bfloat16()
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype = torch.bfloat16
    return get_peft_model(model, LoraConfig(r=64, lora_alpha=128, target_modules=["o_proj"], task_type="CAUSAL_LM"))


def their_answers(folder: Path, rows: int) -> Callable[[], None]:
    import torch
    from transformers import DynamicCache

    model = their_model(folder).eval()
    ids = torch.randint(100, 40_000, (rows, PROMPT))

    def run() -> None:
        cache, tokens = DynamicCache(), ids
        with torch.inference_mode():
            for _ in range(NEW):
                out = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
                tokens = out.logits[:, -1].argmax(-1, keepdim=True)

    return run


def their_step(folder: Path) -> Callable[[], None]:
    import torch

    model = their_model(folder).train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)
    ids = torch.randint(100, 40_000, (ROWS, WIDTH))
    labels = ids.clone()
    labels[:, :-ANSWER] = -100

    def run() -> None:
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return run


if __name__ == "__main__":
    main()
