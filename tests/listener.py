"""An HTTP server that keeps what is posted to it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Listener(ThreadingHTTPServer):
    """Refuses with the ``manners`` it is given, one request after another, and then takes what comes."""

    daemon_threads = True

    def __init__(self, manners: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.manners, self.asked = manners, 0
        self.taken: list[tuple[str, bytes]] = []
        """Paths and bodies."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        status = self.server.manners.pop(0) if self.server.manners else 200
        if status == 200:
            self.server.taken.append((self.path, body))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def listening(*manners: int) -> Iterator[Listener]:
    server = Listener(list(manners))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
