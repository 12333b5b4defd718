"""The summary of a screened library in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow

from mora_lite.scoring.tasks import Task
from mora_lite.screening.summary import LibrarySummary


def summarize(shards: Iterable[pyarrow.Table], tasks: Sequence[Task]) -> LibrarySummary:
    summary = LibrarySummary(tasks)
    for shard in shards:
        summary.add(shard)
    return summary
