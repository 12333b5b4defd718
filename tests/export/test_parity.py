"""The gate lets no wrong model through: exports broken in the ways that exports break are caught, each by its fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mora_lite.chem.graph import ATOM_FIELDS, N_BOND_CODES
from mora_lite.errors import ExportError
from mora_lite.packs.pack import join_nf4, open_pack
from mora_lite.quant.nf4 import NF4Tensor

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mora_lite.export import encoder_onnx, hypernet_onnx, parity, upper_onnx, writer
from mora_lite.export.graph_builder import GraphBuilder
from mora_lite.export.parity import rank_correlation
from mora_lite.export.probe import MOLECULES, probe_cases
from mora_lite.export.writer import export_pack


@pytest.fixture
def refused(pack_path: Path, tmp_path: Path) -> Callable[[str], None]:
    """Exports the tiny pack, which must fail with these words and leave nothing."""

    def check(words: str) -> None:
        with pytest.raises(ExportError, match=words):
            export_pack(open_pack(pack_path), tmp_path / "out", full=True)
        assert list(tmp_path.iterdir()) == []

    return check


def test_an_honest_export_passes(pack_path: Path, tmp_path: Path) -> None:
    report = export_pack(open_pack(pack_path), tmp_path / "out", full=True)
    assert report["passed"]
    found = report["models"]
    assert list(found) == ["encoder.onnx", "scorer.onnx", "scorer.plain.onnx"]
    for model in ("encoder.onnx", "scorer.plain.onnx"):
        assert list(found[model]) == ["onnxruntime", "reference evaluator"]
    for runs in found.values():
        assert runs["onnxruntime"]["molecules"] > MOLECULES
        for run in runs.values():
            assert 0 < run["largest_difference"] <= run["limit"] / 10


def test_number_of_molecules_frozen(monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    monkeypatch.setattr(encoder_onnx, "count_molecules", lambda g: g.ints(64))
    refused("encoder.onnx failed its check: got shape")


def test_number_of_atoms_frozen(monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    size = GraphBuilder.size
    frozen = lambda g, value, axis: g.ints(20) if value == "atom_codes" else size(g, value, axis)  # noqa: E731
    monkeypatch.setattr(GraphBuilder, "size", frozen)
    refused("encoder.onnx failed its check: no answer for")


def test_number_of_tasks_frozen(monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    size = GraphBuilder.size
    frozen = lambda g, value, axis: g.ints(3) if value == "task_index" else size(g, value, axis)  # noqa: E731
    monkeypatch.setattr(GraphBuilder, "size", frozen)
    refused("scorer.onnx failed its check: no answer for")


def test_mean_instead_of_sum_over_bonds(monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    def mean(g: GraphBuilder, value: str, axis: int, name: str | None = None, *, keepdims: bool = False) -> str:
        kind = "ReduceMean" if name == "received" else "ReduceSum"
        return g.op(kind, value, g.ints(axis), name=name, keepdims=int(keepdims))

    monkeypatch.setattr(GraphBuilder, "sum", mean)
    refused("encoder.onnx failed its check: for .* away from the model")


def test_mean_instead_of_sum_over_atoms(monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    def mean(g: GraphBuilder, x: str, layout: Any) -> str:
        total = g.op("Squeeze", g.op("MatMul", layout.pool, g.gather(x, layout.atoms)), g.ints(1))
        return g.op("Div", total, g.op("Cast", layout.counts, to=1))

    monkeypatch.setattr(encoder_onnx, "add_pooled", mean)
    refused("encoder.onnx failed its check: for .* away from the model")


def test_repeated_indices_lost(monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    """index_add written as a scatter without reduction: of several bonds to an atom the last one stays."""

    def scatter(g: GraphBuilder, h: str, bond_codes: torch.Tensor, layout: Any) -> str:
        source, target = (g.gather("edge_index", g.number(i)) for i in range(2))
        table = g.constant("bond_codes", bond_codes)
        messages = g.op("Relu", g.op("Add", g.gather(h, source), g.gather(table, "bond_codes")))
        zeros = g.op("Mul", h, g.number(0.0))
        return g.op("ScatterND", zeros, g.unsqueeze(target, 1), messages)

    monkeypatch.setattr(encoder_onnx, "add_messages", scatter)
    refused("encoder.onnx failed its check: for .* away from the model")


def test_positions_left_over_that_take_part(monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    """An atom of few bonds has positions for as many as the atom of most; their messages must be zero."""
    monkeypatch.setattr(encoder_onnx, "FAR_BELOW", 1.0)
    refused("encoder.onnx failed its check: for .* away from the model")


def test_nibbles_in_the_wrong_order(monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    def swapped(flat: dict[str, torch.Tensor]) -> dict[str, Any]:
        weights = join_nf4(flat)
        for name, weight in weights.items():
            if isinstance(weight, NF4Tensor):
                weights[name] = replace(weight, codes=(weight.codes << 4) | (weight.codes >> 4))
        return weights

    monkeypatch.setattr(writer, "join_nf4", swapped)
    refused("scorer.onnx failed its check: for .* of a task's deviation away from the model")


def test_the_lengths_of_prompts_lost(monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    visible = upper_onnx.visible
    monkeypatch.setattr(upper_onnx, "visible", lambda prompts, window: torch.ones_like(visible(prompts, window)))
    refused("scorer.onnx failed its check: for .* of a task's deviation away from the model")


def test_padding_that_takes_part(monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    monkeypatch.setattr(hypernet_onnx, "FAR_BELOW", 0.0)
    refused("scorer.onnx failed its check: for .* of a task's deviation away from the model")


def test_a_layer_left_out(monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    """What no single number of the rest would show."""
    block = hypernet_onnx.add_block
    monkeypatch.setattr(
        hypernet_onnx, "add_block", lambda g, *args: args[1] if g._scope[-1] == "block_1" else block(g, *args)
    )
    refused("scorer.onnx failed its check")


def test_numbers_that_are_none(monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    """A comparison with NaN is false both ways; it must not pass for small."""
    gelu = GraphBuilder.gelu
    monkeypatch.setattr(GraphBuilder, "gelu", lambda g, x: g.op("Sqrt", g.op("Sub", gelu(g, x), g.number(9.0))))
    refused("encoder.onnx failed its check: for .* it is nan away")


def test_a_model_that_is_not_valid(monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    monkeypatch.setattr(GraphBuilder, "gelu", lambda g, x: g.op("Gelu", x, x))
    refused("encoder.onnx is not valid ONNX")


def test_an_8_bit_encoder_that_orders_molecules_otherwise(
    monkeypatch: pytest.MonkeyPatch, pack_path: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(parity.RANK_LIMITS, "int8", 1.0)  # which 8 bits cannot reach
    with pytest.raises(ExportError, match=r"encoder.int8.onnx failed .* rank correlation .* leave --int8 out"):
        export_pack(open_pack(pack_path), tmp_path / "out", int8=True)
    assert list(tmp_path.iterdir()) == []


def test_what_is_asked_covers_everything() -> None:
    cases = probe_cases(3)
    graphs = [case.graphs for case in cases]
    atoms = np.concatenate([part.atoms for part in graphs])
    assert all(set(atoms[:, i]) == set(range(n)) for i, n in enumerate(ATOM_FIELDS.values()))
    assert set(np.concatenate([part.bonds for part in graphs])) == set(range(N_BOND_CODES))
    sizes = [len(part) for part in graphs]
    assert sum(sizes) > MOLECULES
    assert sizes.count(1) >= 20
    assert len({*sizes}) >= 6
    assert any(len(part) == len(part.atoms) == 1 for part in graphs), "one atom without bonds"
    assert any(len(part.bonds) == 0 and len(part) > 1 for part in graphs)
    assert sum(len(case.graphs) for case in cases if case.real) == MOLECULES // 2
    assert {tuple(case.tasks) for case in cases} >= {(0, 1, 2), (2, 0)}


def test_what_is_asked_is_always_the_same() -> None:
    first, second = ([case.graphs.atoms.tobytes() for case in probe_cases(2)] for _ in range(2))
    assert first == second


def test_rank_correlation() -> None:
    values = np.array([3.0, 1.0, 2.0, 5.0])
    assert rank_correlation(values, values**3) == pytest.approx(1.0)
    assert rank_correlation(values, -values) == pytest.approx(-1.0)
