"""Send thousands of random requests to a running `mora-lite serve`, made by schemathesis from its own description.

    python benchmarks/serve_fuzz.py --requests 10000

Starts a server of its own. Requests fit the description or break it: wrong types, missing and surplus fields, hostile
texts, other methods. An answer is a finding when its status is 500 or above, when it does not fit the description, or
when it has no security headers, a traceback, or a path of the machine. Prints the statuses and the findings; exit code
1 where there are any. Needs schemathesis.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from serve_load import Server

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
LEAKS = ("Traceback", "site-packages", "/home/", "/usr/lib", "/tmp/")


def wrong(answer: object, headers: dict[str, str], text: str, status: int) -> str:
    """What is wrong with an answer; empty if nothing is."""
    if status >= 500 and status != 503:
        return f"status {status}"
    if "content-security-policy" not in headers or headers.get("x-content-type-options") != "nosniff":
        return (
            ""
            if status in (400, 408, 431) and not headers.get("content-type", "").startswith("application")
            else "headers"
        )
    return next((f"has {leak}" for leak in LEAKS if leak in text), "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", default="admet")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    server = Server(options.pack)
    try:
        base = f"http://127.0.0.1:{server.port}"
        schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        statuses: Counter[int] = Counter()
        findings: Counter[str] = Counter()
        modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
        each = -(-options.requests // (len(operations) * len(modes)))
        random.seed(options.seed)
        for operation in operations:
            for mode in modes:
                run(operation, mode, each, options.seed, statuses, findings)
                print(f"{operation.label} {mode.value}: {sum(statuses.values())} requests, {len(findings)} findings")
        print(dict(sorted(statuses.items())), f"{server.mib:.0f} MiB")
        for finding, n in findings.most_common(20):
            print(f"{n} x {finding}")
        return int(bool(findings))
    finally:
        server.stop()


def run(operation: object, mode: object, n: int, number: int, statuses: Counter[int], findings: Counter[str]) -> None:
    """`n` requests of one operation."""
    try:
        cases = operation.as_strategy(generation_mode=mode)  # type: ignore[attr-defined]
    except Exception as error:  # nothing about it can be wrong
        print(f"left out: {type(error).__name__}")
        return

    @seed(number)
    @settings(
        max_examples=n, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(cases, st.sampled_from([None] * 9 + list(METHODS)))
    def send(case: object, method: str | None) -> None:
        if method is not None:
            case.method = method  # type: ignore[attr-defined]
        answer = case.call(timeout=120)  # type: ignore[attr-defined]
        statuses[answer.status_code] += 1
        headers = {name.lower(): " ".join(values) for name, values in answer.headers.items()}
        problem = wrong(answer, headers, answer.content.decode("utf-8", "replace")[:100_000], answer.status_code)
        if problem:
            findings[f"{operation.label}: {problem}: {answer.content[:100]!r}"] += 1  # type: ignore[attr-defined]

    try:
        send()
    except Exception as error:
        if "Unsatisfiable" not in type(error).__name__:
            raise
        print("nothing about it can be wrong")


if __name__ == "__main__":
    sys.exit(main())
