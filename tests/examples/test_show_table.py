"""The script that prints a table of predictions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "show_table.py"


def test_brackets_in_names_are_shown_as_they_are(tmp_path: Path) -> None:
    table = tmp_path / "some.predictions.csv"
    names = ["benzo[a]pyrene", "[/b]", "2-[4-(propyl)phenyl]acetic acid"]
    rows = "".join(f"{name},C,-7.25,ok,\n" for name in names)
    table.write_text(f"name [x],smiles,logS [log mol/L],status,error\n{rows}[bad],X,,unparsable,no [a]\n")
    done = subprocess.run([sys.executable, SCRIPT, table], capture_output=True, text=True, check=True, timeout=60)
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines[0].endswith("logS")
    assert lines[1].startswith("name [x]")
    assert lines[1].endswith("[log mol/L]")
    assert [line.split("  ")[0].strip() for line in lines[2:5]] == names
    assert lines[-1] == "[bad] (X): unparsable, no [a]"
