"""Work for `test_matmul_triton`, in a process of its own: Triton's interpreter has to be chosen before Triton is
imported. Reads JSON, one product a line, and writes how far each is from float64.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from mora_lite.quant.matmul_triton import dequantize_tiled, multiply_tiled, project_rows
from mora_lite.quant.nf4 import dequantize_nf4, quantize_nf4
from mora_lite.quant.tiling import tile_nf4
from mora_lite.quant.tuning import Config


def distance(case: dict[str, Any], device: str = "cpu") -> dict[str, float]:
    """Relative distances (by norm) of a product and of its branch's first half from float64; whether the same product
    gives the same bits again; whether dequantising gives the bits of the reference. All operands are random; columns of
    c and bias are large enough to be missed.
    """
    torch.manual_seed(case["m"] + case["n"])
    m, n, k, rank, molecules = (case[name] for name in ("m", "n", "k", "rank", "molecules"))
    dtype = getattr(torch, case["dtype"])
    q = quantize_nf4(torch.randn(n, k) / k**0.5, double=case["double"]).to(device)
    x = torch.randn(m, k, device=device).to(dtype)
    bias = torch.randn(n, device=device).to(dtype) if case["bias"] else None
    expected = x.double() @ dequantize_nf4(q).double().T + (0 if bias is None else bias.double())
    r = c = None
    found = {}
    if rank:
        rows = torch.randint(molecules, (m,), device=device) if molecules else None
        a = torch.randn(molecules or m, 2, k, rank, device=device).to(dtype)[:, 1]  # of the second of two layers
        c = torch.randn(rank, n, device=device).to(dtype)
        r = project_rows(x, a, 0.125, rows)
        exact = 0.125 * torch.einsum("mk,mkr->mr", x.double(), (a if rows is None else a[rows]).double())
        expected += exact @ c.double()
        found["branch"] = _relative(r, exact)
    w = tile_nf4(q)
    found["dequantised"] = float(torch.equal(dequantize_tiled(w, torch.float32), dequantize_nf4(q)))
    config = Config(*case["config"]) if case["config"] else None
    y = multiply_tiled(x, w, bias, r, c, config=config)
    assert y.dtype == dtype
    found["product"] = _relative(y, expected)
    found["repeats"] = float(torch.equal(y, multiply_tiled(x, w, bias, r, c, config=config)))
    return found


def _relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got.double() - expected).norm() / expected.norm()).item()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(distance(json.loads(line))), flush=True)
