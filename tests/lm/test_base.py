"""Copies of base models in NF4, kept in the cache: the same bits, and only where they save time."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import Kind, make_model, write_gguf

from mora_lite.errors import CheckpointError
from mora_lite.hub.bases import resolve_base
from mora_lite.hub.cache import cache_dir
from mora_lite.lm import base
from mora_lite.lm.base import NF4Source, load_decoder, open_nf4
from mora_lite.lm.decoder import Decoder
from mora_lite.lm.tokenizer import PlainTokenizer
from mora_lite.quant.formats import open_checkpoint
from mora_lite.quant.linear import Linear4bit
from mora_lite.quant.nf4 import NF4Tensor


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the copies; the tiny model is large enough for one."""
    monkeypatch.setenv("MORA_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(base, "COPY_FROM", 1)
    return tmp_path / "cache" / "nf4"


@pytest.fixture
def gguf_path(base_path: Path, tmp_path: Path) -> Path:
    """A model with all that is rounded in GGUF: matrices and embeddings in blocks, norms in float32."""
    tokenizer = open_checkpoint(base_path).tokenizer()
    model = make_model("llama", vocab_size=len(tokenizer) + 1)
    return write_gguf(tmp_path / "m.gguf", model, "llama", Kind.Q8_0, tokenizer)


def same(a: object, b: object) -> bool:
    if isinstance(a, NF4Tensor) and isinstance(b, NF4Tensor):
        return a.shape == b.shape and torch.equal(a.codes, b.codes) and torch.equal(a.absmax, b.absmax)
    assert isinstance(a, torch.Tensor)
    assert isinstance(b, torch.Tensor)
    return a.dtype == b.dtype and torch.equal(a, b)


@pytest.mark.parametrize("kind", ["directory", "gguf"])
def test_a_copy_has_the_bits_of_its_source(base_path: Path, gguf_path: Path, copies: Path, kind: str) -> None:
    path = base_path if kind == "directory" else gguf_path
    plain = NF4Source(open_checkpoint(path))
    for source in (open_nf4(path), open_nf4(path)):  # written, then found
        assert source.checkpoint.path.parent == copies
        assert source.source_sha256 == plain.source_sha256
        assert list(source.names()) == list(plain.names())
        assert all(same(source.load(name), plain.load(name)) for name in plain.names())
        ids = source.tokenizer()("CCO c1ccccc1 and so on").input_ids
        assert ids == plain.tokenizer()("CCO c1ccccc1 and so on").input_ids
        theirs = Decoder.from_checkpoint(plain).logits(torch.tensor([ids]))
        assert torch.equal(Decoder.from_checkpoint(source).logits(torch.tensor([ids])), theirs)


def test_a_copy_is_read_without_transformers(gguf_path: Path, copies: Path) -> None:
    open_nf4(gguf_path)
    code = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from mora_lite.lm.base import load_decoder, open_nf4\n"
        "source = open_nf4(Path(sys.argv[1]))\n"
        "load_decoder(source, torch.float32, torch.device('cpu'))\n"
        "print(source.plain_tokenizer()(['CCO']).input_ids, 'transformers' in sys.modules)\n"
    )
    out = subprocess.run([sys.executable, "-c", code, gguf_path], capture_output=True, text=True, check=True).stdout
    ids = open_checkpoint(gguf_path).tokenizer()(["CCO"], add_special_tokens=False).input_ids
    assert out == f"{ids} False\n"


@settings(deadline=None)  # the first example loads both
@given(st.lists(st.text(max_size=20) | st.sampled_from(["CC(=O)Nc1ccc(O)cc1", "<|endoftext|>C", " a  b "])))
def test_the_plain_tokenizer_does_as_that_of_transformers(texts: list[str]) -> None:
    theirs, plain = tokenizers_of_a_copy()
    ids = plain(texts, add_special_tokens=False).input_ids
    assert ids == [list(row) for row in theirs(texts, add_special_tokens=False).input_ids] if texts else not ids
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    assert [plain.decode(row, **options) for row in ids] == [theirs.decode(row, **options) for row in ids]


@functools.cache
def tokenizers_of_a_copy() -> tuple[Any, PlainTokenizer]:
    """The tokenizer of the real base model in its GGUF file, and that of its copy."""
    try:
        path = resolve_base("smollm2-135m")
    except CheckpointError as error:
        pytest.skip(str(error))
    source = open_nf4(path)
    plain = source.plain_tokenizer()
    assert isinstance(plain, PlainTokenizer)
    return source.tokenizer(), plain


def test_it_is_made_once(gguf_path: Path, copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_nf4(gguf_path)
    monkeypatch.setattr(base, "quantize_nf4", None)  # would fail if it were called again
    source = open_nf4(gguf_path)
    for name in source.names():
        source.load(name)


def test_a_damaged_copy_is_made_again(gguf_path: Path, copies: Path) -> None:
    file = open_nf4(gguf_path).checkpoint.path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    open_nf4(gguf_path)
    assert file.read_bytes() == whole


def test_another_base_has_another_copy_and_a_tokenizer_stays_with_its_directory(
    base_path: Path, tmp_path: Path, copies: Path
) -> None:
    other = Path(shutil.copytree(base_path, tmp_path / "other"))
    first = open_nf4(base_path).checkpoint.path
    (other / "tokenizer.json").unlink()
    assert open_nf4(other).checkpoint.path == first, "the same weights"
    assert not (first / "tokenizer.json").exists()
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 99}))
    assert open_nf4(other).checkpoint.path != first


@pytest.mark.parametrize("why", ["small", "no room", "in 4 bits already"])
def test_without_a_copy_it_is_quantised_each_time(
    base_path: Path, tmp_path: Path, copies: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = base_path
    if why == "small":
        monkeypatch.setattr(base, "COPY_FROM", 10**6)
    elif why == "no room":
        cache_dir().write_text("a file where the cache should be")
    else:
        from mora_lite.quant.convert import quantize_checkpoint

        quantize_checkpoint(open_checkpoint(base_path), tmp_path / "nf4")
        path = tmp_path / "nf4"
    source = open_nf4(path)
    assert source.checkpoint.path == path
    assert isinstance(source.load("model.layers.0.mlp.up_proj.weight"), NF4Tensor)
    assert not copies.exists()


def test_matrices_stay_in_four_bits_where_memory_is_little(base_path: Path) -> None:
    source, cpu = open_nf4(base_path), torch.device("cpu")
    ids = torch.tensor([[3, 5, 8, 2]])
    roomy, tight = (load_decoder(source, torch.float32, cpu, budget) for budget in (1 << 30, 0))
    assert not any(isinstance(module, Linear4bit) for module in roomy.modules())
    assert any(isinstance(module, Linear4bit) for module in tight.modules())
    torch.testing.assert_close(roomy.logits(ids), tight.logits(ids), rtol=0, atol=1e-5)
