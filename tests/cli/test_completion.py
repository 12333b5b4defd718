"""What the shell offers after <Tab>."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mora_lite.cli import completion


def test_tasks_are_those_of_the_pack_and_a_list_goes_on_after_its_comma() -> None:
    ctx = SimpleNamespace(params={})
    assert completion.complete_tasks(ctx, "logs") == ["logS"]
    assert completion.complete_tasks(ctx, "logS,BB") == ["logS,BBB"]
    assert completion.complete_tasks(SimpleNamespace(params={"pack": "qm9"}), "h") == ["homo"]
    assert completion.complete_tasks(SimpleNamespace(params={"pack": "none"}), "") == []


@pytest.mark.parametrize(
    ("complete", "incomplete", "found"),
    [
        (completion.complete_packs, "a", ["admet"]),
        (completion.complete_text_packs, "", ["reactions"]),
        (completion.complete_devices, "cp", ["cpu"]),
        (completion.complete_dtypes, "fl", ["float32", "float16"]),
        (completion.complete_text_tasks, "re", ["retro", "reagents"]),
        (completion.complete_caches, "n", ["nf4"]),
    ],
)
def test_names_are_offered(complete, incomplete, found) -> None:
    assert complete(incomplete) == found


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("mora-lite screen library.smi --tasks logS,BB", "logS,BBB"),
        ("mora-lite evaluate q", "qm9"),
        ("mora-lite info --js", "--json"),
    ],
)
def test_the_shell_gets_them(words, found) -> None:
    asked = {
        "_MORA_LITE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "mora_lite.cli"], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert found in done.stdout.split()
