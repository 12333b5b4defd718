"""The upper layers as ONNX: `UpperLayers.score` and the read-out, prompts chosen by an input.

What differs between molecules enters layer L-K as `u @ C`, of rank R, beside a constant of the prompt. So, as in
`fast/upper.py`, queries, keys and values of layer L-K+1 are linear in R+1 numbers, and its logits are worked out for
each prompt beforehand. All other products are the pack's 4-bit matrices. The residual stream is `[B * P, D]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..architecture import DecoderConfig
from ..lm.decoder import DecoderLayer
from ..lm.prefix import visible
from ..quant.nf4 import NF4Tensor, dequantize_nf4
from ..scoring.scorer import Scorer
from .graph_builder import CONTRIB, FAR_BELOW, GraphBuilder

Weights = Mapping[str, Tensor | NF4Tensor]
NF4 = 1  # quant_type of MatMulBnb4


@dataclass(frozen=True)
class Rows:
    """Sizes as names of values int64 `[1]`: molecules B, prompts P; and int64 `[P]`, which prompts."""

    molecules: str
    prompts: str
    chosen: str


def add_upper(g: GraphBuilder, scorer: Scorer, weights: Weights, states: str, rows: Rows) -> str:
    """Hypernetwork states `[B, K, H]` -> what the language model says, z-scores float32 `[B, P]`.

    weights: the upper layers' by their names in the checkpoint, NF4 or plain.
    """
    upper = scorer.upper
    layers = [layer for layer in upper.layers if isinstance(layer, DecoderLayer)]
    c = scorer.c.detach().float() * scorer.scale
    with g.scope("upper"):
        e = add_answer_factors(g, scorer, states, rows)
        from_c = g.constant("first_c", torch.cat([torch.zeros(1, c.shape[2]), c[0] / scorer.scale]))
        base = add_prompts(g, "base", scorer.prompts.residual.float(), rows)
        flat = g.reshape(e, -1, c.shape[1] + 1)
        for i, layer in enumerate(layers):
            with g.scope(f"layer_{layer.index}"):
                if i == 0 and not special(layer):
                    heads = add_first_attention(g, scorer, layer, e, rows)
                    out = add_matrix(g, weights, layer, "self_attn.o_proj", heads)
                    x = add_start(g, flat, from_c, base, rows, out)
                else:
                    x = add_start(g, flat, from_c, base, rows) if i == 0 else x
                    heads = add_attention(g, scorer, weights, layer, i, x, rows)
                    x = g.op("Add", x, add_matrix(g, weights, layer, "self_attn.o_proj", heads))
                x = add_feed_forward(g, scorer, weights, layer, i + 1, x, states, c[i + 1], rows)
        if not layers:
            x = add_start(g, flat, from_c, base, rows)
        return add_readout(g, scorer, x, rows)


def special(layer: DecoderLayer) -> bool:
    """Whether queries and keys are not linear in the normed input: with biases, or norms of their own."""
    parts = getattr(layer.qkv, "parts", [layer.qkv])
    return layer.q_norm is not None or any(getattr(part, "bias", None) is not None for part in parts)


def add_prompts(g: GraphBuilder, name: str, values: Tensor, rows: Rows) -> str:
    """Those of the prompts asked for, out of a constant `[all prompts, ...]`."""
    return g.gather(g.constant(f"prompts/{name}", values), rows.chosen, name=f"chosen/{name}")


def add_answer_factors(g: GraphBuilder, scorer: Scorer, states: str, rows: Rows) -> str:
    """`[1, u]` of each molecule and prompt, u being its input of layer L-K through its own A: `[B, P, R+1]`.

    That input is the same for all molecules, so A of this layer need not be made.
    """
    with g.scope("answer"):
        seen = scorer.upper.first_norm(scorer.prompts.attended).double()
        weight, bias = scorer.hypernet.head_by_rank()
        folded = torch.einsum("pd,drh->prh", seen, weight.double()) * scorer.scale
        fixed = torch.einsum("pd,dr->pr", seen, bias.double()) * scorer.scale
        folded = torch.cat([torch.zeros_like(folded[:, :1]), folded], 1).float()  # the row of the 1, from its bias
        fixed = torch.cat([torch.ones_like(fixed[:, :1]), fixed], 1).float()
        state = g.gather(states, g.number(0), axis=1, name="state")
        chosen = g.reshape(add_prompts(g, "factors", folded, rows), -1, folded.shape[2])
        added = g.reshape(add_prompts(g, "factors_bias", fixed, rows), -1)
        e = g.op("Gemm", state, chosen, added, name="factors", transB=1)
        return g.reshape(e, rows.molecules, rows.prompts, fixed.shape[1])


def add_start(g: GraphBuilder, e: str, from_c: str, base: str, rows: Rows, out: str | None = None) -> str:
    """The residual stream after layer L-K, and `out` added, `[B * P, D]`: `base[p] + u @ C + out`."""
    width = g.size(base, 1)
    if out is None:
        u = g.reshape(g.op("MatMul", e, from_c), rows.molecules, rows.prompts, width)
        return g.reshape(g.op("Add", u, base), -1, width)
    fixed = g.op("Add", g.reshape(out, rows.molecules, rows.prompts, width), base)
    return g.op("Gemm", e, from_c, g.reshape(fixed, -1, width), name="start")


def add_first_attention(g: GraphBuilder, scorer: Scorer, layer: DecoderLayer, e: str, rows: Rows) -> str:
    """Attention of layer L-K+1, before its output matrix: `[B * P, heads * head_dim]`. e: `[B, P, R+1]`."""
    sizes, prompts = layer.sizes, scorer.prompts
    assert isinstance(layer.qkv, nn.Linear)
    n_prompts, width = prompts.residual.shape
    c = scorer.c.detach()[0].double()
    x = torch.cat([prompts.residual.double().unsqueeze(1), c.expand(n_prompts, -1, -1)], 1)  # x of e: [P, R+1, D]
    n = x.shape[1]
    projected = (x * layer.attention_norm.weight.double()) @ layer.qkv.weight.double().T
    qkv = projected.unflatten(-1, (-1, sizes.head_dim))
    query, key, value = qkv.split((sizes.heads, sizes.kv_heads, sizes.kv_heads), dim=2)
    groups = sizes.heads // sizes.kv_heads
    scale = sizes.head_dim**-0.5
    keys = prompts.keys[0].double().repeat_interleave(groups, 2)  # [P, S, heads, head_dim]
    logits = torch.einsum("pihd,pshd->pihs", query, keys).flatten(2) * scale
    self_logits = torch.einsum("pihd,pjhd->pijh", query, key.repeat_interleave(groups, 2))
    self_logits = self_logits.flatten(1, 2) * (scale * sizes.rope.attention_factor**2)
    squares = (x @ x.transpose(1, 2) / width).flatten(1).unsqueeze(-1)
    squares = torch.cat([squares, self_logits], 2)  # [P, (R+1)^2, 1 + heads]
    with g.scope("attention"):
        transposed = g.op("Transpose", e, perm=[1, 0, 2])  # [P, B, R+1]
        outer = g.op("Mul", g.unsqueeze(transposed, 3), g.unsqueeze(transposed, 2))
        outer = g.reshape(outer, 0, 0, n * n)
        both = g.op("MatMul", outer, add_prompts(g, "squares", squares.float(), rows), name="squares")
        square, self_logit = g.split_op("Split", 2, both, g.ints(1, sizes.heads), axis=2)
        square = g.op("Add", square, g.number(float(sizes.norm_eps)), name="mean_square")
        normed = g.op("Div", transposed, g.op("Sqrt", square), name="normed")
        prefix = g.op("MatMul", normed, add_prompts(g, "logits", logits.float(), rows), name="prefix")
        prefix = g.reshape(prefix, 0, 0, sizes.heads, -1)
        prefix = g.op("Add", prefix, add_mask(g, scorer, layer, rows, (1, 2)))
        self_logit = g.unsqueeze(g.op("Div", self_logit, square), 3)
        weights = g.op("Softmax", g.op("Concat", prefix, self_logit, axis=3), axis=-1)  # [P, B, heads, S+1]
        self_values = g.op("MatMul", normed, add_prompts(g, "own_values", value.flatten(2).float(), rows))
        # [P, B, kv_heads, group, S+1] -> [P, kv_heads, B * group, S+1]
        weights = g.reshape(weights, 0, 0, sizes.kv_heads, groups, -1)
        weights = g.op("Transpose", weights, perm=[0, 2, 1, 3, 4])
        self_values = g.reshape(self_values, 0, 0, sizes.kv_heads, 1, sizes.head_dim)
        self_values = g.op("Transpose", self_values, perm=[0, 2, 1, 3, 4])
        mixed = add_mixed(g, scorer, sizes, 0, weights, self_values, rows)
        return g.reshape(g.op("Transpose", mixed, perm=[2, 0, 1, 3, 4]), -1, sizes.heads * sizes.head_dim)


def add_mixed(
    g: GraphBuilder, scorer: Scorer, sizes: DecoderConfig, at: int, weights: str, self_values: str, rows: Rows
) -> str:
    """Sums of values: `[P, kv_heads, B, group, head_dim]`.

    weights: `[P, kv_heads, B, group, S+1]`, that of the token itself last.
    self_values: `[P, kv_heads, B, 1, head_dim]`.
    """
    n_prefix = scorer.prompts.values.shape[2]
    groups = sizes.heads // sizes.kv_heads
    from_prefix, from_self = g.split_op("Split", 2, weights, g.ints(n_prefix, 1), axis=4)
    values = scorer.prompts.values[at].float().permute(0, 2, 1, 3)  # [P, kv_heads, S, head_dim]
    from_prefix = g.reshape(from_prefix, 0, 0, -1, n_prefix) if n_prefix else from_prefix
    mixed = g.op("MatMul", from_prefix, add_prompts(g, "values", values, rows), name="from_prefix")
    mixed = g.reshape(mixed, 0, 0, -1, groups, sizes.head_dim)
    return g.op("Add", mixed, g.op("Mul", from_self, self_values, name="from_own"), name="mixed")


def add_mask(g: GraphBuilder, scorer: Scorer, layer: DecoderLayer, rows: Rows, axes: tuple[int, ...]) -> str:
    """The attention mask, far below at tokens that a prompt does not have or see, else 0: `[P, S]` and more axes."""
    mask = torch.where(visible(scorer.prompts, layer.window), 0.0, FAR_BELOW)
    return g.unsqueeze(add_prompts(g, "hidden", mask, rows), *axes)


def add_attention(
    g: GraphBuilder, scorer: Scorer, weights: Weights, layer: DecoderLayer, at: int, x: str, rows: Rows
) -> str:
    """Attention before its output matrix, `[B * P, heads * head_dim]`. x: `[B * P, D]`."""
    s, prompts = layer.sizes, scorer.prompts
    groups, scale = s.heads // s.kv_heads, s.head_dim**-0.5
    with g.scope("attention"):
        normed = add_rms_norm(g, x, layer.attention_norm.weight, s.norm_eps, "norm")
        query, key, value = (
            g.reshape(
                add_matrix(g, weights, layer, f"self_attn.{name}_proj", normed),
                rows.molecules,
                rows.prompts,
                s.kv_heads,
                count,
                s.head_dim,
            )
            for name, count in (("q", groups), ("k", 1), ("v", 1))
        )  # [B, P, kv_heads, group or 1, head_dim]
        if layer.q_norm is not None and layer.k_norm is not None:
            query = add_rms_norm(g, query, layer.q_norm.weight, s.norm_eps, "q_norm")
            key = add_rms_norm(g, key, layer.k_norm.weight, s.norm_eps, "k_norm")
        query, key, value = (g.op("Transpose", part, perm=[1, 2, 0, 3, 4]) for part in (query, key, value))
        self_logit = g.op(
            "Mul", g.sum(g.op("Mul", query, key), -1, keepdims=True), g.number(scale * s.rope.attention_factor**2)
        )
        keys = (prompts.keys[at].float() * scale).permute(0, 2, 3, 1)  # [P, kv_heads, head_dim, S]
        query = g.reshape(query, 0, 0, -1, s.head_dim)
        prefix = g.op("MatMul", query, add_prompts(g, "keys", keys, rows), name="prefix")
        prefix = g.op("Add", prefix, add_mask(g, scorer, layer, rows, (1, 2)))
        prefix = g.reshape(prefix, 0, 0, -1, groups, keys.shape[3])
        softmax = g.op("Softmax", g.op("Concat", prefix, self_logit, axis=4), axis=-1)
        mixed = add_mixed(g, scorer, s, at, softmax, value, rows)
        return g.reshape(g.op("Transpose", mixed, perm=[2, 0, 1, 3, 4]), -1, s.heads * s.head_dim)


def add_feed_forward(
    g: GraphBuilder,
    scorer: Scorer,
    weights: Weights,
    layer: DecoderLayer,
    at: int,
    x: str,
    states: str,
    c: Tensor,
    rows: Rows,
) -> str:
    """The residual stream `[B * P, D]` after a feed-forward block and its branch. c: `[R, D]`, scaled."""
    hypernet = scorer.hypernet
    with g.scope("ffn"):
        normed = add_rms_norm(g, x, layer.ffn_norm.weight, layer.sizes.norm_eps, "norm")
        gate = add_matrix(g, weights, layer, "mlp.gate_proj", normed)
        gate = g.op("Mul", gate, g.op("Sigmoid", gate))
        product = g.op("Mul", gate, add_matrix(g, weights, layer, "mlp.up_proj", normed))
        x = g.op("Add", x, add_matrix(g, weights, layer, "mlp.down_proj", product))
    with g.scope("branch"):
        state = g.gather(states, g.number(at), axis=1, name="state")
        a = g.op("Gemm", state, *head_constants(g, scorer), name="a", transB=1)
        a = g.reshape(a, -1, hypernet.model_width, hypernet.rank)
        rows_of = g.reshape(normed, rows.molecules, rows.prompts, hypernet.model_width)
        inner = g.reshape(g.op("MatMul", rows_of, a, name="inner"), -1, hypernet.rank)
        return g.op("Gemm", inner, g.constant("c", c), x, name="added")


def head_constants(g: GraphBuilder, scorer: Scorer) -> tuple[str, str]:
    """The hypernetwork's head, which all layers share."""
    head = scorer.hypernet.head
    return g.shared("hypernet/head/weight", head.weight.float()), g.shared("hypernet/head/bias", head.bias.float())


def add_rms_norm(g: GraphBuilder, x: str, weight: Tensor, eps: float, name: str) -> str:
    """`x / rms(x) * weight` over the last dimension, in the form that onnxruntime makes one operator of."""
    with g.scope(name):
        square = g.op("ReduceMean", g.op("Pow", x, g.number(2.0)), g.ints(-1), keepdims=1)
        root = g.op("Sqrt", g.op("Add", square, g.number(float(eps))))
        return g.op("Mul", g.op("Div", x, root), g.constant("weight", weight.float()))


def add_matrix(g: GraphBuilder, weights: Weights, layer: DecoderLayer, name: str, x: str) -> str:
    """A frozen matrix of the layer, `x @ weight.T` and its bias if it has one; x: `[N, in]`."""
    full = f"model.layers.{layer.index}.{name}"
    weight, bias = weights[f"{full}.weight"], weights.get(f"{full}.bias")
    if isinstance(bias, NF4Tensor):
        bias = dequantize_nf4(bias)
    with g.scope(name.replace(".", "/")):
        if isinstance(weight, Tensor) or not g.contrib:
            plain = weight if isinstance(weight, Tensor) else dequantize_nf4(weight)
            inputs = [x, g.constant("weight", plain.float())]
            if bias is not None:
                inputs.append(g.constant("bias", bias.float()))
            return g.op("Gemm", *inputs, transB=1)
        n, k = weight.shape
        codes, scales = g.constant("codes", weight.codes.flatten()), g.constant("absmax", weight.scales().float())
        y = g.op("MatMulBnb4", x, codes, scales, domain=CONTRIB, K=k, N=n, block_size=weight.block, quant_type=NF4)
        return y if bias is None else g.op("Add", y, g.constant("bias", bias.float()))


def add_readout(g: GraphBuilder, scorer: Scorer, x: str, rows: Rows) -> str:
    """z-scores `[B, P]` of the residual stream `[B * P, D]`, the final norm included."""
    width = scorer.readout.shape[1]
    with g.scope("readout"):
        weight = scorer.readout.detach() * scorer.upper.norm.weight
        square = g.op("ReduceSumSquare", x, g.ints(-1), keepdims=0)
        mean = g.op("Add", g.op("Div", square, g.number(float(width))), g.number(float(scorer.upper.norm.eps)))
        x = g.reshape(x, rows.molecules, rows.prompts, width)
        score = g.sum(g.op("Mul", x, add_prompts(g, "weight", weight.float(), rows)), -1)
        score = g.op("Div", score, g.reshape(g.op("Sqrt", mean), rows.molecules, rows.prompts))
        return g.op("Add", score, add_prompts(g, "offset", scorer.offset.detach().float(), rows))
