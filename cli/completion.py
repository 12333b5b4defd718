"""What the shell offers after <Tab>: packs, tasks, devices, number types, kinds of task."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def _that_begin(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.lower().startswith(incomplete.lower())]


def complete_packs(incomplete: str) -> list[str]:
    """Packs of values that can be loaded by name."""
    from ..packs.installed import installed
    from ..packs.manifest import PACK

    return _that_begin((folder.name for folder, _ in installed(PACK)), incomplete)


def complete_text_packs(incomplete: str) -> list[str]:
    """Text packs that can be loaded by name."""
    from ..packs.installed import installed
    from ..packs.manifest import TEXT_PACK

    return _that_begin((folder.name for folder, _ in installed(TEXT_PACK)), incomplete)


def complete_tasks(ctx: Any, incomplete: str) -> list[str]:
    """Tasks of the pack on the command line, the last one of a list with commas."""
    from pathlib import Path

    from ..errors import PackError
    from ..packs.installed import find_installed
    from ..packs.manifest import PACK

    name = str(ctx.params.get("pack") or "admet")
    folder = Path(name) if (Path(name) / PACK.manifest).is_file() else find_installed(name, PACK.manifest)
    try:
        tasks = PACK.read(folder)["tasks"] if folder is not None else []
    except PackError:
        tasks = []
    before, last = re.fullmatch(r"(.*,)?([^,]*)", incomplete).groups(default="")  # type: ignore[union-attr]
    return [before + found for found in _that_begin((task["name"] for task in tasks), last)]


def complete_devices(incomplete: str) -> list[str]:
    """Without a look at what there is: that would take the seconds of importing torch."""
    return _that_begin(("auto", "cpu", "cuda", "cuda:0", "cuda:1"), incomplete)


def complete_dtypes(incomplete: str) -> list[str]:
    """Number types of a model."""
    return _that_begin(("auto", "float32", "bfloat16", "float16"), incomplete)


def complete_text_tasks(incomplete: str) -> list[str]:
    """What a text pack may answer."""
    return _that_begin(("forward", "retro", "reagents", "describe", "ask"), incomplete)


def complete_caches(incomplete: str) -> list[str]:
    """Kinds of cache that can be removed."""
    return _that_begin(("bases", "nf4", "packs"), incomplete)
