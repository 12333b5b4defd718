"""A transformers model in memory as a checkpoint, for tests that compare with transformers."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor


class ModelSource:
    """A transformers model as a checkpoint."""

    def __init__(self, model: Any) -> None:
        self.config = json.loads(json.dumps(model.config.to_dict()))
        self.tensors = dict(model.state_dict())

    def names(self) -> list[str]:
        return list(self.tensors)

    def load(self, name: str) -> Tensor:
        return self.tensors[name]
