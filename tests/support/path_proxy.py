"""A reverse proxy below a path, as a server for many programs has it: it takes the path away and hands the rest on."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from collections.abc import Iterator

PATH = "/lab/mora"


@contextlib.contextmanager
def proxied(port: int) -> Iterator[str]:
    """The address, without a slash at its end, below which the server at `port` answers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            if not self.path.startswith(f"{PATH}/"):
                return self.send_error(404)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            with contextlib.closing(upstream):
                upstream.request(self.command, self.path.removeprefix(PATH), body, dict(self.headers))
                answer = upstream.getresponse()
                content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}{PATH}"
        proxy.shutdown()
