"""From tables to a text pack: rows, tokens and graphs, training within a budget, test, files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..adapter.lowrank import AdapterConfig
from ..errors import InputError
from ..fast.prepacked import prepack
from ..hub.bases import BASE_MODELS, resolve_base
from ..lm.base import NF4Source, load_decoder, open_nf4
from ..machine.device import choose_device, training_dtype
from ..machine.files import lock, sha256_of
from ..machine.workers import default_workers
from ..packs.manifest import TEXT_PACK
from ..training.pretrain import load_encoder
from ..training.provenance import run_metadata
from ..training.splits import KINDS, PARTS
from .answerer import Answerer
from .evaluation import answer_metrics, answer_rows
from .loop import TextProgress, TextRun, TextTrainConfig
from .model import TextModel, equal_size_rank
from .pack import BITS, TextPack, from_stored, load_weights, record_test, save_text_pack, to_stored
from .pairs import FEATURIZER, read_pairs
from .sequences import WIDTHS, Batches, Prompt, TokenizedPairs, load_tokenized_pairs, tokenize_pairs
from .tasks import ASK, QUESTIONS, task_shares, text_task

VARIANTS = ("mora", "static", "static-large", "prompt")  # static-large: static with as many trained numbers as mora
TOKENS_ON_CPU = 2048  # of a batch; on a GPU it is that of `TextTrainConfig`
MIN_BATCHES = 8  # in an epoch

OnNote = Callable[[str], None]
OnProgress = Callable[[TextProgress], None]


def train_text(
    task: str,
    tables: Sequence[str | Path],
    output: str | Path,
    *,
    minutes: float = 10,
    split: str | None = None,
    adapter: str = "mora",
    rank: int = 64,
    target_modules: Sequence[str] = ("ffn",),
    layers: Sequence[int] = (),
    copies: int = 6,
    base: str = "smollm2-135m",
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    config: TextTrainConfig | None = None,
    test_rows: int | None = None,
    tests: Sequence[str | Path] = (),
    start: str | Path | None = None,
    bits: int = 16,
    on_note: OnNote = lambda _note: None,
    on_progress: OnProgress = lambda _progress: None,
) -> TextPack:
    """Train an adapter for `task` and write it to `output` as a text pack; what `mora-lite train-text` does.

    task: of `tasks.TEXT_TASKS`, or several directions of reactions for one pack, as `tasks.task_shares` reads them.
    tables: of any kind that `open_library` reads. split, tests: what is held out, see `pairs.read_pairs`.
    minutes: budget of training. config: in place of `minutes` and `seed`, for a budget of steps or other settings.
    adapter, rank, target_modules, layers, start: see `start_run`. bits: of a weight in the pack, 16, 8 or 4.
    copies: orders in which a training row is written. base: a name known to `pull`, a path, or owner/name.
    test_rows: the first so many held-out rows are answered for the metrics, None for all; of each direction and table
    where a pack learns several.

    Batches are made smaller for a CPU and for few rows. Tokens and a checkpoint are kept in `output` + `.run`; started
    again with the same arguments, training continues from them, also after Ctrl-C. The metrics are those of the pack's
    own weights, written into it at the end. Raises `InputError` for tables that cannot be trained on.
    """
    shares, chosen, output = task_shares(task), choose_device(device), Path(output)
    _check_options(split, minutes, bits)
    config = config or TextTrainConfig(seconds=60 * minutes, seed=seed)
    TEXT_PACK.check_free(output, force)
    source = open_nf4(path := resolve_base(base))  # before the work: it may have to be pulled first
    metadata = text_metadata(list(shares), [*map(Path, tables)], source.tokenizer(), split, [*map(Path, tests)])
    metadata |= {"base": source.source_sha256, "copies": copies, "seed": config.seed}
    folder = output.with_name(output.name + ".run")
    data = _tokenized(folder / "sequences.npz", metadata, tables, source, split, tests, on_note)
    sizes: dict[str, Any] = {"rank": rank, "target_modules": target_modules, "layers": layers}
    with lock(folder):
        run, prompt = start_run(
            data, source, fit_tokens(config, data, chosen), folder, chosen, adapter, shares=shares, start=start, **sizes
        )
        model = _train(run, bits, on_note, on_progress)
        entry = {"name": _base_name(base, path), "sha256": source.source_sha256}
        facts = _provenance(run, data, adapter, shares, chosen)
        pack = _save(output, model, prompt, data, entry, facts, bits, force)
        prepack(model.decoder)  # from here on it only answers
        if metrics := _test(Answerer(model, source.tokenizer(), prompt), data, test_rows, on_note):
            record_test(pack, metrics)
    return pack


def _save(
    output: Path,
    model: TextModel,
    prompt: Prompt,
    data: TokenizedPairs,
    base: dict[str, str],
    provenance: dict[str, Any],
    bits: int,
    force: bool,
) -> TextPack:
    return save_text_pack(
        output,
        model,
        task=data.metadata["task"],
        prompt=prompt,
        base=base,
        provenance=provenance,
        questions=data.metadata.get("questions"),
        asked=data.metadata.get("asked", ()),
        bits=bits,
        force=force,
    )


def _provenance(
    run: TextRun, data: TokenizedPairs, adapter: str, shares: Mapping[str, float], device: torch.device
) -> dict[str, Any]:
    """What a pack records of its training."""
    known = ("tables", "tests", "held_out")
    facts: dict[str, Any] = {name: data.metadata[name] for name in known if name in data.metadata}
    facts |= {
        "seed": run.settings.seed,
        "seconds": run.state.seconds,
        "steps": run.step,
        "variant": adapter,
        "copies": data.metadata["copies"],
        "rows": _rows_by_part(data),
        "test": {},
        "trained": {name: value for name, value in run_metadata(device).items() if name != "commit"},
    }
    facts |= {"shares": dict(shares)} if len(shares) > 1 else {}
    return facts | ({"started_from": run.start} if run.start else {})


def _base_name(base: str, path: Path) -> str:
    """Of a path the name alone: the rest says where on this machine it was."""
    return base if base in BASE_MODELS or not Path(base).exists() else path.name


def _check_options(split: str | None, minutes: float, bits: int) -> None:
    if split in KINDS:
        raise InputError(
            f"split: got {split}, expected the name of a column; without one, the task decides what is held out"
        )
    if not minutes > 0:
        raise InputError(f"minutes: got {minutes}, expected more than 0")
    if bits not in BITS:
        raise InputError(f"bits: got {bits}, expected one of {', '.join(map(str, BITS))}")


def _rows_by_part(data: TokenizedPairs) -> dict[str, int]:
    return {part: int((data.part == i).sum()) for i, part in enumerate(PARTS)}


def _train(run: TextRun, bits: int, on_note: OnNote, on_progress: OnProgress) -> TextModel:
    """Spend what is left of the budget; returns the model with the weights that the pack will have."""
    if run.batches.n_skipped:
        on_note(f"left out: {run.batches.n_skipped:,} training rows of more than {WIDTHS[-1]} tokens")
    if run.step:
        on_note(f"going on after {run.step:,} steps, {run.state.seconds:,.0f} s")
    if run.done < 1:
        try:
            run.train(on_progress=on_progress)
        except (KeyboardInterrupt, SystemExit):
            on_note(
                f"stopped after {run.step:,} steps, {run.state.seconds:,.0f} s; the same command goes on from there"
            )
            raise
    model = run.load_ema_weights()
    trained = model.trained()
    for name, weights in from_stored(to_stored(trained, bits)).items():
        trained[name].copy_(weights)  # as the pack has them, so that the metrics are its own
    return model


def _test(answerer: Answerer, data: TokenizedPairs, n_rows: int | None, on_note: OnNote) -> dict[str, Any]:
    """Metrics of the answers to the first `n_rows` test rows, None for all; none without such rows."""
    held_out = np.flatnonzero(data.part == PARTS.index("test"))
    # Of several directions the first rows of each, and of each table.
    origins = data.origin[held_out] if "questions" in data.metadata else np.zeros(len(held_out), np.uint8)
    test = np.concatenate([held_out[:0], *(held_out[origins == origin][:n_rows] for origin in np.unique(origins))])
    if not len(test):
        on_note("there are no test rows, so there are no metrics")
        return {}
    on_note(f"answering {len(test):,} test rows" + (f" of {len(held_out):,}" if len(test) < len(held_out) else ""))
    return answer_metrics(data, test, answer_rows(answerer, data, test))


def text_metadata(
    tasks: Sequence[str],
    tables: Sequence[Path],
    tokenizer: Any,
    split_column: str | None,
    tests: Sequence[Path] = (),
) -> dict[str, Any]:
    """What tokenized pairs record of the tables that they were made of."""
    for file in [*tables, *tests]:
        if not file.is_file():
            raise InputError(f"{file}: no such table; give files of tables: CSV, TSV, XLSX, Parquet or SDF")
    names = Counter(file.name for file in dict.fromkeys([*tables, *tests]))
    if same := [name for name, n in names.items() if n > 1]:
        raise InputError(f"{same[0]}: two tables have this name, by which their rows are counted; rename one")
    several = len(tasks) > 1
    task = ASK if several else tasks[0]
    # Several directions are of the same reactions, so all have what the first one is held out by.
    rule = split_column or text_task("forward" if several else task).held_out
    return {
        "task": task,
        "template": text_task(task).template,
        "end": tokenizer.eos_token_id,
        "held_out": rule,
        "tables": {path.name: sha256_of(path) for path in tables},
        "vocabulary": len(tokenizer),
        "featurizer": FEATURIZER.as_dict(),
        **({"questions": {name: QUESTIONS[name] for name in tasks}} if several else {}),
        **({"tests": {path.name: sha256_of(path) for path in tests}} if tests else {}),
    }


def _tokenized(
    path: Path,
    metadata: dict[str, Any],
    tables: Sequence[str | Path],
    source: NF4Source,
    split_column: str | None,
    tests: Sequence[str | Path],
    on_note: OnNote,
) -> TokenizedPairs:
    """The tables as tokens and graphs: those in `path` if they are of the same tables, else made and written there."""
    data = load_tokenized_pairs(path) if path.exists() else None
    if data is None or {name: data.metadata.get(name) for name in metadata} != metadata:
        tasks = list(metadata.get("questions", [metadata["task"]]))
        pairs = read_pairs(tasks, tables, split_column, on_note, tests)
        on_note(f"preparing {len(pairs):,} rows")
        numbers = {"copies": metadata["copies"], "seed": metadata["seed"], "processes": default_workers()}
        data = tokenize_pairs(pairs, source.tokenizer(), metadata, **numbers)
        path.parent.mkdir(parents=True, exist_ok=True)
        data.save(path)
    rows = _rows_by_part(data)
    on_note("rows: " + ", ".join(f"{n:,} {part}" for part, n in rows.items()))
    if not rows["train"]:
        raise InputError("training rows: got none; all are held out, more rows are needed")
    return data


def fit_tokens(config: TextTrainConfig, data: TokenizedPairs, device: torch.device) -> TextTrainConfig:
    """The config with batches small enough for a CPU, and for `MIN_BATCHES` of them in an epoch."""
    rows = np.flatnonzero(data.part == 0)
    lengths = np.diff(data.source_ptr) + np.diff(data.target_ptr)
    limit = config.tokens if device.type == "cuda" else min(config.tokens, TOKENS_ON_CPU)
    fitting = int(lengths[data.first[rows]].sum()) // MIN_BATCHES
    return replace(config, tokens=max(WIDTHS[-1], min(limit, fitting)))


def start_run(
    data: TokenizedPairs,
    source: NF4Source,
    settings: TextTrainConfig,
    folder: Path,
    device: torch.device,
    variant: str,
    *,
    rank: int,
    target_modules: Sequence[str] = ("ffn",),
    layers: Sequence[int] = (),
    shares: Mapping[str, float] | None = None,
    start: str | Path | None = None,
) -> tuple[TextRun, Prompt]:
    """A run over the base `source`, new or continued in `folder`, and its prompt.

    variant: of `VARIANTS`. rank: of each branch; for static-large, that of the mora it is as large as.
    target_modules, layers: of the branches, as in `AdapterConfig`; all layers without `layers`.
    shares: of the draws, see `Batches`. start: a text pack whose weights it starts from; without it the encoder starts
    from the one that ships. Raises `InputError` when `data` was made for another tokenizer.
    """
    if variant not in VARIANTS:
        raise InputError(f"adapter: got {variant!r}, expected {', '.join(VARIANTS)}")
    # One library for attention in all runs: cuDNN's would be planned anew for each shape.
    torch.backends.cuda.enable_cudnn_sdp(False)
    tokenizer = source.tokenizer()
    if len(tokenizer) != data.metadata["vocabulary"]:
        raise InputError(
            f"prepared rows: made for {data.metadata['vocabulary']:,} tokens, but the base has {len(tokenizer):,}; "
            "prepare them again"
        )
    decoder = load_decoder(source, training_dtype(device), device)
    torch.manual_seed(settings.seed)
    encoder = load_encoder()
    sizes = AdapterConfig(
        encoder_width=encoder.width,
        encoder_layers=len(encoder.layers),
        adapted_layers=len(layers) or decoder.sizes.layers,
        rank=rank,
        alpha=2.0 * rank,
        target_modules=tuple(target_modules),
        layers=tuple(layers),
    )
    if variant == "static-large":
        rank = equal_size_rank(sizes, decoder.sizes)
        sizes = replace(sizes, rank=rank, alpha=2.0 * rank)
    kind = variant.removesuffix("-large")
    model = TextModel(sizes, decoder, kind)
    if kind != "static":
        model.encoder.load_state_dict(encoder.state_dict())
    prompt = Prompt.of_template(data.metadata["template"], data.metadata["end"])
    origin = load_weights(model, start, source.source_sha256) if start is not None else ""
    rows = np.flatnonzero(data.part == 0)
    batches = Batches(data, rows, prompt.pieces(tokenizer), settings.tokens, settings.seed, shares)
    return TextRun(model, batches, settings, folder, device, origin), prompt
