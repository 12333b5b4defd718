"""Linear4bit: the product of the dequantised weight, by every kernel and in both layouts."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mora_lite.errors import CheckpointError
from mora_lite.quant import matmul
from mora_lite.quant.linear import Linear4bit, choose_mode
from mora_lite.quant.matmul import KERNELS, choose_kernel, linear_nf4, multiply, multiply_with_branch
from mora_lite.quant.nf4 import NF4Tensor, dequantize_nf4, quantize_nf4
from mora_lite.quant.tiling import TiledNF4, untile_nf4

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(96, 64), (33, 70), (1, 576), (5, 3)])
def test_the_result_is_that_of_the_dequantised_weight(shape: tuple[int, int], double: bool, dtype: torch.dtype) -> None:
    q, bias = quantize_nf4(torch.randn(shape), double=double), torch.randn(shape[0])
    layer = Linear4bit(q, bias, dtype=dtype)
    assert (layer.out_features, layer.in_features) == shape
    for x in (torch.randn(1, shape[1]), torch.randn(2, 7, shape[1]), torch.randn(0, shape[1])):
        for x_dtype in (dtype, torch.float32):
            resident = F.linear(x.to(x_dtype), dequantize_nf4(q, dtype).to(x_dtype)) + bias.to(x_dtype)
            assert layer(x.to(x_dtype)).dtype == x_dtype
            assert torch.equal(layer(x.to(x_dtype)), resident)


def test_gradients_reach_x_and_nothing_is_trained() -> None:
    q = quantize_nf4(torch.randn(24, 64))
    layer = Linear4bit(q, torch.randn(24))
    x, seed = torch.randn(3, 64, requires_grad=True), torch.randn(3, 24)
    layer(x).backward(seed)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, seed @ dequantize_nf4(q))
    assert not list(layer.parameters())
    assert not any(buffer.requires_grad for buffer in layer.buffers())


def test_casting_the_module_leaves_the_scales_alone() -> None:
    q = quantize_nf4(torch.randn(24, 64), double=True)
    layer = Linear4bit(q, dtype=torch.bfloat16).to(torch.bfloat16)
    assert isinstance(layer.weight, NF4Tensor)
    assert torch.equal(dequantize_nf4(layer.weight), dequantize_nf4(q))


def test_the_budget_chooses_the_mode() -> None:
    assert choose_mode(100, 100) == "resident"
    assert choose_mode(101, 100) == "4bit"


def test_the_kernel_is_plain_torch_on_the_cpu() -> None:
    q, x = quantize_nf4(torch.randn(24, 64)), torch.randn(3, 64)
    assert choose_kernel(x, q) == "torch"
    assert torch.equal(multiply(x, q), linear_nf4(x, q))


@pytest.mark.parametrize("double", [False, True])
def test_bitsandbytes_gives_the_same_product(double: bool) -> None:
    pytest.importorskip("bitsandbytes")
    q, x = quantize_nf4(torch.randn(24, 64), double=double), torch.randn(3, 64)
    torch.testing.assert_close(KERNELS["bitsandbytes"](x, q, None, None), linear_nf4(x, q))


@pytest.fixture
def triton_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights on the CPU are laid out as on a CUDA device; Triton's interpreter multiplies them."""
    pytest.importorskip("triton", minversion="3.7")
    if torch.cuda.is_available():
        pytest.skip("Triton's interpreter is only chosen where there is no CUDA device")
    monkeypatch.setattr(matmul, "has_triton", lambda device: True)


def assert_same_weight(layer: Linear4bit, q: NF4Tensor) -> None:
    """The layer has the weight `q`, bit for bit."""
    weight = untile_nf4(layer.weight) if isinstance(layer.weight, TiledNF4) else layer.weight
    assert torch.equal(weight.codes.cpu(), q.codes)
    assert torch.equal(weight.scales().cpu(), q.scales())


@pytest.mark.usefixtures("triton_here")
@pytest.mark.parametrize("double", [False, True])
def test_a_weight_for_the_kernel_is_kept_once_and_comes_back_bit_for_bit(double: bool) -> None:
    q = quantize_nf4(torch.randn(128, 192).half(), double=double)
    layer = Linear4bit(q, dtype=torch.bfloat16)
    assert isinstance(layer.weight, TiledNF4)
    held = sum(b.numel() * b.element_size() for b in layer.buffers())
    assert held == 128 * 192 // 2 + 128 * 192 // 64 * 4  # codes and fp32 scales
    assert_same_weight(layer, q)
    assert_same_weight(layer.to(torch.bfloat16), q)


@pytest.mark.usefixtures("triton_here")
@pytest.mark.parametrize("rows", [(), (1,), (2, 3), (0,), (130,)])
def test_the_kernel_multiplies_what_was_laid_out_for_it(rows: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    q, bias = quantize_nf4(torch.randn(96, 128)), torch.randn(96)
    layer = Linear4bit(q, bias, dtype=torch.float16)
    x = torch.randn(*rows, 128).half()
    assert choose_kernel(x, layer.weight) == "triton"
    expected = x.float() @ dequantize_nf4(q).T + bias
    torch.testing.assert_close(layer(x).float(), expected, atol=0.1, rtol=2e-3)
    monkeypatch.setattr(matmul, "choose_kernel", lambda *_: "torch")
    torch.testing.assert_close(layer(x), linear_nf4(x, q, bias), atol=0, rtol=0)


@pytest.mark.usefixtures("triton_here")
def test_float32_and_gradients_go_the_plain_way() -> None:
    q = quantize_nf4(torch.randn(64, 128))
    layer = Linear4bit(q)
    x = torch.randn(3, 128, requires_grad=True)
    assert choose_kernel(x, layer.weight) == choose_kernel(x.bfloat16(), layer.weight) == "torch"
    layer(x).sum().backward()
    assert torch.equal(layer(x), linear_nf4(x, q))
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0], dequantize_nf4(q).sum(0))


@pytest.mark.usefixtures("triton_here")
def test_the_branch_of_each_row_is_added_by_the_kernel() -> None:
    q = quantize_nf4(torch.randn(96, 128))
    layer = Linear4bit(q, dtype=torch.float16)
    x, seen, c = torch.randn(3, 128).half(), torch.randn(3, 64).half(), torch.randn(4, 96)
    a = torch.randn(3, 2, 64, 4).half()[:, 1]
    assert isinstance(layer.weight, TiledNF4)
    got = multiply_with_branch(x, layer.weight, seen, a, c, 0.5)
    expected = x.float() @ dequantize_nf4(q).T + 0.5 * torch.einsum("bd,bdr->br", seen.float(), a.float()) @ c
    torch.testing.assert_close(got.float(), expected, atol=0.1, rtol=2e-3)


def test_where_the_kernel_does_not_work_weights_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    q = quantize_nf4(torch.randn(70, 192))
    with monkeypatch.context() as patched:
        patched.setattr(matmul, "has_triton", lambda device: True)
        layer = Linear4bit(q)
        assert isinstance(layer.weight, TiledNF4)
        assert isinstance(Linear4bit(quantize_nf4(torch.randn(4, 128), block=128)).weight, NF4Tensor)
        assert isinstance(Linear4bit(quantize_nf4(torch.randn(4, 96))).weight, NF4Tensor)
    layer.cpu()
    assert isinstance(layer.weight, NF4Tensor)
    assert_same_weight(layer, q)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("double", [False, True])
def test_a_weight_goes_to_a_device_and_back(double: bool) -> None:
    q = quantize_nf4(torch.randn(192, 256), double=double)
    layer = Linear4bit(q, dtype=torch.bfloat16).cuda()
    if not matmul.has_triton(layer.codes.device):
        pytest.skip("Triton does not work here")
    assert isinstance(layer.weight, TiledNF4)
    for rows in (1, 128, 300):
        x = torch.randn(rows, 256).bfloat16()
        expected = x.float() @ dequantize_nf4(q).T
        assert (layer(x.cuda()).cpu().float() - expected).norm() < 0.01 * expected.norm()
    assert_same_weight(layer, q)
    assert_same_weight(layer.cpu(), q)


def test_a_weight_that_is_no_matrix_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="matrix"):
        Linear4bit(quantize_nf4(torch.randn(2)))
