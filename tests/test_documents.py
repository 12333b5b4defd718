"""The documents say what is so: rooms are those on the disk, commands parse or run, links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from documents import DOCUMENTS, IDS, ROOT, blocks, commands

from mora_lite.cli.app import app
from mora_lite.packs.installed import SHIPPED

README = (ROOT / "README.md").read_text(encoding="utf-8")
PREDICT = "mora-lite predict examples/molecules.csv --tasks logS,logD,Caco2,hERG_blocker,CYP3A4_inhibitor"
SHOWN = "logS logS_lo logS_hi logD Caco2 hERG_blocker CYP3A4_inhibitor in_domain"
GAP = "..."  # a line of printed output that stands for those left out
COMMANDS = re.findall(r"^\| \[`([a-z-]+)`\]\(", README, flags=re.MULTILINE)  # of the README's table


def folders_on_disk() -> set[str]:
    """Folders of the repository with files in them: those at the top, and the rooms of mora_lite. Hidden ones apart."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
        files = [Path(name) for name in names if (ROOT / name).is_file()]
    else:
        made = re.compile(r"(build|dist|runs|[^/]*\.egg-info)/|(.*/)?__pycache__/")  # what .gitignore leaves out
        files = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
        files = [file for file in files if not made.match(file.as_posix())]
    folders = {file.parts[0] for file in files if len(file.parts) > 1 and not file.parts[0].startswith(".")}
    rooms = {f"mora_lite/{file.parts[1]}" for file in files if file.parts[0] == "mora_lite" and len(file.parts) > 2}
    return folders | rooms


def folders_of_the_readme() -> list[str]:
    """The folders that the README lists, those of mora_lite indented under it."""
    block = next(b for b in blocks(README, "") if b.startswith("mora_lite/"))
    names = []
    for line in block.splitlines():
        name, meaning = line.split(maxsplit=1)
        assert name.endswith("/")
        assert meaning, line
        names.append(("mora_lite/" if line.startswith("  ") else "") + name.rstrip("/"))
    return names


def test_the_rooms_of_the_readme_are_those_on_the_disk():
    listed = folders_of_the_readme()
    assert len(listed) == len(set(listed))
    assert sorted(listed) == sorted(folders_on_disk())


def test_the_readme_is_short():
    assert len(README.encode()) <= 10_000
    assert not [line for line in README.splitlines() if len(line) > 160 and not line.startswith("[![")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
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


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_explains_itself(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert command in out


def test_the_readme_has_every_command_once():
    group = typer.main.get_command(app)
    assert sorted(COMMANDS) == sorted(group.list_commands(None))


def test_info_runs(run):
    assert run("info")[0] == 0


@pytest.mark.skipif(not (SHIPPED / "admet" / "pack.json").is_file(), reason="the pack admet is not in the tree yet")
def test_predict_prints_what_the_readme_shows(run, tmp_path, monkeypatch):
    """The command as it stands there, on a copy of the examples; then the table, number by number."""
    assert PREDICT in README
    assert SHOWN in (ROOT / "docs" / "first-steps.md").read_text(encoding="utf-8")
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
    for name in ("README.md", "docs/first-steps.md"):
        printed = next(b for b in blocks((ROOT / name).read_text("utf-8"), "") if "caffeine" in b)
        check_printed(printed, shown)


def check_printed(printed: str, shown: str) -> None:
    """Every printed line is one of those shown, number by number and in their order; only a gap leaves lines out."""
    lines = iter([cells(line) for line in shown.splitlines()])
    gap = False
    for line in printed.splitlines():
        if line == GAP:
            gap = True
            continue
        expected = [near(cell) for cell in cells(line)]
        got = next(lines)
        while gap and got != expected:
            got = next(lines, None)
            assert got is not None, f"not shown: {line}"
        assert got == expected
        gap = False
    assert gap or next(lines, None) is None


@pytest.mark.skipif(not (SHIPPED / "admet" / "pack.json").is_file(), reason="the pack admet is not in the tree yet")
def test_screen_of_the_readme_and_the_first_steps_runs(run, tmp_path, monkeypatch):
    """Its summary is the one shown, but for the seconds; and it writes the files that the first steps name."""
    command = next(words for words in commands(ROOT / "README.md") if words[1] == "screen")
    steps = (ROOT / "docs" / "first-steps.md").read_text("utf-8")
    assert command in commands(ROOT / "docs" / "first-steps.md")
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("*.predictions.csv"))
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*command[1:])
    assert (code, out) == (0, "")
    (summary,) = re.findall(r"^run: [\d,]+ rows, [\d,]+ ok;", err, flags=re.MULTILINE)
    assert summary in README
    assert summary in steps
    for name in ("part-00000.parquet", "top.csv", "report.html"):
        assert (tmp_path / "run" / name).is_file()
        assert f"`{name}`" in steps


def cells(line: str) -> list[float | str]:
    """The columns of the printed table; names of molecules may hold blanks, so they count from the right."""
    found: list[float | str] = []
    for word in reversed(line.split()):
        found.append(float(word) if re.fullmatch(r"-?\d+\.?\d*", word) else word)
    return found


def near(cell: float | str) -> object:
    """Another processor may use another number type: some hundredths of a log unit or of a probability."""
    return cell if isinstance(cell, str) else pytest.approx(cell, abs=0.05)


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_links_lead_to_files(path):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_files_named_in_the_documents_exist(path):
    """`tests/test_x.py`, `examples/x.toml` and the like, from the top; `fast/scorer.py`, from mora_lite/. Not links."""
    text = path.read_text("utf-8")
    folders = "tests|examples|docs|benchmarks"
    for name in re.findall(rf"(?<!\]\()(?<![\w/])(?:{folders})/[\w./-]+\.(?:py|toml|md|csv|ipynb)\b", text):
        assert (ROOT / name).is_file() or name.endswith(".predictions.csv"), name
    rooms = "|".join(folder.removeprefix("mora_lite/") for folder in folders_on_disk() if "/" in folder)
    for name in re.findall(rf"(?<![\w/])(?:mora_lite/)?((?:{rooms})/\w+\.py)\b", text):
        assert (ROOT / "mora_lite" / name).is_file(), name


def test_every_status_is_explained():
    from mora_lite import status

    page = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
    for word in (status.OK, status.EMPTY, status.UNPARSABLE, status.TOO_LARGE, status.MALFORMED, status.NOT_FINITE):
        assert f"\n| {word} |" in page
    assert f"\n| {status.TIMEOUT}, {status.CRASHED} |" in page


def test_the_graph_codes_of_the_documents_are_those_of_the_program():
    from mora_lite.chem.graph import ATOM_FIELDS, BOND_FIELDS

    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    for name, codes in {**ATOM_FIELDS, **BOND_FIELDS}.items():
        assert f"\n| {name} | {codes} |" in page


def test_fields_of_the_manifests_are_explained():
    """Each field of the packs that ship, and of what they record of their making, in a table or in words."""
    for manifest in SHIPPED.glob("*/*pack.json"):
        page = (ROOT / "docs" / ("packs.md" if manifest.name == "pack.json" else "text.md")).read_text(encoding="utf-8")
        first_cells = ", ".join(re.findall(r"^\| ([\w, ]+) \|", page, flags=re.MULTILINE)).split(", ")
        known = {*first_cells, *re.findall(r"`(\w+)`", page)}
        content = json.loads(manifest.read_text(encoding="utf-8"))
        assert {*content, *content["provenance"]} <= known, manifest


def test_the_api_page_has_every_public_name():
    import mora_lite

    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = re.findall(r"^::: mora_lite\.(\w+)$", page, flags=re.MULTILINE)
    assert sorted(names) == sorted(set(mora_lite.__all__) - {"__version__"})


def test_the_index_leads_to_every_page():
    """From docs/README.md and docs/benchmarks/README.md; and the site's menu has each once."""
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    linked = set()
    for index in (docs / "README.md", docs / "benchmarks" / "README.md"):
        for target in re.findall(r"\]\(([^)#]+\.md)", index.read_text(encoding="utf-8")):
            linked.add((index.parent / target).resolve().relative_to(docs).as_posix())
    assert pages - linked == {"README.md"}
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    assert sorted(re.findall(r"[\w/-]+\.md", menu)) == sorted(pages)


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("mkdocs", "material", "mkdocstrings")),
    reason='mkdocs-material or mkdocstrings is not installed (pip install ".[docs]")',
)
def test_the_site_builds_without_a_warning(tmp_path):
    """Links and anchors inside of it included. The API page is made from the docstrings."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.search("^(WARNING|ERROR)", done.stderr, flags=re.MULTILINE)
    page = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    for name in re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), flags=re.MULTILINE):
        assert f'id="{name}"' in page
