"""The documents of the repository, their fenced blocks and the commands in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
IDS = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language; '' for those that name none."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for named, block in fenced if named == language]


def commands(path: Path) -> list[list[str]]:
    """Every line of the document's shell blocks, split into words."""
    text = "".join(blocks(path.read_text(encoding="utf-8"), "sh"))
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]
