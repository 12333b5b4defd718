"""What every conversation with the Hugging Face hub needs: the package, whether the network is allowed, short waits."""

from __future__ import annotations

import os
from typing import Any

from ..errors import DeviceError

PREFIX = "hf:"  # of an address on the hub
OFFLINE = "HF_HUB_OFFLINE"
HUB_SECONDS = 5


def import_hub() -> Any:
    """The package huggingface_hub. Raises `DeviceError` when it is not installed."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise DeviceError(f"huggingface_hub cannot be imported ({error}); run: pip install huggingface_hub") from None
    return huggingface_hub


def offline_variable(*variables: str) -> str | None:
    """The environment variable that forbids the network, MORA_LITE_OFFLINE or one of these; None when none does."""
    for variable in ("MORA_LITE_OFFLINE", *variables):
        if os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE"):
            return variable
    return None


def first_line(error: Exception) -> str:
    """The beginning of what an exception says, or its name."""
    return (str(error).strip() or type(error).__name__).split("\n")[0][:160]
