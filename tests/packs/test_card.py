"""The model card that lies in a pack: what it tells of a manifest, and that it leaves out what it is not told."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from huggingface_hub import ModelCard

from mora_lite.packs.card import model_card
from mora_lite.packs.installed import SHIPPED
from mora_lite.packs.pack import MANIFEST

MANIFEST_OF_TWO: dict[str, Any] = {
    "name": "solubility and toxicity",
    "base": {"name": "smollm2-135m", "sha256": "ab"},
    "sizes": {"rank": 8, "adapted_layers": 4},
    "files": {"domain.safetensors": {}},
    "tasks": [
        {
            "name": "logS",
            "unit": "log10(mol/l)",
            "prompt": "How soluble?",
            "kind": "value",
            "mean": -3.05813,
            "deviation": 2.0961,
            "description": "solubility | water, 25 C",
        },
        {"name": "toxic", "unit": "", "prompt": "Toxic?", "kind": "class", "mean": 0.0, "deviation": 1.0},
    ],
    "provenance": {
        "license": "apache-2.0",
        "data": {"file": "measured.csv", "rows": 1128, "smiles_sha256": "cd"},
        "split": {"seed": 20260101, "train": 902, "valid": 113, "kind": "scaffold", "column": ""},
        "trained": {
            "molecules": 900,
            "valid_error": 0.512345,
            "date": "2026-11-22",
            "machine": "NVIDIA H100",
            "mora_lite": "0.2.0",
            "commit": "",
            "command": "mora-lite train recipe.toml measured.csv",
        },
        "stages": [{"stage": "encoder", "epochs": 30, "best_error": 0.61234, "seconds": 12.5}],
        "warnings": ["3 molecules are in the table twice"],
        "notes": ["row 7: `[Na]` is odd"],
        "test": {
            "logS": {"unit": "log10(mol/l)", "n": 113, "mae": 0.512345, "r2": None, "encoder_mae": 0.61},
            "toxic": {"n": 100, "positives": 31, "roc_auc": 0.87654, "encoder_roc_auc": 0.8},
        },
        "tables": {
            "logS": {
                "by_similarity": [{"from": 0.2, "to": 0.3, "n": 9, "mae": 1.25, "inside": 0.9}],
                "by_scaffold": [
                    {"scaffold": "not seen in training", "n": 0},
                    {"scaffold": "c1cc[nH]c1", "n": 12, "mae": 0.75, "inside": None},
                ],
            },
            "toxic": {"calibration": [{"from": 0.0, "to": 0.1, "n": 40, "predicted": 0.05, "observed": 0.075}]},
        },
    },
}


@pytest.fixture
def manifest() -> dict[str, Any]:
    return copy.deepcopy(MANIFEST_OF_TWO)


def tables(card: str) -> list[list[list[str]]]:
    """The cells of each table: a line of names, then the rows. All lines of a table must have as many cells."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", card, re.MULTILINE):
        lines = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        assert {len(line) for line in lines} == {len(lines[0])}, block
        assert all(re.fullmatch("---:?", cell) for cell in lines[1])
        found.append([lines[0], *lines[2:]])
    return found


def headings(card: str) -> list[str]:
    return [line.lstrip("# ") for line in card.splitlines() if re.match("#+ ", line)]


def test_the_hub_reads_its_header(manifest: dict) -> None:
    data = ModelCard(model_card(manifest)).data
    assert data.library_name == "mora-lite"
    assert {"chemistry", "molecular-property-prediction"} <= set(data.tags)
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert data.license == "apache-2.0"


def test_the_header_invents_nothing(manifest: dict) -> None:
    del manifest["provenance"]["license"]
    manifest["base"]["name"] = "my-own-llama"
    data = ModelCard(model_card(manifest)).data
    assert (data.license, data.base_model) == (None, None)


def test_it_says_what_the_pack_answers(manifest: dict) -> None:
    assert tables(model_card(manifest))[0] == [
        ["task", "answer", "unit", "meaning", "training values", "prompt"],
        ["`logS`", "value", "log10(mol/l)", r"solubility \| water, 25 C", "-3.058 ± 2.096", "How soluble?"],
        ["`toxic`", "probability of a yes", "", "", "50 % positive", "Toxic?"],
    ]


def test_values_and_classes_have_a_table_each_with_the_encoder_beside(manifest: dict) -> None:
    _, values, classes, *_ = tables(model_card(manifest))
    assert values == [  # R2 is not known of any task
        ["task", "unit", "n", "MAE", "MAE, encoder alone"],
        ["`logS`", "log10(mol/l)", "113", "0.5123", "0.61"],
    ]
    assert classes == [
        ["task", "n", "positives", "ROC-AUC", "ROC-AUC, encoder alone"],
        ["`toxic`", "100", "31", "0.8765", "0.8"],
    ]


def test_it_says_where_the_pack_is_good(manifest: dict) -> None:
    _, _, _, similarity, scaffold, calibration, _ = tables(model_card(manifest))
    assert similarity == [["range", "n", "MAE", "inside the 90 % interval"], ["0.2 to 0.3", "9", "1.25", "0.9"]]
    assert scaffold == [
        ["scaffold", "n", "MAE"],
        ["not seen in training", "0", ""],
        ["`c1cc[nH]c1`", "12", "0.75"],
    ]
    assert calibration == [["range", "n", "predicted", "observed"], ["0 to 0.1", "40", "0.05", "0.075"]]


def test_it_says_how_the_pack_was_made(manifest: dict) -> None:
    card = model_card(manifest)
    assert tables(card)[-1] == [["stage", "epochs", "best error", "seconds"], ["encoder", "30", "0.6123", "12.5"]]
    for line in (
        "- table: measured.csv",
        "- split: scaffold, seed 20260101, train 902, valid 113",
        "- training molecules: 900",
        "- validation error: 0.5123",
        "- machine: NVIDIA H100",
        "- 3 molecules are in the table twice",
        r"- row 7: \`\[Na]\` is odd",
    ):
        assert line in card.splitlines(), line
    assert "```sh\nmora-lite train recipe.toml measured.csv\n```" in card
    assert "commit" not in card  # it is not known


def test_its_commands_can_be_copied(manifest: dict) -> None:
    use = model_card(manifest).partition("## Use")[2]
    assert "mora-lite predict molecules.csv --pack 'solubility and toxicity'\n" in use
    assert use.count("\nmora-lite ") == 2


def test_it_names_the_flag_only_if_the_pack_sets_it(manifest: dict) -> None:
    assert "`in_domain` is true where there are none" in model_card(manifest)
    del manifest["files"]["domain.safetensors"]
    assert "in_domain" not in model_card(manifest)
    assert "no out-of-domain flag" in model_card(manifest)


def test_what_is_missing_is_left_out(manifest: dict) -> None:
    whole = headings(model_card(manifest))
    assert whole == [
        "solubility and toxicity",
        "What it answers",
        "How good it is",
        "Where it is good and where not",
        "By similarity to the training molecules",
        "By scaffold",
        "Calibration",
        "Data and split",
        "Warnings",
        "How it was made",
        "Limits",
        "Use",
    ]
    facts = manifest["provenance"]
    facts["tables"]["logS"] = {}
    facts["warnings"], facts["notes"] = [], []
    left = [name for name in whole if not name.startswith(("By ", "Warnings"))]
    assert headings(model_card(manifest)) == left

    manifest["provenance"] = {}
    del manifest["base"], manifest["sizes"], manifest["files"]
    card = model_card(manifest)
    assert headings(card) == ["solubility and toxicity", "What it answers", "Limits", "Use"]
    assert not re.search(r"None|nan|\n\n\n", card)


def test_values_alone_say_nothing_of_classes(manifest: dict) -> None:
    manifest["tasks"].pop()
    card = model_card(manifest)
    assert "toxic`" not in card
    assert "ROC-AUC" not in card
    assert "one property of molecules" in card


def test_the_pack_that_ships() -> None:
    manifest = json.loads((SHIPPED / "qm9" / MANIFEST).read_text(encoding="utf-8"))
    card = model_card(manifest)
    assert ModelCard(card).data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    answers, figures, *_ = tables(card)
    assert [row[0] for row in answers[1:]] == [f"`{task['name']}`" for task in manifest["tasks"]]
    homo = dict(zip(figures[0], figures[1], strict=True))
    test = manifest["provenance"]["test"]["homo"]
    assert float(homo["MAE"]) == pytest.approx(test["mae"], rel=1e-3)
    assert float(homo["MAE, encoder alone"]) == pytest.approx(test["encoder_mae"], rel=1e-3)
    assert manifest["provenance"]["trained"]["commit"] in card
