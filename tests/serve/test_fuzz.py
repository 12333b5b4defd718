"""Random requests find no answer that should not be. Ten thousand of them are a benchmark."""

from __future__ import annotations

import pytest

pytest.importorskip("schemathesis")

from serve_fuzz import fuzz


def test_random_requests_find_nothing(server):
    statuses, findings = fuzz(server.url.rstrip("/"), 300, report=lambda line: None)
    assert not findings
    assert sum(statuses.values()) >= 200
    assert server.get("/api/info").json["text"]["mib"], "the text pack has answered too"
    assert {200, 404, 422} <= statuses.keys(), "some fit the description, and some do not"
