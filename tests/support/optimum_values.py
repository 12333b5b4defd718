"""What `make interop` runs: an exported folder gives the same values in Hugging Face Optimum as the pack gives here.

python optimum_values.py export DIR     in this program's environment: DIR/pack, and inputs and values in torch
python optimum_values.py compare DIR    in an environment with Optimum, which knows nothing of this program
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PACK = "admet"
LIMIT = 1e-4  # of a token's number; of a value, in deviations of its task
INPUTS = ("atom_codes", "edge_index", "bond_codes", "graph_index")
MODELS = {  # file -> its inputs and its outputs
    "encoder.onnx": (INPUTS, ("atom_tokens", "molecule_tokens")),
    "scorer.onnx": ((*INPUTS, "task_index"), ("values",)),
}


def export(folder: Path) -> None:
    """Write `pack/`, and for each small case of the parity gate its inputs with the tokens and values of torch."""
    import torch

    from mora_lite.export.parity import Expected, feed
    from mora_lite.export.probe import small_cases
    from mora_lite.export.writer import export_pack
    from mora_lite.packs.pack import open_pack

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pack = open_pack(PACK)
    export_pack(pack, folder / "pack", full=True)
    cases = small_cases(len(pack.tasks))
    with torch.inference_mode():
        expected = Expected(pack.load_scorer(), cases)
    mean, deviation = (np.array([getattr(task, name) for task in pack.tasks]) for name in ("mean", "deviation"))
    for i, case in enumerate(cases):
        atoms, molecules = expected.tokens[i]
        values = (expected.scores[i] * deviation + mean)[:, case.tasks]
        outputs = {"atom_tokens": atoms, "molecule_tokens": molecules, "values": values}
        inputs = feed(case, tasks=True)
        np.savez(folder / f"case{i}.npz", **inputs, **outputs, deviation=deviation[case.tasks])


def compare(folder: Path) -> None:
    """Run every case in Optimum; exit with a message where a number is off."""
    n = 0
    for file, name, difference in differences(folder):
        print(f"{file}: {name}: largest difference {difference:.1e}")
        if not difference <= LIMIT:  # NaN too
            sys.exit(f"{file}: {name}: got a difference of {difference:.1e} from torch, expected at most {LIMIT:.0e}")
        n += 1
    if not n:
        sys.exit(f"{folder}: got no cases, expected case0.npz and more; write them with: optimum_values.py export")


def differences(folder: Path) -> Iterator[tuple[str, str, float]]:
    """File, output and largest difference from torch, over all cases."""
    import torch
    from optimum.onnxruntime import ORTModelForCustomTasks
    from transformers import PretrainedConfig

    cases = [dict(np.load(path)) for path in sorted(folder.glob("case*.npz"))]
    config = PretrainedConfig.from_pretrained(folder / "pack")
    for file, (inputs, outputs) in MODELS.items():
        model = ORTModelForCustomTasks.from_pretrained(folder / "pack", config=config, file_name=file)
        got = [model(**{name: torch.from_numpy(case[name]) for name in inputs}) for case in cases]
        for name in outputs if cases else ():
            scales = [case["deviation"] if name == "values" else 1.0 for case in cases]
            off = [abs(y[name].numpy() - x[name]) / s for x, y, s in zip(cases, got, scales, strict=True)]
            yield file, name, float(np.max([part.max() for part in off]))  # NaN if any is


if __name__ == "__main__":
    {"export": export, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
