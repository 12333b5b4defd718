"""The program from its start to its end."""

from __future__ import annotations

import signal
import socket
import sys
import time
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("fastapi")

from live_server import serving

from mora_lite.errors import InputError
from mora_lite.serve.server import MIN_TOKEN, Address


def test_ctrl_c_ends_it_and_no_file_stays(calibrated_pack_path, tmp_path):
    with serving(calibrated_pack_path, tmp_path) as server:
        job = server.give("a.csv", b"smiles\nCCO\n")
        assert job["state"] == "done"
        assert len(list(tmp_path.glob("mora-lite-serve-*"))) == 1
        words = server.stop(signal.SIGINT)
        assert server.process.returncode == 0
    assert "Traceback" not in words
    assert not list(tmp_path.iterdir())


def test_what_a_killed_server_left_goes_when_the_next_one_starts(calibrated_pack_path, tmp_path):
    with serving(calibrated_pack_path, tmp_path) as server:
        old = server.give("a.csv", b"smiles\nCCO\n")["id"]
        server.stop(signal.SIGKILL)
    (left,) = tmp_path.glob("mora-lite-serve-*")
    with serving(calibrated_pack_path, tmp_path, "--token", "a" * MIN_TOKEN) as server:
        assert not left.exists()
        bearer = {"Authorization": "Bearer " + "a" * MIN_TOKEN}
        assert server.get("/api/info").status == 401, "a token is asked for on 127.0.0.1 too, where one is given"
        answer = server.get(f"/api/jobs/{old}", bearer)
        assert answer.status == 404
        assert "give the table again" in answer.error
        server.stop(signal.SIGTERM)
    assert not list(tmp_path.iterdir())


def test_an_exported_folder_is_served_too(exported_path, tmp_path):
    with serving(exported_path, tmp_path) as server:
        answer = server.ask("POST", "/api/molecule", {"smiles": "CCO"}).json
        assert answer["status"] == "ok"
        assert [task["task"] for task in answer["tasks"]] == ["size", "polarity", "mass"]
        assert server.give("a.csv", b"smiles\nCCO\n")["n_ok"] == 1


def test_another_host_gets_a_token_of_its_own():
    assert Address.of("127.0.0.1", None, None, ()).token == ""
    first, second = (Address.of("0.0.0.0", None, None, ()).token for _ in range(2))
    assert len(first) >= MIN_TOKEN
    assert first != second
    assert first in Address.of("0.0.0.0", 80, first, ()).url(80)


def test_other_computers_are_told_a_name_that_they_can_open(calibrated_pack_path, tmp_path):
    with serving(calibrated_pack_path, tmp_path, "--host", "0.0.0.0", "--token", "a" * MIN_TOKEN) as server:
        said = server.said.splitlines()
    assert f"for other computers: http://{socket.gethostname()}:{server.port}/?token={'a' * MIN_TOKEN}" in said
    for host in ("127.0.0.1", "192.168.1.7", "lab.example"):
        assert Address.of(host, 80, None, ()).url_of_others(80) == ""


def test_any_token_survives_the_address():
    """As `openssl rand -base64 24` makes one."""
    token = "ab+cd/ef=gh&ij#kl%20 mn"
    url = urlsplit(Address.of("0.0.0.0", 80, token, ()).url(80))
    assert parse_qs(url.query)["token"] == [token]


def test_a_host_without_a_name_is_refused():
    with pytest.raises(InputError, match="--host: got an empty name"):
        Address.of("", None, None, ())


def test_windows_gives_a_port_to_one_server_alone(monkeypatch):
    """There SO_REUSEADDR would give it to two."""
    monkeypatch.setattr(sys, "platform", "win32")
    with Address(port=0).listen() as listening:
        assert not listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


@pytest.mark.parametrize("token", ["short", "with a line\nend 0123456789", "é" * 20])
def test_a_weak_token_is_refused(token):
    with pytest.raises(InputError, match="--token: got"):
        Address.of("0.0.0.0", None, token, ())


def test_a_port_that_is_taken_is_said_so():
    with Address(port=0).listen() as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1 port {port}"):
            Address(port=port).listen()


@pytest.mark.parametrize("name", ["https://lab.example.org", "lab.example.org:443", "lab.example.org/mora", "*", ""])
def test_a_name_that_no_request_could_have_is_refused(name):
    with pytest.raises(InputError, match=r"expected a name alone, such as lab\.example\.org"):
        Address.of("127.0.0.1", None, None, [name])
    assert Address.of("127.0.0.1", None, None, ["lab.example.org", "10.0.0.1", "fe80::1", "localhost"]).names


def test_a_host_that_is_not_of_this_machine_is_said_so():
    with pytest.raises(InputError, match=r"cannot listen on 192\.0\.2\.1: .*; choose another --host"):
        Address("192.0.2.1").listen()


def test_a_pack_that_is_not_there_is_said_before_anything_listens(run):
    code, out, err = run("serve", "--pack", "nothing-of-the-kind", "--no-browser")
    assert (code, out) == (2, "")
    assert "nothing-of-the-kind" in err
    assert "serving on" not in err


def test_a_head_that_does_not_come_is_given_up(calibrated_pack_path):
    """Many such connections would keep others out."""
    import asyncio

    from mora_lite.serve.limits import Limits
    from mora_lite.serve.server import _config, _Server

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    async def slow_and_quick():
        listening = Address(port=0).listen()
        server = _Server(_config(app, Limits(header_seconds=0.3)), lambda: None)
        server.config.lifespan = "off"
        task = asyncio.create_task(server._serve([listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.getsockname()[1])
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        writer.write(b"GET / HTTP/1.1\r\nHo")  # and no more
        while await reader.read(1000):
            pass
        server.should_exit = True
        await task
        return time.monotonic() - started

    assert asyncio.run(slow_and_quick()) < 10
