"""The modules of the exported page, one by one, in a real browser: each computes what the program does."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native_texts import GROUPED, HARD, assembled, mutated
from static_site import StaticSite

from mora_lite.chem import native
from mora_lite.scoring.conformal import Intervals, Platt
from mora_lite.scoring.domain import Domain
from mora_lite.scoring.scores import Calibrator
from mora_lite.scoring.tasks import Task

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mora_lite.export import web


def call(driver: Any, site: StaticSite, body: str, *arguments: Any) -> Any:
    """What the body of an async function returns on a blank page that may import the site's modules."""
    if driver.current_url != site.blank:
        driver.get(site.blank)
    script = f"""
        const done = arguments[arguments.length - 1], given = [...arguments].slice(0, -1);
        (async () => {{ {body} }})().then((got) => done({{ got }}), (error) => done({{ error: String(error) }}));
    """
    answer = driver.execute_async_script(script, *arguments)
    assert "error" not in answer, answer["error"]
    return answer["got"]


READ = """
    const { Reader } = await import("/reader.js");
    const [texts, parent] = given;
    const bytes = new Uint8Array(await (await fetch("/reader.wasm")).arrayBuffer());
    if (WebAssembly.Module.imports(await WebAssembly.compile(bytes)).length) throw new Error("it asks for imports");
    const reader = await Reader.load(bytes, parent);
    return texts.map((text) => {
      const graph = reader.read(text);
      return graph && [graph.atoms, graph.bonds, graph.ends, graph.fingerprint].map((part) => [...part]);
    });
"""


@pytest.mark.parametrize("standardize", ["parent", "none"])
def test_it_reads_what_the_native_reader_reads(driver: Any, site: StaticSite, standardize: str) -> None:
    """Graphs and fingerprints number by number; and it is certain of the same texts, of which many are wrong."""
    rng = random.Random(4)
    texts = [*HARD, *GROUPED, *(assembled(rng) for _ in range(200)), "", "C" * 1001, "Cé", "CC O", "C\0C", "C\nC"]
    texts += [mutated(texts[:300], rng) for _ in range(400)]
    got = call(driver, site, READ, texts, standardize == "parent")
    reading = native.read(texts, standardize)
    assert [answer is not None for answer in got] == reading.certain.tolist()
    assert 200 < reading.certain.sum() < len(texts) - 200
    graphs = reading.graphs
    for i, answer in enumerate(got):
        if answer is not None:
            one = graphs.select([i])
            parts = one.atoms.ravel(), one.bonds, one.bond_endpoints.ravel(), reading.fingerprints[i]
            assert answer == [part.tolist() for part in parts], texts[i]


def test_similarity_is_that_of_the_domain(driver: Any, site: StaticSite, tmp_path: Path, molecules: list[str]) -> None:
    rng = np.random.default_rng(2)
    known = native.read(molecules, "parent").fingerprints[:40]
    dense = np.packbits(rng.random((3, 1024)) < 0.6, axis=1)  # more than a byte can count
    far = np.zeros((1, 128), np.uint8)
    far[0, -1] = 1  # a gap of many times 255
    packed = np.concatenate([known, dense, far])
    domain = Domain.of(packed, rng.random((len(packed), 11)) < 0.3)
    described = web._write_domain(tmp_path / "domain.bin", domain)
    body = """
        const { Reader, unpackDomain } = await import("/reader.js");
        const [texts, domain, described, nTasks] = given;
        const reader = await Reader.load(new Uint8Array(await (await fetch("/reader.wasm")).arrayBuffer()), true);
        reader.setDomain(await unpackDomain(new Uint8Array(domain), described, nTasks), nTasks);
        return texts.map((text) => reader.read(text) && [...reader.nearest()]);
    """
    got = call(driver, site, body, molecules, list((tmp_path / "domain.bin").read_bytes()), described, 11)
    reading = native.read(molecules, "parent")
    np.testing.assert_array_equal(np.array(got, np.float32), domain.similarity(reading.fingerprints))


def test_a_damaged_domain_is_known_as_such(driver: Any, site: StaticSite, page_folder: Path) -> None:
    described = json.loads((page_folder / "site.json").read_text())
    body = """
        const { unpackDomain } = await import("/reader.js");
        const [domains, described, nTasks] = given;
        const unpack = (bytes) => unpackDomain(new Uint8Array(bytes), described, nTasks);
        return Promise.all(domains.map((bytes) => unpack(bytes).then(() => "", (error) => error.message)));
    """
    whole = (page_folder / "domain.bin").read_bytes()
    n_head = 4 * described["domain"]["n_patterns"] + 2 * described["domain"]["n_rows"]
    more = bytes([whole[0] + 1]) + whole[1:]
    fewer_bits = whole[: n_head - 2] + bytes([0, 0]) + whole[n_head:]
    got = call(driver, site, body, list(map(list, [whole, whole[:-40], more, fewer_bits])), described["domain"], 3)
    assert got == ["", *["domain.bin is damaged: export the page again"] * 3]


def test_numbers_become_answers_as_in_the_program(driver: Any, site: StaticSite) -> None:
    """Every kind and scale of tasks, at similarities on and between the steps, and what is not finite."""
    rng = np.random.default_rng(3)
    scores = np.sort(rng.random(90)).astype(np.float32)
    tasks = (
        Task("linear", "u", "", 1.0, 2.0),
        Task("log", "mg", "", 0.5, 1.5, scale="log"),
        Task("logit", "%", "", 0.0, 1.0, scale="logit"),
        Task("few", "u", "", 0.0, 1.0),
        Task("class", "", "", -1.0, 1.0, kind="class"),
    )
    steps = Intervals(np.array([0.2, 0.5, 1.0]), np.array([0.3, -0.2, -1.0]), scores, np.array([0.1, 0.2], "f4"))
    parts = [steps, steps, steps, Intervals(np.zeros(1), np.zeros(1), scores[:3]), Platt(1.3, -0.4)]
    domain = Domain.of(np.zeros((0, 128), np.uint8), np.zeros((0, 5), bool))
    calibrator = Calibrator(parts, np.full(5, 0.3, np.float32), domain, 0.9)
    raw = (rng.standard_normal((40, 5)) * 3).astype(np.float32)
    nearest = np.round(rng.random((40, 5)), 1).astype(np.float32)
    low, high = calibrator.intervals(raw, nearest)
    for i, task in enumerate(tasks):
        task.open_ends(low[:, i], high[:, i])
    described = [task.as_dict() | web.describe_trust(calibrator, i) for i, task in enumerate(tasks)]
    body = """
        const { answer, emptyAnswers, READ } = await import("/scores.js");
        const [raw, nearest, tasks] = given, out = emptyAnswers(raw.length, tasks.length);
        const floats = (numbers) => Float32Array.from(numbers);
        raw.forEach((numbers, row) => answer(floats(numbers), floats(nearest[row]), tasks, out, row));
        const odd = emptyAnswers(1, tasks.length);
        odd.state[0] = READ;
        answer(Float32Array.of(1, NaN, 1, 1, 1), Float32Array.of(1, 1, 1, 1, 1), tasks, odd, 0);
        if (odd.state[0] === READ || !odd.values.every(Number.isNaN)) throw new Error("a value that is not finite");
        const numbers = (part) => [...part].map(String);
        return [numbers(out.values), numbers(out.low), numbers(out.high), [...out.inside], [...out.similarity]];
    """
    values, lows, highs, inside, similarity = call(driver, site, body, raw.tolist(), nearest.tolist(), described)
    expected = np.stack(
        [*(task.in_unit(raw[:, i]) for i, task in enumerate(tasks[:4])), parts[4].probability(raw[:, 4])], 1
    )
    for got, wanted in (
        (values, expected),
        (lows, np.stack([task.in_unit(low[:, i]) for i, task in enumerate(tasks)], 1)),
        (highs, np.stack([task.in_unit(high[:, i]) for i, task in enumerate(tasks)], 1)),
    ):
        np.testing.assert_allclose(np.array(got, np.float64), wanted.ravel(), rtol=2e-6)
    assert inside == (nearest >= np.float32(0.3)).astype(int).ravel().tolist()
    np.testing.assert_array_equal(np.array(similarity, np.float32), nearest.min(axis=1))


def test_tables_are_read_as_they_were_written(driver: Any, site: StaticSite) -> None:
    """Python's csv writes cells of odd characters, with four delimiters and line ends."""
    rng = random.Random(5)
    tables = []
    for _ in range(60):
        width, delimiter, end = rng.randint(2, 4), rng.choice(",;\t"), rng.choice(["\n", "\r\n"])
        texts = ["", "a", 'say "x"', "x,y", "a;b", "tab\there", "two\nlines", " blank ", '"', "é", "|&1:2|"]
        rows = [[rng.choice(texts) for _ in range(width - 1)] + [f"M{i}"] for i in range(rng.randint(1, 6))]
        rows.insert(0, ["SMILES", *[f"c{i}" for i in range(width - 1)]])
        file = io.StringIO(newline="")
        csv.writer(file, delimiter=delimiter, lineterminator=end).writerows(rows)
        tables.append((rng.choice(["", "\ufeff"]) + file.getvalue(), rows))
    body = """
        const { readTable } = await import("/table.js");
        return given[0].map((text) => readTable(text, "x.csv")).map((table) => [table.columns, ...table.rows]);
    """
    got = call(driver, site, body, [text for text, _ in tables])
    assert got == [rows for _, rows in tables]


@pytest.mark.parametrize(
    ("name", "text", "smiles", "columns"),
    [
        ("", "CCO ethanol\n\nCC\n", ["CCO", "", "CC"], ["smiles", "name"]),
        ("", "smiles name\nCCO a b\nCC |a:1| c", ["CCO", "CC |a:1|"], ["smiles", "name"]),
        ("", "C[C@H](N)O |&1:1,o1:2|\nCC", ["C[C@H](N)O |&1:1,o1:2|", "CC"], ["smiles", "name"]),
        ("", "id;SMILES\n1; CCO \n2;CC", ["CCO", "CC"], ["id", "SMILES"]),
        ("a.smi", "CCO,CC", ["CCO,CC"], ["smiles", "name"]),
        ("a.csv", "sep=;\nSMILES;n\nCCO;1", ["CCO"], ["SMILES", "n"]),
        ("a.csv", "Canonical SMILES,x\nCCO,1,2\nCC", ["", "CC"], ["Canonical SMILES", "x"]),
        ("a.csv", 'smiles,x\n"CCO,1\nCC,2\n', ['"CCO', "CC"], ["smiles", "x"]),
    ],
)
def test_what_a_table_holds(
    driver: Any, site: StaticSite, name: str, text: str, smiles: list[str], columns: list[str]
) -> None:
    body = 'return (await import("/table.js")).readTable(...given);'
    table = call(driver, site, body, text, name)
    assert (table["smiles"], table["columns"]) == (smiles, columns)


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("SMILES\tn\nC1CC\ta", "SMILES,n,"),
        ("SMILES\tn\nC1CC\tä", "\ufeffSMILES,n,"),
        ("SMILES;ä\nC1CC;a", "\ufeffSMILES;ä;"),
    ],
)
def test_a_download_is_a_csv_that_spreadsheets_open(driver: Any, site: StaticSite, text: str, begins: str) -> None:
    body = """
        const { csvPieces, readTable } = await import("/table.js"), { UNREAD } = await import("/scores.js");
        return [...csvPieces(readTable(given[0], ""), { state: [UNREAD] }, [], false)].join("");
    """
    assert call(driver, site, body, text).startswith(begins)


def test_a_table_without_a_smiles_column_is_refused(driver: Any, site: StaticSite) -> None:
    body = """
        const { readTable } = await import("/table.js");
        try { readTable(...given); } catch (error) { return error.message; }
    """
    got = call(driver, site, body, "mol,x\nCCO,1", "a.csv")
    assert got == "a.csv: no column is called SMILES among “mol”, “x”; rename the one to read to smiles"
    assert "several columns" in call(driver, site, body, "SMILES a,SMILES b\nCCO,1", "a.csv")
