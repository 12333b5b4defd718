"""Whether a checkpoint holds the weights that its configuration asks for: all of them, in their shapes, as floats.

Known at opening from headers alone, so that a download that is incomplete, or was mixed with another model's, is
refused before any work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import CheckpointError
from .source import EMBEDDING, Checkpoint

if TYPE_CHECKING:
    from ..decoder import DecoderSizes

LAYER = "model.layers."


def check_inventory(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError, in one line, for a weight that is missing, too much, of another shape or no float."""
    from ..decoder import DecoderSizes

    path = checkpoint.path
    try:
        sizes = DecoderSizes.from_config(checkpoint.config)
    except (CheckpointError, ArithmeticError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path}: its configuration cannot be used ({error})") from None
    held = set(checkpoint.names())
    if not any(name.startswith(LAYER) for name in held):
        raise CheckpointError(f"{path}: no decoder matrices were found; is it a whole language model?")
    wanted = dict(shapes(sizes, held))
    if missing := [name for name in wanted if name not in held]:
        raise CheckpointError(
            f"{path}: {missing[0]} is missing ({len(missing)} of {len(wanted)} weights are); "
            "the download is incomplete or its configuration is that of another model: fetch it again"
        )
    for name, shape in wanted.items():
        checkpoint.dtype(name)  # raises for what is no float
        if (got := checkpoint.shape(name)) != shape:
            raise CheckpointError(
                f"{path}: {name} has the shape {list(got)}, but the configuration asks for {list(shape)}; "
                "files of two models are mixed: fetch it again"
            )
    numbers = {name.removeprefix(LAYER).split(".")[0] for name in held if name.startswith(LAYER)}
    beyond = sorted(int(number) for number in numbers if number.isdecimal() and int(number) >= sizes.layers)
    if beyond:
        raise CheckpointError(
            f"{path}: it holds layer {beyond[-1]}, but the configuration has {sizes.layers} layers; "
            "files of two models are mixed: fetch it again"
        )


def shapes(sizes: DecoderSizes, held: set[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each weight that a decoder of these sizes takes. held: names, for biases that may be there."""
    width, query, key = sizes.width, sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    yield EMBEDDING, (sizes.vocabulary, width)
    matrices = {
        "self_attn.q_proj": (query, width),
        "self_attn.k_proj": (key, width),
        "self_attn.v_proj": (key, width),
        "self_attn.o_proj": (width, query),
        "mlp.gate_proj": (sizes.ffn_width, width),
        "mlp.up_proj": (sizes.ffn_width, width),
        "mlp.down_proj": (width, sizes.ffn_width),
    }
    norms = {"input_layernorm": width, "post_attention_layernorm": width}
    if sizes.architecture == "qwen3":
        norms |= {"self_attn.q_norm": sizes.head_dim, "self_attn.k_norm": sizes.head_dim}
    for layer in range(sizes.layers):
        for part, shape in matrices.items():
            name = f"{LAYER}{layer}.{part}"
            yield f"{name}.weight", shape
            always = sizes.architecture == "qwen2" and part.endswith(("q_proj", "k_proj", "v_proj"))
            if always or f"{name}.bias" in held:
                yield f"{name}.bias", shape[:1]
        for part, size in norms.items():
            yield f"{LAYER}{layer}.{part}.weight", (size,)
    yield "model.norm.weight", (width,)
    if not sizes.tied_head:
        yield "lm_head.weight", (sizes.vocabulary, width)
