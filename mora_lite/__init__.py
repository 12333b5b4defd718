"""mora-lite: molecules scored by a frozen 4-bit language model with low-rank weights made for each molecule.

One alphabet of sizes is used in every name, comment and docstring:
`B` molecules in a batch, `N` rows (of a table, of a matrix), `P` prompts (one for each task), `S` prefix tokens (made
of a molecule, before the text), `T` tokens, `V` atoms, `E` directed bonds, `L` decoder layers, `K` adapted (uppermost)
layers, `D` model width, `F` FFN width, `R` rank, `H` hypernetwork width, `G` quantisation block (64).
"""

from __future__ import annotations

import os.path
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .machine.process import wait_asleep as _wait_asleep

if TYPE_CHECKING:
    from .model import Model, Predictions, from_pretrained, load
    from .publish import push_to_hub
    from .screening.campaign import screen_library as screen
    from .text.evaluation import evaluate_text
    from .text.pack import load_text
    from .text.pipeline import train_text
    from .training.evaluate import evaluate
    from .training.pipeline import train

__version__ = "0.1.0"

# Python that is started in a checkout takes this folder before what is installed; `quant` and others lie beside it.
if not os.path.isdir(os.path.join(__path__[0], "quant")):
    __path__.append(os.path.dirname(__path__[0]))

_wait_asleep()

# Imported at first use: `mora-lite --help` must not wait for torch.
_PUBLIC = {
    "Model": ("model", "Model"),
    "Predictions": ("model", "Predictions"),
    "evaluate": ("training.evaluate", "evaluate"),
    "evaluate_text": ("text.evaluation", "evaluate_text"),
    "from_pretrained": ("model", "from_pretrained"),
    "load": ("model", "load"),
    "load_text": ("text.pack", "load_text"),
    "push_to_hub": ("publish", "push_to_hub"),
    "screen": ("screening.campaign", "screen_library"),
    "train": ("training.pipeline", "train"),
    "train_text": ("text.pipeline", "train_text"),
}
# The same names in full, for type checkers, which run no code.
__all__ = [
    "Model", "Predictions", "__version__", "evaluate", "evaluate_text", "from_pretrained", "load", "load_text",
    "push_to_hub", "screen", "train", "train_text",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return __all__
