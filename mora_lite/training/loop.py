"""The training loop, for the encoder alone and for MoRA alike: anything that maps a batch of graphs to z-scores.

AdamW, linear warm-up then cosine decay, gradient clipping, and an exponential moving average of the weights, which is
validated and of which the best epoch's is kept. bfloat16 products where the processor is built for them. On CUDA the
whole step (forward, backward, clip, optimiser, average) is captured once in a CUDA graph and replayed on padded
batches: without that, training a small model is bound by kernel launches. Batches are put together in another thread,
a few ahead of the step.

A run can be killed at any moment and started again: order of the data and dropout depend on seed and epoch alone, and a
checkpoint holds weights, average and optimiser state.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..chem.graph import GraphBatch
from ..errors import InputError, check_range, first_line
from ..machine.capture import capture, run_aside
from ..machine.device import keep_freed_memory, training_autocast
from ..machine.files import write_tensors
from ..machine.prefetch import read_ahead
from .dataset import Dataset
from .losses import TargetStats, task_loss, validation_error
from .provenance import EpochLog, data_digest

SECONDS_BETWEEN_REPORTS = 2.0


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How weights are updated. encoder_lr_scale: factor of the learning rate for a pre-trained encoder."""

    peak_lr: float = 1e-3
    encoder_lr_scale: float = 1.0
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("peak_lr", "encoder_lr_scale", "weight_decay", "clip_norm"):
            check_range(name, getattr(self, name), 0)
        check_range("ema_decay", self.ema_decay, 0, 1)
        check_range("seed", self.seed, 0, 2**32)  # torch takes a million times as much


@dataclass(frozen=True)
class TrainConfig(OptimizerConfig):
    """One stage of training.

    epochs: passes over the molecules, at most; None where they are still to be chosen (`Recipe.with_epochs`).
    patience: epochs without a better validation error after which it stops; 0 for never.
    keep_start: whether the weights it starts from are kept when no epoch is better.
    huber: see `task_loss`.
    balanced: draw molecules by `Dataset.rarity`, with replacement, so that small tasks are seen as often as large ones;
    an epoch then is as many draws as there are molecules.
    """

    epochs: int | None
    batch_size: int = 512
    warmup_steps: int = 500
    patience: int = 0
    keep_start: bool = True
    dropout: float = 0.0
    huber: float = 0.0
    balanced: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("epochs", 1), ("batch_size", 1), ("warmup_steps", 0), ("patience", 0), ("huber", 0)):
            if (value := getattr(self, name)) is not None:
                check_range(name, value, least)
        check_range("dropout", self.dropout, 0, 1)


@dataclass(frozen=True)
class TrainProgress:
    """The state of a run after some steps.

    loss: mean since the epoch began.
    valid_error: `losses.validation_error` after the last whole epoch, or at the start.
    best_error: the lowest so far, whose weights are kept. Both errors are NaN when no validation molecule has a value.
    """

    step: int
    n_steps: int
    loss: float
    valid_error: float
    best_error: float
    mol_per_s: float
    seconds_left: float
    epoch_done: bool = True


def fit(
    model: nn.Module,
    train: Dataset,
    valid: Dataset,
    stats: TargetStats,
    settings: TrainConfig,
    folder: Path,
    device: torch.device,
    on_progress: Callable[[TrainProgress], None] = lambda _: None,
    origin: str = "",
) -> TrainProgress:
    """Train `model` in place and leave the averaged weights of the best epoch in it.

    train, valid: targets must be z-scores, or 0 and 1 for classes. on_progress: called every few seconds.
    Continues from `folder/checkpoint.safetensors` if that has the same settings, data and `origin`: a digest of what
    else the run depends on, such as the weights it starts from. Raises `InputError` where training ends in weights that
    are not finite.
    """
    per_epoch, n_epochs = len(train) // settings.batch_size, settings.epochs or 0
    n_steps = n_epochs * per_epoch
    assert n_steps, "fewer molecules than one batch, or epochs that are still to be chosen"
    keep_freed_memory()
    model.to(device).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = settings.dropout
    stats = stats.to(device)
    state = RunState(model, settings, data_digest(train, valid, stats, origin), device)
    shares = train.rarity(stats.weights.cpu().numpy()) if settings.balanced else None
    path = folder / "checkpoint.safetensors"
    progress = TrainProgress(state.load(path) or 0, n_steps, math.nan, state.error, state.best_error, math.nan, 0.0)
    log = EpochLog(folder, new=progress.step == 0)
    prepare, train_step = _make_step(model, state, train, settings, stats, device)
    if progress.step == 0 and settings.keep_start:
        state.record_validation(validate(model, state.ema_weights, valid, stats, device))
    for epoch in range(progress.step // per_epoch, n_epochs):
        if settings.patience and state.epochs_without_improvement >= settings.patience:
            break
        started, reported, losses = time.perf_counter(), time.perf_counter(), []
        order = _draw(len(train), shares, np.random.default_rng([settings.seed, epoch]))
        torch.manual_seed(settings.seed * 1_000_000 + epoch)  # a resumed run drops out what a straight one does
        with closing(read_ahead(_batches(train, order, settings.batch_size, prepare))) as batches:
            for step, (batch, targets) in enumerate(batches, epoch * per_epoch):
                state.set_learning_rate(step, scheduled_rate(step, n_steps, settings.warmup_steps))
                losses.append(train_step(batch, targets))
                if (now := time.perf_counter()) - reported > SECONDS_BETWEEN_REPORTS:
                    reported, rate, done = now, len(losses) * settings.batch_size / (now - started), step + 1
                    left = (n_steps - done) * settings.batch_size / rate
                    loss = torch.stack(losses).mean().item()
                    on_progress(TrainProgress(done, n_steps, loss, state.error, state.best_error, rate, left, False))
        loss = torch.stack(losses).mean().item()
        rate = len(losses) * settings.batch_size / (time.perf_counter() - started)
        state.record_validation(validate(model, state.ema_weights, valid, stats, device))
        left = (n_epochs - epoch - 1) * (time.perf_counter() - started)
        progress = TrainProgress((epoch + 1) * per_epoch, n_steps, loss, state.error, state.best_error, rate, left)
        log.add(progress)  # first: an epoch without a checkpoint is trained again, and logged again
        state.save(path, progress.step)
        on_progress(progress)
    state.load_best()
    return progress


def _draw(n: int, shares: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """The molecules of an epoch in order, int64 `[n]`: each once, or with these shares of the draws."""
    return rng.permutation(n) if shares is None else rng.choice(n, n, p=shares)


def _batches(train: Dataset, order: np.ndarray, batch_size: int, prepare: Preparation) -> Iterator[Prepared]:
    """The whole batches of an epoch; made in another thread, so nothing random may be in it."""
    for start in range(0, len(order) - batch_size + 1, batch_size):
        rows = np.sort(order[start : start + batch_size])
        yield prepare(train.graphs.select(rows).batch(), torch.from_numpy(train.targets[rows]))


def validate(
    model: nn.Module, weights: dict[str, Tensor], data: Dataset, stats: TargetStats, device: torch.device
) -> float:
    """`losses.validation_error` with `weights` in place of the model's; NaN without molecules."""
    if not len(data):
        return math.nan
    model.eval()
    with torch.no_grad():
        scores = predict_scores(lambda batch: torch.func.functional_call(model, weights, (batch,)), data, device)
    model.train()
    return validation_error(scores, torch.from_numpy(data.targets), stats)


@torch.no_grad()
def predict_scores(model: Callable[[GraphBatch], Tensor], data: Dataset, device: torch.device) -> Tensor:
    """Scores float32 `[N, P]` on the CPU, computed in the dtype of training."""
    scores = []
    for start in range(0, len(data), 2048):
        rows = np.arange(start, min(start + 2048, len(data)))
        batch = data.graphs.select(rows).batch(device)
        with training_autocast(device):
            scores.append(model(batch.rounded())[: len(rows)].float().cpu())
    return torch.cat(scores)


def scheduled_rate(step: int, n_steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate: a linear rise over `warmup_steps` (a tenth of a short run), then a cosine."""
    warmup = min(warmup_steps, max(n_steps // 10, 1))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * ((step - warmup) / max(n_steps - warmup, 1))))


class RunState:
    """Optimiser, averaged weights and validation errors of one run, and the checkpoint they are saved in.

    ema_weights: exponential moving average of the trained weights. best: that average after the best epoch.
    seconds: spent on training, where a run counts them.
    """

    def __init__(self, model: nn.Module, settings: OptimizerConfig, data: str, device: torch.device):
        self.settings = settings
        self.settings_json = json.dumps(asdict(settings))
        self.data = data
        self.model = model
        self.named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.ema_weights = {name: p.detach().clone() for name, p in self.named.items()}
        self.best = {name: p.clone() for name, p in self.ema_weights.items()}
        self.error, self.best_error, self.epochs_without_improvement = math.nan, math.nan, 0
        self.seconds = 0.0
        self.ema_rate = torch.zeros((), device=device)  # a tensor for the same reason as the learning rate
        encoder = [p for name, p in self.named.items() if name.startswith("encoder.")]
        others = [p for name, p in self.named.items() if not name.startswith("encoder.")]
        self.scales = [settings.encoder_lr_scale, 1.0]
        on_gpu = device.type == "cuda"
        # A captured step reads the learning rate from a tensor; a number would be frozen into the graph.
        groups = [
            {"params": group, "lr": torch.tensor(0.0, device=device) if on_gpu else 0.0} for group in (encoder, others)
        ]
        self.optimizer = torch.optim.AdamW(
            groups, betas=(0.9, 0.99), weight_decay=settings.weight_decay, fused=True, capturable=on_gpu
        )

    def set_learning_rate(self, step: int, share: float) -> None:
        """Set the learning rate of a step to a share of the peak, and the averaging rate that belongs to the step."""
        # The average forgets fast at first, or a short run would carry its first weights to the end.
        self.ema_rate.fill_(1 - min(self.settings.ema_decay, (1 + step) / (10 + step)))
        for group, scale in zip(self.optimizer.param_groups, self.scales, strict=True):
            value = self.settings.peak_lr * scale * share
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = value

    def update(self) -> None:
        """Clip, step, and move the average: everything after the backward pass."""
        nn.utils.clip_grad_norm_(self.named.values(), self.settings.clip_norm)
        self.optimizer.step()
        averages = list(self.ema_weights.values())
        change = torch._foreach_sub([p.detach() for p in self.named.values()], averages)
        torch._foreach_mul_(change, self.ema_rate)
        torch._foreach_add_(averages, change)

    def record_validation(self, error: float) -> None:
        """Keep the averaged weights if their validation error is the lowest so far; without any error, the latest."""
        self.error = error
        self.epochs_without_improvement += 1
        if math.isnan(self.best_error) or error < self.best_error:
            self.best = {name: p.clone() for name, p in self.ema_weights.items()}
            self.best_error, self.epochs_without_improvement = error, 0

    def load_best(self) -> None:
        """Put the kept weights into the model, for evaluation. Raises `InputError` where they are not finite."""
        if not all(bool(p.isfinite().all()) for p in self.best.values()):
            raise InputError("training diverged: the weights of its best epoch are not finite; lower peak_lr")
        self.model.load_state_dict(self.best, strict=False)
        self.model.eval()

    def save(self, path: Path, step: int) -> None:
        tensors = {f"weight.{n}": p.detach() for n, p in self.named.items()}
        tensors |= {f"average.{n}": p for n, p in self.ema_weights.items()}
        tensors |= {f"best.{n}": p for n, p in self.best.items()}
        for name, p in self.named.items():
            for key, value in self.optimizer.state[p].items():
                tensors[f"optimizer.{name}.{key}"] = value
        errors = json.dumps([self.error, self.best_error, self.epochs_without_improvement])
        notes = {"step": str(step), "settings": self.settings_json, "data": self.data, "judged": errors}
        write_tensors(path, tensors, notes | {"seconds": str(self.seconds)})

    def load(self, path: Path) -> int | None:
        """Read a checkpoint and return its step; None when there is none or it belongs to other settings or data.

        What it does not hold, such as the optimiser's numbers, stays as it is. Raises `InputError` when it is damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return None
        try:
            file = safe_open(path, "pt")
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} is damaged ({first_line(error)}); remove it to start again") from None
        with file:
            metadata, names = file.metadata() or {}, set(file.keys())
            settings = json.loads(metadata.get("settings", "{}"))
            if settings != json.loads(self.settings_json) or metadata["data"] != self.data:
                return None
            for name, p in self.named.items():
                parts = {"weight": p.data, "average": self.ema_weights[name], "best": self.best[name]}
                for part, tensor in parts.items():
                    if f"{part}.{name}" in names:
                        tensor.copy_(file.get_tensor(f"{part}.{name}"))
                if f"optimizer.{name}.step" in names:
                    keys = ("step", "exp_avg", "exp_avg_sq")
                    values = {k: file.get_tensor(f"optimizer.{name}.{k}") for k in keys}
                    self.optimizer.state[p] = {k: v.to(p.device) for k, v in values.items()}
        if "judged" in metadata:
            self.error, self.best_error, self.epochs_without_improvement = json.loads(metadata["judged"])
        self.seconds = float(metadata.get("seconds", 0.0))
        return int(metadata["step"])


Prepared = tuple[GraphBatch, Tensor]  # a batch and its targets, on the CPU, as a step takes them
Preparation = Callable[[GraphBatch, Tensor], Prepared]
StepFunction = Callable[[GraphBatch, Tensor], Tensor]


def _make_step(
    model: nn.Module,
    state: RunState,
    train: Dataset,
    settings: TrainConfig,
    stats: TargetStats,
    device: torch.device,
) -> tuple[Preparation, StepFunction]:
    """What makes a batch ready, in any thread, and one training step on it, captured where there is a GPU.

    A step returns the loss, float32 scalar on the device.
    """

    def eager(batch: GraphBatch, targets: Tensor) -> Tensor:
        """The plain step. Padding molecules have scores but no targets, and no part in the loss."""
        with training_autocast(device):
            scores = model(batch)
        loss = task_loss(scores[: len(targets)], targets, stats, settings.huber)
        loss.backward()
        state.update()
        state.optimizer.zero_grad(set_to_none=False)
        return loss.detach()

    if device.type != "cuda":
        return lambda batch, targets: (batch.rounded(), targets), eager
    return _capture_step(eager, train, settings, device)


def _capture_step(
    eager: StepFunction, train: Dataset, settings: TrainConfig, device: torch.device
) -> tuple[Preparation, StepFunction]:
    """The same step as one CUDA graph over batches padded to a size that nearly every batch fits.

    Batches come in pinned memory: the copy of one to the device then waits in the device's queue, and not the program
    for the device, which goes from step to step without a pause.
    """

    def capacity(counts: np.ndarray) -> int:
        enough = counts.mean() * settings.batch_size + 8 * counts.std() * settings.batch_size**0.5
        return 64 * math.ceil((enough + 64) / 64)

    n_atoms, n_bonds = capacity(train.graphs.n_atoms), capacity(2 * np.diff(train.graphs.bond_ptr))
    captured: tuple[torch.cuda.CUDAGraph, Tensor, GraphBatch, Tensor] | None = None  # with its loss and inputs
    warm_up_steps = 0

    def prepare(batch: GraphBatch, targets: Tensor) -> Prepared:
        if len(batch.atoms) < n_atoms and len(batch.bonds) <= n_bonds:
            batch = batch.padded(n_atoms, n_bonds)
        return batch.pinned(), targets.pin_memory()

    def step(batch: GraphBatch, targets: Tensor) -> Tensor:
        nonlocal captured, warm_up_steps
        fits = batch.n_graphs > len(targets)  # padded by one molecule
        if captured and fits:
            graph, loss, fixed_batch, fixed_targets = captured
            for name in batch.tensors:
                getattr(fixed_batch, name).copy_(getattr(batch, name), non_blocking=True)
            fixed_targets.copy_(targets, non_blocking=True)
            graph.replay()
            return loss.clone()
        batch, targets = batch.to(device), targets.to(device, non_blocking=True)
        if not fits:
            return eager(batch, targets)
        if warm_up_steps < 3:  # these are real steps of training
            warm_up_steps += 1
            return run_aside(lambda: eager(batch, targets), device)
        graph, loss = capture(lambda: eager(batch, targets), device, warm_up=False)
        captured = graph, loss, batch, targets
        graph.replay()
        return loss.clone()

    return prepare, step
