"""The packs that ship, for real: real base model, real weights, molecules whose properties are known."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem

import mora_lite
from mora_lite.adapter.lowrank import Branch
from mora_lite.context.approved import ApprovedDrugs, approved_smiles
from mora_lite.errors import CheckpointError
from mora_lite.fast.scorer import FastScorer
from mora_lite.fast.upper import COLUMNS
from mora_lite.hub.bases import resolve_base
from mora_lite.lm.base import open_nf4
from mora_lite.lm.decoder import Decoder
from mora_lite.model import Model
from mora_lite.packs.installed import SHIPPED
from mora_lite.packs.pack import list_packs, open_pack
from mora_lite.text.pack import load_text, open_text_pack
from mora_lite.training.pretrain import load_encoder

# Hartree, from QM9: HOMO, LUMO, gap.
KNOWN = {
    "CCO": (-0.2619, 0.0798, 0.3417),  # ethanol
    "CC(C)=O": (-0.2431, -0.0087, 0.2344),  # acetone
    "CC#N": (-0.3264, 0.0376, 0.3640),  # acetonitrile
    "c1ccccc1": (-0.2475, 0.0029, 0.2503),  # benzene
    "Cc1ccccc1": (-0.2361, 0.0045, 0.2407),  # toluene
    "Oc1ccccc1": (-0.2191, 0.0010, 0.2201),  # phenol
    "c1ccncc1": (-0.2518, -0.0225, 0.2293),  # pyridine
    "c1ccoc1": (-0.2246, 0.0199, 0.2445),  # furan
    "C1CCCCC1": (-0.2913, 0.0870, 0.3783),  # cyclohexane
    "CCCC": (-0.3170, 0.0937, 0.4107),  # butane
}
TOLERANCE = 0.02  # Hartree, for one molecule: these are smaller than nearly all of QM9, where errors are largest
ORBITALS = ["homo", "lumo", "gap"]


@pytest.fixture(scope="module")
def qm9() -> Model:
    return mora_lite.load("qm9", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def values(qm9: Model) -> np.ndarray:
    predictions = qm9.predict(list(KNOWN))
    assert predictions.scores.status == ["ok"] * len(KNOWN)
    return predictions.scores.values


def test_it_has_the_tasks_that_it_promises(qm9: Model) -> None:
    assert [task.name for task in qm9.tasks] == ["homo", "lumo", "gap", "mu", "alpha", "r2", "zpve", "cv"]
    assert [task.unit for task in qm9.tasks][:3] == ["Ha"] * 3


@pytest.mark.parametrize("orbital", ORBITALS)
def test_well_known_molecules(values: np.ndarray, orbital: str) -> None:
    at = ORBITALS.index(orbital)
    error = values[:, at] - np.array([known[at] for known in KNOWN.values()])
    assert dict(zip(KNOWN, np.abs(error), strict=True)) == pytest.approx(dict.fromkeys(KNOWN, 0), abs=TOLERANCE)


def test_the_gap_is_between_the_orbitals(values: np.ndarray) -> None:
    homo, lumo, gap = values[:, :3].T
    np.testing.assert_allclose(gap, lumo - homo, atol=0.01)
    assert (homo < lumo).all()


def test_larger_molecules_have_more_of_what_adds_up(qm9: Model) -> None:
    frame = qm9.predict(["C" * n for n in range(2, 9)]).to_pandas()
    for task in ("alpha", "r2", "zpve", "cv"):
        column = next(t.column for t in qm9.tasks if t.name == task)
        assert frame[column].is_monotonic_increasing, task


def test_float32_does_not_depend_on_the_batch(qm9: Model, values: np.ndarray) -> None:
    """By more than docs/method.md promises: 0.00002 of a task's deviation."""
    smiles, std = list(KNOWN), np.array([task.deviation for task in qm9.tasks])
    backwards = qm9.predict(smiles[::-1], batch_size=3).scores.values[::-1]
    alone = qm9.predict(smiles[4]).scores.values
    many = qm9.predict(smiles * 60).scores.values
    for got, expected in ((backwards, values), (alone, values[4:5]), (many, np.tile(values, (60, 1)))):
        assert (np.abs(got - expected) / std).max() <= 2e-5


def test_bfloat16_stays_near_float32(values: np.ndarray) -> None:
    """2 % of a task's deviation; and other batches change it by no more than 0.2 %."""
    model = mora_lite.load("qm9", device="cpu", dtype="bfloat16")
    deviation = np.array([task.deviation for task in model.tasks])
    got = model.predict(list(KNOWN)).scores.values
    assert (np.abs(got - values) / deviation).max() <= 0.02
    again = model.predict(list(KNOWN)[::-1], batch_size=3).scores.values[::-1]
    assert (np.abs(again - got) / deviation).max() <= 2e-3


def test_its_own_record_keeps_what_the_project_promises() -> None:
    """The split, and the mean test error of the three orbital energies."""
    facts = open_pack("qm9").provenance
    test = [facts["test"][name] for name in ORBITALS]
    assert facts["split"] == {"seed": 0, "train": 110_000, "valid": 10_000, "kind": "random", "column": ""}
    assert np.mean([row["mae"] for row in test]) <= 0.0026
    assert all("encoder_mae" in row for row in test)


def test_shipped_packs_are_small() -> None:
    assert "qm9" in [pack.name for pack in list_packs()]
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= 60 * 2**20


def test_the_pack_reactions_answers_by_its_name() -> None:
    """On the base model where it has been pulled."""
    pack = open_text_pack("reactions")
    assert (pack.task, pack.base["name"]) == ("ask", "smollm2-135m")
    assert pack.manifest["provenance"]["validation"]["forward"]["exact"] > 0.8
    try:
        resolve_base(pack.base["name"])
    except CheckpointError as error:
        pytest.skip(str(error))
    folder = Path(__file__).parents[2] / "examples"
    tables = [list(csv.DictReader((folder / name).open())) for name in ("reactions.csv", "reactions_products.csv")]
    assert [[row["name"] for row in table] for table in tables] == [[row["name"] for row in tables[0]]] * 2
    answered = load_text(device="cpu").generate([row["smiles"] for row in tables[0]])
    right = [row.answers == [known["product"]] for row, known in zip(answered, tables[1], strict=True)]
    assert sum(right) >= 7


def test_it_equals_the_whole_model_run_on_the_whole_prompt(qm9: Model) -> None:
    """The compiled prompts and upper layers leave nothing out: all 30 layers, all tokens, one molecule at a time."""
    try:
        base = resolve_base(qm9.pack.base)
    except CheckpointError as error:
        pytest.skip(str(error))
    decoder = Decoder.from_checkpoint(open_nf4(base))
    scorer = qm9.scorer
    graphs = qm9.featurizer.read_smiles(("CC(C)=O", "c1ccoc1"))
    with torch.inference_mode():
        batch = graphs.batch()
        tokens = scorer.encode(batch)
        a, direct = scorer.hypernet(tokens), scorer.direct(tokens.molecules)
        fast = scorer(batch)
        for at, ids in enumerate(qm9.pack.provenance["prompt_ids"]):
            branch = Branch(a, scorer.c, scorer.scale, "last")
            hidden = decoder.hidden(torch.tensor([ids] * 2), branch=branch)[:, -1:]
            whole = (hidden * scorer.readout[at]).sum(-1)[:, 0] + scorer.offset[at] + direct[:, at]
            torch.testing.assert_close(fast[:, at], whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pack", ["qm9", "admet"])
def test_on_the_fast_path_a_row_does_not_depend_on_the_others(pack: str, molecules: list[str]) -> None:
    """By more than docs/method.md promises for bfloat16: 0.02 of a task's deviation."""
    model = mora_lite.load(pack, device="cpu")
    engine = FastScorer(model.scorer, torch.bfloat16)
    graphs = model.featurizer.read_smiles(molecules)
    rows = np.random.default_rng(0).permutation(len(graphs))
    z_scores = engine.z_scores(graphs)
    for part in (rows, rows[:9]):
        assert np.abs(engine.z_scores(graphs.select(part)) - z_scores[part]).max() <= 0.02
    if engine.upper.attention is not None:  # with one adapted layer there is none
        # 9 heads: a product with so few columns treats a row by its position, which zero columns prevent.
        assert engine.upper.attention.self_logits.shape[-1] == COLUMNS


# --- admet, the default


@pytest.fixture(scope="module")
def admet() -> Model:
    return mora_lite.load(device="cpu", dtype="float32")


def test_the_default_pack_answers_what_people_screen_for(admet: Model) -> None:
    assert admet.pack.name == "admet"
    kinds = {task.name: task.kind for task in admet.tasks}
    values = ("logS", "logD", "Caco2", "PPB", "VDss", "half_life", "CL", "CLint_HLM", "hERG_pIC50", "LD50_rat")
    classes = ("HIA", "Pgp_inhibitor", "BBB", "CYP3A4_inhibitor", "CYP2D6_substrate", "hERG_blocker", "AMES", "DILI")
    assert [kinds[name] for name in (*values, *classes)] == ["value"] * len(values) + ["class"] * len(classes)
    assert len(kinds) >= 45
    assert all(task.description.endswith(".") for task in admet.tasks), "a sentence on what it means"


def test_it_orders_what_every_chemist_can_order(admet: Model) -> None:
    frame = admet.predict(["CCO", "c1ccccc1", "c1ccc2cc3ccccc3cc2c1", "CCCCCCCCCCCCCCCC"]).to_pandas()
    solubility = frame["logS [log mol/L]"]
    assert solubility.is_monotonic_decreasing, "ethanol, benzene, anthracene, hexadecane"
    assert frame["logD"][0] < frame["logD"][1] < frame["logD"][2]


def test_its_intervals_hold_and_its_far_molecules_are_worse() -> None:
    """On its own test molecules, as the pack records it: counts and not shares, for small sets vary."""
    facts = open_pack("admet").provenance
    rows = [row for row in facts["test"].values() if "inside" in row]
    n = sum(row["n"] for row in rows)
    assert sum(row["inside"] * row["n"] for row in rows) / n == pytest.approx(0.9, abs=0.02)
    qm9 = open_pack("qm9").provenance
    for name in ORBITALS:
        assert qm9["test"][name]["inside"] == pytest.approx(0.9, abs=0.02)
        inside, outside = qm9["tables"][name]["by_domain"]
        assert outside["mae"] > 1.2 * inside["mae"]


def test_its_classes_are_told_apart_on_molecules_it_has_not_seen() -> None:
    figures = open_pack("admet").provenance["test"]
    assert all(row["roc_auc"] > 0.65 for row in figures.values() if row["n"] > 200 and "roc_auc" in row)
    assert figures["hERG_blocker"]["roc_auc"] > 0.8
    assert figures["BBB"]["roc_auc"] > 0.9


def test_the_shipped_encoder_is_the_one_that_packs_start_from() -> None:
    encoder = load_encoder()
    assert (encoder.width, len(encoder.layers)) == (256, 4)
    assert open_pack("admet").provenance["recipe"]["start"] == "pretrained"


# --- the atoms behind a value

SKELETONS = ["CCCCCCCC", "c1ccc(cc1)CCC", "C1CCCCC1CC", "Clc1ccc(cc1)CC"]
POLAR = {  # what is added to a skeleton, and which of its atoms count as the group
    "O": "[OX2H1]",
    "C(=O)[O-].[Na+]": "[CX3](=O)[O-]",
    "[NH3+].[Cl-]": "[NH3+]",
    "S(=O)(=O)[O-].[Na+]": "S(=O)(=O)[O-]",
    "[N+](C)(C)C.[Cl-]": "[N+](C)(C)C",
}


@pytest.mark.parametrize("group", POLAR)
def test_a_group_that_makes_a_molecule_soluble_comes_out_first(admet: Model, group: str) -> None:
    """Its strongest atom is the first of all, and the group explains most of what it adds to the value."""
    pattern = Chem.MolFromSmarts(POLAR[group])
    for skeleton in SKELETONS:
        found = admet.explain(f"{skeleton}{group}", "logS")
        assert found.check().max() < 1e-3
        weights = np.array(found.weights())
        atoms = list(found.molecule.drawn.GetSubstructMatch(pattern))
        assert int(weights.argmax()) in atoms, skeleton
        without = admet.explain(skeleton, "logS")
        assert weights[atoms].sum() > 0.5 * (found.values[0] - without.values[0]) > 0.3, skeleton
        assert weights[atoms].sum() > 2 * max(without.weights()), skeleton


def test_all_tasks_are_explained_at_once_and_add_up(admet: Model) -> None:
    found = admet.explain("CC(C)c1c(C(=O)Nc2ccccc2)c(-c2ccccc2)c(-c2ccc(F)cc2)n1CCC(O)CC(O)CC(=O)O")
    assert found.contributions.shape == (41, len(admet.tasks))
    assert found.check().max() < 1e-3


def test_percentiles_among_approved_drugs_are_those_that_ship(admet: Model) -> None:
    """Half of the drugs are below the middle; computed again they are the same."""
    drugs = approved_smiles()[::40]
    places = admet.percentiles(admet.score(drugs))
    assert np.abs(np.median(places, axis=0) - 50).max() < 30
    again = ApprovedDrugs.of(("logS",), admet.score(approved_smiles()).values[:, :1])
    known = admet.approved.percentiles[[0]]
    np.testing.assert_allclose(again.percentiles, known, atol=0.02 * admet.tasks[0].deviation)
