"""The page about a screened library: what is in it, and that it works in a real browser."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from headless_browser import open_browser
from library_summary import summarize

from mora_lite.chem.drawing import draw, drawing_problem
from mora_lite.errors import OutputError
from mora_lite.scoring.tasks import Task
from mora_lite.screening.expression import parse_expression
from mora_lite.screening.ranking import rank
from mora_lite.screening.report import MAX_HITS, write_report

TASKS = (
    Task("logS", "log mol/L", "", -3.0, 2.0, description="aqueous solubility"),
    Task("BBB", "", "", 0.5, 1.0, "class"),
    Task("NR-AR", "", "", -3.0, 1.0, "class"),
)
EVIL = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">\'" $tiles'


def library(molecules, n):
    """A shard of `n` molecules with made-up scores, the last one with a hostile name, SMILES and error."""
    at = np.arange(n)
    smiles = [molecules[i % len(molecules)] for i in at]
    status = np.where(at % 10 == 9, "unparsable", "ok").tolist()
    ok = np.array([s == "ok" for s in status])
    names = [f"M{i}" for i in at]
    error = np.where(ok, "", "unclosed ring").tolist()
    names[-2], smiles[-2] = EVIL, EVIL
    status[-1], error[-1], ok[-1] = EVIL, EVIL, False

    def floats(numbers):
        return pyarrow.array(numbers.astype(np.float32), mask=~ok)

    value = -3 + 0.013 * ((at * 37) % 400 - 200)
    inside = at % 4 != 0
    columns = {
        "row": at + 1,
        "name": names,
        "smiles": smiles,
        "logS [log mol/L]": floats(value),
        "logS_lo": floats(value - 1),
        "logS_hi": floats(value + 1),
        "BBB": floats((at * 17) % 101 / 100),
        "NR-AR": floats((at * 13) % 97 / 100),
        "similarity": floats((at % 50) / 50),
        "in_domain": pyarrow.array(at % 4 > 1, mask=~ok),
        "outside": np.where(inside, np.where(at % 4 == 1, "NR-AR", ""), "logS BBB NR-AR").tolist(),
        "status": status,
        "error": error,
    }
    return pyarrow.table(columns)


def write(path, table, n_hits=500, metadata=None, tasks=TASKS):
    by = parse_expression("logS", tasks, table.column_names)
    write_report(
        path,
        metadata={"Pack": "admet", "Command": "mora-lite screen x.smi"} if metadata is None else metadata,
        tasks=tasks,
        summary=summarize([table.slice(0, 100), table.slice(100)], tasks),
        hits=rank([table], by, n_hits),
        hits_title="highest logS",
    )
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def table(molecules):
    return library(molecules, 60)


@pytest.fixture(scope="module")
def page(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write(path, table)
    return path


def test_the_page_is_one_file_that_asks_for_nothing(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|<link(?! rel=\"icon\" href=\"data:,\")|url\(", text)
    assert text.count("<script") == 1
    assert [p.name for p in page.parent.iterdir()] == ["report.html"]


def test_equal_input_gives_equal_bytes(page, table, tmp_path):
    assert write(tmp_path / "again.html", table) == page.read_text(encoding="utf-8")


def test_texts_of_strangers_stay_text(table, tmp_path):
    tasks = (replace(TASKS[0], description=EVIL), *TASKS[1:])
    text = write(tmp_path / "report.html", table, metadata={EVIL: EVIL, "Control": "a\x00b"}, tasks=tasks)
    assert "<img" not in text
    assert "window.hacked=1</script>" not in text
    assert "$tiles" in text  # what looks like a slot of the template is not filled
    assert "a\N{REPLACEMENT CHARACTER}b" in text


def test_hits_over_the_limit_are_cut_with_a_note_and_the_page_stays_small(molecules, tmp_path):
    text = write(tmp_path / "report.html", library(molecules, 300))
    assert text.count('<td class="structure">') == MAX_HITS
    assert "200 hits</output>, the best of 270; <code>top.csv</code> has all" in text
    assert len(text.encode()) < 3_000_000


def test_a_molecule_that_cannot_be_drawn_is_shown_as_text(page):
    text = page.read_text(encoding="utf-8")
    assert text.count('<code class="undrawn">&lt;/script&gt;') == 1


def test_failures_are_listed_by_number(page):
    text = page.read_text(encoding="utf-8")
    section = text[text.index('id="failures"') : text.index('id="hits"')]
    assert re.findall(r'scope="row"><code>(.{6}).*?</code></th><td class="num">(\d+)', section) == [
        ("unpars", "5"),
        ("&lt;/s", "1"),
    ]
    assert "unclosed ring" in section


def test_domain_badges(page):
    text = page.read_text(encoding="utf-8")
    assert '<span class="badge">outside</span>' in text
    assert text.count('data-v="2">2 of 3</td>') == 12, "these are outside for NR-AR alone"
    assert text.count('data-v="3">inside</td>') > 0
    assert '<p class="figure">50.0 %</p><p>27, of all 3 tasks</p>' in text


def test_values_outside_of_the_domain_of_their_task_are_grey(page):
    text = page.read_text(encoding="utf-8")
    rows = [row for row in text.split("<tr>") if 'data-v="2">2 of 3</td>' in row]
    greyed = ["far" in css for css in re.findall(r'<td class="(num[^"]*)" data-v="[^"]*"(?: style="[^"]*")?', rows[0])]
    assert greyed == [False, False, True, False], "logS, BBB, NR-AR, similarity"


def test_a_pack_without_calibration_and_a_library_without_hits(table, tmp_path):
    plain = table.drop_columns(["logS_lo", "logS_hi", "similarity", "in_domain", "outside"])
    text = write(tmp_path / "plain.html", plain)
    assert "The pack is not calibrated" in text
    assert "Similarity" not in text
    empty = write(tmp_path / "empty.html", table.slice(0, 0))
    assert "No molecule fits." in empty
    assert "Every row was scored." in empty


def test_a_place_that_cannot_be_written_is_refused_and_leaves_nothing(table, tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        write(tmp_path / "missing" / "report.html", table)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OutputError):
        write(tmp_path / "report.html", table)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_drawings_are_small_plain_and_the_same_each_time(molecules):
    for smiles in molecules:
        drawing = draw(smiles)
        assert drawing is not None
        assert drawing == draw(smiles)
        assert len(drawing) < 8_000
        assert not re.search(r"#[0-9A-F]{6}|style=|\n", drawing)
    assert draw("C1CC") is None
    assert 'class="e-o stroke"' in (draw("CCO") or "")


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    """Headless Chromium with the page open."""
    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        driver.get(Path(page).as_uri())
        yield driver


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def shown_ranks(browser):
    return [int(cell.text) for cell in find(browser, "#hits tbody tr:not([hidden]) .rank")]


def click_head(browser, name):
    (head,) = [h for h in find(browser, "#hits thead th") if h.text.split("\n")[0].strip() == name]
    browser.execute_script("arguments[0].scrollIntoView({inline: 'center', block: 'center'})", head)
    head.find_element("css selector", "button").click()
    return head


def test_the_browser_has_nothing_to_complain_of(browser):
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_every_hit_has_its_structure(browser):
    n_hits = len(find(browser, "#hits tbody tr"))
    assert n_hits == 54
    assert len(find(browser, "#hits svg.molecule")) == n_hits - 1  # one has no SMILES but text
    assert all(svg.size["width"] == 150 and svg.size["height"] == 96 for svg in find(browser, "svg.molecule")[:5])


def test_injected_text_is_text_and_runs_nothing(browser):
    assert browser.execute_script("return window.hacked") is None
    assert find(browser, "img") == []
    names = [e.get_attribute("textContent") for e in find(browser, ".name bdi")]
    assert EVIL in names


def test_headers_sort_by_number_in_both_directions(browser):
    def column():
        return [float(cell.get_attribute("data-v")) for cell in find(browser, "#hits tbody td:nth-child(5)")]

    head = click_head(browser, "logS")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column() == sorted(column())
    assert column() != sorted(column(), key=str)  # as text, -1 is before -2
    click_head(browser, "logS")
    assert head.get_attribute("aria-sort") == "descending"
    assert column() == sorted(column(), reverse=True)
    click_head(browser, "Rank")
    assert head.get_attribute("aria-sort") == "none"
    assert shown_ranks(browser) == list(range(1, 55))


def test_headers_sort_from_the_keyboard(browser):
    button = find(browser, "#hits thead button")[1]
    button.send_keys("\ue007")  # Enter
    names = [e.get_attribute("textContent") for e in find(browser, ".name bdi")]
    assert names.index("M2") < names.index("M10")  # numbers within names as numbers
    click_head(browser, "Rank")


def test_the_search_box_filters_by_name_and_smiles(browser):
    box, count = find(browser, "#hits input")[0], find(browser, "#hits output")[0]
    for text, wanted in [("m1", "M1"), ("c1ccccc1", "c1ccccc1"), ("C1CCCCC1", "C1CCCCC1"), ("nothing like it", "")]:
        box.clear()
        box.send_keys(text)
        rows = find(browser, "#hits tbody tr:not([hidden])")
        assert count.text == f"{len(rows)} of 54 hits"
        assert bool(rows) == bool(wanted)
        assert all(wanted in row.get_attribute("textContent") for row in rows)
    box.send_keys("\ue009a\ue000\ue003")  # select all, delete
    assert count.text == "54 hits"
    assert len(shown_ranks(browser)) == 54


def test_a_click_on_a_smiles_copies_it(browser):
    button = find(browser, "#hits .smiles button")[0]
    browser.execute_script(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async t => { window.copied = t; }}})"
    )
    smiles = button.text
    button.click()
    assert browser.execute_async_script("const f = arguments[0]; setTimeout(() => f(window.copied), 50)") == smiles


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_told_apart_and_a_narrow_page_does_not_scroll_sideways(browser, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", colour)[0]) > 128) == (scheme == "light")
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert browser.get_log("browser") == []


def test_a_system_without_the_libraries_that_draw_gets_a_report_without_drawings(monkeypatch):
    drawing_problem.cache_clear()
    monkeypatch.setitem(sys.modules, "rdkit.Chem.Draw", None)  # an ImportError, as where libXrender is missing
    try:
        assert "structures are not drawn" in drawing_problem()
        assert draw("CCO") is None
    finally:
        drawing_problem.cache_clear()
