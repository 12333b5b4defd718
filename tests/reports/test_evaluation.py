"""The page about a pack's errors: what it says of odd data, and that it works in a real browser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headless_browser import open_browser

from mora_lite.reports.evaluation import MAX_WORST, MIN_WORST, Evaluated, Nearest, write_evaluation
from mora_lite.reports.task_figures import TaskResult
from mora_lite.scoring.tasks import Task
from mora_lite.training.metrics import (
    by_domain,
    by_similarity,
    calibration_table,
    class_metrics,
    coverage,
    value_metrics,
)

EVIL = '<script>window.hacked=1</script><img src=x onerror="window.hacked=1">\''
VALUE, CLASS = Task("logS", "log mol/L", "", -3.0, 2.0), Task("BBB", "", "", 0.5, 1.0, "class")
IC50 = Task("IC50", "nM", "", 2.0, 1.0, scale="log")


def result(
    task: Task, truth: Sequence[float] | np.ndarray, values: np.ndarray, width: float | None = 1.0
) -> TaskResult:
    """Of these predictions, with the metrics that an evaluation has. width: half of the interval; None for none."""
    truth, values = np.array(truth, np.float32), np.array(values, np.float32)
    low = high = similarity = None
    tables: dict[str, Any] = {}
    if width is not None:
        with np.errstate(invalid="ignore"):
            low, high = (np.full_like(values, np.nan) if task.is_class else values + side * width for side in (-1, 1))
        similarity = np.linspace(0.05, 1, len(truth), dtype=np.float32)

    def metrics(rows: np.ndarray) -> dict:
        if task.is_class:
            return class_metrics(values[rows], truth[rows])
        known = value_metrics(values[rows], truth[rows])
        return known | ({} if low is None else {"inside": coverage(low[rows], high[rows], truth[rows])["inside"]})

    if similarity is not None:
        tables = {
            "by_similarity": by_similarity(metrics, similarity),
            "by_domain": by_domain(metrics, similarity > 0.5),
        }
    if task.is_class:
        tables["calibration"] = calibration_table(values, truth)
    return TaskResult(task, truth, values, low, high, similarity, metrics(np.arange(len(truth))), tables, 0.9)


def page(path: Path, results: Sequence[TaskResult], smiles: Sequence[str] = (), **changes: object) -> str:
    n = len(results[0].truth) if results else 0
    smiles = [*smiles, *["CCO"] * n][:n]

    def nearest(task: int, at: np.ndarray) -> list[Nearest | None]:
        return [Nearest("c1ccccc1", 0.5, 1.0) if k % 2 else None for k in at.tolist()]

    evaluated = Evaluated("mine", "my.csv", "test", np.arange(1, n + 1), smiles, results, nearest=nearest)
    write_evaluation(path / "report.html", replace(evaluated, **changes), {"Pack": "mine"})
    return (path / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(size=200)


def sentences(text: str) -> str:
    """What a reader sees of the page, without tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text[text.index("<body>") :]))


def test_the_page_says_how_large_the_errors_are_and_where(noise, tmp_path: Path) -> None:
    truth = np.linspace(-6, 1, 200)
    text = page(tmp_path, [result(VALUE, truth, truth + noise * np.linspace(2, 0.2, 200), 1.6)])
    seen = sentences(text)
    assert "200 molecules of my.csv, the test part" in seen
    assert "On the dashed line a prediction is what was measured." in seen
    assert re.search(r"At similarity 0 to 0.2 the error is [\d.]+ times as large as at 0.8 to 1.", seen)
    assert re.search(r"Fewer than the promised 90 % are inside at similarity 0 to 0.2 \([\d.]+ %\)", seen)
    assert f"The {MAX_WORST} molecules with the largest errors" in seen
    assert re.search(r"Range.*logS log mol/L [\d.]+ [\d.]+ to [\d.]+ ", seen)
    for label in re.findall(r'<svg class="chart"[^>]*>', text):
        assert re.search(r'role="img" aria-label="logS, [^"]{40,}"', label), "a chart says in words what it shows"


def test_a_class_has_curves_and_its_probabilities_are_checked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(600)
    seen = sentences(page(tmp_path, [result(CLASS, rng.random(600) < probability, probability)]))
    assert re.search(r"A positive gets a higher probability than a negative in \d\d\.\d % of all pairs", seen)
    assert re.search(r"Of the 60 molecules with the highest probability [\d.]+ % are positive; of all 600", seen)
    assert "No group differs from its probability by more than chance allows." in seen
    seen = sentences(page(tmp_path, [result(CLASS, rng.random(600) < probability**3, probability)]))
    assert re.search(
        r"Where the probability is about [\d.]+ %, [\d.]+ % of \d+ molecules are positive: it is too high", seen
    )


def test_errors_of_a_logarithmic_scale_are_factors(noise, tmp_path: Path) -> None:
    truth = 10 ** np.linspace(0, 5, 200)
    seen = sentences(page(tmp_path, [result(IC50, truth, truth * 10 ** (0.3 * noise), None)]))
    assert re.search(r"half of the predictions are within a factor of 1\.\d", seen)


def test_what_has_no_logarithm_is_left_out_of_their_errors(noise, tmp_path: Path) -> None:
    truth = 10 ** np.linspace(0, 5, 200)
    values = truth * 10 ** (0.3 * noise)
    zero = result(IC50, np.append(truth, 0.0), np.append(values, 10.0))
    np.testing.assert_allclose(zero.sizes, np.abs(0.3 * noise), rtol=1e-4, atol=1e-5)
    seen, without = (sentences(page(tmp_path, [of])) for of in (zero, result(IC50, truth, values)))
    assert "1 molecule has a measured or predicted value that is not above 0, and so no error in powers of ten." in seen
    assert "not above 0" not in without
    factor = re.search(r"half of the predictions are within a factor of [\d.]+", without)
    assert factor[0] in seen
    heights = [float(of) for of in re.findall(r"molecules: ([\d.]+) powers of ten", page(tmp_path, [zero]))]
    assert heights
    assert max(heights) < 0.5, "no bar is raised by it"


@pytest.mark.parametrize(
    ("task", "truth", "values", "says"),
    [
        (CLASS, [1, 1, 1], [0.2, 0.9, 0.9], "All 3 molecules here are positive"),
        (CLASS, [0, 0], [0.1, 0.1], "All molecules got the same probability."),
        (CLASS, [1], [0.5], "All 1 molecules here are positive"),
        (CLASS, [np.nan, np.nan], [0.5, 0.5], "No molecule here has a measured and a predicted value of BBB."),
        (VALUE, [-1, -2, -3], [-2, -2, -2], "All molecules got the same prediction."),
        (VALUE, [-1.0], [-1.0], "1 molecule: mean error 0.00 log mol/L"),
        (VALUE, [-1, np.nan], [np.nan, -1], "1 measured molecules got no finite prediction and are left out."),
        (VALUE, [-1, -2, -3], [1e30, np.inf, -np.inf], "2 measured molecules got no finite prediction"),
        (VALUE, [2, 2, 2], [2, 2, 2], "3 molecules: mean error 0.00 log mol/L"),
        (IC50, [0.0, -1, 5], [1, 1, 0.0], "3 molecules have a measured or predicted value that is not above 0"),
        (VALUE, [], [], "No molecule here has a measured"),
        (CLASS, [], [], "No molecule here has a measured"),
    ],
)
@pytest.mark.parametrize("width", [1.0, np.inf, None])
def test_odd_data_get_a_sentence(task, truth, values, says: str, width: float | None, tmp_path: Path) -> None:
    text = page(tmp_path, [result(task, truth, np.array(values), width)])
    assert says in sentences(text)
    assert not re.search(r'd="[^"]*(nan|inf)', text)


def test_a_pack_without_calibration_says_so(noise, tmp_path: Path) -> None:
    seen = sentences(page(tmp_path, [result(VALUE, noise, noise, None)], nearest=None))
    assert "The pack is not calibrated" in seen
    assert "by similarity" not in seen
    assert "The pack does not hold its training molecules" in seen


def test_what_readers_must_know_stands_on_top(noise, tmp_path: Path) -> None:
    text = page(tmp_path, [result(VALUE, noise, noise)], notes=["Trained on & these."], split="train")
    assert '<p class="warning">Trained on &amp; these.</p>' in text
    assert "the train part" in text


def test_few_molecules_allow_no_verdict(tmp_path: Path) -> None:
    seen = sentences(page(tmp_path, [result(VALUE, np.zeros(5), np.ones(5))]))
    assert "There are too few molecules to say whether the error grows" in seen


def test_the_worst_come_first_beside_what_was_measured_nearby(tmp_path: Path) -> None:
    truth = np.zeros(5)
    text = page(tmp_path, [result(VALUE, truth, np.array([0.1, 3, -2, 0.2, 0]))], ["C", "CC", "CCC", "CCCC", "CN"])
    assert re.findall(r"<small>row (\d)</small>", text) == ["2", "3", "4", "1", "5"]
    assert text.count("nearest in training") == 2, "of those that have any"
    assert "<dd>3.00 <small>[2.00, 4.00]</small></dd>" in text


def test_many_tasks_are_folded_and_linked_and_their_page_stays_small(noise, tmp_path: Path) -> None:
    tasks = [replace(VALUE, name=f"task {i}") for i in range(63)]
    text = page(tmp_path, [result(task, noise, noise + 0.5 * np.roll(noise, i)) for i, task in enumerate(tasks)])
    assert len(text) < 4_000_000
    assert text.count("<details ") == 63
    assert " open>" not in text
    assert text.count('class="pair"') == 63 * MIN_WORST
    assert re.findall(r'href="#(task-\d+)"', text) == re.findall(r'id="(task-\d+)"', text)


def test_a_hundred_thousand_rows_make_a_small_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=(2, 100_000))
    results = [result(VALUE, truth, truth + noise), result(CLASS, truth > 0, 1 / (1 + np.exp(-truth - noise)))]
    text = page(tmp_path, results)
    assert len(text) < 400_000
    assert "The 100,000 molecules are counted in squares" in text


def test_equal_input_gives_equal_bytes_and_the_page_asks_for_nothing(noise, tmp_path: Path) -> None:
    results = [result(VALUE, noise, noise + 0.1), result(CLASS, noise > 0, np.abs(np.tanh(noise)))]
    text = page(tmp_path, results)
    assert text == page(tmp_path, results)
    assert not re.search(r"https?:|@import|<link(?! rel=\"icon\" href=\"data:,\")|url\(|<script", text)


def test_texts_of_strangers_stay_text(noise, tmp_path: Path) -> None:
    task = replace(VALUE, name=EVIL, unit=EVIL, description=EVIL)
    stages = [{"stage": EVIL, "best_error": 0.5, "curve": [[1, 0.4, 0.5], [2, 0.3, 0.6]]}]
    named = {"pack": EVIL, "table": EVIL, "split": EVIL, "notes": [EVIL], "stages": stages}
    hostile = [result(task, noise, noise), result(replace(CLASS, name=EVIL), noise > 0, np.abs(np.tanh(noise)))]
    text = page(tmp_path, hostile, [EVIL] * 200, **named)
    assert "<script" not in text
    assert "<img" not in text


def test_the_browser_has_nothing_to_complain_of_on_any_width(noise, tmp_path: Path) -> None:
    stages = [{"stage": "encoder", "best_error": 0.5, "curve": [[1, 0.4, 0.5], [2, 0.3, 0.6]]}]
    tasks = [result(replace(VALUE, name=f"a task of {i} and a long name"), noise, noise + 0.3) for i in range(5)]
    page(tmp_path, [*tasks, result(CLASS, noise > 0, np.abs(np.tanh(noise)))], [EVIL], stages=stages)
    with open_browser(tmp_path / "profile") as driver:
        driver.get((tmp_path / "report.html").as_uri())
        assert driver.execute_script("return window.hacked") is None
        driver.find_elements("css selector", ".figures a")[1].click()
        is_open = "return document.querySelectorAll('details')[1].open"
        assert driver.execute_script(is_open), "a link to a task opens it"
        driver.execute_script("for (const task of document.querySelectorAll('details')) task.open = true")
        for width, scheme in ((1280, "light"), (390, "dark")):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
            colour = driver.execute_script("return getComputedStyle(document.querySelector('.bar rect')).fill")
            assert colour == {"light": "rgb(47, 102, 144)", "dark": "rgb(116, 169, 209)"}[scheme]
        assert driver.get_log("browser") == []
