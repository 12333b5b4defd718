"""What defines a language model besides its tensors: the families that can be run, their sizes, their rotary positions.

The inverse frequencies of rotary positions come from transformers once, when a checkpoint is read; afterwards they are
plain numbers. Covered: default, linear, llama3, yarn, dynamic, and partial rotation with all but the last. NOT covered:
longrope, multi-axis positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from .errors import CheckpointError

ROPE_KINDS = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True)
class Rope:
    """Rotation angles of one checkpoint.

    inverse_frequencies: head_dim / 2 numbers, radians per position (float32 values, exact in JSON); 0 at the end for
    the numbers of a head that are not rotated.
    attention_factor: multiplies cosine and sine (yarn).
    dynamic: (theta, factor, max_positions) if the frequencies change for texts longer than max_positions.
    """

    inverse_frequencies: tuple[float, ...]
    attention_factor: float = 1.0
    dynamic: tuple[float, float, int] | None = None

    @classmethod
    def from_config(cls, config: Any, head_dim: int) -> Rope:
        """Read a transformers configuration object, which has turned older fields into `rope_parameters`."""
        parameters = config.rope_parameters
        kind, theta = parameters.get("rope_type", "default"), float(parameters["rope_theta"])
        if kind not in ROPE_KINDS:
            raise CheckpointError(f"rope type not supported: got {kind}, expected one of {', '.join(ROPE_KINDS)}")
        share = parameters.get("partial_rotary_factor")
        rotated = head_dim if share is None else int(head_dim * float(share) + 1e-6)
        if rotated % 2 or not 0 < rotated <= head_dim or (rotated < head_dim and kind == "dynamic"):
            raise CheckpointError(
                f"partial_rotary_factor not supported: got {share}, {rotated} of {head_dim} numbers of a head with "
                f"rope type {kind}; expected an even number above 0, and all of them with rope type dynamic"
            )
        if kind == "default":
            exponents = torch.arange(0, rotated, 2, dtype=torch.float) / rotated
            frequencies, attention_factor = 1.0 / theta**exponents, 1.0
        else:
            from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

            frequencies, attention_factor = ROPE_INIT_FUNCTIONS[kind](config)
        if len(frequencies) * 2 != rotated:
            raise CheckpointError(f"rope type {kind}: got {len(frequencies)} frequencies for {rotated} rotated numbers")
        if rotated < head_dim:
            if attention_factor != 1:
                raise CheckpointError(f"rope type {kind} with partial_rotary_factor {share} is not supported")
            frequencies = torch.cat([frequencies, frequencies.new_zeros((head_dim - rotated) // 2)])
        dynamic = None
        if kind == "dynamic":
            dynamic = (theta, float(parameters["factor"]), int(config.max_position_embeddings))
        return cls(tuple(frequencies.tolist()), float(attention_factor), dynamic)

    @property
    def order(self) -> list[int] | None:
        """Where the numbers of a head stand for the rotation, which turns number i and number i + head_dim / 2.

        Of a head that is rotated in part the first R numbers turn, i with i + R / 2; the others go between and behind
        them, to where the frequency is 0. None where a head is rotated as it is. A reordered query and key have the
        same product.
        """
        half = len(self.inverse_frequencies)
        turned = sum(frequency != 0 for frequency in self.inverse_frequencies)
        if turned == half:
            return None
        still = list(range(2 * turned, 2 * half))
        middle = half - turned
        return [*range(turned), *still[:middle], *range(turned, 2 * turned), *still[middle:]]


ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
# Larger numbers are damage; lists of as many would be made of them before anything else could tell.
LARGEST = {"num_hidden_layers": 10_000, "hidden_size": 1 << 20, "head_dim": 1 << 20}


@dataclass(frozen=True)
class DecoderConfig:
    """What defines a decoder besides its tensors: plain numbers, kept in packs by `as_dict`.

    windows: for each layer, how many positions a token sees (itself included); 0 means all.
    Biases and query/key norms are there when the checkpoint holds their tensors.
    """

    architecture: str
    vocabulary: int
    width: int
    ffn_width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    tied_head: bool
    windows: tuple[int, ...]
    rope: Rope

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        """Read the content of a Hugging Face config.json, of transformers 4 or 5."""
        from huggingface_hub.errors import StrictDataclassError  # slow to import, and packs do not need them
        from transformers import AutoConfig

        fields = dict(config)
        kind = fields.pop("model_type", None)
        if kind not in ARCHITECTURES:
            raise CheckpointError(f"model_type not supported: got {kind}, expected one of {', '.join(ARCHITECTURES)}")
        for name, largest in LARGEST.items():
            if isinstance(size := fields.get(name), int) and size > largest:
                raise CheckpointError(f"{name}: got {size}, expected at most {largest}")
        try:
            hf: Any = AutoConfig.for_model(kind, **fields)
        except (TypeError, ValueError, KeyError, StrictDataclassError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"config.json of the checkpoint cannot be used: {reason}") from error
        if hf.hidden_act not in ("silu", "swish"):
            raise CheckpointError(f"hidden_act not supported: got {hf.hidden_act}, expected silu")
        head_dim = getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads
        # A Llama has no windows, although its configuration may hold the field of the model that it was made from.
        window = 0 if kind == "llama" else hf.sliding_window or 0
        kinds = hf.layer_types if kind in ("qwen2", "qwen3") else None
        windows = [
            window if kinds is None or kinds[i] == "sliding_attention" else 0 for i in range(hf.num_hidden_layers)
        ]
        return cls(
            architecture=kind,
            vocabulary=hf.vocab_size,
            width=hf.hidden_size,
            ffn_width=hf.intermediate_size,
            layers=hf.num_hidden_layers,
            heads=hf.num_attention_heads,
            kv_heads=hf.num_key_value_heads,
            head_dim=head_dim,
            norm_eps=float(hf.rms_norm_eps),
            tied_head=bool(hf.tie_word_embeddings),
            windows=tuple(windows),
            rope=Rope.from_config(hf, head_dim),
        )

    def module_widths(self) -> dict[str, tuple[int, int]]:
        """Width of input and output of each module that can have a branch (`lowrank.TARGET_MODULES`)."""
        width, heads, kv = self.width, self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {"q": (width, heads), "k": (width, kv), "v": (width, kv), "o": (heads, width), "ffn": (width, width)}

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON; `from_dict` restores the same numbers exactly."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> DecoderConfig:
        rope = fields["rope"]
        dynamic = rope["dynamic"]
        restored = Rope(
            tuple(rope["inverse_frequencies"]),
            rope["attention_factor"],
            None if dynamic is None else (dynamic[0], dynamic[1], dynamic[2]),
        )
        return cls(**{**fields, "windows": tuple(fields["windows"]), "rope": restored})
