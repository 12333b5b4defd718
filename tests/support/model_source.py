"""A transformers model in memory as a checkpoint, for tests that compare with transformers."""

from __future__ import annotations

import json
from typing import Any

from mora_lite.quant.nf4 import quantize_nf4


class ModelSource:
    """A transformers model as a checkpoint; its matrices in NF4 if asked for."""

    def __init__(self, model: Any, four_bit: bool = False) -> None:
        self.config = json.loads(json.dumps(model.config.to_dict()))
        self.tensors: dict[str, Any] = dict(model.state_dict())
        self.four_bit = four_bit

    def names(self) -> list[str]:
        return list(self.tensors)

    def load(self, name: str) -> Any:
        return quantize_nf4(self.tensors[name]) if self.four_bit and "proj" in name else self.tensors[name]
