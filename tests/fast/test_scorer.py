"""The fast scorer on a CPU gives the plain scorer's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mora_lite import load
from mora_lite.adapter.lowrank import AdapterConfig
from mora_lite.chem.featurizer import Featurizer
from mora_lite.fast import linear
from mora_lite.fast.batch import SortedBatch
from mora_lite.fast.linear import PackedLinear, has_packed_products, relu_, segment_sum
from mora_lite.fast.scorer import FastEncoder, FastHypernet, FastScorer
from mora_lite.fast.upper import supports
from mora_lite.lm.decoder import Decoder
from mora_lite.lm.prefix import CompiledPrompts, UpperLayers, compile_prompt
from mora_lite.scoring.scorer import PlainScorer, Scorer

SCORE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # of the scores' deviation, in the mean; float32: the largest


@pytest.fixture(scope="module")
def graphs(dataset):
    """One atom without bonds, salts, rings: molecules of 1 to 12 atoms."""
    return dataset.graphs


@torch.no_grad()
@pytest.mark.parametrize("direct", [False, True])
def test_scores_equal_the_plain_scorers(make_scorer, graphs, direct: bool) -> None:
    scorer = make_scorer(c=1.0, direct=direct)
    plain = scorer(graphs.batch())
    assert plain.std(0).min() > 0.1, "the molecules must differ"
    exact = (FastScorer(scorer, torch.float32)(graphs) - plain).abs().max() / plain.std()
    assert exact <= SCORE[torch.float32]
    near = (FastScorer(scorer, torch.bfloat16)(graphs) - plain).abs().mean() / plain.std()
    assert near <= SCORE[torch.bfloat16]


@torch.no_grad()
@pytest.mark.parametrize("adapted_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["llama", "llama_yarn", "mistral_window"])
def test_any_number_of_adapted_layers_and_any_positions(graphs, kind: str, adapted_layers: int) -> None:
    scorer = make_llama_scorer(kind, adapted_layers)
    plain = scorer(graphs.batch())
    torch.testing.assert_close(FastScorer(scorer, torch.float32)(graphs), plain, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_layers_that_it_does_not_cover_are_left_to_the_plain_scorer() -> None:
    assert supports(make_llama_scorer("llama", 2).upper)
    assert not supports(make_llama_scorer("qwen2", 2).upper), "biases"
    assert not supports(make_llama_scorer("qwen3", 2).upper), "norms of queries and keys"


def test_four_bits_at_each_call_is_left_to_the_plain_scorer(pack_path) -> None:
    assert isinstance(load(pack_path, device="cpu").engine, FastScorer)
    assert isinstance(load(pack_path, device="cpu", memory_budget=0).engine, PlainScorer)
    exact = load(pack_path, device="cpu", dtype="float32")
    assert isinstance(exact.engine, PlainScorer), "exact work takes the plain scorer"


def test_a_model_answers_alike_with_both_engines(pack_path, molecules) -> None:
    smiles = [*molecules, "not a molecule", ""]
    fast, plain = load(pack_path, device="cpu"), load(pack_path, device="cpu", dtype="float32")
    a, b = fast.score(smiles), plain.score(smiles)
    assert (a.status, a.error) == (b.status, b.error)
    scale = np.nanstd(b.values, axis=0)
    assert np.nanmean(np.abs(a.values - b.values) / scale) <= SCORE[torch.bfloat16]


def test_a_row_is_the_same_whatever_the_others_are(pack_path, molecules) -> None:
    """Bit for bit by oneDNN's products in bfloat16; in float32 as near as docs/method.md promises."""
    model = load(pack_path, device="cpu")
    std = np.array([task.deviation for task in model.tasks])
    tolerance = 0 if model.dtype == torch.bfloat16 and has_packed_products() else 2e-5

    def assert_same(values: np.ndarray, expected: np.ndarray) -> None:
        assert (np.abs(values - expected) / std).max() <= tolerance

    smiles = molecules * 3
    whole = model.score(smiles).values
    for batch_size in (1, 7, 1000):
        assert_same(model.score(smiles, batch_size).values, whole)
    order = np.random.default_rng(0).permutation(len(smiles))[:100]
    assert_same(model.score([smiles[i] for i in order]).values, whole[order])
    assert_same(model.score(smiles[20:21]).values, whole[20:21])


@torch.no_grad()
def test_encoder_and_hypernetwork_equal_theirs(make_scorer, graphs) -> None:
    scorer = make_scorer(c=1.0)
    tokens, batch = scorer.encode(graphs.batch()), SortedBatch.of(graphs)
    atoms, molecules = FastEncoder(scorer.encoder, torch.float32)(batch)
    n_atoms = len(graphs.atoms)
    torch.testing.assert_close(atoms[:n_atoms], tokens.values[:n_atoms], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(molecules, tokens.molecules, rtol=1e-4, atol=1e-5)
    states = FastHypernet(scorer.hypernet, torch.float32)(atoms, molecules, batch)
    a = scorer.hypernet.head(states).unflatten(-1, (scorer.hypernet.model_width, scorer.hypernet.rank))
    torch.testing.assert_close(a, scorer.hypernet(tokens), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_order_of_molecules_does_not_matter(make_scorer, graphs) -> None:
    fast = FastScorer(make_scorer(c=1.0), torch.float32)
    order = np.random.default_rng(0).permutation(len(graphs))
    torch.testing.assert_close(fast(graphs.select(order)), fast(graphs)[order], rtol=1e-4, atol=1e-4)


def test_bonds_are_sorted_by_the_atom_they_lead_to() -> None:
    graphs = Featurizer().read_smiles(("C", "CCO", "C1CC1"))
    batch, plain = SortedBatch.of(graphs), graphs.batch()
    runs = torch.repeat_interleave(torch.arange(len(batch.atoms)), batch.bond_ptr.diff())
    found = {(int(s), int(t)) for s, t in zip(batch.messages[:, 0], runs, strict=True)}
    assert found == {(int(s), int(t)) for s, t in zip(plain.source, plain.target, strict=True)}
    assert len(batch.messages) == len(plain.source)
    assert len(batch.atoms) % 128 == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("act", ["none", "relu", "gelu", "swish"])
def test_products(dtype: torch.dtype, act: str) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 5, 32), torch.randn(48, 32), torch.randn(48)
    function = {
        "none": lambda y: y,
        "relu": torch.relu,
        "gelu": torch.nn.functional.gelu,
        "swish": torch.nn.functional.silu,
    }
    expected = function[act](x @ weight.T + bias)
    y = PackedLinear(weight, bias, dtype, act)(x.to(dtype))
    assert (y.shape, y.dtype) == (expected.shape, dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert (y.float() - expected).abs().max() / expected.abs().max() <= tolerance


def test_without_onednn_the_plain_operators_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mora_lite.fast.linear.has_packed_products", lambda: False)
    product = PackedLinear(torch.eye(8), None, torch.bfloat16, "relu")
    assert not product.packed
    assert torch.equal(product(torch.tensor([[-1.0, 2.0] * 4]).bfloat16()).float(), torch.tensor([[0.0, 2.0] * 4]))
    assert isinstance(has_packed_products(), bool)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_over_runs_and_relu(dtype: torch.dtype) -> None:
    rows = torch.tensor([[1.0, -1.0], [2.0, -2.0], [4.0, 0.5], [9.0, 9.0]]).to(dtype)
    sums = segment_sum(rows, torch.tensor([0, 2, 2, 3]))
    assert sums.tolist() == [[3.0, -3.0], [0.0, 0.0], [4.0, 0.5]]
    assert relu_(rows.clone()).tolist() == rows.clamp_min(0).tolist()


def test_numbers_that_are_kept_are_long_enough_whatever_other_threads_keep(monkeypatch) -> None:
    class Kept:
        """As another thread that keeps fewer numbers, after their length was asked for."""

        def __len__(self) -> int:
            monkeypatch.setattr(linear, "_arange_like", torch.arange(1))
            return 100

        def __getitem__(self, key: slice) -> torch.Tensor:
            return torch.arange(100)[key]

    monkeypatch.setattr(linear, "_arange_like", Kept())
    assert linear.arange_like(5, torch.arange(0)).tolist() == [0, 1, 2, 3, 4]


def make_llama_scorer(kind: str, adapted_layers: int) -> Scorer:
    """A random scorer over a random decoder of 4 layers, with prompts longer and shorter than its window."""
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 16}
    changed: dict[str, Any] = {"mistral_window": {"sliding_window": 4}, "llama_yarn": {"rope_parameters": yarn}}.get(
        kind, {}
    )
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind.split("_", maxsplit=1)[0],
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=16,
        initializer_range=0.2,
        **changed,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    source = type("Source", (), {})()
    source.config = config.to_dict()
    tensors = dict(model.state_dict())
    source.names, source.load = tensors.keys, tensors.__getitem__
    decoder = Decoder.from_checkpoint(source)
    prompts = CompiledPrompts.stack([compile_prompt(decoder, list(range(1, n)), adapted_layers) for n in (4, 9)])
    sizes = AdapterConfig(16, 1, 16, 1, adapted_layers, 3, 6.0)
    scorer = Scorer(sizes, UpperLayers(decoder.sizes, adapted_layers, tensors), prompts).eval()
    torch.nn.init.normal_(scorer.c)
    return scorer
