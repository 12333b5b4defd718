"""One server for all tests of the room, with a tiny pack of values and a tiny text pack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import LiveServer, serving


@pytest.fixture(scope="session")
def server(
    calibrated_pack_path: Path, text_pack_path: Path, base_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package)
    text = ("--text", str(text_pack_path), "--base", str(base_path))
    with serving(calibrated_pack_path, tmp_path_factory.mktemp("server"), *text) as live:
        yield live
