"""One self-contained page about a screened library: how the scores are distributed, how reliable they are, the hits.

The page needs no network and no other file, and its bytes depend on nothing but the arguments. Names and SMILES are
untrusted: every text is escaped where it is inserted, and none goes into a script.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import pyarrow as pa

from ..chem.drawing import draw
from ..machine.files import replacing
from ..reports.charts import histogram_svg
from ..reports.page import as_html, as_number, as_percent, decimals_for, facts, page, tiles
from ..scoring.tasks import Task
from ..status import OK, REASONS, StatusCounts
from ..tables.parquet import valid_texts
from .hits import REPEAT, SCORE
from .run_directory import RESUME_HINT
from .summary import LibrarySummary

MAX_HITS = 200  # shown; their drawings are most of the page
TEMPLATE = "report_template.html"


def write_report(
    path: Path,
    metadata: Mapping[str, str],
    tasks: Sequence[Task],
    summary: LibrarySummary,
    hits: pa.Table,
    hits_title: str,
) -> None:
    """Write the page to `path`, whole or not at all. Raises `OutputError` when that is impossible.

    metadata: label -> text, shown in this order (pack, input, machine, command ...).
    hits: the table that `rank` returns; the first `MAX_HITS` rows are shown.
    hits_title: what they were ranked by.
    """
    template = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    body, script, _ = re.split("</?script>", template)
    rows = pa.Table.from_batches(map(valid_texts, hits.slice(0, MAX_HITS).to_batches()), hits.schema).to_pylist()
    body = Template(body).substitute(
        metadata=facts(metadata),
        tiles=_tiles(summary),
        scores="".join(_score_figure(task, summary, [row[task.column] for row in rows]) for task in tasks),
        domain=_domain(tasks, summary),
        failures=_failures(summary.rows),
        hits_title=as_html(hits_title),
        hits=_hits(rows, tasks, hits.num_rows),
    )
    with replacing(path, RESUME_HINT) as file:
        file.write(page("Screening report", body, script=script))


def _tiles(summary: LibrarySummary) -> str:
    n_rows, n_ok = summary.rows.n_rows, summary.rows.n_ok
    figures = [
        ("Rows", f"{n_rows:,}", "read from the library"),
        ("Scored", f"{n_ok:,}", f"{_share(n_ok, n_rows)} of the rows"),
        ("Failed", f"{n_rows - n_ok:,}", f"{_share(n_rows - n_ok, n_rows)} of the rows"),
    ]
    if summary.is_calibrated:
        n_tasks = len(summary.tasks)
        whose = "of its task" if n_tasks == 1 else f"of all {n_tasks} tasks"
        figures.append(("In domain", _share(summary.n_inside, n_ok), f"{summary.n_inside:,}, {whose}"))
    else:
        figures.append(("In domain", "unknown", "the pack is not calibrated"))
    return tiles(figures)


def _score_figure(task: Task, summary: LibrarySummary, rug: Sequence[float | None]) -> str:
    scores = summary.scores[task.name]
    decimals = decimals_for(task)
    low, mean, high = (as_number(number, decimals) for number in (scores.low, scores.mean, scores.high))
    unit = "probability" if task.is_class else task.unit
    stats = f"{as_percent(scores.share_from(0.5))} at 0.5 or more" if task.is_class else f"{low} to {high}"
    words = f"{task.name}: {scores.n:,} molecules, mean {mean} {unit}, {low} to {high}"
    chart = histogram_svg(scores, words, unit=task.unit, rug=[n for n in rug if n is not None], trim=not task.is_class)
    return (
        f'<figure class="score"><figcaption><h3>{as_html(task.name)}</h3> <span>{as_html(unit)}</span>'
        f'<p title="{as_html(task.description)}">{as_html(task.description)}</p></figcaption>{chart}'
        f"<p><span>mean {mean}</span><span>{stats}</span></p></figure>"
    )


def _domain(tasks: Sequence[Task], summary: LibrarySummary) -> str:
    if not summary.is_calibrated:
        return '<p class="note">The pack is not calibrated, so nothing is known of its domain.</p>'
    similarity = summary.similarity
    words = f"similarity to the training molecules: {similarity.n:,} molecules, mean {similarity.mean:.2f}"
    chart = histogram_svg(similarity, words, size=(460, min(max(180, 20 * len(tasks)), 420)))
    bars, n_ok = [], summary.rows.n_ok
    for task in tasks:
        inside = summary.n_inside_task[task.name]
        width = 100 * inside / n_ok if n_ok else 0
        bars.append(
            f'<tr><th scope="row">{as_html(task.name)}</th>'
            f'<td class="meter"><span style="width:{width:.1f}%"></span></td>'
            f'<td class="num" title="{inside:,} molecules">{_share(inside, n_ok)}</td></tr>'
        )
    return (
        '<div class="domain"><figure><figcaption><h3>Similarity to the nearest training molecule</h3>'
        f"<p>Tanimoto, of the task where it is smallest, mean {as_number(similarity.mean, 2)}</p></figcaption>"
        f"{chart}</figure>"
        "<div><h3>Share of the scored molecules near enough, by task</h3>"
        f'<table class="coverage"><tbody>{"".join(bars)}</tbody></table></div></div>'
    )


def _failures(rows: StatusCounts) -> str:
    failed = [(status, n) for status, n in rows.counts.items() if status != OK]
    if not failed:
        return '<p class="note">Every row was scored.</p>'
    lines = []
    for status, n in sorted(failed, key=lambda pair: (-pair[1], pair[0])):
        row, error = rows.first[status]
        reason = error or REASONS.get(status, "")
        lines.append(
            f'<tr><th scope="row"><code>{as_html(status)}</code></th><td class="num">{n:,}</td>'
            f'<td class="num">{_share(n, rows.n_rows)}</td><td class="num">{row:,}</td>'
            f"<td><bdi>{as_html(reason)}</bdi></td></tr>"
        )
    return (
        '<div class="scroll"><table class="failures"><thead><tr><th scope="col">Status</th>'
        '<th scope="col" class="num">Rows</th><th scope="col" class="num">Share</th>'
        '<th scope="col" class="num">First row</th><th scope="col">Reason there</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _hits(rows: Sequence[Mapping[str, Any]], tasks: Sequence[Task], n_all: int) -> str:
    if not rows:
        return '<p class="note">No molecule fits.</p>'
    calibrated, scored = "similarity" in rows[0], _has_own_score(rows, tasks)
    heads = [_head("Rank", "rank", "number"), '<th scope="col" class="structure">Structure</th>']
    heads += [_head("Name", "name", "text"), _head("SMILES", "", "text")]
    heads += [_head("Score", "", "number", "of the ranking")] if scored else []
    heads += [_head(task.name, "", "number", "probability" if task.is_class else task.unit) for task in tasks]
    if calibrated:
        heads += [_head("Similarity", "", "number", "to training"), _head("Domain", "", "number", "tasks")]
    lines = "".join(_hit(row, tasks, calibrated, scored) for row in rows)
    cut = f", the best of {n_all:,}; <code>top.csv</code> has all" if n_all > len(rows) else ""
    return (
        '<div class="tools"><label hidden>Search <input type="search" placeholder="name or SMILES" autocomplete="off">'
        f'</label><p class="note"><output aria-live="polite">{len(rows):,} hits</output>{cut}</p></div>'
        '<div class="scroll hits" tabindex="0" role="region" aria-label="Top hits"><table>'
        f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _head(name: str, css: str, kind: str, unit: str = "") -> str:
    sort = "ascending" if css == "rank" else "none"
    css = f"{css} num".strip() if kind == "number" else css
    small = f"<small>{as_html(unit)}</small>" if unit else ""
    return (
        f'<th scope="col" class="{css}" aria-sort="{sort}" data-kind="{kind}">'
        f'<button type="button"><span>{as_html(name)}</span>{small}</button></th>'
    )


def _has_own_score(rows: Sequence[Mapping[str, Any]], tasks: Sequence[Task]) -> bool:
    """Whether the hits were ranked by something that no other column shows."""
    columns = [task.column for task in tasks]
    shown = [[f"{row[column]:.6g}" for row in rows if row.get(column) is not None] for column in columns]
    scores = [f"{row[SCORE]:.6g}" for row in rows if row.get(SCORE) is not None]
    return bool(scores) and scores not in shown


def _hit(row: Mapping[str, Any], tasks: Sequence[Task], calibrated: bool, scored: bool) -> str:
    name, smiles = (as_html("" if row[key] is None else row[key]) for key in ("name", "smiles"))
    drawing = draw(str(row["smiles"])) or f'<code class="undrawn">{smiles}</code>'
    outside = f" {row.get('outside') or ''} "
    repeat = f", same as rank {row[REPEAT]}" if row.get(REPEAT) else ""
    cells = [
        f'<td class="rank num" data-v="{row["rank"]}">{row["rank"]}</td><td class="structure">{drawing}</td>',
        f'<td class="name"><bdi title="{name}">{name}</bdi><small>row {row["row"]:,}{repeat}</small></td>',
        f'<td class="smiles"><button type="button" title="{smiles}"><code>{smiles}</code></button></td>',
    ]
    if scored:
        cells.append(f'<td class="num" data-v="{row[SCORE]:.7g}">{row[SCORE]:.4g}</td>')
    cells += [_value(row, task, f" {task.name} " in outside) for task in tasks]
    if calibrated:
        n_inside = sum(f" {task.name} " not in outside for task in tasks)
        similarity = float("nan") if row["similarity"] is None else row["similarity"]
        cells.append(f'<td class="num" data-v="{similarity:.6g}">{as_number(similarity, 2)}</td>')
        words = "inside" if row["in_domain"] else f"{n_inside} of {len(tasks)}"
        if not n_inside:
            words = '<span class="badge">outside</span>'
        cells.append(f'<td class="domain-cell" data-v="{n_inside}">{words}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _value(row: Mapping[str, Any], task: Task, is_far: bool) -> str:
    value = row[task.column]
    far = ' title="far from what the task was trained on"' if is_far else ""
    css = "num far" if is_far else "num"
    if value is None:
        return '<td class="num">–</td>'
    if task.is_class:
        style = f"--part:{min(max(value, 0), 1):.3f}"
        return f'<td class="{css} p" data-v="{value:.7g}" style="{style}"{far}>{as_number(value, 3)}</td>'
    decimals = decimals_for(task)
    low, high = row.get(f"{task.name}_lo"), row.get(f"{task.name}_hi")
    interval = ""
    if low is not None and high is not None:
        interval = f"<small>[{as_number(low, decimals)}, {as_number(high, decimals)}]</small>"
    return f'<td class="{css}" data-v="{value:.7g}"{far}>{as_number(value, decimals)}{interval}</td>'


def _share(n: int, of: int) -> str:
    return as_percent(n / of if of else float("nan"))
