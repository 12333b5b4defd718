"""What exports of tiny packs share: the batches of the gate, made once, and a way past the gate."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from parity_gate import leave_open


@pytest.fixture(scope="session", autouse=True)
def batches_of_the_gate() -> Iterator[None]:
    """They come from a seed and are always the same; to make them takes longer than to check a tiny model with them."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("onnx") is not None:
            from mora_lite.export import parity

            for name in ("probe_cases", "small_cases"):
                patch.setattr(parity, name, functools.cache(getattr(parity, name)))
        yield


@pytest.fixture
def no_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what happens around it."""
    leave_open(monkeypatch)


@pytest.fixture
def folder(exported_path: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(exported_path, tmp_path / "folder"))
