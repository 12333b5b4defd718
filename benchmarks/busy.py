"""A `mora-lite` command on a machine whose cores all have other work, by how threads wait for each other.

    python benchmarks/busy.py generate 'CC(=O)Cl.NCc1ccccc1' -o -
    python benchmarks/busy.py --busy 0 --repeats 3 generate table.csv -o {}/answers.csv

Prints the seconds of the whole process: with libgomp's own number of looks for work before a thread sleeps, with this
package's, and on one thread. `--busy` is the number of processes beside it that do nothing but count, by default one
for each core. The order of the three is another in each repeat. {} is a new folder for each run.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time

from mora_lite.machine.process import SPINS
from mora_lite.machine.workers import usable_cores

WAYS = {
    "300,000 looks, as libgomp": {"GOMP_SPINCOUNT": "300000"},
    f"{SPINS:,} looks, as mora-lite": {"GOMP_SPINCOUNT": str(SPINS)},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
COUNT = "n = 0\nwhile True: n += 1"


def timed(arguments: list[str], environment: dict[str, str]) -> float:
    """Seconds of the command. Raises `CalledProcessError` where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mora_lite.cli", *(text.replace("{}", folder) for text in arguments)]
        started = time.perf_counter()
        subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=usable_cores())
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what follows `mora-lite`")
    asked = parser.parse_args()
    # In sessions of their own, as other programs are: Linux shares cores among sessions first.
    count = [sys.executable, "-c", COUNT]
    others = [subprocess.Popen(count, start_new_session=True) for _ in range(asked.busy)]
    try:
        for number in range(asked.repeats):
            for name in random.Random(number).sample(list(WAYS), len(WAYS)):
                seconds = timed(asked.command, WAYS[name])
                print(f"| {name} | {asked.busy} busy | {seconds:.1f} s |", flush=True)
    finally:
        for other in others:
            other.kill()


if __name__ == "__main__":
    main()
