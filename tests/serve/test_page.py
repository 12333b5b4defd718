"""The page of a real server in a real browser."""

from __future__ import annotations

import json
import re

import pytest
from headless_browser import find, wait
from live_server import serving
from path_proxy import proxied
from served_page import ENTER, give, message, shown, type_smiles

ActionChains = pytest.importorskip("selenium.webdriver.common.action_chains").ActionChains


def test_a_typed_smiles_gets_its_values(browser, server):
    type_smiles(browser, "CC(=O)Oc1ccccc1" + ENTER)
    rows = wait(lambda: find(browser, ".answers tbody tr"))
    answer = server.ask("POST", "/api/molecule", {"smiles": "CC(=O)Oc1ccccc1"}).json
    assert [row.get_attribute("data-task") for row in rows] == [task["task"] for task in answer["tasks"]]
    assert browser.title == "CC(=O)Oc1ccccc1 – mora-lite"
    assert message(browser) == f"{len(rows)} values", "for screen readers"
    assert find(browser, ".picture svg.molecule")
    shown = rows[0].find_element("css selector", ".value").text.split("\n")[0].replace("−", "-")
    assert float(shown) == pytest.approx(answer["tasks"][0]["value"], abs=0.02)


# Texts whose contrast is less than WCAG 2 asks for.
PALE = r"""
    const linear = (x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    const light = (color) => {
      const [r, g, b] = color.match(/[\d.]+/g).map((x) => linear(x / 255));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (one) => {
      const color = getComputedStyle(one).backgroundColor;
      return color.endsWith(", 0)") ? behind(one.parentElement) : color;
    };
    const isText = (node) => node.nodeType === 3 && node.textContent.trim();
    return [...document.body.querySelectorAll("*")].filter((one) => {
      if (!one.offsetParent || ![...one.childNodes].some(isText)) return false;
      const [low, high] = [light(getComputedStyle(one).color), light(behind(one))].sort((a, b) => a - b);
      return (high + 0.05) / (low + 0.05) < 4.5;
    }).map((one) => one.textContent);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(browser, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    type_smiles(browser, "CC(=O)Oc1ccccc1" + ENTER)
    wait(lambda: find(browser, ".answers tbody th button"))[0].click()
    wait(lambda: find(browser, ".answers tr.detail svg"))
    assert browser.execute_script(PALE) == []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_interface_is_described_with_commands_to_try(browser, server):
    browser.get(f"{server.url}docs")
    texts = [card.text for card in wait(lambda: find(browser, "#paths section.card"))]
    (predict,) = (text for text in texts if text.startswith("POST /api/predict\n"))
    assert """-d '{"smiles":["CCO","c1ccccc1O"]}'""" in predict
    assert any("where A condition, such as" in text for text in texts)


def test_what_is_no_smiles_is_said(browser):
    type_smiles(browser, "C1CC" + ENTER)
    said = wait(lambda: message(browser) != "predicting …" and message(browser))
    assert "unparsable" in said


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


def test_the_page_works_below_a_path_of_a_proxy(browser, server, table):
    with proxied(server.port) as url:
        browser.get(f"{url}/#smiles=CCO")
        wait(lambda: find(browser, ".answers tbody tr"))
        give(browser, table)
        browser.find_element("css selector", ".head button").click()
        assert wait(lambda: message(browser)) == "deleted"
        assert browser.current_url == f"{url}/"
        assert draw(browser, "", *RING) == "C1CC1"
        browser.find_element("link text", "HTTP interface").click()
        assert wait(lambda: f"curl {url}/api/info" in browser.page_source)
        browser.find_element("link text", "mora-lite").click()
        assert wait(lambda: browser.current_url) == f"{url}/"
        browser.get(server.url)


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
