"""What all commands have in common: one style of help, and defaults from the environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import typer

from mora_lite.cli.app import app

GROUP = typer.main.get_command(app)


def test_commands_stand_in_the_order_of_work() -> None:
    names = GROUP.list_commands(None)
    assert names[:6] == ["predict", "screen", "explain", "serve", "train", "evaluate"]
    assert names[-2:] == ["info", "cache"]


@pytest.mark.parametrize("name", GROUP.list_commands(None))
def test_values_have_names_in_capitals_and_flags_none(run, monkeypatch, name) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    code, out, _ = run(name, "--help")
    assert code == 0
    assert "--quiet" in out
    assert not re.search(r"<\w+>", out), "no type of Python"


def test_pack_tasks_and_device_have_defaults_in_the_environment(monkeypatch) -> None:
    for name, value in (("PACK", "./mine"), ("TASKS", "logS,BBB"), ("DEVICE", "cpu")):
        monkeypatch.setenv(f"MORA_LITE_{name}", value)
    context = GROUP.get_command(None, "screen").make_context("screen", ["library.smi", "-o", "run"])
    assert (context.params["pack"], context.params["tasks"], context.params["device"]) == ("./mine", "logS,BBB", "cpu")
    context = GROUP.get_command(None, "screen").make_context("screen", ["library.smi", "-o", "run", "-t", "logD"])
    assert context.params["tasks"] == "logD"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "mora_lite.cli", "info"]
        ended = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.decode().splitlines() == ["error: cannot write the results: No space left on device"]


@pytest.mark.parametrize(
    "call",
    [
        "predict CCO --pack {}",
        "predict {}.csv",
        "generate CCO --pack {}",
        "export {} -o out",
        "train {}.csv --target y -o out",
        "evaluate {} table.csv",
    ],
)
def test_a_name_that_the_system_refuses_is_one_line(run, tmp_path, monkeypatch, call: str) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*call.format("a" * 300).split())
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err
