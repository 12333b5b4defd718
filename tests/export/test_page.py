"""The exported page in a real browser: what it reads, computes and shows is what the program does."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headless_browser import downloaded, find, wait
from native_texts import assembled
from static_site import StaticSite, sending

from mora_lite.model import Model, load

TOLERANCE = 1e-3  # of a task's deviation, as for the gate of the export
ROWS = 240
HOSTILE = '<img src=x onerror="document.title=1">'


def message(browser: Any) -> str:
    return browser.find_element("id", "message").text


def ask(browser: Any, text: str) -> None:
    """Enter a text and predict."""
    browser.execute_script("document.getElementById('smiles').value = arguments[0]", text)
    find(browser, "button.main")[0].click()


def give(browser: Any, path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8", newline="")
    browser.find_element("id", "file").send_keys(str(path))


def download(browser: Any, folder: Path) -> list[dict[str, str]]:
    file = downloaded(folder, wait(lambda: find(browser, "#download"))[0].click)
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def browser(driver: Any, site: StaticSite) -> Iterator[Any]:
    """The page, ready."""
    driver.get("about:blank")
    driver.get_log("browser")
    driver.get(site.url)
    wait(lambda: driver.execute_script("return document.body.dataset.ready"))
    yield driver
    assert driver.get_log("browser") == [], "the console has nothing to complain of"


@pytest.fixture(scope="module")
def model(calibrated_pack_path: Path) -> Model:
    return load(calibrated_pack_path, device="cpu", dtype="float32")


def test_values_of_a_table_are_those_of_torch(
    browser: Any, downloads: Path, tmp_path: Path, model: Model, molecules: list[str]
) -> None:
    """240 molecules, salts and metals among them: values, intervals, similarity and domain."""
    rng = random.Random(6)
    rows = [*molecules, *(assembled(rng) for _ in range(ROWS - len(molecules) - 4)), "C1CC", "", "CC(C", "*" * 12]
    give(browser, tmp_path / "library.csv", "id,smiles\n" + "".join(f"M{i},{text}\n" for i, text in enumerate(rows)))
    wait(lambda: find(browser, ".rows tbody tr"))
    got = download(browser, downloads)
    expected = model.predict(rows).to_pandas()
    assert [row["id"] for row in got] == [f"M{i}" for i in range(ROWS)]
    assert list(got[0])[2:] == list(expected.columns)[1:]
    ok = np.array([row["status"] == "ok" for row in got])
    assert ok.sum() >= 200
    assert set(expected["status"][ok]) == {"ok"}
    assert {row["status"] for row, good in zip(got, ok, strict=True) if not good} == {"not_read", "empty"}
    for task in model.tasks:
        for name in (task.column, f"{task.name}_lo", f"{task.name}_hi"):
            values = np.array([float(row[name]) for row, good in zip(got, ok, strict=True) if good])
            # Of polarity too few molecules were held out, so its bounds are infinite.
            np.testing.assert_allclose(values, expected[name][ok], rtol=0, atol=TOLERANCE * task.deviation)
    similarity = [float(row["similarity"]) for row, good in zip(got, ok, strict=True) if good]
    np.testing.assert_allclose(similarity, expected["similarity"][ok], atol=1e-6)
    for i in np.flatnonzero(ok):
        assert got[i]["outside"] == expected["outside"][i]
        assert (got[i]["in_domain"] == "true") == expected["in_domain"][i]
    assert "3 not_read; the first is row 237" in find(browser, ".notes")[0].text


def test_one_molecule(browser: Any, model: Model) -> None:
    ask(browser, "Oc1ccccc1")
    wait(lambda: len(find(browser, ".answers tbody tr")) == 3)
    expected = model.predict("Oc1ccccc1")
    for row, task in zip(find(browser, ".answers tbody tr"), model.tasks, strict=True):
        assert task.name in row.text
        assert "% of drugs" in row.text
        shown = row.find_element("css selector", ".value").text.split("\n")[0].replace("−", "-")
        assert float(shown) == pytest.approx(float(expected.to_pandas()[task.column][0]), abs=task.deviation / 50)
    assert find(browser, ".verdict")


@pytest.mark.parametrize("text", ["CC(C", "CC O", HOSTILE, "N[Ru-4](N)(N)(N)(N)[I-].[I-]", "C" * 5000])
def test_what_is_not_read_is_no_guess(browser: Any, text: str) -> None:
    ask(browser, text)
    wait(lambda: "not_read" in message(browser))
    assert message(browser) == "not_read: not read here: needs the installed program, or is no valid SMILES"
    assert not find(browser, ".answers")


def test_what_is_given_is_text(browser: Any, tmp_path: Path) -> None:
    """As SMILES, as a name, as a column and as a file's name."""
    tag = HOSTILE.replace('"', "")
    path = tmp_path / f"{tag}.csv"
    give(browser, path, f'SMILES,"{tag}"\n{tag},a\nCCO,{tag}\n')
    wait(lambda: find(browser, ".rows tbody tr"))
    assert not find(browser, "main img")
    assert "<img src=x onerror=document.title=1>" in find(browser, ".rows")[0].text
    assert browser.title == "mora-lite"


def test_rows_can_be_sorted_looked_at_and_chosen(browser: Any) -> None:
    ask(browser, "CCCCCCCCCC decane\nCCO ethanol\nCC(C\nc1ccccc1 benzene")
    wait(lambda: len(find(browser, ".rows tbody tr")) == 4)
    head = find(browser, ".rows thead [data-column='0'] button")
    head[0].click()
    names = [row.text for row in find(browser, ".rows tbody tr td:nth-child(2)")]
    values = [float(cell.text.split("\n")[0].replace("−", "-")) for cell in find(browser, ".rows td:nth-child(3)")[:3]]
    assert values == sorted(values)
    assert names[3] == ""  # the one without a value is last
    find(browser, ".rows tbody button")[0].click()
    wait(lambda: find(browser, ".answers tbody tr"))
    find(browser, "#back")[0].click()
    wait(find(browser, ".rows")[0].is_displayed)
    find(browser, "details.columns summary")[0].click()
    find(browser, "details.columns input")[0].click()
    assert len(find(browser, ".rows thead [data-column]")) == 3  # two tasks and the similarity


def test_a_run_can_be_stopped_and_another_begun(browser: Any, molecules: list[str]) -> None:
    ask(browser, "\n".join(molecules * 300))
    wait(lambda: find(browser, "#bar"))
    [stop] = [button for button in find(browser, "#table button") if button.text == "Stop"]
    stop.click()
    assert message(browser) == "stopped"
    ask(browser, "CCO")
    wait(lambda: find(browser, ".answers tbody tr"))


def test_files_of_other_kinds_are_told_what_reads_them(browser: Any, tmp_path: Path) -> None:
    give(browser, tmp_path / "a.sdf", "\n\n\n  0  0\n$$$$\n")
    wait(lambda: message(browser).startswith("a.sdf: this page reads CSV and lists of SMILES; mora-lite predict"))
    give(browser, tmp_path / "b.csv", "smiles\nC\0C\n")
    wait(lambda: message(browser) == "b.csv is no text")


def test_nothing_is_asked_of_others(driver: Any, site: StaticSite, page_folder: Path, molecules: list[str]) -> None:
    """All requests of a whole visit go to the folder, and after the start there is none."""
    driver.get("about:blank")
    driver.get_log("performance")
    site.paths.clear()
    driver.get(site.url)
    wait(lambda: driver.execute_script("return document.body.dataset.ready"))
    n_paths = len(site.paths)
    ask(driver, "\n".join(molecules))
    wait(lambda: find(driver, ".rows tbody tr"))
    assert len(site.paths) == n_paths
    assert all((page_folder / path.lstrip("/")).exists() for path in site.paths)
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert {url for url in urls if not url.startswith((site.url, "data:", "blob:"))} == set()
    stored = "return [localStorage.length, sessionStorage.length, document.cookie]"
    assert driver.execute_script(stored) == [0, 0, ""]


def test_a_file_of_another_export_is_an_error(driver: Any, page_folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(page_folder, tmp_path / "copy"))
    content = bytearray((copy / "scorer.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "scorer.onnx").write_bytes(content)
    with sending(copy) as site:
        driver.get(site.url)
        words = "scorer.onnx is not the one of this page: copy the whole folder again"
        wait(lambda: words in message(driver))
        ask(driver, "CCO")
        wait(lambda: find(driver, "#message.error") and words in message(driver))
        (copy / "scorer.onnx").unlink()
        driver.get(site.url)
        wait(lambda: "scorer.onnx: the web server answered 404; copy the whole folder again" in message(driver))


def test_from_a_file_it_says_how_to_open_it(driver: Any, page_folder: Path) -> None:
    driver.get((page_folder / "index.html").as_uri())
    wait(find(driver, "#unstarted")[0].is_displayed)
    assert "python -m http.server --bind 127.0.0.1 8000" in find(driver, "#unstarted")[0].text
    driver.get_log("browser")


@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen(driver: Any, site: StaticSite, width: int, molecules: list[str]) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        driver.get(site.url)
        wait(lambda: driver.execute_script("return document.body.dataset.ready"))
        for text, shown in (("CCO", ".answers tbody tr"), ("\n".join(molecules), ".rows tbody tr")):
            ask(driver, text)
            wait(lambda shown=shown: find(driver, shown))
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
