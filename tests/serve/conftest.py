"""One server for all tests of the room, with a tiny pack of values and a tiny text pack, and its page in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from headless_browser import open_browser, wait
from live_server import LiveServer, serving

ROWS = 1_000  # of `table`


@pytest.fixture(scope="session")
def server(
    calibrated_pack_path: Path, text_pack_path: Path, base_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package)
    text = ("--text", str(text_pack_path), "--base", str(base_path))
    with serving(calibrated_pack_path, tmp_path_factory.mktemp("server"), *text) as live:
        yield live


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def driver(server: LiveServer, downloads: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_browser(tmp_path_factory.mktemp("profile"), downloads) as driver:
        yield driver


@pytest.fixture
def browser(driver: Any, server: LiveServer) -> Iterator[Any]:
    driver.get("about:blank")
    driver.get(server.url)
    wait(lambda: driver.find_element("id", "pack").text)
    driver.get_log("browser")
    yield driver
    assert driver.get_log("browser") == [], "the console has nothing to complain of"


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory, molecules: list[str]) -> Path:
    """1,000 rows, two of them bad."""
    path = tmp_path_factory.mktemp("given") / "library.csv"
    smiles = ["C1CC" if i in (5, 500) else molecules[i % len(molecules)] for i in range(ROWS)]
    path.write_text("id,smiles\n" + "".join(f"M{i},{text}\n" for i, text in enumerate(smiles)))
    return path
