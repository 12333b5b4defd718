"""One server for all tests of the room, with a tiny pack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import LiveServer, serving


@pytest.fixture(scope="session")
def server(calibrated_pack_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package)
    with serving(calibrated_pack_path, tmp_path_factory.mktemp("server")) as live:
        yield live
