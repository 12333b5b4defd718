"""Linear4bit: two ways to compute, one result."""

from __future__ import annotations

import pytest
import torch

from mora_lite.errors import DeviceError
from mora_lite.quant.linear import Linear4bit, choose_mode
from mora_lite.quant.matmul import choose_kernel, force_kernel, linear_nf4, multiply
from mora_lite.quant.nf4 import dequantize_nf4, quantize_nf4

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(96, 64), (33, 70), (1, 576), (5, 3)])
def test_both_modes_give_equal_bits(shape: tuple[int, int], double: bool, dtype: torch.dtype) -> None:
    q, bias = quantize_nf4(torch.randn(shape), double=double), torch.randn(shape[0])
    resident = Linear4bit(q, bias, mode="resident", dtype=dtype)
    small = Linear4bit(q, bias, mode="4bit", dtype=dtype)
    for x in (torch.randn(1, shape[1]), torch.randn(2, 7, shape[1]), torch.randn(0, shape[1])):
        for x_dtype in (dtype, torch.float32):
            a, b = resident(x.to(x_dtype)), small(x.to(x_dtype))
            assert a.dtype == x_dtype
            assert torch.equal(a, b)


def test_the_result_is_that_of_the_dequantised_weight() -> None:
    q, x = quantize_nf4(torch.randn(24, 64)), torch.randn(5, 64)
    layer = Linear4bit(q)
    assert (layer.in_features, layer.out_features) == (64, 24)
    assert torch.equal(layer(x), x @ dequantize_nf4(q).T)
    assert torch.equal(linear_nf4(x, q), layer(x))


@pytest.mark.parametrize("mode", ["resident", "4bit"])
def test_gradients_reach_x_and_nothing_is_trained(mode: str) -> None:
    q = quantize_nf4(torch.randn(24, 64))
    layer = Linear4bit(q, torch.randn(24), mode=mode)
    x, seed = torch.randn(3, 64, requires_grad=True), torch.randn(3, 24)
    layer(x).backward(seed)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, seed @ dequantize_nf4(q))
    assert not list(layer.parameters())
    assert not any(buffer.requires_grad for buffer in layer.buffers())


def test_casting_the_module_leaves_the_scales_alone() -> None:
    q = quantize_nf4(torch.randn(24, 64), double=True)
    layer = Linear4bit(q, mode="4bit", dtype=torch.bfloat16).to(torch.bfloat16)
    assert torch.equal(dequantize_nf4(layer.nf4), dequantize_nf4(q))


def test_the_budget_chooses_the_mode() -> None:
    assert choose_mode(100, 100) == "resident"
    assert choose_mode(101, 100) == "4bit"


def test_the_kernel_is_plain_torch_on_the_cpu_unless_forced() -> None:
    q, x = quantize_nf4(torch.randn(24, 64)), torch.randn(3, 64)
    assert choose_kernel(x) == "torch"
    with pytest.raises(DeviceError, match="kernel"), force_kernel("magic"):
        pass
    pytest.importorskip("bitsandbytes")
    with force_kernel("bitsandbytes"):
        assert choose_kernel(x) == "bitsandbytes"
        torch.testing.assert_close(multiply(x, q), linear_nf4(x, q))
    assert choose_kernel(x) == "torch"


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="mode"):
        Linear4bit(quantize_nf4(torch.randn(2, 2)), mode="fast")
    with pytest.raises(ValueError, match="matrix"):
        Linear4bit(quantize_nf4(torch.randn(2)))
