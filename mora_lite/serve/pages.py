"""The files of the page: a fixed list, so that no other file of the computer can be asked for."""

from __future__ import annotations

import functools
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import Response

from .guard import Refusal

PAGE = Path(__file__).parent / "page"
SKETCHER = "jsme"  # a folder in it: JSME, whose loader makes scripts in a frame, so it gets a frame of its own
SKETCH_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
TYPES = {".js": "text/javascript", ".css": "text/css", ".png": "image/png", ".gif": "image/gif"}


@functools.cache
def _page_file(path: str) -> bytes:
    return (PAGE / path).read_bytes()


@functools.cache
def _parts() -> frozenset[str]:
    """What of the page's folder may be asked for by its path there."""
    return frozenset(file.relative_to(PAGE).as_posix() for file in PAGE.rglob("*") if file.suffix in TYPES)


def _part(path: str, headers: dict[str, str] | None = None) -> Response:
    if path not in _parts():
        raise Refusal(404, "no such page")
    return Response(_page_file(path), media_type=TYPES[Path(path).suffix], headers=headers)


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
        return _part(name)

    @app.get("/sketch", include_in_schema=False)
    async def sketch() -> Response:
        headers = {"content-security-policy": SKETCH_POLICY, "x-frame-options": "SAMEORIGIN"}
        return Response(_page_file("sketch.html"), media_type="text/html", headers=headers)

    @app.get("/sketch/{name:path}", include_in_schema=False)
    async def sketch_part(name: str) -> Response:
        headers = {"content-security-policy": SKETCH_POLICY, "cache-control": "private, max-age=86400"}
        return _part(f"{SKETCHER}/{name}", headers)
