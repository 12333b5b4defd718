"""A model of 7 billion parameters in 4 bits with a low-rank branch for each row: text out, and scoring in 6 GiB.

    python benchmarks/decode_7b.py --output decode_7b.jsonl

All weights are random, made on the device layer by layer; they do not change the speed. Four parts, each in a process
of its own; `--parts` picks some:

* pieces: the products and the branch of one layer, by themselves
* rival: transformers with bitsandbytes NF4 and the branch by hooks, the best of several ways to generate
* ours: `CapturedGenerator` on the same shape
* capped: with `--cap` GiB of GPU memory as torch enforces it: text out of the first of `--batches`; one prompt compiled
  through all layers; molecules per second through the upper layers with a random encoder and hypernetwork, kept in 4
  bits and dequantised once

Lines of JSON as they come, at the end a summary. Needs a CUDA GPU; where there is none, `--device cpu --layers 3
--width 128 --ffn 192 --heads 4 --vocabulary 97 --prompt 12 --new 5 --rank 4 --adapted 2 --batches 2 3 --score-batches 4
--score-ranks 4` tries it out.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bnb_decode import rival
from kernel_timing import random_nf4, time_calls, tune
from random_llama import RandomModel, finish, make_branch, make_prompts, median_seconds, memory, rates, reset_memory
from torch import Tensor, nn

from mora_lite.adapter.lowrank import Branch
from mora_lite.lm.captured_generation import CapturedGenerator
from mora_lite.lm.decoder import Decoder
from mora_lite.lm.generation import generate
from mora_lite.lm.weights import Mode

PARTS = ("pieces", "rival", "ours", "capped")
BASELINE = 469  # molecules/s of the best batch of a plain pipeline of the same shape on the same GPU
DRUGS = (
    "CC(=O)Oc1ccccc1C(=O)O",
    "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "CN1CCC[C@H]1c1cccnc1",
    "COc1ccc2cc(ccc2c1)C(C)C(=O)O",
    "CN1C(=O)CN=C(c2ccccc2)c2cc(Cl)ccc12",
    "CC(C)NCC(O)COc1cccc2ccccc12",
    "CCN(CC)CC(=O)Nc1c(C)cccc1C",
)


def ours(options: argparse.Namespace, device: torch.device, batches: list[int]) -> Iterator[dict[str, Any]]:
    started = time.perf_counter()
    decoder = Decoder.from_checkpoint(RandomModel(options, device), torch.bfloat16, "4bit").to(device)
    finish()
    yield {"kind": "built", "seconds": round(time.perf_counter() - started, 1), **memory()}
    if options.tune and device.type == "cuda":
        from mora_lite.quant.matmul_triton import multiply_tiled

        tune(multiply_tiled, [(batch, *shape) for batch in batches for shape in products(options).values()])
    yield from text_out(decoder, options, batches)


@torch.no_grad()
def text_out(decoder: Decoder, options: argparse.Namespace, batches: list[int]) -> Iterator[dict[str, Any]]:
    device = decoder.embedding.device
    for batch in batches:
        branch, ids = make_branch(options, batch, device), make_prompts(options, batch)
        reset_memory()
        alone = CapturedGenerator(decoder, capture_steps=False).generate(ids, branch=branch, max_new_tokens=options.new)
        # Plain generation rounds elsewhere: of random weights, near ties turn, and what follows is another text.
        plain = generate(decoder, ids, branch=branch, max_new_tokens=2)
        reset_memory()
        steps = CapturedGenerator(decoder)

        def text(new: int, steps: CapturedGenerator = steps, branch: Branch = branch, ids: Any = ids) -> Any:
            return steps.generate(ids, branch=branch, max_new_tokens=new)

        recorded = text(options.new)
        same = sum(a[:2] == b for a, b in zip(recorded, plain, strict=True)) / batch
        found: dict[str, Any] = rates(text, batch, options.new, options.repeats) | memory()
        found |= {"recorded_equals_unrecorded": recorded == alone, "first_two_tokens_as_plain": round(same, 3)}
        yield {"kind": "ours", "batch": batch, **found}
        if options.profile:
            yield {"kind": "profile", "batch": batch, "us_per_step": profile(decoder, branch, ids)}
        del steps, text, branch


def capped(options: argparse.Namespace, device: torch.device, batches: list[int]) -> Iterator[dict[str, Any]]:
    from mora_lite.lm.prefix import CompiledPrompts, UpperLayers, compile_prompt, upper_tensor_names

    source = RandomModel(options, device)
    decoder = Decoder.from_checkpoint(source, torch.bfloat16, "4bit").to(device)
    yield {"kind": "built", **memory()}
    for row in text_out(decoder, options, batches[:1]):
        yield row | {"kind": "capped text", "cap_gib": options.cap}
    ids = make_prompts(argparse.Namespace(**{**vars(options), "prompt": 64}), 1)[0]
    prompts, sizes = CompiledPrompts.stack([compile_prompt(decoder, ids, options.adapted)]), decoder.sizes
    names = upper_tensor_names(source.names(), sizes, options.adapted)
    del decoder  # its upper layers are loaded again, without the lower ones and the vocabulary
    modes: tuple[Mode, ...] = ("4bit", "resident")
    reference = {}
    for mode in modes:
        upper = UpperLayers(sizes, options.adapted, {n: source.load(n) for n in names}, torch.bfloat16, mode)
        for rank in options.score_ranks:
            for batch in options.score_batches:
                found, scores = score(upper, prompts, rank, batch, options)
                if scores is not None:
                    first = reference.setdefault((rank, batch), scores)
                    found["distance_of_modes"] = round(((scores - first).norm() / first.norm()).item(), 4)
                yield {"kind": "capped score", "mode": mode, "rank": rank, "batch": batch, **found}
        del upper


def score(upper: Any, prompts: Any, rank: int, batch: int, options: argparse.Namespace) -> tuple[dict[str, Any], Any]:
    """Molecules per second from graphs to z-scores on the host, and the z-scores; `oom` if memory does not suffice."""
    from mora_lite.adapter.lowrank import AdapterConfig
    from mora_lite.chem.featurizer import Featurizer
    from mora_lite.scoring.scorer import Scorer

    device = prompts.residual.device
    graphs = Featurizer().read_smiles(DRUGS).select(np.arange(batch) % len(DRUGS))
    torch.manual_seed(rank)
    reset_memory()
    try:
        with device:
            scorer = Scorer(AdapterConfig(adapted_layers=options.adapted, rank=rank), upper, prompts).eval()
        nn.init.normal_(scorer.c, std=0.1)

        def run() -> Tensor:
            batch_here = graphs.batch().to(device)
            return scorer(batch_here).float().cpu()

        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            scores = run()
            seconds = median_seconds(run, options.score_repeats)
    except torch.OutOfMemoryError:
        return {"oom": True}, None
    rate = batch / seconds
    found = {"mol_per_s": round(rate), "times_baseline": round(rate / BASELINE, 1), "ms": round(seconds * 1e3, 2)}
    atoms = len(graphs.atoms) / batch
    return found | {"atoms": atoms, "finite": bool(scores.isfinite().all()), **memory()}, scores


def profile(decoder: Decoder, branch: Branch, ids: list[list[int]], steps: int = 8) -> dict[str, float]:
    """Microseconds of a step by kernel, the heaviest first; prompt and record are left out."""
    alone, on_gpu, found = CapturedGenerator(decoder, capture_steps=False), torch.cuda.is_available(), {}
    activity = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
    for sign, new in ((-1, 1), (1, 1 + steps)):
        with torch.profiler.profile(activities=[activity]) as seen:
            alone.generate(ids, branch=branch, max_new_tokens=new)
            finish()
        for event in seen.key_averages():
            us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            found[event.key[:60]] = found.get(event.key[:60], 0.0) + sign * us / steps
    return {name: round(us, 1) for name, us in sorted(found.items(), key=lambda item: -item[1])[:25]}


def products(options: argparse.Namespace) -> dict[str, tuple[int, int]]:
    """Weights `[N, K]` of one layer, as the decoder joins them."""
    width, ffn = options.width, options.ffn
    return {"qkv": (3 * width, width), "out": (width, width), "gate_up": (2 * ffn, width), "down": (width, ffn)}


def pieces(options: argparse.Namespace, device: torch.device, batches: list[int]) -> Iterator[dict[str, Any]]:
    """Microseconds of each product of a layer, and of the branch; copies of the weights keep the cache cold."""
    if device.type != "cuda":
        return
    from mora_lite.quant.matmul_triton import dequantize_tiled, multiply_tiled, project_rows
    from mora_lite.quant.tiling import tile_nf4

    width, shapes = options.width, products(options)
    for batch in batches:
        branch = make_branch(options, batch, device)
        a, c = list(branch.a.unbind(1)), branch.c[0]
        x = torch.randn(batch, width, device=device).bfloat16()
        found: dict[str, Any] = {}
        for name, (n, k) in shapes.items():
            copies = max(2, min(12, round(250e6 / (n * k / 2))))
            weights = [tile_nf4(random_nf4(n, k, device)) for _ in range(copies)]
            seen = torch.randn(batch, k, device=device).bfloat16()
            calls = [functools.partial(multiply_tiled, seen, w) for w in weights]
            found[name] = time_calls(calls)
            found[f"{name} floor"] = weights[0].nbytes / 3e12
            if name == "down":
                r = torch.randn(batch, options.rank, device=device)
                found["down with c"] = time_calls(
                    [functools.partial(multiply_tiled, seen, w, r=r, c=c) for w in weights]
                )
            if name == "gate_up":
                found["dequantise"] = time_calls([functools.partial(dequantize_tiled, w, x.dtype) for w in weights[:2]])
        found["project_rows"] = time_calls([functools.partial(project_rows, x, part, 0.5) for part in a])
        found["project by bmm"] = time_calls([functools.partial(torch.bmm, x[:, None], part) for part in a])
        found["project floor"] = batch * width * options.rank * 2 / 3e12
        yield {"kind": "pieces", "batch": batch, "us": {name: round(t * 1e6, 1) for name, t in found.items()}}
        if options.tune:
            best = tune(multiply_tiled, [(batch, n, k) for n, k in shapes.values()])
            yield {"kind": "tuned", "best": {f"{n}x{k} M={m}": list(config) for (m, n, k), config in best.items()}}


def run_part(part: str, options: argparse.Namespace) -> None:
    """In a process of its own: the cap holds from the first tensor on."""
    device = torch.device(options.device)
    if part == "capped" and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(options.cap * 2**30 / total)
    work = {"pieces": pieces, "rival": rival, "ours": ours, "capped": capped}[part]
    for row in work(options, device, options.batches):
        print(json.dumps({"part": part, **row}), flush=True)


def summarize(rows: list[dict[str, Any]], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What was asked: at least twice the rival's tokens per second, and 50 times the baseline within the cap."""
    for batch in options.batches:
        mine = [r for r in rows if r.get("kind") == "ours" and r["batch"] == batch]
        theirs = [r for r in rows if r.get("kind") == "rival" and r["batch"] == batch and "whole_tok_s" in r]
        plain = [r for r in theirs if r["way"] != "graph"]
        for what in ("whole_tok_s", "decode_tok_s"):
            if mine and plain:
                best = max(plain, key=lambda r: r[what])
                row = {"kind": "summary", "batch": batch, "what": what, "ours": mine[0][what], "rival": best[what]}
                row |= {"way": best["way"], "ratio": round(mine[0][what] / best[what], 2)}
                by_hand = [r[what] for r in theirs if r["way"] == "graph"]
                yield row | ({"ratio_to_graph_by_hand": round(mine[0][what] / by_hand[0], 2)} if by_hand else {})
    scored = [r for r in rows if r.get("kind") == "capped score" and "mol_per_s" in r]
    for rank in options.score_ranks:
        best = max((r for r in scored if r["rank"] == rank), key=lambda r: r["mol_per_s"], default=None)
        if best:
            yield {**best, "kind": "summary", "cap_gib": options.cap, "target": 50 * BASELINE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--output", type=Path, help="the lines of JSON in a file as well")
    for name, value in {"layers": 32, "width": 4096, "ffn": 11008, "heads": 32, "vocabulary": 32000}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, value in {"prompt": 128, "new": 64, "rank": 64, "adapted": 8, "repeats": 2, "score-repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--score-batches", nargs="+", type=int, default=[256, 1024, 4096])
    parser.add_argument("--score-ranks", nargs="+", type=int, default=[8, 64])
    parser.add_argument("--rival-ways", nargs="+", default=["dynamic", "static", "graph"])
    parser.add_argument("--cap", type=float, default=6.0, help="GiB of GPU memory in the part `capped`")
    parser.add_argument("--tune", action="store_true", help="time all configurations of the kernel first")
    parser.add_argument("--profile", action="store_true", help="the time of each kernel of a step as well")
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        run_part(options.only, options)
        return
    device = torch.device(options.device)
    machine = {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"}
    machine |= {name: metadata.version(name) for name in ("torch", "triton", "transformers", "bitsandbytes")}
    rows: list[dict[str, Any]] = []
    file = options.output.open("w") if options.output else None

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)
        if file:
            print(json.dumps(row), file=file, flush=True)

    started = time.perf_counter()
    add({"kind": "machine", **machine, "rank": options.rank, "prompt": options.prompt, "new": options.new})
    for part in options.parts:
        command = [sys.executable, __file__, *sys.argv[1:], "--only", part]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    add(json.loads(line))
        add({"kind": "ended", "part": part, "code": process.returncode, "at_s": round(time.perf_counter() - started)})
    for row in summarize(rows, options):
        add(row)
    sys.exit(any(row.get("code") for row in rows))


if __name__ == "__main__":
    main()
