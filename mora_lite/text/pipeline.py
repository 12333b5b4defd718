"""From tables to a text pack: rows, tokens and graphs, training within a budget, test, files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..adapter.lowrank import AdapterConfig
from ..errors import InputError
from ..hub.bases import BASE_MODELS, resolve_base
from ..lm.base import NF4Source, load_decoder, open_nf4
from ..machine.device import training_dtype
from ..machine.files import sha256_of
from ..machine.workers import default_workers
from ..packs.manifest import TEXT_PACK
from ..training.pipeline import run_facts
from ..training.pretrain import load_encoder
from .answerer import Answerer
from .evaluation import answer_rows, figures_of_answers
from .loop import TextProgress, TextRun, TextTrainConfig
from .model import TextModel, equal_size_rank
from .pack import TextPack, save_text_pack
from .pairs import PARTS
from .sequences import WIDTHS, Batches, Prompt, TokenizedPairs, load_tokenized_pairs, tokenize_pairs
from .tasks import read_pairs, text_task

VARIANTS = ("mora", "static", "static-large", "prompt")  # static-large: static with as many trained numbers as mora
TOKENS_ON_CPU = 2048  # of a batch; on a GPU it is that of `TextTrainConfig`
MIN_BATCHES = 8  # in an epoch

Tell = Callable[[str], None]


def train_text_pack(
    task: str,
    tables: Sequence[Path],
    out: Path,
    device: torch.device,
    *,
    settings: TextTrainConfig,
    base: str = "smollm2-135m",
    variant: str = "mora",
    rank: int = 64,
    target_modules: tuple[str, ...] = ("ffn",),
    layers: tuple[int, ...] = (),
    copies: int = 6,
    split_column: str | None = None,
    force: bool = False,
    tell: Tell = lambda _line: None,
    on_progress: Callable[[TextProgress], None] = lambda _: None,
) -> TextPack:
    """Train an adapter for `task` (`text_tasks.TEXT_TASKS`) on `tables` and write it to `out` as a text pack.

    The tokens and a checkpoint lie in `out` + `.run`; started again with the same arguments, it goes on where it was.
    settings: with the budget; its batches are made smaller for a CPU and for few rows. variant, rank, target_modules,
    layers: as for `start_run`. copies: orders in which a training row is written. `tell` gets lines for people.
    The figures in the pack are of its own weights, on the rows held out for the test. Raises `InputError` for tables
    that cannot be trained on; where Ctrl-C ends it, a checkpoint has been written.
    """
    TEXT_PACK.check_free(out, force)
    path = resolve_base(base)  # before the work: it may have to be pulled first
    source = open_nf4(path)
    run_folder = out.with_name(out.name + ".run")
    run_folder.mkdir(parents=True, exist_ok=True)
    data = _prepared(run_folder / "sequences.npz", task, tables, source, copies, settings.seed, split_column, tell)
    parts = {part: int((data.part == i).sum()) for i, part in enumerate(PARTS)}
    tell("rows: " + ", ".join(f"{n:,} {part}" for part, n in parts.items()))
    if not parts["train"]:
        raise InputError("training rows: got none; all are held out, more rows are needed")
    settings = fit_tokens(settings, data, device)
    run, prompt = start_run(
        data,
        source,
        settings,
        run_folder,
        device,
        variant=variant,
        rank=rank,
        target_modules=target_modules,
        layers=layers,
    )
    if run.batches.n_skipped:
        tell(f"left out: {run.batches.n_skipped:,} training rows of more than {WIDTHS[-1]} tokens")
    if run.step:
        tell(f"going on after {run.step:,} steps, {run.state.seconds:,.0f} s")
    if run.done < 1:
        try:
            run.train(on_progress=on_progress)
        except (KeyboardInterrupt, SystemExit):
            tell(f"stopped after {run.step:,} steps, {run.state.seconds:,.0f} s; the same command goes on from there")
            raise
    model = run.load_ema_weights()
    for weights in model.trained().values():
        weights.copy_(weights.half())  # as the pack has them, so that the figures are its own
    test, figures = np.flatnonzero(data.part == PARTS.index("test")), {}
    if len(test):
        tell(f"answering {len(test):,} test rows")
        answers = answer_rows(Answerer(model, source.tokenizer(), prompt), data, test)
        figures = figures_of_answers(data, test, answers)
    else:
        tell("there are no test rows, so there are no figures")
    known = base in BASE_MODELS or not Path(base).exists()
    return save_text_pack(
        out,
        model,
        task=task,
        prompt=prompt,
        # A path is nobody else's business.
        base={"name": base if known else path.name, "sha256": source.source_sha256},
        provenance={
            **text_provenance(run, data),
            "variant": variant,
            "copies": copies,
            "rows": parts,
            "test": figures,
            "trained": {name: value for name, value in run_facts(device).items() if name != "commit"},
        },
        force=force,
    )


def text_facts(task: str, tables: Sequence[Path], tokenizer: Any, split_column: str | None) -> dict[str, Any]:
    """What prepared sequences keep of the tables that they were made of."""
    return {
        "task": task,
        "template": text_task(task).template,
        "end": tokenizer.eos_token_id,
        "held_out": split_column or text_task(task).held_out,
        "tables": {path.name: sha256_of(path) for path in tables},
        "vocabulary": len(tokenizer),
    }


def text_provenance(run: TextRun, data: TokenizedPairs) -> dict[str, Any]:
    """What a pack keeps of its training."""
    return {
        "tables": data.facts["tables"],
        "held_out": data.facts["held_out"],
        "seed": run.settings.seed,
        "seconds": run.state.seconds,
        "steps": run.step,
    }


def _prepared(
    path: Path,
    task: str,
    tables: Sequence[Path],
    source: NF4Source,
    copies: int,
    seed: int,
    split_column: str | None,
    tell: Tell,
) -> TokenizedPairs:
    """The tables as tokens and graphs: those in `path` if they are of the same, else made and written there."""
    text_task(task)
    missing = [table for table in tables if not table.is_file()]
    if missing:
        raise InputError(f"{missing[0]}: no such table; give CSV files, plain or .gz")
    tokenizer = source.tokenizer()
    facts = {**text_facts(task, tables, tokenizer, split_column), "base": source.source_sha256}
    wanted = {**facts, "copies": copies, "seed": seed}
    if path.exists():
        held = load_tokenized_pairs(path)
        if {name: held.facts.get(name) for name in wanted} == wanted:
            return held
    pairs = read_pairs(task, tables, split_column, tell)
    tell(f"preparing {len(pairs):,} rows")
    data = tokenize_pairs(pairs, tokenizer, facts, copies=copies, seed=seed, processes=default_workers())
    data.save(path)
    return data


def fit_tokens(settings: TextTrainConfig, data: TokenizedPairs, device: torch.device) -> TextTrainConfig:
    """The settings with batches small enough for a CPU, and for `MIN_BATCHES` of them in an epoch."""
    rows = np.flatnonzero(data.part == 0)
    lengths = np.diff(data.source_ptr) + np.diff(data.target_ptr)
    most = settings.tokens if device.type == "cuda" else min(settings.tokens, TOKENS_ON_CPU)
    fitting = int(lengths[data.first[rows]].sum()) // MIN_BATCHES
    return replace(settings, tokens=max(WIDTHS[-1], min(most, fitting)))


def start_run(
    data: TokenizedPairs,
    source: NF4Source,
    settings: TextTrainConfig,
    folder: Path,
    device: torch.device,
    *,
    variant: str = "mora",
    rank: int = 64,
    target_modules: tuple[str, ...] = ("ffn",),
    layers: tuple[int, ...] = (),
    hypernet_width: int = 256,
) -> tuple[TextRun, Prompt]:
    """A run over the base `source`, new or going on in `folder`, and its prompt.

    variant: of `VARIANTS`. rank: of each branch; for static-large, that of the mora it is as large as.
    target_modules, layers: of the branches, as in `AdapterConfig`; all layers without `layers`.
    The encoder starts from the one that ships. Raises `InputError` when `data` was made for another tokenizer.
    """
    if variant not in VARIANTS:
        raise InputError(f"adapter: got {variant!r}, expected {', '.join(VARIANTS)}")
    # One library for attention in all runs: cuDNN's would be planned anew for each shape.
    torch.backends.cuda.enable_cudnn_sdp(False)
    tokenizer = source.tokenizer()
    if len(tokenizer) != data.facts["vocabulary"]:
        raise InputError(
            f"prepared rows: made for {data.facts['vocabulary']:,} tokens, but the base has {len(tokenizer):,}; "
            "prepare them again"
        )
    decoder = load_decoder(source, training_dtype(device), device)
    torch.manual_seed(settings.seed)
    encoder = load_encoder()
    n_layers, depth = len(layers) or decoder.sizes.layers, len(encoder.layers)
    sizes = AdapterConfig(encoder.width, depth, hypernet_width, 2, n_layers, rank, alpha=2.0 * rank)
    sizes = replace(sizes, target_modules=target_modules, layers=layers)
    if variant == "static-large":
        rank = equal_size_rank(sizes, decoder.sizes)
        sizes = replace(sizes, rank=rank, alpha=2.0 * rank)
    kind = variant.removesuffix("-large")
    model = TextModel(sizes, decoder, kind)
    if kind != "static":
        model.encoder.load_state_dict(encoder.state_dict())
    prompt = Prompt.of_template(data.facts["template"], data.facts["end"])
    batches = Batches(data, np.flatnonzero(data.part == 0), prompt.pieces(tokenizer), settings.tokens, settings.seed)
    return TextRun(model, batches, settings, folder, device), prompt
