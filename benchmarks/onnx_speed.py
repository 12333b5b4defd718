"""Torch beside ONNX Runtime on a CPU: milliseconds of a batch, start-up, peak memory, file sizes.

    python benchmarks/onnx_speed.py LIBRARY.csv.gz --pack admet --threads 2 --rounds 5

Exports the pack, then gives each engine a fresh process with the same graphs, in turn, several rounds; engines of ONNX
Runtime import no torch. Parsing is left out: all start from graphs. Prints tables in Markdown, medians over rounds, and
as the last line JSON with every round. Rows "by 64" split a batch into calls of 64 molecules, as `predict` does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = (1, 64, 256, 1024)
CHUNK = 64
SCORERS = {
    "torch, plain, float32": "torch:plain:float32",
    "torch, fast, float32": "torch:fast:float32",
    "torch, fast, float32, by 64": "torch:fast:float32:chunks",
    "torch, fast, bfloat16": "torch:fast:bfloat16",
    "torch, fast, bfloat16, by 64": "torch:fast:bfloat16:chunks",
    "onnxruntime, scorer.onnx": "ort:scorer.onnx",
    "onnxruntime, scorer.onnx, by 64": "ort:scorer.onnx:chunks",
    "onnxruntime, scorer.plain.onnx": "ort:scorer.plain.onnx",
}
ENCODERS = {
    "torch, plain, float32": "torch:encoder:float32",
    "torch, fast, float32": "torch:fast_encoder:float32",
    "torch, fast, bfloat16": "torch:fast_encoder:bfloat16",
    "onnxruntime, encoder.onnx": "ort:encoder.onnx",
    "onnxruntime, encoder.fp16.onnx": "ort:encoder.fp16.onnx",
    "onnxruntime, encoder.int8.onnx": "ort:encoder.int8.onnx",
}
PARTS = ("atoms", "bonds", "bond_endpoints", "atom_ptr", "bond_ptr")  # of `graph.Graphs`


def write_graphs(library: Path, work: Path, n: int) -> None:
    """The graphs of the first `n` molecules that can be read, and for each batch size the inputs of the models."""
    from mora_lite.chem.featurizer import Featurizer
    from mora_lite.export.featurizer import model_inputs
    from mora_lite.tables.library import open_library

    molecules: list[Any] = []
    with open_library(library) as table:
        for window in table.windows(1024):
            parsed = (Featurizer().parse_molecule(record.text).mol for record in window.records)
            molecules += [molecule for molecule in parsed if molecule is not None]
            if len(molecules) >= n:
                break
    if len(molecules) < n:
        sys.exit(f"{library} has {len(molecules)} readable molecules, and {n} are needed")
    graphs = Featurizer().graphs(molecules[:n])
    np.savez(work / "graphs.npz", **{name: getattr(graphs, name) for name in PARTS})
    # Sorted by size, as the program scores them, and cut again where it cuts.
    order = np.argsort(graphs.n_atoms, kind="stable")
    for start in range(0, n, CHUNK):
        np.savez(work / f"chunk{start}.npz", **model_inputs(graphs.select(order[start : start + CHUNK])))
    for size in BATCHES:
        np.savez(work / f"batch{size}.npz", **model_inputs(graphs.select(range(size))))


def torch_runs(kind: str, dtype: str, chunks: bool, pack: str, work: Path) -> dict[int, Callable[[], Any]]:
    """What scores or encodes each batch with torch."""
    import torch

    from mora_lite.chem.graph import Graphs
    from mora_lite.fast.batch import SortedBatch
    from mora_lite.fast.scorer import FastEncoder, FastScorer
    from mora_lite.packs.pack import open_pack

    with np.load(work / "graphs.npz") as held:
        graphs = Graphs(**{name: held[name] for name in PARTS})
    scorer = open_pack(pack).load_scorer()
    number_type = getattr(torch, dtype)
    fast = FastScorer(scorer, number_type) if kind == "fast" else None
    encoder = FastEncoder(scorer.encoder, number_type)

    def run(part: Graphs) -> Any:
        if fast is not None:
            return fast(part)
        with torch.inference_mode():
            if kind == "fast_encoder":
                return encoder(SortedBatch.of(part))
            batch = part.batch()
            return scorer(batch) if kind == "plain" else scorer.encode(batch)

    def calls(size: int) -> Callable[[], Any]:
        if not chunks:
            part = graphs.select(range(size))
            return lambda: run(part)
        chosen = graphs.select(range(size))
        order = np.argsort(chosen.n_atoms, kind="stable")
        parts = [chosen.select(order[start : start + CHUNK]) for start in range(0, size, CHUNK)]
        return lambda: [run(part) for part in parts]

    return {size: calls(size) for size in BATCHES}


def ort_runs(name: str, chunks: bool, export: Path, work: Path, threads: int) -> dict[int, Callable[[], Any]]:
    """The same with ONNX Runtime; no torch is imported."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(export / name, options, providers=["CPUExecutionProvider"])
    n_tasks = len(json.loads((export / "export.json").read_text())["tasks"])

    def read(file: Path) -> dict[str, np.ndarray]:
        with np.load(file) as held:
            inputs = {key: held[key] for key in held.files}
        return inputs | ({"task_index": np.arange(n_tasks)} if "scorer" in name else {})

    def calls(size: int) -> Callable[[], Any]:
        files = [work / f"batch{size}.npz"]
        if chunks and size > CHUNK:
            files = [work / f"chunk{start}.npz" for start in range(0, size, CHUNK)]
        batches = [read(file) for file in files]
        return lambda: [session.run(None, batch) for batch in batches]

    return {size: calls(size) for size in BATCHES}


def measure(engine: str, pack: str, export: Path, work: Path, threads: int, repeats: int) -> dict[str, Any]:
    """Of this process: seconds until the first molecule is scored, milliseconds of each batch by the clock and of
    processor time (which says more where other programs run), peak memory.
    """
    started = time.perf_counter()
    library, name, *rest = engine.split(":")
    if library == "torch":
        import torch

        torch.set_num_threads(threads)
        runs = torch_runs(name, rest[0], "chunks" in rest, pack, work)
    else:
        runs = ort_runs(name, "chunks" in rest, export, work, threads)
    runs[1]()
    first = time.perf_counter() - started
    times, cpu = {}, {}
    for size, run in runs.items():
        run()
        pairs = []
        for _ in range(repeats):
            begun = time.perf_counter(), time.process_time()
            run()
            pairs.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
        times[size], cpu[size] = (1e3 * statistics.median(part) for part in zip(*pairs, strict=True))
    return {
        "first_score_s": first,
        "ms": times,
        "cpu_ms": cpu,
        "peak_rss_mib": peak_mib(),
        "torch_imported": "torch" in sys.modules,
    }


def peak_mib() -> float:
    """Of this process alone: what `getrusage` tells on Linux begins at what the parent held."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def in_fresh_process(arguments: list[str]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def print_table(title: str, engines: dict[str, str], found: dict[str, list[dict[str, Any]]]) -> None:
    """Medians over rounds, in Markdown."""
    print(f"\n{title}: milliseconds of a batch\n")
    print("| engine | " + " | ".join(f"{size:,}" for size in BATCHES) + " | first score, s | peak MiB |")
    print("| --- |" + " ---: |" * (len(BATCHES) + 2))
    for label, engine in engines.items():
        rounds = found[engine]
        cells = [statistics.median(r["ms"][str(size)] for r in rounds) for size in BATCHES]
        first = statistics.median(r["first_score_s"] for r in rounds)
        peak = statistics.median(r["peak_rss_mib"] for r in rounds)
        print(f"| {label} | " + " | ".join(f"{ms:,.1f}" for ms in cells) + f" | {first:.2f} | {peak:,.0f} |")


def describe_run() -> dict[str, Any]:
    from mora_lite.machine.device import cpu_flags, cpu_name

    packages = ("mora-lite", "torch", "onnx", "onnxruntime", "numpy")
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    flags = sorted(cpu_flags() & {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"})
    return {
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "flags": flags},
        "versions": {"python": platform.python_version()} | versions,
        "date": date.today().isoformat(),
        "command": shlex.join(["python", "benchmarks/onnx_speed.py", *sys.argv[1:]]),
    }


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Torch beside ONNX Runtime on a CPU.")
    parser.add_argument("library", type=Path, help="CSV with SMILES, plain or .gz, 1,024 molecules or more")
    parser.add_argument("--pack", default="admet")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes of each engine")
    parser.add_argument("--repeats", type=int, default=5, help="of each batch in a process")
    parser.add_argument("--engine", help=argparse.SUPPRESS)  # the rest is for the processes that it starts
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = read_arguments()
    if args.engine:
        found = measure(args.engine, args.pack, args.work / "export", args.work, args.threads, args.repeats)
        print(json.dumps(found))
        return
    from mora_lite.export.writer import export_pack
    from mora_lite.packs.pack import open_pack

    with tempfile.TemporaryDirectory(prefix="mora-lite-bench-") as folder:
        work = Path(folder)
        parity = export_pack(open_pack(args.pack), work / "export", full=True, plain=True, fp16=True, int8=True)
        write_graphs(args.library, work, max(BATCHES))
        sizes = {file.name: file.stat().st_size for file in sorted((work / "export").iterdir())}
        rest = [str(args.library), "--pack", args.pack, "--threads", str(args.threads)]
        rest += ["--repeats", str(args.repeats), "--work", str(work)]
        found: dict[str, list[dict[str, Any]]] = {}
        for _ in range(args.rounds):
            for engine in (*SCORERS.values(), *ENCODERS.values()):
                found.setdefault(engine, []).append(in_fresh_process([*rest, "--engine", engine]))
    facts = describe_run()
    print(f"{args.pack}, {args.threads} threads, {facts['machine']['cpu']}, {facts['date']}")
    print("\n| file | MB |\n| --- | ---: |")
    print("\n".join(f"| {name} | {n / 1e6:.2f} |" for name, n in sizes.items()))
    print_table("Whole scorer", SCORERS, found)
    print_table("Encoder", ENCODERS, found)
    settings = {"pack": args.pack, "threads": args.threads}
    print(json.dumps({**settings, "bytes": sizes, "rounds": found, "parity": parity, **facts}))


if __name__ == "__main__":
    main()
