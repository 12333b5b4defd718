"""The table that a pack was made from, read again: the same molecules in the same parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .checks import merge_duplicates
from .dataset import Dataset, read_dataset
from .errors import InputError
from .splits import Split, split_rows
from .tasks import Task


def read_training_table(
    path: Path, facts: dict[str, Any], tasks: Sequence[Task], split: str, smiles_column: str | None = None
) -> Dataset:
    """Read `path` by the columns that the pack records (`facts`: its provenance); duplicates merged as they were then.

    split: `all` does without the column of a given split.
    """
    columns = {task["name"]: task["column"] for task in facts["recipe"]["tasks"]}
    data = read_dataset(
        path,
        smiles_column or facts["recipe"]["smiles"],
        [columns[task.name] for task in tasks],
        split_column=facts["split"].get("column", "") if split != "all" else "",
    )
    if "merged" in facts["data"]:
        data, _ = merge_duplicates(data, [task.is_class for task in tasks])
    return data


def parts_of(data: Dataset, facts: dict[str, Any], pack: str, path: Path) -> dict[str, Dataset]:
    """The molecules that train, validate and test. Raises `InputError` if this is not the table that was split."""
    if data.fingerprint != facts["data"]["smiles_sha256"]:
        raise InputError(
            f"{path}: its SMILES are not those of {facts['data']['file']}, by whose row numbers pack {pack} was "
            f"split ({data.n_rows} rows, expected {facts['data']['rows']}); for other data use evaluate --split all"
        )
    rows = split_rows(Split(**facts["split"]), data)
    return {name: data.subset(rows[name]) for name in ("train", "valid", "test")}
