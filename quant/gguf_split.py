"""The files of a GGUF model that was split: NAME-00001-of-00003.gguf and so on, as llama-gguf-split and hubs have them.

Nothing here opens a file or imports the package gguf.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import CheckpointError

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE)


def split_files(path: Path) -> list[Path]:
    """The files, in order, of the model that `path` is or is a part of. Raises `CheckpointError` if one is missing."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    parts = int(match[3])
    files = []
    for number in range(1, parts + 1):
        file = path.with_name(f"{match[1]}-{number:05}-of-{match[3]}{match[4]}")
        if not file.is_file():
            raise CheckpointError(f"{file}: this part of {parts} is missing; fetch it into the same directory")
        files.append(file)
    return files or [path]
