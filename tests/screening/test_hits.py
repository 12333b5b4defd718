"""Hits show their score, repeats and the library's columns; of alike molecules one is enough."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from mora_lite.chem.featurizer import Featurizer
from mora_lite.scoring.tasks import Task
from mora_lite.screening.expression import parse_expression
from mora_lite.screening.hits import Ranking, add_library_columns, choose_diverse, find_hits
from mora_lite.tables.library import open_library

TASKS = [Task("logS", "", "", -3.0, 2.0)]
SMILES = ["OCC", "CCO", "c1ccccc1", "CCCCCCCCCCO", "CCCCCCCCCCCO", "N1C=CC=C1"]
NAMES = ["row", "name", "smiles", "logS", "status"]


def shards(size: int):
    for start in range(0, len(SMILES), size):
        rows = range(start, min(start + size, len(SMILES)))
        yield pa.table(
            [
                [i + 1 for i in rows],
                [f"m{i}" for i in rows],
                [SMILES[i] for i in rows],
                pa.array([10.0 - i for i in rows], pa.float32()),
                ["ok" for _ in rows],
            ],
            names=NAMES,
        )


def hits(size: int = 10, n: int = 10, by: str = "-2 * logS", **options: bool) -> pa.Table:
    return find_hits(shards(size), Ranking(n, parse_expression(by, TASKS, NAMES), None, True, **options), Featurizer())


@pytest.mark.parametrize("size", [1, 2, 10])
def test_a_hit_shows_its_score_and_the_hit_that_it_repeats(size: int) -> None:
    table = hits(size)
    assert table.column_names == ["rank", "row", "name", "smiles", "score", "repeat_of", "logS", "status"]
    assert table["score"].to_pylist() == [-20, -18, -16, -14, -12, -10]
    assert table["repeat_of"].to_pylist() == [None, 1, None, None, None, None]


@pytest.mark.parametrize("size", [1, 2, 10])
def test_unique_keeps_the_best_of_each_molecule(size: int) -> None:
    table = hits(size, n=3, unique=True)
    assert table["row"].to_pylist() == [1, 3, 4]
    assert table["rank"].to_pylist() == [1, 2, 3]
    assert hits(size, n=3, by="logS", unique=True)["row"].to_pylist() == [6, 5, 4]
    assert hits(size, n=9, by="logS", unique=True)["row"].to_pylist() == [6, 5, 4, 3, 2]


def test_diverse_hits_are_not_alike() -> None:
    table = hits(2, diverse=True)
    assert table["smiles"].to_pylist() == ["OCC", "c1ccccc1", "CCCCCCCCCCO", "N1C=CC=C1"]  # not the next alcohol
    assert table["rank"].to_pylist() == [1, 2, 3, 4]
    assert choose_diverse([], 3, Featurizer()) == []
    assert choose_diverse(["C", "CC"], 1, Featurizer()) == [0]


def test_the_librarys_columns_stand_beside_the_hits(tmp_path: Path) -> None:
    library = tmp_path / "a.csv"
    rows = [f"m{i},{smiles},plate {i},{i / 2}" for i, smiles in enumerate(SMILES)]
    library.write_text("\n".join(["id,smiles,plate,logS", *rows]) + "\n")
    table = add_library_columns(hits(n=2), partial(open_library, library, cells=True))
    assert table.column_names[:9] == [
        *["rank", "row", "name", "smiles", "score", "repeat_of", "plate", "logS (library)", "logS"]
    ]
    assert table["plate"].to_pylist() == ["plate 0", "plate 1"]
    assert table["logS (library)"].to_pylist() == ["0.0", "0.5"]
    assert add_library_columns(hits().slice(0, 0), partial(open_library, library, cells=True)).num_rows == 0
