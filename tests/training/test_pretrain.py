"""An encoder from molecules without labels: descriptors, training, the file, and errors for what cannot be used."""

from __future__ import annotations

import itertools
import json
import stat
import warnings
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import Crippen, Descriptors
from rdkit.Chem import rdMolDescriptors as rd
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mora_lite.adapter.encoder import GraphEncoder
from mora_lite.chem.molecules import parse_smiles
from mora_lite.chem.morgan import N_BITS
from mora_lite.errors import InputError, PackError
from mora_lite.training import pretrain
from mora_lite.training.loop import TrainConfig, TrainProgress
from mora_lite.training.pretrain import (
    MAX_Z,
    describe,
    load_encoder,
    make_targets,
    pretrain_encoder,
    read_library,
    save_encoder,
    seen_by_start,
    start_notes,
)

CPU = torch.device("cpu")
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
SETTINGS = TrainConfig(epochs=1, batch_size=128, peak_lr=3e-3, huber=1.0)
ENDS = ["C", "N", "O", "F", "Cl", "Br", "S", "C#N", "C=O", "C(=O)O", "C(N)=O", "c1ccccc1", "C1CC1", "c1ccncc1"]
MIDDLES = ["C", "CC", "CCC", "C(C)C", "C(=O)C", "COC", "CNC", "CSC"]
LIBRARY = ["".join(parts) for parts in itertools.product(["N", "O"], MIDDLES, ENDS)] * 5  # 224 molecules, 1,120 rows


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Threads in place of processes, which are slow to start, and each molecule's descriptors but once."""
    real, cache = pretrain.describe, {}

    def describe(mol: Chem.Mol) -> tuple[np.ndarray, np.ndarray]:
        key = Chem.MolToSmiles(mol)
        if key not in cache:
            cache[key] = real(mol)
        return cache[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain.multiprocessing, "get_context", lambda _: SimpleNamespace(Pool=ThreadPool))
        patch.setattr(pretrain, "describe", describe)
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, with three rows that cannot be read."""
    path = tmp_path_factory.mktemp("library") / "library.csv"
    rows = [f"m{i},{smiles}" for i, smiles in enumerate([*LIBRARY, "C1CC", "", "nonsense"])]
    path.write_text("\n".join(["name,smiles", *rows]) + "\n")
    return path


def run_pretrain(
    table: Path, out: Path, settings: TrainConfig = SETTINGS, **options
) -> tuple[TrainProgress, list[TrainProgress]]:
    seen: list[TrainProgress] = []
    last = pretrain_encoder([table], out, settings, CPU, width=16, layers=1, on_progress=seen.append, **options)
    return last, [progress for progress in seen if progress.epoch_done]


@pytest.fixture(scope="module")
def trained(table: Path) -> Path:
    """The file, after an epoch."""
    out = table.with_name("encoder.safetensors")
    run_pretrain(table, out)
    return out


def described(smiles: list[str]) -> tuple[np.ndarray, np.ndarray]:
    results = [describe(parse_smiles(text).mol) for text in smiles]
    return np.stack([numbers for numbers, _ in results]), np.stack([bits for _, bits in results])


# --- descriptors of one molecule


def test_every_molecule_has_as_many_numbers_and_bits(molecules: list[str]) -> None:
    numbers, bits = described(molecules)
    assert (numbers.dtype, bits.dtype) == (np.float32, np.bool_)
    assert numbers.shape[1] > 300
    assert bits.shape == (60, N_BITS)
    assert not np.isinf(numbers).any()
    assert np.isfinite(numbers[molecules.index("CCO")]).all()


def test_what_cannot_be_had_is_missing_and_stops_nothing(molecules: list[str]) -> None:
    """BCUT wants parameters of every element."""
    numbers, _ = described(["C[Si](C)(C)C", "*CC*", "[Na+].[Cl-]", "[He]", ASPIRIN])
    assert np.isnan(numbers[1]).any()
    assert np.isfinite(numbers[1]).sum() > 250
    assert np.isfinite(numbers[4]).all()


def test_size_polarity_and_groups_are_among_them() -> None:
    mol = Chem.MolFromSmiles(ASPIRIN)
    numbers, bits = describe(mol)
    for value in (Descriptors.MolWt(mol), Crippen.MolLogP(mol), rd.CalcTPSA(mol), rd.CalcExactMolWt(mol)):
        if value != pytest.approx(Descriptors.MolWt(mol)):  # the exact mass stands for it
            assert np.isclose(numbers, value, rtol=1e-5).any()
    expected = rd.GetMorganFingerprintAsBitVect(mol, 2, N_BITS)
    assert np.flatnonzero(bits).tolist() == list(expected.GetOnBits())


def test_the_order_of_atoms_does_not_matter() -> None:
    mol = Chem.MolFromSmiles(ASPIRIN)
    turned = Chem.RenumberAtoms(mol, list(range(mol.GetNumAtoms()))[::-1])
    (numbers, bits), (again, bits_again) = describe(mol), describe(turned)
    np.testing.assert_allclose(numbers, again, rtol=1e-4, atol=1e-4)
    assert np.array_equal(bits, bits_again)


# --- targets of a library


def test_descriptors_become_z_scores() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal([5, -3], [2, 0.1], (2000, 2)).astype(np.float32)
    values, classes = make_targets(numbers, np.zeros((2000, 4), bool))
    assert values.dtype == np.float32
    assert classes.tolist() == [False, False]
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(values.std(0), 1, atol=1e-3)
    assert np.corrcoef(numbers[:, 0], values[:, 0])[0, 1] > 0.99


def test_a_long_tail_is_cut_and_squeezes_nothing() -> None:
    numbers = np.random.default_rng(0).standard_normal((2000, 1)).astype(np.float32)
    numbers[0] = 1e8
    values, _ = make_targets(numbers, np.zeros((2000, 1), bool))
    assert np.abs(values).max() <= MAX_Z
    assert values[1:].std() > 0.9


def test_descriptors_without_variety_and_rare_bits_are_left_out() -> None:
    n = 1000
    numbers = np.column_stack([np.arange(n), np.full(n, 7.0)]).astype(np.float32)
    bits = np.zeros((n, 5), bool)
    bits[:5, 0] = True  # 0.5 %
    bits[:500, 1] = True
    bits[:, 2] = True
    bits[:20, 3] = True  # 2 %
    bits[5:, 4] = True  # 99.5 %
    values, classes = make_targets(numbers, bits)
    assert classes.tolist() == [False, True, True]
    assert values[:, 1:].mean(0).tolist() == pytest.approx([0.5, 0.02])
    assert set(np.unique(values[:, 1:])) == {0, 1}


def test_missing_descriptors_stay_missing() -> None:
    numbers = np.arange(1000, dtype=np.float32)[:, None].repeat(2, 1)
    numbers[::3, 1] = np.nan
    values, _ = make_targets(numbers, np.zeros((1000, 1), bool))
    assert np.array_equal(np.isnan(values), np.isnan(numbers))
    assert np.nanmean(values[:, 1]) == pytest.approx(0, abs=1e-5)


def test_a_descriptor_that_no_molecule_has_is_left_out_quietly() -> None:
    numbers = np.arange(1000, dtype=np.float32)[:, None].repeat(2, 1)
    numbers[:, 1] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_targets(numbers, np.zeros((1000, 1), bool))[0].shape == (1000, 1)


# --- the library


def test_all_that_can_be_read_is_described(table: Path) -> None:
    told: list[int] = []
    data, classes = read_library([table], 1, told.append)
    assert data.smiles == LIBRARY
    assert data.targets.shape == (1120, len(classes))
    assert len(data.graphs) == told[-1] == 1120
    assert 50 < classes.sum() < len(classes) - 50, "fingerprint bits and descriptors"
    assert set(np.unique(data.targets[:, classes])) == {0, 1}
    assert not np.isinf(data.targets).any()


def test_several_tables_are_one_library(table: Path, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("SMILES\nCCO\nCCN\n")
    data, _ = read_library([table, tmp_path / "more.csv"], 1)
    assert data.smiles == [*LIBRARY, "CCO", "CCN"]


def test_the_targets_do_not_depend_on_the_chunks(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = read_library([table], 1)
    monkeypatch.setattr(pretrain, "CHUNK", 100)
    parts, _ = read_library([table], 2)
    assert np.array_equal(whole.targets, parts.targets, equal_nan=True)
    assert (whole.smiles, whole.fingerprint) == (parts.smiles, parts.fingerprint)


def test_what_goes_between_processes_can() -> None:
    """The function to a worker, arrays back from it, an error of the table through it."""
    smiles, graphs, numbers, bits = pretrain._describe_all([*LIBRARY[:5], "bad"])
    for what in (pretrain._describe_all, InputError("no such file"), (smiles, graphs, numbers, bits)):
        back = ForkingPickler.loads(ForkingPickler.dumps(what))
    assert back[0] == LIBRARY[:5]
    assert len(back[1]) == 5
    assert np.array_equal(back[2], numbers, equal_nan=True)
    assert np.array_equal(back[3], bits)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("smiles\nC1CC\nxx\n", "no molecule of .*few.csv could be read"),
        ("smiles\nCCO\nCCN\n", "got 2 readable molecules to pre-train on, expected 1,000 or more"),
        ("id,value\n1,2\n", "no SMILES column"),
    ],
)
def test_libraries_that_teach_nothing_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "few.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        run_pretrain(tmp_path / "few.csv", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["few.csv"]


def test_a_missing_table_is_told_before_the_others_are_described(table: Path, tmp_path: Path) -> None:
    told: list[int] = []
    with pytest.raises(InputError, match="no such file"):
        read_library([table, tmp_path / "none.csv"], 1, told.append)
    assert told == []


# --- training


def test_it_learns_what_the_descriptors_are(table: Path, tmp_path: Path) -> None:
    last, seen = run_pretrain(table, tmp_path / "out.safetensors", TrainConfig(3, 64, peak_lr=1e-2, huber=1.0))
    assert seen[-1].loss < seen[0].loss
    assert last.best_error < 0.9, "1 is what the mean alone would give"


def test_the_file_says_what_it_was_made_of(trained: Path) -> None:
    with safe_open(trained, "pt") as file:
        facts = json.loads(file.metadata()["encoder"])
        assert all(file.get_tensor(name).dtype == torch.float16 for name in file.keys())  # noqa: SIM118
    assert (facts["width"], facts["layers"], facts["molecules"], facts["epochs"]) == (16, 1, 1120, 1)
    assert facts["targets"] > 100
    assert 0 < facts["valid_error"] < 2
    assert stat.S_IMODE(trained.stat().st_mode) == 0o644


def test_a_killed_run_goes_on_to_the_same_encoder(table: Path, tmp_path: Path) -> None:
    settings = TrainConfig(2, 128, peak_lr=3e-3, huber=1.0)

    def stop(progress: TrainProgress) -> None:
        if progress.epoch_done:
            raise KeyboardInterrupt

    names = [tmp_path / name for name in ("killed.safetensors", "straight.safetensors")]
    with pytest.raises(KeyboardInterrupt):
        pretrain_encoder([table], names[0], settings, CPU, width=16, layers=1, on_progress=stop)
    assert not names[0].exists()
    epochs = [len(run_pretrain(table, name, settings)[1]) for name in names]
    assert epochs == [1, 2]
    resumed, straight = (load_file(name) for name in names)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in straight.items())


# --- the file


@torch.no_grad()
def test_what_is_saved_is_what_is_loaded(dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = GraphEncoder(16, 2).eval()
    save_encoder(encoder, tmp_path / "e.safetensors", {"molecules": 5})
    loaded = load_encoder(tmp_path / "e.safetensors").eval()
    assert (loaded.width, len(loaded.layers)) == (16, 2)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, encoder.state_dict()[name].half().float()), name
    batch = dataset.graphs.batch()
    inputs = batch.atoms, batch.bonds, batch.source, batch.target, batch.graph, batch.n_graphs
    torch.testing.assert_close(loaded(*inputs), encoder(*inputs), rtol=2e-2, atol=2e-2)
    assert [path.name for path in tmp_path.iterdir()] == ["e.safetensors"]


@pytest.mark.parametrize("n_others", [0, 20_000])
def test_a_start_knows_the_molecules_whose_values_it_has_seen(
    n_others: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether there are few, whose numbers are far apart, or many."""
    path = tmp_path / "e.safetensors"
    others = np.random.default_rng(0).integers(2**28, size=n_others)
    monkeypatch.setattr(pretrain, "molecule_ids", lambda s, of=pretrain.molecule_ids: np.concatenate([of(s), others]))
    encoder = GraphEncoder(16, 2)
    save_encoder(encoder, path, {}, ["CC(N)C(=O)O", "c1ccccc1O", "CCCCO"])
    monkeypatch.undo()
    for name, tensor in load_encoder(path).state_dict().items():  # in 8 bits
        torch.testing.assert_close(tensor, encoder.state_dict()[name], rtol=1e-3, atol=float(tensor.abs().max()) / 250)
    valid = ["[Na+].[O-]C(=O)[C@@H](C)N", "Oc1ccccc1", "CCCO", "CCN"]  # a salt, another order of atoms, and two others
    assert seen_by_start(str(path), valid).tolist() == [True, True, False, False]
    (note,) = start_notes(str(path), valid)
    assert note.startswith("2 of 4 validation molecules are public ones that the start of the encoder has seen")
    assert start_notes(str(path), valid[2:]) == start_notes("random", valid) == start_notes("structures", valid) == []


def test_files_that_are_no_encoder_are_told(trained: Path, pack_path: Path, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no encoder")
    whole = trained.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    for path in (
        tmp_path / "none.safetensors",
        tmp_path / "text.safetensors",
        tmp_path / "cut.safetensors",
        tmp_path,
        pack_path / "adapter.safetensors",
    ):
        with pytest.raises(PackError, match="is not an encoder that `mora-lite pretrain` made") as caught:
            load_encoder(path)
        assert "\n" not in str(caught.value)


def test_forged_numbers_of_molecules_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    save_encoder(GraphEncoder(16, 1), path, {}, [])
    assert seen_by_start(str(path), ["CCO"]).tolist() == [False]
    save_file(load_file(path) | {"seen": torch.ones(2, dtype=torch.bfloat16)}, path)
    with pytest.raises(PackError, match=r"e\.safetensors is damaged \(TypeError: .*\); pre-train it again"):
        seen_by_start(str(path), ["CCO"])


def changed(trained: Path, out: Path, **changes: object) -> Path:
    """The file with other facts in its header."""
    with safe_open(trained, "pt") as file:
        facts = json.loads(file.metadata()["encoder"]) | changes
    facts = {name: fact for name, fact in facts.items() if fact is not None}
    save_file(load_file(trained), out, metadata={"encoder": json.dumps(facts)})
    return out


def test_an_encoder_of_other_graph_codes_says_so(trained: Path, tmp_path: Path) -> None:
    other = changed(trained, tmp_path / "other.safetensors", atom_fields={"element": 3})
    with pytest.raises(PackError, match="made for other atom and bond codes than this version's; pre-train it again"):
        load_encoder(other)


@pytest.mark.parametrize(
    "facts", [{"atom_fields": None}, {"width": None}, {"width": 8}, {"width": "many"}, {"layers": 9}]
)
def test_an_encoder_whose_header_does_not_fit_is_one_line(trained: Path, tmp_path: Path, facts: dict) -> None:
    """None: the entry is missing."""
    other = changed(trained, tmp_path / "other.safetensors", **facts)
    with pytest.raises(PackError, match=r"other\.safetensors is not an encoder .*; pre-train it again") as caught:
        load_encoder(other)
    assert "\n" not in str(caught.value)


# --- the program


def test_the_command_writes_an_encoder_and_keeps_one_that_is_there(
    run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def pretrain_encoder(tables, out, settings, device, **options) -> None:
        calls.append((tables, settings.epochs, settings.batch_size, settings.seed, options["processes"]))
        out.touch()

    monkeypatch.setattr(pretrain, "pretrain_encoder", pretrain_encoder)
    out = tmp_path / "mine.safetensors"
    options = ["--epochs", "3", "--batch-size", "7", "--seed", "5", "--processes", "2", "--device", "cpu"]
    assert run("pretrain", table, table, "-o", out, *options)[0] == 0
    assert calls == [([table, table], 3, 7, 5, 2)]
    code, _, err = run("pretrain", table, "-o", out)
    assert code == 2
    assert "exists; choose another name or use --force" in err
    assert run("pretrain", table, "-o", out, "--force")[0] == 0
    assert len(calls) == 2
