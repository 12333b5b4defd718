"""The summary of a screened library in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow

from mora_lite.scoring.tasks import Task
from mora_lite.screening.summary import LibrarySummary
from mora_lite.status import StatusCounts


def summarize(shards: Iterable[pyarrow.Table], tasks: Sequence[Task]) -> LibrarySummary:
    summary = LibrarySummary(tasks, StatusCounts())
    for shard in shards:
        summary.rows.count(shard["status"].to_pylist(), shard["error"].to_pylist())
        summary.add(shard)
    return summary
