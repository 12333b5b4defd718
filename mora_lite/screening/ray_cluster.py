"""Ray as `ray_engine` needs it: imported late, without network, dashboard or output."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import DeviceError, error_text

# Of a local Ray's object store, and more of it for each actor. The rows of a shard take 1 MB there as SMILES and 10 as
# mol blocks; what has no place goes to the disk.
STORE_BYTES, ACTOR_BYTES = 100 << 20, 16 << 20
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 starves the actors where the machine has other work
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # of its C++ part, which writes to stderr whatever Python's loggers are told
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # what becomes of other processes, which Ray would print on stdout
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what it will be; unset, Ray warns
}


def import_ray() -> Any:
    """Ray with Ray Data, silent and without telemetry. Raises `DeviceError` when it is not installed."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
        import ray.exceptions
    except ImportError as error:
        raise DeviceError(f'--engine ray needs Ray ({error}): pip install "mora-lite[ray]"') from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.target_max_block_size = 1  # byte: a row of a dataset, which is a shard, goes out as soon as it is there
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


class Tries:
    """An actor that counts for all others how often each shard was begun: an actor that dies cannot count."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        self._counts[number] += 1
        return self._counts[number]


@contextmanager
def connected(address: str | None, n_cpus: int, n_gpus: int = 0) -> Iterator[Any]:
    """The module `ray`, connected to a cluster. Raises `DeviceError`.

    The cluster is the one that Ray is connected to already, else that at `address` or RAY_ADDRESS, else a local one of
    `n_cpus` and `n_gpus` that lives as long as the block.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    if where.startswith("ray://"):
        raise DeviceError(
            f"--ray-address: got {where}, an address of Ray Client, over which Ray Data does not run: start the "
            "command on a machine of the cluster with --ray-address auto"
        )
    _check_port(where)
    store = STORE_BYTES + n_cpus * ACTOR_BYTES
    local = {"num_cpus": n_cpus, "num_gpus": n_gpus, "include_dashboard": False, "object_store_memory": store}
    options: dict[str, Any] = local if where == "local" else {}
    on_kill = signal.getsignal(signal.SIGTERM)
    try:
        with _no_stderr():  # the C++ part announces its log level
            ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        words = " ".join(str(error).split())[:300]
        raise DeviceError(f"cannot reach or start Ray at {where!r} ({words}): check --ray-address") from None
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_kill)  # Ray has replaced it
        yield ray
    finally:
        ray.shutdown()


def _check_port(address: str) -> None:
    """Whether somebody listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise DeviceError(
            f"nothing answers at {address} ({error_text(error)}): give --ray-address auto on a machine of the cluster, "
            "or the HOST:PORT that `ray start` printed"
        ) from None


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Discard the stderr of the whole process, C++ included."""
    sys.stderr.flush()
    stderr, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nothing)
