"""Commands of the documents run, in the order of their page, on small tables in place of the reader's own.

Every command of README.md and of the pages of docs/ is run here or stands in `NOT_RUN` with the reason; those of
docs/benchmarks need hours, data from elsewhere or a GPU, and are only parsed (test_documents.py). The base model and
the packs that a reader would have made are tiny ones.
"""

from __future__ import annotations

import csv
import gzip
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import DOCUMENTS, ROOT, commands

from mora_lite.packs.installed import SHIPPED

PAGES = [path for path in DOCUMENTS if path.parent in (ROOT, ROOT / "docs") and commands(path)]
NOT_RUN = {  # beginning of a command, or what it has in it -> why not
    "pip ": "changes the environment; test_packaging.py builds and installs",
    "mora-lite serve": "does not end; tests/serve starts it",
    "mora-lite pull": "needs a network; tests/hub has a stand-in",
    "mora-lite push": "needs the hub; tests/hub has a stand-in",
    " hf:": "needs the hub; tests/hub has a stand-in",
    "mora-lite train admet.csv.gz": "an hour of a GPU, and data that examples/make_admet.py collects",
    "mora-lite pretrain": "hours, and 1,000 molecules or more; tests/training has few",
    "mora-lite train-text": "half an hour; tests/text trains on tiny tables",
    "mora-lite evaluate-text": "of a pack that train-text made; tests/text has tiny ones",
    "mora-lite generate examples/reactions.csv": "its questions are too long for the tiny base",
    "mora-lite generate CC(=O)Cl.": "a tiny model's one answer is hardly a molecule; tests/text has such a row",
    "mora-lite export qm9": "a minute; tests/export has tiny packs",
    "mora-lite export admet": "a minute; tests/export has tiny packs",
    " admet-onnx": "of the folder that the last one writes",
    "mora-lite export ./mine --web": "needs a package of npm; tests/export has tiny packs",
    "mora-lite export ./pack --peft": "tests/export has tiny packs",
    " --engine ray": "needs a cluster; tests/screening starts one",
    "python benchmarks/": "hours, and data from elsewhere",
    "python examples/make_": "data from elsewhere; tests/examples has tiny files",
    "python examples/admet_pages.py": "data from elsewhere",
}


def is_about(part: str, line: str) -> bool:
    """Whether an entry of `NOT_RUN` is about a command."""
    return part in line if part[0] == " " else line.startswith(part)


def reason(words: list[str]) -> str | None:
    """Why a command is not run."""
    return next((why for part, why in NOT_RUN.items() if is_about(part, " ".join(words))), None)


def write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="") as file:  # type: ignore[operator]
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


@pytest.fixture
def folder(molecules, tmp_path, monkeypatch):
    """Where a reader works: a copy of the examples, and tables under the names that the pages use."""
    shutil.copytree(
        ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("*.predictions.csv", "tour*")
    )
    write(tmp_path / "molecules.csv", ("name", "smiles"), [(f"m{i}", text) for i, text in enumerate(molecules[9:19])])
    header = ("smiles", "logS", "active", "IC50", "logP")
    rows = [(text, -len(text) / 9, i % 2, 10 + i, len(text) / 7) for i, text in enumerate(molecules)]
    for name in ("my.csv", "other.csv"):
        write(tmp_path / name, header, rows)
    shutil.copy(SHIPPED / "encoder" / "encoder.safetensors", tmp_path)
    (tmp_path / "lib").mkdir()
    for path in (tmp_path / "library.smi.gz", tmp_path / "lib" / "a.smi.gz"):
        path.write_bytes(gzip.compress("".join(f"{text} m{i}\n" for i, text in enumerate(molecules)).encode()))
    write(tmp_path / "reactions.csv", ("name", "smiles"), [("oxidation", "CO"), ("another", "CCO")])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MORA_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MORA_LITE_DEVICE", "cpu")
    monkeypatch.setenv("MORA_LITE_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def with_stand_ins(folder, base_path, request):
    """A function that puts what is tiny in place of what a reader would have fetched or made."""
    lines = (folder / "examples" / "logbb.csv").read_text("utf-8").splitlines()[:121]
    (folder / "examples" / "logbb.csv").write_text("\n".join(lines), "utf-8")

    def substitute(words: list[str]) -> list[str]:
        words = [re.sub("^/(lib|run)", r"\1", word) for word in words]
        if words[1] == "generate":
            pack = str(request.getfixturevalue("text_pack_path"))
            words = [pack if word in ("./retro", "./asked") else word for word in words]
            return [
                *words,
                *([] if pack in words else ["--pack", pack]),
                "--base",
                str(base_path),
                "--max-tokens",
                "12",
            ]
        words = [str(base_path) if word == "smollm2-135m" else word for word in words]
        if words[1] == "train":
            words += ["--encoder-epochs", "2", "--epochs", "2", "--base", str(base_path)]
        return words

    return substitute


@pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])
def test_the_commands_of_a_page_run(path, run, folder, with_stand_ins):
    given = [words for words in commands(path) if reason(words) is None]
    if not given:
        pytest.skip(f"none of them: {reason(commands(path)[0])}")
    for words in given:
        made = with_stand_ins(words)
        if words[0] == "python":
            done = subprocess.run([sys.executable, *made[1:]], capture_output=True, text=True, check=False)
            assert done.returncode == 0, (words, done.stderr)
            continue
        output = folder / made[made.index("-o") + 1] if "-o" in made else None
        writes_anew = words[1] in ("predict", "generate") or (output is not None and output.exists())
        made += ["--force"] if writes_anew and "--resume" not in words else []  # several commands write to one place
        code, _, err = run(*made[1:])
        assert code == 0, (words, err)


def test_every_reason_is_needed():
    lines = [" ".join(words) for path in PAGES for words in commands(path)]
    for part in NOT_RUN:
        assert any(is_about(part, line) for line in lines), part


def test_shell_blocks_are_marked_so_that_they_are_found():
    """`console` is for what is no program of ours, such as docker."""
    for path in DOCUMENTS:
        for language in re.findall(r"^```(\w+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            assert language not in ("bash", "shell", "zsh"), (path.name, language)
