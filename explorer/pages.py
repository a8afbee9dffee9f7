"""The pages, each from its address alone, so that any of them can be shared."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import duckdb
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from explorer import asking
from explorer.media import audio_response, video_response
from explorer.writing import bars, clock, number, query
from resources import snapshot
from resources.comparisons import Pair
from resources.heard import read_transcript
from resources.search import Filters, languages_and_models, search
from resources.settings import Settings, who
from resources.source import Source
from resources.store import Store
from resources.verdicts import Verdict, judge, verdicts_of
from speech.comparing import Place, Stretch, judged_among, language_of, stretches
from speech.errors import QueryError
from speech.formats import Format
from speech.normalizing import TimedWord, normalized
from speech.types import Seconds
from speech.watchdog import watchdog

HITS = 50  # on a page
LONGEST = 200  # characters of what is searched
PLACES = 100  # on a page
ALIGNED = 8  # comparisons whose alignment is kept: that of a day takes seconds
SAID = 2000  # characters of a verdict
DOUBTFUL = 0.5
"""A word of a lower probability looks it."""
PATIENCE_S: Seconds = 30.0


class Pages:
    """What there is to see. Every handler raises AsrError, or HTTPException for what is not there."""

    def __init__(self, settings: Settings, cache: Path) -> None:
        self.settings, self._cache = settings, cache
        self.store, self.source = Store(url=settings.store_url), Source.of(settings)
        self._aligned: dict[tuple[Any, ...], list[Stretch]] = {}
        self._environment = Environment(
            loader=FileSystemLoader(Path(__file__).with_name("templates")),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {"clock": clock, "query": query, "number": number}
        self._environment.globals["doubtful"] = DOUBTFUL

    @contextmanager
    def _words(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Raises QueryError for what takes too long, or too much memory."""
        with snapshot.read(self.store, self._cache) as words, watchdog(PATIENCE_S, words.interrupt):
            try:
                yield words
            except duckdb.InterruptException as error:
                raise QueryError(
                    f"that took longer than {PATIENCE_S:g} s: ask for a rarer word, or in fewer videos"
                ) from error
            except duckdb.OutOfMemoryException as error:
                raise QueryError("that takes more memory than there is: ask for a rarer word") from error

    def _page(self, template: str, status: int = 200, **known: Any) -> HTMLResponse:
        return HTMLResponse(self._environment.get_template(template).render(known), status)

    def search(self, request: Request) -> Response:
        """Places where something is said; without a question, the newest videos."""
        asked = request.query_params
        phrase = asked.get("q", "").strip()[:LONGEST]
        filters, offset, problem = _filters(asked), _offset(asked), ""
        found, videos = None, list[dict[str, Any]]()
        languages, models = list[str](), list[str]()
        try:
            with self._words() as words:
                languages, models = languages_and_models(words)
                if phrase:
                    found = search(words, phrase, HITS, filters, offset)
                else:
                    videos = asking.videos(words, filters.video, filters.language)
        except QueryError as error:
            problem = str(error)
        kept = {name: value for name, value in {"q": phrase, **asdict(filters)}.items() if value is not None}
        return self._page(
            "search.html.jinja",
            status=400 if problem else 200,
            phrase=phrase,
            filters=filters,
            found=found,
            bars=bars(found) if found else [],
            videos=videos,
            problem=problem,
            languages=languages,
            models=models,
            offset=offset,
            kept=kept,
            step=HITS,
        )

    def video(self, request: Request) -> Response:
        """A video and its words, from a word on."""
        video_id, at_s = request.path_params["video_id"], _seconds(request.query_params.get("t"))
        with self._words() as words:
            row = _there(asking.video(words, video_id))
            is_current = asking.is_current(words, row)
            heard = asking.heard(words, video_id)
            wanted = request.query_params.get("model")
            chosen = next((one for one in heard if one.model_version == wanted), heard[0] if heard else None)
            shown, before, after = (
                asking.transcript(words, video_id, chosen, at_s) if chosen else (None, None, None)
            )
        other = asking.other_than(chosen.model_version, heard) if chosen else None
        return self._page(
            "video.html.jinja",
            video=row,
            is_current=is_current,
            heard=heard,
            chosen=chosen,
            other=other,
            segments=shown.segments if shown else (),
            before=before,
            after=after,
            at_s=at_s,
        )

    def compare(self, request: Request) -> Response:
        """What two model versions heard in a video, side by side; so many places on a page."""
        video_id, asked = request.path_params["video_id"], request.query_params
        with self._words() as words:
            row = _there(asking.video(words, video_id))
            heard = asking.heard(words, video_id)
            names = [one.model_version for one in heard]
            a = asked.get("a") or (names[0] if names else "")
            b = asked.get("b") or next((name for name in names if name != a), "")
            pair = Pair(a, b)
            found = self._stretches(words, row, pair, heard)
        kept = verdicts_of(self.store, pair, row["batch"], video_id)
        judged = judged_among(found, [(verdict.place(pair), verdict) for verdict in kept])
        numbers = [number for number, one in enumerate(found) if not one.is_same]
        first = min(_offset(asked), max(0, len(numbers) - 1))
        here = numbers[first : first + PLACES]
        # With the words before the first place, and those after the last.
        shown = range(max(0, here[0] - 1), here[-1] + 2) if here else range(len(found))
        return self._page(
            "compare.html.jinja",
            video=row,
            heard=heard,
            pair=pair,
            stretches=[(found[n], judged.get(n)) for n in shown if n < len(found)],
            places=len(numbers),
            judged=len(judged),
            first=first,
            step=PLACES,
        )

    def _stretches(
        self,
        words: duckdb.DuckDBPyConnection,
        row: Mapping[str, Any],
        pair: Pair,
        heard: Sequence[asking.Heard],
    ) -> list[Stretch]:
        """Where the two agree and where not, as the comparison sees it; of the last few videos, kept."""
        of = {one.model_version: one for one in heard}
        if pair.a == pair.b or not {pair.a, pair.b} <= of.keys():
            raise HTTPException(404, f"not both of {pair.a or '?'} and {pair.b or '?'} have heard this video")
        language = language_of(row["language_hint"], (of[name].language for name in sorted(pair)))
        key = (row["video_id"], language, *((name, of[name].model_fingerprint) for name in pair))
        if key not in self._aligned:
            a, b = (normalized(_timed(words, row["video_id"], name), language) for name in pair)
            while len(self._aligned) >= ALIGNED:
                self._aligned.pop(next(iter(self._aligned)), None)
            self._aligned[key] = stretches(a, b, pair.is_turned)
        return self._aligned[key]

    async def verdict(self, request: Request) -> Response:
        """Keep who is right at a place, and go back there."""
        form = await _form(request)
        return await run_in_threadpool(self._keep, request.path_params["video_id"], form)

    def _keep(self, video_id: str, form: dict[str, str]) -> Response:
        pair = Pair(form.get("a", ""), form.get("b", ""))
        with self._words() as words:
            row = _there(asking.video(words, video_id))
            found = self._stretches(words, row, pair, asking.heard(words, video_id))
        place = Place(_seconds(form.get("start_s")), form.get("heard_a", ""), form.get("heard_b", ""))
        if not judged_among(found, [(place, "")]):
            raise HTTPException(409, "the two do not differ there any more: load the page again")
        right = form.get("right")
        said = {"a": place.a, "b": place.b, "neither": form.get("said", "").strip()}.get(right or "")
        if said is None or len(said) > SAID:
            raise HTTPException(400, f"a verdict is a, b or neither, with {SAID} characters at most")
        heard = {pair.a: place.a, pair.b: place.b}
        kept = Verdict(video_id=video_id, start_s=place.start_s, heard=heard, said=said, who=who())
        judge(self.store, row["batch"], kept)
        back = urlencode({"a": pair.a, "b": pair.b, "from": form.get("from", "0")})
        return RedirectResponse(f"/compare/{video_id}?{back}#at-{place.start_s:.2f}", 303)

    def status(self, _: Request) -> Response:
        """How far everything has come, and what failed."""
        with self._words() as words:
            known = asking.standing(words)
        return self._page("status.html.jinja", dagster=self.settings.dagster_url.rstrip("/"), **known)

    def media(self, request: Request) -> Response:
        """The video's own bytes."""
        return video_response(self.source, asking.as_video(self._row(request)), request)

    def audio(self, request: Request) -> Response:
        """The sound that was transcribed."""
        return audio_response(self.store, self._row(request)["video_id"], request)

    def _row(self, request: Request) -> dict[str, Any]:
        with self._words() as words:
            row: dict[str, Any] = _there(asking.video(words, request.path_params["video_id"]))
        return row

    def captions(self, request: Request) -> Response:
        """WebVTT of the words on one page of a transcript: to cut those of a day takes a minute."""
        video_id, model = request.path_params["video_id"], request.path_params["model"]
        at_s = _seconds(request.query_params.get("t"))
        with self._words() as words:
            heard = {one.model_version: one for one in asking.heard(words, video_id)}
            one = _there(heard.get(model))
            found, _, _ = asking.transcript(words, video_id, one, at_s)
        return Response(Format.VTT.write(found, ""), media_type="text/vtt")

    def problem(self, status: int, what: str) -> HTMLResponse:
        """Why there is nothing to see."""
        return self._page("problem.html.jinja", status, what=what)


def _timed(words: duckdb.DuckDBPyConnection, video_id: str, model: str) -> list[TimedWord]:
    return [
        TimedWord(word.text, word.start_s, word.end_s, word.probability)
        for segment in read_transcript(words, video_id, model, "", 0.0).segments
        for word in segment.words
    ]


async def _form(request: Request) -> dict[str, str]:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > 1 << 16:
            raise HTTPException(413, "that is too much")
    try:
        return {name: values[-1] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
    except ValueError as error:
        raise HTTPException(400, "that is no form") from error


def _there(found: Any) -> Any:
    if found is None:
        raise HTTPException(404, "there is no such video here; it may have been erased since")
    return found


def _filters(asked: Mapping[str, str]) -> Filters:
    given = {name: asked.get(name, "").strip() or None for name in ("video", "language", "model")}
    at_least = _seconds(asked.get("at_least"))
    return Filters(**given, at_least=min(at_least, 1.0) or None)


def _seconds(text: str | None) -> Seconds:
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if 0 <= value < 1e7 else 0.0  # nor is it "nan"


def _offset(asked: Mapping[str, str]) -> int:
    return int(_seconds(asked.get("from")))
