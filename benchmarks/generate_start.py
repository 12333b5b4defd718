"""How long `mora-lite generate` takes for one row: with the base quantised anew, with its copy written, with it read.

    python benchmarks/generate_start.py ./forward [--repeats 5]

Whole processes, wall clock and processor time; the pack's base has to be in the cache. The copy is written to a folder
of its own and thrown away. Prints one line of JSON: medians, smallest and largest, in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mora_lite.hub.cache import cache_dir


def once(command: list[str], cache: Path) -> tuple[float, float]:
    """Wall clock and processor time of one process, in seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "MORA_LITE_CACHE": str(cache)})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack")
    parser.add_argument("--smiles", default="CC(=O)O.CCO", help="the row")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        cache, table = Path(work) / "cache", Path(work) / "one.csv"
        cache.mkdir()
        (cache / "bases").symlink_to(cache_dir().resolve() / "bases")
        table.write_text(f"smiles\n{args.smiles}\n")
        command = [sys.executable, "-m", "mora_lite.cli", "generate", str(table), "--pack", args.pack]
        command += ["-o", str(Path(work) / "out.csv"), "--force"]
        once(command, cache)  # files into the page cache
        (kept,) = [path for path in (cache / "nf4").iterdir() if path.is_dir()]
        found: dict[str, list[tuple[float, float]]] = {"anew": [], "written": [], "read": []}
        for _ in range(args.repeats):  # in turn, so that a slow minute slows all three
            found["read"].append(once(command, cache))
            aside = kept.parent.rename(cache / "aside")
            found["written"].append(once(command, cache))
            kept.parent.rename(cache / "old")
            kept.parent.write_text("no folder, so that there is no room for a copy")
            found["anew"].append(once(command, cache))
            kept.parent.unlink()
            shutil.rmtree(cache / "old")
            aside.rename(kept.parent)
    result: dict[str, object] = {"pack": Path(args.pack).name, "repeats": args.repeats}
    for way, times in found.items():
        for place, kind in enumerate(("seconds", "processor_seconds")):
            values = sorted(each[place] for each in times)
            numbers = (statistics.median(values), values[0], values[-1])
            result[f"{way}_{kind}"] = [round(number, 2) for number in numbers]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
