"""One molecule's adapter of a text pack in the format of the library PEFT, for models that transformers runs.

    adapter_config.json          LoRA of rank R at some projections of some layers
    adapter_model.safetensors    float32: lora_A [R, D_in] and lora_B [D_out, R] of each, by PEFT's names

At the projections q, k, v and o the branch `y = W x + (alpha / R) * (x A) C` is LoRA with lora_A = A^T and lora_B =
C^T, number for number. Beside the whole feed-forward block (ffn) it is not: its input is the block's, its output is
added to the block's, and no single matrix has both. Soft tokens are not LoRA either. Packs with one of them are
refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapter.lowrank import AdapterConfig
from ..chem.graph import Graphs
from ..errors import ExportError, InputError
from ..machine.files import staged, write_json, write_tensors
from ..text.model import TextModel
from ..text.pack import TextPack, load_text_pack

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def export_peft(pack: TextPack, smiles: str, out: Path, *, base: str | None = None, force: bool = False) -> None:
    """Write the adapter that `pack` has for the molecules `smiles` into the folder `out`, whole or not at all.

    base: name or path of the base model, if not the one that the pack names. Raises `ExportError` where the adapter is
    no LoRA, `InputError` for molecules that cannot be read, `OutputError` where `out` cannot be written.
    """
    sizes = AdapterConfig.from_dict(pack.manifest["sizes"])
    if "ffn" in sizes.target_modules:
        raise ExportError(
            f"{pack.path} has a branch beside the whole feed-forward block (ffn), which is no LoRA of a single matrix; "
            "expected a pack with target modules among q, k, v and o alone"
        )
    if pack.manifest["adapter"] == "prompt":
        raise ExportError(f"{pack.path} makes soft tokens, which LoRA cannot; expected the adapter mora or static")
    parsed = pack.featurizer.parse_smiles(smiles)
    if parsed.mol is None:
        raise InputError(f"peft: got {smiles!r}, {parsed.reason or parsed.status}; expected the SMILES of molecules")
    with staged(out, force, CONFIG, "an adapter for PEFT") as stage:
        # The type of the frozen layers does not enter an adapter: the smaller one takes less memory.
        model = load_text_pack(pack, base=base, device="cpu", dtype="bfloat16").model
        with torch.no_grad():
            weights = lora_weights(model, pack.featurizer.graphs([parsed.mol]))
        write_tensors(stage / WEIGHTS, weights, {"format": "pt"})
        write_json(stage / CONFIG, lora_config(model, pack.base["name"]))


def lora_weights(model: TextModel, molecule: Graphs) -> dict[str, Tensor]:
    """The adapter of a molecule, one graph, by the names that PEFT writes."""
    decoder = model.decoder.sizes
    branch = model.branch(molecule.batch(), 1)
    weights = {}
    for number, adapter in enumerate(branch.by_layer(decoder.layers, decoder.module_widths())):
        for module, (a, c) in adapter.factors.items() if adapter is not None else ():
            at = f"base_model.model.model.layers.{number}.self_attn.{module}_proj"
            weights[f"{at}.lora_A.weight"], weights[f"{at}.lora_B.weight"] = a[0].T, c.T
    return weights


def lora_config(model: TextModel, base: str) -> dict[str, Any]:
    """The content of adapter_config.json; what it leaves out has PEFT's defaults."""
    sizes, layers = model.sizes, model.decoder.sizes.layers
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": sizes.rank,
        "lora_alpha": sizes.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": [f"{module}_proj" for module in sizes.target_modules],
        "layers_to_transform": list(sizes.layers) or list(range(layers - sizes.adapted_layers, layers)),
    }
