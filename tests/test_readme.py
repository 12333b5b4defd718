"""The documents keep what they say: the tree is the disk, commands parse or run, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from mora_lite.cli.app import app
from mora_lite.packs.pack import SHIPPED

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LEFT_OUT = {"build", "dist", "runs", "__pycache__"}  # what .gitignore leaves out, besides dot-folders and *.egg-info
PREDICT = "mora-lite predict examples/molecules.csv"
SHOWN = "logS logS_lo logS_hi logD BBB HIV similarity in_domain"


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language; '' for those that name none."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for named, block in fenced if named == language]


def commands(path: Path) -> list[list[str]]:
    """Every line of the document's shell blocks, split into words."""
    text = "".join(blocks(path.read_text(encoding="utf-8"), "sh"))
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


def files_on_disk() -> set[str]:
    """What belongs to the repository: by git where there is one, else all but what is made by running it."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
        return {name for name in names if name and (ROOT / name).is_file()}
    found = set()
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        made = any(part in LEFT_OUT or part.endswith(".egg-info") for part in parts)
        if path.is_file() and not made and not (parts[0].startswith(".") and len(parts) > 1 and parts[0] != ".ci"):
            found.add("/".join(parts))
    return found


def tree() -> tuple[set[str], set[str]]:
    """The files of the README's tree, and its folders without entries of their own, which stand for all in them."""
    block = next(b for b in blocks(README, "") if "pyproject.toml" in b)
    files: set[str] = set()
    folders: list[str] = []
    folder = ""
    for line in block.splitlines():
        name, meaning = line.split(maxsplit=1)
        assert meaning, line
        folder = folder if line.startswith("  ") else ""
        if name.endswith("/"):
            folders.append(folder + name)
            folder = folder or name
        else:
            files.add(folder + name)
    return files, {f for f in folders if not any(name.startswith(f) for name in files)}


def test_the_tree_is_what_is_on_the_disk():
    listed, whole = tree()
    on_disk = {name for name in files_on_disk() if not name.startswith(tuple(whole))}
    assert sorted(on_disk - listed) == [], "not in the README's tree"
    assert sorted(listed - on_disk) == [], "in the README's tree, not on the disk"


def test_the_tree_has_each_file_once():
    names = [line.split()[0] for b in blocks(README, "") if "pyproject.toml" in b for line in b.splitlines()]
    files, _ = tree()
    assert len(files) == sum(not name.endswith("/") for name in names)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_commands_of_the_documents_can_be_given(path):
    """mora-lite's own are parsed with their options; scripts exist and can be compiled; the rest is pip."""
    group = typer.main.get_command(app)
    for program, *words in commands(path):
        if program == "mora-lite":
            command = group.get_command(None, words[0])
            assert command is not None, words
            command.make_context(words[0], words[1:])
        elif program == "python":
            compile((ROOT / words[0]).read_text(encoding="utf-8"), words[0], "exec")
        elif program == "make":
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert all(re.search(rf"^{word}:", makefile, flags=re.MULTILINE) for word in words)
        else:
            assert (program, words[0]) in {("pip", "install"), ("pip", "download")}, (program, words)


@pytest.mark.parametrize(
    "command", sorted({words[1] for words in commands(ROOT / "README.md") if words[0] == "mora-lite"})
)
def test_every_command_of_the_readme_explains_itself(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert command in out


def test_the_readme_has_every_command():
    group = typer.main.get_command(app)
    shown = {words[1] for words in commands(ROOT / "README.md") if words[0] == "mora-lite"}
    assert shown == set(group.list_commands(None))


def test_info_runs(run):
    assert run("info")[0] == 0


@pytest.mark.skipif(not (SHIPPED / "admet" / "pack.json").is_file(), reason="the pack admet is not in the tree yet")
def test_predict_prints_what_the_readme_shows(run, tmp_path, monkeypatch):
    """The command as it stands there, on a copy of the examples; then the table, number by number."""
    assert PREDICT in README
    assert SHOWN in " ".join(README.split())
    assert f"SHOWN := {SHOWN}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("*.predictions.csv"))
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*shlex.split(PREDICT)[1:])
    assert (code, out) == (0, "")
    assert "20 rows, 19 ok" in err
    shown = subprocess.run(
        [sys.executable, "examples/show_table.py", "examples/molecules.predictions.csv", *SHOWN.split()],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
    ).stdout
    printed = next(b for b in blocks(README, "") if "sodium acetate" in b)
    assert len(printed.splitlines()) == len(shown.splitlines())
    for expected, got in zip(printed.splitlines(), shown.splitlines(), strict=True):
        assert cells(got) == [near(cell) for cell in cells(expected)]


def cells(line: str) -> list[float | str]:
    """The columns of the printed table; names of molecules may hold blanks, so they count from the right."""
    found: list[float | str] = []
    for word in reversed(line.split()):
        found.append(float(word) if re.fullmatch(r"-?\d+\.?\d*", word) else word)
    return found


def near(cell: float | str) -> object:
    """Another processor may use another number type: some hundredths of a log unit or of a probability."""
    return cell if isinstance(cell, str) else pytest.approx(cell, abs=0.05)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_to_files(path):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_files_named_in_the_documents_exist(path):
    """`tests/test_x.py`, `examples/x.toml` and the like, from the top of the repository."""
    for name in re.findall(r"\b(?:tests|examples|docs|benchmarks)/[\w./]+\.(?:py|toml|md)\b", path.read_text("utf-8")):
        assert (ROOT / name).is_file(), name


def test_every_status_is_explained():
    from mora_lite.chem import molecules
    from mora_lite.scoring import stream

    page = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
    statuses = (molecules.OK, molecules.EMPTY, molecules.UNPARSABLE, molecules.TOO_LARGE)
    for status in (*statuses, stream.MALFORMED, stream.NOT_FINITE):
        assert f"\n| {status} |" in page


def test_the_graph_codes_of_the_documents_are_those_of_the_program():
    from mora_lite.chem.graph import ATOM_FIELDS, BOND_FIELDS

    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    for name, codes in {**ATOM_FIELDS, **BOND_FIELDS}.items():
        assert f"\n| {name} | {codes} |" in page
