"""The README.md that lies in a trained pack: a model card and a short report of the training, in Markdown.

Everything in it is from the pack's manifest; what the manifest does not say is left out.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..hub.bases import BASE_MODELS
from ..scoring.tasks import Task
from .manifest import TRAINING

Row = Mapping[str, Any]

SEEN, NOT_SEEN, NO_RING = "seen in training", "not seen in training", "no ring"  # rows by scaffold, beside SMILES

TAGS = ("chemistry", "molecular-property-prediction", "cheminformatics", "smiles", "mora")
LABELS = {
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "spearman": "Spearman",
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "brier": "Brier",
    "ece": "ECE",
    "inside": "inside the 90 % interval",
    "mean_width": "mean width of the interval",
    "bf16_mae": "MAE before 4 bits",
    "loss_4bit": "relative loss by 4 bits",
    "file": "table",
    "smiles_sha256": "SHA-256 of the SMILES",
    "parts_sha256": "SHA-256 of the split column",
    "valid_error": "validation error",
    "mora_lite": "mora-lite",
    "rdkit": "RDKit",
}
BESIDE = "encoder_"  # a metric of the encoder alone, which stands next to that of the pack
BREAKDOWNS = {
    "by_similarity": (
        "By similarity to the training molecules",
        "Similarity is that of a molecule to the most similar training molecule.",
    ),
    "by_scaffold": (
        "By scaffold",
        "A scaffold is what is left of a molecule without its side chains. The rows below the first two are the most "
        "frequent scaffolds of the test molecules.",
    ),
    "by_domain": ("By domain", "Inside or outside of what the training molecules span."),
    "calibration": (
        "Calibration",
        "Of the molecules given a probability in this range: the mean of it, and the share that was found positive.",
    ),
}
METRICS_NOTE = (
    "On the test molecules, which were used neither to train nor to choose the weights. MAE and RMSE are in the task's "
    "unit."
)
CLASSES_NOTE = "ROC-AUC is 0.5 for guessing and 1 at best; Brier and ECE (calibration error) are 0 at best."
TREES_NOTE = " Each value is the mean of the network's and that of boosted trees on RDKit's descriptors."
ALONE_NOTE = "Encoder alone: the graph encoder trained on the same molecules, without a language model."
LIMITS = (
    "A prediction is not a measurement. It stands for the measurement or calculation that the training table holds, "
    "with that table's errors; check it before anything depends on it.",
    "Figures are averages over the test molecules. Molecules unlike those of training often get worse predictions.",
    "The model sees atoms, bonds and stereo marks. It sees no 3D structure: all conformers are one to it.",
)
FLAGGED = (
    "In the output, `outside` names the tasks whose training molecules a molecule is unlike, and `in_domain` is true "
    "where there are none. That is no promise that the prediction is right."
)
DATA_INSIDE = (
    "the pack holds the SMILES and measured values of its training molecules (`training.safetensors`), and names the "
    "nearest of them with `--neighbours`"
)
NOT_FLAGGED = "This pack has no out-of-domain flag: it does not say which molecules are unlike its training molecules."


def model_card(manifest: dict[str, Any], address: str = "") -> str:
    """The card of the pack with this manifest (the content of pack.json), as the text of a README.md.

    address: by which others load it, `hf:owner/name`; without one they are told its name. The card begins with the YAML
    header that the Hugging Face hub reads.
    """
    return card_of(manifest, [_header(manifest), *about(manifest), _use(manifest, address)])


def about(manifest: Row) -> list[str]:
    """The sections of a card that say what a pack answers, how well, and how it was made."""
    return [
        _answers(manifest),
        _quality(manifest),
        *_breakdowns(manifest),
        _data(manifest),
        _warnings(manifest["provenance"]),
        _making(manifest),
        _limits(manifest),
    ]


def card_of(manifest: Row, sections: Iterable[str], tags: Sequence[str] = TAGS) -> str:
    """The text of a README.md: the header that the Hugging Face hub reads, then the sections that are not empty."""
    return _front_matter(manifest, tags) + "\n" + "\n\n".join(filter(None, sections)) + "\n"


def _front_matter(manifest: Row, tags: Sequence[str]) -> str:
    """The YAML header that the Hugging Face hub reads."""
    header: dict[str, Any] = {"library_name": "mora-lite", "tags": list(tags)}
    base = _base(manifest)
    if base in BASE_MODELS:
        header["base_model"] = BASE_MODELS[base].repository
    if license_ := manifest["provenance"].get("license"):
        header["license"] = license_
    # JSON is YAML, and quotes whatever needs quotes.
    return "\n".join(["---", *(f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in header.items()), "---", ""])


def _header(manifest: Row) -> str:
    n, base = len(manifest["tasks"]), _base(manifest)
    trees = TREES_NOTE if "trees.safetensors" in (manifest.get("files") or {}) else ""
    what = "one property" if n == 1 else f"{n} properties"
    how = f", with {code(base)} as the frozen language model" if base else ""
    title = f"# {plain(manifest['name'])}"
    return f"{title}\n\nA mora-lite pack: it predicts {what} of molecules from their SMILES{how}.{trees}"


def _answers(manifest: Row) -> str:
    rows = []
    n_values = (manifest["provenance"].get("trained") or {}).get("values") or {}
    for task in manifest["tasks"]:
        if _is_class(task):
            share = 1 / (1 + math.exp(-task["mean"]))  # a class's mean is the log-odds of the training positives
            answer, training = "probability of a yes", f"{_show(100 * share)} % positive"
        else:
            answer, training = "value", _spread(task)
        unit, meaning = task.get("unit") or None, task.get("description") or None
        rows.append({"task": code(task["name"]), "answer": answer, "unit": unit, "meaning": meaning})
        rows[-1] |= {"molecules": n_values.get(task["name"]), "training values": training, "prompt": task.get("prompt")}
    return "## What it answers\n\n" + markdown_table(rows)


def _spread(task: Row) -> str:
    """Mean and standard deviation of the training values; on another scale than the linear, back in the unit."""
    mean, deviation = task["mean"], task["deviation"]
    if task.get("scale", "linear") != "linear":
        low, middle, high = map(_show, Task(**task).in_unit(np.array([mean - deviation, mean, mean + deviation])))
        return f"{middle}, mostly {low} to {high}"
    return f"{_show(mean)} ± {_show(deviation)}"


def _quality(manifest: Row) -> str:
    test = manifest["provenance"].get("test") or {}
    values, classes = (
        [
            {"task": code(task["name"]), "unit": task.get("unit") or None, **_metrics(test[task["name"]])}
            for task in manifest["tasks"]
            if task["name"] in test and _is_class(task) is kind
        ]
        for kind in (False, True)
    )
    if not values and not classes:
        return ""
    parts = ["## How good it is", METRICS_NOTE]
    if values:
        parts.append(markdown_table(values))
    if classes:
        parts += [markdown_table(classes), CLASSES_NOTE]
    if any(name.startswith(BESIDE) for row in values + classes for name in row):
        parts.append(ALONE_NOTE)
    return "\n\n".join(parts)


def _breakdowns(manifest: Row) -> Iterator[str]:
    tables = manifest["provenance"].get("tables") or {}
    title = "## Where it is good and where not"
    for kind, (heading, note) in BREAKDOWNS.items():
        by_task = {task["name"]: tables.get(task["name"], {}).get(kind) for task in manifest["tasks"]}
        tables_of = {name: markdown_table([_group(row) for row in rows]) for name, rows in by_task.items() if rows}
        parts = [f"{code(name)}:\n\n{table}" for name, table in tables_of.items()]
        if parts:
            yield "\n\n".join([*([title] if title else []), f"### {heading}", note, *parts])
            title = ""


def _group(row: Row) -> dict[str, Any]:
    """A row of a breakdown, with its two limits in one cell and its scaffold as code."""
    first: dict[str, Any] = {}
    if "from" in row and "to" in row:
        first["range"] = f"{_show(row['from'])} to {_show(row['to'])}"
    if "scaffold" in row:
        name = row["scaffold"]
        first["scaffold"] = name if name in (SEEN, NOT_SEEN, NO_RING) else code(name)
    if "domain" in row:
        first["domain"] = row["domain"]
    return first | {name: value for name, value in _metrics(row).items() if name not in ("from", "to", *first)}


def _data(manifest: Row) -> str:
    provenance = manifest["provenance"]
    trained, split = provenance.get("trained") or {}, dict(provenance.get("split") or {})
    lines = value_lines(provenance.get("data") or {})
    if split:
        kind = split.pop("kind", "random")
        # A split by a column of the table records no numbers of rows: they are 0.
        lines.append(plain(", ".join([f"split: {kind}", *(f"{k} {v}" for k, v in split.items() if v or k == "seed")])))
    lines += value_lines({"training molecules": trained.get("molecules")})
    if any(name.startswith(TRAINING) for name in manifest.get("files") or {}):
        lines.append(DATA_INSIDE)
    return section("Data and split", lines)


def _warnings(provenance: Row) -> str:
    lines = [*(provenance.get("warnings") or []), *(provenance.get("notes") or [])]
    return section("Warnings", [plain(line) for line in lines])


def _making(manifest: Row) -> str:
    provenance = manifest["provenance"]
    trained = dict(provenance.get("trained") or {})
    trained.pop("molecules", None)
    command = trained.pop("command", None) or provenance.get("command")
    if isinstance(command, (list, tuple)):
        command = shlex.join(map(str, command))
    base = {"base model": _base(manifest)}
    sizes = {name: (manifest.get("sizes") or {}).get(name) for name in ("adapted_layers", "rank")}
    lines = [*value_lines(base | sizes | trained), *(plain(line) for line in provenance.get("history") or [])]
    parts = [
        section("How it was made", lines),
        markdown_table([{k: v for k, v in row.items() if k != "curve"} for row in provenance.get("stages") or []]),
        f"```sh\n{command}\n```" if command else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _limits(manifest: Row) -> str:
    flagged = any(name.startswith("domain") for name in manifest.get("files") or {})
    return section("Limits", [*LIMITS, FLAGGED if flagged else NOT_FLAGGED])


def _use(manifest: Row, address: str) -> str:
    name = shlex.quote(address or manifest["name"])
    what = "The address" if address else "The name"
    return (
        f"## Use\n\n{what}, or the path of the folder that this file lies in:\n\n```sh\n"
        f"mora-lite predict molecules.csv --pack {name}\n"
        f"mora-lite evaluate {name} measured.csv --split all\n```"
    )


def _is_class(task: Row) -> bool:
    return task.get("kind") == "class"


def _base(manifest: Row) -> str:
    return (manifest.get("base") or {}).get("name") or ""


def _metrics(row: Row) -> dict[str, Any]:
    """The plain metrics of a row, those of the encoder alone each next to those of the pack."""
    row = {k: v for k, v in row.items() if k != "unit" and (v is None or isinstance(v, (str, int, float)))}
    ordered: dict[str, Any] = {}
    for name in row:
        for near in (name, BESIDE + name):
            if near in row:
                ordered[near] = row[near]
    return ordered


def value_lines(values: Row) -> list[str]:
    """`name: value` of each plain value that is known."""
    return [
        f"{plain(_label(name))}: {plain(_show(value))}"
        for name, value in values.items()
        if isinstance(value, (str, int, float)) and value != ""
    ]


def section(title: str, lines: Sequence[str]) -> str:
    """A heading and a list; '' without lines."""
    return "\n".join([f"## {title}", "", *(f"- {line}" for line in lines)]) if lines else ""


def markdown_table(rows: Iterable[Row]) -> str:
    """A Markdown table with a column for each key for which any row has a value; '' without rows."""
    rows = list(rows)
    names = [
        name for name in dict.fromkeys(k for row in rows for k in row) if any(_show(row.get(name)) for row in rows)
    ]
    if not names:
        return ""
    numeric = [not any(isinstance(row.get(name), str) for row in rows) for name in names]
    lines = [
        [plain(_label(name)) for name in names],
        ["---:" if right else "---" for right in numeric],
        *([plain(_show(row.get(name))) for name in names] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _label(name: str) -> str:
    if name.startswith(BESIDE) and name[len(BESIDE) :] in LABELS:
        return f"{LABELS[name[len(BESIDE) :]]}, encoder alone"
    return LABELS.get(name, name.replace("_", " "))


def _show(value: Any) -> str:
    """Floats to four significant digits; nothing for what is not known."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value  # as it is: it may be ready
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class _Ready(str):
    """Markdown already, so that `plain` leaves it alone."""

    __slots__ = ()


def code(text: str) -> _Ready:
    """In backticks: SMILES and names, where signs of Markdown have no meaning but for the bar between cells."""
    return _Ready("`" + " ".join(text.split()).replace("`", "'").replace("|", "\\|") + "`")


def plain(text: str) -> str:
    """One line of Markdown that shows `text` as it is, in a table too."""
    return text if isinstance(text, _Ready) else re.sub(r"([\\|`*<\[])", r"\\\1", " ".join(text.split()))
