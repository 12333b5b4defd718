"""Scoring with ONNX Runtime: an exported folder, RDKit and NumPy. Nothing here imports torch.

`load("admet-onnx", tasks=["logS", "BBB"]).predict(["CCO", "c1ccccc1"])`, as with `mora_lite.load`.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..chem.graph import Graphs
from ..errors import DeviceError, PackError, first_line
from ..machine.workers import usable_cores
from ..packs.manifest import EXPORT, manifest_sha256
from ..scoring.conformal import check_confidence
from ..scoring.predictor import Predictor
from ..scoring.scores import Calibrator
from ..scoring.tasks import choose_tasks
from ..scoring.training_molecules import TrainingMolecules
from .featurizer import model_inputs
from .folder import TRAINING_FILE, Exported, open_exported
from .providers import PROVIDERS, choose_providers, import_onnxruntime

if TYPE_CHECKING:
    from ..scoring.parallel import ModelSource

# Molecules. On a CPU what a batch writes and reads again should stay in the processor's cache: of 16 to 1,024
# molecules 32 and 64 were the fastest with the pack admet, and 256 took a quarter longer.
BATCH_SIZE = {"cpu": 64}
BATCH_SIZE_ELSEWHERE = 1024
INPUTS = ("atom_codes", "edge_index", "bond_codes", "graph_index", "task_index")
OUTPUT = "values"


class OnnxModel(Predictor):
    """An exported folder, loaded. Made by `load`. Used as `mora_lite.model.Model` is.

    exported: the folder. session: of ONNX Runtime. provider: short name of what computes.
    """

    def __init__(self, exported: Exported, session: Any, chosen: Sequence[int], calibrator: Calibrator | None):
        tasks = exported.tasks
        super().__init__(tuple(tasks[i] for i in chosen), exported.featurizer, calibrator)
        self.exported = exported
        self.session = session
        self._task_index = np.array(chosen, dtype=np.int64)

    @property
    def pack_sha256(self) -> str:
        return self.exported.manifest["pack"]["sha256"]

    @property
    def provider(self) -> str:
        first = self.session.get_providers()[0]
        return next((name for name, long in PROVIDERS.items() if long == first), first)

    @property
    def place(self) -> str:
        """See `Predictor.place`."""
        return f"folder {self.exported.path.name} with ONNX Runtime on {self.provider}"

    def load_training(self) -> TrainingMolecules:
        return self.exported.load_training().select(self._task_index.tolist())

    def score_graphs(self, graphs: Graphs, batch_size: int | None = None) -> np.ndarray:
        """See `Predictor.score_graphs`.

        batch_size: molecules at a time, 64 on a CPU and 1,024 elsewhere if not given. Values depend on it, and on the
        other molecules, by rounding at most: 4e-6 of a task's deviation with the pack admet.
        """
        size = batch_size or BATCH_SIZE.get(self.provider, BATCH_SIZE_ELSEWHERE)
        values = np.empty((len(graphs), len(self.tasks)), dtype=np.float32)
        # Molecules of one size beside each other: no batch is much larger than the others.
        order = np.argsort(graphs.n_atoms, kind="stable")
        for start in range(0, len(graphs), size):
            rows = order[start : start + size]
            with self._timed("graphs"):
                feed = model_inputs(graphs.select(rows)) | {"task_index": self._task_index}
            with self._timed("scorer"):
                values[rows] = self._run(feed, len(rows))
        return values

    def _run(self, feed: dict[str, np.ndarray], n: int) -> np.ndarray:
        try:
            return self.session.run([OUTPUT], feed)[0]
        # ONNX Runtime's exceptions have no base class of their own.
        except Exception as error:
            raise DeviceError(
                f"ONNX Runtime failed on {self.provider} with {n} molecules at a time ({first_line(error, 300)}); "
                "when memory is short use a smaller --batch-size, else --provider cpu"
            ) from None


def load(
    folder: str | Path,
    *,
    tasks: str | Sequence[str] | None = None,
    provider: str = "auto",
    confidence: float = 0.9,
    threads: int | None = None,
) -> OnnxModel:
    """Load an exported folder, for prediction. No network is used.

    tasks: names in any case, as a list or one text with commas; None for all.
    provider: `auto` (CUDA, DirectML, CoreML, OpenVINO, CPU: the first that is available), one of these, or `tensorrt`.
    confidence: of the intervals, between 0 and 1.
    threads: of the CPU, None for all.

    Raises `PackError` for the folder, `DeviceError` for the provider or a missing package, each with what to do.
    """
    check_confidence(confidence)
    exported = open_exported(folder)
    chosen = choose_tasks(exported.tasks, tasks)
    session = _open_session(exported.scorer_file(), provider, threads)
    return OnnxModel(exported, session, chosen, exported.load_trust(chosen, confidence))


def onnx_source(
    folder: str | Path, *, tasks: str | Sequence[str] | None = None, provider: str = "auto", confidence: float = 0.9
) -> ModelSource:
    """An exported folder for several processes; nothing is loaded. Arguments and errors as for `load`.

    On the CPU worker processes score, with one thread each; any other provider scores in this process.
    """
    from ..scoring.parallel import ModelSource  # it needs pyarrow, which a small table does without

    check_confidence(confidence)
    exported = open_exported(folder)
    chosen = choose_tasks(exported.tasks, tasks)
    names = tuple(exported.tasks[i] for i in chosen)
    exported.scorer_file()
    providers = choose_providers(provider)
    runs_on = next(name for name, long in PROVIDERS.items() if long == providers[0])
    settings = {
        "mora_lite": __version__,
        "onnxruntime": import_onnxruntime().__version__,
        "rdkit": metadata.version("rdkit"),
        "pack": exported.name,
        "pack_sha256": manifest_sha256(exported.manifest),
        "tasks": [task.name for task in names],
        "confidence": confidence,
        "device": runs_on,
        "dtype": "float32",
    }
    load_here = LoadFolder(str(exported.path.resolve()), tuple(task.name for task in names), provider, confidence)
    is_calibrated = exported.load_trust(chosen, confidence) is not None

    return ModelSource(
        load_here,
        str(folder),
        exported.name,
        names,
        exported.featurizer,
        is_calibrated,
        (runs_on,),
        f"ONNX Runtime on {platform.machine()}, {runs_on}",
        lambda: exported.load_training().select(chosen),
        TRAINING_FILE in exported.manifest["files"],
        settings,
    )


@dataclass(frozen=True)
class LoadFolder:
    """Loads an exported folder in the process that calls it; `provider` decides where it runs."""

    folder: str
    tasks: tuple[str, ...]
    provider: str
    confidence: float

    def __call__(self, *, device: str, threads: int | None = None) -> OnnxModel:
        provider = "cpu" if device == "cpu" else self.provider
        return load(self.folder, tasks=self.tasks, provider=provider, confidence=self.confidence, threads=threads)


def _open_session(file: Path, asked: str, threads: int | None) -> Any:
    providers = choose_providers(asked)
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    # ONNX Runtime would count all cores that there are, and then wait for its own threads.
    options.intra_op_num_threads = threads or usable_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # see `machine.process.wait_asleep`
    options.log_severity_level = 3  # warnings of a provider that is left out are not for stderr
    # Every batch has other sizes, so a plan of memory made for one is of no use for the next.
    options.enable_mem_pattern = False
    try:
        session = runtime.InferenceSession(file, options, providers=providers)
    # ONNX Runtime's exceptions have no base class of their own.
    except Exception as error:
        raise PackError(
            f"ONNX Runtime {runtime.__version__} cannot load {file}: {first_line(error, 300)}; {EXPORT.again}"
        ) from None
    inputs, outputs = ([value.name for value in values] for values in (session.get_inputs(), session.get_outputs()))
    if sorted(inputs) != sorted(INPUTS) or OUTPUT not in outputs:
        raise PackError(
            f"{file}: got inputs {', '.join(inputs)} and outputs {', '.join(outputs)}, expected "
            f"{', '.join(INPUTS)} and {OUTPUT}; {EXPORT.again}"
        )
    if asked != "auto" and PROVIDERS[asked] not in session.get_providers():
        raise DeviceError(f"provider: got {asked!r}, but its libraries cannot be loaded here; use auto or cpu")
    return session
