"""The files that a public repository has besides its code: they parse, and what they name exists."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mora_lite

yaml = pytest.importorskip("yaml")

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
YAML = [*WORKFLOWS, *FORMS, ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, flags=re.MULTILINE))


@pytest.mark.parametrize("path", YAML, ids=lambda p: p.name)
def test_yaml_parses(path: Path) -> None:
    assert isinstance(read(path), dict)


def test_there_are_workflows_and_forms() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "wheels.yml"]
    assert {path.name for path in FORMS} == {"bug.yml", "config.yml", "feature.yml"}
    assert (ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md").is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_what_workflows_call_exists(path: Path) -> None:
    """Targets of make, files of the repository, and actions by their major version."""
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@(?:v\d+|release/v\d+)", step["uses"])
            continue
        words = step["run"].split()
        if words[0] == "make":
            assert set(words[1:]) <= targets()
        for word in words:
            if re.fullmatch(r"\.?\w+(?:/[\w.]+)+", word) and not word.startswith(("dist/", "examples/molecules.pred")):
                assert (ROOT / word).is_file(), word


def test_targets_of_make_are_phony_and_found() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == targets()
    hooks = [hook for repository in read(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]]
    for text in [(ROOT / ".ci" / "run").read_text(encoding="utf-8"), *(hook.get("entry", "") for hook in hooks)]:
        assert {word for word in re.findall(r"make ([a-z][\w-]*)", text) if word != "tests"} <= targets()


def test_ci_runs_every_python_that_the_package_names() -> None:
    versions = [name.rsplit(" ", 1)[-1] for name in PROJECT["classifiers"] if "Python :: 3." in name]
    assert PROJECT["requires-python"] == f">={versions[0]}"
    for job in read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"].values():
        assert job["strategy"]["matrix"]["python"] == versions


def test_a_wheel_is_installed_on_the_system_that_built_it() -> None:
    """With the native reader in it a wheel is one of its system; all of them are published, with the sdist."""
    jobs = read(ROOT / ".github" / "workflows" / "wheels.yml")["jobs"]
    systems = jobs["build"]["strategy"]["matrix"]["os"]
    assert systems == jobs["install"]["strategy"]["matrix"]["os"]
    assert jobs["build"]["runs-on"] == jobs["install"]["runs-on"] == "${{ matrix.os }}"
    artifacts = {
        name: next(step["with"] for step in job["steps"] if "-artifact@" in step.get("uses", ""))
        for name, job in jobs.items()
    }
    assert artifacts["build"]["name"] == artifacts["install"]["name"] == "dist-${{ matrix.os }}"
    assert artifacts["publish"] == {"pattern": "dist-*", "merge-multiple": True, "path": "dist"}


def test_the_citation_is_of_this_version() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert (citation["version"], citation["license"]) == (mora_lite.__version__, PROJECT["license"])
    assert citation["repository-code"] == PROJECT["urls"]["Homepage"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert all(work["authors"] and work["title"] and work["year"] for work in citation["references"])


# --- .ci/summary.py


@pytest.fixture
def ci_summary() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ci_summary", ROOT / ".ci" / "summary.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SOME = """
import pytest
def test_passes(): pass
def test_fails(): assert False
@pytest.fixture
def broken(): raise ValueError
def test_has_a_broken_fixture(broken): pass
@pytest.mark.parametrize("n", [1, 2])
def test_needs_a_device(n): pytest.skip("needs a CUDA device")
"""
WHOLE = "import pytest\npytest.importorskip('no_such_package')\ndef test_never(): pass\n"


def test_the_summary_says_what_did_not_run_and_counts_last(tmp_path: Path, ci_summary: ModuleType) -> None:
    (tmp_path / "test_some.py").write_text(SOME)
    (tmp_path / "test_whole.py").write_text(WHOLE)
    command = [sys.executable, "-m", "pytest", "-q", "--junitxml=junit.xml"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 1
    lines = ci_summary.summary(tmp_path / "junit.xml", ["Ray: pip install ray"], ["make types"])
    assert lines[1:] == [
        "2 not run: needs a CUDA device",
        "    2 in test_some",
        "1 not run: could not import 'no_such_package': No module named 'no_such_package'",
        "    1 in test_whole",
        "COULD NOT BE INSTALLED in three tries, so its tests did not run: Ray: pip install ray",
        "FAILED: make types",
        "=" * 80,
        "1 passed, 2 failed, 3 skipped",
    ]


def test_a_run_without_a_file_is_no_success(tmp_path: Path, ci_summary: ModuleType) -> None:
    lines = ci_summary.summary(tmp_path / "junit.xml")
    assert any(line.startswith("FAILED: got no tests from") for line in lines)
    assert lines[-1] == "0 passed, 0 failed, 0 skipped"
