"""Products with NF4 weights for 1 to 128 rows: the Triton kernel beside bitsandbytes, cuBLAS on the dequantised
weight, and cuBLAS on a bfloat16 weight.

    python benchmarks/nf4_gemm.py --output nf4_gemm.jsonl

First every configuration is compared with float32 at the sizes that are timed, and has to give the same bits twice;
then each is timed. Times are medians over replays of a CUDA graph of calls on enough copies of the weight that none
is found in the cache. The floor is the time to read codes and fp32 scales at 3.0 TB/s. Lines of JSON are written as
they come; at the end a table. Needs a CUDA GPU and Triton, and bitsandbytes if it is to be compared. It stops timing
after `--seconds`. `--device cpu --shapes 96x128 --rows 3`, with TRITON_INTERPRET=1 in the environment, tries it out.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from kernel_timing import random_nf4, time_calls
from torch import Tensor

from mora_lite.quant import tuning
from mora_lite.quant.matmul_triton import multiply_tiled, project_rows
from mora_lite.quant.nf4 import NF4_CODE, NF4Tensor, dequantize_nf4, quantize_nf4
from mora_lite.quant.tiling import TiledNF4, tile_nf4
from mora_lite.quant.tuning import Config, candidates

BANDWIDTH = 3.0e12  # bytes per second
LIMIT = {torch.bfloat16: 4e-3, torch.float16: 5e-4}
CACHE = 250e6  # bytes of weights in one round: several times the cache of the GPU


class Record:
    """Results as they come: one line of JSON each, on stdout or in a file."""

    def __init__(self, path: Path | None):
        self.rows: list[dict[str, Any]] = []
        self.file = sys.stdout if path is None else path.open("w")

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        print(json.dumps(row), file=self.file, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["22016x4096", "4096x11008"], help="weights [N, K]: NxK")
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64, 128])
    parser.add_argument("--rank", type=int, default=64, help="of the branch that is timed as well")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=110)
    parser.add_argument("--sweep", action="store_true", help="other numbers of parts of K as well")
    parser.add_argument("--output", type=Path, help="lines of JSON; stdout if not given")
    args = parser.parse_args()
    device = torch.device(args.device)
    until = time.perf_counter() + args.seconds
    record = Record(args.output)
    record.add(kind="machine", **machine(device))
    shapes = [(int(n), int(k)) for n, k in (shape.split("x") for shape in args.shapes)]
    for n, k in shapes:
        for m in sorted({tuning.tile_rows(rows) for rows in args.rows}):
            check(record, m, n, k, args.rank, device)
    for n, k in shapes:
        copies = 2 if device.type == "cpu" else max(2, min(10, round(CACHE / (n * k / 2))))
        weights = [random_nf4(n, k, device) for _ in range(copies)]
        tiled = [tile_nf4(q) for q in weights]
        for m in args.rows:
            measure(record, m, weights, tiled, args, until)
        del weights, tiled
    print_table(record.rows)
    if any(row["kind"] == "wrong" for row in record.rows):
        sys.exit("Some products are wrong: see the lines of kind 'wrong'.")


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were taken on."""
    import triton

    found = {"date": date.today().isoformat(), "torch": torch.__version__, "triton": triton.__version__}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        block = torch.empty(1 << 30, dtype=torch.uint8, device=device)
        seconds = time_calls([functools.partial(block[: 1 << 29].copy_, block[1 << 29 :])])
        found |= {"gpu": properties.name, "processors": properties.multi_processor_count}
        found["copy_tb_per_s"] = round(2**30 / seconds / 1e12, 2)
    try:
        import bitsandbytes

        found["bitsandbytes"] = bitsandbytes.__version__
    except ImportError:
        found["bitsandbytes"] = "none"
    return found


def configurations(m: int, n: int, k: int, device: torch.device, sweep: bool = False) -> list[Config]:
    """The candidates of `tuning`; with `sweep` each with more and fewer parts of K too, which compiles nothing new."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
    found = candidates(m, n, k, processors)
    if sweep:
        for config in list(found):
            splits = {max(1, config.split // 2), config.split - 1, config.split + 1, min(16, config.split * 2)}
            found += [config._replace(split=split) for split in sorted(splits - {0, config.split}) if split <= k // 64]
    return list(dict.fromkeys(found))


def check(record: Record, m: int, n: int, k: int, rank: int, device: torch.device) -> None:
    """Each configuration on m - 1 rows, with bias and branch in the first one, against float32."""
    torch.manual_seed(m)
    q = quantize_nf4(torch.randn(n, k, device=device) / k**0.5)
    w, exact = tile_nf4(q), dequantize_nf4(q)
    rows = max(1, m - 1)
    for dtype in (torch.bfloat16, torch.float16):
        x = torch.randn(rows, k, device=device).to(dtype)
        plain = x.float() @ exact.T
        for i, config in enumerate(configurations(rows, n, k, device)):
            if dtype == torch.float16 and i:
                continue  # one is enough: compilation takes most of the time
            y = multiply_tiled(x, w, config=config)
            judge(record, y, multiply_tiled(x, w, config=config), plain, m=rows, n=n, k=k, config=config)
        if dtype == torch.bfloat16:
            a, c = (torch.randn(*size, device=device).to(dtype) for size in ((rows, k, rank), (rank, n)))
            bias = torch.randn(n, device=device).to(dtype)
            r = project_rows(x, a, 0.125)
            expected = plain + 0.125 * torch.bmm(x.float()[:, None], a.float())[:, 0] @ c.float() + bias.float()
            y, again = (multiply_tiled(x, w, bias, r, c) for _ in range(2))
            judge(record, y, again, expected, m=rows, n=n, k=k, config="branch")


def judge(record: Record, y: Tensor, again: Tensor, expected: Tensor, **what: Any) -> None:
    """A line of kind `right` or `wrong`."""
    error = ((y.float() - expected).norm() / expected.norm()).item()
    right = error < LIMIT[y.dtype] * (1 if y.is_cuda else 2) and torch.equal(y, again)
    if not right:
        print(f"WRONG: {what} {y.dtype}: error {error:.2g}, same bits {torch.equal(y, again)}", file=sys.stderr)
    what |= {"dtype": str(y.dtype), "error": error, "same_bits": torch.equal(y, again)}
    record.add(kind="right" if right else "wrong", **what)


def measure(
    record: Record,
    m: int,
    weights: list[NF4Tensor],
    tiled: list[TiledNF4],
    args: argparse.Namespace,
    until: float,
) -> None:
    """Times everything at one size; what does not fit into the time is left out, the first candidate never."""
    (n, k), device = tiled[0].shape, tiled[0].codes.device
    x = torch.randn(m, k, device=device).bfloat16()
    floor = (weights[0].codes.numel() + 4 * weights[0].absmax.numel()) / BANDWIDTH

    def add(method: str, calls: list[Callable[[], object]], **more: Any) -> None:
        if more.get("late", True) and time.perf_counter() > until:
            return
        seconds = time_calls(calls)
        rate = floor * BANDWIDTH / seconds / 1e9
        row = {"us": round(seconds * 1e6, 2), "gb_per_s": round(rate), "times_floor": round(seconds / floor, 2)}
        record.add(kind="time", m=m, n=n, k=k, method=method, **row)

    for i, config in enumerate(configurations(m, n, k, device, args.sweep)):
        calls = [functools.partial(multiply_tiled, x, w, config=config) for w in tiled]
        add(
            f"triton {config.block_n}x{config.block_m}/{config.split} w{config.warps} s{config.stages}",
            calls,
            late=i > 0,
        )
    for name, functions in rivals(x, weights).items():
        add(name, functions, late=name != "bitsandbytes")
    if m in (8, 32):
        add("triton with branch", [functools.partial(with_branch, *branch(x, n, args.rank), w) for w in tiled])


def name_of(config: Config) -> str:
    """Tile, parts of K, then warps, stages, blocks a step, and j if its planes are joined."""
    tile = f"{config.block_n}x{config.block_m}/{config.split}"
    return f"{tile} w{config.warps} s{config.stages} b{config.blocks}{' j' if config.joined else ''}"


def branch(x: Tensor, n: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """x, an own factor for each row, and a shared one."""
    a = torch.randn(*x.shape, rank, device=x.device, dtype=x.dtype)
    return x, a, torch.randn(rank, n, device=x.device, dtype=x.dtype)


def with_branch(x: Tensor, a: Tensor, c: Tensor, w: TiledNF4) -> Tensor:
    """Both halves of the branch and the product."""
    return multiply_tiled(x, w, r=project_rows(x, a, 0.125), c=c)


def rivals(x: Tensor, weights: list[NF4Tensor]) -> dict[str, list[Callable[[], object]]]:
    """Calls of the same product by other means."""
    found: dict[str, list[Callable[[], object]]] = {}
    try:
        import bitsandbytes

        code = NF4_CODE.to(x.device)
        states = [
            bitsandbytes.functional.QuantState(
                absmax=q.absmax, shape=torch.Size(q.shape), code=code, blocksize=64, quant_type="nf4", dtype=x.dtype
            )
            for q in weights
        ]
        found["bitsandbytes"] = [
            functools.partial(bitsandbytes.matmul_4bit, x, q.codes.view(-1, 1).t(), quant_state=state)
            for q, state in zip(weights, states, strict=True)
        ]
    except ImportError:
        pass
    if x.is_cuda:
        # Two copies in bfloat16 are far larger than the cache.
        full = [dequantize_nf4(q, x.dtype) for q in weights[:2]]
        found["cuBLAS bfloat16"] = [functools.partial(torch.nn.functional.linear, x, weight) for weight in full]
    return found


def print_table(rows: list[dict[str, Any]]) -> None:
    """The fastest configuration of each size beside the others, in microseconds."""
    timed = [row for row in rows if row["kind"] == "time"]
    names = ["ours", "x floor", "bnb", "bnb/ours", "bf16", "branch"]
    print(f"{'N x K':>12} {'M':>4} {' '.join(f'{name:>8}' for name in names)}  config")
    for n, k, m in dict.fromkeys((row["n"], row["k"], row["m"]) for row in timed):
        here = {row["method"]: row for row in timed if (row["n"], row["k"], row["m"]) == (n, k, m)}
        ours = {name: row for name, row in here.items() if name.startswith("triton ") and "branch" not in name}
        best = min(ours, key=lambda name: ours[name]["us"])

        def us(name: str, here: dict[str, dict[str, Any]] = here) -> str:
            return f"{here[name]['us']:.1f}" if name in here else "-"

        other = here.get("bitsandbytes")
        ratio = f"{other['us'] / ours[best]['us']:.2f}" if other else "-"
        print(
            f"{n:>6}x{k:<5} {m:>4} {us(best):>8} {ours[best]['times_floor']:>8.2f} {us('bitsandbytes'):>8} {ratio:>8} "
            f"{us('cuBLAS bfloat16'):>8} {us('triton with branch'):>8}  {best.removeprefix('triton ')}"
        )


if __name__ == "__main__":
    main()
