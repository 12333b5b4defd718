"""The decoder matrices of a checkpoint quantised to NF4, and what that cost.

The seven matrices of each layer become NF4; embeddings, head, norms and biases stay as they are. Where those are of
several types, as in most GGUF files, they get one 16-bit type: transformers runs no mixture. One weight is in memory at
a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, OutputError
from ..machine.files import check_free
from .checkpoint import Checkpoint, is_finite
from .huggingface import HuggingFaceCheckpoint
from .nf4 import PIECE, NF4Tensor, dequantize_nf4, quantize_nf4
from .writer import KIND, write_checkpoint

KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MATRIX = re.compile(rf"model\.layers\.\d+\.(?:self_attn|mlp)\.({'|'.join(KINDS)})\.weight")

Progress = Callable[[int, int, str], None]


@dataclass
class QuantReport:
    """What quantising did. Errors are sums of squares over sums of squares.

    bits_per_weight: of the quantised matrices, scales included.
    bytes_source, bytes_out: of the weights as stored in the source, and as written.
    bytes_16bit: all weights at 16 bits each.
    relative_error: by kind of matrix.
    """

    matrices: int = 0
    weights_quantized: int = 0
    weights_total: int = 0
    bits_per_weight: float = 0.0
    bytes_source: int = 0
    bytes_16bit: int = 0
    bytes_out: int = 0
    relative_error: dict[str, float] = field(default_factory=dict)
    relative_error_all: float = 0.0
    perplexity_before: float | None = None
    perplexity_after: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)


def quantize_checkpoint(
    src: Checkpoint, out_dir: str | Path, double: bool = False, progress: Progress | None = None, *, force: bool = False
) -> QuantReport:
    """Write `src` in 4 bits to `out_dir`. `progress(done, total, name)` is called for each weight.

    Raises `CheckpointError` if `src`, from `open_checkpoint`, is 4-bit already or holds a value that is not finite, and
    `OutputError` if `out_dir` exists (without `force`), holds `src`, or cannot be written.
    """
    names, out = src.names(), Path(out_dir).expanduser()
    _check(src, out, force)
    common = _common_dtype({src.dtype(name) for name in names if not MATRIX.fullmatch(name)})
    report = QuantReport()
    error = dict.fromkeys(KINDS, 0.0)
    power = dict.fromkeys(KINDS, 0.0)
    bits = 0

    def convert(name: str) -> Tensor | NF4Tensor:
        nonlocal bits
        weight = src.load(name)
        assert isinstance(weight, Tensor)
        report.weights_total += weight.numel()
        report.bytes_source += src.nbytes(name)
        match = MATRIX.fullmatch(name)
        if match is None:
            plain = weight.to(common)
            if not is_finite(plain):
                raise CheckpointError(f"{src.path}: {name} holds values too large for {common}")
            report.bytes_out += plain.numel() * plain.element_size()
            return plain
        q = quantize_nf4(weight.float() if weight.dtype == torch.float64 else weight, double=double)
        report.matrices += 1
        report.weights_quantized += weight.numel()
        report.bytes_out += q.nbytes
        bits += 8 * q.nbytes
        differences, squares = _squares(weight, q)
        error[match[1]] += differences
        power[match[1]] += squares
        return q

    def stream() -> Iterator[tuple[str, Tensor | NF4Tensor]]:
        for done, name in enumerate(names):
            if progress is not None:
                progress(done, len(names), name)
            yield name, convert(name)  # no variable here refers to it, so that one weight is in memory at a time
        if progress is not None:
            progress(len(names), len(names), "")

    tokenizer = src.path if isinstance(src, HuggingFaceCheckpoint) else src.tokenizer
    write_checkpoint(out, src.config | {"dtype": str(common).removeprefix("torch.")}, stream(), tokenizer, force=force)
    report.bits_per_weight = bits / report.weights_quantized
    report.bytes_16bit = 2 * report.weights_total
    report.relative_error = {kind: error[kind] / power[kind] for kind in KINDS if power[kind]}
    report.relative_error_all = sum(error.values()) / max(sum(power.values()), 1e-38)
    return report


def _check(src: Checkpoint, out: Path, force: bool) -> None:
    """Raise what `quantize_checkpoint` raises before any work."""
    if src.config.get("quantization_config"):
        raise CheckpointError(f"{src.path}: it is in 4 bits already; quantise the 16-bit model instead")
    check_free(out, force, *KIND)
    if out.resolve() in (src.path.resolve(), *src.path.resolve().parents):
        raise OutputError(f"{out}: holds the source, which would be lost; choose another directory")


def _common_dtype(dtypes: set[torch.dtype]) -> torch.dtype:
    """One type for the weights that are not quantised. Norms that were bf16 once fit float16 exactly."""
    if len(dtypes) == 1:
        return dtypes.pop()
    return torch.bfloat16 if torch.bfloat16 in dtypes else torch.float16


def _squares(weight: Tensor, q: NF4Tensor) -> tuple[float, float]:
    """Sums of the squared differences and of the squared weights, in pieces: a float32 copy is twice as large as the
    weight.
    """
    flat, scales = weight.reshape(-1), q.scales()
    differences = squares = 0.0
    for at in range(0, flat.numel(), PIECE):
        exact = flat[at : at + PIECE].float()
        end = at + exact.numel()
        codes = q.codes.reshape(-1)[at // 2 : -(-end // 2)]
        piece = NF4Tensor(codes, scales[at // q.block : -(-end // q.block)], tuple(exact.shape), q.block)
        differences += (dequantize_nf4(piece) - exact).square().sum(dtype=torch.float64).item()
        squares += exact.square().sum(dtype=torch.float64).item()
    return differences, squares
