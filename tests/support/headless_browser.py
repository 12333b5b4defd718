"""Headless Chromium for tests of pages; nothing in it but the test's."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,900"
)


@contextlib.contextmanager
def open_browser(profile: Path, downloads: Path | None = None) -> Iterator[Any]:
    """A selenium driver; the test is skipped where there is no browser. downloads: where they go."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    for program in (CHROMIUM, DRIVER):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if downloads is not None:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def wait(found: Any, seconds: float = 60) -> Any:
    """What `found()` gives once it is true."""
    end = time.monotonic() + seconds
    while True:
        try:
            result = found()
        except Exception:  # the page changed under it
            result = None
        if result:
            return result
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.05)


def downloaded(folder: Path, click: Any) -> Path:
    """The CSV file that a click downloads, whole: Chromium first makes an empty file of its name."""
    for old in folder.iterdir():
        old.unlink()
    click()
    return wait(lambda: [path for path in folder.glob("*.csv") if path.stat().st_size])[0]


def find(browser: Any, selector: str) -> list[Any]:
    """The elements of a CSS selector."""
    return browser.find_elements("css selector", selector)
