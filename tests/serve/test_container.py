"""The Dockerfile, as far as that shows without building it: what it copies, how it starts, and its health check."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from headless_browser import wait

from mora_lite.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "").splitlines()


def instruction(name: str) -> str:
    """What stands behind the last instruction of that name."""
    return [line.removeprefix(name).strip() for line in LINES if line.startswith(f"{name} ")][-1]


def health_check() -> list[str]:
    return list(json.loads(instruction("HEALTHCHECK").partition(" CMD ")[2]))


def test_the_server_starts_with_these_options() -> None:
    program, command, *options = json.loads(instruction("ENTRYPOINT"))
    assert program == "mora-lite"
    parsed = typer.main.get_command(app).get_command(None, command).make_context(command, options)  # type: ignore[attr-defined]
    assert (parsed.params["host"], parsed.params["port"], parsed.params["browser"]) == ("0.0.0.0", 8765, False)
    assert str(parsed.params["port"]) == instruction("EXPOSE")
    assert f"', {parsed.params['port']}," in health_check()[-1]


def test_it_runs_as_a_user_without_rights() -> None:
    assert instruction("USER") != "root"
    assert any(line.startswith("RUN useradd") and line.endswith(instruction("USER")) for line in LINES)
    assert LINES.index(f"USER {instruction('USER')}") < len(LINES) - 1


def test_what_is_copied_is_there_and_the_extras_too() -> None:
    copied = [line.split()[1] for line in LINES if line.startswith("COPY ") and "--from" not in line]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    (extras,) = re.findall(r"whl\)\[([\w,]+)\]", "\n".join(LINES))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{extra} = \[", project, flags=re.MULTILINE) for extra in extras.split(","))


def test_the_health_check_tells_a_server_from_none(server) -> None:  # type: ignore[no-untyped-def]
    program, *rest = health_check()
    assert program == "python"
    wait(lambda: server.get("/health").json["ready"])
    for port, code in ((server.port, 0), (1, 1)):
        arguments = [word.replace("8765", str(port)) for word in rest]
        assert subprocess.run([sys.executable, *arguments], capture_output=True, check=False).returncode == code


@pytest.mark.parametrize("name", ["tests", ".git", "**/*.so"])
def test_what_the_image_needs_not_is_not_sent(name: str) -> None:
    assert name in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
