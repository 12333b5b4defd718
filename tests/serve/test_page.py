"""The page of a real server in a real browser."""

from __future__ import annotations

import csv
import json
import re

import pytest
from headless_browser import find, open_browser, wait
from live_server import serving

ActionChains = pytest.importorskip("selenium.webdriver.common.action_chains").ActionChains

ENTER, SHIFT, RELEASE = "\ue007", "\ue008", "\ue000"
ROWS = 1_000


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def driver(server, downloads, tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile"), downloads) as driver:
        yield driver


@pytest.fixture
def browser(driver, server):
    driver.get("about:blank")
    driver.get(server.url)
    wait(lambda: driver.find_element("id", "pack").text)
    driver.get_log("browser")
    yield driver
    assert driver.get_log("browser") == [], "the console has nothing to complain of"


@pytest.fixture(scope="module")
def table(tmp_path_factory, molecules):
    """1,000 rows, two of them bad."""
    path = tmp_path_factory.mktemp("given") / "library.csv"
    smiles = ["C1CC" if i in (5, 500) else molecules[i % len(molecules)] for i in range(ROWS)]
    path.write_text("id,smiles\n" + "".join(f"M{i},{text}\n" for i, text in enumerate(smiles)))
    return path


def type_smiles(browser, text):
    field = browser.find_element("id", "smiles")
    field.clear()
    field.send_keys(text)


def give(browser, path):
    browser.find_element("id", "file").send_keys(str(path))
    wait(lambda: find(browser, ".rows tbody tr"))


def column(browser, name):
    """Numbers of a task as they are shown."""
    heads = [head.get_attribute("data-column") for head in find(browser, ".rows thead th")]
    cells = find(browser, f".rows tbody td:nth-child({heads.index(name) + 1})")
    texts = [cell.text.split("\n")[0] for cell in cells]
    return [None if text == "–" else float(text.replace("−", "-")) for text in texts]


def message(browser):
    return browser.find_element("id", "message").text


def test_a_typed_smiles_gets_its_values(browser, server):
    type_smiles(browser, "CC(=O)Oc1ccccc1" + ENTER)
    rows = wait(lambda: find(browser, ".answers tbody tr"))
    answer = server.ask("POST", "/api/molecule", {"smiles": "CC(=O)Oc1ccccc1"}).json
    assert [row.get_attribute("data-task") for row in rows] == [task["task"] for task in answer["tasks"]]
    assert find(browser, ".picture svg.molecule")
    shown = rows[0].find_element("css selector", ".value").text.split("\n")[0].replace("−", "-")
    assert float(shown) == pytest.approx(answer["tasks"][0]["value"], abs=0.02)


def test_what_is_no_smiles_is_said(browser):
    type_smiles(browser, "C1CC" + ENTER)
    assert "unparsable" in wait(lambda: message(browser))


def shown(browser):
    """The part of the page that is not hidden."""
    return [part.get_attribute("id") for part in find(browser, "#result > section") if part.is_displayed()]


def test_no_values_of_another_molecule_stand_under_an_error(browser):
    type_smiles(browser, "CCO" + ENTER)
    wait(lambda: shown(browser) == ["molecule"])
    script = """const done = arguments[0], result = document.getElementById("result");
        document.getElementById("smiles").value = "C1CC";
        document.querySelector("button.main").click();
        done(result.classList.contains("stale"))"""
    assert browser.execute_async_script(script), "while the next is predicted"
    wait(lambda: "unparsable" in message(browser))
    assert shown(browser) == ["start"]
    assert not find(browser, "#result.stale")


def test_the_address_brings_a_molecule_back(browser, server):
    browser.get(f"{server.url}#smiles=CCO")
    browser.refresh()
    assert wait(lambda: find(browser, ".answers tbody tr"))


@pytest.mark.parametrize("address", ["#smiles=%", "#ask=forward,1,%E0%A4%A"])
def test_an_address_that_was_cut_is_said(browser, server, address):
    browser.get("about:blank")
    browser.get(f"{server.url}{address}")
    assert wait(lambda: message(browser)) == "the address of this page is damaged: enter the molecule again"


def test_a_task_opens_from_the_keyboard(browser):
    type_smiles(browser, "CCO" + ENTER)
    (button, *_) = wait(lambda: find(browser, ".answers tbody th button"))
    button.send_keys(ENTER)
    assert wait(lambda: find(browser, ".answers tr.detail"))
    assert button.get_attribute("aria-expanded") == "true"
    button.send_keys(ENTER)
    assert not find(browser, ".answers tr.detail")


def test_a_table_is_sorted_filtered_and_downloaded(browser, table, downloads):
    give(browser, table)
    assert "1 to 50 of 1,000" in browser.find_element("id", "count").text
    assert "2 unparsable; the first is row 6" in browser.find_element("css selector", ".notes").text
    head = browser.find_element("css selector", '.rows thead th[data-column="size"] button')
    head.click()
    wait(lambda: find(browser, '.rows thead th[aria-sort="ascending"]'))
    sizes = column(browser, "size")
    assert sizes == sorted(sizes)
    browser.find_element("css selector", '.rows thead th[data-column="size"] button').click()
    wait(lambda: find(browser, '.rows thead th[aria-sort="descending"]'))
    sizes = column(browser, "size")
    assert sizes == sorted(sizes, reverse=True)
    bound = sizes[-1]
    field = browser.find_element("id", "where")
    field.send_keys(f"size >= {bound}" + ENTER)
    wait(lambda: "filtered from 1,000" in browser.find_element("id", "count").text)
    n_rows = int(browser.find_element("id", "count").text.split(" of ")[1].split(",")[0])
    assert min(column(browser, "size")) >= bound - 0.01
    find(browser, '[data-form="csv"]')[0].click()
    path = wait(lambda: next(downloads.glob("*.csv"), None))
    rows = wait(lambda: list(csv.DictReader(path.read_text().splitlines())))
    assert len(rows) == n_rows
    found = [float(row["size"]) for row in rows]
    assert found == sorted(found, reverse=True)


def test_a_wrong_filter_is_said_beside_it_and_the_rows_stay(browser, table):
    give(browser, table)
    field, error = browser.find_element("id", "where"), browser.find_element("id", "where-error")
    field.send_keys("bigness > 1" + ENTER)
    assert "unknown name 'bigness'" in wait(lambda: error.text)
    assert field.get_attribute("aria-invalid") == "true"
    assert len(find(browser, ".rows tbody tr")) == 50
    log = browser.get_log("browser")  # the browser itself notes an answer of 400
    assert all("400" in entry["message"] for entry in log)
    field.clear()
    field.send_keys("size > -1e9" + ENTER)
    wait(lambda: not error.is_displayed())
    assert field.get_attribute("aria-invalid") == "false"


def test_the_filter_that_is_shown_as_an_example_has_rows(browser, table):
    """That of many tasks has no `in_domain`, for hardly a molecule is in the domain of all."""
    script = (
        "import('/page/page.js').then(({ info }) => arguments[0](info.tasks.push(...Array(7).fill(info.tasks[0]))))"
    )
    give(browser, table)
    example = [browser.find_element("id", "where").get_attribute("placeholder")]
    browser.execute_async_script(script)
    browser.execute_script("document.getElementById('table').replaceChildren()")
    give(browser, table)
    example.append(browser.find_element("id", "where").get_attribute("placeholder"))
    assert example == ["size > -4 and in_domain", "size > -4"]


def test_a_table_that_fails_at_once_leaves_nothing_but_its_error(browser, tmp_path):
    path = tmp_path / "numbers.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    browser.execute_script("""const at_once = window.fetch;
        window.fetch = async (path, options) => {
            let answer = await at_once(path, options);
            if (!String(path).startsWith("/api/jobs?")) return answer;
            const { id } = await answer.json();
            do answer = await at_once(`/api/jobs/${id}`);
            while (["waiting", "running"].includes((await answer.clone().json()).state));
            return answer;
        }""")
    browser.find_element("id", "file").send_keys(str(path))
    wait(lambda: "no SMILES column" in message(browser))
    assert shown(browser) == ["start"]


def test_pages_turn(browser, table):
    give(browser, table)
    find(browser, "#pager button")[1].click()
    wait(lambda: "51 to 100" in browser.find_element("id", "count").text)
    assert find(browser, ".rows tbody td:nth-child(2)")[0].text == "M50"


def test_rows_that_come_too_late_are_not_shown(browser, table):
    """As those of Next do, with drawings that take long, when a filter is entered at once."""
    give(browser, table)
    browser.execute_script("""const at_once = window.fetch;
        window.fetch = async (path, options) => {
            const answer = await at_once(path, options);
            if (path.includes("start=50")) { await new Promise((done) => setTimeout(done, 500)); window.late = true; }
            return answer;
        }""")
    find(browser, "#pager button")[1].click()
    browser.find_element("id", "where").send_keys("size > 1e9" + ENTER)
    wait(lambda: browser.execute_script("return window.late"))
    browser.execute_async_script("setTimeout(arguments[0], 100)")
    assert browser.find_element("id", "count").text.startswith("no row fits")
    assert not find(browser, ".rows tbody tr")


def test_a_structure_in_the_table_opens_the_molecule(browser, table):
    give(browser, table)
    find(browser, ".rows .structure button")[3].click()
    assert wait(lambda: find(browser, ".answers tbody tr"))
    browser.back()
    assert wait(lambda: find(browser, "#table:not([hidden]) .rows tbody tr"))


def test_back_brings_the_table_as_it_was_left(browser, table):
    give(browser, table)
    browser.find_element("css selector", '.rows thead th[data-column="size"] button').click()
    wait(lambda: find(browser, '.rows thead th[aria-sort="ascending"]'))
    browser.find_element("id", "where").send_keys("size > -1e9" + ENTER)
    wait(lambda: "1 to 50 of 998, filtered" in browser.find_element("id", "count").text)
    find(browser, "#pager button")[1].click()
    wait(lambda: "51 to 100 of 998, filtered" in browser.find_element("id", "count").text)
    left = find(browser, ".rows tbody")[0].text
    for is_new in (False, True):  # is the page itself
        find(browser, ".rows .structure button")[3].click()
        wait(lambda: shown(browser) == ["molecule"])
        if is_new:
            browser.refresh()
            wait(lambda: shown(browser) == ["molecule"])
        browser.back()
        wait(lambda: shown(browser) == ["table"] and find(browser, ".rows tbody")[0].text == left)
        assert "51 to 100 of 998, filtered" in browser.find_element("id", "count").text
        assert browser.find_element("id", "where").get_attribute("value") == "size > -1e9"
        assert find(browser, '.rows thead th[data-column="size"][aria-sort="ascending"]')


def test_pasted_lines_become_a_table(browser):
    type_smiles(browser, f"CCO ethanol{SHIFT}{ENTER}{RELEASE}c1ccccc1 benzene")
    browser.find_element("css selector", "button.main").click()
    wait(lambda: len(find(browser, ".rows tbody tr")) == 2)
    assert "benzene" in find(browser, ".rows tbody")[0].text


def test_a_file_that_is_too_large_is_said_before_it_is_sent(browser, tmp_path):
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.truncate(200 << 20)
    browser.find_element("id", "file").send_keys(str(path))
    assert "at most 50 are taken" in wait(lambda: message(browser))


def test_hostile_text_is_text(browser, tmp_path):
    evil = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
    path = tmp_path / "evil.csv"
    path.write_text(f'smiles,"{evil}"\nCCO,"{evil}"\n"{evil}",\n')
    give(browser, path)
    assert browser.execute_script("return window.hacked") is None
    assert not find(browser, ".rows img, .rows script")
    assert evil in find(browser, ".rows")[0].text


def draw(browser, text, *places):
    """What is in the field after *Draw* is pressed and these places of the sketcher are clicked."""
    browser.execute_script("document.getElementById('smiles').value = arguments[0]", text)
    browser.find_element("id", "draw").click()
    frame = wait(lambda: find(browser, "#sketch iframe"))[0]
    browser.switch_to.frame(frame)
    try:
        script = "return editor && wanted === arguments[0] && (!wanted || editor.smiles())"
        wait(lambda: browser.execute_script(script, re.match(r"\S*", text).group()))
        editor = browser.find_element("id", "editor")
        middle = editor.size["width"] // 2, editor.size["height"] // 2  # from where selenium counts
        for x, y in places:
            click = ActionChains(browser).move_to_element_with_offset(editor, x - middle[0], y - middle[1]).click()
            click.perform()
        browser.execute_async_script("setTimeout(arguments[0], 300)")  # messages arrive
    finally:
        browser.switch_to.default_content()
    return browser.find_element("id", "smiles").get_attribute("value")


RING = (36, 12), (129, 37), (200, 150)  # clear the paper; take the tool for rings of three; use it


def test_what_is_drawn_goes_into_the_field(browser):
    assert draw(browser, "", *RING) == "C1CC1"


@pytest.mark.parametrize("text", ["C[N+](=O)[O-]", "OCC |$a;b;c$| ethanol", "OCC\nNCC amine\nc1ccccc1O"])
def test_what_is_only_looked_at_in_the_sketcher_stays_as_it_is(browser, text):
    assert draw(browser, text) == text


@pytest.mark.parametrize("rest", [" ethanol", "\tethanol\nNCC amine\nc1ccccc1O"])
def test_a_change_in_the_sketcher_is_of_the_first_molecule_alone(browser, rest):
    assert draw(browser, f"OCC{rest}", *RING) == f"C1CC1{rest}"


def test_a_change_in_the_sketcher_ends_an_extension(browser):
    """Its numbers are of other atoms then."""
    assert draw(browser, "OCC |$a;b;c$| ethanol", *RING) == "C1CC1 ethanol"


def choose(browser, name, value):
    browser.find_element("css selector", f'#{name} option[value="{value}"]').click()


def test_the_text_pack_is_asked_from_the_keyboard_and_its_answer_is_drawn(browser):
    type_smiles(browser, "CC=O")
    choose(browser, "text-task", "retro")
    choose(browser, "text-top", "1")
    browser.find_element("id", "text-ask").send_keys(ENTER)
    wait(lambda: find(browser, "#reaction:not([hidden]) .texts li .side svg.molecule"))
    assert "1 answer in" in message(browser)
    assert "the likeliest: CCO" in message(browser), "for screen readers"
    (answer,) = find(browser, ".texts li")
    badges = [badge.text for badge in answer.find_elements("css selector", ".badge")]
    assert badges[:2] == ["balanced", "gives it back"]
    assert re.fullmatch(r"[0-8] of 8 orders agree", badges[2])
    assert answer.find_element("css selector", ".given").text == "CCO"
    answer.find_element("css selector", ".side button").click()
    assert wait(lambda: find(browser, ".answers tbody tr")), "its molecules can be predicted"
    browser.back()
    assert wait(lambda: find(browser, "#reaction:not([hidden]) .texts li"))
    assert message(browser) == "", "it was not asked again"
    browser.find_element("id", "text-orders").click()
    browser.find_element("id", "text-ask").click()
    wait(lambda: len(find(browser, ".texts .badge")) == 2)


@pytest.mark.parametrize("text", ["C1CC", "<img src=x onerror=window.hacked=1", "CC>"])
def test_what_the_text_pack_cannot_be_asked_is_said(browser, text):
    type_smiles(browser, text)
    choose(browser, "text-task", "forward")
    browser.find_element("id", "text-ask").click()
    wait(lambda: "error" in browser.find_element("id", "message").get_attribute("class"))
    assert browser.execute_script("return window.hacked") is None
    assert not find(browser, "#reaction:not([hidden])")
    browser.get_log("browser")  # the browser itself notes an answer of 400


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_as_wide_as_the_window_and_readable(browser, table, width, scheme):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    type_smiles(browser, "CCO" + ENTER)
    wait(lambda: find(browser, ".answers tbody tr"))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    type_smiles(browser, "CO")
    browser.find_element("id", "text-ask").click()
    wait(lambda: find(browser, ".texts li"))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    give(browser, table)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    script = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    colours = [sum(map(int, text.strip("rgb()").split(","))) for text in browser.execute_script(script)]
    assert (colours[0] < colours[1]) == (scheme == "light")


def test_everything_to_use_has_a_name(browser, table):
    give(browser, table)
    for element in find(browser, "button, input:not([hidden]), select, fieldset, textarea, a, iframe, [role=region]"):
        if element.is_displayed():
            assert element.accessible_name, element.get_attribute("outerHTML")


def test_a_link_with_the_token_opens_the_page_from_elsewhere(driver, calibrated_pack_path, tmp_path):
    with serving(calibrated_pack_path, tmp_path, "--token", "a" * 16) as server:
        for url in (server.url, server.url.partition("?")[0]):  # the second time it is known
            driver.get(f"data:text/html,<a href='{url}'>to the server</a>")
            find(driver, "a")[0].click()
            assert wait(lambda: driver.find_element("id", "pack").text)
    driver.get("about:blank")
    driver.get_log("browser")


def test_nothing_is_asked_of_anybody_else(browser, server, table):
    browser.get_log("performance")  # of tests before, which open other pages too
    give(browser, table)
    type_smiles(browser, "CCO" + ENTER)
    wait(lambda: find(browser, ".answers tbody tr"))
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            assert url.startswith((server.url, "data:", "about:", "chrome:", "chrome-untrusted:")), url
