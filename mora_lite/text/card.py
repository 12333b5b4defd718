"""The README.md that lies in a text pack: what it is asked, how well it answers, how it was made, in Markdown."""

from __future__ import annotations

import shlex
from typing import Any

from ..packs.card import card_of, code, markdown_table, plain, section, value_lines
from .metrics import metrics_by_table
from .tasks import PackQuestions, text_task

TAGS = ("chemistry", "cheminformatics", "smiles", "mora")
METRICS_NOTE = (
    "On the test rows, answered greedily; what they are held out by was not in training. "
    "`exact` and `valid` are shares, `levenshtein` is in characters, all others go from 0 to 1."
)
LIMITS = (
    "An answer is a guess that reads well, its probability the model's own; check it before anything depends on it.",
    "The model learnt from the tables above, with their errors and their gaps.",
)


def text_card(name: str, manifest: dict[str, Any], address: str = "") -> str:
    """The card of the text pack `name` with this manifest; what the manifest does not say is left out.

    address: by which others load it, `hf:owner/name`.
    """
    provenance, task = manifest["provenance"], manifest["task"]
    trained = provenance.get("trained") or {}
    sizes = {key: manifest["sizes"].get(key) for key in ("adapted_layers", "rank")}
    made = {"base model": manifest["base"]["name"], "adapter": provenance.get("variant", manifest["adapter"]), **sizes}
    made |= {
        "orders of a row": provenance.get("copies"),
        **{k: provenance.get(k) for k in ("seed", "steps", "seconds")},
        **trained,
    }
    rows = provenance.get("rows") or {}
    data = [f"{code(table)}: SHA-256 {digest}" for table, digest in (provenance.get("tables") or {}).items()]
    data += [f"{code(table)}, for the test: SHA-256 {digest}" for table, digest in provenance.get("tests", {}).items()]
    held_out = {"held out": provenance.get("held_out"), **{f"{part} rows": n for part, n in rows.items()}}
    prompt, column = manifest["prompt"], text_task(task).column
    asked = f"{prompt['before']}...{prompt['between']}"
    known = PackQuestions.of(manifest)
    learnt = [f"{code('--task ' + name)}: {plain(question)}" for name, question in known.by_direction.items()]
    ask = f" --task {known.tasks[0]}" if known.by_direction else ' --question "..."' if known.needs_words else ""
    sections = [
        f"# {plain(name)}\n\nA mora-lite text pack for the task {code(task)}: an adapter over the frozen language "
        f"model {code(manifest['base']['name'])}, which is fetched separately.",
        f"## What it is asked\n\n```text\n{asked}\n```\n\nThe answer goes into the column {code(column)}.",
        section("What it has learnt", learnt),
        section("Questions it was trained on", [*map(plain, known.in_words)]),
        _quality(provenance.get("test") or {}),
        section("Data", [*data, *value_lines(held_out)]),
        section("How it was made", value_lines(made)),
        section("Limits", LIMITS),
        f"## Use\n\n```sh\nmora-lite generate molecules.csv --pack {address or './' + shlex.quote(name)}{ask}\n```",
    ]
    return card_of(manifest, sections, TAGS)


def _quality(metrics: dict[str, Any]) -> str:
    if not metrics:
        return ""
    return f"## How good it is\n\n{METRICS_NOTE}\n\n{markdown_table(metrics_by_table(metrics))}"
