"""A small table, a recipe for it on the random base model, and training without a compiler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mora_lite.training import pipeline
from mora_lite.training.recipe import Recipe, read_recipe

RECIPE = """
name = "tiny"
base = "{base}"
start = "random"
[adapter]
encoder_width = 32
encoder_layers = 2
hypernet_width = 32
adapted_layers = 2
rank = 4
[encoder]
epochs = 1
[mora]
epochs = 1
[[task]]
name = "size"
unit = "a"
[[task]]
name = "polar"
column = "polarity"
"""


@pytest.fixture(scope="module")
def no_compiler() -> Iterator[None]:
    """torch.compile of the upper layers takes longer than all of these runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.shutil, "which", lambda _: None)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, base_path: Path, table_path: Path) -> Path:
    """A working folder: recipe.toml, and data.csv with 40 molecules."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "recipe.toml").write_text(RECIPE.format(base=base_path))
    lines = table_path.read_text().splitlines(keepends=True)
    (folder / "data.csv").write_text("".join(lines[:41]))
    return folder


@pytest.fixture
def recipe(folder: Path) -> Recipe:
    return read_recipe(folder / "recipe.toml")
