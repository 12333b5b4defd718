"""What stands before every request: who may ask, what a body may weigh, and what no answer may lack.

A page of another site that the same browser has open must not be able to use the server: it could send requests to
127.0.0.1, also under a name of its own (DNS rebinding). So the header `Host` has to be one of ours, requests must not
come from elsewhere, and nothing is sent that another page could read.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import logging
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .limits import Limits

LOOPBACK = ("localhost", "127.0.0.1", "::1")
HEALTH = "/health"  # for load balancers, which have no token
SAFE_METHODS = ("GET", "HEAD")
BODY_TYPES = ("application/json", "application/octet-stream")  # what no form of another page can send
SMALL_BODY = 1 << 20  # bytes, of everything but a file
DRAINED_BYTES, DRAINED_SECONDS = 1 << 30, 30.0  # of a body that is refused: else its sender would not see why
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
RETRY = {"retry-after": "10"}
log = logging.getLogger("mora_lite.serve")


class Refusal(HTTPException):
    """A request that is not answered: the status, and why."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None):
        super().__init__(status, reason, headers or {})


class Guard:
    """The server, around the application.

    host: that it listens on. port: likewise, for the cookie's name. token: that everybody must know; empty on a machine
    of one's own. names: that the header `Host` may have besides; where others are let in, the machine's own too.
    """

    def __init__(self, app: Any, limits: Limits, host: str, port: int, token: str = "", names: Sequence[str] = ()):
        self._app, self._limits, self._token = app, limits, token
        self._is_open = host not in LOOPBACK
        own = [socket.gethostname()] if self._is_open else []
        self._names = {name.lower() for name in (*LOOPBACK, host, *names, *own)}
        self._cookie = f"mora-lite-{port}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = _Answer(send)
        body = _Body(receive, self._limits)
        try:
            headers = _headers_of(scope)
            self._check_source(scope["method"], headers)
            if self._let_in(scope, headers):
                await answer.redirect(f"{self._cookie}={self._secret}; HttpOnly; SameSite=Lax")
                return
            await body.claim(scope, headers)
            await self._app(scope, body, answer)
        except Refusal as refusal:
            await answer.refuse(refusal)
        except ClientDisconnect:
            return  # nobody is there to be answered
        except asyncio.CancelledError:  # by uvicorn, once it has waited for the answer
            await answer.refuse(Refusal(503, "the server is ending; ask again when it is back", RETRY))
        except Exception as error:  # nobody outside learns more than that
            log.error("%s %s: %s", scope["method"], scope["path"], type(error).__name__, exc_info=error)
            await answer.refuse(Refusal(500, "the server failed at this request; its terminal says why"))

    @property
    def _secret(self) -> str:
        """What the cookie holds: not the token itself."""
        return hashlib.sha256(f"mora-lite {self._token}".encode()).hexdigest()

    def _check_source(self, method: str, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise Refusal(
                421,
                f"the header Host names another server, {host[:80]!r}; open the address that mora-lite serve printed, "
                "or start it with --allow-host and that name",
            )
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not (
            method in SAFE_METHODS and headers.get("sec-fetch-mode") == "navigate"
        ):
            raise Refusal(403, "this request comes from another site")
        if method in SAFE_METHODS:
            return
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise Refusal(
                403,
                f"this request comes from another site: from {origin[:80]}, and Host is {host[:80]}; "
                "a proxy has to hand the header Host on",
            )
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if method != "DELETE" and kind not in BODY_TYPES:
            raise Refusal(415, f"got the content type {kind[:80]!r}, expected {' or '.join(BODY_TYPES)}")

    def _is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self._names:
            return True
        if not self._is_open:
            return False
        try:  # an address is not a name that somebody could point at this machine
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _let_in(self, scope: Any, headers: dict[str, str]) -> bool:
        """Whether the address has the token in it, which then goes into a cookie. Raises `Refusal` without a token."""
        if not self._token or scope["path"] == HEALTH:
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1]
        if scope["path"] == "/" and given and self._is_token(given):
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(bearer.strip()):
            return False
        cookies = _values_of(self._cookie, headers.get("cookie", ""))
        if any(hmac.compare_digest(value.encode(), self._secret.encode()) for value in cookies):
            return False
        raise Refusal(
            401,
            "this server wants its token: open the address that mora-lite serve printed, or send the header "
            "Authorization: Bearer TOKEN",
            {"www-authenticate": "Bearer"},
        )

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


class _Body:
    """The body of a request as it comes; not larger and not slower than the limits."""

    def __init__(self, receive: Any, limits: Limits):
        self._receive, self._limits = receive, limits
        self._most, self._read, self._ended = SMALL_BODY, 0, False
        self._deadline = asyncio.get_running_loop().time() + limits.upload_seconds

    async def claim(self, scope: Any, headers: dict[str, str]) -> None:
        """Raise `Refusal` for a body whose length is too much already."""
        if scope["path"] == "/api/jobs":
            self._most = self._limits.upload_bytes
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._most:
            if "expect" not in headers:  # else it waits for our word before it sends anything
                await self._drain()
            raise self._too_large()

    async def __call__(self) -> Any:
        if self._ended:  # only whether whoever asked goes away
            return await self._receive()
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.01))
        except (TimeoutError, asyncio.TimeoutError):
            seconds = f"{self._limits.upload_seconds:,.0f}"
            raise Refusal(
                408, f"the request did not arrive within {seconds} seconds", {"connection": "close"}
            ) from None
        self._read += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self._read > self._most:
            await self._drain()
            raise self._too_large()
        return message

    def _too_large(self) -> Refusal:
        most = f"{self._most >> 20:,} MiB"
        return Refusal(413, f"the request is larger than {most}; give the table in parts, or use mora-lite predict")

    async def _drain(self) -> None:
        """Read what comes and throw it away."""
        deadline = asyncio.get_running_loop().time() + DRAINED_SECONDS
        while not self._ended and self._read < DRAINED_BYTES:
            try:
                message = await asyncio.wait_for(
                    self._receive(), max(deadline - asyncio.get_running_loop().time(), 0.01)
                )
            except (TimeoutError, asyncio.TimeoutError):
                return
            self._read += len(message.get("body", b""))
            self._ended = message["type"] != "http.request" or not message.get("more_body", False)


class _Answer:
    """Where an answer goes, with the headers that every answer has."""

    def __init__(self, send: Any):
        self._send, self._begun = send, False

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            given = {name.lower() for name, _ in message.get("headers", ())}
            more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in given]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        if self._begun:  # too late to say anything: the answer ends before its length
            return
        body = json.dumps({"error": refusal.detail}).encode()
        headers = [(name.encode(), value.encode()) for name, value in (refusal.headers or {}).items()]
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self({"type": "http.response.start", "status": refusal.status_code, "headers": headers})
        await self({"type": "http.response.body", "body": body})

    async def redirect(self, cookie: str) -> None:
        headers = [(b"location", b"./"), (b"set-cookie", cookie.encode()), (b"content-length", b"0")]
        await self({"type": "http.response.start", "status": 303, "headers": headers})
        await self({"type": "http.response.body", "body": b""})


def _values_of(cookie: str, header: str) -> list[str]:
    """The values of a cookie. Those of other programs of this computer come too, in forms that no standard knows."""
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return [value for name, _, value in pairs if name == cookie]


def _headers_of(scope: Any) -> dict[str, str]:
    """Names in lower case -> values. Raises `Refusal` where one that decides something comes twice."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in headers and key in ("host", "origin", "content-length", "content-type", "authorization"):
            raise Refusal(400, f"the header {key} comes twice")
        headers[key] = value.decode("latin-1")
    return headers
