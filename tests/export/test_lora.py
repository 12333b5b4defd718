"""A molecule's adapter for PEFT: the logits of transformers with it are ours, and what cannot be LoRA is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from mora_lite.adapter.lowrank import AdapterConfig
from mora_lite.chem.featurizer import Featurizer
from mora_lite.errors import ExportError, InputError, OutputError
from mora_lite.export.lora import CONFIG, WEIGHTS, export_peft
from mora_lite.lm.base import NF4Source
from mora_lite.lm.decoder import Decoder
from mora_lite.quant.formats import open_checkpoint
from mora_lite.quant.nf4 import NF4Tensor, dequantize_nf4
from mora_lite.text.model import TextModel
from mora_lite.text.pack import TextPack, load_text_pack, open_text_pack, save_text_pack
from mora_lite.text.sequences import Prompt

SIZES = AdapterConfig(32, 2, 32, 1, adapted_layers=4, rank=8, alpha=12.0)
PROMPT = Prompt.of_template("In: {}\nOut: ", 0)
MOLECULE = "CC(=O)O.CN"
IDS = torch.randint(1, 250, (2, 17), generator=torch.Generator().manual_seed(4))
WAYS: list[tuple[str, dict[str, Any]]] = [
    ("mora", {"target_modules": ("q", "k", "v", "o")}),
    ("mora", {"target_modules": ("v", "q"), "layers": (1, 3), "adapted_layers": 2}),
    ("static", {"target_modules": ("k", "o"), "adapted_layers": 3}),
]


@pytest.fixture(scope="module")
def rounded_model(base_path: Path) -> Any:
    """The base in transformers with its matrices rounded to NF4, over which adapters are trained."""
    model = AutoModelForCausalLM.from_pretrained(base_path, dtype=torch.float32).eval()
    source = NF4Source(open_checkpoint(base_path))
    for name, parameter in model.named_parameters():
        if "proj" in name:
            held = source.load(name)
            assert isinstance(held, NF4Tensor)
            parameter.data.copy_(dequantize_nf4(held, torch.float32))
    return model


@pytest.fixture
def make_pack(base_path: Path, tmp_path: Path) -> Any:
    """Writes a pack whose adapter is large."""

    def make(kind: str, **change: Any) -> TextPack:
        checkpoint = open_checkpoint(base_path)
        torch.manual_seed(0)
        model = TextModel(replace(SIZES, **change), Decoder.from_checkpoint(NF4Source(checkpoint)), kind)
        torch.nn.init.normal_(model.c, std=0.2)
        base = {"name": str(base_path), "sha256": checkpoint.source_sha256}
        return save_text_pack(
            tmp_path / "pack", model, task="forward", prompt=PROMPT, base=base, provenance={}, force=True
        )

    return make


@torch.no_grad()
def our_logits(pack: TextPack) -> Tensor:
    """Of the molecule's adapter, in both rows."""
    model = load_text_pack(pack, device="cpu", dtype="float32").model
    branch = model.branch(Featurizer.of(pack.manifest).read_smiles([MOLECULE]).batch(), 1)
    return model.decoder.logits(IDS, branch=replace(branch, a=branch.a.expand(2, -1, -1, -1)))


@torch.no_grad()
@pytest.mark.parametrize(("kind", "change"), WAYS)
def test_transformers_with_the_merged_weights_gives_our_logits(
    make_pack: Any, rounded_model: Any, tmp_path: Path, kind: str, change: dict[str, Any]
) -> None:
    """`W + (lora_alpha / r) * lora_B @ lora_A`, what PEFT does, out of the two files alone."""
    pack = make_pack(kind, **change)
    export_peft(pack, MOLECULE, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / CONFIG).read_text())
    weights = load_file(tmp_path / "adapter" / WEIGHTS)
    changed = type(rounded_model)(rounded_model.config).eval()
    changed.load_state_dict(rounded_model.state_dict())
    parameters = dict(changed.named_parameters())
    layers = config["layers_to_transform"]
    names = [f"model.layers.{i}.self_attn.{module}" for i in layers for module in config["target_modules"]]
    held = {f"base_model.model.{name}.lora_{x}.weight" for name in names for x in "AB"}
    assert set(weights) == held
    for name in names:
        a, b = (weights[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
        assert a.shape[0] == b.shape[1] == config["r"]
        parameters[f"{name}.weight"] += config["lora_alpha"] / config["r"] * b @ a
    expected, plain = our_logits(pack), rounded_model(IDS, use_cache=False).logits
    assert (expected - plain).abs().max() > 0.05 * plain.abs().max()
    assert (changed(IDS, use_cache=False).logits - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize(("kind", "change"), WAYS)
def test_peft_reads_it_and_gives_our_logits(
    make_pack: Any, rounded_model: Any, tmp_path: Path, kind: str, change: dict[str, Any], recwarn: Any
) -> None:
    peft = pytest.importorskip("peft")
    pack = make_pack(kind, **change)
    export_peft(pack, MOLECULE, tmp_path / "adapter")
    own = type(rounded_model)(rounded_model.config).eval()
    own.load_state_dict(rounded_model.state_dict())
    adapted = peft.PeftModel.from_pretrained(own, tmp_path / "adapter").eval()
    assert not [str(w.message) for w in recwarn if "adapter keys" in str(w.message)]  # missing or unexpected ones
    expected = our_logits(pack)
    assert (adapted(IDS, use_cache=False).logits - expected).abs().max() <= 1e-5 * expected.abs().max()
    # What PEFT itself writes has the same names and shapes.
    adapted.save_pretrained(tmp_path / "again")
    shapes = [
        {name: tensor.shape for name, tensor in load_file(tmp_path / folder / WEIGHTS).items()}
        for folder in ("adapter", "again")
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("kind", "modules", "words"),
    [
        ("mora", ("ffn",), "beside the whole feed-forward block"),
        ("mora", ("q", "k", "v", "o", "ffn"), "beside the whole feed-forward block"),
        ("prompt", ("q",), "soft tokens"),
    ],
)
def test_what_is_not_lora_is_refused(
    make_pack: Any, tmp_path: Path, kind: str, modules: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ExportError, match=words) as caught:
        export_peft(make_pack(kind, target_modules=modules), MOLECULE, tmp_path / "adapter")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "adapter").exists()


def test_nothing_half_written_and_nothing_replaced(make_pack: Any, tmp_path: Path, base_path: Path) -> None:
    pack, out = make_pack("mora", target_modules=("q",)), tmp_path / "adapter"
    with pytest.raises(InputError, match=r"'C1CC', .*ring.*; expected the SMILES"):
        export_peft(pack, "C1CC", out)
    export_peft(pack, MOLECULE, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "pack"]
    with pytest.raises(OutputError, match="exists; choose another name or use --force"):
        export_peft(pack, "CO", out)
    first = load_file(out / WEIGHTS)
    export_peft(pack, "CO", out, force=True)
    again = load_file(out / WEIGHTS)
    assert any(not torch.equal(again[name], first[name]) for name in first if "lora_A" in name)  # another molecule
    assert all(torch.equal(again[name], first[name]) for name in first if "lora_B" in name)
    (out / CONFIG).unlink()
    with pytest.raises(OutputError, match="is not an adapter for PEFT"):
        export_peft(pack, MOLECULE, out, force=True)


def test_the_command_line_exports_and_tells_what_is_wrong(run: Any, make_pack: Any, tmp_path: Path) -> None:
    pack, out = make_pack("mora", target_modules=("q", "k", "v", "o")).path, tmp_path / "adapter"
    code, stdout, err = run("export", pack, "--peft", MOLECULE, "-o", out)
    assert (code, stdout) == (0, ""), err
    assert open_text_pack(pack).base["name"] == json.loads((out / CONFIG).read_text())["base_model_name_or_path"]
    for options, message in (
        ([pack], "is a text pack, which has no ONNX form; --peft SMILES exports"),
        ([pack, "--peft", "CO", "--full"], "--peft goes with --base"),
        ([pack, "--base", "x"], "--base is for --peft"),
        ([tmp_path, "--peft", "CO"], "is not a text pack"),
    ):
        code, stdout, err = run("export", *options, "-o", tmp_path / "other")
        assert (code, stdout) == (2, "")
        assert message in err
        assert len(err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "pack"]
