"""The scorer is the base model plus a branch: nothing at C = 0, and exactly the full model's answer otherwise."""

from __future__ import annotations

import pytest
import torch

from mora_lite.adapter.encoder import EncoderBaseline, GraphEncoder
from mora_lite.adapter.lowrank import AdapterConfig, Branch
from mora_lite.errors import CheckpointError, PackError
from mora_lite.lm.base import NF4Source, compile_base
from mora_lite.lm.decoder import Decoder
from mora_lite.lm.prefix import prompt_ids
from mora_lite.quant.formats import open_checkpoint
from mora_lite.quant.nf4 import NF4Tensor

RELATIVE = 1e-4  # float32


@pytest.fixture(scope="module")
def full_decoder(base_path) -> Decoder:
    """All layers of the base model, its matrices in NF4 as the pack's are."""
    return Decoder.from_checkpoint(NF4Source(open_checkpoint(base_path)))


@pytest.fixture(scope="module")
def batch(dataset):
    return dataset.graphs.select(range(0, 60, 5)).batch()


@torch.no_grad()
def test_without_training_every_molecule_gets_the_base_models_answer(
    make_scorer, batch, full_decoder, compiled_base
) -> None:
    scorer = make_scorer(c=0.0)
    scores = scorer(batch)
    assert torch.equal(scores, scores[:1].expand_as(scores))
    base = torch.stack([full_decoder.hidden(torch.tensor([ids]))[0, -1] for ids in compiled_base.ids])
    torch.testing.assert_close(scores[0], scorer.read_out(base, None), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("direct", [False, True])
def test_the_compiled_pack_equals_the_full_model_on_the_full_prompt(
    make_scorer, batch, full_decoder, compiled_base, direct: bool
) -> None:
    """Upper layers in NF4, prompts compiled once, against the whole decoder over the whole prompt."""
    assert any(isinstance(weight, NF4Tensor) for weight in compiled_base.weights.values())
    scorer = make_scorer(c=1.0, direct=direct)
    tokens = scorer.encode(batch)
    a = scorer.hypernet(tokens)
    compiled = scorer.upper.score(scorer.prompts, a, scorer.c, scorer.scale)
    branch = Branch(a, scorer.c, scorer.scale, "last")
    full = torch.stack(
        [
            full_decoder.hidden(torch.tensor([ids]).expand(len(a), -1), branch=branch)[:, -1]
            for ids in compiled_base.ids
        ],
        dim=1,
    )
    assert ((compiled - full).norm(dim=-1) / full.norm(dim=-1)).max() <= RELATIVE
    torch.testing.assert_close(scorer(batch), scorer.read_out(full, tokens.molecules), rtol=RELATIVE, atol=RELATIVE)
    spread = full.std(0).norm() / full.norm(dim=-1).mean()
    assert spread > 100 * RELATIVE, "the molecules must differ by far more than the tolerance"


@torch.no_grad()
def test_an_unquantised_base_gives_other_numbers(base_path, prompts, compiled_base) -> None:
    plain = compile_base(base_path, prompts, 3, four_bit=False)
    assert not any(isinstance(weight, NF4Tensor) for weight in plain.weights.values())
    assert (plain.prompts.residual - compiled_base.prompts.residual).abs().max() > 1e-3
    assert plain.sha256 == compiled_base.sha256


@torch.no_grad()
@pytest.mark.parametrize("direct", [False, True])
def test_selected_prompts_keep_their_scores(make_scorer, batch, direct: bool) -> None:
    scorer = make_scorer(c=1.0, direct=direct)
    everything = scorer(batch)
    scorer.select([2, 0])
    torch.testing.assert_close(scorer(batch), everything[:, [2, 0]], rtol=1e-6, atol=1e-6)


@pytest.fixture
def baseline(adapter_sizes) -> EncoderBaseline:
    """An encoder alone, for the three prompts."""
    torch.manual_seed(5)
    encoder = GraphEncoder(adapter_sizes.encoder_width, adapter_sizes.encoder_layers)
    return EncoderBaseline(encoder, 3).eval()


@torch.no_grad()
def test_training_starts_at_the_mean_with_the_given_encoder(make_scorer, baseline, batch) -> None:
    scorer = make_scorer()
    scorer.start_from(baseline)
    torch.testing.assert_close(scorer(batch), torch.zeros(batch.n_graphs, 3), rtol=0, atol=1e-5)
    assert torch.equal(scorer.encoder.virtual_start, baseline.encoder.virtual_start)
    assert torch.equal(scorer.encoder.atom_codes.weight, baseline.encoder.atom_codes.weight)


@torch.no_grad()
def test_with_a_direct_readout_it_starts_from_the_answers_of_the_encoder_alone(make_scorer, baseline, batch) -> None:
    scorer = make_scorer(direct=True)
    scorer.start_from(baseline)
    expected = baseline(batch)
    assert expected.std(0).min() > 1e-3, "molecules differ"
    torch.testing.assert_close(scorer(batch), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_direct_readout_adds_to_the_language_models_answer(make_scorer, batch) -> None:
    both, plain = make_scorer(c=1.0, direct=True), make_scorer(c=1.0)
    plain.load_state_dict(both.state_dict(), strict=False)
    alone = both.direct(both.encode(batch).molecules)
    assert alone.abs().max() > 0.1
    torch.testing.assert_close(both(batch), plain(batch) + alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direct", [False, True])
def test_gradients_reach_all_that_is_trained_and_nothing_else(make_scorer, batch, direct: bool) -> None:
    scorer = make_scorer(c=1.0, direct=direct)
    scorer(batch).square().sum().backward()
    trained = scorer.trained()
    for name, parameter in scorer.named_parameters():
        assert parameter.requires_grad == (name in trained) == (not name.startswith("upper.")), name
        if name in trained and ("virtual_mlp" not in name or direct):
            assert parameter.grad is not None, name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rank": 0}, "rank: got 0, expected a finite number above 0"),
        ({"alpha": float("inf")}, "alpha: got inf, expected a finite number above 0"),
        ({"alpha": -1.0}, "alpha: got -1.0"),
        ({"direct_width": -1}, "direct_width: got -1, expected 0 or more"),
        ({"direct_width": 100}, "direct_width: got 100, expected 0 or 512, twice encoder_width"),
        ({"hypernet_width": 36}, "hypernet_width: got 36, expected a multiple of 8"),
    ],
)
def test_impossible_sizes_are_refused(change: dict, words: str) -> None:
    with pytest.raises(PackError, match=words):
        AdapterConfig(**change)


@pytest.mark.parametrize("layers", [0, 5])
def test_more_adapted_layers_than_the_base_has_are_refused(base_path, layers: int) -> None:
    with pytest.raises(CheckpointError, match=f"adapted layers: got {layers}, expected 1 to 4"):
        compile_base(base_path, ["Mass:"], layers)


def test_a_prompt_without_tokens_is_refused(base_path) -> None:
    with pytest.raises(CheckpointError, match="'' has no tokens"):
        prompt_ids(open_checkpoint(base_path).tokenizer(), ["Mass:", ""])


def test_prompts_are_tokenised_as_plain_text(base_path) -> None:
    tokenizer = open_checkpoint(base_path).tokenizer()
    (ids,) = prompt_ids(tokenizer, ["Mass:"])
    assert tokenizer.decode(ids) == "Mass:"
