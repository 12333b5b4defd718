"""Starts the server, and ends it: a socket of our own, uvicorn on it, and the model in a thread beside it."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import re
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..context.approved import ApprovedDrugs
from ..errors import InputError, error_text
from ..scoring.parallel import ModelSource
from ..scoring.predictor import Predictor
from . import molecule, reasons
from .app import Service, make_app
from .guard import LOOPBACK, Guard
from .jobs import Jobs
from .limits import Limits
from .reader import SafeReader
from .text import TextAnswers, TextSource
from .worker import ROWS, ModelThread

PORT = 8765  # where none is asked for; another where it is taken
MIN_TOKEN = 16  # characters
NAME = re.compile(r"[\w.-]+|[\da-fA-F]*:[\da-fA-F]*:[\da-fA-F:.]*")  # as `Host` has it, without a port; or IPv6
EVERYWHERE = ("0.0.0.0", "::")  # all addresses of this machine, where nobody else can find it by these


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    port: None for `PORT` or, where it is taken, any. names: that the header `Host` may have besides.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    token: str = ""
    names: Sequence[str] = field(default_factory=tuple)

    @classmethod
    def of(cls, host: str, port: int | None, token: str | None, names: Sequence[str]) -> Address:
        """With a new token for a host that others can reach.

        Raises `InputError` for a token that is easily guessed, for an empty host, which would be every address, and for
        names that no header `Host` could have, as those with a port.
        """
        if not host:
            raise InputError("--host: got an empty name, expected an address such as 127.0.0.1")
        if token and (len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable()):
            raise InputError(f"--token: got {len(token)} characters, expected {MIN_TOKEN} or more of ASCII")
        if wrong := [name for name in names if not NAME.fullmatch(name)]:
            raise InputError(f"--allow-host: got {wrong[0]!r}, expected a name alone, such as lab.example.org")
        return cls(host, port, token or ("" if host in LOOPBACK else secrets.token_urlsafe(24)), tuple(names))

    def listen(self) -> socket.socket:
        """A socket that listens here. Raises `InputError` where that cannot be."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        for port in (PORT, 0) if self.port is None else (self.port,):
            found = socket.socket(family, socket.SOCK_STREAM)
            if sys.platform != "win32":  # where it would give a port to two servers
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                found.bind((self.host, port))
                found.listen(256)
                return found
            except OSError as error:
                found.close()
                place = f"{self.host} port {port}" if port else self.host
                other = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
                problem = f"cannot listen on {place}: {error_text(error)}; choose another {other}"
        raise InputError(problem)

    def url(self, port: int) -> str:
        """For a browser on this machine."""
        host = "127.0.0.1" if self.host == "0.0.0.0" else "::1" if self.host == "::" else self.host
        try:
            shown = f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
        except ValueError:
            shown = host
        return f"http://{shown}:{port}/" + (f"?token={quote(self.token, safe='')}" if self.token else "")

    def url_of_others(self, port: int) -> str:
        """By this machine's name, for other computers; empty where `url` is theirs too or they are not let in."""
        return replace(self, host=socket.gethostname()).url(port) if self.host in EVERYWHERE else ""


def serve(
    load: Callable[[], Predictor],
    source: ModelSource,
    address: Address,
    *,
    text: TextSource | None = None,
    limits: Limits = Limits(),  # noqa: B008 - it cannot change
    on_start: Callable[[str, str], None] = lambda url, others: None,
    on_note: Callable[[str], None] = lambda line: None,
    open_browser: bool = False,
) -> None:
    """Serve until a signal says stop; all files of the server are gone then.

    load: gives the model; called in a thread. source: what is known of it before. text: a pack that may be asked.
    on_start: called with the URL, and that for other computers or an empty text.
    on_note: gets a line when the model for text is loaded.

    Raises `InputError` where the address cannot be listened on, and what `load` raises.
    """
    listening = address.listen()
    port = int(listening.getsockname()[1])
    reader = SafeReader(source.featurizer, limits.molecule_seconds)

    def end() -> None:
        server.should_exit = True

    worker = ModelThread(lambda: _warm(load(), reader), limits.waiting, end)
    jobs = Jobs(worker, reader.parse, limits)
    texts = None if text is None else TextAnswers(text, limits, on_note)
    facts = {
        "pack": source.name,
        "tasks": [molecule.describe_task(task) for task in source.tasks],
        "calibrated": source.calibrated,
        "has_training": source.has_training,
    }
    service = Service(worker, reader, jobs, limits, facts, texts)
    app = Guard(make_app(service), limits, address.host, port, address.token, address.names)
    server = _Server(_config(app, limits), on_begin=lambda: _begin(address, port, on_start, open_browser))
    try:
        worker.start()
        worker.ask(reasons.prepare, ROWS)
        threading.Thread(target=reader.warm_up, name="drawings", daemon=True).start()
        server.run(sockets=[listening])
    finally:
        if texts is not None:
            texts.close()
        worker.stop()
        reader.close()
        jobs.close()
        listening.close()
    if worker.failure is not None:
        raise worker.failure


def _warm(model: Predictor, reader: SafeReader) -> Predictor:
    """The model after its first molecule, which takes longer than the next."""
    molecule.answer_molecule(model, reader.parse, "CCO")
    if ApprovedDrugs.known(model.pack_sha256) is not None:
        reasons.prepare(model)  # at once; else it waits until nobody asks anything
    return model


def _begin(address: Address, port: int, on_start: Callable[[str, str], None], open_browser: bool) -> None:
    url = address.url(port)
    on_start(url, address.url_of_others(port))
    if open_browser:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _config(app: Any, limits: Limits) -> uvicorn.Config:
    class Protocol(_PatientProtocol):
        header_seconds = limits.header_seconds

    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=32 << 10,
    )


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config, on_begin: Callable[[], None]):
        super().__init__(config)
        self._on_begin = on_begin

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_begin()


class _PatientProtocol(H11Protocol):
    """Closes a connection whose next request does not arrive: a head in `header_seconds`, or nothing at all."""

    header_seconds = 15.0
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        """Begin to wait for a head, if none is being answered, or stop waiting."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering and self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        elif not is_answering and self._waiting is None:
            self._waiting = self.loop.call_later(self.header_seconds, self._give_up)

    def _give_up(self) -> None:
        self._waiting = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
