"""A recipe: everything that makes a pack out of a table, in one TOML file or the options of `mora-lite train`.

name = "qm9"
base = "smollm2-135m"
smiles = "smiles"      # the SMILES column; found as `mora-lite predict` does when left out
seed = 0
standardize = "parent" # molecules are taken as their largest organic fragment, neutralised; "none": as drawn
keep_data = true       # SMILES and values of the training molecules in the pack
members = 1            # networks whose mean the encoder learns in the end
distill_epochs = 0     # of the one that learns it; as many as [encoder] has when left out
trees = false          # boosted trees on RDKit's descriptors beside the network
start = "endpoints"    # of the encoder: that, "structures", "random", or a file of `mora-lite pretrain`
[split]            # random or by scaffold with these numbers of rows; or kind = "given" and a column
kind = "random"
train = 110000
valid = 10000
[adapter]          # AdapterConfig
[encoder]          # TrainConfig of the encoder alone
epochs = 45        # chosen by the size of the table when left out
[mora]             # TrainConfig of the whole
epochs = 8
[[task]]
name = "homo"
unit = "Ha"
prompt = "Question: What is the HOMO energy of the molecule in Hartree? Answer:"
kind = "value"     # or "class", for 0 and 1; inferred from the column when left out
weight = 2.0       # in the loss; 1 when left out
column = "homo"    # of the table; the task's name when left out
scale = "linear"   # "log": learnt as logarithms; "logit": percentages, learnt as log-odds; chosen when left out
auxiliary = false  # true: the encoder learns it too, in the first stage, but the pack does not answer it
own_epochs = 0     # passes of each of several members over this task's molecules alone
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..adapter.lowrank import AdapterConfig
from ..chem import descriptors
from ..chem.featurizer import Featurizer
from ..chem.molecules import STANDARDIZE
from ..errors import InputError, check_range, did_you_mean, error_text
from ..scoring.tasks import KINDS, SCALES, clashing_name
from .dataset import Dataset
from .loop import TrainConfig
from .splits import KINDS as SPLIT_KINDS
from .splits import Split, fractions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_PROMPT = "Question: What is the {name} of the molecule{unit}? Answer:"
CLASS_PROMPT = "Question: Is the molecule {name}? Answer:"
DEFAULT_SIZES = AdapterConfig(direct_width=2 * AdapterConfig().encoder_width)
# For tables of some hundreds to some ten thousands of rows. The encoder arrives pre-trained, but on other things: at
# a tenth of the head's rate it hardly moves, at the full rate it forgets (docs/benchmarks/training.md). In the second
# stage it has learnt. How many epochs is left open, see `Recipe.with_epochs`.
ENCODER = TrainConfig(
    epochs=None,
    batch_size=64,
    peak_lr=1e-3,
    encoder_lr_scale=0.5,
    warmup_steps=100,
    ema_decay=0.99,
    patience=10,
    dropout=0.1,
    huber=1.0,
)
MORA = replace(ENCODER, peak_lr=3e-4, encoder_lr_scale=0.3)
ENCODER_EPOCHS, MORA_EPOCHS = 30, 12


@dataclass(frozen=True)
class TaskRecipe:
    """A task before training: which column, which question, what weight in the loss.

    kind: `value`, `class`, or empty: a column of nothing but 0 and 1 is a class.
    scale: one of `SCALES`, or empty: `log` where `checks.suits_log` says so of the training values.
    auxiliary: trained in the encoder's stage alone, for what it teaches about the others; not in the pack.
    own_epochs: passes over the molecules of this task alone, after which each of the recipe's `members` answers it once
        more; the mean of both answers counts. 0 for none.
    """

    name: str
    column: str = ""
    unit: str = ""
    prompt: str = ""
    kind: str = ""
    weight: float = 1.0
    description: str = ""
    scale: str = ""
    auxiliary: bool = False
    own_epochs: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "column", self.column or self.name)
        if not self.name or not self.weight > 0:
            raise InputError(f"task {self.name!r}: got weight {self.weight}, expected a name and a weight above 0")
        check_range(f"task {self.name!r}: weight", self.weight, 0)
        check_range(f"task {self.name!r}: own_epochs", self.own_epochs, 0)
        if self.kind not in ("", *KINDS):
            raise InputError(f"task {self.name!r}: got kind {self.kind!r}, expected {' or '.join(KINDS)}")
        if self.scale not in ("", *SCALES) or (self.scale not in ("", "linear") and self.kind == "class"):
            raise InputError(f"task {self.name!r}: got scale {self.scale!r}, expected {', '.join(SCALES)} of a value")
        if self.kind == "class" and self.unit:
            raise InputError(f"task {self.name!r}: got unit {self.unit!r}, but a class has none")

    def with_kind(self, kind: str) -> TaskRecipe:
        """With this kind, and a question if it has none."""
        unit = f" in {self.unit}" if self.unit else ""
        prompt = CLASS_PROMPT.format(name=self.name)
        if kind == "value":
            prompt = DEFAULT_PROMPT.format(name=self.name, unit=unit)
        return replace(self, kind=kind, prompt=self.prompt or prompt)


@dataclass(frozen=True)
class Recipe:
    """See the module's text.

    smiles: the SMILES column, its name or number; empty to find it.
    standardize: see `chem.featurizer.Featurizer`.
    start: of the encoder: `endpoints` or `structures` (they ship, trained with measured values of public sets or with
        none; [adapter] must have their sizes), `random`, or a file's path.
    four_bit: quantise the base to NF4 first; False is for measuring what that costs.
    keep_data: put SMILES and values of the training molecules into the pack, to name neighbours from.
    rare_sizes: see `Dataset.with_rare_sizes`; 0 repeats none.
    members: of the encoder's stage: above 1, so many networks are trained as [encoder] says, with seeds of their own,
        and then one on the mean of their answers (arXiv 1503.02531).
    distill_epochs: of that last one; 0 for as many as [encoder] has.
    trees: grow trees on descriptors too, whose mean with the network is the answer (`scoring.trees`).
    split: None is a random one; one without numbers of rows has 80 % train, 10 % validate, 10 % test.
    """

    name: str
    tasks: tuple[TaskRecipe, ...]
    base: str = "smollm2-135m"
    smiles: str = ""
    seed: int = 0
    standardize: str = "parent"
    start: str = "endpoints"
    four_bit: bool = True
    keep_data: bool = True
    rare_sizes: float = 0.0
    members: int = 1
    distill_epochs: int = 0
    trees: bool = False
    split: Split | None = None
    adapter: AdapterConfig = DEFAULT_SIZES
    encoder: TrainConfig = ENCODER
    mora: TrainConfig = MORA

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) < len(names):
            raise InputError(f"recipe {self.name!r}: got tasks {names}, expected at least one, each name once")
        if name := clashing_name((task.name, task.unit) for task in self.tasks if not task.auxiliary):
            raise InputError(
                f"task {name!r}: got a name that another column of the predictions has, expected another; in a recipe "
                f'give it a name of its own beside column = "{name}"'
            )
        check_range("seed", self.seed, 0, 2**32)
        check_range("rare_sizes", self.rare_sizes, 0, 1)
        check_range("members", self.members, 1)
        check_range("distill_epochs", self.distill_epochs, 0)
        if self.members == 1 and (self.distill_epochs or any(task.own_epochs for task in self.tasks)):
            raise InputError("own_epochs, distill_epochs: got one with members = 1, expected members = 2 or more")
        if all(task.auxiliary for task in self.tasks):
            raise InputError(f"recipe {self.name!r}: all tasks are auxiliary, expected at least one that is not")
        if self.standardize not in STANDARDIZE:
            raise InputError(f"standardize: got {self.standardize!r}, expected {' or '.join(STANDARDIZE)}")
        self.adapter.check_for_scores()

    @property
    def featurizer(self) -> Featurizer:
        return Featurizer(standardize=self.standardize, descriptors=descriptors.names() if self.trees else ())

    def with_epochs(self, n_train: int) -> Recipe:
        """With the epochs that a stage leaves open: 30 and 12 for up to 1,000 molecules, half as many from 2,000 on.

        What small tables need to leave the warm-up behind, large ones only learn by heart (docs/benchmarks/tdc.md).
        """
        share = min(1.0, max(0.5, 1000 / max(n_train, 1)))  # that there is none is told later, with its column
        return replace(
            self,
            encoder=replace(self.encoder, epochs=self.encoder.epochs or round(share * ENCODER_EPOCHS)),
            mora=replace(self.mora, epochs=self.mora.epochs or round(share * MORA_EPOCHS)),
        )

    def split_of(self, data: Dataset) -> Split:
        """The split; numbers of rows that are left open are 80 % and 10 % of the table."""
        split = self.split or Split(self.seed)
        if split.train or split.valid or split.kind == "given":
            return split
        return fractions(split.kind, len(data) if split.kind == "scaffold" else data.n_rows, split.seed)

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {**asdict(self), "adapter": self.adapter.as_dict()}


def read_recipe(path: Path) -> Recipe:
    """Read a TOML recipe. Raises `InputError` for anything missing, unknown or of the wrong kind."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no such recipe: {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error_text(error)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    known = {"task" if field.name == "tasks" else field.name for field in fields(Recipe)}
    _check_names(content, known, path)
    seed = content.get("seed", 0)
    tasks = content.pop("task", [])
    for stage in ("split", "adapter", "encoder", "mora"):
        if not isinstance(content.get(stage, {}), dict):
            raise InputError(f"{path}: {stage}: got {content[stage]!r}, expected a table [{stage}]")
    if not isinstance(tasks, list) or not all(isinstance(entry, dict) for entry in tasks):
        raise InputError(f"{path}: task: expected one table [[task]] for each task, in double brackets")
    content["tasks"] = tuple(_build(TaskRecipe, entry, path) for entry in tasks)
    if "split" in content:
        content["split"] = _build(Split, {"seed": seed, **content["split"]}, path)
    if "adapter" in content:
        sizes = {**asdict(DEFAULT_SIZES), **content["adapter"]}
        if "direct_width" not in content["adapter"]:
            sizes["direct_width"] = 2 * sizes["encoder_width"]
        content["adapter"] = _build(AdapterConfig, sizes, path)
    for stage, default in (("encoder", ENCODER), ("mora", MORA)):
        content[stage] = _build(TrainConfig, {**asdict(default), "seed": seed, **content.get(stage, {})}, path)
    return _build(Recipe, {"name": path.stem, **content}, path)


def choose_recipe(
    recipe: Recipe | str | Path | None,
    targets: str | Sequence[str],
    name: str,
    *,
    split: str | None = None,
    seed: int | None = None,
    encoder: Mapping[str, Any] = {},
    mora: Mapping[str, Any] = {},
    **entries: Any,
) -> Recipe:
    """The recipe, read if it is a path, or one called `name` that is made of `targets`; with these entries changed.

    targets: `COLUMN`, `COLUMN:UNIT`, `COLUMN:class` or `COLUMN:value`, one or several.
    split: `random`, `scaffold`, or the name of a column that says train, valid or test.
    encoder, mora: entries of the two stages. entries: of the recipe itself. None leaves an entry as it is.

    Raises `InputError` for both a recipe and targets, or neither.
    """
    if recipe is not None and targets:
        raise InputError("targets: got some beside a recipe, which names the tasks; leave --target out")
    if recipe is None and not targets:
        raise InputError("targets: got none; name at least one column to learn with --target, or give a --recipe")
    if recipe is None:
        recipe = Recipe(name, tuple(map(_parse_target, [targets] if isinstance(targets, str) else targets)))
    elif not isinstance(recipe, Recipe):
        recipe = read_recipe(Path(recipe))
    return replace(
        recipe,
        encoder=replace(recipe.encoder, **_without_none(encoder)),
        mora=replace(recipe.mora, **_without_none(mora)),
        split=_choose_split(recipe, split, seed),
        **_without_none({**entries, "seed": seed}),
    )


def _parse_target(text: str) -> TaskRecipe:
    column, _, rest = text.rpartition(":") if ":" in text else (text, "", "")
    rest = rest.strip()
    name = column.strip()
    return TaskRecipe(name, column, kind=rest) if rest in KINDS else TaskRecipe(name, column, unit=rest)


def with_whole_names(recipe: Recipe, columns: Iterable[str]) -> Recipe:
    """The recipe with the column called `A: B` in place of column `A` with the unit or kind `B`, where there is one."""
    whole = {_joined(column): column for column in columns if ":" in column}
    tasks = []
    for task in recipe.tasks:
        column = whole.get(_joined(f"{task.column}:{task.unit or task.kind}"))
        # Of a target, which is its own name: a recipe says column and unit each by itself.
        is_target = column is not None and task.name == task.column.strip() and not task.prompt
        tasks.append(TaskRecipe(str(column).strip(), column=str(column)) if is_target else task)
    return replace(recipe, tasks=tuple(tasks))


def _joined(name: str) -> str:
    return re.sub(r"\s*:\s*", ":", name.strip()).lower()


def _choose_split(recipe: Recipe, kind: str | None, seed: int | None) -> Split | None:
    """The recipe's split, or one of another kind; its sizes are then left to the default."""
    if kind is None:
        return replace(recipe.split, seed=seed) if recipe.split and seed is not None else recipe.split
    seed = recipe.seed if seed is None else seed
    if kind in SPLIT_KINDS and kind != "given":
        return Split(seed, kind=kind)
    return Split(seed, kind="given", column=kind)


def _without_none(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if value is not None}


# The fields' annotations, which are text (see the first import), and what they admit in TOML.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "int | None": ((int, type(None)), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "text"),
}


def _check_names(entries: Mapping[str, Any], known: Iterable[str], path: Path) -> None:
    for key in entries:
        if key not in known:
            raise InputError(f"{path}: unknown entry {key!r}: {did_you_mean(key, known)}")


def _build(kind: Any, entries: Mapping[str, Any], path: Path) -> Any:
    """An instance of the dataclass `kind`, with errors that name the recipe and the entry."""
    known = {field.name: str(field.type) for field in fields(kind)}
    _check_names(entries, known, path)
    for key, value in entries.items():
        types, words = _TYPES.get(known[key], ((object,), ""))
        if not isinstance(value, types) or (bool not in types and words and isinstance(value, bool)):
            raise InputError(f"{path}: {key}: got {value!r}, expected {words}")
    try:
        return kind(**entries)
    except TypeError as error:
        raise InputError(f"{path}: {kind.__name__}: {error}") from None
