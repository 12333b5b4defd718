"""Pictures of pages that commands write, for the documents: of `explain`, and of `generate --report`.

    python benchmarks/document_pictures.py

Runs the commands (`generate` needs its base model here) and takes `docs/explain.png` and `docs/answers.png` with
Chromium, as `serve_pictures.py` does those of the page of `serve`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from serve_load import ROOT
from serve_pictures import open_browser, shoot

PAGES = {  # name of the picture -> its height in pixels, and the command that writes page.html
    "explain": (1060, ["explain", "CC(=O)Oc1ccccc1C(=O)O", "--task", "logS,BBB", "-o", "page.html"]),
    "answers": (760, ["generate", "products.csv", "--task", "retro", "--top", "3", "--report", "page.html"]),
}
PRODUCTS = "name,smiles\nparacetamol,CC(=O)Nc1ccc(O)cc1\npractolol,CC(=O)Nc1ccc(OCC(O)CNC(C)C)cc1\n"


def main() -> None:
    for name, (height, command) in PAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "products.csv").write_text(PRODUCTS)
            subprocess.run([sys.executable, "-m", "mora_lite.cli", *command], cwd=folder, check=True)
            driver = open_browser(1100, "light")
            try:
                driver.get((Path(folder) / "page.html").as_uri())
                shoot(driver, ROOT / "docs" / f"{name}.png", height)
            finally:
                driver.quit()


if __name__ == "__main__":
    main()
