"""What `decode_7b.py` measures on: a Llama of random weights, random prompts and branches, and how time is taken."""

from __future__ import annotations

import argparse
import statistics
import time
import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mora_lite.adapter.lowrank import Branch
from mora_lite.quant.nf4 import NF4Tensor


class RandomModel:
    """A checkpoint of random numbers that are made when they are asked for, always the same for a name."""

    def __init__(self, options: argparse.Namespace, device: torch.device):
        self.config = {
            "model_type": "llama",
            "vocab_size": options.vocabulary,
            "hidden_size": options.width,
            "intermediate_size": options.ffn,
            "num_hidden_layers": options.layers,
            "num_attention_heads": options.heads,
            "num_key_value_heads": options.heads,
            "tie_word_embeddings": False,
        }
        width, ffn = options.width, options.ffn
        self.shapes: dict[str, tuple[int, ...]] = {"model.norm.weight": (width,)}
        for name in ("model.embed_tokens", "lm_head"):
            self.shapes[f"{name}.weight"] = (options.vocabulary, width)
        for at in (f"model.layers.{i}" for i in range(options.layers)):
            self.shapes |= {f"{at}.self_attn.{n}_proj.weight": (width, width) for n in "qkvo"}
            self.shapes |= {f"{at}.mlp.{n}_proj.weight": (ffn, width) for n in ("gate", "up")}
            self.shapes[f"{at}.mlp.down_proj.weight"] = (width, ffn)
            self.shapes |= {f"{at}.{n}_layernorm.weight": (width,) for n in ("input", "post_attention")}
        self.device = device

    def names(self) -> list[str]:
        return list(self.shapes)

    def load(self, name: str) -> Tensor | NF4Tensor:
        shape = self.shapes[name]
        if len(shape) == 1:
            return torch.ones(shape, device=self.device)
        rng = torch.Generator(self.device).manual_seed(zlib.crc32(name.encode()))
        if "proj" not in name:
            return torch.randn(shape, generator=rng, device=self.device, dtype=torch.bfloat16) * shape[1] ** -0.5
        n, k = shape
        codes = torch.randint(0, 256, (n * k // 2,), dtype=torch.uint8, generator=rng, device=self.device)
        # The 16 levels have a root mean square of about 0.58: outputs are as large as inputs.
        scales = (torch.rand(n * k // 64, generator=rng, device=self.device) + 0.5) * (1.7 * k**-0.5)
        return NF4Tensor(codes, scales, shape)


def make_branch(options: argparse.Namespace, batch: int, device: torch.device) -> Branch:
    """bfloat16 weights of every layer for each row; their making is not counted."""
    rng = torch.Generator(device).manual_seed(batch)
    size = {"generator": rng, "device": device, "dtype": torch.bfloat16}
    a = torch.randn(batch, options.layers, options.width, options.rank, **size) * options.width**-0.5
    return Branch(a, torch.randn(options.layers, options.rank, options.width, **size) * 0.1, 1.0)


def make_prompts(options: argparse.Namespace, batch: int) -> list[list[int]]:
    rng = torch.Generator().manual_seed(batch)
    return torch.randint(0, options.vocabulary, (batch, options.prompt), generator=rng).tolist()


def median_seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """After one call that is not counted; the device has finished at the end of each."""
    seconds = []
    for _ in range(repeats + 1):
        finish()
        started = time.perf_counter()
        work()
        finish()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def reset_memory() -> None:
    """Lets go of what nothing uses, and starts the peaks of `memory` anew."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory() -> dict[str, float]:
    """Peaks since the last reset, in GiB: of tensors, and of what torch holds of the device."""
    if not torch.cuda.is_available():
        return {}
    peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return dict(zip(("allocated_gib", "reserved_gib"), (round(peak / 2**30, 2) for peak in peaks), strict=True))


def rates(text: Callable[[int], Any], batch: int, new: int, repeats: int) -> dict[str, float]:
    """Tokens per second of `text(number of new tokens)`; decode: without the prompt and its first token."""
    whole, first = median_seconds(lambda: text(new), repeats), median_seconds(lambda: text(1), repeats)
    step = (whole - first) / (new - 1)
    found = {"whole_tok_s": batch * new / whole, "decode_tok_s": batch / step, "step_ms": step * 1e3}
    return {name: round(value, 2) for name, value in found.items()} | {"prompt_ms": round(first * 1e3, 1)}
