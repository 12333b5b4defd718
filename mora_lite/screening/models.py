"""A pack as a `ModelSource`: scored by torch, in worker processes on the CPU or on the CUDA devices of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..packs.manifest import TRAINING
from ..packs.pack import open_pack
from ..scoring.conformal import check_confidence
from ..scoring.parallel import ModelSource
from ..scoring.tasks import choose_tasks

if TYPE_CHECKING:
    from ..model import Model


def torch_source(
    pack: str,
    *,
    tasks: str | Sequence[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    confidence: float = 0.9,
) -> ModelSource:
    """Look up a pack, its tasks and the devices; nothing is loaded.

    tasks, dtype, confidence: as for `mora_lite.load`. device: likewise, or several like `cuda:0,cuda:1`; `auto` takes
    all CUDA devices.
    """
    import torch

    from ..machine.device import choose_devices, choose_dtype, processor_name

    check_confidence(confidence)
    opened, devices = open_pack(pack), choose_devices(device)
    chosen = choose_tasks(opened.tasks, tasks)
    dtype_name = str(choose_dtype(dtype, devices[0])).removeprefix("torch.")
    names = tuple(opened.tasks[i] for i in chosen)
    settings = {
        "mora_lite": __version__,
        "torch": torch.__version__,
        "rdkit": metadata.version("rdkit"),
        "pack": opened.name,
        "pack_sha256": opened.manifest["sha256"],
        "tasks": [task.name for task in names],
        "confidence": confidence,
        "device": devices[0].type,
        "dtype": dtype_name if dtype == "auto" else f"{dtype_name} as asked",
    }
    return ModelSource(
        LoadPack(str(opened.path.resolve()), dtype, tuple(task.name for task in names), confidence),
        pack,
        opened.name,
        names,
        opened.featurizer,
        opened.has("calibration") and opened.has("domain"),
        tuple(map(str, devices)),
        ", ".join(sorted({processor_name(device) for device in devices})),
        lambda: opened.load_training().select(chosen),
        opened.has(TRAINING) and opened.has("domain"),
        settings,
    )


@dataclass(frozen=True)
class LoadPack:
    """Loads a pack in the process that calls it."""

    pack: str
    dtype: str
    tasks: tuple[str, ...]
    confidence: float

    def __call__(self, *, device: str, threads: int | None = None) -> Model:
        import torch

        from ..model import load

        if threads is not None:
            torch.set_num_threads(threads)
        options: dict[str, Any] = {"dtype": self.dtype, "tasks": self.tasks, "confidence": self.confidence}
        return load(self.pack, device=device, **options)
