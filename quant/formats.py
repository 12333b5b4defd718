"""The kinds of checkpoints that are read: Hugging Face directories and GGUF files."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError
from .checkpoint import Checkpoint, check_inventory
from .huggingface import HuggingFaceCheckpoint


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a Hugging Face directory (config.json and safetensors, plain or bitsandbytes NF4) or a .gguf file.

    Raises `CheckpointError`, in one line, if it is missing, damaged, pickled or of an unsupported kind, or does not
    hold the weights that its configuration asks for.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint; give a model directory or a .gguf file")
    checkpoint: Checkpoint
    if path.is_dir():
        checkpoint = HuggingFaceCheckpoint(path)
    elif path.suffix.lower() == ".gguf":
        from .gguf import GGUFCheckpoint  # slow to import, and needed for these files alone

        checkpoint = GGUFCheckpoint(path)
    else:
        raise CheckpointError(f"{path}: expected a directory with config.json and *.safetensors, or a .gguf file")
    check_inventory(checkpoint)
    return checkpoint
