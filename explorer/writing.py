"""How pages write what they show: times, numbers, addresses, and the histogram."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from resources.search import Found
from speech.types import Seconds

_STEPS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
_BARS = 400


@dataclass(frozen=True, slots=True)
class Bar:
    """Of the histogram: how often the phrase is said in videos from then on, to the next bar."""

    when: str
    times: int
    height: float


def bars(found: Found) -> list[Bar]:
    """The histogram, empty bars and all; of more than fit, those that are not empty."""
    counts = dict(found.over_time)
    if not counts:
        return []
    whens, when, last = list[datetime](), min(counts), max(counts)
    with suppress(OverflowError):  # some files say that they are of the year 9999
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
