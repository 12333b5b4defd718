"""The package as a house: what is installed, its public names, who may import whom, and how large a thing may be."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest

import mora_lite

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
PACKAGES = ("mora_lite", "mora_lite.quant", "mora_lite.export", "mora_lite.cli")
FOLDERS = {name: ROOT / folder for name, folder in SETUPTOOLS["package-dir"].items()}

# Rooms (folders, and files at the root) from the ground up. A room imports from rooms in lines above its own only.
FLOORS = """
    errors
    status architecture
    machine chem
    quant adapter tables context
    hub
    lm
    scoring
    packs fast reports
    model
    training screening bench
    text
    publish environment
    export serve
    cli
"""
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS.split("\n")) for room in rooms.split()}
MAX_ROOMS, MAX_ROOT_FILES, MAX_ROOM_FILES = 15, 10, 14
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60


def test_readme_lists_the_rooms_from_the_ground_up():
    listed = re.findall(r"^  (\w+)/ ", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    rooms = [path.parent.name for path in (ROOT / "mora_lite").glob("*/__init__.py")]
    assert sorted(listed) == sorted(rooms)
    assert [FLOOR_OF[room] for room in listed] == sorted(FLOOR_OF[room] for room in listed)


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
    everything = sources(*PACKAGES)
    for path in everything:
        assert not {name.split(".")[0] for name in imported(path)} & {"quant", "export", "cli"}, path


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_imports_what_there_is(path):
    """Most take hours, and no test runs them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mora_lite":
            module = importlib.import_module(node.module)
            for name in node.names:
                there = hasattr(module, name.name) or importlib.util.find_spec(f"{node.module}.{name.name}")
                assert there, f"line {node.lineno}: {node.module} has no {name.name}"


def test_nothing_reads_or_writes_pickles():
    for path in sources(*PACKAGES):
        text = path.read_text(encoding="utf-8")
        assert not {name.split(".")[0] for name in imported(path)} & {"pickle", "dill", "joblib", "shelve"}, path
        assert "torch.load(" not in text, path
        assert "torch.save(" not in text, path
        assert "allow_pickle=True" not in text, path


# --- public names


@pytest.mark.parametrize("name", mora_lite.__all__)
def test_every_public_name_can_be_used_and_is_listed(name):
    assert getattr(mora_lite, name) is not None
    assert name in dir(mora_lite)


def test_the_public_names_stand_in_both_lists():
    assert sorted(mora_lite.__all__) == sorted(["__version__", *mora_lite._PUBLIC])


def test_no_module_has_the_name_of_something_public():
    """Importing it would put the module in the place of the function."""
    modules = {path.stem for path in (ROOT / "mora_lite").iterdir()} | {name.split(".")[-1] for name in PACKAGES}
    assert not modules & set(mora_lite.__all__)


def test_public_names_are_imported_at_first_use():
    code = "import mora_lite, sys; dir(mora_lite); print(*[m for m in ('torch', 'rdkit', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
    with pytest.raises(AttributeError, match="has no attribute 'predict_all'"):
        _ = mora_lite.predict_all


# --- who imports whom


def modules() -> dict[str, Path]:
    """Full name -> file, without `mora_lite` itself, which imports nothing until a public name is used."""
    named = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            inside = path.relative_to(folder).with_suffix("").parts
            named[".".join([package, *(inside[:-1] if inside[-1] == "__init__" else inside)])] = path
    del named["mora_lite"]
    return named


def room_of(module: str) -> str:
    return module.split(".")[1]


def test_imports_go_down_the_floors():
    """Late imports and those for types count too."""
    wrong = []
    for module, path in modules().items():
        room = room_of(module)
        for target in {room_of(name) for name in imported(path) if name.startswith("mora_lite.")} & FLOOR_OF.keys():
            if target != room and FLOOR_OF[target] >= FLOOR_OF[room]:
                wrong.append(f"{module} imports {target}")
    assert not wrong


def test_no_files_import_each_other_in_a_circle():
    named = modules()
    TopologicalSorter({name: imported(path) & named.keys() for name, path in named.items()}).prepare()


def test_every_room_says_in_one_line_what_it_is():
    for path in sources(*PACKAGES):
        if path.name == "__init__.py" and path.parent != ROOT / "mora_lite":
            text = path.read_text(encoding="utf-8")
            assert ast.get_docstring(ast.parse(text)), path
            assert len(text.splitlines()) == 1, path


# --- how large a thing may be


def test_no_room_is_crowded():
    folder = ROOT / "mora_lite"
    rooms = [path.parent for path in folder.glob("*/__init__.py")]
    assert len(rooms) <= MAX_ROOMS
    assert len(list(folder.glob("*.py"))) <= MAX_ROOT_FILES
    for room in rooms:
        assert len([path for path in room.glob("*.py") if path.name != "__init__.py"]) <= MAX_ROOM_FILES, room


def test_no_file_outgrows_its_noun():
    for path in sources(*PACKAGES):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES, path


def test_no_function_outgrows_a_screen():
    """From `def` to its end; of a command, whose signature is its options, the body alone."""
    long = []
    for path in sources(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                first = node.body[0] if path.is_relative_to(FOLDERS["mora_lite.cli"]) else node
                n_lines = node.end_lineno - first.lineno + 1
                if n_lines > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {n_lines} lines")
    assert not long, "\n".join(long)


def test_python_started_in_a_checkout_finds_the_folders_beside_the_package():
    """There `import mora_lite` takes the folder of that name before what is installed, which has the others inside."""
    code = (
        "import sys\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f).lower()]\n"
        "import mora_lite.quant.nf4, mora_lite.export, mora_lite.cli\n"
        "print(mora_lite.quant.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert Path(done.stdout.strip()) == ROOT / "quant" / "__init__.py", done.stderr
