"""A `mora-lite` command on a machine whose cores all have other work, by how threads wait for each other.

    python benchmarks/busy.py generate 'CC(=O)Cl.NCc1ccccc1' -o -
    python benchmarks/busy.py --busy 0 --repeats 3 generate table.csv -o answers.csv --force

Prints the seconds of the whole process: with libgomp's own number of looks for work before a thread sleeps, with this
package's, and on one thread. `--busy` is the number of processes beside it that do nothing but count, by default one
for each core. The order of the three is another in each repeat.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
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
    started = time.perf_counter()
    command = [sys.executable, "-m", "mora_lite.cli", *arguments]
    subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=usable_cores())
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    others = [subprocess.Popen([sys.executable, "-c", COUNT]) for _ in range(asked.busy)]
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
