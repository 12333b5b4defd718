"""Work reports how far it is to whoever listens, and to nobody else."""

from __future__ import annotations

from mora_lite.machine.progress import listening, report, track


def test_a_listener_hears_what_is_reported_in_its_block_only() -> None:
    heard: list[tuple[str, int, int | None]] = []
    report("before")
    with listening(lambda *what: heard.append(what)):
        report("reading", 3, 7)
        assert list(track("abcde", "counting", every=2)) == list("abcde")
    report("after")
    assert heard == [("reading", 3, 7), ("counting", 0, 5), ("counting", 2, 5), ("counting", 4, 5)]
