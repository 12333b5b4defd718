"""safetensors files written a tensor at a time, so that no more than one is in memory.

The header of such a file comes first and holds the place of every tensor, and tensors must lie at multiples of the size
of their numbers. So tensors go to one spool for each size, and the file is put together from the spools at its end.
"""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

ITEM_BYTES = (8, 4, 2, 1)
NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}


class Shard:
    """One safetensors file at `path` in the making. names, nbytes: of what it holds so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nbytes = 0
        self.names: list[str] = []
        self._entries: dict[int, list[tuple[str, str, list[int], int]]] = {size: [] for size in ITEM_BYTES}
        self._spools: dict[int, IO[bytes]] = {}

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Writes tensors on the CPU to the spools."""
        for name, tensor in tensors.items():
            size = tensor.element_size()
            if size not in self._spools:
                self._spools[size] = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115 - see `close`
            raw = tensor.contiguous().reshape(-1).view(torch.uint8)
            self._spools[size].write(raw.numpy().data)
            self._entries[size].append((name, NAMES[tensor.dtype], list(tensor.shape), raw.numel()))
            self.names.append(name)
            self.nbytes += raw.numel()

    def finish(self) -> None:
        """Puts the file together."""
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        start = 0
        for size in ITEM_BYTES:
            for name, dtype, shape, nbytes in self._entries[size]:
                header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + nbytes]}
                start += nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(self.path, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for size in ITEM_BYTES:
                if spool := self._spools.get(size):
                    spool.seek(0)
                    shutil.copyfileobj(spool, file, 1 << 20)
        self.close()

    def close(self) -> None:
        """Drops the spools."""
        for spool in self._spools.values():
            spool.close()
