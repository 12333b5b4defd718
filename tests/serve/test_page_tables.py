"""Tables on the page of a real server, in a real browser."""

from __future__ import annotations

import csv

from headless_browser import downloaded, find, wait
from served_page import ENTER, RELEASE, SHIFT, column, give, message, shown, type_smiles


def test_a_table_is_sorted_filtered_and_downloaded(browser, table, downloads):
    give(browser, table)
    assert "1 to 50 of 1,000" in browser.find_element("id", "count").text
    assert "2 unparsable; the first is row 6" in browser.find_element("css selector", ".notes").text
    assert "tasks inside" in browser.find_element("css selector", '.rows thead th[data-column="in_domain"]').text
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
        "import('/page/server.js').then(({ info }) => arguments[0](info.tasks.push(...Array(7).fill(info.tasks[0]))))"
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
    assert browser.title == "pasted.txt – mora-lite"


def test_what_is_pasted_from_a_spreadsheet_is_downloaded_for_one(browser, downloads):
    browser.execute_script("document.getElementById('smiles').value = 'Name\\tSMILES\\nÄthanol\\tCCO'")
    browser.find_element("css selector", "button.main").click()
    file = downloaded(downloads, wait(lambda: find(browser, '[data-form="csv"][href]'))[0].click)
    assert file.read_bytes().startswith("\ufeffName,SMILES,".encode()), (
        "with the mark of UTF-8, or Excel would take it for another"
    )


def test_a_file_that_is_too_large_is_said_before_it_is_sent(browser, tmp_path):
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.truncate(200 << 20)
    browser.find_element("id", "file").send_keys(str(path))
    assert "at most 50 are taken" in wait(lambda: message(browser))


def drop(browser, *names):
    """Drop files of these names, with a molecule each, on the page."""
    script = """const data = new DataTransfer();
        for (const name of arguments) data.items.add(new File(["smiles\\nCCO\\n"], name));
        document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));"""
    browser.execute_script(script, *names)


def test_a_dropped_file_becomes_a_table_and_of_several_none_is_left_out_silently(browser):
    drop(browser, "a.csv", "b.csv")
    assert message(browser) == "got 2 files, and one is taken at a time"
    drop(browser, "a.csv")
    wait(lambda: len(find(browser, ".rows tbody tr")) == 1)


def test_a_file_that_the_browser_cannot_read_is_no_fault_of_the_server(browser, tmp_path):
    path = tmp_path / "gone.csv"
    path.write_text("smiles\nCCO\n")
    browser.execute_script("File.prototype.slice = () => ({ arrayBuffer: () => Promise.reject(new Error()) })")
    browser.find_element("id", "file").send_keys(str(path))
    assert wait(lambda: "cannot be read" in message(browser))


def test_hostile_text_is_text(browser, tmp_path):
    evil = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
    path = tmp_path / "evil.csv"
    path.write_text(f'smiles,"{evil}"\nCCO,"{evil}"\n"{evil}",\n')
    give(browser, path)
    assert browser.execute_script("return window.hacked") is None
    assert not find(browser, ".rows img, .rows script")
    assert evil in find(browser, ".rows")[0].text
