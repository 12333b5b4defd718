"""Lines for people: broken between words at the terminal's width, one line in a pipe, none with --quiet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mora_lite.cli import messages
from mora_lite.cli.messages import wrap

WORDS = st.lists(st.text("abc/-.,", min_size=1, max_size=12), min_size=1, max_size=60)


@given(WORDS, st.integers(20, 100))
def test_no_word_is_broken_and_no_line_is_too_wide(words: list[str], width: int) -> None:
    lines = wrap(" ".join(words), width).splitlines()
    assert " ".join(lines).split() == words
    assert max(map(len, lines)) <= width


def test_what_has_no_blank_in_it_stays_whole() -> None:
    path = "x" * 100
    assert path in wrap(f"no such file: {path}", 80)


@pytest.mark.parametrize(("columns", "n_lines"), [(None, 1), ("40", 3)])
def test_a_pipe_gets_one_line_unless_it_says_how_wide_it_is(run, monkeypatch, columns, n_lines) -> None:
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    code, _, err = run("predict", "molecules.csv", "--batch-size", "0")
    assert code == 2
    assert err.startswith("error: Invalid value for '--batch-size'")
    assert err.endswith("--help\n")
    assert len(err.splitlines()) == n_lines
    assert max(map(len, err.splitlines())) <= int(columns or 1000)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict"], "error: Missing argument 'INPUT...'"),
        (["predikt"], "error: No such command 'predikt'. Did you mean 'predict'?; see mora-lite --help"),
        (["info", "--jsn"], "error: No such option: --jsn"),
        (["train", "x.csv"], "see mora-lite train --help"),
        (["evaluate", "admet", "x.csv", "--column", "logS"], "--column: got 'logS', expected TASK=HEADER"),
    ],
)
def test_wrong_usage_looks_like_any_other_error(run, arguments, words) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1


def test_quiet_prints_errors_alone(run, tmp_path) -> None:
    for arguments in (["-q", "predict", tmp_path / "none.csv"], ["predict", tmp_path / "none.csv", "--quiet"]):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
    messages.start([])
    messages.invocation.quiet = True
    messages.print_note("not printed")
    messages.start([])


def test_a_name_whose_bytes_are_not_utf8_is_printed_without_their_codes(capfd) -> None:
    messages.start([])
    messages.print_note("column " + repr("L\udcf6slichkeit"))
    assert capfd.readouterr().err == "note: column 'L\N{REPLACEMENT CHARACTER}slichkeit'\n"


def test_verbose_keeps_the_traceback_of_an_error(run, tmp_path) -> None:
    assert "Traceback" in run("predict", tmp_path / "none.csv", "-v")[2]
    assert "Traceback" not in run("predict", tmp_path / "none.csv")[2]


@pytest.mark.parametrize("exists", [False, True])
def test_what_is_stopped_says_what_is_kept_and_how_to_go_on(capfd, monkeypatch, tmp_path, exists) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    messages.start(["train", "my table.csv", "-t", "active", "-o", "mine", "--epochs", "3"])
    output = tmp_path if exists else tmp_path / "mine"
    with pytest.raises(KeyboardInterrupt), messages.keeping("a checkpoint in mine.run", output):
        raise KeyboardInterrupt
    err = capfd.readouterr().err
    assert "a checkpoint in mine.run" in err
    command = " ".join(err.split("from there:")[1].replace("\\\n", "").split())
    expected = "mora-lite train 'my table.csv' -t active -o mine --epochs 3"
    assert command == expected + " --force" * exists
