"""Which of ONNX Runtime's execution providers is taken, and what is said where one is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mora_lite.errors import DeviceError
from mora_lite.export import providers, runtime

pytest.importorskip("onnxruntime")


def with_providers(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    fake = SimpleNamespace(get_available_providers=lambda: list(names))
    monkeypatch.setattr(providers, "import_onnxruntime", lambda: fake)


def test_the_fastest_provider_is_taken_and_the_cpu_is_always_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda, tensorrt = (providers.PROVIDERS[name] for name in ("cpu", "cuda", "tensorrt"))
    with_providers(monkeypatch, tensorrt, cuda, cpu)
    assert providers.choose_providers() == [cuda, cpu]
    assert providers.choose_providers("cpu") == [cpu]
    assert providers.choose_providers("tensorrt") == [tensorrt, cpu]
    with_providers(monkeypatch, cpu, "AzureExecutionProvider")
    assert providers.available_providers() == ["cpu"]
    assert providers.choose_providers() == [cpu]


def test_a_provider_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with_providers(monkeypatch, providers.PROVIDERS["cpu"])
    with pytest.raises(DeviceError, match=r"got 'cuda', but this build of ONNX Runtime has cpu.*onnxruntime-gpu"):
        providers.choose_providers("cuda")
    with pytest.raises(DeviceError, match="got 'cdua'; did you mean cuda"):
        providers.choose_providers("cdua")


def test_a_provider_that_does_not_start_is_told_when_it_was_asked_for(
    exported_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime then goes on with the CPU by itself."""
    monkeypatch.setattr(runtime, "choose_providers", lambda asked: [providers.PROVIDERS["cpu"]])
    assert runtime.load(exported_path).provider == "cpu"
    with pytest.raises(DeviceError, match="got 'cuda', but its libraries cannot be loaded here"):
        runtime.load(exported_path, provider="cuda")


def test_without_onnxruntime_the_error_names_the_extra(exported_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeviceError, match=r'pip install "mora-lite\[onnx\]"'):
        runtime.load(exported_path)
