"""The native reader of SMILES against RDKit, its speed, and whether each of its rules is needed.

    python benchmarks/native.py compare TABLE.csv.gz:COLUMN ... [--molecules N] [--spellings N] [--mutations N]
    python benchmarks/native.py speed TABLE.csv.gz:COLUMN ... [--threads N]
    python benchmarks/native.py rules

compare: of each table all molecules, or N at random (seed 0), read natively and by RDKit with and without taking
parents; also N random spellings of each, and N mutated texts of all. Printed for each: how many answers are equal, how
many differ (with the first of them), how many the native reader has no answer to although RDKit reads them, and what
they have in common. `--processes` of them work at a time.
speed: molecules a second, from a list of texts to graphs and fingerprints, in batches of 4,096.
rules: the reader is compiled once for each rule with that rule changed (`RULES`), and the probes and hard molecules of
the tests must notice its loss: by a wrong answer, or by one answer less. Needs a C compiler.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import csv
import gzip
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from rdkit import rdBase

from mora_lite.chem import native
from mora_lite.chem.molecules import parse_smiles

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from native_texts import HARD, mutated, respelled

BLOCK = 512
SOURCES = Path(__file__).parents[1] / "mora_lite" / "chem" / "csrc"

# What is done to a source to take a rule out: (what the rule is, file, text, text in its place).
RULES = [
    ("N of valence 5 gets charges", "cleanup.c", "split_charges(m, i, 8, DOUBLE);", ";"),
    ("N#N gets charges", "cleanup.c", "if (chosen[i]) split_charges(m, i, 7, TRIPLE);", ";"),
    ("C=P=O gets charges", "cleanup.c", "if (element == 15) clean_phosphorus(m, i);", ";"),
    ("halogen oxides get charges", "cleanup.c", "clean_halogen(m, i);", ";"),
    ("valences of ions are those of a neighbour", "valence.c", "atom->element - atom->charge;", "atom->element;"),
    ("aromatic valences fall to an allowed one", "valence.c", "if (twice - 2 * allowed <= 3)", "if (0)"),
    ("P and S may be hypervalent ions", "valence.c", "return (effective > 16 &&", "return 0 && (effective > 16 &&"),
    (
        "a bond to aromatic atoms is aromatic",
        "smiles.c",
        "bond->type = both ? AROMATIC : SINGLE; break;\n    case '/'",
        "bond->type = SINGLE; break;\n    case '/'",
    ),
    ("one closure and three neighbours invert a mark", "smiles.c", "if (single) centre->odd", "if (0) centre->odd"),
    ("a closure's direction is of the atom it is at", "smiles.c", "open->symbol ? a : b", "a"),
    ("a hydrogen atom adds to its neighbour", "hydrogens.c", "heavy->explicit_h++;", ";"),
    (
        "a radical may take a double bond",
        "kekule.c",
        "return !atom->radicals && atom->no_implicit",
        "return 0 && atom->no_implicit",
    ),
    (
        "RDKit's choice of a Kekule form",
        "kekule.c",
        "if (!settle_form(m, was_aromatic, partner, m->block[i])) return false;",
        ";",
    ),
    ("electrons go to an exocyclic partner", "aromaticity.c", "bool taken = outside >= 0 &&", "bool taken = 0 &&"),
    ("O and S give nothing in large rings", "aromaticity.c", "if (m->ring_size[i] >= LARGE_RING)", "if (0)"),
    ("fused systems of two rings and more", "aromaticity.c", "MOST_TOGETHER = 6", "MOST_TOGETHER = 1"),
    ("fused systems of three rings and more", "aromaticity.c", "MOST_TOGETHER = 6", "MOST_TOGETHER = 2"),
    ("fused rings share exactly one bond", "aromaticity.c", "n_shared(m, a, b) == 1", "n_shared(m, a, b) >= 1"),
    ("atoms of three rings do not count", "aromaticity.c", "p->times[atom] == 1 || p->times[atom] == 2", "1"),
    (
        "atoms without a bond of one ring alone",
        "aromaticity.c",
        "p->bond_times[m->ring_bonds[k]]++;",
        "p->bond_times[m->ring_bonds[k]]++, m->atoms[m->ring_atoms[k]].aromatic = true;",
    ),
    (
        "valence of an aromatic atom has a limit",
        "aromaticity.c",
        "> default_valence(effective)) return false;",
        "> 99) return false;",
    ),
    ("at most one multiple bond", "aromaticity.c", "return multiple <= 1;", "return true;"),
    ("no radicals but carbon's", "aromaticity.c", "if (atom->radicals &&", "if (0 &&"),
    ("large fused rings", "aromaticity.c", "MAX_FUSED_RING = 24", "MAX_FUSED_RING = 8"),
    (
        "hypervalent atoms do not conjugate",
        "conjugation.c",
        "total_valence(atom) > lowest) return false;",
        "0) return false;",
    ),
    ("nor do heavy ones", "conjugation.c", "if (atom->element > 10 &&", "if (0 &&"),
    ("nor do both partners of a double bond", "conjugation.c", "< 3 || !candidate[m->near_atom[i]]", "< 3"),
    ("conjugated N and O are SP2", "conjugation.c", "if (n == 4 && n_near <= 3)", "if (0)"),
    ("a mark makes SP3", "conjugation.c", "if (atom->centre >= 0 && n_near == 4) return 4;", ";"),
    ("marks at other than SP3 are none", "sanitize.c", "m->atoms[i].centre = -1;", ";"),
    (
        "hydrogens come back to aromatic atoms",
        "sanitize.c",
        "atom->explicit_h + before - atom->implicit_valence",
        "atom->explicit_h",
    ),
    ("radicals", "sanitize.c", "return early >= 0 ? min(n, early) : n;", "return 0;"),
    ("the third equal ring", "rings.c", "lengths[a] == lengths[b] ? 3 : 2", "2"),
    ("relevant cycles by length", "cycles.c", "relevant[end] = reduce(b, &bits) >= 0;", "relevant[end] = true;"),
    ("organic fragments first", "parent.c", "if (a->organic != b->organic)", "if (0)"),
    ("the heavier of equal fragments", "parent.c", "(a->weight > b->weight)", "(a->weight < b->weight)"),
    ("acids are neutralised", "parent.c", "bool acid = is_acid(m, i);", "bool acid = false;"),
    ("nitrates keep one charge", "parent.c", "balanced[near] < m->atoms[near].charge", "0"),
    ("cations that nothing neutralises", "parent.c", "n_fixed += atom->charge;", ";"),
    ("N turns inside out", "stereo.c", "return codes[8] == 1 || codes[9] >= 3;", "return true;"),
    ("a hydrogen counts where it is written", "stereo.c", "odd ^= (centre->n - 1 - i) & 1;", ";"),
    ("double bonds of small rings", "stereo.c", "smallest_ring(m, number) < SMALLEST_RING", "0"),
    ("elements that hold one another", "stereo.c", "if (!mark_and_resolve(&work, codes)) return false;", ";"),
    ("one that is resolved alone is none", "stereo.c", "if (n_new < 2 ||", "if ("),
    ("rounds of the order of atoms", "codes.c", "ORDER_ROUNDS = 6", "ORDER_ROUNDS = 4"),
    ("levels of counts", "codes.c", "MAX_LEVEL = 32", "MAX_LEVEL = 16"),
]


def read(table: str, n: int) -> list[str]:
    path, _, column = table.rpartition(":")
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", newline="", encoding="utf-8") as file:
        texts = list(dict.fromkeys(row[column] for row in csv.DictReader(file) if row[column]))
    return random.Random(0).sample(texts, n) if 0 < n < len(texts) else texts


def why(text: str) -> str:
    """A guess what keeps a text that RDKit reads from being certain."""
    kinds = {
        "tail or name": r"\s",
        "dummy atom": r"\*",
        "bonds and atoms beyond SMILES": r"->|<-|~|\$|#\d|@[A-Z]{2}",
        "hydride or hydrogen molecule": r"\[H-\]|\[H\]\[H\]",
        "direction at a hydrogen": r"\[H\][/\\]|[/\\]\[H\]",
        "element whose charge is not removed": r"\[(?!H|C|N|O|F|P|S|Cl|Br|I|Se|As|n|o|s|c|se)[A-Za-z]{1,2}H?\d?[+-]",
    }
    found = [name for name, pattern in kinds.items() if re.search(pattern, text)]
    return found[0] if found else "too long" if len(text) > 300 else "other"


def compare_block(texts: list[str]) -> tuple[collections.Counter[str], list[str], collections.Counter[str]]:
    counts, kinds = collections.Counter[str](), collections.Counter[str]()
    different: list[str] = []
    with rdBase.BlockLogs():
        for standardize in ("parent", "none"):
            reading = native.read(texts, standardize)
            wrong = [] if native.first_difference(texts, (standardize,)) is None else texts
            wrong = [text for text in wrong if native.first_difference([text], (standardize,)) is not None]
            different += wrong
            counts["different"] += len(wrong)
            counts["equal"] += int(reading.certain.sum()) - len(wrong)
            for text, certain in zip(texts, reading.certain, strict=True):
                if not certain and parse_smiles(text, version=2, standardize=standardize).mol is not None:
                    counts["uncertain"] += 1
                    kinds[why(text)] += 1
                elif not certain:
                    counts["for neither"] += 1
    return counts, different, kinds


def compare(name: str, texts: list[str], processes: int) -> int:
    total, kinds = collections.Counter[str](), collections.Counter[str]()
    different: list[str] = []
    blocks = [texts[start : start + BLOCK] for start in range(0, len(texts), BLOCK)]
    with concurrent.futures.ProcessPoolExecutor(processes) as pool:
        for counts, others, what in pool.map(compare_block, blocks):
            total.update(counts)
            kinds.update(what)
            different += others
    readable = max(total["equal"] + total["different"] + total["uncertain"], 1)
    print(
        f"{name}: {len(texts):,} texts twice, {total['equal']:,} equal, {total['different']:,} different, "
        f"{total['uncertain']:,} left to RDKit ({total['uncertain'] / readable:.4%} of the readable), "
        f"{total['for neither']:,} that RDKit refuses",
        flush=True,
    )
    for text in different[:20]:
        print(f"  different: {text}")
    for kind, count in kinds.most_common():
        print(f"  left to RDKit: {count:,} {kind}")
    return total["different"]


def run_compare(arguments: argparse.Namespace) -> int:
    everything: list[str] = []
    wrong = 0
    for table in arguments.tables:
        texts = read(table, arguments.molecules)
        everything += texts
        wrong += compare(table, texts, arguments.processes)
        if arguments.spellings:
            dice = random.Random(1)
            spellings = [s for text in texts for s in respelled(text, dice, arguments.spellings)[1:]]
            wrong += compare(f"{table}, respelled", spellings, arguments.processes)
    if arguments.mutations:
        dice, texts = random.Random(2), [*everything, *HARD]
        wrong += compare("mutated", [mutated(texts, dice) for _ in range(arguments.mutations)], arguments.processes)
    return int(wrong > 0)


def run_speed(arguments: argparse.Namespace) -> int:
    for table in arguments.tables:
        texts = read(table, arguments.molecules or 100_000)
        batches = [texts[start : start + 4096] for start in range(0, len(texts), 4096)]
        for threads in range(1, arguments.threads + 1):
            best = 0.0
            with concurrent.futures.ThreadPoolExecutor(threads) as pool:
                for _ in range(5):
                    start = time.perf_counter()
                    list(pool.map(lambda batch: native.read(batch, "parent"), batches))
                    best = max(best, len(texts) / (time.perf_counter() - start))
            print(f"{table}: {threads} threads, {best:,.0f} molecules/s, {1e6 / best:.2f} us a molecule", flush=True)
    return 0


PROGRAM = """
import importlib.util, sys
sys.path.insert(0, sys.argv[2])
from mora_lite.chem import native
from native_texts import HARD
from rdkit import rdBase
spec = importlib.util.spec_from_file_location("_native", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
native._extension = lambda: module
with rdBase.BlockLogs():
    texts = [*native.PROBES, *HARD]
    n_certain = sum(int(native.read(texts, way).certain.sum()) for way in native.STANDARDIZE)
    print(n_certain, native.first_difference(texts))
"""


def answers(folder: Path) -> tuple[int, str]:
    """How many of the probes and hard molecules the extension in `folder` answers, and the first wrong answer."""
    support = str(Path(__file__).parents[1] / "tests" / "support")
    command = [sys.executable, "-c", PROGRAM, str(folder / "_native.so"), support]
    n_certain, first = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split(maxsplit=1)
    return int(n_certain), first.strip()


def run_rules(_: argparse.Namespace) -> int:
    missed, of_all = 0, 0
    for name, file, old, new in [("nothing", "codes.c", "ORDER_ROUNDS", "ORDER_ROUNDS"), *RULES]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            shutil.copytree(SOURCES, folder / "csrc")
            source = folder / "csrc" / file
            text = source.read_text()
            assert old in text, (file, old)
            source.write_text(text.replace(old, new))
            files = sorted(map(str, (folder / "csrc").glob("*.c")))
            include = sysconfig.get_path("include")
            command = ["cc", "-std=c11", "-O1", "-w", "-shared", "-fPIC", f"-I{include}", *files, "-lm"]
            subprocess.run([*command, "-o", str(folder / "_native.so")], check=True)
            n_certain, wrong = answers(folder)
        of_all = of_all or n_certain
        noticed = wrong != "None" or n_certain < of_all
        missed += noticed != (name != "nothing")
        print(
            f"{'noticed' if noticed else 'NOT NOTICED'} without {name}: {n_certain} answers, wrong: {wrong}", flush=True
        )
    return int(missed > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run in (("compare", run_compare), ("speed", run_speed), ("rules", run_rules)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        if name == "rules":
            continue
        command.add_argument("tables", nargs="+", metavar="TABLE:COLUMN")
        command.add_argument("--molecules", type=int, default=0)
        if name == "compare":
            command.add_argument("--spellings", type=int, default=0)
            command.add_argument("--mutations", type=int, default=0)
            command.add_argument("--processes", type=int, default=1)
        else:
            command.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.command != "rules" and native.note():
        raise SystemExit(native.note())
    return arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
