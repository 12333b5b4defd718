"""Kill `mora-lite screen` at random moments, resume it, and compare every byte with a run that nobody disturbed.

    python benchmarks/kill_resume.py LIBRARY --kills 30 --rows 6000 --workers 1 --tasks logS

A kill is SIGKILL, by turns to the parent, to the whole group of processes, and to one worker, after which the run may
go on or end by itself. When a run has come to its end it is compared, and the next begins in a new directory. After
every kill no shard may be there that differs from the undisturbed one's. Windows and shards are smaller than usual, so
that there are many. Prints a line for each kill and a verdict; the exit code is 1 when a byte differs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import psutil

DRIVER = """
import sys
from mora_lite.scoring import parallel
from mora_lite.screening import campaign
parallel.CPU_WINDOW_ROWS = parallel.WINDOW_ROWS = int(sys.argv[1])
campaign.SHARD_ROWS = int(sys.argv[1]) * int(sys.argv[2])
from mora_lite.cli.app import main
sys.exit(main(sys.argv[3:]))
"""
VICTIMS = ("parent", "group", "worker")


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)


def results(path: Path) -> dict[str, bytes]:
    """The files that may not differ."""
    return {file.name: file.read_bytes() for pattern in ("part-*", "top.csv") for file in sorted(path.glob(pattern))}


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        children = psutil.Process(process.pid).children()
        return [child for child in children if any("spawn_main" in word for word in child.cmdline())]
    except psutil.Error:
        return []


def kill(process: subprocess.Popen[bytes], victim: str) -> str:
    """Who was killed in truth: before the workers start there is only the parent."""
    workers = workers_of(process)
    if victim == "worker" and workers:
        workers[0].kill()
    elif victim == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        victim = "parent"
        process.kill()
    return victim


def wait_and_kill(process: subprocess.Popen[bytes], path: Path, chance: random.Random, victim: str) -> str:
    """Wait for a moment that depends on the work done, not on the machine: up to two more shards, and a little.

    Returns who was killed; empty if the run ended before.
    """
    wanted = len(list(path.glob("part-*"))) + chance.randrange(3)
    while process.poll() is None and len(list(path.glob("part-*"))) < wanted:
        time.sleep(0.02)
    try:
        process.wait(chance.uniform(0, 1))
        return ""
    except subprocess.TimeoutExpired:
        victim = kill(process, victim)
        process.wait()
        return victim


def kill_and_resume(command: list[str], place: Path, n_kills: int, chance: random.Random) -> tuple[int, int, set[str]]:
    """Runs that came to their end, how many with the same bytes, and the files that ever differed."""
    wanted, log = results(place / "whole"), place / "log"
    n_killed = n_ended = n_same = 0
    differing: set[str] = set()
    while n_killed < n_kills or (place / f"run-{n_ended}").exists():
        path = place / f"run-{n_ended}"
        process = start([*command, "-o", str(path), "--resume"], log)
        if n_killed < n_kills:
            victim = wait_and_kill(process, path, chance, VICTIMS[n_killed % len(VICTIMS)])
            if victim:
                n_killed += 1
                n_shards = len(list(path.glob("part-*")))
                print(f"kill {n_killed:2} of {victim:6} in run {n_ended + 1}: {n_shards} shards", flush=True)
        code = process.wait()
        if code not in (0, 2, -signal.SIGKILL):
            sys.exit(f"ended with {code}: {log.read_text()}")
        found = results(path)
        now = {name for name, data in found.items() if wanted.get(name) != data}
        if code == 0:
            now |= wanted.keys() - found.keys() | {file.name for file in path.glob(".part-*")}
            n_ended += 1
            n_same += not now
            print(f"run {n_ended} ended: {f'DIFFERENT: {sorted(now)}' if now else 'same bytes'}", flush=True)
        differing |= now
    return n_ended, n_same, differing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--workers", default="1")
    parser.add_argument("--pack", default="admet")
    parser.add_argument("--tasks", default="logS")
    parser.add_argument("--format", default="parquet")
    parser.add_argument("--window-rows", default="128")
    parser.add_argument("--shard-windows", default="4")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    place = Path(tempfile.mkdtemp(prefix="kill-resume-"))
    library = place / "library.smi"
    with given.library.open("rb") as source, library.open("wb") as target:
        target.writelines(islice(source, given.rows))
    options = ["--workers", given.workers, "--pack", given.pack, "--tasks", given.tasks, "--format", given.format]
    command = [sys.executable, "-c", DRIVER, given.window_rows, given.shard_windows, "screen", str(library), *options]
    began = time.monotonic()
    if start([*command, "-o", str(place / "whole")], place / "log").wait():
        sys.exit(f"the undisturbed run failed: {(place / 'log').read_text()}")
    n_shards = len(list((place / "whole").glob("part-*")))
    print(f"undisturbed: {n_shards} shards in {time.monotonic() - began:.1f} s", flush=True)
    n_ended, n_same, differing = kill_and_resume(command, place, given.kills, random.Random(given.seed))
    shutil.rmtree(place)
    print(
        f"{given.kills} kills, {n_ended} runs to the end, {n_same} with the same bytes; differing: {sorted(differing)}"
    )
    return int(bool(differing) or n_same != n_ended)


if __name__ == "__main__":
    sys.exit(main())
