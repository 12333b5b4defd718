"""Linear4bit: two ways to compute, one result."""

from __future__ import annotations

import pytest
import torch

from mora_lite.errors import CheckpointError, InputError
from mora_lite.quant import matmul
from mora_lite.quant.linear import Linear4bit, choose_mode
from mora_lite.quant.matmul import KERNELS, choose_kernel, linear_nf4, multiply, multiply_with_branch
from mora_lite.quant.nf4 import NF4Tensor, dequantize_nf4, quantize_nf4, to_tensors

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


def test_the_kernel_is_plain_torch_on_the_cpu() -> None:
    q, x = quantize_nf4(torch.randn(24, 64)), torch.randn(3, 64)
    assert choose_kernel(x, q) == "torch"
    assert torch.equal(multiply(x, q), linear_nf4(x, q))


def test_bitsandbytes_gives_the_same_product() -> None:
    pytest.importorskip("bitsandbytes")
    q, x = quantize_nf4(torch.randn(24, 64)), torch.randn(3, 64)
    torch.testing.assert_close(KERNELS["bitsandbytes"](x, q, None, None), linear_nf4(x, q))


@pytest.fixture
def triton_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights on the CPU are laid out as on a CUDA device; Triton's interpreter multiplies them."""
    pytest.importorskip("triton", minversion="3.7")
    if torch.cuda.is_available():
        pytest.skip("Triton's interpreter is only chosen where there is no CUDA device")
    monkeypatch.setattr(matmul, "has_triton", lambda device: True)


def same_in_a_file(one: NF4Tensor, other: NF4Tensor) -> bool:
    """Whether both would be written as the same bytes."""
    first, second = to_tensors("w", one), to_tensors("w", other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.usefixtures("triton_here")
@pytest.mark.parametrize("double", [False, True])
def test_a_weight_for_the_kernel_is_kept_once_and_comes_back_bit_for_bit(double: bool) -> None:
    q = quantize_nf4(torch.randn(128, 192).half(), double=double)
    layer = Linear4bit(q, mode="4bit", dtype=torch.bfloat16)
    assert layer.tiled is not None
    held = sum(b.numel() * b.element_size() for b in layer.buffers())
    assert held < 128 * 192 / 2 * 1.25 + (2048 if double else 0)  # codes, fp32 scales, and 8-bit ones
    assert same_in_a_file(layer.nf4, q)
    assert same_in_a_file(layer.to(torch.bfloat16).nf4, q)


@pytest.mark.usefixtures("triton_here")
@pytest.mark.parametrize("rows", [(), (1,), (2, 3), (0,), (130,)])
def test_the_kernel_multiplies_what_was_laid_out_for_it(rows: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    q, bias = quantize_nf4(torch.randn(96, 128)), torch.randn(96)
    layer = Linear4bit(q, bias, mode="4bit", dtype=torch.float16)
    x = torch.randn(*rows, 128).half()
    assert choose_kernel(x, layer.tiled) == "triton"
    expected = x.float() @ dequantize_nf4(q).T + bias
    torch.testing.assert_close(layer(x).float(), expected, atol=0.1, rtol=2e-3)
    monkeypatch.setattr(matmul, "choose_kernel", lambda *_: "torch")
    torch.testing.assert_close(layer(x), linear_nf4(x, q, bias), atol=0, rtol=0)


@pytest.mark.usefixtures("triton_here")
def test_float32_and_gradients_go_the_plain_way() -> None:
    q = quantize_nf4(torch.randn(64, 128))
    layer = Linear4bit(q, mode="4bit")
    x = torch.randn(3, 128, requires_grad=True)
    assert choose_kernel(x, layer.tiled) == choose_kernel(x.bfloat16(), layer.tiled) == "torch"
    layer(x).sum().backward()
    assert torch.equal(layer(x), linear_nf4(x, q))
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0], dequantize_nf4(q).sum(0))


@pytest.mark.usefixtures("triton_here")
def test_the_branch_of_each_row_is_added_by_the_kernel() -> None:
    q = quantize_nf4(torch.randn(96, 128))
    layer = Linear4bit(q, mode="4bit", dtype=torch.float16)
    x, seen, c = torch.randn(3, 128).half(), torch.randn(3, 64).half(), torch.randn(4, 96)
    a = torch.randn(3, 2, 64, 4).half()[:, 1]
    assert layer.tiled is not None
    got = multiply_with_branch(x, layer.tiled, seen, a, c, 0.5)
    expected = x.float() @ dequantize_nf4(q).T + 0.5 * torch.einsum("bd,bdr->br", seen.float(), a.float()) @ c
    torch.testing.assert_close(got.float(), expected, atol=0.1, rtol=2e-3)


def test_where_the_kernel_does_not_work_weights_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    q = quantize_nf4(torch.randn(70, 192))
    with monkeypatch.context() as patched:
        patched.setattr(matmul, "has_triton", lambda device: True)
        layer = Linear4bit(q, mode="4bit")
        assert layer.tiled is not None
        assert Linear4bit(quantize_nf4(torch.randn(4, 128), block=128), mode="4bit").tiled is None
        assert Linear4bit(quantize_nf4(torch.randn(4, 96)), mode="4bit").tiled is None
        assert Linear4bit(q).tiled is None  # resident
    layer.cpu()
    assert layer.tiled is None
    assert torch.equal(layer.codes, q.codes)
    assert layer.absmax is not None
    assert torch.equal(layer.absmax, q.absmax)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("double", [False, True])
def test_a_weight_goes_to_a_device_and_back(double: bool) -> None:
    q = quantize_nf4(torch.randn(192, 256), double=double)
    layer = Linear4bit(q, mode="4bit", dtype=torch.bfloat16).cuda()
    if not matmul.has_triton(layer.codes.device):
        pytest.skip("Triton does not work here")
    assert layer.tiled is not None
    for rows in (1, 128, 300):
        x = torch.randn(rows, 256).bfloat16()
        expected = x.float() @ dequantize_nf4(q).T
        assert (layer(x.cuda()).cpu().float() - expected).norm() < 0.01 * expected.norm()
    assert same_in_a_file(layer.nf4.to("cpu"), q)
    assert same_in_a_file(layer.cpu().nf4, q)


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match="mode"):
        Linear4bit(quantize_nf4(torch.randn(2, 2)), mode="fast")
    with pytest.raises(CheckpointError, match="matrix"):
        Linear4bit(quantize_nf4(torch.randn(2)))
