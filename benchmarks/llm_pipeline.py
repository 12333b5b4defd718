"""What one would write without this program: transformers, bitsandbytes NF4, and a branch of low rank for each row.

    python benchmarks/llm_pipeline.py --library library.smi --batches 32 256 1024 4096

A Llama of the shape of SmolLM2-135M (random weights: they do not change the speed) in bitsandbytes' 4 bits reads a
prompt of 64 tokens for every molecule; each row's own low-rank weights (rank 64, ready made) are added beside every
feed-forward block at all positions; the answer is the last token's logit. That is one property. Beside it the pack
`admet` reads and scores a library, if one is given. Prints molecules per second and peak memory of each
batch size, and, as the last line, JSON. Needs a GPU to be meaningful; `--device cpu --layers 2` tries it out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mora_lite

SHAPE = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
ROWS = 4096  # of a library at a time


def load_pipeline(layers: int, device: torch.device) -> Any:
    """A random model of that shape in NF4, as transformers loads it."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**SHAPE, num_hidden_layers=layers)).bfloat16().save_pretrained(folder)
        return AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=settings, dtype=torch.bfloat16, device_map={"": str(device)}
        ).eval()


class Branches:
    """Low-rank weights of the present batch, added beside every feed-forward block."""

    def __init__(self, model: Any, rank: int, device: torch.device):
        width = SHAPE["hidden_size"]
        assert isinstance(width, int)
        self.a: list[Tensor] = []
        self.c = [torch.randn(rank, width, device=device, dtype=torch.bfloat16) for _ in model.model.layers]
        for index, layer in enumerate(model.model.layers):
            layer.mlp.register_forward_hook(self._hook(index))

    def _hook(self, index: int) -> Any:
        def add(_: object, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            return output + torch.einsum("btd,bdr,re->bte", inputs[0], self.a[index], self.c[index])

        return add

    def make(self, batch: int) -> None:
        """New weights for a batch; their cost is not counted."""
        rank, width = self.c[0].shape
        device = self.c[0].device
        self.a = [torch.randn(batch, width, rank, device=device, dtype=torch.bfloat16) * 0.01 for _ in self.c]


def molecules_per_second(model: Any, branches: Branches, batch: int, tokens: int, seconds: float) -> dict[str, Any]:
    """Of one batch size; `oom` when memory does not suffice."""
    device = branches.c[0].device
    on_gpu = device.type == "cuda"
    try:
        branches.make(batch)
        ids = torch.randint(0, 1000, (batch, tokens), device=device)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        with torch.inference_mode():
            model(ids, logits_to_keep=1)
            times, started = [], time.perf_counter()
            while not times or time.perf_counter() - started < seconds:
                begun = time.perf_counter()
                model(ids, logits_to_keep=1)
                if on_gpu:
                    torch.cuda.synchronize(device)
                times.append(time.perf_counter() - begun)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"batch": batch, "oom": True}
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if on_gpu else None
    return {"batch": batch, "mol_per_s": batch / sorted(times)[len(times) // 2], "peak_gib": peak, "calls": len(times)}


def screened_per_second(library: Path, tasks: int, device: torch.device) -> dict[str, Any]:
    """Reading and parsing a library, and `Model.score_graphs` of it; the best of three passes, for the first warms up.

    Beside the whole: `Model.score_graphs` alone, of graphs that were parsed before.
    """
    from mora_lite import load
    from mora_lite.machine.prefetch import map_ahead, read_ahead
    from mora_lite.machine.workers import default_workers
    from mora_lite.packs.pack import open_pack
    from mora_lite.tables.library import open_library
    from mora_lite.tables.parsed import parse_window

    names = [task.name for task in open_pack("admet").tasks][:tasks]
    model = load("admet", device=str(device), tasks=names)
    whole, alone = [], []
    for _ in range(3):
        n_rows, started = 0, time.perf_counter()
        with open_library(library) as opened:
            for parsed in map_ahead(parse_window, read_ahead(opened.windows(ROWS)), default_workers()):
                model.score_graphs(parsed.graphs)
                n_rows += len(parsed)
        whole.append(n_rows / (time.perf_counter() - started))
    with open_library(library) as opened:
        graphs = [parse_window(window).graphs for window in opened.windows(ROWS)]
    for _ in range(3):
        started = time.perf_counter()
        for part in graphs:
            model.score_graphs(part)
        alone.append(n_rows / (time.perf_counter() - started))
    found = {"tasks": tasks, "rows": n_rows, "mol_per_s": max(whole), "scoring_alone": max(alone)}
    return found | {"molecule_tasks_per_s": max(whole) * tasks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 256, 1024, 2048])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each batch size")
    parser.add_argument("--library", type=Path, help="a library to screen beside it")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 3, 12])
    options = parser.parse_args()
    device = torch.device(options.device)
    model = load_pipeline(options.layers, device)
    branches = Branches(model, options.rank, device)
    rows = []
    for batch in options.batches:
        rows.append(molecules_per_second(model, branches, batch, options.tokens, options.seconds))
        print(rows[-1], flush=True)
    del model, branches
    ours = [screened_per_second(options.library, n, device) for n in options.tasks] if options.library else []
    for row in ours:
        print(row, flush=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    versions = {package: metadata.version(package) for package in ("torch", "transformers", "bitsandbytes")}
    versions["mora-lite"] = mora_lite.__version__
    print(
        json.dumps(
            {"pipeline": rows, "mora_lite": ours, "device": name, "versions": versions, "date": str(date.today())}
        )
    )


if __name__ == "__main__":
    main()
