"""The exported scorer gives the scorer's values, for every kind of decoder that packs may hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mora_lite.adapter.lowrank import AdapterConfig
from mora_lite.lm.decoder import Decoder
from mora_lite.lm.prefix import CompiledPrompts, UpperLayers, compile_prompt, upper_tensor_names
from mora_lite.quant.nf4 import NF4Tensor, quantize_nf4
from mora_lite.scoring.scorer import Scorer
from mora_lite.scoring.tasks import Task

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from mora_lite.export.featurizer import model_inputs  # noqa: E402
from mora_lite.export.parity import reference_run  # noqa: E402
from mora_lite.export.probe import lone_atoms  # noqa: E402
from mora_lite.export.scorer_onnx import build_scorer  # noqa: E402

KINDS = ("llama", "llama_yarn", "mistral_window", "qwen2", "qwen3")  # qwen2 has biases, qwen3 norms of queries and keys
TASKS = [Task("first", "u", "?", 5.0, 2.0), Task("second", "", "?", -1.0, 1.0, "class"), Task("third", "", "?", 0, 0.1)]

DEVIATIONS = [task.deviation for task in TASKS]


def make_scorer_of(kind: str, adapted_layers: int, direct: bool = False) -> tuple[Scorer, dict[str, Any]]:
    """A random scorer with three prompts over a random decoder of 4 layers, matrices in NF4; and the matrices."""
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 16}
    window = {"sliding_window": 4}
    changed: dict[str, Any] = {"mistral_window": window, "llama_yarn": {"rope_parameters": yarn}}.get(kind, {})
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind.split("_", maxsplit=1)[0],
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=16,
        initializer_range=0.2,
        **changed,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith((".bias", "norm.weight")):
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    source = type("Source", (), {})()
    source.config = config.to_dict()
    tensors = dict(model.state_dict())
    source.names, source.load = tensors.keys, tensors.__getitem__
    decoder = Decoder.from_checkpoint(source)
    prompts = CompiledPrompts.stack([compile_prompt(decoder, list(range(1, n)), adapted_layers) for n in (4, 9, 2)])
    names = upper_tensor_names(tensors, decoder.sizes, adapted_layers)
    weights = {name: quantize_nf4(tensors[name]) if tensors[name].ndim == 2 else tensors[name] for name in names}
    sizes = AdapterConfig(16, 1, 16, 2, adapted_layers, 3, 6.0, 32 if direct else 0)
    scorer = Scorer(sizes, UpperLayers(decoder.sizes, adapted_layers, weights), prompts).eval()
    with torch.no_grad():
        for parameter in (*scorer.encoder.parameters(), *scorer.hypernet.parameters(), scorer.offset):
            parameter.add_(torch.randn_like(parameter) * 0.1)  # many of them begin as zeros or ones
    torch.nn.init.normal_(scorer.c)
    if scorer.direct is not None:
        torch.nn.init.normal_(scorer.direct.weight)
    return scorer, weights


@torch.no_grad()
def expected_values(scorer: Scorer, graphs: Any, tasks: list[int]) -> np.ndarray:
    mean, deviation = (np.array([getattr(TASKS[i], name) for i in tasks]) for name in ("mean", "deviation"))
    return scorer(graphs.batch()).numpy()[:, tasks] * deviation + mean


def run_model(model: Any, graphs: Any, tasks: list[int]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (values,) = session.run(None, model_inputs(graphs) | {"task_index": np.array(tasks)})
    assert values.dtype == np.float32
    return values


@torch.no_grad()
@pytest.mark.parametrize("plain", [False, True], ids=["4bit", "plain"])
@pytest.mark.parametrize("adapted_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_every_decoder(dataset, kind: str, adapted_layers: int, plain: bool) -> None:
    scorer, weights = make_scorer_of(kind, adapted_layers)
    model = build_scorer(scorer, TASKS, weights, 22, {}, plain=plain)
    expected = expected_values(scorer, dataset.graphs, [0, 1, 2])
    assert (expected.std(0) / DEVIATIONS).min() > 0.01, "the molecules must differ"
    np.testing.assert_allclose(run_model(model, dataset.graphs, [0, 1, 2]), expected, rtol=1e-4, atol=2e-4)


@torch.no_grad()
@pytest.mark.parametrize("tasks", [[0], [2, 0], [1, 1, 1, 2], [2, 1, 0]], ids=str)
def test_tasks_are_chosen_by_an_input(dataset, tasks: list[int]) -> None:
    scorer, weights = make_scorer_of("llama", 3, direct=True)
    model = build_scorer(scorer, TASKS, weights, 22, {})
    for graphs in (dataset.graphs, dataset.graphs.select([7]), lone_atoms([2, 3])):
        expected = expected_values(scorer, graphs, tasks)
        np.testing.assert_allclose(run_model(model, graphs, tasks), expected, rtol=1e-4, atol=2e-4)


@torch.no_grad()
def test_matrices_stay_in_four_bits_with_the_packs_own_bytes() -> None:
    scorer, weights = make_scorer_of("llama", 3)
    model = build_scorer(scorer, TASKS, weights, 22, {})
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    down = weights["model.layers.3.mlp.down_proj.weight"]
    assert isinstance(down, NF4Tensor)
    assert np.array_equal(held["upper/layer_3/ffn/mlp/down_proj/codes"], down.codes.numpy().ravel())
    assert held["upper/layer_3/ffn/mlp/down_proj/absmax"].dtype == np.float32
    # Layer 2 is the first above the lowest adapted one: its queries, keys and values are constants of the prompts.
    products = [node.name for node in model.graph.node if node.op_type == "MatMulBnb4"]
    assert len(products) == 2 * 7 - 3
    assert not any("layer_2/attention/self_attn" in name for name in products)


@torch.no_grad()
def test_scales_quantised_once_more_are_undone(dataset) -> None:
    scorer, weights = make_scorer_of("llama", 2)
    name = "model.layers.3.mlp.up_proj.weight"
    plain = scorer.upper.layers[0].gate_up.weight[80:]
    weights[name] = quantize_nf4(plain, double=True)
    twice = UpperLayers(scorer.upper.sizes, 2, weights)
    scorer.upper = twice
    assert weights[name].nested is not None
    model = build_scorer(scorer, TASKS, weights, 22, {})
    expected = expected_values(scorer, dataset.graphs, [0, 1, 2])
    np.testing.assert_allclose(run_model(model, dataset.graphs, [0, 1, 2]), expected, rtol=1e-4, atol=2e-4)


@torch.no_grad()
@pytest.mark.parametrize("opset", [18, 20, 22])
def test_the_plain_form_has_standard_operators_only(dataset, opset: int) -> None:
    scorer, weights = make_scorer_of("qwen3", 2, direct=True)
    model = build_scorer(scorer, TASKS, weights, opset, {}, plain=True)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    graphs = dataset.graphs.select(range(0, 60, 9))
    (values,) = reference_run(model)(model_inputs(graphs) | {"task_index": np.array([0, 2])})
    np.testing.assert_allclose(values, expected_values(scorer, graphs, [0, 2]), rtol=1e-4, atol=2e-4)
