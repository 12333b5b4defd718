"""What many tests stand on: a tiny random Llama on disk, a table of molecules, and a pack made of the two.

Everything is made once, in seconds, without a network. Tests that damage files copy them first.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

# `python -m pytest` puts the checkout first, where mora_lite lacks the folders that are installed as parts of it.
ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [path for path in sys.path if Path(path).resolve() != ROOT]
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton: its kernels run without a GPU then
if "OMP_NUM_THREADS" not in os.environ:
    # Two threads of a tiny model wait for each other longer than they compute, on a busy machine forty times as long.
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
    torch.set_num_threads(1)
# pytest-xdist sets it. Messages are as long as they are, unless a test says otherwise.
os.environ.pop("COLUMNS", None)
os.environ["TORCH_COMPILE_DISABLE"] = "1"  # compiled functions run as they are written; test_layer_ops compiles

MOLECULES = r"""
    C N O [He] CC CO C#C C#N C=O CCO CCN CCC CC=O C1CC1 C1CO1 COC CC#N NC=O CC(C)=O CC(=O)O c1ccccc1 c1ccncc1
    c1ccoc1 c1cc[nH]c1 c1ccsc1 Cc1ccccc1 Oc1ccccc1 Nc1ccccc1 Fc1ccccc1 Clc1ccccc1 C1CCCCC1 C1CCNCC1 C1COCCO1
    C1CCC2CCCCC2C1 c1ccc2ccccc2c1 CC(C)(C)O CCOC(C)=O CC(N)C(=O)O C[C@H](O)CC C[C@@H](O)CC C/C=C/C C/C=C\C
    CS(C)=O CS(C)(=O)=O C[N+](C)(C)C [Na+].[Cl-] CC(=O)[O-].[Na+] O=[N+]([O-])c1ccccc1 *CC* [NH4+] FC(F)(F)C
    ClC(Cl)Cl BrCCBr CI OB(O)c1ccccc1 C[Si](C)(C)C CP(C)C O=C1CCCN1 CN1CCC1 CCCCCCCCCC
"""


def truth(smiles: str) -> tuple[float, float]:
    """Two made-up measurements that a graph determines: `size` and `polarity`."""
    from rdkit import Chem

    mol = Chem.MolFromSmiles(smiles)
    size = sum(1 + atom.GetTotalNumHs() / 4 for atom in mol.GetAtoms())
    return size, sum(atom.GetAtomicNum() in (7, 8) for atom in mol.GetAtoms()) / mol.GetNumAtoms()


@pytest.fixture(scope="session")
def molecules() -> list[str]:
    """60 SMILES: one atom, rings, charges, salts, wildcards, stereochemistry, many elements."""
    smiles = MOLECULES.split()
    assert len(set(smiles)) == 60
    return smiles


@pytest.fixture(scope="session")
def table_path(molecules: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The molecules as a CSV with columns id, smiles, size and polarity; three cells of polarity are blank."""
    path = tmp_path_factory.mktemp("table") / "molecules.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "smiles", "size", "polarity"])
        for i, smiles in enumerate(molecules):
            size, polarity = truth(smiles)
            writer.writerow([i, smiles, size, "" if i % 20 == 7 else polarity])
    return path


@pytest.fixture(scope="session")
def dataset(table_path: Path) -> Any:
    """The table as graphs and targets."""
    from mora_lite.training.dataset import read_dataset

    return read_dataset(table_path, "smiles", ["size", "polarity"])


@pytest.fixture(scope="session")
def base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 4 layers, width 64, with a tokenizer whose tokens are bytes, as transformers saves them."""
    for package in ("transformers", "tokenizers", "safetensors", "gguf", "platformdirs"):
        pytest.importorskip(package)  # `make gpu-test` runs where the program's dependencies may be missing
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("base") / "tiny-llama"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({"<end>": 0} | {c: i for i, c in enumerate(alphabet, 1)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(path)
    config = LlamaConfig(
        vocab_size=len(alphabet) + 1,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    """Questions of different lengths."""
    return ["How large is it? Answer:", "What is the polarity of the molecule? Answer:", "Mass:"]


@pytest.fixture(scope="session")
def compiled_base(base_path: Path, prompts: list[str]) -> Any:
    """The prompts compiled on the random Llama in NF4, for adapters in its 3 uppermost layers."""
    from mora_lite.lm.base import compile_base

    return compile_base(base_path, prompts, 3)


@pytest.fixture(scope="session")
def adapter_sizes() -> Any:
    """Small, but of two encoder layers and two hypernetwork blocks."""
    from mora_lite.adapter.lowrank import AdapterConfig

    return AdapterConfig(
        encoder_width=32,
        encoder_layers=2,
        hypernet_width=32,
        hypernet_blocks=2,
        adapted_layers=3,
        rank=4,
        alpha=8.0,
    )


@pytest.fixture
def make_scorer(compiled_base: Any, adapter_sizes: Any) -> Any:
    """A function that makes a random scorer; `c`: deviation of the entries of C, 0 as before training.

    direct: with a read-out past the language model, its weights random too.
    """
    from dataclasses import replace

    import torch

    from mora_lite.scoring.scorer import Scorer

    def make(c: float = 0.0, seed: int = 0, direct: bool = False) -> Scorer:
        torch.manual_seed(seed)
        upper = compiled_base.upper(adapter_sizes.adapted_layers)
        sizes = replace(adapter_sizes, direct_width=2 * adapter_sizes.encoder_width if direct else 0)
        scorer = Scorer(sizes, upper, compiled_base.prompts).eval()
        torch.nn.init.normal_(scorer.c, std=c) if c else None
        torch.nn.init.normal_(scorer.direct.weight) if scorer.direct is not None else None
        return scorer

    return make


@pytest.fixture(scope="session")
def pack_path(
    compiled_base: Any,
    adapter_sizes: Any,
    prompts: list[str],
    dataset: Any,
    base_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A pack of three tasks with random weights and a C large enough that molecules differ. Not to be changed."""
    import torch

    from mora_lite.adapter.encoder import EncoderBaseline, GraphEncoder
    from mora_lite.packs.pack import save_pack
    from mora_lite.scoring.scorer import Scorer
    from mora_lite.scoring.tasks import Task

    torch.manual_seed(0)
    scorer = Scorer(adapter_sizes, compiled_base.upper(adapter_sizes.adapted_layers), compiled_base.prompts)
    torch.nn.init.normal_(scorer.c)
    torch.nn.init.normal_(scorer.hypernet.head.weight, std=0.05)
    torch.nn.init.normal_(scorer.readout, std=0.1)
    facts = zip(("size", "polarity", "mass"), ("", "e", "u"), (5.0, 0.2, 100.0), (2.0, 0.1, 30.0), strict=True)
    tasks = tuple(
        Task(name, unit, prompt, mean, deviation)
        for (name, unit, mean, deviation), prompt in zip(facts, prompts, strict=True)
    )
    provenance = {
        "data": {"file": "molecules.csv", "rows": dataset.n_rows, "smiles_sha256": dataset.fingerprint},
        "split": {"seed": 0, "train": 40, "valid": 10, "kind": "random"},
        "recipe": {
            "smiles": "smiles",
            "tasks": [
                {"name": "size", "column": "size"},
                {"name": "polarity", "column": "polarity"},
                {"name": "mass", "column": "size"},
            ],
        },
    }
    baseline = EncoderBaseline(GraphEncoder(adapter_sizes.encoder_width, adapter_sizes.encoder_layers), 3)
    path = tmp_path_factory.mktemp("packs") / "tiny"
    base = {"name": str(base_path), "sha256": compiled_base.sha256}
    save_pack(path, "tiny", scorer, tasks, compiled_base.weights, base, provenance, baseline)
    return path


@pytest.fixture(scope="session")
def calibrated_pack_path(pack_path: Path, dataset: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pack with error bars and domain, from the parts of its own split. Not to be changed."""
    import shutil

    path = Path(shutil.copytree(pack_path, tmp_path_factory.mktemp("packs") / "calibrated"))
    calibrate(path, dataset)
    return path


@pytest.fixture(scope="session")
def first_pack_path(pack_path: Path, table_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same calibrated pack as one from before version 2 of the graph codes. Not to be changed."""
    import shutil

    from mora_lite.chem.featurizer import Featurizer
    from mora_lite.packs.pack import open_pack, write_manifest
    from mora_lite.training.dataset import read_dataset

    path = Path(shutil.copytree(pack_path, tmp_path_factory.mktemp("packs") / "first"))
    manifest = open_pack(path).manifest
    del manifest["featurizer"]
    write_manifest(path, manifest)
    calibrate(path, read_dataset(table_path, "smiles", ["size", "polarity"], featurizer=Featurizer(1, "none")))
    return path


def calibrate(path: Path, dataset: Any) -> None:
    """Add error bars and domain to the pack of three tasks, whose task `mass` has the column `size`."""
    from dataclasses import replace

    from mora_lite.packs.pack import open_pack
    from mora_lite.training.calibrate import calibrate_pack
    from mora_lite.training.splits import Split

    data = replace(dataset, targets=dataset.targets[:, [0, 1, 0]])
    rows = Split(0, 40, 10).rows(60)
    train, valid = data.subset(rows["train"]), data.subset(rows["valid"])
    calibrate_pack(open_pack(path), train, valid, device="cpu", dtype="float32")


@pytest.fixture
def model(pack_path: Path) -> Any:
    """The pack, loaded for exact work."""
    from mora_lite import load

    return load(pack_path, device="cpu", dtype="float32")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The per-user cache, empty and apart from the real one."""
    path = tmp_path / "cache"
    path.mkdir()
    monkeypatch.setenv("MORA_LITE_CACHE", str(path))
    return path


@pytest.fixture(scope="session")
def text_pack_path(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text pack that has learnt three reactions by heart. Not to be changed."""
    from reaction_pack import make_reaction_pack

    return make_reaction_pack(tmp_path_factory.mktemp("reacting"), base_path)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `mora-lite` in this process; returns exit code, stdout, stderr. A busy machine adds no line of progress."""
    from mora_lite.cli import progress
    from mora_lite.cli.app import main

    monkeypatch.setattr(progress, "FIRST_SECONDS", 600)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def small_screens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Screening with 4 rows in a window and 3 windows in a shard, in this process instead of spawned ones."""
    from pool_here import PoolHere

    from mora_lite.scoring import parallel
    from mora_lite.screening import campaign

    for name in ("CPU_WINDOW_ROWS", "WINDOW_ROWS"):
        monkeypatch.setattr(parallel, name, 4)
    monkeypatch.setattr(campaign, "SHARD_ROWS", 12)
    monkeypatch.setattr(parallel, "WorkerPool", PoolHere)


@pytest.fixture(scope="session")
def exported_path(calibrated_pack_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The calibrated pack, exported to ONNX. Not to be changed."""
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    from mora_lite.export.writer import export_pack
    from mora_lite.packs.pack import open_pack

    path = tmp_path_factory.mktemp("exports") / "tiny-onnx"
    export_pack(open_pack(calibrated_pack_path), path, full=True)
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty hub that huggingface_hub talks to, with an empty cache."""
    from fake_hub import running
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_OFFLINE", "MORA_LITE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    with running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub
