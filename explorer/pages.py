"""The pages, each from its address alone, so that any of them can be shared."""

import getpass
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
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
from resources import snapshot
from resources.comparisons import Pair
from resources.heard import read_transcript
from resources.search import Filters, Found, languages_and_models, search
from resources.settings import Settings
from resources.source import Source
from resources.store import Store
from resources.verdicts import Verdict, judge, verdicts_of
from speech.comparing import Place, Stretch, said_at, stretches
from speech.errors import QueryError
from speech.formats import Format
from speech.normalizing import TimedWord, normalized
from speech.types import Seconds
from speech.watchdog import watchdog

HITS = 50  # on a page
LONGEST = 200  # characters of what is searched
SAID = 2000  # characters of a verdict
DOUBTFUL = 0.5
"""A word of a lower probability looks it."""
PATIENCE_S: Seconds = 30.0
_STEPS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
_BARS = 400


@dataclass(frozen=True, slots=True)
class Bar:
    """Of the histogram: how often the phrase is said in videos from then on, to the next bar."""

    when: str
    times: int
    height: float


class Pages:
    """What there is to see. Every handler raises AsrError, or HTTPException for what is not there."""

    def __init__(self, settings: Settings, cache: Path) -> None:
        self.settings, self._cache = settings, cache
        self.store, self.source = Store(url=settings.store_url), Source.of(settings)
        self._environment = Environment(
            loader=FileSystemLoader(Path(__file__).with_name("templates")),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {"clock": clock, "query": query, "number": number}
        self._environment.globals["doubtful"] = DOUBTFUL

    def _words(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        return snapshot.read(self.store, self._cache)

    def _page(self, template: str, status: int = 200, **known: Any) -> HTMLResponse:
        return HTMLResponse(self._environment.get_template(template).render(known), status)

    def search(self, request: Request) -> Response:
        """Places where something is said; without a question, the newest videos."""
        asked = request.query_params
        phrase = asked.get("q", "").strip()[:LONGEST]
        filters, offset, problem = _filters(asked), _offset(asked), ""
        found, videos = None, list[dict[str, Any]]()
        with self._words() as words:
            languages, models = languages_and_models(words)
            with watchdog(PATIENCE_S, words.interrupt):
                try:
                    if phrase:
                        found = search(words, phrase, HITS, filters, offset)
                    else:
                        videos = asking.videos(words, filters.video, filters.language)
                except QueryError as error:
                    problem = str(error)
                except duckdb.InterruptException:
                    problem = (
                        f"that took longer than {PATIENCE_S:g} s: ask for a rarer word, or in fewer videos"
                    )
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
            heard = asking.heard(words, video_id)
            wanted = request.query_params.get("model")
            chosen = next((one for one in heard if one.model_version == wanted), heard[0] if heard else None)
            segments, before, after = (
                asking.transcript(words, video_id, chosen.model_version, at_s) if chosen else ([], None, None)
            )
        other = asking.other_than(chosen.model_version, heard) if chosen else None
        return self._page(
            "video.html.jinja",
            video=row,
            heard=heard,
            chosen=chosen,
            other=other,
            segments=segments,
            before=before,
            after=after,
            at_s=at_s,
            phrase=request.query_params.get("q", ""),
        )

    def compare(self, request: Request) -> Response:
        """What two model versions heard in a video, side by side."""
        video_id, asked = request.path_params["video_id"], request.query_params
        with self._words() as words:
            row = _there(asking.video(words, video_id))
            heard = asking.heard(words, video_id)
            names = [one.model_version for one in heard]
            a = asked.get("a") or (names[0] if names else "")
            b = asked.get("b") or next((name for name in names if name != a), "")
            pair = Pair(a, b)
            found = self._stretches(words, row, pair, names)
        judged = {(v.place(pair), v.said): v for v in verdicts_of(self.store, pair, row["batch"], video_id)}
        return self._page(
            "compare.html.jinja",
            video=row,
            heard=heard,
            pair=pair,
            stretches=[(one, _verdict(one.place, judged)) for one in found],
            places=sum(not one.is_same for one in found),
        )

    def _stretches(
        self, words: duckdb.DuckDBPyConnection, row: Mapping[str, Any], pair: Pair, names: list[str]
    ) -> list[Stretch]:
        """Where the two agree and where not, as the comparison sees it."""
        if pair.a == pair.b or not {pair.a, pair.b} <= set(names):
            raise HTTPException(404, f"not both of {pair.a or '?'} and {pair.b or '?'} have heard this video")
        heard = asking.heard(words, row["video_id"])
        language = row["language_hint"] or next((one.language for one in heard if one.language), "en")
        a, b = (
            normalized(
                [
                    TimedWord(word.text, word.start_s, word.end_s, word.probability)
                    for segment in read_transcript(words, row["video_id"], name, language, 0.0).segments
                    for word in segment.words
                ],
                language,
            )
            for name in pair
        )
        return stretches(a, b, pair.is_turned)

    async def verdict(self, request: Request) -> Response:
        """Keep who is right at a place, and go back there."""
        form = await _form(request)
        return await _in_a_thread(self._keep, request.path_params["video_id"], form)

    def _keep(self, video_id: str, form: dict[str, str]) -> Response:
        pair = Pair(form.get("a", ""), form.get("b", ""))
        with self._words() as words:
            row = _there(asking.video(words, video_id))
            names = [one.model_version for one in asking.heard(words, video_id)]
            found = self._stretches(words, row, pair, names)
        place = Place(_seconds(form.get("start_s")), form.get("heard_a", ""), form.get("heard_b", ""))
        if not any(not one.is_same and one.place.is_at(place) for one in found):
            raise HTTPException(409, "the two do not differ there any more: load the page again")
        right = form.get("right")
        said = {"a": place.a, "b": place.b, "neither": form.get("said", "").strip()}.get(right or "")
        if said is None or len(said) > SAID:
            raise HTTPException(400, f"a verdict is a, b or neither, with {SAID} characters at most")
        heard = {pair.a: place.a, pair.b: place.b}
        kept = Verdict(video_id=video_id, start_s=place.start_s, heard=heard, said=said, who=_who())
        judge(self.store, row["batch"], kept)
        back = urlencode({"a": pair.a, "b": pair.b, "judged": f"{place.start_s:.2f}"})
        return RedirectResponse(f"/compare/{video_id}?{back}#at-{place.start_s:.2f}", 303)

    def status(self, _: Request) -> Response:
        """How far everything has come, and what failed."""
        with self._words() as words:
            known = asking.standing(words)
        return self._page("status.html.jinja", dagster=self.settings.dagster_url.rstrip("/"), **known)

    def media(self, request: Request) -> Response:
        """The video's own bytes."""
        with self._words() as words:
            row = _there(asking.video(words, request.path_params["video_id"]))
        return video_response(self.source, asking.as_video(row), request.headers.get("range"))

    def audio(self, request: Request) -> Response:
        """The sound that was transcribed."""
        with self._words() as words:
            row = _there(asking.video(words, request.path_params["video_id"]))
        return audio_response(self.store, row["video_id"], request.headers.get("range"))

    def captions(self, request: Request) -> Response:
        """WebVTT of one model version."""
        video_id, model = request.path_params["video_id"], request.path_params["model"]
        with self._words() as words:
            heard = {one.model_version: one for one in asking.heard(words, video_id)}
            one = _there(heard.get(model))
            found = read_transcript(words, video_id, model, one.language or "", one.duration_s or 0.0)
        return Response(Format.VTT.write(found, ""), media_type="text/vtt")

    def problem(self, status: int, what: str) -> HTMLResponse:
        """Why there is nothing to see."""
        return self._page("problem.html.jinja", status, what=what)


def _verdict(place: Place, judged: Mapping[tuple[Place, str], Verdict]) -> Verdict | None:
    said = said_at(place, list(judged))
    return next((v for (at, text), v in judged.items() if text == said and at.is_at(place)), None)


async def _in_a_thread(work: Any, *arguments: Any) -> Response:
    answer: Response = await run_in_threadpool(work, *arguments)
    return answer


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


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in containers
        return "unknown"


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


def bars(found: Found) -> list[Bar]:
    """The histogram, empty bars and all; of more than fit, those that are not empty."""
    counts = dict(found.over_time)
    if not counts:
        return []
    whens, when, last = list[datetime](), min(counts), max(counts)
    while when <= last and len(whens) <= _BARS:
        whens.append(when)
        step = _STEPS.get(found.step)
        when = when + step if step else (when.replace(day=1) + timedelta(days=32)).replace(day=1)
    whens = whens if len(whens) <= _BARS else list(counts)
    most, form = max(counts.values()), {"hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d"}.get(found.step, "%Y-%m")
    return [Bar(when.strftime(form), counts.get(when, 0), 100 * counts.get(when, 0) / most) for when in whens]


def clock(seconds: Seconds | None) -> str:
    """A time in a video, as a player shows it.

    >>> clock(3671.2)
    '1:01:11'
    """
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number(value: float | None, form: str = ",.0f") -> str:
    """With spaces between thousands; a dash where there is none."""
    return "\N{EN DASH}" if value is None else f"{value:{form}}".replace(",", "\N{NO-BREAK SPACE}")


def query(known: Mapping[str, Any], **more: Any) -> str:
    """The part of an address after the question mark."""
    return urlencode({name: value for name, value in {**known, **more}.items() if value not in (None, "")})
