"""What this installation is and runs on: versions, devices, packs, caches."""

from __future__ import annotations

import os
import platform
from importlib import metadata
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
    from .chem import native

    versions["SMILES"] = native.note() or "read by the native reader, what it is not certain of by RDKit"
    return versions


def _describe_devices() -> dict[str, Any]:
    try:
        import torch
    except ImportError:
        return {"cpu": {"": platform.processor() or platform.machine(), "cores": os.cpu_count()}}

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
    from .chem.featurizer import Featurizer
    from .packs.installed import installed
    from .packs.manifest import PACK, TEXT_PACK, TRAINING
    from .text.tasks import PackQuestions

    packs = {
        folder.name: {
            "mb": _megabytes(manifest),
            "base": manifest["base"]["name"],
            "tasks": [task["name"] for task in manifest["tasks"]],
            "featurizer": str(Featurizer.of(manifest)),
            "training_molecules": f"{TRAINING}.safetensors" in manifest["files"],
            "path": str(folder),
        }
        for folder, manifest in installed(PACK)
    }
    for folder, manifest in installed(TEXT_PACK):
        packs[folder.name] = {
            "mb": _megabytes(manifest),
            "base": manifest["base"]["name"],
            "tasks": PackQuestions.of(manifest).tasks,
            "path": str(folder),
        }
    return packs


def _megabytes(manifest: dict[str, Any]) -> float:
    """Of the files that a manifest names, in units of 10^6 bytes."""
    return round(sum(entry["bytes"] for entry in manifest["files"].values()) / 1e6, 1)


def _describe_caches() -> dict[str, Any]:
    from .hub.cache import list_caches

    return {
        cache.kind: {"present": cache.names, "mb": round(cache.n_bytes / 1e6, 1), "path": str(cache.path)}
        for cache in list_caches()
    }
