"""Print which tests did not run and why, from pytest's JUnit file. The last line counts the tests."""

from __future__ import annotations

import argparse
import ast
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree


def summary(junit: Path, missing: Sequence[str] = (), failed: Sequence[str] = ()) -> list[str]:
    """Lines for a person. missing: what could not be installed. failed: the steps that failed."""
    cases = list(ElementTree.parse(junit).getroot().iter("testcase")) if junit.is_file() else []
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    n_failed = 0
    for case in cases:
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            n_failed += 1
        elif skipped is not None:
            # A file that is skipped as a whole has its name where a test has that of its module.
            reasons[_reason(skipped)][case.get("classname") or case.get("name") or "?"] += 1
    n_skipped = sum(sum(files.values()) for files in reasons.values())
    lines = [" TESTS THAT DID NOT RUN ".center(80, "=")]
    for reason, files in sorted(reasons.items(), key=lambda item: -sum(item[1].values())):
        lines += [f"{sum(files.values())} not run: {reason}", *(f"    {n} in {file}" for file, n in files.items())]
    lines += [f"COULD NOT BE INSTALLED in three tries, so its tests did not run: {name}" for name in missing]
    lines += [f"FAILED: {name}" for name in failed]
    if not cases:
        lines.append(f"FAILED: got no tests from {junit}, expected pytest's JUnit file")
    return [*lines, "=" * 80, f"{len(cases) - n_failed - n_skipped} passed, {n_failed} failed, {n_skipped} skipped"]


def _reason(skipped: ElementTree.Element) -> str:
    """What pytest was told. A file that was skipped as a whole has it in a tuple with the place, as text."""
    message = skipped.get("message") or "no reason given"
    if message == "collection skipped":
        message = str(ast.literal_eval(skipped.text or "")[2]).removeprefix("Skipped: ")
    return message


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("junit", type=Path)
    parser.add_argument("--missing", action="append", default=[], metavar="WHAT")
    parser.add_argument("--failed", action="append", default=[], metavar="STEP")
    arguments = parser.parse_args()
    if os.environ.get("GITHUB_ACTIONS"):
        for name in arguments.missing:
            print(f"::warning::could not be installed, so its tests did not run: {name}")
    print("\n".join(summary(arguments.junit, arguments.missing, arguments.failed)))
