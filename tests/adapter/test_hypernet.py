"""Attention over flat molecules is attention over padded ones, with the same factors; A starts as a LoRA A does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mora_lite.adapter.hypernet import Hypernet, Tokens, segment_attention

LENGTHS = (1, 5, 2, 30, 1, 9)


def padded_attention(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """The reference: one padded row for each molecule, padding masked out."""
    longest = max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]  # [B, N]
    keys, values = (
        torch.stack([nn.functional.pad(p, (0, 0, 0, 0, 0, longest - len(p))) for p in flat.split(lengths)])
        for flat in (key, value)
    )
    heads = nn.functional.scaled_dot_product_attention(
        query.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), mask[:, None, None, :]
    )
    return heads.transpose(1, 2)


def inputs(scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    query = torch.randn(len(LENGTHS), 3, 2, 8, generator=rng) * scale
    key, value = (torch.randn(sum(LENGTHS), 2, 8, generator=rng) for _ in range(2))
    graph = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    return query, key, value, graph


@pytest.mark.parametrize(("scale", "tolerance"), [(1.0, 1e-6), (30.0, 3e-5)])
def test_segment_attention_is_padded_attention(scale: float, tolerance: float) -> None:
    """Logits of hundreds (scale 30) have larger roundings in float32, on both sides."""
    query, key, value, graph = inputs(scale)
    expected = padded_attention(query, key, value, LENGTHS)
    got = segment_attention(query, key, value, graph)
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_its_gradients_are_too() -> None:
    *tensors, graph = inputs()
    towards = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1))
    gradients = []
    for fast in (True, False):
        query, key, value = (t.clone().requires_grad_() for t in tensors)
        out = segment_attention(query, key, value, graph) if fast else padded_attention(query, key, value, LENGTHS)
        (out * towards).sum().backward()
        gradients.append([query.grad, key.grad, value.grad])
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_tokens_need_not_be_in_order_of_their_molecules() -> None:
    query, key, value, graph = inputs()
    order = torch.randperm(len(graph), generator=torch.Generator().manual_seed(2))
    shuffled = segment_attention(query, key[order], value[order], graph[order])
    torch.testing.assert_close(shuffled, segment_attention(query, key, value, graph), rtol=1e-6, atol=1e-6)


def test_huge_logits_do_not_overflow() -> None:
    query, key, value, graph = inputs(1e6)
    assert segment_attention(query, key, value, graph).isfinite().all()


@pytest.mark.parametrize("added", [0, 40], ids=["", "with added atoms"])
def test_padded_tokens_give_the_factors_and_gradients_of_flat_ones(added: int) -> None:
    """Atoms that were added for a fixed size are more than `longest`; their molecule's factors do not count."""
    torch.manual_seed(0)
    hypernet = Hypernet(16, 3, 32, 2, 32)
    lengths = torch.tensor([*LENGTHS, added])
    graph = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    results = []
    for longest in (None, max(LENGTHS)):
        rng = torch.Generator().manual_seed(1)
        atoms, molecules = (torch.randn(n, 16, generator=rng).requires_grad_() for n in (len(graph), len(lengths)))
        factors = hypernet(Tokens(atoms, molecules, graph, longest))[: len(LENGTHS)]
        hypernet.zero_grad()
        factors.square().sum().backward()
        weights = [p.grad for p in hypernet.parameters() if p.grad is not None]
        results.append([factors.detach(), atoms.grad, molecules.grad, *weights])
    for padded, flat in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(padded, flat, rtol=1e-4, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("width", "model_width", "rank"), [(64, 96, 4), (32, 256, 8)])
def test_a_starts_with_the_variance_of_a_lora_a(width: int, model_width: int, rank: int) -> None:
    """1 / (3 D), whatever the hypernetwork's own width is."""
    torch.manual_seed(0)
    hypernet = Hypernet(24, 4, model_width, rank, width)
    a = hypernet(Tokens(torch.randn(50, 24), torch.randn(5, 24), torch.arange(5).repeat_interleave(10)))
    assert a.shape == (5, 4, model_width, rank)
    assert a.var().item() == pytest.approx(1 / (3 * model_width), rel=0.25)
    assert abs(a.mean().item()) < 0.1 * (3 * model_width) ** -0.5


@torch.no_grad()
def test_a_molecules_factors_do_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(0)
    hypernet = Hypernet(16, 3, 32, 2, 32).eval()
    atoms, molecules = torch.randn(12, 16), torch.randn(3, 16)
    together = hypernet(Tokens(atoms, molecules, torch.tensor([0] * 2 + [1] * 9 + [2])))
    alone = hypernet(Tokens(atoms[2:11], molecules[1:2], torch.zeros(9, dtype=torch.int64)))
    torch.testing.assert_close(alone[0], together[1], rtol=1e-5, atol=1e-6)
    assert (together[0] - together[1]).abs().max() > 1e-4


def test_the_hypernetwork_is_small() -> None:
    """At the sizes of the shipped packs it has fewer than four million numbers; the head is the big part."""
    hypernet = Hypernet(256, 4, 576, 8)
    assert hypernet.head.weight.numel() == 256 * 576 * 8
    assert sum(p.numel() for p in hypernet.parameters()) < 4e6
