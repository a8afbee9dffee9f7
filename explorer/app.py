"""The explorer as an ASGI application, and its server."""

import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import duckdb
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from explorer.doors import LOOPBACK, Doors
from explorer.media import link_origins
from explorer.pages import Pages
from resources.settings import Settings
from speech.errors import AsrError, first_line

STATIC = Path(__file__).with_name("static")


def create_app(settings: Settings, cache: Path, token: str = "") -> Starlette:
    """All pages. ``token`` is asked for unless it is empty; copies of a bucket's words lie in ``cache``."""
    pages = Pages(settings, cache)

    def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return pages.problem(error.status_code, error.detail)

    def failed(_: Request, error: Exception) -> Response:
        return pages.problem(503, f"{error}")

    def broken(_: Request, error: Exception) -> Response:
        return pages.problem(500, f"DuckDB cannot answer that: {first_line(error)}")

    video_id = "{video_id:str}"
    return Starlette(
        routes=[
            Route("/", pages.search),
            Route(f"/video/{video_id}", pages.video),
            Route(f"/compare/{video_id}", pages.compare),
            Route(f"/compare/{video_id}", pages.verdict, methods=["POST"]),
            Route("/status", pages.status),
            Route(f"/media/{video_id}", pages.media),
            Route(f"/audio/{video_id}", pages.audio),
            Route(f"/captions/{video_id}/{{model:str}}", pages.captions),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[
            Middleware(Doors, token=token, media_from=link_origins(pages.source, pages.store)),
        ],
        exception_handlers={HTTPException: refused, AsrError: failed, duckdb.Error: broken},
    )


def serve_explorer(
    settings: Settings, cache: Path, host: str, port: int, listening: Callable[[str], None]
) -> None:
    """Serve until told to end. ``listening`` is called with the address to open, token and all.

    Raises :class:`~speech.errors.AsrError` for an address that cannot be listened on.
    """
    is_ours = host in LOOPBACK
    token = settings.explorer_token or ("" if is_ours else secrets.token_urlsafe(24))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family)
    except OSError as error:
        why = error.strerror or error
        raise AsrError(f"{host}:{port} cannot be listened on ({why}); choose another with --port") from error
    app = create_app(settings, cache, token)
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104  # where others find it
    name = f"[{shown}]" if ":" in shown else shown
    listening(f"http://{name}:{bound.getsockname()[1]}/{'?' + urlencode({'token': token}) if token else ''}")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
    server.run(sockets=[bound])
