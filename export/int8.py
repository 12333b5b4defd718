"""An encoder with its matrices in 8 bits, inputs quantised as they come: for processors without much memory."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
from onnx import helper


def quantize_encoder(source: Path, target: Path, metadata: dict[str, str]) -> None:
    """Write the model `source` with dynamically quantised matrix products to `target`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # it recommends steps that do nothing for this model
    try:
        # Weights of 7 bits in 8: processors without VNNI add products of full signed bytes with saturation, which is
        # wrong; unsigned bytes took half as long again.
        kinds = ["MatMul", "Gemm"]
        quantize_dynamic(source, target, kinds, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)
    model = onnx.load(target)
    helper.set_model_props(model, metadata)
    onnx.save(model, target)
