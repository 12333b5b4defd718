"""mora-lite: molecules scored by a frozen 4-bit language model with low-rank weights made for each molecule.

One alphabet of sizes is used in every name, comment and docstring:
`B` molecules in a batch, `P` prompts (one for each task), `T` tokens, `V` atoms, `E` directed bonds,
`L` decoder layers, `K` adapted (uppermost) layers, `D` model width, `F` FFN width, `R` rank,
`H` hypernetwork width, `G` quantisation block (64).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .model import Model, Predictions, from_pretrained, load
    from .publish import push_to_hub
    from .text.pack import load_text

__all__ = ["Model", "Predictions", "__version__", "from_pretrained", "load", "load_text", "push_to_hub"]


def __getattr__(name: str) -> Any:
    # Imported at first use: `mora-lite --help` must not wait for torch.
    if name == "push_to_hub":
        from .publish import push_to_hub

        return push_to_hub
    if name == "load_text":
        from .text.pack import load_text

        return load_text
    if name in ("Model", "Predictions", "from_pretrained", "load"):
        from . import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
