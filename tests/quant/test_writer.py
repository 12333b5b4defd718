"""safetensors files that we write, read by the package safetensors."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mora_lite.quant.writer import NAMES, Shard


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Bytes of odd number between wider numbers: each must still lie at a multiple of its size."""
    torch.manual_seed(0)
    tensors = {f"bytes.{n}": torch.arange(n, dtype=torch.uint8) for n in (3, 1, 0)}
    tensors |= {str(dtype): (100 * torch.randn(3, 5)).to(dtype) for dtype in NAMES}
    tensors |= {"scalar": torch.tensor(2.5), "transposed": torch.randn(4, 6).T}
    shard = Shard(tmp_path / "a.safetensors")
    for name in sorted(tensors):
        shard.add({name: tensors[name]})
    shard.finish()
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    content = (tmp_path / "a.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    assert all(header[name]["data_offsets"][0] % t.element_size() == 0 for name, t in tensors.items())
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}  # transformers asks for it
    assert shard.nbytes == sum(t.numel() * t.element_size() for t in tensors.values())
    assert shard.names == sorted(tensors)


@pytest.mark.parametrize("finished", [False, True])
def test_nothing_else_is_left(tmp_path: Path, finished: bool) -> None:
    shard = Shard(tmp_path / "a.safetensors")
    shard.add({"a": torch.zeros(3)})
    shard.finish() if finished else shard.close()
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"] * finished
