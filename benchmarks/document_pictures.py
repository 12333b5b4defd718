"""Pictures of pages that commands write, for the documents: of `explain`, `generate --report` and `screen`.

    python benchmarks/document_pictures.py

Runs the commands (`generate` needs its base model here) and takes `docs/explain.png`, `docs/answers.png` and
`docs/report.png`, the last without its sections in the middle, with Chromium, as `serve_pictures.py` does those of the
page of `serve`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from serve_load import ROOT
from serve_pictures import open_browser, shoot

LIBRARY = str(ROOT / "examples" / "logbb.csv")
TASKS = "logS,logD,BBB,hERG_blocker"
COMMANDS = {
    "explain": ["explain", "CC(=O)Oc1ccccc1C(=O)O", "--task", "logS,BBB", "-o", "page.html"],
    "answers": ["generate", "products.csv", "--task", "retro", "--top", "3", "--report", "page.html"],
    "report": ["screen", LIBRARY, "-o", "run", "--tasks", TASKS, "--by", "BBB", "--where", "logS > -4"],
}
PAGES = {  # name of the picture -> its width and height in pixels, and the page
    "explain": (1100, 1060, "page.html"),
    "answers": (1100, 760, "page.html"),
    "report": (1360, 1024, "run/report.html"),
}
LEFT_OUT = "document.querySelectorAll('#domain, #failures, dl.facts:has(~ #scores)').forEach((part) => part.remove())"
PRODUCTS = "name,smiles\nparacetamol,CC(=O)Nc1ccc(O)cc1\npractolol,CC(=O)Nc1ccc(OCC(O)CNC(C)C)cc1\n"


def main() -> None:
    for name, (width, height, page) in PAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "products.csv").write_text(PRODUCTS)
            subprocess.run([sys.executable, "-m", "mora_lite.cli", *COMMANDS[name]], cwd=folder, check=True)
            driver = open_browser(width, "light")
            try:
                driver.get((Path(folder) / page).as_uri())
                driver.execute_script(LEFT_OUT)
                shoot(driver, ROOT / "docs" / f"{name}.png", height)
            finally:
                driver.quit()


if __name__ == "__main__":
    main()
