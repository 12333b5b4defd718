"""Training for text within a budget of time: the schedule is laid over the seconds (or steps), not over epochs.

AdamW with an average of the weights, as in `training/loop.py`, whose state and checkpoint this uses. On CUDA each width
of batch is one CUDA graph of the whole step; another thread makes the batches while the GPU works. A run that was
stopped continues from its checkpoint with the batches that it had not seen.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..lm.layer_ops import OPS, choose_layer_ops
from ..machine.capture import capture, run_aside
from ..machine.device import keep_freed_memory
from ..machine.files import write_tensors
from ..machine.prefetch import read_ahead
from ..machine.progress import report
from ..machine.signals import deferred_signals
from ..training.loop import OptimizerConfig, RunState
from .model import TextModel
from .sequences import Batches, TextBatch

WARM_UP_STEPS = 2  # of each width before its step is captured; they are real steps of training
STEPS_BETWEEN_LOOKS = 10  # at the loss, which waits for the GPU: so far may Python run ahead of it
SECONDS_BETWEEN_REPORTS = 20.0
SECONDS_BETWEEN_CHECKPOINTS = 120.0


@dataclass(frozen=True)
class TextTrainConfig(OptimizerConfig):
    """One run of training.

    seconds, steps: its budget, one of the two; the other is 0.
    tokens: of a batch, padding included.
    warmup: share of the budget with a rising learning rate.
    """

    seconds: float = 0.0
    steps: int = 0
    tokens: int = 12_288
    warmup: float = 0.03
    encoder_lr_scale: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.seconds, self.steps) < 0 or (self.seconds > 0) == (self.steps > 0):
            raise InputError(f"budget: got {self.seconds} seconds and {self.steps} steps; expected one of them above 0")

    def rate(self, done: float) -> float:
        """Share of the peak learning rate when the share `done` of the budget is spent."""
        if done < self.warmup:
            return max(done, 1e-3) / self.warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - self.warmup) / (1 - self.warmup))))


@dataclass(frozen=True)
class TextProgress:
    """The state of a run after some steps.

    done: share of the budget that is spent.
    loss, tokens_per_s: mean since the last report, in nats for each answer token, and without padding.
    seconds: spent on training, earlier parts of a resumed run included.
    """

    step: int
    epoch: int
    done: float
    loss: float
    tokens_per_s: float
    seconds: float


class TextRun:
    """One run of training in `folder`.

    start: what the weights started from, for the record.
    """

    def __init__(
        self,
        model: TextModel,
        batches: Batches,
        settings: TextTrainConfig,
        folder: Path,
        device: torch.device,
        start: str = "",
    ):
        keep_freed_memory()
        report("compiling what training needs")
        self.model, self.batches, self.settings, self.device = model.to(device).train(), batches, settings, device
        self.model.decoder.use_ops(choose_layer_ops(device))
        self.path, self.short_path = folder / "checkpoint.safetensors", folder / "short.safetensors"
        self.start = start
        self.state = RunState(model, settings, _fingerprint(model, batches, start), device)
        self.step = self._load()
        self.train_step = _Step(model, self.state, batches, device)
        self.compiled = False

    @property
    def done(self) -> float:
        """Share of the budget that is spent."""
        settings = self.settings
        return self.state.seconds / settings.seconds if settings.seconds else self.step / settings.steps

    def train(self, *, on_progress: Callable[[TextProgress], None] = lambda _: None) -> None:
        """Train until the budget is spent; then save.

        The first step, which compiles for as long as dozens of others take, is not counted. Ctrl-C ends it after the
        current step, and takes effect once the checkpoint is written.
        """
        with deferred_signals() as signals:
            self._train(on_progress, signals)

    def _train(self, on_progress: Callable[[TextProgress], None], signals: list[int]) -> None:
        state, started, before = self.state, time.perf_counter(), self.state.seconds
        reported, saved = started, started
        losses: list[Tensor] = []
        tokens, paused = 0, 0.0
        with closing(read_ahead(self._batches(), 4)) as stream:
            while self.done < 1 and not signals:
                epoch, n_tokens, batch = next(stream)
                state.set_learning_rate(self.step, self.settings.rate(self.done))
                losses.append(self.train_step(batch))
                self.step += 1
                tokens += n_tokens
                if self.step % STEPS_BETWEEN_LOOKS == 0:
                    losses[-1].item()
                now = time.perf_counter()
                if not self.compiled:
                    self.compiled, started, reported, saved, tokens = True, now, now, now, 0
                state.seconds = before + now - started - paused
                if now - reported > SECONDS_BETWEEN_REPORTS:
                    loss = torch.stack(losses).mean().item()
                    spent = time.perf_counter() - reported
                    on_progress(TextProgress(self.step, epoch, self.done, loss, tokens / spent, state.seconds))
                    reported, tokens = time.perf_counter(), 0
                    losses.clear()
                if now - saved > SECONDS_BETWEEN_CHECKPOINTS:
                    self._save()
                    saved = time.perf_counter()
                    paused += saved - now
            if losses:
                loss = torch.stack(losses).mean().item()
                now = time.perf_counter()
                state.seconds = before + now - started - paused
                rate = tokens / max(now - reported, 1e-9)
                on_progress(TextProgress(self.step, epoch, self.done, loss, rate, state.seconds))
        self._save()

    def _save(self) -> None:
        """Write the checkpoint; and the short one, with weights and their average in 16 bits and no optimiser, which
        goes on elsewhere: a fifth of the bytes.
        """
        state = self.state
        state.save(self.path, self.step)
        tensors = {f"weight.{name}": p.detach().half() for name, p in state.named.items()}
        tensors |= {f"average.{name}": p.half() for name, p in state.ema_weights.items()}
        notes = {"step": str(self.step), "settings": state.settings_json, "data": state.data}
        write_tensors(self.short_path, tensors, {**notes, "seconds": str(state.seconds)})

    def _load(self) -> int:
        """The step of the checkpoint that is there, or else of the short one, whose optimiser starts anew; 0 without.

        Raises `InputError` where it is of another run.
        """
        path = self.path if self.path.exists() else self.short_path
        step = self.state.load(path)
        if step is None and path.exists():
            raise InputError(
                f"{path} belongs to a run with other settings, data or adapters (another --minutes too); use another "
                "folder or remove it"
            )
        return step or 0

    def _batches(self) -> Iterator[tuple[int, int, TextBatch]]:
        """Epoch, tokens without padding, and the batch; from the first that has not been trained on.

        For a GPU in pinned memory, from which the batch is copied while the GPU works.
        """
        orders = ((number, *cut) for number in count() for cut in self.batches.epoch(number))
        for number, width, rows, copies in islice(orders, self.step, None):
            batch = self.batches.make(width, rows, copies)
            batch = batch.pinned() if self.device.type == "cuda" else batch
            yield number, int(self.batches.lengths[copies].sum()), batch

    def load_ema_weights(self) -> TextModel:
        """Put the averaged weights into the model for good, and return it in evaluation mode, with the plain functions
        that a pack answers with.
        """
        with torch.no_grad():
            for name, p in self.state.named.items():
                p.copy_(self.state.ema_weights[name])
        self.model.decoder.use_ops(OPS)
        return self.model.eval()


def _fingerprint(model: TextModel, batches: Batches, start: str) -> str:
    """SHA-256 of the data and of what is trained on it."""
    digest = hashlib.sha256(json.dumps([model.sizes.as_dict(), model.kind, batches.tokens, batches.seed]).encode())
    digest.update(json.dumps([batches.before, batches.between, batches.end]).encode())
    digest.update(str(batches.data.metadata.get("base", "")).encode())
    for array in (batches.data.source, batches.data.target, batches.rows):
        digest.update(array.tobytes())
    if start or len(batches.groups) > 1:
        digest.update(json.dumps([start, *(n for _, n in batches.groups)]).encode())
    return digest.hexdigest()


class _Step:
    """One training step, captured for each width on a GPU; returns the loss, float32 scalar on the device."""

    def __init__(self, model: TextModel, state: RunState, batches: Batches, device: torch.device):
        self.model, self.state, self.batches, self.device = model, state, batches, device
        self.can_capture = device.type == "cuda"
        self.seen: dict[int, int] = {}
        self.captured: dict[int, tuple[torch.cuda.CUDAGraph, TextBatch, Tensor]] = {}
        # One pool for all: they run one after the other, so each may use the memory of the others.
        self.pool = torch.cuda.graph_pool_handle() if self.can_capture else None

    def __call__(self, batch: TextBatch) -> Tensor:
        width = batch.ids.shape[1]
        if not self.can_capture or not self._is_standard(width, batch):
            return self._run(batch.to(self.device))
        if width in self.captured:
            graph, inputs, loss = self.captured[width]
            for fixed, new in zip(inputs.tensors(), batch.tensors(), strict=True):
                fixed.copy_(new, non_blocking=True)
            graph.replay()
            return loss.clone()
        self.seen[width] = self.seen.get(width, 0) + 1
        inputs = batch.to(self.device)
        if self.seen[width] <= WARM_UP_STEPS:
            return run_aside(lambda: self._run(inputs), self.device)
        return self._capture(width, inputs)

    def _capture(self, width: int, inputs: TextBatch) -> Tensor:
        """Capture the step for batches of this width, and run it once."""
        try:
            graph, loss = capture(lambda: self._run(inputs), self.device, pool=self.pool, warm_up=False)
        except RuntimeError as error:
            logging.getLogger("mora_lite").warning("the training step cannot be captured: %s", error)
            self.can_capture = False
            return self._run(inputs)
        self.captured[width] = graph, inputs, loss
        graph.replay()  # the capture has not run it
        return loss.clone()

    def _is_standard(self, width: int, batch: TextBatch) -> bool:
        graphs, capacity = batch.graphs, self.batches.capacity.get(width, (0, 0, 0, 0))
        sizes = len(batch.label_positions), len(graphs.atoms), len(graphs.bonds), graphs.longest, len(batch.ids)
        return sizes == (*capacity, self.batches.size(width))

    def _run(self, batch: TextBatch) -> Tensor:
        loss = self.model(batch)
        loss.backward()
        self.state.update()
        self.state.optimizer.zero_grad(set_to_none=False)
        return loss.detach()
