"""The benchmark on the TDC boards: no test molecule in training, the protocol's splits, ranks, and a run end to end."""

from __future__ import annotations

import copy
import csv
import gzip
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tdc
import tdc_scores
import torch
from safetensors.torch import load_file
from tdc_data import BOARDS, Keys, leaks, published, rank, read_board, scaffold_folds, tdc_scaffold_split
from tdc_table import fit_tasks, read_union
from tdc_teacher import describe, taught, tree_answers

from mora_lite.adapter.encoder import EncoderBaseline, GraphEncoder
from mora_lite.chem.molecules import scaffold_of
from mora_lite.scoring.tasks import on_scale
from mora_lite.scoring.trees import Trees
from mora_lite.training.loop import fit
from mora_lite.training.pretrain import load_encoder, save_encoder

CHAINS = [f"{'C' * i}N" for i in range(1, 21)]
RINGS = [f"c1ccc({'C' * i}{end})cc1" for i in range(8) for end in ("O", "N", "Cl")]
OTHERS = [f"C1CCC({'C' * i}{end})CC1" for i in range(6) for end in ("O", "F")]
MOLECULES = CHAINS + RINGS + OTHERS

# A test molecule, and the ways in which other files may draw it.
DRAWN_AGAIN = [
    ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"),  # the mirror image
    ("C[C@H](N)C(=O)O", "CC(N)C(=O)O"),  # no configuration
    ("OC(=O)/C=C/c1ccccc1", "OC(=O)/C=C\\c1ccccc1"),
    ("CN1CCC(O)CC1", "C[NH+]1CCC(O)CC1"),
    ("C[NH+]1CCC(O)CC1", "CN1CCC(O)CC1.Cl"),
    ("CC(=O)[O-].[Na+]", "CC(=O)O"),
    ("OC(=O)c1ccccc1", "[K+].O=C([O-])c1ccccc1"),
    ("NCCc1ccc(O)c(O)c1", "OS(=O)(=O)O.NCCc1ccc(O)c(O)c1"),
    ("CN1CCC(O)CC1.OC(=O)C(=O)O", "CN1CCC(O)CC1.Cl"),  # another salt of it
    ("C1CNCCN1.OC(=O)CC(O)(C(O)=O)CC(O)=O", "C1CNCCN1"),  # its counter-ion is the larger part
    ("OC(=O)CCC1CC1", "[Na]OC(=O)CCC1CC1"),  # a bond in place of charges
    ("[2H]C(C)(N)C(=O)O", "CC(N)C(=O)O"),
    ("C[N+](C)(C)CCO.[Cl-]", "C[N+](C)(C)CCO.[Br-]"),
]


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Boards `herg` and `half_life_obach`, and a table of both with a kin endpoint and an assay of Tox21."""
    for name, value in (("herg", lambda i: i % 2), ("half_life_obach", lambda i: 1 + i)):
        rows = [(s, value(i), "test" if i % 5 == 0 else "train_val") for i, s in enumerate(MOLECULES)]
        rows.append(("C1=CC=C[NH+2]([O-])[CH-]1", value(0), "test"))  # RDKit does not read it
        write_table(tmp_path / f"{name}.csv.gz", ("smiles", name, "tdc_split"), rows)
    rows = [
        (s, "" if i % 5 == 0 else i % 2, "" if i % 5 == 0 else 1 + i, 0.1 * i, (i // 2) % 2, "train", "a;b")
        for i, s in enumerate(MOLECULES)
    ]
    rows += [(f"{'C' * i}F", "", "", 0.1 * i, i % 2, "train", "a") for i in range(1, 9)]
    columns = ("smiles", "herg", "half_life_obach", "half_life", "NR-AR", "split", "sources")
    write_table(tmp_path / "boards.csv.gz", columns, rows)
    return tmp_path


@pytest.mark.parametrize(("tested", "drawn"), DRAWN_AGAIN)
def test_a_test_molecule_leaks_however_it_is_drawn(tested: str, drawn: str, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.csv")
    assert leaks([drawn, "CCCCCC", tested], [tested, "c1ccccc1"], keys).tolist() == [True, False, True]


def test_a_homologue_does_not_leak(tmp_path: Path) -> None:
    assert not leaks(
        ["CCC(N)C(=O)O", "[Na+].[Cl-]"], ["CC(N)C(=O)O", "CC(N)C(=O)[O-].[Na+]"], Keys(tmp_path / "k")
    ).any()


def test_test_molecules_are_gone_from_every_task_of_the_table(folder: Path) -> None:
    union = read_union(folder / "boards.csv.gz")
    rows = read_board(folder, "herg")
    tested = [rows.smiles[i] for i in rows.held_out("test", 1)]
    keys = Keys(folder / "keys.csv")
    tasks = fit_tasks(union, leaks(union.data.smiles, tested, keys))
    assert tasks.names == union.columns == ["herg", "half_life_obach", "half_life", "NR-AR"]
    assert not set(tasks.data.smiles) & set(tested)
    assert set(tasks.data.smiles) == set(union.data.smiles) - set(tested)
    assert np.isnan(tasks.data.targets).any(axis=1).sum() == 8


def test_the_start_of_train_sees_no_test_molecule_of_any_board(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor those of a fold, nor the columns that are left out; and `train` can start from what it writes."""
    tested = [tested for tested, _ in DRAWN_AGAIN]
    rows = [(s, i % 2, "test") for i, s in enumerate(tested)] + [(s, i % 2, "train_val") for i, s in enumerate(CHAINS)]
    write_table(folder / "herg.csv.gz", ("smiles", "herg", "tdc_split"), rows)  # half_life_obach has other test rows
    drawn = [drawn for _, drawn in DRAWN_AGAIN]
    rows = [(s, i % 2, 1 + i, (i // 2) % 2) for i, s in enumerate([*drawn, *tested, *MOLECULES])]
    write_table(folder / "boards.csv.gz", ("smiles", "herg", "half_life_obach", "NR-AR"), rows)
    monkeypatch.setattr(tdc, "BOARDS", ("herg", "half_life_obach"))
    monkeypatch.setattr(tdc, "MULTITASK", replace(tdc.MULTITASK, batch_size=16))
    trained = []
    monkeypatch.setattr(tdc, "fit", lambda model, data, *rest: trained.append(data) or fit(model, data, *rest))
    out = folder / "endpoints.safetensors"
    command = ["tdc.py", "start", "--data", folder, "--table", folder / "boards.csv.gz", "-o", out, "--visits", "64"]
    keys = Keys(folder / "k")
    boards = [read_board(folder, name) for name in ("herg", "half_life_obach")]
    for part, without in (("test", []), ("3/5", ["--without", "NR-AR"])):
        monkeypatch.setattr(sys, "argv", [str(word) for word in [*command, "--part", part, *without]])
        tdc.main()
        assert f"{2 if without else 3} tasks" in capsys.readouterr().out
        held = [b.smiles[i] for b in boards for i in np.union1d(np.flatnonzero(b.test), b.held_out(part, 0))]
        assert len(trained[-1]) > 16
        assert not leaks(trained[-1].smiles, held, keys).any()
    assert len(trained[1]) < len(trained[0]) < len(MOLECULES)
    assert load_encoder(out).width == 256


def test_a_start_that_has_seen_the_test_molecules_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "e.safetensors"
    save_encoder(GraphEncoder(16, 2), path, {}, MOLECULES)
    command = ["tdc.py", "single", "--data", folder, "-o", folder / "runs", "--boards", "herg", "--start", path]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    with pytest.raises(SystemExit, match="has seen values of 12 of the 13 molecules that it is asked"):
        tdc.main()


def test_keys_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Keys(tmp_path / "keys.csv").of(MOLECULES)
    monkeypatch.setattr("tdc_data.keys_of", lambda _: pytest.fail("was kept already"))
    assert Keys(tmp_path / "keys.csv").of(MOLECULES) == first


def test_the_split_of_a_seed_keeps_scaffolds_together_and_has_the_protocols_sizes() -> None:
    molecules = [f"C1{'C' * i}C1{end}" for i in range(1, 12) for end in ("", "N", "CO")] + RINGS[:7]
    splits = [tdc_scaffold_split(molecules, seed, (0.875, 0.125, 0.0)) for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]
    for train, valid, test in splits:
        assert sorted(train + valid) == list(range(40))
        assert not test
        assert 32 < len(train) <= 35
        assert not {scaffold_of(molecules[i]) for i in train} & {scaffold_of(molecules[i]) for i in valid}


def test_every_training_molecule_is_in_one_fold_and_no_test_molecule_in_any(folder: Path) -> None:
    rows = read_board(folder, "herg")
    held = np.concatenate([rows.held_out(f"{k}/3", 1) for k in (1, 2, 3)])
    assert sorted(held) == np.flatnonzero(~rows.test).tolist()
    folds = scaffold_folds(MOLECULES, 3)
    assert all(len({folds[MOLECULES.index(s)] for s in group}) == 1 for group in (CHAINS, RINGS, OTHERS))


def test_a_rank_counts_the_entries_that_are_strictly_better_after_rounding() -> None:
    caco2, herg = BOARDS["caco2_wang"], BOARDS["herg"]
    assert [rank(caco2, v) for v in (0.2554, 0.2564, 0.2566, 0.275)] == [1, 1, 2, 3]
    assert [rank(herg, v) for v in (0.9, 0.8796, 0.8794, 0.5)] == [1, 1, 2, 21]


def test_the_mean_ranks_of_known_models_come_out() -> None:
    for model, expected in (("MapLight + GNN", 3.45), ("MiniMol", 4.27), ("MapLight", 4.77), ("Chemprop-RDKit", 9.14)):
        ranks = [rank(board, published(name)[model]) for name, board in BOARDS.items()]
        assert np.mean(ranks) == pytest.approx(expected, abs=0.005)


def test_percentages_return_from_logits() -> None:
    values = np.array([0.0, 0.3, 50.0, 99.0, 100.0])
    returned = BOARDS["ppbr_az"].in_unit(on_scale(values, "logit"))
    assert returned == pytest.approx([0.3, 0.3, 50, 99, 99.7])


def test_the_table_is_read_from_the_file_beside_it(folder: Path) -> None:
    first, second = (read_union(folder / "boards.csv.gz") for _ in range(2))
    assert (folder / "boards.csv.gz.npz").exists()
    assert second.columns == first.columns
    assert second.data.smiles == first.data.smiles
    np.testing.assert_array_equal(second.data.targets, first.data.targets)
    np.testing.assert_array_equal(second.data.graphs.ends, first.data.graphs.ends)


def test_the_groups_hold_every_board_once() -> None:
    assert sorted(name for group in tdc.GROUPS for name in group.split(",")) == sorted(BOARDS)


def test_runs_of_two_boards_are_scored_from_their_files(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tdc, "MULTITASK", replace(tdc.MULTITASK, batch_size=16))
    table, runs = str(folder / "boards.csv.gz"), str(folder / "runs")
    command = [
        "tdc.py",
        "train",
        "--data",
        str(folder),
        "--table",
        table,
        "-o",
        runs,
        "--groups",
        "herg,half_life_obach",
        "--teacher",
        "0.1",
    ]
    monkeypatch.setattr(sys, "argv", [*command, "--seeds", "1", "2", "--visits", "128", "--own-steps", "2"])
    tdc.main()
    assert "step 6 of 6" in capsys.readouterr().out  # two epochs of 52 molecules
    tdc.main()
    assert capsys.readouterr().out.count("is there already") == 2
    with (folder / "runs" / "mt_herg+half_life_obach_test_1.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = read_board(folder, "herg")
    assert len(lines) == 2 * 3 * rows.test.sum()
    unreadable = [float(x["prediction"]) for x in lines if x["board"] == "herg" and int(x["row"]) == len(MOLECULES)]
    share = rows.values[~rows.test].mean()
    assert unreadable == pytest.approx([np.log(share / (1 - share))] * 3, abs=1e-5)
    assert not any(np.isnan(float(line["prediction"])) for line in lines)
    monkeypatch.setattr(tdc_scores, "N_BOOTSTRAP", 20)
    score = ["tdc.py", "score", "--data", str(folder), runs, "--variants", "mt", "mt+own"]
    monkeypatch.setattr(sys, "argv", score)
    tdc.main()
    printed = capsys.readouterr().out
    assert "| herg | roc_auc, higher is better | 2 |" in printed
    assert "mean rank over 2 boards" in printed
    monkeypatch.setattr(sys, "argv", [*score, "--runs", "1"])
    tdc.main()
    assert "| herg | roc_auc, higher is better | 2 in 1 run |" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*score, "--networks", "1"])
    tdc.main()
    assert "| herg | roc_auc, higher is better | 1 of 2 |" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*score, "--salts", "only"])
    tdc.main()
    assert "herg" not in capsys.readouterr().out


def test_groups_go_on_from_a_network_that_has_seen_no_test_molecule_of_any_board(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tdc, "MULTITASK", replace(tdc.MULTITASK, batch_size=16))
    monkeypatch.setattr(tdc, "BOARDS", ("herg", "half_life_obach"))
    rows = [("CCCF", 1, "test"), ("CCCCF", 2, "train_val")]
    write_table(folder / "half_life_obach.csv.gz", ("smiles", "half_life_obach", "tdc_split"), rows)
    starts, runs = [], folder / "runs"
    fit_many = tdc.fit_many
    monkeypatch.setattr(
        tdc, "fit_many", lambda model, *rest: starts.append(copy.deepcopy(model)) or fit_many(model, *rest)
    )
    command = ["tdc.py", "train", "--data", folder, "--table", folder / "boards.csv.gz", "-o", runs, "--groups", "herg"]
    command += ["--seeds", 1, "--visits", 128, "--common", 64, "--own-steps", 0]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    tdc.main()
    said = [line.split(";")[0] for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert said == ["52 molecules, 4 tasks", "51 molecules, 4 tasks"]  # of the group, and without CCCF
    first, second = starts
    common = load_file(runs / "mt_common_test_1.safetensors")
    assert not torch.equal(first.head[0].weight, common["head.0.weight"])
    assert all(torch.equal(values, common[name]) for name, values in second.state_dict().items())
    (runs / "mt_herg_test_1.csv").unlink()
    tdc.main()
    assert len(starts) == 3, "the common network is kept"


def test_a_task_that_the_common_network_does_not_know_keeps_its_own_weights() -> None:
    torch.manual_seed(0)
    old, new = EncoderBaseline(GraphEncoder(16, 1), 2), EncoderBaseline(GraphEncoder(16, 1), 3)
    fresh = new.head[2].weight.detach().clone()
    tdc.go_on_from(new, ["b", "c", "a"], old.state_dict(), ["a", "b"])
    assert torch.equal(new.head[2].weight, torch.stack([old.head[2].weight[1], fresh[1], old.head[2].weight[0]]))
    assert torch.equal(new.head[0].weight, old.head[0].weight)


def test_trees_teach_what_they_say_of_molecules_that_they_have_not_learnt_from(folder: Path) -> None:
    union = read_union(folder / "boards.csv.gz")
    tested = set(MOLECULES[::5])
    leave_out = np.array([smiles in tested for smiles in union.data.smiles])
    descriptors = describe(union, folder / "descriptors.npy")
    assert np.array_equal(describe(union, folder / "descriptors.npy"), descriptors), "kept"
    boards = ("herg", "half_life_obach")
    tasks = fit_tasks(union, leave_out)
    assert tasks.data.rows.tolist() == np.flatnonzero(~leave_out).tolist()
    answers = tree_answers(union, descriptors, tasks.data.rows, boards, 1)
    assert np.array_equal(np.isnan(answers), ~np.isnan(union.data.targets[~leave_out, :2]))
    more = taught(tasks, answers, boards, 0.25)
    assert more.names == [*tasks.names, "taught:herg", "taught:half_life_obach"]
    assert more.stats.weights.tolist() == [1, 1, 1, 1, 0.25, 0.25]
    assert more.stats.auxiliary.tolist() == [False] * 4 + [True] * 2
    learnt = more.data.targets[:, 4:]
    assert np.array_equal(np.isnan(learnt), np.isnan(answers))
    assert more.learnt(more.data.targets)[-1, 5] == pytest.approx(answers[-1, 1], abs=1e-5)


def test_trees_learn_a_board_and_never_its_test_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    grow = Trees.grow

    def remember(descriptors: np.ndarray, targets: np.ndarray, *rest: object) -> Trees:
        asked.append(len(targets))
        return grow(descriptors, targets, *rest)

    monkeypatch.setattr(tdc.Trees, "grow", remember)
    runs, board = folder / "runs", "half_life_obach"
    command = ["tdc.py", "trees", "--data", str(folder), "-o", str(runs), "--boards", board, "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", command)
    tdc.main()
    tdc.main()  # what is there already is not run again
    rows = read_board(folder, board)
    assert asked == [(~rows.test).sum()]
    with (runs / f"trees_{board}_test_1.csv").open(newline="") as file:
        predicted = np.array([float(line["prediction"]) for line in csv.DictReader(file)])
    truth = on_scale(rows.values[rows.test], "log")
    assert np.corrcoef(predicted[:-1], truth[:-1])[0, 1] > 0.5  # the last is the molecule that RDKit does not read


def test_coverage_is_the_share_of_true_values_between_the_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(s, 10.0**i, "test") for i, s in enumerate(CHAINS[:4])]
    write_table(tmp_path / "half_life_obach.csv.gz", ("smiles", "half_life_obach", "tdc_split"), rows)
    ends = {"single low": [-1, np.nan, 2.5, 3], "single high": [1, 1, 4, 3.5]}  # of logarithms; the third is too high
    lines: tdc.Lines = [
        ("half_life_obach", 1, variant, "test", row, value)
        for variant, of in ends.items()
        for row, value in enumerate(of)
    ]
    tdc.write_lines(tmp_path / "runs" / "a.csv", lines)
    command = ["tdc.py", "coverage", "--data", str(tmp_path), f"{tmp_path}/runs", "--variants", "single"]
    monkeypatch.setattr(sys, "argv", command)
    tdc.main()
    printed = capsys.readouterr().out
    assert "| half_life_obach | 1 | 4 | 0.750 |" in printed
    assert "mean over 1 boards: 0.750" in printed


def test_seeds_are_dealt_to_runs_in_turn_and_a_run_is_the_mean_of_its_own() -> None:
    by_seed = {seed: np.array([[3, seed], [5, 10 * seed]], dtype=float) for seed in (1, 2, 6)}
    (one,) = tdc_scores.deal(by_seed, 1)
    assert one.tolist() == [[3, 3], [5, 30]]
    assert [mean[0, 1] for mean in tdc_scores.deal(by_seed, 2)] == [3.5, 2]
    differing = by_seed | {7: np.array([[4.0, 1.0]])}
    assert len(tdc_scores.deal(differing, 4)) == 4
    with pytest.raises(SystemExit, match="different rows"):
        tdc_scores.deal(differing, 2)


def test_chosen_networks_are_all_different_and_averaged() -> None:
    by_seed = {seed: np.array([[3.0, 2.0**seed]]) for seed in range(4)}
    means = [answer[0, 1] for answer in tdc_scores.choose(by_seed, 3)]
    assert set(means) == {(15 - left_out) / 3 for left_out in (1, 2, 4, 8)}
    assert len(means) == tdc_scores.N_CHOICES


def test_changes_of_the_error_are_logarithms_and_weigh_every_board_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = {"worse": {"caco2_wang": 2.0, "ld50_zhu": 4.0}, "mt": {"caco2_wang": 1.0, "ld50_zhu": 1.0}}
    lines: tdc.Lines = []
    for name in ("caco2_wang", "ld50_zhu"):
        rows = [(s, 0, "train_val") for s in CHAINS[:4]]
        write_table(tmp_path / f"{name}.csv.gz", ("smiles", name, "tdc_split"), rows)
        lines += [(name, 1, variant, "1/5", row, of[name]) for variant, of in errors.items() for row in range(4)]
    tdc.write_lines(tmp_path / "runs" / "a.csv", lines)
    words = ["--part", "1/5", "--reference", "mt", "--variants", "worse", "mt,worse"]
    monkeypatch.setattr(sys, "argv", ["tdc.py", "compare", "--data", str(tmp_path), f"{tmp_path}/runs", *words])
    tdc.main()
    printed = capsys.readouterr().out
    assert "| worse | 2 | +104.0 ± 34.7 % | 1 | +138.6 ± nan % |" in printed
    assert "| mt,worse | 2 | +66.1 ± 25.5 % | 1 | +91.6 ± nan % |" in printed
