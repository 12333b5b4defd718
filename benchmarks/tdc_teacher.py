"""Trees on descriptors as teachers of a network that learns many tasks.

Trees know what a network of some thousand molecules does not find out by itself, but their descriptors cost more than
the whole network. So they answer for all molecules of the table, once, and the network learns their answers as further
tasks. It is asked without trees and without descriptors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tdc_data import BOARDS
from tdc_table import MAX_Z, Tasks, Union, board_graphs

from mora_lite.chem.descriptors import n_columns
from mora_lite.chem.descriptors import names as descriptor_names
from mora_lite.chem.featurizer import Featurizer
from mora_lite.scoring.tasks import on_scale
from mora_lite.scoring.trees import Trees
from mora_lite.training.losses import TargetStats

BLOCK = 2048  # molecules that are described at a time
TAUGHT = "taught:"  # before the name of a board: the task of its trees' answers


def describe(union: Union, path: Path) -> np.ndarray:
    """The descriptors of all molecules, float32 `[N, F]`; kept in the file `path`, as they cost 5 ms each."""
    if path.exists():
        descriptors = np.load(path, mmap_mode="r")
        assert len(descriptors) == len(union.data), f"{path} is of another table: remove it"
        return descriptors
    featurizer, part = Featurizer(descriptors=descriptor_names()), path.with_name(path.name + ".part.npy")
    shape = len(union.data), n_columns(featurizer.descriptors)
    descriptors = np.lib.format.open_memmap(part, "w+", np.float32, shape)
    for start in range(0, shape[0], BLOCK):
        graphs, good = board_graphs(union.data.smiles[start : start + BLOCK], featurizer)
        descriptors[start : start + BLOCK] = np.nan
        descriptors[start + good] = graphs.descriptors
    descriptors.flush()
    part.replace(path)
    return descriptors


def tree_answers(
    union: Union, descriptors: np.ndarray, known: np.ndarray, boards: Sequence[str], seed: int
) -> np.ndarray:
    """What trees of each board say of the molecules `known`, float32 `[len(known), boards]`, on the board's scale.

    NaN for the molecules that they have learnt from, whose values are there, and for those without descriptors.
    known: positions in the union, int64; the trees learn from no others.
    """
    readable = ~np.isnan(descriptors[known, 0])
    answers = np.full((len(known), len(boards)), np.nan, np.float32)
    for i, name in enumerate(boards):
        values = union.data.targets[known, union.columns.index(name)].astype(np.float64)
        learnt = on_scale(values, BOARDS[name].scale)
        trains = np.flatnonzero(~np.isnan(values) & readable)
        is_class = BOARDS[name].scale == "odds"
        trees = Trees.grow(np.array(descriptors[known[trains]]), learnt[trains, None], [is_class], seed)
        for start in range(0, len(known), BLOCK):
            block = np.array(descriptors[known[start : start + BLOCK]])
            answers[start : start + BLOCK, i] = trees.scores(block)[:, 0]
        answers[trains, i] = np.nan
        print(f"trees of {name}: {len(trains)} molecules", flush=True)
    answers[~readable] = np.nan
    return answers


def taught(tasks: Tasks, answers: np.ndarray, boards: Sequence[str], weight: float) -> Tasks:
    """The tasks, and one for each board with its trees' answers as z-scores. weight: of such a task in the loss.

    answers: float32 `[N, boards]`, of the molecules of `tasks`.
    """
    mean, deviation = np.nanmean(answers, axis=0), np.nanstd(answers, axis=0)
    scores = np.clip((answers - mean) / deviation, -MAX_Z, MAX_Z).astype(np.float32)
    none, stats = torch.zeros(len(boards)), tasks.stats
    more = TargetStats(none + weight, none.bool(), none, none + 1, ~none.bool())
    stats = TargetStats(*(torch.cat([getattr(part, name) for part in (stats, more)]) for name in vars(stats)))
    return Tasks(
        [*tasks.names, *(f"{TAUGHT}{name}" for name in boards)],
        np.concatenate([tasks.mean, mean]),
        np.concatenate([tasks.deviation, deviation]),
        stats,
        replace(tasks.data, targets=np.concatenate([tasks.data.targets, scores], axis=1)),
    )
