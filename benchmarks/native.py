"""The native reader of SMILES against RDKit, its speed, and whether each of its rules is needed.

    python benchmarks/native.py compare TABLE.csv.gz:COLUMN ... [--molecules N] [--spellings N] [--mutations N]
        [--answers FOLDER] [--processes N]
    python benchmarks/native.py speed TABLE.csv.gz:COLUMN ... [--threads N]
    python benchmarks/native.py rules

compare: of each table all molecules, or N at random (seed 0), read natively and by RDKit with and without taking
parents; also N random spellings of each, and N mutated texts of all. Printed for each: how many answers are equal, how
many differ (with the first of them), how many the native reader has no answer to although RDKit reads them, and what
they have in common. `--processes` of them work at a time.
`--answers FOLDER` keeps RDKit's answers, and the texts that are made, so that a run goes on where it was stopped and a
changed reader is compared in seconds. A table may be a list of SMILES too, `LIST.smi:`.
speed: molecules a second, from lists of texts and from columns to graphs and fingerprints, in batches of 4,096.
rules: the reader is compiled once for each rule with that rule changed (`RULES`), and the probes and hard molecules of
the tests must notice its loss: by a wrong answer, or by one answer less. Needs a C compiler.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import csv
import gzip
import hashlib
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from rdkit import rdBase

from mora_lite.chem import circular, molecules, native
from mora_lite.chem.codes import graph_codes
from mora_lite.chem.graph import Graphs
from mora_lite.chem.standardize import may_have_parent

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from native_texts import HARD, mutated, respelled

BLOCK = 512
SOURCES = Path(__file__).parents[1] / "mora_lite" / "chem" / "csrc"

# What is done to a source to take a rule out: (what the rule is, file, text, text in its place).
RULES = [
    ("RDKit splits salts with a bond", "codes.c", "has_bonded_salt_metal(m)", "0"),
    ("counter-ions give way", "parent.c", "may_be_companion(&fragments[best])", "false"),
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
        "bond->type = both ? AROMATIC : SINGLE;\n    bond->aromatic = both;",
        "bond->type = SINGLE;",
    ),
    ("one closure and three neighbours invert a mark", "smiles.c", "if (single) centre->odd", "if (0) centre->odd"),
    ("a closure's direction is of the atom it is at", "smiles.c", "open->symbol ? a : b", "a"),
    ("a hydrogen atom adds to its neighbour", "hydrogens.c", "heavy->explicit_h++;", ";"),
    ("a radical may take a double bond", "kekule.c", "return !atom->radicals &&", "return 0 &&"),
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
        "default_valence(effective)) return false;",
        "99) return false;",
    ),
    ("at most one multiple bond", "aromaticity.c", "|| n_multiple(m, number) <= 1", "|| true"),
    ("no radicals but carbon's", "aromaticity.c", "if (atom->radicals &&", "if (0 &&"),
    ("large fused rings", "aromaticity.c", "MAX_FUSED_RING = 24", "MAX_FUSED_RING = 8"),
    ("hypervalent atoms do not conjugate", "conjugation.c", "total_valence(atom) > lowest)", "0)"),
    ("nor do heavy ones", "conjugation.c", "if (atom->element > 10 &&", "if (0 &&"),
    ("nor do both partners of a double bond", "conjugation.c", "!= SINGLE) & near)", "!= SINGLE))"),
    ("conjugated N and O are SP2", "conjugation.c", "if (n == 4 && n_near <= 3 && conjugated)", "if (0)"),
    ("a mark makes SP3", "conjugation.c", "if (atom->centre >= 0 && n_near == 4) return 4;", ";"),
    ("marks at other than SP3 are none", "sanitize.c", "m->atoms[i].centre = -1;", ";"),
    ("hydrogens come back to aromatic atoms", "sanitize.c", " + before - atom->implicit_valence", ""),
    ("radicals", "sanitize.c", "return early >= 0 ? min(n, early) : n;", "return 0;"),
    ("the third equal ring", "rings.c", "lengths[a] == lengths[b] ? 3 : 2", "2"),
    ("relevant cycles by length", "cycles.c", "relevant[end] = reduce(b, &bits) >= 0;", "relevant[end] = true;"),
    ("organic fragments first", "parent.c", "if (a->organic != b->organic)", "if (0)"),
    ("the heavier of equal fragments", "parent.c", "(a->weight > b->weight)", "(a->weight < b->weight)"),
    ("acids are neutralised", "parent.c", "is_acid_anion[i] = is_acid(m, i);", "is_acid_anion[i] = false;"),
    ("nitrates keep one charge", "parent.c", "balanced[near] < m->atoms[near].charge", "0"),
    ("cations that nothing neutralises", "parent.c", "n_fixed += atom->charge;", ";"),
    ("acids come last", "parent.c", "(surplus && !is_acid_anion[i])", "surplus"),
    ("few anions lose all charges", "parent.c", "surplus < 0 ||", "0 ||"),
    ("hydrides at elements left of carbon", "parent.c", "is_early(m->atoms[i].element) ? -1 : 1", "1"),
    ("protons of metals", "parent.c", " || is_early(m->atoms[i].element)", ""),
    ("parents that RDKit refuses", "parent.c", "if (!refused) return sanitize(m);", "return sanitize(m);"),
    ("hydrogens that stay atoms", "hydrogens.c", "|| is_kept(m, i);", "|| 0;"),
    ("a hydrogen alone at a double bond stays", "hydrogens.c", "degree(m, near) == 2 && n_double == 1;", "false;"),
    ("dummy atoms in rings are not known", "codes.c", "m->ring_count[i]) return true;", "0) return true;"),
    ("N turns inside out", "stereo.c", "return codes[8] == 1 || codes[9] >= 3;", "return true;"),
    ("a hydrogen counts where it is written", "stereo.c", "odd ^= (centre->n - 1 - i) & 1;", ";"),
    ("double bonds of small rings", "stereo.c", "smallest_ring(m, number) < SMALLEST_RING", "0"),
    ("elements that hold one another", "stereo.c", "if (!mark_and_resolve(&work, codes)) return false;", ";"),
    ("one that is resolved alone is none", "stereo.c", "if (n_new < 2 ||", "if ("),
    ("rounds of the order of atoms", "codes.c", "ORDER_ROUNDS = 6", "ORDER_ROUNDS = 4"),
    ("levels of counts", "circular.c", "times == 32", "0"),
]


def read(table: str, n: int) -> list[str]:
    path, _, column = table.rpartition(":")
    if path.endswith(".smi"):
        texts = Path(path).read_text(encoding="utf-8").splitlines()
        return random.Random(0).sample(texts, n) if 0 < n < len(texts) else texts
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


def digests(graphs: Graphs, fingerprints: np.ndarray) -> np.ndarray:
    """A number for all that is known of each molecule, uint64 `[B]`."""
    parts = [
        (np.ascontiguousarray(rows).data, pointer.tolist())
        for rows, pointer in (
            (graphs.atoms, graphs.atom_ptr),
            (graphs.bonds, graphs.bond_ptr),
            (graphs.bond_endpoints, graphs.bond_ptr),
            (fingerprints, np.arange(len(graphs) + 1)),
        )
    ]
    out = np.empty(len(graphs), np.uint64)
    for i in range(len(graphs)):
        digest = hashlib.blake2b(digest_size=8)
        for rows, pointer in parts:
            digest.update(rows[pointer[i] : pointer[i + 1]])
        out[i] = int.from_bytes(digest.digest(), "little") or 1
    return out


def rdkit_answers(texts: list[str]) -> np.ndarray:
    """RDKit's answers to texts with and without taking parents, uint64 `[N, 2]`; 0 where it refuses."""
    out = np.zeros((len(texts), 2), np.uint64)
    with rdBase.BlockLogs(), mock.patch.object(molecules, "_explain", return_value=""):  # reasons cost two parses more
        for way, standardize in enumerate(native.STANDARDIZE):
            rows = [i for i, text in enumerate(texts) if not way or may_have_parent(text)]
            out[:, way] = out[:, 0]
            out[rows, way] = 0
            found = [molecules.parse_smiles(texts[i], version=2, standardize=standardize).mol for i in rows]
            read = [(i, mol) for i, mol in zip(rows, found, strict=True) if mol is not None]
            if read:
                graphs = graph_codes([mol for _, mol in read], 2, plain=True)
                out[[i for i, _ in read], way] = digests(graphs, circular.fingerprints(graphs, plain=True))
    return out


def native_answers(texts: list[str]) -> np.ndarray:
    """The native reader's answers, as `rdkit_answers`; 0 where it is not certain."""
    out = np.zeros((len(texts), 2), np.uint64)
    for way, standardize in enumerate(native.STANDARDIZE):
        reading = native.read(texts, standardize)
        out[:, way] = np.where(reading.certain, digests(reading.graphs, reading.fingerprints), 0)
    return out


def kept_answers(texts: list[str], processes: int, folder: Path | None) -> np.ndarray:
    """`rdkit_answers`; those in the folder are not asked for again, and new ones are added to it block by block."""
    name = hashlib.sha256("\n".join(texts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    path = (folder or Path(tempfile.mkdtemp())) / f"{name}.{rdBase.rdkitVersion}.answers"
    size = path.stat().st_size if path.exists() else 0
    n_known = size // (BLOCK * 16) * BLOCK if size < len(texts) * 16 else len(texts)
    blocks = [texts[start : start + BLOCK] for start in range(n_known, len(texts), BLOCK)]
    with concurrent.futures.ProcessPoolExecutor(processes) as pool, path.open("ab") as file:
        file.truncate(n_known * 16)
        start = time.monotonic()
        for number, answers in enumerate(pool.map(rdkit_answers, blocks), 1):
            file.write(answers.tobytes())
            file.flush()
            if number % 200 == 0:
                rate = number * BLOCK / (time.monotonic() - start)
                print(f"  RDKit: {n_known + number * BLOCK:,} of {len(texts):,}, {rate:,.0f} a second", flush=True)
    return np.fromfile(path, np.uint64).reshape(-1, 2)


def compare(name: str, texts: list[str], processes: int, folder: Path | None) -> int:
    expected = kept_answers(texts, processes, folder)
    answers = [native_answers(texts[start : start + BLOCK]) for start in range(0, len(texts), BLOCK)]
    got = np.concatenate([*answers, np.zeros((0, 2), np.uint64)])
    different, left = (got != 0) & (got != expected), (got == 0) & (expected != 0)
    print(
        f"{name}: {len(texts):,} texts twice, {((got != 0) & ~different).sum():,} equal, "
        f"{different.sum():,} different, {left.sum():,} left to RDKit "
        f"({left.sum() / max((expected != 0).sum(), 1):.4%} of the readable; {left[:, 0].sum():,} when parents are "
        f"taken), {((got == 0) & (expected == 0)).sum():,} that RDKit refuses",
        flush=True,
    )
    for row, way in np.argwhere(different)[:20].tolist():
        print(f"  different, {native.STANDARDIZE[way]}: {texts[row]}")
    kinds = collections.Counter(why(texts[row]) for row in np.flatnonzero(left[:, 0]))
    for kind, count in kinds.most_common():
        print(f"  left to RDKit: {count:,} {kind}")
    return int(different.sum())


def made(name: str, folder: Path | None, make: Callable[[], list[str]]) -> list[str]:
    """Texts that are made anew, or those that were made before, so that RDKit's kept answers are to the same texts."""
    path = folder / f"{name}.smi" if folder else None
    if path is None or not path.exists():
        texts = make()
        if path is None:
            return texts
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path.read_text(encoding="utf-8").splitlines()


def run_compare(arguments: argparse.Namespace) -> int:
    everything: list[str] = []
    wrong = 0
    processes, folder, n = arguments.processes, arguments.answers, arguments.spellings
    if folder:
        folder.mkdir(parents=True, exist_ok=True)

    def respell(texts: list[str]) -> list[str]:
        dice = random.Random(1)
        return [s for text in texts for s in respelled(text, dice, n)[1:]]

    for table in arguments.tables:
        texts = read(table, arguments.molecules)
        everything += texts
        wrong += compare(table, texts, processes, folder)
        if n:
            file = re.sub(r"\W+", "-", f"{Path(table).name}-{len(texts)}-{n}")
            wrong += compare(f"{table}, respelled", made(file, folder, partial(respell, texts)), processes, folder)
    if arguments.mutations:
        dice, sources = random.Random(2), [*everything, *HARD]
        texts = made(
            f"mutated-{arguments.mutations}",
            folder,
            lambda: [mutated(sources, dice) for _ in range(arguments.mutations)],
        )
        wrong += compare("mutated", texts, processes, folder)
    return int(wrong > 0)


def timed(read: Callable[[], object]) -> float:
    """Seconds of processor time that a call takes its thread."""
    start = time.thread_time()
    read()
    return time.thread_time() - start


def columns(texts: list[str], n: int) -> list[tuple[bytes, np.ndarray]]:
    """The texts as string columns of `n` rows: bytes and offsets."""
    data = [text.encode() for text in texts]
    batches = [data[start : start + n] for start in range(0, len(data), n)]
    return [(b"".join(batch), np.cumsum([0, *map(len, batch)])) for batch in batches]


def measure(name: str, n: int, reads: list[Callable[[], object]], threads: int) -> None:
    """Print the best of nine passes over all batches: by the clock, and by the processor time of the threads."""
    wall, cpu = np.inf, np.inf
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for _ in range(9):
            start = time.perf_counter()
            seconds = sum(pool.map(timed, reads))
            wall, cpu = min(wall, time.perf_counter() - start), min(cpu, seconds)
    print(
        f"{name}, {threads} threads: {n / wall:,.0f} molecules/s, {1e6 * cpu / n:.2f} us of processor time each, "
        f"which is {n / cpu:,.0f} molecules/s of one core",
        flush=True,
    )


def run_speed(arguments: argparse.Namespace) -> int:
    for table in arguments.tables:
        texts = read(table, arguments.molecules or 100_000)
        lists = [texts[start : start + 4096] for start in range(0, len(texts), 4096)]
        of_lists = [partial(native.read, batch, "parent") for batch in lists]
        of_columns = [partial(native.read_column, *batch, "parent") for batch in columns(texts, 4096)]
        measure(f"{table}, lists of texts", len(texts), of_lists, 1)
        for threads in range(1, arguments.threads + 1):
            measure(f"{table}, columns", len(texts), of_columns, threads)
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
            command.add_argument("--answers", type=Path)
        else:
            command.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.command != "rules" and native.note():
        raise SystemExit(native.note())
    return arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
