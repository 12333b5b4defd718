"""Changes to an exported folder, as somebody who damages one makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def change(folder: Path, **entries: Any) -> None:
    """Set entries of export.json."""
    manifest = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(manifest | entries))
