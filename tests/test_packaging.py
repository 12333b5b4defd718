"""The fixed top level, mapped into one package: what is listed, what is installed, who may import whom."""

from __future__ import annotations

import ast
import sys
from importlib import metadata
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
FOLDERS = {name: ROOT / folder for name, folder in SETUPTOOLS["package-dir"].items()}


def sources(*packages: str) -> list[Path]:
    return [path for name in packages for path in sorted(FOLDERS[name].rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports, relative imports resolved."""
    package = next(name for name, folder in FOLDERS.items() if path.is_relative_to(folder))
    inside = path.parent.relative_to(FOLDERS[package]).parts
    here = [*package.split("."), *inside]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def test_every_folder_with_an_init_is_listed_as_a_package():
    found = set()
    for name, folder in FOLDERS.items():
        for init in folder.rglob("__init__.py"):
            found.add(".".join([name, *init.parent.relative_to(folder).parts]))
    assert found == set(SETUPTOOLS["packages"])


def test_only_mora_lite_is_installed_at_the_top():
    text = metadata.distribution("mora-lite").read_text("top_level.txt")
    assert text is not None
    assert text.split() == ["mora_lite"]


@pytest.mark.parametrize("path", sources("mora_lite", "mora_lite.quant"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_never_imports_the_command_line_or_the_export(path):
    for name in imported(path):
        assert not f"{name}.".startswith(("mora_lite.cli.", "mora_lite.export."))


def test_nothing_imports_the_mapped_folders_by_their_folder_names():
    everything = sources("mora_lite", "mora_lite.quant", "mora_lite.export", "mora_lite.cli")
    for path in everything:
        assert not {name.split(".")[0] for name in imported(path)} & {"quant", "export", "cli"}, path


def test_nothing_reads_or_writes_pickles():
    for path in sources("mora_lite", "mora_lite.quant", "mora_lite.export", "mora_lite.cli"):
        text = path.read_text(encoding="utf-8")
        assert not {name.split(".")[0] for name in imported(path)} & {"pickle", "dill", "joblib", "shelve"}, path
        assert "torch.load(" not in text, path
        assert "torch.save(" not in text, path
        assert "allow_pickle=True" not in text, path


def test_no_file_outgrows_its_noun():
    for path in sources("mora_lite", "mora_lite.quant", "mora_lite.export", "mora_lite.cli"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
