"""A Hugging Face hub on this machine: the few calls that pushing and fetching a repository take.

Every commit is a whole set of files; branches are names of commits. `broken`: the next answers are errors.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeHub:
    """private, files: of each repository. asked: method and path of each request.

    damaged: files whose last byte arrives wrong.
    """

    endpoint: str = ""
    commits: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    broken: bool = False
    damaged: set[str] = field(default_factory=set)

    def commit(self, repository: str, files: dict[str, bytes | None]) -> str:
        """Add or replace files, or take them out (None); returns the commit's name."""
        before = self.commits[repository][-1] if self.commits[repository] else {}
        after = {name: content for name, content in {**before, **files}.items() if content is not None}
        self.commits[repository].append(after)
        return commit_name(repository, len(self.commits[repository]) - 1)

    def files(self, repository: str, revision: str = "main") -> dict[str, bytes] | None:
        history = self.commits.get(repository, [])
        names = {commit_name(repository, i): i for i in range(len(history))} | {"main": len(history) - 1}
        return history[names[revision]] if history and revision in names else None

    def name_of(self, repository: str, revision: str) -> str:
        return commit_name(repository, len(self.commits[repository]) - 1) if revision == "main" else revision


def commit_name(repository: str, number: int) -> str:
    return hashlib.sha1(f"{repository} {number}".encode()).hexdigest()


@contextmanager
def running() -> Iterator[FakeHub]:
    """A hub that answers on a free port until the end of the block."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0].lstrip("/")
            if self.refused():
                self.answer(500, b"")
                return
            if path.startswith("api/models/"):
                repository, _, revision = path.removeprefix("api/models/").partition("/revision/")
                self.describe(repository, revision or "main")
                return
            if "/resolve/" not in path:  # what a client asks once in a process
                self.answer(404, b"")
                return
            repository, rest = path.split("/resolve/")
            revision, name = rest.split("/", 1)
            files = hub.files(repository, revision)
            if files is None:
                self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
                return
            commit = {"X-Repo-Commit": hub.name_of(repository, revision)}
            if name not in files:
                self.answer(404, b"", {"X-Error-Code": "EntryNotFound", **commit})
                return
            sent = files[name][:-1] + bytes([files[name][-1] ^ 1]) if name in hub.damaged else files[name]
            self.answer(200, sent, {"ETag": f'"{hashlib.sha256(files[name]).hexdigest()}"', **commit})

        def describe(self, repository: str, revision: str) -> None:
            files = {} if hub.commits.get(repository) == [] else hub.files(repository, revision)
            if files is None:
                code = "RevisionNotFound" if repository in hub.commits else "RepoNotFound"
                self.answer(404, b"", {"X-Error-Code": code})
                return
            siblings = [{"rfilename": name} for name in files]
            found = {"id": repository, "sha": hub.name_of(repository, revision), "siblings": siblings}
            self.answer(200, json.dumps(found).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.refused():
                self.answer(500, b"{}")
                return
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts == ["api", "repos", "create"]:
                self.create(json.loads(body))
            elif "preupload" in parts:
                asked = json.loads(body)["files"]
                found = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]
                self.answer(200, json.dumps({"files": found}).encode())
            elif "commit" in parts:
                self.store("/".join(parts[2:4]), [json.loads(line) for line in body.splitlines()])
            else:
                self.answer(200, b"{}")

        def create(self, asked: dict[str, Any]) -> None:
            repository = f"{asked['organization'] or 'me'}/{asked['name']}"
            if repository in hub.commits:
                self.answer(409, json.dumps({"url": f"{hub.endpoint}/{repository}"}).encode())
                return
            hub.commits[repository] = []
            hub.private[repository] = asked.get("visibility") == "private" or asked.get("private") is True
            self.answer(200, json.dumps({"url": f"{hub.endpoint}/{repository}"}).encode())

        def store(self, repository: str, lines: list[dict[str, Any]]) -> None:
            values = [line["value"] for line in lines if line["key"] == "file"]
            gone = {line["value"]["path"]: None for line in lines if line["key"] == "deletedFile"}
            name = hub.commit(repository, gone | {v["path"]: base64.b64decode(v["content"]) for v in values})
            url = f"{hub.endpoint}/{repository}/commit/{name}"
            self.answer(200, json.dumps({"commitUrl": url, "commitOid": name}).encode())

        def refused(self) -> bool:
            hub.asked.append(f"{self.command} {self.path}")
            return hub.broken

        def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    # `shutdown` waits for the end of an interval, which is half a second unless it is said.
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
