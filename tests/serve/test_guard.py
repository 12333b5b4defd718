"""Nobody uses the server who should not, and nobody gets at what it should not give."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")

from mora_lite.serve.guard import HEADERS, Guard
from mora_lite.serve.limits import Limits

POST = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\n"
TOKEN = "0123456789abcdef-token"


async def app(scope, receive, send):
    """Reads the body, and answers with its length."""
    n_bytes, more = 0, True
    while more:
        message = await receive()
        n_bytes += len(message.get("body", b""))
        more = message.get("more_body", False)
    if scope["path"] == "/fails":
        raise RuntimeError("a secret of /home/somebody")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(n_bytes).encode()})


def ask(guard, method="GET", path="/", headers=(), query=b"", chunks=(b"",), wait=0.0):
    """Status, headers and body of what `guard` answers. chunks: of the body, `wait` seconds between them."""
    given, sent = list(chunks), []
    plain = [("host", "127.0.0.1:8765")] if "host" not in dict(headers) else []
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in [*plain, *headers]],
    }

    async def receive():
        await asyncio.sleep(wait)
        return {"type": "http.request", "body": given.pop(0), "more_body": bool(given)}

    async def send(message):
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}, body


@pytest.fixture
def guard():
    return Guard(app, Limits(), "127.0.0.1", 8765)


@pytest.fixture
def open_guard():
    return Guard(app, Limits(), "0.0.0.0", 8765, TOKEN, ["lab.example"])


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST", "[::1]:8765", "127.0.0.1"])
def test_our_own_names_are_answered(guard, host):
    assert ask(guard, headers=[("host", host)])[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "",
        "localhost.evil.example:8765",
        "192.168.1.7",
        "a@localhost.x",
        "[::1",
    ],
)
def test_another_name_for_this_machine_is_refused(guard, host):
    status, _, body = ask(guard, headers=[("host", host)])
    assert status == 421
    assert json.loads(body)["error"]


def test_an_open_server_is_asked_by_address_or_by_a_name_it_was_given(open_guard):
    bearer = ("authorization", f"Bearer {TOKEN}")
    for host, status in [("192.168.1.7:8765", 200), ("lab.example", 200), ("evil.example", 421), ("[fe80::1]", 200)]:
        assert ask(open_guard, headers=[("host", host), bearer])[0] == status


def test_the_machines_own_name_is_answered_where_others_are_let_in(guard, open_guard):
    host = ("host", f"{socket.gethostname()}:8765")
    assert ask(open_guard, headers=[host])[0] == 401, "it wants its token"
    assert ask(open_guard, headers=[host, ("authorization", f"Bearer {TOKEN}")])[0] == 200
    assert ask(guard, headers=[host])[0] == 421


@pytest.mark.parametrize(
    "headers",
    [
        [("origin", "http://evil.example")],
        [("origin", "null")],
        [("origin", "http://127.0.0.1:9999")],
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")],
    ],
)
def test_a_post_of_another_page_is_refused(guard, headers):
    kind = ("content-type", "application/json")
    assert ask(guard, "POST", "/api/molecule", [*headers, kind])[0] == 403
    assert ask(guard, "DELETE", "/api/jobs/x", headers)[0] == 403


def test_the_cookie_does_not_let_another_page_post(open_guard):
    cookie = ask(open_guard, query=f"token={TOKEN}".encode())[1]["set-cookie"].split(";")[0]
    ours = [("host", "192.168.1.7"), ("cookie", cookie), ("content-type", "application/json")]
    assert ask(open_guard, "POST", "/api/molecule", ours)[0] == 200
    for theirs in (
        ("origin", "http://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ):
        assert ask(open_guard, "POST", "/api/molecule", [*ours, theirs])[0] == 403
    assert ask(open_guard, "POST", "/api/molecule", [*ours[:2], ("content-type", "text/plain")])[0] == 415


def test_our_own_page_may_post(guard):
    headers = [
        ("origin", "http://127.0.0.1:8765"),
        ("sec-fetch-site", "same-origin"),
        ("content-type", "application/json"),
    ]
    assert ask(guard, "POST", "/api/molecule", headers)[0] == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_can_send_is_refused(guard, kind):
    assert ask(guard, "POST", "/api/molecule", [("content-type", kind)])[0] == 415


def test_another_page_can_link_here_but_not_read(guard):
    link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]
    assert ask(guard, headers=link)[0] == 200
    for mode in ("no-cors", "cors"):
        assert (
            ask(guard, path="/api/info", headers=[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode)])[0] == 403
        )


def test_every_answer_has_the_headers_and_no_answer_names_another_origin(guard):
    for path in ("/", "/fails"):
        _, headers, _ = ask(guard, path=path)
        assert headers.items() >= HEADERS.items()
        assert "access-control-allow-origin" not in headers
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_an_error_says_nothing_of_the_machine(guard, caplog):
    status, _, body = ask(guard, path="/fails")
    assert status == 500
    assert b"secret" not in body
    assert b"Traceback" not in body
    assert "secret" in caplog.text, "the terminal says why"


def test_without_the_token_nothing_is_answered(open_guard):
    for path in ("/", "/api/info", "/page/page.js", "/openapi.json"):
        for headers in ([], [("authorization", "Bearer wrong")], [("cookie", "mora-lite-8765=wrong")]):
            assert ask(open_guard, path=path, headers=headers)[0] == 401


def test_the_address_with_the_token_gives_a_cookie(open_guard):
    status, headers, _ = ask(open_guard, query=f"token={TOKEN}".encode())
    assert (status, headers["location"]) == (303, "./"), "below the path of a proxy too"
    cookie = headers["set-cookie"]
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie, "a link in another page finds who has the token"
    assert "Path" not in cookie, "servers below two paths of a proxy do not take it from each other"
    assert ask(open_guard, path="/api/info", headers=[("cookie", cookie.split(";")[0])])[0] == 200
    assert ask(open_guard, path="/api/info", query=f"token={TOKEN}".encode())[0] == 401, "for the page alone"


def test_a_load_balancer_learns_without_the_token_whether_we_are_well_and_nothing_else(open_guard):
    for method in ("GET", "HEAD"):
        assert ask(open_guard, method, "/health")[0] == 200
    for path in ("/health/", "//health", "/Health", "/health/../api/info"):
        assert ask(open_guard, path=path)[0] == 401
    assert ask(open_guard, path="/health", headers=[("host", "evil.example")])[0] == 421


def test_a_proxy_that_gives_another_host_is_told_what_to_do(open_guard):
    headers = [("host", "127.0.0.1:8765"), ("origin", "https://lab.example"), ("content-type", "application/json")]
    status, _, body = ask(open_guard, "POST", "/api/molecule", headers)
    assert status == 403
    assert "a proxy has to hand the header Host on" in json.loads(body)["error"]


def test_a_server_that_ends_says_so_to_those_who_wait(caplog):
    async def cancelled(scope, receive, send):
        raise asyncio.CancelledError

    status, headers, body = ask(Guard(cancelled, Limits(), "127.0.0.1", 8765))
    assert (status, headers["retry-after"]) == (503, "10")
    assert "the server is ending" in json.loads(body)["error"]
    assert not caplog.records


def test_a_body_is_as_large_as_it_may_be_and_no_larger():
    guard = Guard(app, Limits(upload_bytes=2 << 20), "127.0.0.1", 8765)
    kind = ("content-type", "application/octet-stream")
    chunk = b"x" * (1 << 20)
    assert ask(guard, "POST", "/api/jobs", [kind], chunks=[chunk] * 2)[2] == b"2097152"
    assert ask(guard, "POST", "/api/jobs", [kind], chunks=[chunk] * 3)[0] == 413
    assert ask(guard, "POST", "/api/molecule", [kind], chunks=[chunk, b"x"])[0] == 413
    assert ask(guard, "POST", "/api/jobs", [kind, ("content-length", str(3 << 20))])[0] == 413


def test_a_body_that_does_not_come_is_given_up():
    guard = Guard(app, Limits(upload_seconds=0.05), "127.0.0.1", 8765)
    kind = ("content-type", "application/octet-stream")
    assert ask(guard, "POST", "/api/jobs", [kind], chunks=[b"x"] * 100, wait=0.02)[0] == 408


@pytest.mark.parametrize("name", ["host", "content-length", "authorization", "origin"])
def test_a_header_that_decides_comes_once(guard, name):
    assert ask(guard, headers=[("host", "localhost"), (name, "a"), (name, "b")])[0] == 400


@pytest.mark.parametrize("others", ['state={"page":1}; ', "theme=a b; ", "flag; ", "x[1]=2; ", "mora-lite-8765=old; "])
def test_cookies_of_other_programs_on_this_computer_do_not_matter(open_guard, others):
    """Browsers send them to every port."""
    ours = ask(open_guard, query=f"token={TOKEN}".encode())[1]["set-cookie"].split(";")[0]
    assert ask(open_guard, path="/api/info", headers=[("cookie", others + ours)])[0] == 200


def test_who_goes_away_while_sending_is_no_failure_of_the_server(caplog):
    from starlette.requests import Request

    async def reads(scope, receive, send):
        await Request(scope, receive).body()

    async def gone():
        return {"type": "http.disconnect"}

    async def send(message):
        """To nobody."""

    headers = [(b"host", b"localhost"), (b"content-type", b"application/octet-stream")]
    scope = {"type": "http", "method": "POST", "path": "/api/jobs", "query_string": b"", "headers": headers}
    asyncio.run(Guard(reads, Limits(), "127.0.0.1", 8765)(scope, gone, send))
    assert not caplog.records


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "DELETE", "PUT", "OPTIONS", "TRACE"]),
    st.text("/.%ab0\\\x00", max_size=20),
    st.lists(
        st.tuples(
            st.sampled_from(["host", "origin", "cookie", "content-type", "content-length", "authorization"]),
            st.text(st.characters(max_codepoint=255), max_size=30),
        ),
        max_size=5,
    ),
)
def test_no_request_gets_through_without_the_token(method, path, headers):
    status, _, body = ask(Guard(app, Limits(), "0.0.0.0", 8765, TOKEN), method, path, headers)
    assert status in (400, 401, 403, 415, 421)
    assert json.loads(body)["error"]


# --- on a real socket


@pytest.mark.parametrize(
    "path",
    [
        "/page/../index.html",
        "/page/..%2f..%2fguard.py",
        "/page/%2e%2e/guard.py",
        "/page//etc/passwd",
        "/sketch/../page.js",
        "/sketch/../../app.py",
        "/sketch/%2e%2e/%2e%2e/app.py",
        "/sketch//etc/passwd",
        "/sketch/license.txt%00.js",
        "/..%5c..%5cetc/passwd",
        "/api/jobs/..%2f..",
        "/api/jobs/../../etc/passwd/download",
        "//etc/passwd",
    ],
)
def test_no_file_of_the_machine_can_be_asked_for(server, path):
    answer = server.get(path)
    assert answer.status in (404, 405)
    assert b"import" not in answer.body
    assert b"root:" not in answer.body


@pytest.mark.parametrize(
    "name", ["../../../tmp/evil.csv", "/etc/cron.d/evil.csv", "a\r\nX-Evil: 1.csv", "..\\..\\evil.csv"]
)
def test_a_name_of_a_file_goes_nowhere(server, name):
    job = server.give(name, b"smiles\nCCO\n")
    assert job["state"] == "done"
    assert not set(job["name"]) & set("/\\\r\n")
    headers = server.get(f"/api/jobs/{job['id']}/download").headers
    assert "x-evil" not in headers
    assert not set(headers["content-disposition"]) & set("/\\\r\n")


def raw(server, data):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        answer = b""
        with contextlib.suppress(OSError):  # a server may hang up before all is said
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
    return answer


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\nabcde",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"nonsense\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_and_the_server_lives(server, data):
    answer = raw(server, data)
    assert not answer or answer.split(b" ")[1][:1] == b"4", answer[:200]
    assert b"Traceback" not in answer
    assert server.get("/api/info").status == 200


def test_a_file_of_200_megabytes_gets_a_clear_no(server):
    answer = server.ask("POST", "/api/jobs?name=huge.csv", b"x" * (200 << 20))
    assert answer.status == 413
    assert "50 MiB" in answer.error
