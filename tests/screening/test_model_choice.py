"""A pack or an exported folder, from Python as by the command."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import mora_lite
from mora_lite.errors import InputError, PackError
from mora_lite.screening.model_choice import ModelChoice


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "library.smi"
    path.write_text("CCO a\nC1CC b\nc1ccccc1O c\n")
    return path


@pytest.mark.usefixtures("small_screens")
def test_python_screens_an_exported_folder_to_the_bytes_of_the_command(
    library: Path, exported_path: Path, tmp_path: Path, run: Any
) -> None:
    options = ("--tasks", "mass,size", "--provider", "cpu")
    assert run("screen", library, "-o", tmp_path / "command", "--pack", exported_path, *options)[0] == 0
    for engine in ("auto", "onnx"):
        summary = mora_lite.screen(
            library, tmp_path / engine, pack=exported_path, tasks="mass,size", engine=engine, provider="cpu"
        )
        assert summary.counts.n_ok == 2
        for name in ("part-00000.parquet", "top.csv", "manifest.json"):
            assert (tmp_path / engine / name).read_bytes() == (tmp_path / "command" / name).read_bytes()


@pytest.mark.parametrize("tasks", [None, "size", "mass, size", ["size", "mass"]])
def test_what_is_known_before_loading_is_what_is_loaded(
    exported_path: Path, calibrated_pack_path: Path, tasks: Any
) -> None:
    for pack in (exported_path, calibrated_pack_path):
        choice = ModelChoice(str(pack), tasks=tasks)
        assert choice.is_onnx == (pack == exported_path)
        assert choice.source().tasks == choice.load().tasks


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "spark"}, "--engine: got 'spark', expected auto, torch, onnx, ray"),
        ({"engine": "torch"}, "is an exported folder, not a pack"),
        ({"engine": "ray"}, "is an exported folder, not a pack"),
        ({"device": "cpu"}, "--device cpu is for packs on torch; an exported folder has --provider instead"),
        ({"engine": "ray", "provider": "cpu"}, "--provider cpu is for --engine onnx"),
        ({"ray_address": "auto"}, "--ray-address is for --engine ray"),
    ],
)
def test_options_of_another_engine_are_refused_before_the_work(
    library: Path, exported_path: Path, tmp_path: Path, options: dict[str, str], words: str
) -> None:
    if options.get("engine") == "ray" and find_spec("ray") is None:  # not imported: other tests need it silenced before
        pytest.skip("the extra `ray` is not installed")
    with pytest.raises((InputError, PackError), match=words):
        mora_lite.screen(library, tmp_path / "run", pack=exported_path, **options)
    assert not (tmp_path / "run").exists()
