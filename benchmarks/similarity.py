"""What the similarity to the nearest training molecules costs on a device, and that its numbers are NumPy's.

    python benchmarks/similarity.py [--device cuda] [--pack admet] [--tasks 3 21 63] [--molecules 4096] [--repeats 20]

Molecules are made as in `cost.py`. The first 64 are compared with NumPy, bit for bit; then all are asked about
`--repeats` times, copies to the device and back included. Prints the shortest and the median time in microseconds a
molecule for the pack's first tasks, as a table in Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from cost import ROW_ATOMS, make_smiles

from mora_lite.chem.featurizer import Featurizer
from mora_lite.machine.device import choose_device, describe_processor
from mora_lite.packs.pack import open_pack

COMPARED = 64  # molecules


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pack", default="admet")
    parser.add_argument("--tasks", type=int, nargs="+", default=[3, 21, 63])
    parser.add_argument("--molecules", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    device, whole = choose_device(args.device), open_pack(args.pack).load_domain()
    assert whole is not None, "a pack without training molecules"
    smiles = make_smiles(args.molecules, ROW_ATOMS, np.random.default_rng(args.seed))
    bits = Featurizer().read_natively(smiles).fingerprints
    print(f"{describe_processor(device)}, torch {torch.__version__}\n")
    print("| tasks | training molecules | us a molecule, least | median | first call, ms |\n|---|---|---|---|---|")
    for n in args.tasks:
        domain, seconds = whole.select(range(n)), []
        for _ in range(args.repeats + 1):
            started = time.perf_counter()
            found = domain.similarity(bits, device)
            seconds.append(time.perf_counter() - started)
        np.testing.assert_array_equal(found[:COMPARED], domain.similarity(bits[:COMPARED]))
        first, *others = seconds
        us = [each / len(bits) * 1e6 for each in others]
        columns = f"{min(us):.3f} | {statistics.median(us):.3f} | {1e3 * first:.0f}"
        print(f"| {n} | {len(domain.packed):,} | {columns} |")


if __name__ == "__main__":
    main()
