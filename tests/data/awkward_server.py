"""A web server on the loopback address that serves well, or as badly as a test asks it to."""

from __future__ import annotations

import base64
import contextlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """How one request is answered.

    `cut`: the connection is closed after so many bytes of the body. `stall`: after so many bytes nothing comes until
    the server is released. `drip`: seconds between one byte and the next. `span`: a Content-Range to send instead of
    the true one.
    """

    body: bytes = b""
    status: int = 200
    kind: str = "application/octet-stream"
    etag: str | None = '"v1"'
    ranges: bool = True
    heeds_if_range: bool = True
    length: bool = True
    cut: int | None = None
    stall: int | None = None
    drip: float = 0
    span: str | None = None
    user: str | None = None
    headers: dict = field(default_factory=dict)


class Server(ThreadingHTTPServer):
    """Answers by path: each request takes the next one of a list, and the last one again and again."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.site: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, dict]] = []
        self.released = threading.Event()
        self.gate = threading.Lock()

    def handle_error(self, request, client_address):
        """A client that hangs up is what some tests are about."""

    def put(self, path: str, *answers: Answer) -> str:
        """Answers for a path; its address."""
        self.site[path] = list(answers)
        return self.url(path)

    def url(self, path: str, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.server_port}{path}"

    def headers(self, path: str, name: str) -> list[str | None]:
        """One header of every request for a path."""
        return [h.get(name.lower()) for p, h in self.asked if p == path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *words):
        pass

    def do_GET(self):
        server = self.server
        with server.gate:
            server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            answers = server.site.get(self.path, [Answer(status=404, etag=None)])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.answer(answer)

    def answer(self, a: Answer):
        said = self.headers.get("Authorization", "")
        if a.user and said != "Basic " + base64.b64encode(a.user.encode()).decode():
            a = Answer(status=401, etag=None)
        status, body, extra = a.status, a.body, dict(a.headers)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and a.ranges and status == 200:
            start, mark = int(asked[1]), self.headers.get("If-Range")
            if start >= len(body):
                status, body, extra = 416, b"", {"Content-Range": f"bytes */{len(body)}"}
            elif not mark or mark == a.etag or not a.heeds_if_range:
                extra["Content-Range"] = a.span or f"bytes {start}-{len(body) - 1}/{len(body)}"
                status, body = 206, body[start:]
        self.send_response(status)
        self.send_header("Content-Type", a.kind)
        if a.etag:
            self.send_header("ETag", a.etag)
        if a.length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        for name, value in extra.items():
            self.send_header(name, value)
        self.end_headers()
        self.send_body(a, body)

    def send_body(self, a: Answer, body: bytes):
        stop = min(n for n in (a.cut, a.stall, len(body)) if n is not None)
        if a.drip:
            for i in range(stop):
                self.wfile.write(body[i : i + 1])
                if self.server.released.wait(a.drip):
                    break
        else:
            self.wfile.write(body[:stop])
        self.wfile.flush()
        if a.stall is not None and stop == a.stall:
            self.server.released.wait(30)
        if stop < len(body):
            self.close_connection = True


@contextlib.contextmanager
def serving():
    """A running server; stopped and released at the end."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
