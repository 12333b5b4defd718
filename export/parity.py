"""The parity gate: an exported model must give the numbers of the model it was made from, or there is no export.

Torch in float32, by the plain path, is compared with ONNX Runtime on the written file, and with the evaluator of the
onnx package, which shares no code with either, on small cases.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from ..adapter.hypernet import Tokens
from ..errors import ExportError
from ..scoring.scorer import Scorer
from ..scoring.tasks import Task
from .featurizer import model_inputs
from .probe import Case, probe_cases, small_cases

THREADS = 4  # more than one, so that operators that lose sums between threads show it
ENCODER_LIMIT = 1e-4  # largest difference of a token's number
SCORE_LIMIT = 1e-3  # largest difference of a score, of the task's deviation
# Of the reduced encoders the tokens go on through the float32 scorer: the rank correlation of the scores of molecules
# with those of the float32 encoder, of the task where it is least.
RANK_LIMITS = {"fp16": 0.999, "int8": 0.97}
# Of tokens, in the reference evaluator: on a CPU, ONNX Runtime computes float16 in float32.
FP16_LIMIT = 0.05

Run = Callable[[dict[str, np.ndarray]], Sequence[np.ndarray]]


@dataclass
class Difference:
    """The largest difference found so far, where, and among how many molecules and batches."""

    limit: float
    largest: float = 0.0
    case: str = ""
    molecules: int = 0
    batches: int = 0

    def add(self, case: Case, got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
        for part, reference in zip(got, expected, strict=True):
            difference = float(np.abs(part.astype(np.float64) - reference).max())
            if not difference <= self.largest:  # NaN too
                self.largest, self.case = difference, case.name
        self.molecules += len(case.graphs)
        self.batches += 1

    def report(self) -> dict[str, Any]:
        return {
            "largest_difference": self.largest,
            "limit": self.limit,
            "where": self.case,
            "molecules": self.molecules,
            "batches": self.batches,
        }


@dataclass
class Expected:
    """What torch gives for the cases, computed once for all models that are compared.

    tokens: of atoms and molecules, for each case. scores: z-scores of all tasks, for each case.
    """

    scorer: Scorer
    cases: Sequence[Case]
    tokens: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        for case in self.cases:
            batch = case.graphs.batch()
            with torch.inference_mode():
                tokens = self.scorer.encode(batch)
                self.tokens.append((tokens.values[: -batch.n_graphs].numpy(), tokens.molecules.numpy()))
                self.scores.append(self.score(tokens).numpy())

    def score(self, tokens: Tokens) -> torch.Tensor:
        """z-scores of all tasks, from an encoder's tokens."""
        scorer = self.scorer
        hidden = scorer.upper.score(scorer.prompts, scorer.hypernet(tokens), scorer.c, scorer.scale)
        return scorer.read_out(hidden, tokens.molecules)


def feed(case: Case, *, tasks: bool) -> dict[str, np.ndarray]:
    """The inputs of a model for a case."""
    inputs = model_inputs(case.graphs)
    return inputs | {"task_index": np.array(case.tasks, np.int64)} if tasks else inputs


def session_run(path: Path) -> Run:
    """The model in ONNX Runtime on the CPU. Raises `ExportError` when it does not load."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # there may be fewer cores than threads
    options.log_severity_level = 3  # the error reports a failure, once
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"{path.name}: onnxruntime {onnxruntime.__version__} cannot load it: {error}") from None
    return lambda inputs: list(session.run(None, inputs))


def reference_run(model: onnx.ModelProto) -> Run:
    """The model in the evaluator of the onnx package."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    return lambda inputs: list(evaluator.run(None, inputs))


class Gate:
    """Checks models against a scorer, one after the other; each raises `ExportError` when it fails.

    on_note: called with a line for each model and what was found.
    """

    def __init__(self, scorer: Scorer, tasks: Sequence[Task], on_note: Callable[[str], None]):
        self.tasks, self.on_note = tasks, on_note
        self.cases = Expected(scorer, probe_cases(len(tasks)))
        self.small = Expected(scorer, small_cases(len(tasks)))
        self.reports: dict[str, Any] = {}
        self.started = time.perf_counter()

    def encoder(self, path: Path, model: onnx.ModelProto | None = None, reduced: str = "") -> None:
        """An encoder. reduced: `fp16` or `int8` where its products are in fewer bits.

        model: what lies in the file, for the second evaluator; None where it has operators of onnxruntime's own.
        """
        check_form(path, full=model is not None)
        run, limit = session_run(path), FP16_LIMIT if reduced else ENCODER_LIMIT
        if reduced:
            report = check_reduced_encoder(path.name, run, self.cases, reduced)
        else:
            report = check_encoder(path.name, run, self.cases, limit)
        self._note(path, "onnxruntime", report)
        if model is not None:
            report = check_encoder(path.name, reference_run(model), self.small, limit)
            self._note(path, "reference evaluator", report)

    def scorer(self, path: Path, model: onnx.ModelProto | None = None) -> None:
        """A scorer; model as of `encoder`."""
        check_form(path, full=model is not None)
        self._note(path, "onnxruntime", check_scorer(path.name, session_run(path), self.cases, self.tasks))
        if model is not None:
            report = check_scorer(path.name, reference_run(model), self.small, self.tasks)
            self._note(path, "reference evaluator", report)

    def _note(self, path: Path, where: str, report: dict[str, Any]) -> None:
        self.reports.setdefault(path.name, {})[where] = report
        rank = report.get("rank_correlation_of_scores")
        ranked = f", rank correlation of scores at least {rank['least']:.4f}" if rank else ""
        batches = f"{report['molecules']:,} molecules in {report['batches']} batches"
        self.on_note(
            f"{path.name}: {batches} in {where}: largest difference {report['largest_difference']:.2g}{ranked}"
        )

    def report(self) -> dict[str, Any]:
        """What parity.json holds."""
        import onnxruntime

        return {
            "passed": True,
            "compared_with": f"torch {torch.__version__}, float32",
            "onnxruntime": onnxruntime.__version__,
            "onnx": onnx.__version__,
            "threads": THREADS,
            "unit": "tokens: as they are; scores: deviations of the task",
            "seconds": round(time.perf_counter() - self.started, 1),
            "models": self.reports,
        }


def check_encoder(name: str, run: Run, expected: Expected, limit: float) -> dict[str, Any]:
    """Compare tokens. Raises `ExportError` when they are further apart than `limit`."""
    difference = Difference(limit)
    for case, tokens in zip(expected.cases, expected.tokens, strict=True):
        difference.add(case, ask(name, run, case, [t.shape for t in tokens], tasks=False), tokens)
    return checked_report(name, difference, "")


def check_scorer(name: str, run: Run, expected: Expected, tasks: Sequence[Task]) -> dict[str, Any]:
    """Compare scores, in deviations of their tasks. Raises `ExportError` when they are too far apart."""
    difference = Difference(SCORE_LIMIT)
    mean, deviation = (np.array([getattr(task, name) for task in tasks]) for name in ("mean", "deviation"))
    for case, scores in zip(expected.cases, expected.scores, strict=True):
        reference = scores[:, case.tasks]
        (values,) = ask(name, run, case, [reference.shape], tasks=True)
        difference.add(case, [(values - mean[case.tasks]) / deviation[case.tasks]], [reference])
    return checked_report(name, difference, " of a task's deviation")


def check_reduced_encoder(name: str, run: Run, expected: Expected, kind: str) -> dict[str, Any]:
    """An encoder of fewer bits: its tokens' differences are reported, and its scores' order is checked."""
    difference, pairs = Difference(float("inf")), []
    for case, tokens, scores in zip(expected.cases, expected.tokens, expected.scores, strict=True):
        atoms, molecules = ask(name, run, case, [t.shape for t in tokens], tasks=False)
        if not (np.isfinite(atoms).all() and np.isfinite(molecules).all()):
            raise ExportError(f"{name} failed its check: no finite numbers for {case.name!r}; nothing was written")
        difference.add(case, (atoms, molecules), tokens)
        if case.real:
            graph = torch.from_numpy(case.graphs.arrays()["graph"])
            with torch.inference_mode():
                reduced = expected.score(Tokens(torch.from_numpy(atoms), torch.from_numpy(molecules), graph))
            pairs.append((reduced.numpy(), scores))
    got, exact = (np.concatenate(part) for part in zip(*pairs, strict=True))
    correlation = [rank_correlation(*pair) for pair in zip(got.T, exact.T, strict=True)]
    off = np.abs(got - exact)
    report = difference.report() | {
        "limit": None,
        "rank_correlation_of_scores": {"least": min(correlation), "limit": RANK_LIMITS[kind]},
        "scores_in_deviations": {"mean": float(off.mean()), "largest": float(off.max())},
    }
    if not min(correlation) >= RANK_LIMITS[kind]:
        raise ExportError(
            f"{name} failed its check: the order of its scores has a rank correlation of {min(correlation):.4f} with "
            f"that of float32, expected {RANK_LIMITS[kind]} or more; nothing was written; leave --{kind} out"
        )
    return report


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, -1 to 1; equal values are ranked as they come."""
    a, b = (np.argsort(np.argsort(values, kind="stable"), kind="stable") - (len(values) - 1) / 2 for values in (a, b))
    return float((a * b).sum() / (a * a).sum())


def ask(name: str, run: Run, case: Case, shapes: Iterable[tuple[int, ...]], *, tasks: bool) -> Sequence[np.ndarray]:
    """The model's answers, which must have these shapes."""
    try:
        answers = run(feed(case, tasks=tasks))
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise ExportError(
            f"{name} failed its check: no answer for {case.name!r}: {text}; nothing was written"
        ) from None
    for answer, shape in zip(answers, shapes, strict=True):
        if answer.shape != shape:
            raise ExportError(
                f"{name} failed its check: got shape {list(answer.shape)} for {case.name!r}, expected {list(shape)}; "
                "nothing was written"
            )
    return answers


def checked_report(name: str, difference: Difference, unit: str) -> dict[str, Any]:
    """The report, or `ExportError`."""
    if not difference.largest <= difference.limit:
        raise ExportError(
            f"{name} failed its check: for {difference.case!r} it is {difference.largest:.3g}{unit} away from the "
            f"model, expected {difference.limit:g} at most; nothing was written"
        )
    return difference.report()


def check_form(path: Path, *, full: bool) -> None:
    """The checker of the onnx package; full: shapes and types too. Raises `ExportError`."""
    try:
        onnx.checker.check_model(path, full_check=full)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        text = " ".join(str(error).split())[:300]
        raise ExportError(f"{path.name} is not valid ONNX: {text}; nothing was written") from None
