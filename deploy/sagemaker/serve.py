"""A model version behind HTTP, as SageMaker wants it: GET /ping, POST /invocations with a FLAC.

Usage (the container's command)::

    ASR_MODEL=distil_large_v3_5 python deploy/sagemaker/serve.py [--port 8080] [--host 0.0.0.0]

``ASR_MODEL`` is an entry of the file of model versions (``ASR_MODELS``). It is loaded once, before anybody is
answered, on the GPU if there is one. How a recording is to be heard stands in the header of its request.
"""

import os
import tempfile
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

import typer

from resources.models import SpeechModels
from resources.settings import Settings
from speech.errors import EngineError, ModelError
from speech.pipeline import Transcriber
from speech.reading import Recording
from speech.serving import Listened, Told

TOLD = "X-Amzn-SageMaker-Custom-Attributes"
PIECE_BYTES = 1 << 20


class Server(ThreadingHTTPServer):
    """One model version; it answers to /ping while it listens."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], transcriber: Transcriber) -> None:
        super().__init__(address, Handler)
        self.transcriber, self.fingerprint = transcriber, transcriber.model.fingerprint
        self.broken: ModelError | None = None
        """Why it has stopped to listen."""

    def give_up(self, error: ModelError) -> None:
        """To be replaced: a device that has failed once fails everybody, and /ping would not know."""
        self.broken = error
        self.shutdown()

    def listen(self, told: Told, flac: Path) -> Listened:
        """Raises EngineError, which is about this recording, and ModelError, which is about all of them."""
        if told.fingerprint != self.fingerprint:
            return Listened(self.fingerprint)
        heard = self.transcriber.hear(Recording("it", flac, told.language, told.prompt))
        if isinstance(heard.outcome, EngineError):
            raise heard.outcome
        return Listened(self.fingerprint, heard.outcome, heard.seconds, heard.usage)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # http.server's name for it
        """Whether it is well."""
        self._answer(HTTPStatus.OK if self.path == "/ping" else HTTPStatus.NOT_FOUND, b"")

    def do_POST(self) -> None:
        """Listen to a FLAC; what is wrong with it is said as text, which SageMaker keeps."""
        with tempfile.TemporaryDirectory(prefix="asr-") as folder:
            flac = Path(folder) / "audio.flac"
            self._receive(flac)
            try:
                told = Told.decode(self.headers.get(TOLD, ""))
            except ValueError:
                return self._answer(HTTPStatus.BAD_REQUEST, f"{TOLD} does not say how to listen".encode())
            try:
                listened = self.server.listen(told, flac)
            except EngineError as error:
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, str(error).encode())
            except ModelError as error:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, str(error).encode())
                self.server.give_up(error)
            else:
                self._answer(HTTPStatus.OK, listened.encode())

    def _receive(self, path: Path) -> None:
        left = int(self.headers.get("Content-Length", 0))
        with path.open("wb") as file:
            while left and (piece := self.rfile.read(min(left, PIECE_BYTES))):
                left -= file.write(piece)

    def _answer(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_: object) -> None:
        """SageMaker asks /ping every few seconds."""


def main(
    port: Annotated[int, typer.Option(help="SageMaker asks here")] = 8080,
    host: Annotated[str, typer.Option(help="SageMaker asks from outside of the container")] = "0.0.0.0",  # noqa: S104
) -> None:
    """Load, then answer until ended."""
    model = SpeechModels.of(Settings.from_env()).get(os.environ.get("ASR_MODEL", ""))
    with Transcriber(model) as transcriber, Server((host, port), transcriber) as server:
        typer.echo(f"{model.name} listens on port {server.server_port}", err=True)
        server.serve_forever()
        if server.broken:
            raise SystemExit(str(server.broken))


if __name__ == "__main__":
    typer.run(main)
