"""Builds an ONNX graph node by node, with names that say where in the model a node belongs.

Written out instead of traced: no shape of an example can freeze in it, the same model always gives the same bytes, and
each operator is one that was chosen (see `docs/onnx.md` for those that were not).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

IR_VERSION = 10  # the newest that onnxruntime 1.22 reads
CONTRIB = "com.microsoft"
FAR_BELOW = -1e30  # stands for minus infinity, which some runtimes turn into NaN

Array = np.ndarray | torch.Tensor


class GraphBuilder:
    """A graph that grows. A value is its name, a text; a node has the name of its first output.

    opset: of the standard operators. contrib: whether operators of onnxruntime's own (com.microsoft) may be used.
    half: whether `linear` multiplies in float16; all else stays in float32.
    """

    def __init__(self, name: str, opset: int, *, contrib: bool = False, half: bool = False):
        self.name, self.opset, self.contrib, self.half = name, opset, contrib, half
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: dict[str, onnx.TensorProto] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._scope: list[str] = []
        self._used: Counter[str] = Counter()

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names made inside begin with `name/`."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    def input(self, name: str, shape: Sequence[str | int]) -> str:
        """An int64 input; a text in `shape` names a size that is free."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, shape))
        return name

    def output(self, value: str, name: str, shape: Sequence[str | int]) -> None:
        """Make a float32 value an output under the name `name`."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def constant(self, name: str, values: Array) -> str:
        """An initialiser of the type and shape of `values`; its name is the scope and `name`."""
        full = "/".join([*self._scope, name])
        assert full not in self.initialisers, f"two constants are called {full}"
        self._add(full, values)
        return full

    def _add(self, name: str, values: Array) -> None:
        # asarray with an order, since ascontiguousarray gives a number a dimension.
        self.initialisers[name] = numpy_helper.from_array(np.asarray(_array(values), order="C"), name)

    def ints(self, *values: int) -> str:
        """A shared constant int64 `[n]`."""
        return self.shared(f"ints/{'_'.join(map(str, values))}", np.array(values, np.int64))

    def number(self, value: int | float) -> str:
        """A shared constant without dimensions: float32 for a float, int64 for an int."""
        if isinstance(value, float):
            return self.shared(f"numbers/{value!r}", np.array(value, np.float32))
        return self.shared(f"numbers/int_{value}", np.array(value, np.int64))

    def shared(self, name: str, values: Array) -> str:
        """An initialiser that may be asked for again; its name has no scope."""
        if name not in self.initialisers:
            self._add(name, values)
        return name

    def op(self, kind: str, *inputs: str, name: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns its name, which is the scope and `name` (or the operator's)."""
        return self.split_op(kind, 1, *inputs, name=name, domain=domain, **attributes)[0]

    def split_op(
        self, kind: str, n_outputs: int, *inputs: str, name: str | None = None, domain: str = "", **attributes: Any
    ) -> list[str]:
        """The same with several outputs."""
        full = "/".join([*self._scope, name or kind.lower()])
        self._used[full] += 1
        full = full if self._used[full] == 1 else f"{full}_{self._used[full]}"
        outputs = [full] if n_outputs == 1 else [f"{full}:{i}" for i in range(n_outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, full, domain=domain, **attributes))
        return outputs

    # --- small words for what is used often

    def size(self, value: str, axis: int) -> str:
        """int64 `[1]`: one size of a value."""
        return self.op("Shape", value, name="size", start=axis, end=axis + 1)

    def reshape(self, value: str, *sizes: int | str) -> str:
        """sizes: numbers (0 keeps that size, -1 is what is left) or values int64 `[1]`."""
        if all(isinstance(size, int) for size in sizes):
            return self.op("Reshape", value, self.ints(*[int(size) for size in sizes]))
        parts = [self.ints(size) if isinstance(size, int) else size for size in sizes]
        return self.op("Reshape", value, self.op("Concat", *parts, name="shape", axis=0))

    def unsqueeze(self, value: str, *axes: int) -> str:
        return self.op("Unsqueeze", value, self.ints(*axes))

    def gather(self, table: str, index: str, axis: int = 0, name: str | None = None) -> str:
        return self.op("Gather", table, index, name=name, axis=axis)

    def sum(self, value: str, axis: int, name: str | None = None, *, keepdims: bool = False) -> str:
        return self.op("ReduceSum", value, self.ints(axis), name=name, keepdims=int(keepdims))

    def linear(self, x: str, weight: Array, bias: Array, name: str) -> str:
        """`x @ weight.T + bias` for x float32 `[N, in]`; weight: `[out, in]`."""
        with self.scope(name):
            dtype = np.float16 if self.half else np.float32
            parts = (("weight", weight), ("bias", bias))
            constants = [self.constant(part, _array(values).astype(dtype)) for part, values in parts]
            y = self.op("Gemm", self.cast(x) if self.half else x, *constants, transB=1)
            return self.cast(y, half=False) if self.half else y

    def layer(self, x: str, layer: torch.nn.Module, name: str) -> str:
        """The same of an `nn.Linear`."""
        assert isinstance(layer, torch.nn.Linear)
        return self.linear(x, layer.weight, layer.bias, name)

    def cast(self, value: str, *, half: bool = True) -> str:
        return self.op("Cast", value, to=TensorProto.FLOAT16 if half else TensorProto.FLOAT)

    def layer_norm(self, x: str, norm: torch.nn.LayerNorm, name: str) -> str:
        with self.scope(name):
            inputs = x, self.constant("weight", norm.weight), self.constant("bias", norm.bias)
            return self.op("LayerNormalization", *inputs, axis=-1, epsilon=norm.eps)

    def gelu(self, x: str) -> str:
        """The exact one, by the error function."""
        if self.opset >= 20:
            return self.op("Gelu", x)
        half = self.op("Mul", x, self.number(0.5))
        erf = self.op("Erf", self.op("Div", x, self.number(2**0.5)))
        return self.op("Mul", half, self.op("Add", erf, self.number(1.0)))

    def model(self, metadata: dict[str, str]) -> onnx.ModelProto:
        """The finished model; metadata: texts that lie in it by name."""
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, list(self.initialisers.values()))
        opsets = [helper.make_opsetid("", self.opset)]
        if any(node.domain == CONTRIB for node in self.nodes):
            opsets.append(helper.make_opsetid(CONTRIB, 1))
        model = helper.make_model(graph, opset_imports=opsets, producer_name="mora-lite", ir_version=IR_VERSION)
        helper.set_model_props(model, metadata)
        return model


def _array(values: Array) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
