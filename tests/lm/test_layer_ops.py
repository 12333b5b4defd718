"""Each Triton kernel, and each compiled function, of a decoder layer gives what its plain function gives, in both
directions.

Kernels run in Triton's interpreter, or on a GPU where there is one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from mora_lite.adapter.lowrank import TARGET_MODULES, Branch
from mora_lite.lm import layer_ops, layer_ops_compiled, layer_ops_triton
from mora_lite.lm.layer_ops import LayerOps, choose_layer_ops
from mora_lite.lm.weights import RMSNorm

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype).to(DEVICE)


def both(name: str, x: Tensor, *arguments: Any, other: LayerOps = layer_ops_triton.OPS) -> None:
    """Compare outputs, and gradients for a random gradient of the output."""
    results = []
    for ops in (layer_ops.OPS, other):
        given = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        made = getattr(ops, name)(given, *arguments)
        grad = random(*made.shape, dtype=made.dtype)
        made.backward(grad)
        results.append((made.detach(), given.grad))
    for plain, fused in zip(*results, strict=True):
        assert plain.dtype == fused.dtype
        assert plain.shape == fused.shape
        limit = CLOSE[min(plain.dtype, made.dtype, key=lambda t: t.itemsize)]
        torch.testing.assert_close(plain.float(), fused.float(), atol=limit, rtol=limit)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", list(CLOSE))
@pytest.mark.parametrize("shape", [(1, 1, 8), (2, 5, 48), (3, 4, 576)])
@pytest.mark.parametrize("added", [0, 1, 2])
def test_add_norm(added: int, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    norm = RMSNorm(random(shape[-1]), 1e-5, dtype).to(DEVICE)
    first, *others = random(1 + added, *shape)
    grads = random(*shape, 2)
    results = []
    for ops in (layer_ops.OPS, layer_ops_triton.OPS, layer_ops_compiled.OPS):
        terms = [first.clone().requires_grad_(), *(term.to(dtype, copy=True).requires_grad_() for term in others)]
        total, normed = ops.add_norm(tuple(terms), norm)
        assert (total.dtype, normed.dtype) == (torch.float32, dtype)
        ((total * grads[..., 0]).sum() + (normed.float() * grads[..., 1]).sum()).backward()
        results.append([total.detach(), normed.detach(), *(term.grad for term in terms)])
    for plain, *fused in zip(*results, strict=True):
        for other in fused:
            assert plain.dtype == other.dtype
            torch.testing.assert_close(plain.float(), other.float(), atol=CLOSE[dtype], rtol=CLOSE[dtype])


@pytest.mark.gpu
def test_add_norm_where_nothing_goes_on_from_the_sum_or_from_the_norm() -> None:
    norm = RMSNorm(random(16), 1e-5, torch.float32).to(DEVICE)
    for used in (0, 1):
        grads = []
        for ops in (layer_ops.OPS, layer_ops_triton.OPS):
            x = random(2, 3, 16).requires_grad_()
            ops.add_norm((x, x.sin()), norm)[used].square().sum().backward()
            grads.append(x.grad)
        torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", list(CLOSE))
@pytest.mark.parametrize("shape", [(1, 1, 6), (2, 5, 96), (1, 700, 6)])
def test_gate(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    both("gate", random(*shape, dtype=dtype))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", list(CLOSE))
@pytest.mark.parametrize(("rows", "tokens", "heads", "width"), [(1, 1, 1, 2), (2, 5, 9, 64), (3, 4, 3, 24)])
def test_rotate(dtype: torch.dtype, rows: int, tokens: int, heads: int, width: int) -> None:
    angle = random(rows, tokens, width // 2)
    joined = random(rows, tokens, heads + 2, width, dtype=dtype)  # as a layer gives it: a part of something wider
    both("rotate", joined[:, :, 1:-1], angle.cos(), angle.sin())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", list(CLOSE))
@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 3), (7, 100), (4, 9000)])
def test_cross_entropy(dtype: torch.dtype, rows: int, vocabulary: int) -> None:
    """Also of more tokens than a program takes at a time, and of rows without a label, as padding has none."""
    labels = torch.arange(rows, device=DEVICE) * (vocabulary - 1) // rows
    labels[1::3] = -1
    both("cross_entropy", random(rows, 16, dtype=dtype), random(vocabulary, 16, dtype=dtype), labels)


@pytest.mark.gpu
def test_cross_entropy_of_large_logits_is_finite() -> None:
    hidden = random(3, 8).mul(1e3).requires_grad_()
    loss = layer_ops_triton.cross_entropy(hidden, random(50, 8), torch.tensor([-1, 0, 49], device=DEVICE))
    loss.backward()
    assert loss.isfinite()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()
    assert not hidden.grad[0].any()  # it has no label


@pytest.mark.gpu
def test_rotate_takes_a_gradient_in_another_layout() -> None:
    angle = random(2, 5, 8)
    grads = []
    for ops in (layer_ops.OPS, layer_ops_triton.OPS):
        x = random(2, 5, 3, 16).requires_grad_()
        ops.rotate(x, angle.cos(), angle.sin()).transpose(1, 2).contiguous().square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", list(CLOSE))
@pytest.mark.parametrize(("heads", "kv_heads", "tokens"), [(1, 1, 2), (9, 3, 5), (4, 2, 40)])
def test_attention(dtype: torch.dtype, heads: int, kv_heads: int, tokens: int) -> None:
    key, value = random(2, 2, kv_heads, tokens, 16, dtype=dtype)
    both("attention", random(2, heads, tokens, 16, dtype=dtype), key, value, None, other=layer_ops_compiled.OPS)


def test_attention_with_a_mask_or_a_cache_is_the_plain_one() -> None:
    key, value = random(2, 2, 1, 6, 8)
    seen = random(2, 1, 3, 6) > 0
    both("attention", random(2, 3, 3, 8), key, value, seen, other=layer_ops_compiled.OPS)
    both("attention", random(2, 3, 1, 8), key, value, None, other=layer_ops_compiled.OPS)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_on_a_cpu_they_are_compiled() -> None:
    import torch._dynamo

    with torch._dynamo.config.patch(disable=False):
        assert choose_layer_ops(torch.device("cpu")) is layer_ops_compiled.OPS


@pytest.mark.gpu
def test_the_check_at_the_start_passes() -> None:
    layer_ops_triton.check(DEVICE)


@pytest.mark.parametrize("ops", [layer_ops_triton, layer_ops_compiled])
@pytest.mark.parametrize("name", ["add_norm", "rotate", "gate", "attention", "cross_entropy"])
def test_the_check_finds_a_wrong_function(ops: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any) -> Any:
        made = getattr(layer_ops, name)(*arguments)
        return tuple(part * 1.01 for part in made) if isinstance(made, tuple) else made * 1.01

    monkeypatch.setattr(ops, "OPS", ops.OPS._replace(**{name: wrong}))
    with pytest.raises(RuntimeError, match=name):
        ops.check(DEVICE)


def test_what_fails_the_check_is_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    wrong = layer_ops_compiled.OPS._replace(gate=lambda x: layer_ops.gate(x) * 1.01)
    monkeypatch.setattr(layer_ops_compiled, "OPS", wrong)
    assert choose_layer_ops(torch.device("cpu")) is layer_ops.OPS
    assert "layer_ops_compiled are not used, which is slower: gate gives wrong numbers" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("modules", [("ffn",), TARGET_MODULES])
def test_a_whole_decoder_has_the_same_loss_and_gradients(base_path: Path, modules: tuple[str, ...]) -> None:
    from mora_lite.lm.decoder import Decoder
    from mora_lite.quant.formats import open_checkpoint

    decoder = Decoder.from_checkpoint(open_checkpoint(base_path)).to(DEVICE)
    ids = torch.arange(1, 21, device=DEVICE).view(2, 10)
    widths = decoder.sizes.module_widths()
    ins, outs = (sum(widths[module][i] for module in modules) for i in (0, 1))
    found = []
    for ops in (layer_ops.OPS, layer_ops_triton.OPS, layer_ops_compiled.OPS):
        decoder.use_ops(ops)
        a, c = random(2, 4, ins, 4).requires_grad_(), random(4, 4, outs).requires_grad_()
        hidden = decoder.hidden(ids[:, :-1], branch=Branch(a, c, 0.1, target_modules=modules))
        loss = decoder.cross_entropy(hidden.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        found.append((hidden.detach(), loss.detach(), a.grad, c.grad))
    for plain, *others in zip(*found, strict=True):
        for other in others:
            torch.testing.assert_close(plain, other, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))
