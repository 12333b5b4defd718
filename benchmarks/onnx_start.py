"""Start-up and memory: a fresh process from its first import to its first score, with ONNX Runtime and with torch.

    mora-lite export admet --full -o admet-onnx
    python benchmarks/onnx_start.py admet-onnx --pack admet --repeats 5

Both engines score the same molecules with all tasks, intervals and domain. `first`: from before the first import of
ours to the first score. `process`: from the start of Python to its end. `peak`: of resident memory, after the first
score and after `--rows` more molecules. Medians of the repeats; the engines take turns, so that a slow minute of the
machine is one of both; one start of each before, which fills the file cache, is not counted. Prints a table and, as the
last line, JSON. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("mora-lite", "torch", "onnxruntime", "numpy", "rdkit")
# The first import of the timed part is the one that a user writes; `time` and `resource` cost nothing.
CHILD = """
import json, resource, sys, time
started = time.perf_counter()
{load}
imported = time.perf_counter()
model = load(sys.argv[1]{options})
loaded = time.perf_counter()
model.score([sys.argv[2]])
scored = time.perf_counter()
def peak():
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
first_peak = peak()
with open(sys.argv[3]) as file:
    model.score(file.read().split())
print(json.dumps({{"import": imported - started, "load": loaded - imported, "score": scored - loaded,
    "first": scored - started, "peak_mib": first_peak, "peak_rows_mib": peak(), "torch": "torch" in sys.modules}}))
"""
ENGINES = {
    "onnx": CHILD.format(load="from mora_lite.export.runtime import load", options=""),
    "torch": CHILD.format(load="from mora_lite import load", options=', device="cpu"'),
    "torch float32": CHILD.format(load="from mora_lite import load", options=', device="cpu", dtype="float32"'),
}


def start(code: str, what: str, smiles: str, rows: Path) -> dict[str, Any]:
    """One fresh process; seconds and MiB."""
    began = time.perf_counter()
    command = [sys.executable, "-c", code, what, smiles, str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"a start failed: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1]) | {"process": time.perf_counter() - began}


def machine() -> str:
    """The processor and its number of cores, as far as the system tells."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    import os

    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="an exported folder, made with --full")
    parser.add_argument("--pack", default="admet", help="the pack that it was made from")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1000, help="molecules for the second peak")
    given = parser.parse_args()
    lines = (ROOT / "examples" / "molecules.csv").read_text().splitlines()[1:-1]  # the last cannot be read
    example = [line.rsplit(",", 1)[-1] for line in lines]
    rows = Path(__file__).with_suffix(".rows.part")
    rows.write_text("\n".join((example * (given.rows // len(example) + 1))[: given.rows]))
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ENGINES}
    try:
        for repeat in range(given.repeats + 1):
            for name, code in ENGINES.items():
                what = given.folder if name == "onnx" else given.pack
                once = start(code, what, example[-1], rows)
                if repeat:
                    found[name].append(once)
    finally:
        rows.unlink()
    columns = ("import", "load", "score", "first", "process", "peak_mib", "peak_rows_mib")
    medians = {n: {c: statistics.median(row[c] for row in found[n]) for c in columns} for n in ENGINES}
    assert not any(row["torch"] for row in found["onnx"]), "the runtime imported torch"
    print(f"{'engine':<14}" + "".join(f"{column:>15}" for column in columns))
    for name, row in medians.items():
        print(f"{name:<14}" + "".join(f"{row[c]:>15.{0 if 'mib' in c else 2}f}" for c in columns))
    share = medians["onnx"]["first"] / medians["torch"]["first"]
    print(f"onnx takes {share:.2f} of the time of torch to its first score")
    versions = {name: metadata.version(name) for name in PACKAGES}
    facts = {"machine": machine(), "date": date.today().isoformat(), "versions": versions, "pack": given.pack}
    rounded = {name: {c: round(value, 3) for c, value in row.items()} for name, row in medians.items()}
    print(json.dumps(facts | {"repeats": given.repeats, "rows": given.rows, "medians": rounded}))


if __name__ == "__main__":
    main()
