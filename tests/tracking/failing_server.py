"""A tracking server that answers every request with the same error, or the first ones well."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FailingServer:
    """Address of the server, and the requests that it was sent."""

    uri: str
    requests: list[str] = field(default_factory=list)


@contextmanager
def failing_server(
    code: int, *, answers: dict[str, object] | None = None, delay: float = 0.0
) -> Iterator[FailingServer]:
    """Run a server on this machine while a block runs.

    Args:
        code: HTTP code of its errors.
        answers: End of a path -> what it answers there instead.
        delay: Seconds before each answer, but for the first, which `check` waits for.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.requests.append(self.path)
            if delay and len(server.requests) > 1:
                time.sleep(delay)
            path = self.path.partition("?")[0]
            answer = next((a for end, a in (answers or {}).items() if path.endswith(end)), None)
            body = b"refused" if answer is None else json.dumps(answer).encode()
            self.send_response(code if answer is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_PATCH = do_POST

        def log_message(self, *_):
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = FailingServer(f"http://127.0.0.1:{listener.server_port}")
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
