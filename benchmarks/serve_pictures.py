"""Pictures of the page of `mora-lite serve`, or of a report: wide and on a phone, light and dark.

    python benchmarks/serve_pictures.py --out pictures
    python benchmarks/serve_pictures.py --report mine.report.html --out pictures

Starts a server of its own and Chromium without a window (selenium, chromium and chromedriver are needed), and writes
`molecule-1280-light.png` and the like: the page when it opens, one molecule with a task open, the sketcher, a table,
answers of the text pack if its base model is here, the description of the interface. `--docs` writes those that the
documents show. `--report` takes a page of `train`, `evaluate` or `screen` in place of the server.
"""

from __future__ import annotations

import argparse
import base64
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serve_load import ROOT, Server

FLAGS = "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --disable-dev-shm-usage"
SMILES = "CC(C)(C)c1ccc(cc1)C(O)CCCN1CCC(CC1)C(O)(c1ccccc1)c1ccccc1"
TEXT = "retro,3,CC(%3DO)Nc1ccc(OCC(O)CNC(C)C)cc1,,8"
HEIGHT = 1500  # pixels of a page that is longer
DOCS = {
    "molecule-1280-light": ("serve.png", 1160),
    "table-1280-light": ("serve-table.png", 900),
    "text-1280-light": ("serve-text.png", 1220),
    "report-1280-light": ("evaluate.png", 1430),
}


def open_browser(width: int, scheme: str) -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in [*FLAGS.split(), f"--user-data-dir={tempfile.mkdtemp()}"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    return driver


def wait(found: Callable[[], Any]) -> Any:
    end = time.monotonic() + 180
    while not (result := found()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return result


def shoot(driver: Any, path: Path, height: int = HEIGHT) -> None:
    """Write the page, from its top, with 256 colours, which takes a third of the bytes."""
    from PIL import Image

    time.sleep(0.4)  # what moves has come to rest
    size = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], height), "scale": 1}
    picture = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    image = Image.open(io.BytesIO(base64.b64decode(picture["data"]))).convert("RGB")
    image.quantize(256, kmeans=2).save(path, optimize=True)
    print(path)


def take_for(driver: Any, name: str, out: Path | None) -> Callable[[str], None]:
    """What takes a picture by its name. name: of the width and the scheme; out: None for those of the documents."""

    def take(what: str) -> None:
        if out is not None:
            out.mkdir(exist_ok=True)
            shoot(driver, out / f"{what}-{name}.png")
        elif f"{what}-{name}" in DOCS:
            file, height = DOCS[f"{what}-{name}"]
            shoot(driver, ROOT / "docs" / file, height)

    return take


def picture_all(driver: Any, base: str, take: Callable[[str], None]) -> None:
    """Of the server."""

    def find(selector: str) -> list[Any]:
        return list(driver.find_elements("css selector", selector))

    driver.get(base)
    wait(lambda: find("#pack")[0].text)
    take("start")
    find("#smiles")[0].send_keys(f"{SMILES}\n")
    wait(lambda: find(".answers tbody th button"))[0].click()
    wait(lambda: find(".detail .near"))
    take("molecule")
    find("#draw")[0].click()
    driver.switch_to.frame(find("#sketch iframe")[0])
    wait(lambda: driver.execute_script("return typeof editor !== 'undefined' && editor && editor.smiles()"))
    driver.switch_to.default_content()
    take("sketch")
    find("#draw")[0].click()
    find("#file")[0].send_keys(str(ROOT / "examples" / "logbb.csv"))
    wait(lambda: find(".rows tbody tr"))
    take("table")
    driver.get(f"{base}#ask={TEXT}")
    driver.refresh()
    wait(lambda: find(".texts li") or "error" in find("#message")[0].get_attribute("class"))
    take("text")
    driver.get(f"{base}/docs")
    wait(lambda: find("pre"))
    take("reference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", default="admet")
    parser.add_argument("--report", type=Path)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--docs", action="store_true")
    options = parser.parse_args()
    server = None if options.report else Server(options.pack)
    try:
        every = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
        for width, scheme in every[:1] if options.docs else every:
            driver = open_browser(width, scheme)
            take = take_for(driver, f"{width}-{scheme}", None if options.docs else options.out)
            try:
                if server is not None:
                    picture_all(driver, f"http://127.0.0.1:{server.port}", take)
                else:
                    driver.get(options.report.resolve().as_uri())
                    take("report")
            finally:
                driver.quit()
    finally:
        if server is not None:
            server.stop()


if __name__ == "__main__":
    main()
