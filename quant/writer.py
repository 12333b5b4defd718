"""A 4-bit Hugging Face directory, written a piece at a time, that appears under its name only once it is whole.

The header of a safetensors file comes first and holds the place of every tensor, and tensors must lie at multiples of
the size of their numbers. So tensors go to one spool for each size, and a file is put together from the spools at its
end; no more than one tensor is in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from ..machine.files import staged, write_sums
from .huggingface import INDEX, TYPES
from .nf4 import NF4Tensor, to_tensors

SHARD_BYTES = 1 << 29  # of a file at most
KIND = "config.json", "a model directory"  # for `check_free`
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def write_checkpoint(
    directory: str | Path,
    config: dict[str, Any],
    tensors: Iterable[tuple[str, Tensor | NF4Tensor]],
    tokenizer: Path | Callable[[], Any] | None = None,
    *,
    force: bool = False,
) -> Path:
    """Write config.json, safetensors shards, the tokenizer and SHA256SUMS; returns the directory.

    tensors: names with weights, taken one by one; no more than one is in memory.
    tokenizer: a directory to copy the tokenizer files from, or what gives an object with `save_pretrained`; it is
    called last, as tokenizers take much memory.
    Raises `OutputError` if the directory exists (without `force`), or is no checkpoint, or cannot be written.
    """
    target = Path(directory).expanduser()
    with staged(target, force, *KIND) as stage:
        nested = _write_shards(stage, tensors)
        settings = config if nested is None else config | {"quantization_config": quantization_config(nested)}
        _write_json(stage / "config.json", settings)
        if isinstance(tokenizer, Path):
            for name in TOKENIZER_FILES:
                if (tokenizer / name).is_file():
                    shutil.copyfile(tokenizer / name, stage / name)
        elif tokenizer is not None:
            tokenizer().save_pretrained(stage)
        write_sums(stage)
    return target


def quantization_config(double: bool) -> dict[str, Any]:
    """The `quantization_config` of config.json by which transformers hands the weights to bitsandbytes."""
    return {
        "_load_in_4bit": True,
        "_load_in_8bit": False,
        "bnb_4bit_compute_dtype": "float32",
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": double,
        "llm_int8_enable_fp32_cpu_offload": False,
        "llm_int8_has_fp16_weight": False,
        "llm_int8_skip_modules": ["lm_head"],
        "llm_int8_threshold": 6.0,
        "load_in_4bit": True,
        "load_in_8bit": False,
        "quant_method": "bitsandbytes",
    }


def _write_shards(part: Path, tensors: Iterable[tuple[str, Tensor | NF4Tensor]]) -> bool | None:
    """Write the files; returns whether the 4-bit weights are doubly quantised, None if there are none."""
    shards: list[list[str]] = []
    total = 0
    nested: bool | None = None
    shard = Shard(part / "0.shard")
    try:
        for name, weight in tensors:
            if isinstance(weight, NF4Tensor):
                nested = weight.nested is not None
                pieces = to_tensors(name, weight)
            else:
                pieces = {name: weight}
            size = sum(piece.numel() * piece.element_size() for piece in pieces.values())
            if shard.names and shard.nbytes + size > SHARD_BYTES:
                shard.finish()
                shards.append(shard.names)
                shard = Shard(part / f"{len(shards)}.shard")
            shard.add(pieces)
            total += size
            del weight, pieces  # nothing may hold a weight while the next one is made
        shard.finish()
        shards.append(shard.names)
    finally:
        shard.close()
    _name_shards(part, shards, total)
    return nested


def _name_shards(part: Path, shards: list[list[str]], total: int) -> None:
    """Give the shards their names, which hold the number of shards, and write the index if there are several."""
    if len(shards) == 1:
        os.replace(part / "0.shard", part / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        os.replace(part / f"{number}.shard", part / file)
        weight_map |= dict.fromkeys(names, file)
    _write_json(part / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


ITEM_BYTES = (8, 4, 2, 1)
NAMES = {dtype: name for name, dtype in TYPES.items()}


class Shard:
    """One safetensors file at `path` in the making. names, nbytes: of what it holds so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nbytes = 0
        self.names: list[str] = []
        self._entries: dict[int, list[tuple[str, str, list[int], int]]] = {size: [] for size in ITEM_BYTES}
        self._spools: dict[int, IO[bytes]] = {}

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors on the CPU to the spools."""
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
        """Put the file together."""
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
        """Drop the spools."""
        for spool in self._spools.values():
            spool.close()
