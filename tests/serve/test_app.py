"""The HTTP interface of a real server."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from urllib.parse import unquote

import pytest

pytest.importorskip("fastapi")

import mora_lite
from mora_lite.serve import app
from mora_lite.serve.guard import Guard
from mora_lite.serve.jobs import Job
from mora_lite.serve.limits import Limits
from mora_lite.serve.pages import PAGE

TABLE = b"""id,smiles,note
a,CCO,"one, two"
b,c1ccccc1O,
c,C1CCO,open ring
d,CC(=O)O,=1+1
e,,
f,CCCCCCN,last
"""


@pytest.fixture(scope="module")
def model(calibrated_pack_path):
    return mora_lite.load(calibrated_pack_path, device="cpu")


@pytest.fixture(scope="module")
def job(server):
    return server.give("molecules.csv", TABLE)


def rows(server, job, **query):
    answer = server.get(f"/api/jobs/{job['id']}/rows", **query)
    assert answer.status == 200, answer.body
    return answer.json


def test_a_molecule_has_what_python_gives(server, model):
    answer = server.ask("POST", "/api/molecule", {"smiles": "c1ccccc1O"}).json
    scores = model.score(["c1ccccc1O"])
    assert answer["status"] == "ok"
    assert answer["svg"].startswith("<svg")
    for i, task in enumerate(answer["tasks"]):
        assert task["value"] == pytest.approx(scores.values[0, i], rel=1e-4, abs=1e-5)
        assert float(task["low"]) < task["value"] < float(task["high"]), "an end may be infinite"
        assert task["inside"] is bool(scores.inside[0, i])
        assert 0 <= task["at_low"] <= task["at"] <= task["at_high"] <= 1


def test_a_text_that_is_no_molecule_gets_a_status(server):
    answer = server.ask("POST", "/api/molecule", {"smiles": "C1CCO"}).json
    assert (answer["status"], answer["tasks"], answer["svg"]) == ("unparsable", [], None)
    assert answer["error"]


def test_a_value_has_its_atoms_and_its_place_among_drugs(server, model):
    question = {"smiles": "CCO", "task": "size"}
    assert server.ask("POST", "/api/explain", question).json["svg"] == model.explain("CCO").to_svg("size", styled=False)
    for wrong in ({"smiles": "C1CC", "task": "size"}, {"smiles": "CCO", "task": "bigness"}):
        assert server.ask("POST", "/api/explain", wrong).status == 400
    shares = model.percentiles(model.score(["CCO"]))[0]
    tasks = server.ask("POST", "/api/molecule", {"smiles": "CCO"}).json["tasks"]
    assert [task["percentile"] for task in tasks] == pytest.approx(shares.tolist(), abs=0.2)


def test_several_molecules_are_rows_as_predict_writes_them(server, model):
    smiles = ["CCO", "not a molecule", "c1ccccc1"] * 40
    answer = server.ask("POST", "/api/predict", {"smiles": smiles}).json
    table = model.predict(smiles)
    assert [row["smiles"] for row in answer] == smiles
    assert [row["status"] for row in answer] == table.scores.status
    assert list(answer[0]) == list(table.columns())
    assert answer[2]["size"] == pytest.approx(table[2]["size"], rel=1e-4)
    assert answer[1]["size"] is None


def test_a_table_keeps_every_row_and_counts_the_bad_ones(server, job):
    assert (job["state"], job["n_rows"], job["n_ok"], job["share"]) == ("done", 6, 4, 1.0)
    assert job["failures"]["unparsable"]["first_row"] == 3
    assert job["columns"] == ["id", "smiles", "note"]
    page = rows(server, job, drawings=True)
    assert [row["cells"][0] for row in page["rows"]] == list("abcdef")
    assert [bool(row["svg"]) for row in page["rows"]] == [True, True, False, True, False, True]
    assert page["rows"][2]["values"]["size"] is None


@pytest.mark.parametrize("descending", [False, True])
def test_rows_are_sorted_with_blanks_last(server, job, descending):
    values = [row["values"]["size"] for row in rows(server, job, sort="size", descending=descending)["rows"]]
    assert values[4:] == [None, None]
    assert values[:4] == sorted(values[:4], reverse=descending)


def test_rows_are_filtered_by_an_expression(server, job):
    whole = [row["values"]["size"] for row in rows(server, job)["rows"] if row["status"] == "ok"]
    middle = sorted(whole)[2]
    page = rows(server, job, where=f"size >= {middle} and size < 1e9")
    assert (page["n_rows"], page["n_all"]) == (2, 6)
    assert all(row["values"]["size"] >= middle for row in page["rows"])
    for where in (f"not size >= {middle}", "not (in_domain and size < -1e9)"):
        found = rows(server, job, where=where)["rows"]
        assert found
        assert {row["status"] for row in found} == {"ok"}, "as of screen, a row without values meets no condition"


@pytest.mark.parametrize("where", ["size", "bigness > 1", "size >", "__import__('os')", "size > 1; size"])
def test_a_wrong_filter_is_one_line(server, job, where):
    answer = server.get(f"/api/jobs/{job['id']}/rows", where=where)
    assert answer.status == 400
    assert "\n" not in answer.error
    assert "Traceback" not in answer.error


def test_pages_follow_each_other(server, job):
    pages = [rows(server, job, start=start, count=2)["rows"] for start in (0, 2, 4, 6)]
    assert [[row["row"] for row in page] for page in pages] == [[1, 2], [3, 4], [5, 6], []]


def test_the_csv_is_that_of_predict(server, job, calibrated_pack_path, tmp_path, run):
    path = tmp_path / "molecules.csv"
    path.write_bytes(TABLE)
    code, _, err = run("predict", path, "--pack", calibrated_pack_path, "--device", "cpu", "-o", tmp_path / "out.csv")
    assert code == 0, err
    answer = server.get(f"/api/jobs/{job['id']}/download")
    assert answer.body == (tmp_path / "out.csv").read_bytes()
    assert answer.headers["content-disposition"] == 'attachment; filename="molecules.predictions.csv"'


def test_a_download_keeps_the_letters_of_its_name(server):
    job = server.give("Löslichkeit (März).csv", TABLE)
    name = server.get(f"/api/jobs/{job['id']}/download").headers["content-disposition"].partition("''")[2]
    assert unquote(name) == "Löslichkeit__März_.predictions.csv"


def test_a_load_balancer_learns_when_the_model_is_there(server):
    server.ask("POST", "/api/molecule", {"smiles": "CCO"})
    health = server.get("/health")
    assert (health.status, health.json) == (200, {"ready": True})
    assert [server.ask("HEAD", path).status for path in ("/health", "/")] == [200, 200]


def test_a_download_goes_on_as_the_table_has_begun(server):
    """With its delimiter, its byte-order mark and its decimal commas."""
    job = server.give("deutsch.csv", "\ufeffsmiles;Masse\nCCO;46,07\nC;16,04\n".encode())
    header, first, *_ = server.get(f"/api/jobs/{job['id']}/download").body.decode().splitlines()
    assert header.startswith("\ufeffsmiles;Masse;size")
    assert re.match(r"CCO;46,07;-?\d+,\d+;", first)


@pytest.mark.parametrize(("mass", "begins"), [("46.07", b"smiles,Masse,size"), ("46,07", b"smiles;Masse;size")])
def test_a_table_with_tabs_is_downloaded_as_a_csv_that_spreadsheets_open(server, mass, begins):
    job = server.give("pasted.txt", f"smiles\tMasse\nCCO\t{mass}\nC\t16\n".encode())
    assert server.get(f"/api/jobs/{job['id']}/download").body.startswith(begins)


def test_a_download_is_filtered_and_sorted(server, job):
    body = server.get(f"/api/jobs/{job['id']}/download", where="size > 0", sort="size", descending=True).body
    found = list(csv.DictReader(io.StringIO(body.decode())))
    sizes = [float(row["size"]) for row in found]
    assert len(sizes) == 4
    assert sizes == sorted(sizes, reverse=True)


def test_workbooks_and_sdf_come_back_too(server, job):
    book = server.get(f"/api/jobs/{job['id']}/download", form="xlsx").body
    assert "xl/workbook.xml" in zipfile.ZipFile(io.BytesIO(book)).namelist()
    sdf = server.get(f"/api/jobs/{job['id']}/download", form="sdf").body
    assert sdf.count(b"$$$$") == 6
    # and each of them is read again
    for name, content in (("book.xlsx", book), ("records.sdf", sdf)):
        again = server.give(name, content)
        assert (again["state"], again["n_rows"], again["n_ok"]) == ("done", 6, 4), again


def test_a_download_that_nobody_waits_for_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(app, "LOOK_SECONDS", 0.01)
    writing, job = Future(), Job("x", "a.csv", tmp_path, state="done", results=object())
    jobs = SimpleNamespace(get=lambda number: job, download=lambda *arguments: writing)
    service = app.Service(None, SimpleNamespace(parse=None, mol_block=None), jobs, Limits(), {})
    guard, heard = Guard(app.make_app(service), Limits(), "127.0.0.1", 8765), ["http.request"]

    async def receive():
        return {"type": heard.pop() if heard else "http.disconnect", "body": b""}

    async def send(message):
        """To nobody."""

    headers = [(b"host", b"127.0.0.1:8765")]
    scope = {"type": "http", "method": "GET", "path": "/api/jobs/x/download", "query_string": b"", "headers": headers}
    asyncio.run(guard(scope, receive, send))
    assert writing.cancelled()


def test_a_row_without_values_is_a_record_without_atoms(server):
    """RDKit would take half a minute to lay this one out."""
    job = server.give("long.csv", b"smiles\nCCO\n" + b"C" * 2000 + b"\n")
    first, second, _ = server.get(f"/api/jobs/{job['id']}/download", form="sdf").body.decode().split("$$$$\n")
    assert first.split("\n")[3].startswith("  3  2")
    assert second.split("\n")[3].startswith("  0  0")
    assert ">  <status>\ntoo_large\n" in second


def test_pasted_lines_are_a_list_of_molecules(server):
    job = server.give("pasted.txt", b"CCO ethanol\nc1ccccc1 benzene\n")
    assert [row["name"] for row in rows(server, job)["rows"]] == ["ethanol", "benzene"]


def test_text_that_is_not_utf8_is_shown_and_comes_back(server):
    job = server.give("latin.csv", b"smiles,note\nCCO,\xe9t\xe9\n")
    assert rows(server, job)["rows"][0]["cells"] == ["CCO", "\ufffdt\ufffd"]
    assert b"CCO,\xe9t\xe9," in server.get(f"/api/jobs/{job['id']}/download").body


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.exe", b"MZ", "expected a name that ends in"),
        ("a.csv.gz", b"\x1f\x8b", "expected a name that ends in"),
        ("a.csv", b"\x1f\x8b\x08rest", "unpack it"),
        ("a.csv", b"PAR1rest", "unpack it"),
    ],
)
def test_what_is_no_table_is_refused(server, name, content, words):
    answer = server.ask("POST", f"/api/jobs?name={name}", content)
    assert answer.status == 400
    assert words in answer.error


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\x00\x01\x02\x03" * 100])
def test_a_table_without_molecules_fails_with_one_line(server, content):
    job = server.give("table.csv", content)
    assert job["state"] in ("failed", "done")
    assert job["state"] == "done" or job["error"]
    assert "/" not in job["error"], "no path of the machine"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("table.csv", b"a,b\n1,2\n", "table.csv: no SMILES column among 'a', 'b'; call it smiles"),
        ("table.csv", b"a_smiles,b_smiles\nCCO,CCN\n", "'a_smiles', 'b_smiles'; call the one to be read smiles"),
        ("table.csv", b"a,b\nCCCO,CCCN\n", "'a', 'b'; call the one to be read smiles"),
        (
            "old.xls",
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
            "old.xls is an old Excel file (.xls): save it as .xlsx",
        ),
    ],
)
def test_the_error_of_a_table_says_what_can_be_done_on_the_page(server, name, content, words):
    error = server.give(name, content)["error"]
    assert words in error
    assert "--" not in error


def test_a_workbook_by_another_name_is_read(server, job):
    book = server.get(f"/api/jobs/{job['id']}/download", form="xlsx").body
    again = server.give("renamed.csv", book)
    assert (again["state"], again["n_rows"], again["n_ok"]) == ("done", 6, 4), again["error"]


def test_a_deleted_table_is_gone(server):
    job = server.give("molecules.csv", TABLE)
    assert server.ask("DELETE", f"/api/jobs/{job['id']}").json["deleted"]
    for path in ("", "/rows", "/download"):
        assert server.get(f"/api/jobs/{job['id']}{path}").status == 404


def test_a_table_can_be_stopped(server):
    content = b"smiles\n" + b"CCO\n" * 50_000
    job = server.ask("POST", "/api/jobs?name=long.csv", content).json
    assert server.get(f"/api/jobs/{job['id']}/rows").status == 409
    assert server.ask("POST", "/api/molecule", {"smiles": "CCO"}).status == 200, "a question goes first"
    assert server.get(f"/api/jobs/{job['id']}").json["state"] in ("waiting", "running"), "and the table later"
    assert server.ask("DELETE", f"/api/jobs/{job['id']}").status == 200


def test_two_users_at_once_get_their_own_answers(server, model):
    smiles = ["C" * n + "O" for n in range(1, 25)]
    wanted = model.predict(smiles)["size"]

    def ask(i):
        return server.ask("POST", "/api/predict", {"smiles": [smiles[i]]}).json[0]["size"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(len(smiles)))) == pytest.approx(wanted.tolist(), rel=1e-4)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"smiles": 3}, 422),
        ({"smiles": None}, 422),
        ({}, 422),
        ({"smiles": "C" * 20_001}, 422),
        ({"smiles": ["C"] * 1_001}, 422),
        ([], 422),
        ({"smiles": ["CCO"], "tasks": ["size"]}, 422),  # which would be answered about all tasks
    ],
)
def test_a_wrong_question_is_one_line(server, body, status):
    for path in ("/api/molecule", "/api/predict"):
        answer = server.ask("POST", path, body)
        assert answer.status == status
        assert len(answer.error) <= 300


def test_json_with_lone_surrogates_and_deep_nesting_is_survived(server):
    for text in (b'{"smiles": "\\ud800"}', b'{"smiles": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", b"{", b"\xff"):
        answer = server.ask("POST", "/api/molecule", text, {"Content-Type": "application/json"})
        assert answer.status in (200, 400, 422), text[:30]
        assert "Traceback" not in answer.body.decode("utf-8", "replace")


def test_openapi_describes_every_path_and_its_page_asks_for_nothing_elsewhere(server):
    described = server.get("/openapi.json").json
    assert {"/api/info", "/api/molecule", "/api/predict", "/api/jobs", "/api/text"} <= described["paths"].keys()
    for path in ("/", "/docs", "/sketch", "/page/page.css", *(f"/page/{file.name}" for file in PAGE.glob("*.js"))):
        text = server.get(path).body.decode()
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
    assert json.dumps(described)
