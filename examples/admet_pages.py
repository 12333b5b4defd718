"""Write the tasks of examples/admet.toml and the tables of docs/endpoints.md, from the endpoints, sources and data.

    python examples/admet_pages.py DATA_DIR qc_b3db-1.1.1-py3-none-any.whl

What stands before the first task in the recipe, and outside of the marks in the document, stays.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from admet_sources import SOURCES
from make_admet import Found, collect

ROOT = Path(__file__).resolve().parents[1]
ORIGINS = {source.name: source.origin for source in SOURCES}
# Passes over the molecules of one task alone: for those that projects ask about first, and the large ones, which the
# mean over all tasks fits worst. Some 30,000 draws each at most.
OWN_EPOCHS = {
    "logS": 2,
    "logD": 3,
    "Caco2": 8,
    "PPB": 4,
    "VDss": 4,
    "CLint_HLM": 4,
    "CLint_hepatocyte": 8,
    "CYP2C9_inhibitor": 1,
    "CYP2D6_inhibitor": 1,
    "CYP3A4_inhibitor": 1,
}


def titles(found: Found) -> list[str]:
    """Where the values of an endpoint come from, each origin once."""
    return list(dict.fromkeys(ORIGINS[name].title for name in found.rows))


def licensed_titles(found: Found) -> str:
    """Where the values come from and under which licence, each once."""
    origins = (ORIGINS[name] for name in found.rows)
    return "; ".join(dict.fromkeys(f"{origin.title}, {origin.licence}" for origin in origins))


def toml_task(found: Found) -> Iterator[str]:
    """Lines of a task of the recipe."""
    endpoint = found.endpoint
    yield "[[task]]"
    yield f"name = {json.dumps(endpoint.name)}"
    if endpoint.unit:
        yield f"unit = {json.dumps(endpoint.unit)}"
    yield f'kind = "{endpoint.kind}"'
    if endpoint.kind == "value":
        yield f'scale = "{endpoint.scale}"'
    if endpoint.auxiliary:
        yield "auxiliary = true"
    if endpoint.name in OWN_EPOCHS:
        yield f"own_epochs = {OWN_EPOCHS[endpoint.name]}"
    yield f"prompt = {json.dumps(endpoint.prompt)}"
    description = f"{endpoint.meaning} From {licensed_titles(found)}."
    yield f"description = {json.dumps(description)}"
    yield ""


def endpoint_rows(found: Mapping[str, Found], auxiliary: bool) -> Iterator[str]:
    yield "| endpoint | unit | molecules | conflicts | sources | what it means |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, entry in found.items():
        endpoint = entry.endpoint
        if endpoint.auxiliary == auxiliary:
            n_values, n_clashes = entry.counts
            kind = endpoint.unit or "none"
            if endpoint.kind == "class":
                share = sum(value or 0 for value, _ in entry.merged.values()) / n_values
                kind = f"class, {share:.0%} yes".replace("%", " %")
            sources = ", ".join(titles(entry))
            yield f"| `{name}` | {kind} | {n_values:,} | {n_clashes:,} | {sources} | {endpoint.meaning} |"


def source_rows(found: Mapping[str, Found]) -> Iterator[str]:
    yield "| file | values | endpoints | origin | published | licence |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for source in SOURCES:
        used = {name: entry.rows[source.name] for name, entry in found.items() if source.name in entry.rows}
        if used:
            names = ", ".join(f"`{name}`" for name in used)
            if len(used) == 12:
                names = "the twelve assays `NR-...` and `SR-...`"
            origin = source.origin
            cells = (f"{source.name}", f"{sum(used.values()):,}", names, *origin)
            yield f"| {' | '.join(cells)} |"


def between(text: str, mark: str, lines: Iterator[str]) -> str:
    """`text` with these lines between the two comments of that mark."""
    start, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), flags=re.DOTALL)
    assert pattern.search(text), mark
    return pattern.sub(lambda _: f"{start}\n" + "\n".join(lines) + f"\n\n{end}", text)


def main(data: str, wheel: str) -> None:
    found = collect(Path(data), wheel, boards=False, without=())
    recipe, document = ROOT / "examples" / "admet.toml", ROOT / "docs" / "endpoints.md"
    head = recipe.read_text(encoding="utf-8").partition("[[task]]")[0]
    tasks = [line for entry in found.values() for line in toml_task(entry)]
    recipe.write_text(head + "\n".join(tasks), encoding="utf-8")
    text = document.read_text(encoding="utf-8")
    text = between(text, "endpoints", endpoint_rows(found, auxiliary=False))
    text = between(text, "auxiliary tasks", endpoint_rows(found, auxiliary=True))
    text = between(text, "sources", source_rows(found))
    document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: admet_pages.py DATA_DIR qc_b3db-1.1.1-py3-none-any.whl")
    main(*sys.argv[1:])
