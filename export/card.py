"""The README.md of an exported folder: a model card with the header that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..packs.card import TAGS, about, card_of
from ..packs.manifest import without_training
from ..scoring.tasks import Task

DESCRIPTIONS = {
    "encoder.onnx": "graphs of molecules to tokens, float32",
    "encoder.fp16.onnx": "the same, matrix products in float16",
    "encoder.int8.onnx": "the same, matrices in 8 bits",
    "scorer.onnx": "graphs of molecules to values",
    "scorer.plain.onnx": "the same in standard operators, for other runtimes",
    "trust.npz": "error bars, calibrated probabilities, fingerprints of the training molecules",
    "training.npz": "SMILES and measured values of the training molecules",
    "featuriser.json": "how a molecule becomes the inputs",
    "config.json": "what Hugging Face Optimum asks for",
    "parity.json": "what the models were compared with, and the differences",
}


def export_card(
    manifest: Mapping[str, Any], tasks: Sequence[Task], files: Mapping[str, int], report: Mapping[str, Any]
) -> str:
    """The text of README.md. manifest: of the pack. files: bytes by name. report: of the parity gate."""
    # The table of files says whether the training molecules are in the folder.
    of_tasks = {**without_training(manifest), "tasks": [task.as_dict() for task in tasks]}
    name = manifest["name"]
    intro = (
        f"# {name}, as ONNX\n\nThe mora-lite pack `{name}` for ONNX Runtime and others, without torch: it predicts "
        f"{'one property' if len(tasks) == 1 else f'{len(tasks)} properties'} of molecules from their graphs. "
        "`export.json` lists the tasks; `docs/onnx.md` of mora-lite says how to run it."
    )
    described = dict(DESCRIPTIONS)
    if manifest["sizes"]["adapted_layers"] > 1:  # else no frozen matrix is left: the prompts are constants
        described["scorer.onnx"] += "; the language model in 4 bits (`MatMulBnb4` of ONNX Runtime)"
    rows = [f"| `{file}` | {files[file] / 1e6:.2f} | {text} |" for file, text in described.items() if file in files]
    table = "\n".join(["## Files", "", "| file | MB | what it is |", "| --- | ---: | --- |", *rows])
    lines = [
        f"| `{model}` | {where} | {row['molecules']:,} | {row['largest_difference']:.2g} |"
        for model, runs in report["models"].items()
        for where, row in runs.items()
    ]
    parity = "\n".join(
        [
            "## Checked",
            "",
            "Before it was written, each model was compared with the pack in torch. Differences are of tokens for "
            "encoders, and in deviations of the task for scorers.",
            "",
            "| model | in | molecules | largest difference |",
            "| --- | --- | ---: | ---: |",
            *lines,
        ]
    )
    return card_of(manifest, [intro, table, parity, *about(of_tasks)], (*TAGS, "onnx"))
