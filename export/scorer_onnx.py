"""The whole scorer as ONNX: molecule graphs and the numbers of the tasks in, `Predictor.score_graphs` out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from ..scoring.scorer import Scorer
from ..scoring.tasks import Task
from .encoder_onnx import add_encoder, add_inputs
from .graph_builder import GraphBuilder
from .hypernet_onnx import add_hypernet
from .upper_onnx import Rows, Weights, add_prompts, add_upper


def build_scorer(
    scorer: Scorer,
    tasks: Sequence[Task],
    weights: Weights,
    opset: int,
    metadata: dict[str, str],
    *,
    plain: bool = False,
) -> onnx.ModelProto:
    """The same inputs and task_index int64 `[tasks]`, positions in `tasks` -> values float32 `[molecules, tasks]`.

    weights: of the upper layers, by their names in the checkpoint. plain: without operators of onnxruntime's own, the
    4-bit matrices dequantised.
    """
    g = GraphBuilder("mora_lite_scorer", opset, contrib=not plain)
    add_inputs(g)
    chosen = g.input("task_index", ["tasks"])
    atoms, molecules, layout = add_encoder(g, scorer.encoder)
    states = add_hypernet(g, scorer.hypernet, atoms, molecules, layout)
    rows = Rows(layout.n_molecules, g.size(chosen, 0), chosen)
    scores = add_upper(g, scorer, weights, states, rows)
    if scorer.direct is not None:
        with g.scope("direct"):
            hidden = g.gelu(g.layer(molecules, scorer.direct.hidden, "hidden"))
            weight = add_prompts(g, "weight", scorer.direct.weight.detach().float(), rows)
            scores = g.op("Gemm", hidden, weight, scores, transB=1)
    with g.scope("scales"):
        deviation, mean = (
            g.gather(g.constant(name, np.array([getattr(task, name) for task in tasks], np.float32)), chosen)
            for name in ("deviation", "mean")
        )
        values = g.op("Add", g.op("Mul", scores, deviation), mean)
    g.output(values, "values", ["molecules", "tasks"])
    return g.model(metadata)
