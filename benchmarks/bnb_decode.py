"""What `decode_7b.py` compares with: transformers, bitsandbytes NF4, and a branch for each row by hooks."""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from random_llama import RandomModel, make_branch, make_prompts, memory, rates, reset_memory
from torch import Tensor, nn

from mora_lite.adapter.lowrank import Branch
from mora_lite.machine.capture import capture


def build_model(options: argparse.Namespace, device: torch.device) -> Any:
    """A transformers Llama on the device whose matrices are bitsandbytes' NF4, quantised one at a time."""
    import bitsandbytes as bnb
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    fields = {k: v for k, v in RandomModel(options, device).config.items() if k != "model_type"}
    config = LlamaConfig(**fields, attn_implementation="sdpa")
    with torch.device("meta"):
        model = LlamaForCausalLM(config).bfloat16()
    for layer in model.model.layers:
        for block in (layer.self_attn, layer.mlp):
            for name, old in list(block.named_children()):
                if isinstance(old, nn.Linear):
                    n, k = old.weight.shape
                    new = bnb.nn.Linear4bit(
                        k, n, bias=False, compute_dtype=torch.bfloat16, compress_statistics=False, quant_type="nf4",
                        device="meta",
                    )  # fmt: skip
                    weight = torch.randn(n, k, device=device, dtype=torch.bfloat16) * k**-0.5
                    new.weight = bnb.nn.Params4bit(
                        weight, requires_grad=False, compress_statistics=False, quant_type="nf4", module=new
                    ).to(device)
                    setattr(block, name, new)
    for module in model.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            if value.is_meta:
                filled = torch.ones(value.shape, device=device, dtype=torch.bfloat16)
                filled = filled if value.dim() == 1 else torch.randn_like(filled) * value.shape[-1] ** -0.5
                setattr(module, name, nn.Parameter(filled, requires_grad=False))
    with device:  # its angles are no parameters
        model.model.rotary_emb = LlamaRotaryEmbedding(config)
    return model.eval()


def rival(options: argparse.Namespace, device: torch.device, batches: list[int]) -> Iterator[dict[str, Any]]:
    model = build_model(options, device)
    held: list[Branch] = []

    def hook(index: int) -> Any:
        def add(_: object, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            return output + (inputs[0] @ held[0].a[:, index]) @ held[0].c[index]

        return add

    for index, layer in enumerate(model.model.layers):
        layer.mlp.register_forward_hook(hook(index))
    ways = options.rival_ways if device.type == "cuda" else [way for way in options.rival_ways if way != "graph"]
    for way, batch in itertools.product(ways, batches):
        held[:] = [make_branch(options, batch, device)]
        ids = torch.tensor(make_prompts(options, batch), device=device)
        reset_memory()
        try:
            with torch.inference_mode():
                found = rates(functools.partial(rival_text, model, ids, way), batch, options.new, options.repeats)
        except Exception as error:  # a version of transformers may not have this way; the others count
            found = {"error": " ".join(str(error).split())[:300]}
        yield {"kind": "rival", "batch": batch, "way": way, **found, **memory()}


def rival_text(model: Any, ids: Tensor, way: str, new: int) -> None:
    """Greedy tokens after `ids`, without what `model.generate` does beside it. In the way "graph" its step is recorded
    by hand; transformers has no such thing.
    """
    from transformers import DynamicCache, StaticCache

    most = -(-(ids.shape[1] + 64) // 64) * 64
    cache = DynamicCache() if way == "dynamic" else StaticCache(config=model.config, max_cache_len=most)

    def forward(tokens: Tensor) -> Tensor:
        out = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].argmax(-1, keepdim=True)

    token = forward(ids)
    if way == "graph" and new > 1:
        replay_by_hand(forward, cache, token, ids.shape, new)
        return
    for _ in range(new - 1):
        token = forward(token)


_by_hand: dict[Any, Any] = {}


def replay_by_hand(forward: Callable[[Tensor], Tensor], cache: Any, token: Tensor, shape: Any, new: int) -> None:
    """Replays one recorded step of the rival: what it costs, not what it says, for it reads the first call's cache."""
    if shape not in _by_hand:
        _by_hand.clear()
        held = token.clone()
        _by_hand[shape] = *capture(lambda: held.copy_(forward(held)), token.device), cache
    graph, _, first_cache = _by_hand[shape]
    for layer in first_cache.layers:
        if isinstance(getattr(layer, "cumulative_length", None), Tensor):
            layer.cumulative_length.fill_(shape[1])
    for _ in range(new - 1):
        graph.replay()
