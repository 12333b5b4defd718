"""Load a running `mora-lite serve`, and watch its answers, its times and its memory.

    python benchmarks/serve_load.py --users 50 --molecules 100 --seconds 60
    python benchmarks/serve_load.py --start

Starts a server of its own. Each user posts `--molecules` SMILES, waits for the answer, and posts the next. Prints the
requests, errors, times and molecules per second, and the memory of the server and its processes every few seconds.
`--start` measures instead how long the first answer takes after the start, and how long and how much processor time
further single molecules take. Exit code 1 where there was an error.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]


class Server:
    """`mora-lite serve` in a process of its own. started: seconds from its start until it listens."""

    def __init__(self, pack: str):
        command = [sys.executable, "-m", "mora_lite.cli", "serve", "--pack", pack, "--no-browser", "--port", "0"]
        begun = time.perf_counter()
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path.home())
        assert self.process.stderr is not None
        self.port = int(re.search(r":(\d+)/", self.process.stderr.readline())[1])  # type: ignore[index]
        self.started = time.perf_counter() - begun
        self.family = psutil.Process(self.process.pid)

    def post(self, path: str, question: object, connection: http.client.HTTPConnection | None = None) -> object:
        """The answer. Raises `AssertionError` for any status but 200."""
        connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request("POST", path, json.dumps(question), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (answer.status, body[:200])
        return json.loads(body)

    @property
    def mib(self) -> float:
        """Resident memory of the server and its processes."""
        members = [self.family, *self.family.children(recursive=True)]
        return sum(member.memory_info().rss for member in members) / 2**20

    @property
    def cpu_seconds(self) -> float:
        members = [self.family, *self.family.children(recursive=True)]
        return sum(sum(member.cpu_times()[:2]) for member in members)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def measure_start(server: Server, smiles: list[str]) -> None:
    """The first answer, and further ones."""
    begun = time.perf_counter()
    server.post("/api/molecule", {"smiles": smiles[0]})
    print(f"listens after {server.started:.2f} s, first answer {time.perf_counter() - begun:.2f} s later, ", end="")
    print(f"{server.cpu_seconds:.1f} s of processor time so far")
    time.sleep(2)  # what else the start does
    connection, seconds, used = http.client.HTTPConnection("127.0.0.1", server.port), [], server.cpu_seconds
    for text in smiles[1:201]:
        begun = time.perf_counter()
        server.post("/api/molecule", {"smiles": text}, connection)
        seconds.append(time.perf_counter() - begun)
    used = 1000 * (server.cpu_seconds - used) / len(seconds)
    low, middle, high = min(seconds), statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
    print(
        f"{len(seconds)} further molecules: {1000 * low:.0f} ms at least, {1000 * middle:.0f} ms in the median, ",
        end="",
    )
    print(f"95 % within {1000 * high:.0f} ms; {used:.0f} ms of processor time each")


def measure_load(server: Server, smiles: list[str], users: int, n: int, seconds: float) -> int:
    """All users at once; returns the number of errors."""
    server.post("/api/predict", {"smiles": smiles[:n]})
    end, times, errors, lock = time.monotonic() + seconds, [], [], threading.Lock()

    def use(seed: int) -> None:
        dice, connection = random.Random(seed), http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        while time.monotonic() < end:
            question = dice.choices(smiles, k=n)
            begun = time.perf_counter()
            try:
                rows = server.post("/api/predict", {"smiles": question}, connection)
                assert [row["smiles"] for row in rows] == question  # type: ignore[attr-defined]
            except (AssertionError, OSError, http.client.HTTPException) as error:
                with lock:
                    errors.append(repr(error))
                return
            with lock:
                times.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(users)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        print(f"{time.monotonic() - begun:6.0f} s  {len(times):5} answers  {server.mib:6.0f} MiB", flush=True)
        time.sleep(10)
    took = time.monotonic() - begun
    rate = len(times) * n / took
    print(f"{len(times)} answers of {n} molecules to {users} users in {took:.0f} s, {rate:,.0f} molecules/s, ", end="")
    print(f"{statistics.median(times):.1f} s in the median, {max(times):.1f} s at most, {len(errors)} errors")
    print("\n".join(errors[:3]))
    return len(errors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", default="admet")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--molecules", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--start", action="store_true")
    given = parser.parse_args()
    with (ROOT / "examples" / "logbb.csv").open(encoding="utf-8", newline="") as file:
        smiles = [row["smiles"] for row in csv.DictReader(file)]
    server = Server(given.pack)
    try:
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        if given.start:
            measure_start(server, smiles)
            return 0
        return int(measure_load(server, smiles, given.users, given.molecules, given.seconds) > 0)
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
