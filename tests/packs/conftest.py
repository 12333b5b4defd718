"""A tiny pack to be damaged, where it lies or in the user's cache, and another of its like."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mora_lite.packs.pack import Pack, open_pack, save_pack


@pytest.fixture
def copy(pack_path: Path, tmp_path: Path) -> Path:
    """The tiny pack, to be damaged."""
    return Path(shutil.copytree(pack_path, tmp_path / "packs" / "tiny"))


@pytest.fixture
def save(make_scorer, pack_path: Path, compiled_base):
    """Writes the tiny pack's like to a path, with other random weights for another seed."""
    tasks = open_pack(pack_path).tasks

    def save(path: Path, seed: int = 1, **options) -> Pack:
        base = {"name": "tiny-llama", "sha256": compiled_base.sha256}
        scorer = make_scorer(c=1.0, seed=seed)
        return save_pack(path, path.name, scorer, tasks, compiled_base.weights, base, {}, **options)

    return save


@pytest.fixture
def cached(copy: Path, empty_cache: Path) -> Path:
    """The tiny pack in the user's cache."""
    return Path(shutil.move(copy.parent, empty_cache / "packs")) / "tiny"
