"""What this installation is and runs on: versions, devices, packs, caches."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from . import __version__

_PACKAGES = ("torch", "torch-geometric", "transformers", "rdkit", "numpy", "bitsandbytes", "triton", "onnxruntime")
_FAST_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")  # those that decide the speed


def describe_environment() -> dict[str, dict[str, Any]]:
    """Sections `versions`, `devices`, `packs` and `caches`, in plain types for JSON. Changes nothing."""
    return {
        "versions": _describe_versions(),
        "devices": _describe_devices(),
        "packs": _describe_packs(),
        "caches": _describe_caches(),
    }


def _describe_versions() -> dict[str, str]:
    versions = {"mora-lite": __version__, "python": platform.python_version(), "system": platform.platform(terse=True)}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _describe_devices() -> dict[str, Any]:
    import torch

    from .machine.device import autocast_dtype, choose_device, cpu_flags, cpu_name

    flags = [flag for flag in _FAST_FLAGS if flag in cpu_flags()]
    devices: dict[str, Any] = {
        "cpu": {"": cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "flags": flags}
    }
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        devices[f"cuda:{i}"] = {
            "": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "capability": f"{properties.major}.{properties.minor}",
        }
    chosen = choose_device("auto")
    devices["auto"] = {"": str(chosen), "dtype": str(autocast_dtype(chosen)).removeprefix("torch.")}
    return devices


def _describe_packs() -> dict[str, Any]:
    from .packs.manifest import TRAINING
    from .packs.pack import list_packs

    return {
        pack.name: {
            "mb": round(pack.nbytes / 1e6, 1),
            "base": pack.base,
            "tasks": [task.name for task in pack.tasks],
            "featurizer": str(pack.featurizer),
            "training_molecules": pack.has(TRAINING),
            "path": str(pack.path),
        }
        for pack in list_packs()
    }


def _describe_caches() -> dict[str, Any]:
    from .hub.bases import cache_dir

    caches: dict[str, Any] = {}
    for kind in ("bases", "packs"):
        folder = cache_dir() / kind
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
        caches[kind] = {"present": names, "mb": _size_mb(folder), "path": str(folder)}
    return caches


def _size_mb(path: Path) -> float:
    """Megabytes (10^6 bytes) of a directory's files; 0 when there is none."""
    return round(sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6, 1)
