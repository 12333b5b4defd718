"""Send thousands of random requests to a running `mora-lite serve`, made by schemathesis from its own description.

    python benchmarks/serve_fuzz.py --requests 10000

Starts a server of its own. Requests fit the description or break it: wrong types, missing and surplus fields, hostile
texts, other methods; half of those about a table are about one that is there, and half of those to the text pack ask
what it knows. An answer is a finding when its status is 500 or above, or when it has no security headers, a traceback,
or a path of the machine that was not in the request.
Prints the statuses and the findings; exit code 1 where there are any. Needs schemathesis.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from serve_load import Server

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
LEAKS = ("Traceback", "site-packages", "/home/", "/usr/lib", "/tmp/")


def wrong(headers: dict[str, str], text: str, status: int, asked: str) -> str:
    """What is wrong with an answer; empty if nothing is. asked: the request, parts of which an error may quote."""
    if status >= 500 and status != 503:
        return f"status {status}"
    if "content-security-policy" not in headers or headers.get("x-content-type-options") != "nosniff":
        refused_by_parser = status == 400 and not headers.get("content-type", "").startswith("application")
        return "" if refused_by_parser else "headers"
    return next((f"has {leak}" for leak in LEAKS if leak in text and leak not in asked), "")


def fuzz(
    base: str, n: int, number: int = 0, report: Callable[[str], None] = print
) -> tuple[Counter[int], Counter[str]]:
    """Send about `n` requests to the server at `base`; returns statuses and findings."""
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
    table = give_table(base)
    operations = [found.ok() for found in schema.get_all_operations()]
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    statuses: Counter[int] = Counter()
    findings: Counter[str] = Counter()
    for operation in operations:
        for mode in modes:
            send_all(operation, mode, -(-n // (len(operations) * len(modes))), number, table, statuses, findings)
            report(f"{operation.label} {mode.value}: {sum(statuses.values())} requests, {len(findings)} findings")
    return statuses, findings


def give_table(base: str) -> str:
    """The number of a table that is scored."""
    name = urllib.parse.urlencode({"name": "molecules.csv"})
    body = b"smiles,note\nCCO,a\nC1CC,b\nc1ccccc1,c\n"
    request = urllib.request.Request(f"{base}/api/jobs?{name}", body, {"Content-Type": "application/octet-stream"})
    job = json.load(urllib.request.urlopen(request))
    while job["state"] != "done":
        time.sleep(0.1)
        job = json.load(urllib.request.urlopen(f"{base}/api/jobs/{job['id']}"))
    return str(job["id"])


def send_all(
    operation: Any, mode: Any, n: int, number: int, table: str, statuses: Counter[int], findings: Counter[str]
) -> None:
    """`n` requests of one operation."""
    try:
        cases = operation.as_strategy(generation_mode=mode)
    except Exception as error:  # nothing about it can be wrong
        print(f"left out: {type(error).__name__}")
        return

    @seed(number)
    @settings(
        max_examples=n, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(cases, st.sampled_from([None] * 9 + list(METHODS)))
    def send(case: Any, method: str | None) -> None:
        if method is not None:
            case.method = method
        if case.method != "DELETE" and "number" in (case.path_parameters or {}) and sum(statuses.values()) % 2:
            case.path_parameters["number"] = table
        if operation.path == "/api/text" and isinstance(case.body, dict) and sum(statuses.values()) % 2:
            known = {"task": "forward"} | ({"smiles": "CO"} if sum(statuses.values()) % 8 == 1 else {})
            case.body = {**case.body, **known}
        answer = case.call(timeout=120)
        statuses[answer.status_code] += 1
        headers = {name.lower(): " ".join(values) for name, values in answer.headers.items()}
        body = answer.request.body or b""
        asked = urllib.parse.unquote_plus(answer.request.url or "")
        asked += body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
        problem = wrong(headers, answer.content.decode("utf-8", "replace")[:100_000], answer.status_code, asked)
        if problem:
            findings[f"{operation.label}: {problem}: {answer.content[:100]!r}"] += 1

    try:
        send()
    except Exception as error:
        if "Unsatisfiable" not in type(error).__name__:
            raise
        print("nothing about it can be wrong")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", default="admet")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    server = Server(options.pack)
    try:
        statuses, findings = fuzz(f"http://127.0.0.1:{server.port}", options.requests, options.seed)
        print(dict(sorted(statuses.items())), f"{server.mib:.0f} MiB")
        for finding, n in findings.most_common(20):
            print(f"{n} x {finding}")
        return int(bool(findings))
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
