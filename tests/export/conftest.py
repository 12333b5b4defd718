"""What exports of tiny packs share: the batches of the gate, made once, and a way past the gate."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from headless_browser import open_browser
from parity_gate import leave_open
from static_site import StaticSite, sending

from mora_lite.chem import native
from mora_lite.packs.pack import open_pack

ROOT = Path(__file__).resolve().parents[2]


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


# --- the exported page


@pytest.fixture(scope="session")
def page_folder(calibrated_pack_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the tiny pack. Not to be changed."""
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    from mora_lite.export import web

    runtime = ROOT / web.RUNTIME_FOLDER
    if not runtime.is_dir():
        pytest.skip(f"no {web.RUNTIME_FOLDER}: make web-runtime")
    if "not compiled" in native.note():
        pytest.skip("the C extension was not compiled")
    out = tmp_path_factory.mktemp("sites") / "site"
    with pytest.MonkeyPatch.context() as patch:  # the gate of the model has tests of its own
        leave_open(patch)
        web.export_site(open_pack(calibrated_pack_path), out, runtime=runtime)
    return out


@pytest.fixture(scope="session")
def site(page_folder: Path) -> Iterator[StaticSite]:
    with sending(page_folder) as site:
        yield site


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def driver(downloads: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_browser(tmp_path_factory.mktemp("profile"), downloads) as driver:
        driver.set_script_timeout(60)
        yield driver
