"""The exported page in a real browser: what it reads, computes and shows is what the program does."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headless_browser import find, open_browser, wait
from native_texts import GROUPED, HARD, assembled, mutated
from parity_gate import leave_open
from static_site import StaticSite, sending

from mora_lite.chem import native
from mora_lite.model import Model, load
from mora_lite.packs.pack import open_pack
from mora_lite.scoring.conformal import Intervals, Platt
from mora_lite.scoring.domain import Domain
from mora_lite.scoring.scores import Calibrator
from mora_lite.scoring.tasks import Task

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mora_lite.export import web

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / web.RUNTIME_FOLDER
TOLERANCE = 1e-3  # of a task's deviation, as for the gate of the export
ROWS = 240
HOSTILE = '<img src=x onerror="document.title=1">'

pytestmark = [
    pytest.mark.skipif(not RUNTIME.is_dir(), reason=f"no {web.RUNTIME_FOLDER}: make web-runtime"),
    pytest.mark.skipif("not compiled" in native.note(), reason="the C extension was not compiled"),
]


@pytest.fixture(scope="module")
def folder(calibrated_pack_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the tiny pack. Not to be changed."""
    out = tmp_path_factory.mktemp("sites") / "site"
    with pytest.MonkeyPatch.context() as patch:  # the gate of the model has tests of its own
        leave_open(patch)
        web.export_site(open_pack(calibrated_pack_path), out, runtime=RUNTIME)
    return out


@pytest.fixture(scope="module")
def described(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "site.json").read_text())


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[StaticSite]:
    with sending(folder) as site:
        yield site


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def driver(downloads: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_browser(tmp_path_factory.mktemp("profile"), downloads) as driver:
        driver.set_script_timeout(60)
        yield driver


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
    for old in folder.iterdir():
        old.unlink()
    wait(lambda: find(browser, "#download"))[0].click()
    file = wait(lambda: [path for path in folder.iterdir() if path.suffix == ".csv"])[0]
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


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


# --- the modules, one by one


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


def test_a_damaged_domain_is_known_as_such(driver: Any, site: StaticSite, folder: Path, described: Any) -> None:
    body = """
        const { unpackDomain } = await import("/reader.js");
        const [domains, described, nTasks] = given;
        const unpack = (bytes) => unpackDomain(new Uint8Array(bytes), described, nTasks);
        return Promise.all(domains.map((bytes) => unpack(bytes).then(() => "", (error) => error.message)));
    """
    whole = (folder / "domain.bin").read_bytes()
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


def test_a_table_without_a_smiles_column_is_refused(driver: Any, site: StaticSite) -> None:
    body = """
        const { readTable } = await import("/table.js");
        try { readTable(...given); } catch (error) { return error.message; }
    """
    got = call(driver, site, body, "mol,x\nCCO,1", "a.csv")
    assert got == "a.csv: no column is called SMILES among “mol”, “x”; rename the one to read to smiles"
    assert "several columns" in call(driver, site, body, "SMILES a,SMILES b\nCCO,1", "a.csv")


# --- the page


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


def test_nothing_is_asked_of_others(driver: Any, site: StaticSite, folder: Path, molecules: list[str]) -> None:
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
    assert all((folder / path.lstrip("/")).exists() for path in site.paths)
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert {url for url in urls if not url.startswith((site.url, "data:", "blob:"))} == set()
    stored = "return [localStorage.length, sessionStorage.length, document.cookie]"
    assert driver.execute_script(stored) == [0, 0, ""]


def test_a_file_of_another_export_is_an_error(driver: Any, folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    content = bytearray((copy / "scorer.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "scorer.onnx").write_bytes(content)
    with sending(copy) as site:
        driver.get(site.url)
        wait(lambda: "scorer.onnx is not the one of this page: copy the whole folder again" in message(driver))
        (copy / "scorer.onnx").unlink()
        driver.get(site.url)
        wait(lambda: "scorer.onnx: the web server answered 404; copy the whole folder again" in message(driver))


def test_from_a_file_it_says_how_to_open_it(driver: Any, folder: Path) -> None:
    driver.get((folder / "index.html").as_uri())
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
