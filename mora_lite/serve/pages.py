"""The files of the page: a fixed list, so that no other file of the computer can be asked for."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response

from .guard import Refusal

PAGE_FILES = {  # of the folder `page`; nothing else can be asked for
    "page.css": "text/css",
    "page.js": "text/javascript",
    "elements.js": "text/javascript",
    "server.js": "text/javascript",
    "result.js": "text/javascript",
    "form.js": "text/javascript",
    "table.js": "text/javascript",
    "molecule.js": "text/javascript",
    "text.js": "text/javascript",
    "reference.js": "text/javascript",
    "sketch.css": "text/css",
    "sketch.js": "text/javascript",
}
SKETCHER = "jsme"  # a folder of `page`: JSME, whose loader makes scripts in a frame, so it gets a frame of its own
SKETCH_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
SKETCH_TYPES = {".js": "text/javascript", ".css": "text/css", ".png": "image/png", ".gif": "image/gif"}


@functools.cache
def _page_file(name: str) -> bytes:
    return resources.files(__package__).joinpath("page", name).read_bytes()


@functools.cache
def _sketch_files() -> dict[str, Any]:
    """What of the sketcher may be asked for: path -> the file."""

    def walk(folder: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for entry in folder.iterdir():
            if entry.is_dir():
                yield from walk(entry, f"{prefix}{entry.name}/")
            elif Path(entry.name).suffix in SKETCH_TYPES:
                yield f"{prefix}{entry.name}", entry

    return dict(walk(resources.files(__package__).joinpath("page", SKETCHER), ""))


def add_pages(app: FastAPI) -> None:
    """The page, its parts, the sketcher and the description of the interface."""

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(_page_file("index.html"), media_type="text/html")

    @app.get("/docs", include_in_schema=False)
    async def reference() -> Response:
        return Response(_page_file("reference.html"), media_type="text/html")

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in PAGE_FILES:
            raise Refusal(404, "no such page")
        return Response(_page_file(name), media_type=PAGE_FILES[name])

    @app.get("/sketch", include_in_schema=False)
    async def sketch() -> Response:
        headers = {"content-security-policy": SKETCH_POLICY, "x-frame-options": "SAMEORIGIN"}
        return Response(_page_file("sketch.html"), media_type="text/html", headers=headers)

    @app.get("/sketch/{name:path}", include_in_schema=False)
    async def sketch_part(name: str) -> Response:
        file = _sketch_files().get(name)
        if file is None:
            raise Refusal(404, "no such page")
        headers = {"content-security-policy": SKETCH_POLICY, "cache-control": "private, max-age=86400"}
        return Response(file.read_bytes(), media_type=SKETCH_TYPES[Path(name).suffix], headers=headers)
