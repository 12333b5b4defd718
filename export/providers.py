"""What ONNX Runtime computes with on this machine: its execution providers, by short names."""

from __future__ import annotations

from typing import Any

from ..errors import DeviceError, did_you_mean

# In the order in which `auto` takes them; TensorRT builds an engine for minutes, so it is taken only when asked for.
PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
ONLY_WHEN_ASKED = ("tensorrt",)


def import_onnxruntime() -> Any:
    """The module. Raises `DeviceError` when it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(
            f'ONNX Runtime cannot be imported ({error}); install it: pip install "mora-lite[onnx]", or '
            '"mora-lite[onnx-gpu]" for CUDA'
        ) from None
    return onnxruntime


def available_providers() -> list[str]:
    """Short names of the providers that this build of ONNX Runtime has, the preferred first."""
    built_in = import_onnxruntime().get_available_providers()
    return [name for name, long in PROVIDERS.items() if long in built_in]


def choose_providers(asked: str = "auto") -> list[str]:
    """ONNX Runtime's names of the providers to try, in order; the CPU is always the last.

    asked: `auto` or a short name. Raises `DeviceError` for one that is unknown or not in this build.
    """
    available = available_providers()
    if asked == "auto":
        chosen = [name for name in available if name not in ONLY_WHEN_ASKED]
    elif asked not in PROVIDERS:
        raise DeviceError(f"provider: got {asked!r}; {did_you_mean(asked, ['auto', *PROVIDERS])}")
    elif asked not in available:
        raise DeviceError(
            f"provider: got {asked!r}, but this build of ONNX Runtime has {', '.join(available)}; choose one of these, "
            f"or install a build with it{_HINTS.get(asked, '')}"
        )
    else:
        chosen = [asked]
    return list(dict.fromkeys([*(PROVIDERS[name] for name in chosen), PROVIDERS["cpu"]]))


_HINTS = {
    "tensorrt": ": pip install onnxruntime-gpu, in place of onnxruntime",
    "cuda": ": pip install onnxruntime-gpu, in place of onnxruntime",
    "directml": ": pip install onnxruntime-directml, in place of onnxruntime (Windows)",
    "openvino": ": pip install onnxruntime-openvino, in place of onnxruntime",
}
