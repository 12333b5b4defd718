"""Language models from a hub, by `owner/name`: from one on this machine, through the real huggingface_hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_hub import FakeHub
from safetensors.torch import load_file

from mora_lite.errors import CheckpointError
from mora_lite.hub.bases import pull, resolve_base
from mora_lite.hub.models import fetch_model, is_hub_model
from mora_lite.lm.decoder import Decoder
from mora_lite.quant.convert import quantize_checkpoint
from mora_lite.quant.formats import open_checkpoint
from mora_lite.quant.huggingface import INDEX

NAME = "lab/tiny-llama"


@pytest.fixture
def files(base_path: Path) -> dict[str, bytes]:
    """The tiny model in two shards, as a repository holds it, with things in it that are not wanted."""
    weights = load_file(base_path / "model.safetensors")
    found = {file.name: file.read_bytes() for file in base_path.iterdir() if file.name != "model.safetensors"}
    weight_map = {}
    for number, names in enumerate((sorted(weights)[::2], sorted(weights)[1::2])):
        shard = f"model-{number + 1:05d}-of-00002.safetensors"
        found[shard] = to_bytes({name: weights[name] for name in names})
        weight_map |= dict.fromkeys(names, shard)
    found[INDEX] = json.dumps({"weight_map": weight_map}).encode()
    unwanted = {
        name: b"never fetched" for name in ("pytorch_model.bin", "modeling_tiny.py", "original/consolidated.pth")
    }
    return found | unwanted


def to_bytes(tensors: dict[str, torch.Tensor]) -> bytes:
    from safetensors.torch import save

    return save(tensors, metadata={"format": "pt"})


@pytest.fixture
def repository(hub: FakeHub, files: dict[str, bytes]) -> Iterator[FakeHub]:
    hub.commits[NAME] = [files]
    return hub


@pytest.mark.parametrize("address", [NAME, f"hf:{NAME}", f"{NAME}@main"])
def test_a_model_in_shards_is_the_model(repository: FakeHub, base_path: Path, address: str) -> None:
    fetched = open_checkpoint(resolve_base(address))
    ids = torch.tensor([fetched.tokenizer()("CCO").input_ids])
    theirs = Decoder.from_checkpoint(open_checkpoint(base_path)).logits(ids)
    assert torch.equal(Decoder.from_checkpoint(fetched).logits(ids), theirs)
    commit = repository.name_of(NAME, "main")
    shards = [line for line in repository.asked if ".safetensors" in line]
    assert shards
    assert all(commit in line for line in shards), "whatever is pushed meanwhile, all files are of one commit"
    assert not any("bin" in line or ".py" in line or "pth" in line for line in repository.asked)


def test_a_model_in_one_file_and_one_in_4_bits(hub: FakeHub, base_path: Path, tmp_path: Path) -> None:
    quantize_checkpoint(open_checkpoint(base_path), tmp_path / "nf4", double=True)
    for name, folder in (("lab/plain", base_path), ("lab/nf4", tmp_path / "nf4")):
        hub.commits[name] = [{file.name: file.read_bytes() for file in folder.iterdir()}]
        fetched = open_checkpoint(resolve_base(name))
        assert fetched.source_sha256 == open_checkpoint(folder).source_sha256
        assert fetched.tokenizer()("CCO").input_ids == open_checkpoint(base_path).tokenizer()("CCO").input_ids


def test_a_revision_stays_what_it_was(repository: FakeHub, files: dict[str, bytes]) -> None:
    first = repository.name_of(NAME, "main")
    repository.commit(NAME, {"config.json": files["config.json"].replace(b'embeddings": 128', b'embeddings": 256')})
    assert open_checkpoint(fetch_model(f"{NAME}@{first}")).config["max_position_embeddings"] == 128
    assert open_checkpoint(fetch_model(NAME)).config["max_position_embeddings"] == 256


def test_what_was_fetched_is_there_without_a_network(repository: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch_model(NAME)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    repository.asked.clear()
    assert fetch_model(NAME) == path
    assert repository.asked == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    repository.broken = True
    assert fetch_model(NAME) == path, "a hub that does not answer is no reason to stop"


def test_pull_fetches_it_too(repository: FakeHub, run: Any) -> None:
    code, out, _ = run("pull", NAME)
    assert (code, Path(out.strip())) == (0, pull(NAME))
    assert (Path(out.strip()) / "tokenizer.json").is_file()


def test_quantize_takes_a_repository(repository: FakeHub, run: Any, tmp_path: Path) -> None:
    code, out, err = run("quantize", NAME, "-o", tmp_path / "out", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["matrices"] == 28
    assert report["perplexity_before"] > 1
    assert open_checkpoint(tmp_path / "out").tokenizer()("CCO").input_ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config.json": None}, "lab/tiny-llama cannot be used: it holds no config.json"),
        ({"config.json": b'{"model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}'}, "Phi3ForCausalLM is not"),
        ({INDEX: None}, "it holds no model.safetensors; pickled weights are never read"),
        ({INDEX: None, "tiny.Q8_0.gguf": b""}, "hf download lab/tiny-llama tiny.Q8_0.gguf"),
        ({INDEX: b'{"weight_map": {"a": "../b.safetensors"}}'}, "names no safetensors files beside it"),
        ({INDEX: b'{"weight_map": {"a": "a.bin"}}'}, "names no safetensors files beside it"),
        ({"model-00001-of-00002.safetensors": None}, "could not be fetched"),
    ],
)
def test_repositories_of_no_use(repository: FakeHub, run: Any, tmp_path: Path, change: Any, message: str) -> None:
    repository.commit(NAME, change)
    code, out, err = run("quantize", NAME, "-o", tmp_path / "out")
    assert (code, out) == (2, "")
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    weights = [line for line in repository.asked if line.startswith("GET") and ".safetensors?" in line]
    assert not weights or message == "could not be fetched"


def test_names_that_no_hub_has(repository: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"hf:lab/other could not be fetched.*or give a path"):
        resolve_base("lab/other")
    with pytest.raises(CheckpointError, match="expected owner/name"):
        resolve_base("hf:lab")
    monkeypatch.setenv("MORA_LITE_OFFLINE", "1")
    with pytest.raises(CheckpointError, match=r"MORA_LITE_OFFLINE is set, and it is not in the cache"):
        resolve_base(NAME)


def test_a_path_comes_before_the_hub(repository: FakeHub, base_path: Path, tmp_path: Path, monkeypatch: Any) -> None:
    shutil.copytree(base_path, tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    assert resolve_base(NAME) == Path(NAME)
    assert repository.asked == []
    assert not is_hub_model("./lab/none")
    assert not is_hub_model("smollm2-135m")


def test_a_file_that_was_damaged_on_its_way_is_not_kept(repository: FakeHub) -> None:
    shard = "model-00002-of-00002.safetensors"
    repository.damaged.add(shard)
    with pytest.raises(CheckpointError, match=rf"{shard} was damaged on its way"):
        fetch_model(NAME)
    repository.damaged.clear()
    open_checkpoint(fetch_model(NAME))
