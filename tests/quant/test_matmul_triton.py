"""The Triton product: by Triton's interpreter on a CPU, and by itself where there is a CUDA device."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mora_lite.errors import InputError
from mora_lite.quant.nf4 import NF4_CODE, quantize_nf4
from mora_lite.quant.tiling import tile_nf4, untile_nf4
from mora_lite.quant.tuning import SHAPES, candidates, choose_config, parts, tile_rows

# Distance from float64 by norm. The interpreter cuts bfloat16 off where a device rounds: twice the error.
LIMITS = {"float16": 5e-4, "bfloat16": 6e-3}
pytest.importorskip("triton", minversion="3.4")


def case(m: int, n: int, k: int, dtype: str, config: tuple[int, ...] | None = None, **more: Any) -> dict[str, Any]:
    """One product for `triton_works`."""
    plain = {"rank": 0, "molecules": 0, "bias": False, "double": False}
    return {"m": m, "n": n, "k": k, "dtype": dtype, "config": config, **plain, **more}


CASES = {
    f"{name} {dtype}": case(*sizes, dtype, **more)
    for dtype in LIMITS
    for name, sizes, more in [
        ("one row, one block", (1, 16, 64), {}),
        ("three rows, an odd number of outputs", (3, 201, 192), {"bias": True}),
        ("a whole tile", (16, 128, 256), {"double": True}),
        ("one row more than two tiles", (33, 70, 320), {"config": (32, 16, 1, 1, 2, 2, True)}),
        ("the most rows", (128, 130, 128), {}),
        ("rows for torch", (129, 40, 64), {"rank": 3, "bias": True}),
        ("K in parts of unequal length", (5, 64, 704), {"config": (64, 16, 3, 1, 3, 2, False), "bias": True}),
        ("as many parts as blocks", (2, 64, 192), {"config": (16, 16, 3, 1, 3, 1, False)}),
        ("two blocks a step", (20, 96, 512), {"config": (64, 32, 2, 2, 3, 4, True)}),
        ("a branch of rank 1", (4, 96, 128), {"rank": 1}),
        (
            "a branch of rank 5 and K in parts",
            (17, 130, 640),
            {"rank": 5, "bias": True, "config": (64, 16, 5, 2, 2, 2, False)},
        ),
        ("a branch of rank 32", (3, 64, 1280), {"rank": 32, "double": True}),
        ("a branch of rank 64", (2, 64, 192), {"rank": 64}),
        ("rows that share molecules", (9, 64, 256), {"rank": 8, "molecules": 4}),
    ]
}


# On a device each combination of the kernels' constants takes seconds to compile, so these cases share few of them: the
# number of rows, K, its parts and ranks up to 16 are not constants. Whether the number of outputs is a multiple of 16
# counts as one: none is here, all are in test_linear.py. A tuple is a `Config`.
PARTS = (64, 16, 3, 1, 4, 2, False)
WHOLE = (64, 16, 1, 1, 4, 2, False)
BOTH = ("bfloat16", "float16")
DEVICE_CASES = {
    f"{name} {dtype}": case(*sizes, dtype, **more)
    for name, dtypes, sizes, more in [
        ("K in parts of unequal length", BOTH, (1, 201, 704), {"config": PARTS, "rank": 5}),
        ("a whole tile", BOTH, (16, 130, 704), {"config": PARTS, "rank": 5, "double": True}),
        (
            "as many parts as blocks, rows share molecules",
            BOTH[:1],
            (9, 201, 192),
            {"config": PARTS, "rank": 5, "molecules": 4},
        ),
        ("a branch of rank 1", BOTH[:1], (4, 201, 704), {"config": PARTS, "rank": 1}),
        ("one row, one block", BOTH, (1, 17, 64), {"config": WHOLE}),
        ("one row more than two tiles", BOTH, (33, 70, 320), {"config": WHOLE}),
        ("two blocks a step", BOTH[:1], (16, 201, 512), {"config": (128, 16, 1, 2, 3, 4, True), "bias": True}),
        ("a branch of rank 32", BOTH[:1], (20, 70, 512), {"config": (128, 32, 2, 1, 4, 4, True), "rank": 32}),
        ("a branch of rank 64", BOTH, (33, 70, 320), {"config": (64, 64, 5, 1, 4, 4, True), "rank": 64, "bias": True}),
        ("the most rows", BOTH[:1], (128, 130, 128), {"config": (128, 128, 2, 1, 3, 8, True)}),
        ("rows for torch", BOTH[:1], (129, 41, 64), {"rank": 5, "molecules": 7, "bias": True}),
    ]
    for dtype in dtypes
}


@pytest.fixture(scope="module")
def interpreted() -> dict[str, dict[str, float]]:
    """What `triton_works` says of all cases, in one process under the interpreter."""
    # Triton 3.6 cannot loop over numbers of numpy 2.4 when it interprets.
    pytest.importorskip("triton", minversion="3.7")
    worker = Path(__file__).parents[1] / "support" / "triton_works.py"
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, worker],
        input="\n".join(map(json.dumps, CASES.values())),
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_products_are_near_float64(interpreted: dict[str, dict[str, float]], name: str) -> None:
    found = interpreted[name]
    assert found["product"] < LIMITS[CASES[name]["dtype"]]
    assert found.get("branch", 0.0) < 1e-5
    assert found["repeats"] == found["dequantised"] == 1.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", DEVICE_CASES)
def test_compiled_products_are_near_float64(name: str) -> None:
    from triton_works import distance

    found = distance(DEVICE_CASES[name], "cuda")
    assert found["product"] < LIMITS[DEVICE_CASES[name]["dtype"]]
    assert found.get("branch", 0.0) < 1e-5
    assert found["repeats"] == found["dequantised"] == 1.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_measured_tiles_are_kept_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    from kernel_timing import tune

    from mora_lite.quant.matmul_triton import multiply_tiled

    processors = torch.cuda.get_device_properties("cuda").multi_processor_count
    # The tile of rows with the fewest candidates to compile.
    best = tune(multiply_tiled, [(128, 256, 512)])[128, 256, 512]
    assert best in candidates(128, 256, 512, processors)
    assert choose_config(65, 256, 512, processors) == best  # of the same tile of rows


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_assembly_looks_up_every_code_at_every_place(dtype: torch.dtype) -> None:
    """The interpreter cannot run assembly, so a few lines here do: all 16 codes in all 8 nibbles of a register."""
    from mora_lite.quant.ptx import prmt_assembly

    levels = NF4_CODE.to(dtype)
    text = prmt_assembly(dtype)
    for code in range(16):
        nibbles = [(code + 3 * place) % 16 for place in range(8)]
        word = sum(nibble << (4 * place) for place, nibble in enumerate(nibbles))
        registers = run_ptx(text, {"$4": word})
        for byte in range(4):
            pair = torch.tensor([registers[f"${byte}"]]).to(torch.int32).view(dtype)
            # The high nibble is the first of a pair.
            assert pair.tolist() == [levels[nibbles[2 * byte + 1]].item(), levels[nibbles[2 * byte]].item()]


def run_ptx(text: str, registers: dict[str, int]) -> dict[str, int]:
    """What the few instructions of PTX that the kernel uses leave in the registers, all of 32 bits."""

    def value(name: str) -> int:
        return int(name, 16) if name.startswith("0x") else int(name) if name.isdigit() else registers[name]

    def permute(a: int, b: int, selector: int) -> int:
        table = a.to_bytes(4, "little") + b.to_bytes(4, "little")
        chosen = [(selector >> (4 * i)) & 15 for i in range(4)]
        # The highest bit of a selector spreads the sign of the byte over all of it.
        return int.from_bytes(
            bytes((255 if table[s & 7] >> 7 else 0) if s & 8 else table[s & 7] for s in chosen), "little"
        )

    operations: dict[str, Callable[..., int]] = {
        "mov": lambda a: a,
        "and": lambda a, b: a & b,
        "xor": lambda a, b: a ^ b,
        "shr": lambda a, b: a >> b,
        "shl": lambda a, b: (a << b) & 0xFFFFFFFF,
        "prmt": permute,
        "lop3": lambda a, b, c, table: (a & b) | (~a & c & 0xFFFFFFFF) if table == 0xCA else -1,  # 0xCA: a ? b : c
    }
    lane = 13
    registers |= {"%lanemask_eq": 1 << lane, "%lanemask_lt": (1 << lane) - 1}
    for operation, target, rest in re.findall(r"(?m)^(\w+)\.[bu]32 ([$\w]+), (.*);$", text):
        registers[target] = operations[operation](*(value(name) for name in rest.split(", ")))
    return registers


def test_the_layout_keeps_every_bit() -> None:
    q = quantize_nf4(torch.randn(70, 192))
    w = tile_nf4(q)
    assert w.codes.shape == (3, 128, 8, 4)
    assert w.nbytes == w.codes.numel() + 4 * w.scales.numel()
    again = untile_nf4(w)
    assert torch.equal(again.codes, q.codes)
    assert torch.equal(again.absmax, q.absmax)
    # Byte [b, n, p, i] holds columns 64 b + 16 i + 2 p and the next one.
    assert w.codes[2, 69, 5, 3] == q.codes.view(70, 96)[69, (2 * 64 + 3 * 16 + 2 * 5) // 2]


def test_double_quantisation_is_undone_once() -> None:
    q = quantize_nf4(torch.randn(33, 640), double=True)
    assert torch.equal(untile_nf4(tile_nf4(q)).absmax, q.scales())


def test_counters_that_a_recorded_graph_uses_are_kept() -> None:
    from mora_lite.quant import matmul_triton

    key, cpu = ("a stream", 7), torch.device("cpu")
    first = matmul_triton._stream_zeros(key, 10, cpu)
    assert matmul_triton._stream_zeros(key, 20, cpu) is first
    larger = matmul_triton._stream_zeros(key, 10_000, cpu)
    assert len(larger) >= 10_000
    assert matmul_triton._stream_zeros(key, 10, cpu) is larger
    assert matmul_triton._counters.pop(key)[0] is first


def test_wrong_operands() -> None:
    from mora_lite.quant.matmul_triton import multiply_tiled, project_rows

    w = tile_nf4(quantize_nf4(torch.randn(16, 128)))
    x = torch.randn(2, 128, dtype=torch.bfloat16)
    with pytest.raises(InputError, match=r"got torch.float32 .*, expected bfloat16 or float16 \[M, 128\]"):
        multiply_tiled(x.float(), w)
    with pytest.raises(InputError, match=r"got torch.bfloat16 \[2, 64\]"):
        multiply_tiled(x[:, :64], w)
    with pytest.raises(InputError, match=r"got r \[2, 4\] and c None, expected r \[2, R\] and c \[R, 16\] together"):
        multiply_tiled(x, w, r=torch.zeros(2, 4))
    with pytest.raises(InputError, match="a: got"):
        project_rows(x, torch.zeros(3, 128, 4))
    with pytest.raises(InputError, match="multiple of 64 columns"):
        tile_nf4(quantize_nf4(torch.randn(16, 96)))
    with pytest.raises(InputError, match="blocks of 128"):
        tile_nf4(quantize_nf4(torch.randn(16, 128), block=128))


@pytest.mark.parametrize(("m", "tile"), [(1, 16), (16, 16), (17, 32), (64, 64), (65, 128), (128, 128)])
def test_a_tile_holds_all_rows(m: int, tile: int) -> None:
    assert tile_rows(m) == tile
    assert all(config.block_m == tile for config in candidates(m, 4096, 11008, 132))


@pytest.mark.parametrize("block_m", SHAPES)
def test_every_candidate_can_be_launched(block_m: int) -> None:
    for config in candidates(block_m, 4096, 11008, 132):
        assert 128 % config.block_n == 0
        assert 1 <= config.split <= 16
        assert config.warps in (1, 2, 4, 8)
    assert choose_config(block_m, 4096, 11008, 132) == candidates(block_m, 4096, 11008, 132)[0]


@pytest.mark.parametrize(
    ("tiles", "steps", "slots", "split"),
    [(1, 1, 528, 1), (1, 172, 528, 16), (528, 64, 528, 1), (172, 64, 528, 3), (32, 172, 528, 16)],
)
def test_parts_fill_the_device(tiles: int, steps: int, slots: int, split: int) -> None:
    assert parts(tiles, steps, slots) == split


def test_the_command_line_does_not_import_triton(tmp_path: Path) -> None:
    assert importlib.util.find_spec("triton") is not None
    code = "import sys, mora_lite.quant.matmul, mora_lite.quant.tuning; sys.exit('triton' in sys.modules)"
    # From another folder, and without the checkout on the path: its mora_lite/ is only a part of the package.
    path = os.pathsep.join(p for p in sys.path if p and not (Path(p) / "pyproject.toml").exists())
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0
