"""A running `mora-lite serve`, and requests to it that say what came back."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

START_SECONDS = 120  # on a busy machine
JSON, BYTES = "application/json", "application/octet-stream"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


@dataclass
class LiveServer:
    process: subprocess.Popen[str]
    url: str  # as it was printed
    said: str  # all that was printed at the start

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """body: bytes, or what becomes JSON. A header that is None is left out."""
        kind = {} if body is None else {"Content-Type": BYTES if isinstance(body, bytes) else JSON}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, data, kind | (headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> Reply:
        return self.ask("GET", f"{path}?{urlencode(query)}" if query else path, headers=headers)

    def give(self, name: str, content: bytes) -> dict[str, Any]:
        """Give a table and wait until it is over; returns its last state."""
        import time

        job = self.ask("POST", f"/api/jobs?{urlencode({'name': name})}", content).json
        end = time.monotonic() + 60
        while job["state"] in ("waiting", "running"):
            assert time.monotonic() < end
            time.sleep(0.05)
            job = self.get(f"/api/jobs/{job['id']}").json
        return job

    def stop(self, number: int = signal.SIGINT) -> str:
        """End it by a signal; returns what it printed."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=30)[1]


@contextlib.contextmanager
def serving(pack: Path, folder: Path, *options: str) -> Iterator[LiveServer]:
    """Start it on a free port; folder: where its temporary files go."""
    command = [sys.executable, "-m", "mora_lite.cli", "serve", "--pack", str(pack), "--no-browser", "--port", "0"]
    environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "MORA_LITE_DEVICE": "cpu"}
    process = subprocess.Popen(
        [*command, *options],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if line == "Ctrl-C ends it\n":
                break
        found = re.search(r"serving on (http://\S+)", said)
        assert found is not None, said
        yield LiveServer(process, found.group(1), said)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stderr, process.stdout):
            if stream is not None:
                stream.close()
