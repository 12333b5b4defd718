"""What tests of the served page do in the browser, and look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headless_browser import find, wait

ENTER, SHIFT, RELEASE = "\ue007", "\ue008", "\ue000"


def type_smiles(browser: Any, text: str) -> None:
    field = browser.find_element("id", "smiles")
    field.clear()
    field.send_keys(text)


def give(browser: Any, path: Path) -> None:
    browser.find_element("id", "file").send_keys(str(path))
    wait(lambda: find(browser, ".rows tbody tr"))


def column(browser: Any, name: str) -> list[float | None]:
    """Numbers of a task as they are shown."""
    heads = [head.get_attribute("data-column") for head in find(browser, ".rows thead th")]
    cells = find(browser, f".rows tbody td:nth-child({heads.index(name) + 1})")
    texts = [cell.text.split("\n")[0] for cell in cells]
    return [None if text == "–" else float(text.replace("−", "-")) for text in texts]


def message(browser: Any) -> str:
    return browser.find_element("id", "message").text


def shown(browser: Any) -> list[str]:
    """The part of the page that is not hidden."""
    return [part.get_attribute("id") for part in find(browser, "#result > section") if part.is_displayed()]
