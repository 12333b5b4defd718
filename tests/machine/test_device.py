"""Devices and number types are chosen by what is there, and an impossible wish is answered in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mora_lite.errors import DeviceError
from mora_lite.fast import graph_ops
from mora_lite.machine import device as device_module
from mora_lite.machine.device import (
    available_bytes,
    choose_device,
    choose_dtype,
    choose_ops,
    compute_in_batches,
    cpu_has_bfloat16,
    describe_processor,
    is_out_of_memory,
    keep_freed_memory,
)
from mora_lite.status import counted

CPU = torch.device("cpu")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch):
    """Pretends that there are `count` CUDA devices."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


def test_auto_takes_cuda_when_there_is_one(cuda) -> None:
    cuda(0)
    assert choose_device("auto") == CPU
    cuda(1)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cpu") == CPU


def test_cuda_asked_for_and_absent(cuda) -> None:
    cuda(0)
    for name in ("cuda", "cuda:0"):
        with pytest.raises(DeviceError, match=f"got '{name}', but torch .* sees no CUDA device here; use --device cpu"):
            choose_device(name)


def test_a_cuda_device_too_many(cuda) -> None:
    cuda(2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match="there are 2 CUDA devices, cuda:0 to cuda:1"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "mps", "meta", "cuda:-1"])
def test_other_devices_are_refused(cuda, name: str) -> None:
    cuda(1)
    with pytest.raises(DeviceError, match="expected auto, cpu, cuda or cuda:0"):
        choose_device(name)


def test_number_types(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_dtype("float32", CPU) is torch.float32
    assert choose_dtype("bfloat16", CPU) is torch.bfloat16
    with pytest.raises(DeviceError, match="'float16' on a CPU"):
        choose_dtype("float16", CPU)
    with pytest.raises(DeviceError, match="got 'fp8', expected auto, float32"):
        choose_dtype("fp8", CPU)
    assert choose_dtype("float16", torch.device("cuda")) is torch.float16


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx2", "amx_bf16"}, torch.bfloat16),
        ({"avx512_bf16"}, torch.bfloat16),
        ({"avx512f"}, torch.float32),
        (set(), torch.float32),
    ],
)
def test_bfloat16_only_where_the_processor_multiplies_it(monkeypatch, flags: set[str], expected) -> None:
    monkeypatch.setattr(device_module, "cpu_flags", lambda: frozenset(flags))
    cpu_has_bfloat16.cache_clear()
    try:
        assert choose_dtype("auto", CPU) is expected
    finally:
        cpu_has_bfloat16.cache_clear()


def test_batches_are_halved_where_memory_runs_out_and_every_number_is_computed_once() -> None:
    tried: list[int] = []
    done: list[int] = []

    def compute(batch: np.ndarray) -> None:
        tried.append(len(batch))
        if len(batch) > 3:
            raise MemoryError
        done.extend(batch.tolist())

    order = np.random.default_rng(0).permutation(11)
    words = {"work": "working", "one": "one number", "advice": "fewer of them"}
    assert compute_in_batches(compute, order, 8, CPU, **words) == 2
    assert tried == [8, 4, 2, 2, 2, 2, 2, 1]
    assert done == order.tolist()
    assert compute_in_batches(compute, order[:0], 8, CPU, **words) == 8


def test_the_ways_of_running_out_of_memory_are_known() -> None:
    with pytest.raises(RuntimeError) as here:
        torch.empty(1 << 60)
    windows = RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried"
    )
    errors = [here.value, windows, MemoryError(), torch.OutOfMemoryError("CUDA out of memory")]
    assert all(map(is_out_of_memory, errors))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


def test_facts_about_this_machine() -> None:
    keep_freed_memory()
    assert available_bytes(CPU) > 1 << 20
    assert describe_processor(CPU).endswith(f", {counted(torch.get_num_threads(), 'thread')}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels work where there is a CUDA device")
def test_where_kernels_do_not_work_the_plain_functions_take_their_place(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_ops(graph_ops.OPS, "mora_lite.fast.graph_ops_triton", torch.device("cuda")) is graph_ops.OPS
    assert "graph_ops_triton are not used" in caplog.text
