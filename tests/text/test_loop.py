"""Training for text on a tiny random model: what it learns, that it resumes, and that padding has no part in it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from mora_lite.adapter.lowrank import TARGET_MODULES, AdapterConfig
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import GraphBatch
from mora_lite.errors import InputError, PackError
from mora_lite.lm.base import NF4Source
from mora_lite.lm.decoder import Decoder
from mora_lite.lm.generation import generate
from mora_lite.quant.formats import open_checkpoint
from mora_lite.text import loop
from mora_lite.text.loop import WARM_UP_STEPS, TextRun, TextTrainConfig
from mora_lite.text.model import TextModel, equal_size_rank
from mora_lite.text.pairs import TextPair
from mora_lite.text.sequences import Batches, Prompt, TextBatch, TokenizedPairs, load_tokenized_pairs, tokenize_pairs

CPU = torch.device("cpu")
SIZES = AdapterConfig(32, 2, 32, 1, adapted_layers=4, rank=8, alpha=16.0)
PAIRS = [
    ("CO", "C=O"),
    ("CCO", "CC=O"),
    ("c1ccccc1.Cl", "Clc1ccccc1"),
    ("CN", "C#N"),
    ("CC(C)O", "CC(C)=O"),
    ("O", "OO"),
]
TEMPLATE = "In: {}\nOut: "


@pytest.fixture(scope="module")
def base(base_path: Path) -> tuple[Any, Decoder]:
    """The tokenizer and the tiny Llama in NF4."""
    checkpoint = open_checkpoint(base_path)
    return checkpoint.tokenizer(), Decoder.from_checkpoint(NF4Source(checkpoint))


@pytest.fixture(scope="module")
def data(base: tuple[Any, Decoder]) -> TokenizedPairs:
    """Six reactions that train and one that is held out."""
    reactions = [TextPair(source, target, "train", "some") for source, target in PAIRS]
    reactions.append(TextPair("CCCO", "CCC=O", "test", "other"))
    return tokenize_pairs(reactions, base[0], {"template": TEMPLATE, "end": 0}, copies=3)


def one_graph() -> GraphBatch:
    return Featurizer().read_smiles(["CC(=O)O"]).batch()


@pytest.fixture
def make_run(base: tuple[Any, Decoder], data: TokenizedPairs, tmp_path: Path) -> Any:
    def make(
        kind: str = "mora", steps: int = 150, folder: str = "run", seed: int = 0, sizes: AdapterConfig = SIZES
    ) -> TextRun:
        torch.manual_seed(seed)
        model = TextModel(sizes, base[1], kind)
        prompt = Prompt.of_template(TEMPLATE, 0)
        batches = Batches(data, np.flatnonzero(data.part == 0), prompt.pieces(base[0]), 64 * 6, seed=0)
        path = tmp_path / folder
        return TextRun(model, batches, TextTrainConfig(steps=steps, peak_lr=5e-3), path, CPU)

    return make


@pytest.mark.parametrize("kind", ["mora", "static", "prompt"])
def test_the_loss_falls_and_the_learnt_answers_are_given(
    make_run: Any, base: tuple[Any, Decoder], data: TokenizedPairs, kind: str
) -> None:
    run = make_run(kind)
    told: list[float] = []
    first = run.model(run.batches.make(*next(run.batches.epoch(0)))).item()
    run.train(on_progress=lambda progress: told.append(progress.loss))
    assert run.step == 150
    model = run.load_ema_weights()
    last = model(run.batches.make(*next(run.batches.epoch(0)))).item()
    assert last < 0.1 * first
    rows = [0, 1, 2]
    ids = [[*run.batches.before, *data.question(data.first[i]), *run.batches.between] for i in rows]
    branch = model.branch(data.graphs.select(rows).batch(), len(rows))
    branch = replace(branch, a=branch.a.expand(3, -1, -1, -1))
    answers = generate(model.decoder, ids, branch=branch, stop_ids=[0], max_new_tokens=30)
    assert [base[0].decode(answer) for answer in answers] == ["C=O", "CC=O", "Clc1ccccc1"]


@pytest.mark.parametrize("modules", [*((module,) for module in TARGET_MODULES), TARGET_MODULES])
@pytest.mark.parametrize("kind", ["mora", "static"])
def test_the_loss_falls_at_every_module_and_in_chosen_layers(
    make_run: Any, kind: str, modules: tuple[str, ...]
) -> None:
    """From the base model's loss, exactly, as C is zero at the start."""
    sizes = replace(SIZES, target_modules=modules, layers=(0, 2), adapted_layers=2)
    run = make_run(kind, steps=30 if kind == "mora" else 60, sizes=sizes)
    batch = run.batches.make(*next(run.batches.epoch(0)))
    first = run.model(batch).item()
    hidden = run.model.decoder.logits(batch.ids).flatten(0, 1)[batch.label_positions]
    assert first == torch.nn.functional.cross_entropy(hidden, batch.labels).item()
    branch = run.model.branch(batch.graphs, len(batch.ids))
    assert (branch.target_modules, branch.layers) == (modules, (0, 2))
    run.train()
    assert run.load_ema_weights()(batch).item() < 0.7 * first


@pytest.mark.parametrize("modules", [*((module,) for module in TARGET_MODULES), TARGET_MODULES])
def test_each_module_starts_with_factors_of_its_own_width(base: tuple[Any, Decoder], modules: tuple[str, ...]) -> None:
    """Entries of variance 1 / (3 D_in), as a LoRA A has them; made out of a graph as well as learned."""
    wide = replace(base[1].sizes, head_dim=64)  # heads that are together four times as wide as the model
    decoder = cast(Decoder, SimpleNamespace(sizes=wide, embedding=base[1].embedding))
    sizes = replace(SIZES, target_modules=modules, hypernet_width=64)
    for kind in ("mora", "static"):
        torch.manual_seed(0)
        a = TextModel(sizes, decoder, kind).branch(one_graph(), 1).a[0].detach()
        at = 0
        for module in modules:
            width = wide.module_widths()[module][0]
            part = a[:, at : at + width]
            assert float(part.std() * (3 * width) ** 0.5) == pytest.approx(1, abs=0.25), (kind, module)
            at += width
        assert at == a.shape[1]


def test_a_run_that_was_stopped_ends_with_the_same_weights(make_run: Any) -> None:
    straight = make_run(steps=9, folder="straight")
    straight.train()
    stopped = make_run(steps=9, folder="parts")
    step = stopped.train_step

    def interrupted(batch: TextBatch) -> torch.Tensor:
        if stopped.step == 3:
            signal.raise_signal(signal.SIGINT)
        return cast(torch.Tensor, step(batch))

    stopped.train_step = interrupted
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = make_run(steps=9, folder="parts", seed=1)  # other first weights: those of the checkpoint count
    assert resumed.step == 4
    resumed.train()
    for (name, one), other in zip(
        straight.load_ema_weights().trained().items(), resumed.load_ema_weights().trained().values(), strict=True
    ):
        assert torch.equal(one, other), name


def test_a_run_that_was_stopped_before_its_first_step_goes_on(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as stopped:
        stopped.setattr(loop, "deferred_signals", lambda: nullcontext([signal.SIGINT]))
        make_run(steps=2).train()
    run = make_run(steps=2)
    assert run.step == 0
    run.train()
    assert run.step == 2


def test_what_the_first_step_compiles_takes_nothing_of_the_budget(make_run: Any) -> None:
    run = make_run()
    run.settings = replace(run.settings, steps=0, seconds=0.5)
    step = run.train_step

    def slow(batch: TextBatch) -> torch.Tensor:
        time.sleep(0 if run.step else 1.5)
        return cast(torch.Tensor, step(batch))

    run.train_step = slow
    run.train()
    assert run.step > 1
    assert 0.5 <= run.state.seconds < 1.5


def test_the_folder_of_another_run_is_refused(make_run: Any) -> None:
    make_run(steps=2).train()
    with pytest.raises(InputError, match="other settings, data or adapters"):
        make_run(steps=3)


@pytest.mark.parametrize("name", ["checkpoint", "short"])
def test_a_damaged_checkpoint_is_one_line(make_run: Any, tmp_path: Path, name: str) -> None:
    make_run(steps=2).train()
    for path in (tmp_path / "run").iterdir():
        path.write_bytes(path.read_bytes()[:-8]) if path.stem == name else path.unlink()
    with pytest.raises(InputError, match=rf"{name}\.safetensors is damaged \(.*\); remove it to start again"):
        make_run(steps=2)


def test_layers_beyond_the_base_are_refused(base: tuple[Any, Decoder]) -> None:
    for change in ({"adapted_layers": 5}, {"layers": (1, 2, 3, 4)}):
        with pytest.raises(PackError, match="expected 1 to 4, those of the base, numbered from 0"):
            TextModel(replace(SIZES, **change), base[1])


@pytest.mark.parametrize("kind", ["mora", "prompt"])
def test_padding_has_no_part_in_the_loss(make_run: Any, kind: str) -> None:
    run = make_run(kind)
    torch.nn.init.normal_(run.model.c, std=0.3)
    width, rows, copies = next(run.batches.epoch(0))
    batch = run.batches.make(width, rows, copies)
    assert width > run.batches.lengths[copies].max()  # there is padding in every row
    assert len(batch.label_positions) > int((batch.labels >= 0).sum())  # and among the answer's positions
    alone = [run.batches.make(width, rows[i : i + 1], copies[i : i + 1]) for i in range(len(rows))]
    sums = [run.model(one) * (one.labels >= 0).sum() for one in alone]
    expected = torch.stack(sums).sum() / (batch.labels >= 0).sum()
    torch.testing.assert_close(run.model(batch), expected)


def test_each_epoch_has_every_training_question_once_and_no_other(data: TokenizedPairs) -> None:
    batches = Batches(data, np.flatnonzero(data.part == 0), ([1], [2], 0), 64 * 3, seed=3)
    seen = [(rows, copies) for number in range(20) for _, rows, copies in batches.epoch(number)]
    for rows, copies in seen:
        assert (data.part[rows] == 0).all()
        assert ((data.first[rows] <= copies) & (copies < data.first[rows + 1])).all()
    assert len({copy for _, copies in seen for copy in copies.tolist()}) == data.first[6]  # all orders come up


def test_sequences_come_back_from_disk(data: TokenizedPairs, tmp_path: Path) -> None:
    data.save(tmp_path / "data.npz")
    with np.load(tmp_path / "data.npz") as file:  # the names that files of earlier runs have
        graphs = {"graph_atoms", "graph_bonds", "graph_ends", "graph_atom_ptr", "graph_bond_ptr"}
        assert {name for name in file.files if name.startswith("graph")} == graphs
    held = load_tokenized_pairs(tmp_path / "data.npz")
    assert held.metadata == data.metadata
    assert held.answers == [""] * 6 + ["CCC=O"]
    for name in ("source", "target", "source_ptr", "target_ptr", "first", "part", "origin"):
        np.testing.assert_array_equal(getattr(held, name), getattr(data, name))
    np.testing.assert_array_equal(held.graphs.atoms, data.graphs.atoms)
    (tmp_path / "data.npz").write_bytes((tmp_path / "data.npz").read_bytes()[:500])
    with pytest.raises(InputError, match="prepare it again"):
        load_tokenized_pairs(tmp_path / "data.npz")


def test_more_tables_than_a_byte_counts_are_told_apart(base: tuple[Any, Decoder]) -> None:
    pairs = [TextPair("C", "CO", "train", f"table {number:03}") for number in range(300)]
    data = tokenize_pairs(pairs, base[0], {}, copies=1)
    assert [data.metadata["origins"][origin] for origin in data.origin] == [pair.origin for pair in pairs]


def test_the_static_kind_of_equal_size_trains_as_many_numbers(base: tuple[Any, Decoder]) -> None:
    for modules in (("ffn",), TARGET_MODULES):
        sizes = AdapterConfig(32, 2, 64, 1, adapted_layers=4, rank=64, alpha=16.0, target_modules=modules)
        mora = sum(p.numel() for p in TextModel(sizes, base[1]).trained().values())
        large = replace(sizes, rank=equal_size_rank(sizes, base[1].sizes))
        static = sum(p.numel() for p in TextModel(large, base[1], "static").trained().values())
        assert abs(static / mora - 1) < 4 * 2 * 4 * 64 / mora + 0.02


class Recording:
    """Stands in for CUDA graphs on a CPU: what is called while recording is run at each replay, on the same tensors."""

    def __init__(self, run: TextRun, monkeypatch: pytest.MonkeyPatch, *, fails: bool = False):
        self.run, self.recording, self.replays = run, False, 0
        self.plain = run.train_step._run
        self.calls: dict[int, tuple[TextBatch, torch.Tensor]] = {}
        self.current = 0
        monkeypatch.setattr(run.train_step, "_run", self.call)
        monkeypatch.setattr(run.train_step, "can_capture", True)
        stream = SimpleNamespace(wait_stream=lambda other: None)
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        monkeypatch.setattr(torch.cuda, "graph", self.graph)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=None))
        self.fails = fails

    @contextmanager
    def graph(self, graph: Any, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.recording, self.current = True, self.current + 1
        graph.replay = partial(self.replay, self.current)
        yield
        self.recording = False

    def call(self, batch: TextBatch) -> torch.Tensor:
        if not self.recording:
            return self.plain(batch)
        self.calls[self.current] = batch, torch.zeros(())
        return self.calls[self.current][1]

    def replay(self, number: int) -> None:
        batch, loss = self.calls[number]
        loss.copy_(self.plain(batch))
        self.replays += 1


@pytest.mark.parametrize("fails", [False, True])
def test_replayed_steps_train_as_plain_ones(make_run: Any, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """And where a step cannot be captured, training goes on without."""
    plain = make_run(steps=12, folder="plain")
    plain.train()
    run = make_run(steps=12, folder="captured")
    recording = Recording(run, monkeypatch, fails=fails)
    run.train()
    assert recording.replays == (0 if fails else 12 - WARM_UP_STEPS)
    for (name, one), other in zip(
        plain.load_ema_weights().trained().items(), run.load_ema_weights().trained().values(), strict=True
    ):
        assert torch.equal(one, other), name


def test_directions_are_drawn_by_their_shares(base: tuple[Any, Decoder]) -> None:
    """Five of a direction with few questions come again before its others are new."""
    pairs = [TextPair("C" * n, "C", "train", "forward/some") for n in range(1, 81)]
    pairs += [TextPair("N" * n, "C", "train", "retro/some") for n in range(1, 9)]
    data = tokenize_pairs(pairs, base[0], {}, copies=1)
    pieces = Prompt.of_template(TEMPLATE, 0).pieces(base[0])
    batches = Batches(data, np.arange(88), pieces, 256, 0, {"forward": 0.25, "retro": 0.75})
    drawn = np.concatenate([rows for _, rows, _ in batches.epoch(0)])
    assert np.sum(drawn < 80) / len(drawn) == pytest.approx(0.25, abs=0.05)
    counts = np.bincount(drawn, minlength=88)
    assert counts[:80].max() == 1
    assert set(counts[80:]) <= {7, 8, 9}  # 66 draws of 8
    again = np.concatenate([rows for _, rows, _ in batches.epoch(0)])
    assert np.array_equal(drawn, again)
    with pytest.raises(InputError, match="got none for reagents"):
        Batches(data, np.arange(88), pieces, 256, 0, {"forward": 0.5, "reagents": 0.5})
