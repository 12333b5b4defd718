"""Which device to compute on, in which number type and with which kernels."""

from __future__ import annotations

import ctypes
import functools
import importlib
import logging
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
import torch

from ..errors import DeviceError, InputError
from ..status import counted
from .progress import report

Ops = TypeVar("Ops", bound=tuple[Any, ...])  # a NamedTuple of functions

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """`auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:N`. Raises `DeviceError` when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device: got {name!r}, expected auto, cpu, cuda or cuda:0, cuda:1, ...")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError(
                f"device: got {name!r}, but torch {torch.__version__} sees no CUDA device here; "
                "use --device cpu, or install a CUDA build of torch and check `nvidia-smi`"
            )
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise DeviceError(
                f"device: got {name!r}, but there are {torch.cuda.device_count()} CUDA devices, "
                f"cuda:0 to cuda:{torch.cuda.device_count() - 1}"
            )
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`, `float32`, `bfloat16` or `float16` -> the type of matrix products on `device`."""
    if name == "auto":
        return autocast_dtype(device)
    if name not in DTYPES:
        raise DeviceError(f"dtype: got {name!r}, expected auto, {', '.join(DTYPES)}")
    if name == "float16" and device.type == "cpu":
        raise DeviceError("dtype: got 'float16' on a CPU, which is slow there; use float32 or bfloat16")
    return DTYPES[name]


def autocast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it faster than float32, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


def training_dtype(device: torch.device) -> torch.dtype:
    """As `autocast_dtype`, but never float16: its gradients need a loss scale, and GPUs without bfloat16 are few."""
    dtype = autocast_dtype(device)
    return torch.float32 if dtype == torch.float16 else dtype


def training_autocast(device: torch.device) -> torch.autocast:
    """Matrix products in `training_dtype` within a block."""
    dtype = training_dtype(device)
    # No cache of converted weights: within a captured step it would be stale at the next replay.
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32, cache_enabled=device.type != "cuda")


@functools.cache
def cpu_has_bfloat16() -> bool:
    """Whether this CPU has matrix instructions for bfloat16 (AMX or AVX512-BF16).

    On two AMX cores torch reaches 2,800 GFLOP/s in bfloat16 against 200 in float32; without them bfloat16 is slower.
    """
    return bool({"amx_bf16", "avx512_bf16"} & cpu_flags())


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The processor's feature flags where the system lists them (Linux), else none."""
    return frozenset(_cpuinfo("flags").split())


def _cpuinfo(field: str) -> str:
    """The first value of a field of /proc/cpuinfo; empty where there is none."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith(field):
                return line.split(":", 1)[1].strip()
    return ""


def available_bytes(device: torch.device) -> int:
    """Memory that can be taken on `device` now, in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def is_out_of_memory(error: BaseException) -> bool:
    """Whether CUDA, torch's CPU allocator or Python ran out of memory."""
    # The allocator "can't allocate memory", on Windows there is "not enough memory", both in a plain RuntimeError.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator: " in str(error)


def processor_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def describe_processor(device: torch.device) -> str:
    """The name of the device, of a CPU with the number of threads."""
    threads = "" if device.type == "cuda" else f", {counted(torch.get_num_threads(), 'thread')}"
    return processor_name(device) + threads


def cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def compute_in_batches(
    compute: Callable[[np.ndarray], None],
    order: np.ndarray,
    size: int,
    device: torch.device,
    *,
    work: str,
    one: str,
    advice: str,
) -> int:
    """Call `compute` with `size` of the numbers in `order` at a time; with half as many where memory runs out.

    order: int64 `[N]`. work: what is reported, such as "scoring molecules".
    one: what a number stands for, such as "one molecule". advice: what to do where memory does not suffice for one.

    Returns the size that sufficed. Raises `DeviceError` where none does.
    """
    start = 0
    while start < len(order):
        report(work, start, len(order))
        batch = order[start : start + size]
        try:
            compute(batch)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                words = f"out of memory on {device} with {one} at a time; use --device cpu, {advice}"
                raise DeviceError(f"{words}, or close other programs") from None
            size = (len(batch) + 1) // 2
            if device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        start += len(batch)
    return size


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next allocation of this process, instead of returning it to the system.

    Each batch frees and takes again the same few hundred MB; fetching fresh pages for them takes time
    (docs/benchmarks/training.md). Does nothing where the C library is another one.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # names of glibc's malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for option, size in ((mmap_threshold, 1 << 30), (trim_threshold, 2**31 - 1), (top_pad, 1 << 26)):
        mallopt(option, size)


@functools.cache
def work_alone_after_fork() -> None:
    """Let each process that is forked from this one compute on one thread.

    It has none of the threads that torch has started here, and would wait for them for ever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))


def choose_ops(plain: Ops, kernels: str, device: torch.device) -> Ops:
    """`OPS` of the module `kernels` where its `check` of `device` passes, else `plain`, with a warning.

    plain: functions in plain torch, as a NamedTuple; `OPS` has the same functions as kernels. The module is imported
    only here. Whoever wants certain functions, as tests do, hands them over without this choice.
    """
    try:
        module = importlib.import_module(kernels)
        module.check(device)
    except Exception as error:  # Triton is not there for every system, and a compiler is needed in any case
        name, reason = kernels.rpartition(".")[2], str(error).strip().split("\n")[0]
        logging.getLogger("mora_lite").warning("%s are not used, which is slower: %s", name, reason)
        return plain
    return module.OPS


def choose_devices(names: str) -> tuple[torch.device, ...]:
    """`auto` (all CUDA devices, else the CPU), or one or more of a kind: `cuda:0,cuda:1`. Raises `DeviceError`."""
    if names == "auto":
        n = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return tuple(torch.device("cuda", i) for i in range(n)) or (torch.device("cpu"),)
    devices = tuple(choose_device(name.strip()) for name in names.split(",") if name.strip())
    if not devices or len({device.type for device in devices}) > 1:
        raise InputError(f"--device: got {names!r}, expected one device, or several CUDA devices like cuda:0,cuda:1")
    return devices
