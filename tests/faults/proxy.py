"""A proxy in front of an S3 or SQS server that does to chosen requests what networks and clouds do."""

import http.client
import re
import socket
import struct
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

REFUSAL = "<Error><Code>{0}</Code><Message>{0}, says the proxy</Message></Error>"
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}


class Fault(Enum):
    """What becomes of a request; only the last three reach the server behind."""

    BUSY = (503, "SlowDown")
    EXPIRED = (400, "ExpiredToken")
    CONFLICT = (409, "ConditionalRequestConflict")
    NO_KEY = (400, "KMS.NotFoundException")
    KEY_OFF = (400, "KMS.KMSInvalidStateException")
    KEY_BUSY = (400, "KMS.ThrottlingException")
    BROKEN = (500, "InternalError")
    RESET = "the connection is reset"
    LOST = "it is done, and the connection is reset before the answer"
    SLOW = "half of the answer, and nothing for a long time"
    SHORT = "half of the answer, and the connection is closed"


@dataclass
class Trouble:
    """A fault, and the requests that meet it: of those that match, the ones whose number is in ``which``.

    What is called instead is called before the request goes on, undisturbed, and may change what it finds.
    """

    fault: Fault | Callable[[], object]
    method: str = ".*"
    path: str = ""
    which: Collection[int] = range(1)
    seen: int = 0
    struck: int = 0

    def strikes(self, method: str, path: str) -> bool:
        """Whether this request meets it."""
        if not (re.fullmatch(self.method, method) and re.search(self.path, path)):
            return False
        strikes = self.seen in self.which
        self.seen += 1
        self.struck += strikes
        return strikes


class Proxy(ThreadingHTTPServer):
    """Forwards all requests to the server ``behind``, but for those that meet ``troubles``."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, behind: str, troubles: Collection[Trouble]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.troubles = urlsplit(behind).netloc, list(troubles)
        self.asked: list[str] = []
        self.ended = threading.Event()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault_of(self, method: str, path: str) -> Fault | None:
        """The first that strikes; requests are counted by all."""
        with self._lock:
            self.asked.append(f"{method} {path}")
            faults = [trouble.fault for trouble in self.troubles if trouble.strikes(method, path)]
        fault = next(iter(faults), None)
        if fault is None or isinstance(fault, Fault):
            return fault
        fault()
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault_of(self.command, self.path)
        if fault is Fault.RESET:
            self._reset()
        elif fault and isinstance(fault.value, tuple):
            status, code = fault.value
            refusal = b"" if self.command == "HEAD" else REFUSAL.format(code).encode()
            self._answer(status, [("Content-Type", "application/xml")], refusal, refusal)
        else:
            self._forward(body, fault)

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        server = http.client.HTTPConnection(self.server.behind, timeout=30)
        headers = {name: told for name, told in self.headers.items() if name.lower() not in HOP_BY_HOP}
        server.request(self.command, self.path, body, headers)
        answer = server.getresponse()
        data = answer.read()
        server.close()
        if fault is Fault.LOST:
            self._reset()
            return
        told = [(name, said) for name, said in answer.getheaders() if name.lower() not in HOP_BY_HOP]
        cut = fault in (Fault.SLOW, Fault.SHORT)
        self._answer(answer.status, told, data, data[: len(data) // 2] if cut else data)
        if fault is Fault.SLOW:
            self.server.ended.wait(30)
        self.close_connection = self.close_connection or cut

    def _answer(self, status: int, told: list[tuple[str, str]], data: bytes, sent: bytes) -> None:
        self.send_response(status)
        for name, said in told:
            self.send_header(name, said)
        if not any(name.lower() == "content-length" for name, _ in told):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(sent)
        self.wfile.flush()

    def _reset(self) -> None:
        """Not closed in good order: the other side is told that the connection is no more."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def proxy(behind: str, *troubles: Trouble) -> Iterator[Proxy]:
    """A proxy on loopback, for as long as the context lasts."""
    server = Proxy(behind, troubles)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
