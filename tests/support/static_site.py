"""A folder sent by the web server that Python has, and a blank page beside it whose scripts may import its modules."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

BLANK = "/blank.html"


@dataclass
class StaticSite:
    """url: of the folder. paths: all that was asked for."""

    url: str = ""
    paths: list[str] = field(default_factory=list)

    @property
    def blank(self) -> str:
        return self.url + BLANK


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args: object, site: StaticSite, **others: object):
        self.site = site
        super().__init__(*args, **others)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.site.paths.append(self.path)
        if self.path != BLANK:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><link rel=icon href=data:,><title>blank</title>")

    def log_message(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A page that was left does not wait for its files."""


@contextlib.contextmanager
def sending(folder: Path) -> Iterator[StaticSite]:
    """Send the folder on a free port of this computer."""
    site = StaticSite()
    handler = functools.partial(_Handler, site=site, directory=str(folder))
    with _Server(("127.0.0.1", 0), handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()  # how soon `shutdown` ends
        yield site
        server.shutdown()
