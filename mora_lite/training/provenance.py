"""When, where and with what a run was made: what packs record of it."""

from __future__ import annotations

import platform
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import rdkit
import torch

from .. import __version__
from ..machine.device import describe_processor, training_dtype


def run_metadata(device: torch.device) -> dict[str, Any]:
    """Date, machine and versions of a run on `device`; goes into the pack."""
    return {
        "date": date.today().isoformat(),
        "machine": describe_processor(device),
        "mora_lite": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "rdkit": rdkit.__version__,
        "python": platform.python_version(),
        "dtype": str(training_dtype(device)).removeprefix("torch."),
    }


def _commit() -> str:
    """The commit of the source tree this runs from; empty for an installed package."""
    here = Path(__file__).resolve().parents[1]
    if not (here.parent / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
