"""A task is a column with a unit; tasks are chosen by name."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mora_lite.errors import PackError
from mora_lite.scoring.tasks import OWN_COLUMNS, Task, choose_tasks, clashing_name

KNOWN = tuple(Task(name, "Ha", "Q?", 0.0, 1.0) for name in ("homo", "lumo", "gap"))


def test_the_header_has_the_unit() -> None:
    assert KNOWN[0].column == "homo [Ha]"
    assert Task("count", "", "Q?", 0.0, 1.0).column == "count"


def test_json_restores_a_task() -> None:
    task = Task("gap", "Ha", "What?", -0.1234567890123, 0.25, description="a – b")
    assert Task(**json.loads(json.dumps(task.as_dict()))) == task


def test_a_class_is_a_task_without_a_unit() -> None:
    task = Task("toxic", "", "Is it?", -2.2, 1.0, kind="class")
    assert (task.is_class, task.column) == (True, "toxic")
    assert not KNOWN[0].is_class


def test_a_percentage_on_the_logit_scale_stays_within_0_and_100() -> None:
    task = Task("PPB", "%", "What?", 2.0, 1.0, scale="logit")
    values = np.array([0, 0.3, 50, 90, 100, np.nan], np.float32)
    np.testing.assert_allclose(task.on_scale(values)[1:4], [-5.806, 0, 2.197], atol=1e-3)
    np.testing.assert_allclose(task.in_unit(task.on_scale(values)), [0.3, 0.3, 50, 90, 99.7, np.nan], rtol=1e-5)
    assert task.in_unit(np.array([-np.inf, 100, np.inf], np.float32)).tolist() == [0, 100, 100]
    with pytest.raises(PackError, match="scale 'logit'"):
        Task("toxic", "", "Is it?", 0.0, 1.0, kind="class", scale="logit")


def test_a_task_on_a_logarithmic_scale_answers_in_its_unit() -> None:
    task = Task("IC50", "nM", "What?", 2.0, 1.0, scale="log")
    values = np.array([0.001, 1, 20, np.nan], np.float32)
    np.testing.assert_allclose(task.on_scale(values), [-3, 0, 1.30103, np.nan], rtol=1e-5)
    np.testing.assert_allclose(task.in_unit(task.on_scale(values)), values, rtol=1e-5)
    assert task.in_unit(values).dtype == np.float32
    assert np.isnan(task.on_scale(np.array([0.0, -1.0]))).all(), "what is not above 0 has no logarithm"
    assert task.in_unit(np.array([-np.inf, 100, np.inf], np.float32)).tolist() == [0, np.inf, np.inf]
    assert KNOWN[0].on_scale(values) is values


def test_a_task_of_an_older_pack_is_linear() -> None:
    older = {name: value for name, value in KNOWN[0].as_dict().items() if name != "scale"}
    assert Task(**older) == KNOWN[0]


@pytest.mark.parametrize("change", [{"scale": "log2"}, {"scale": "log", "kind": "class"}])
def test_impossible_scales_are_refused(change: dict) -> None:
    with pytest.raises(PackError, match="expected linear, log, logit of a value"):
        Task(**{"name": "a", "unit": "", "prompt": "Q?", "mean": 0.0, "deviation": 1.0, **change})


@pytest.mark.parametrize(
    "change", [{"name": ""}, {"kind": "classes"}, {"deviation": 0.0}, {"deviation": -1.0}, {"deviation": float("nan")}]
)
def test_impossible_tasks_are_refused(change: dict) -> None:
    with pytest.raises(PackError, match="expected a kind of value, class and a deviation above 0"):
        Task(**{"name": "a", "unit": "", "prompt": "Q?", "mean": 0.0, "deviation": 1.0, **change})


@pytest.mark.parametrize(
    ("names", "expected"),
    [(None, [0, 1, 2]), (["gap"], [2]), (["gap", "homo"], [2, 0]), (("gap", "homo", "gap"), [2, 0])],
)
def test_tasks_come_in_the_order_asked_for_each_once(names, expected: list[int]) -> None:
    assert choose_tasks(KNOWN, names) == expected


@pytest.mark.parametrize("names", [[], (), 5, [1], ["gap", None]])
def test_what_names_no_task_is_refused(names) -> None:
    with pytest.raises(PackError, match=r"tasks: got .*, expected names of tasks"):
        choose_tasks(KNOWN, names)


def test_an_unknown_task_tells_the_near_matches() -> None:
    with pytest.raises(PackError, match="unknown task 'hommo': did you mean homo"):
        choose_tasks(KNOWN, ["gap", "hommo"])


def test_names_with_commas_are_found_in_a_text_that_is_split_at_commas() -> None:
    names = ["LogD, pH 7.4", "homo", "LogD, pH 7.4, rat", "pH 7.4"]
    tasks = tuple(Task(name, "", "Q?", 0.0, 1.0) for name in names)
    for asked in ("homo, LogD, pH 7.4, pH 7.4", ["homo", "logd", "ph 7.4", "pH 7.4"], ["homo", names[0], names[3]]):
        assert choose_tasks(tasks, asked) == [1, 0, 3]
    assert choose_tasks(tasks, "LogD,pH 7.4,rat") == [2]
    with pytest.raises(PackError, match=r"unknown task 'LogD': did you mean LogD, pH 7\.4"):
        choose_tasks(tasks, "LogD,homo")


# --- names that other columns have


@pytest.mark.parametrize("name", [*OWN_COLUMNS, "neighbour_1", "logS_lo", "logS_hi", "logS_true", "logS_percentile"])
def test_a_task_called_like_another_column_would_hide_it(name: str) -> None:
    assert clashing_name([("logS", "M"), ("logD", ""), (name, "")]) == name
    assert clashing_name([("logS", "M"), (name, "u")]) == name, "in Python a task goes by its name without unit too"
    tasks = (KNOWN[0], Task("logS", "", "Q?", 0.0, 1.0), Task(name, "", "Q?", 0.0, 1.0))
    with pytest.raises(PackError, match=f"task '{name}': got a name that another column has"):
        choose_tasks(tasks, None)
    assert choose_tasks(tasks, ["homo", "logS"]) == [0, 1], "of a pack from before, the other tasks answer"


def test_a_unit_makes_no_second_column_of_one_name() -> None:
    assert clashing_name([("logS", "M"), ("logS [M]", "")]) == "logS"
    assert clashing_name([("logS", "M"), ("logS [mM]", ""), ("a_lo", ""), ("Status", "")]) is None
