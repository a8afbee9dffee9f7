"""Who comes in, and what a browser may do with a page. Names and words in it are other people's text."""

import hmac
from collections.abc import Collection
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "asr_explorer"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Doors:
    """Asks for the token, if there is one, and refuses what another site makes a browser send.

    Without a token only names of this machine are answered to: another site's name may be led here, too.
    """

    def __init__(self, app: ASGIApp, token: str, media_from: Collection[str]) -> None:
        self._app, self._token = app, token
        # Other ports of this host get it, too, and the token is none of theirs.
        self._cookie = hmac.new(token.encode(), b"cookie", "sha256").hexdigest()
        from_where = " ".join(["'self'", *media_from])
        self._headers = {
            "Content-Security-Policy": (
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
                f"connect-src 'self'; media-src {from_where}; form-action 'self'; base-uri 'none'; "
                "frame-ancestors 'none'"
            ),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refused(scope) or self._app
        await answer(scope, receive, guarded)

    def _refused(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._token:
            if _name(host) not in LOOPBACK:
                return PlainTextResponse("this page answers to 127.0.0.1 and localhost only", 421)
        elif scope["method"] == "GET" and (given := self._given(scope)):
            return given
        elif not self._knows(headers):
            return PlainTextResponse("open the address with ?token=… that asr explore has printed", 401)
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin")
            if not origin or urlsplit(origin).netloc != host:
                return PlainTextResponse("this came from another site", 403)
        return None

    def _knows(self, headers: Headers) -> bool:
        if cookie := cookie_parser(headers.get("cookie", "")).get(COOKIE):
            return hmac.compare_digest(cookie.encode(), self._cookie.encode())
        given = headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _given(self, scope: Scope) -> Response | None:
        """The token may be in the address once: then it is kept, and taken out of the address."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token", "")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return None
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        # Relative, and so never to another host, whatever the path begins with.
        answer = RedirectResponse("?" + rest, status_code=303)
        is_safe = scope["scheme"] == "https"
        # Not strict: a link that somebody shares comes from another site.
        answer.set_cookie(COOKIE, self._cookie, 30 * 86400, secure=is_safe, httponly=True, samesite="lax")
        return answer


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
