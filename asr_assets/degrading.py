"""``asr degrade``: twins of videos under worse conditions, to be taken in as videos of their own.

What is said in a twin is known, because it is said in the video: the twin's sidecars say so, and say which
video and which condition it is from, so that word error rates can be drawn over conditions.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import duckdb

from asr_assets.console import reading
from asr_assets.exporting import file_name
from resources import layout
from resources.settings import Settings
from resources.sidecars import MAX_BYTES
from resources.source import Source
from resources.store import Store
from speech.degrading import CONDITIONS, condition_of, degrade
from speech.errors import AsrError, WarehouseError
from speech.media import read_flac
from speech.types import Samples, Seconds

FOLDER = "degraded"
"""``degraded/<condition>/<name>-<video_id>.mp3``, below where twins are written."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A video under a condition; ``key`` is where it lies, ``written`` False where it lay there before."""

    video_key: str
    condition: str
    key: str
    written: bool


@dataclass(frozen=True, slots=True)
class _Video:
    """A current video of which is known what is said: columns of ``videos_current``."""

    video_id: str
    key: str
    reference: str
    starts_s: list[Seconds]
    ends_s: list[Seconds]
    language: str | None
    hints: list[str] | None
    metadata_json: str

    @property
    def metadata(self) -> dict[str, Any]:
        """What its sidecar says of it."""
        return dict(json.loads(self.metadata_json))


def twins(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    to: Store,
    conditions: Sequence[str] = (),
    batch: str | None = None,
    phrase: str | None = None,
) -> Iterator[Twin]:
    """Write twins of current videos with a reference to ``to``; of a batch, of keys with ``phrase`` in them.

    No ``conditions`` are all of them. A twin that is there already is left as it is, whatever its sidecars
    say: delete it to have it made anew. Raises :class:`~speech.errors.AsrError` for an unknown condition and
    when there is no such video, :class:`~speech.errors.MediaError` when a video's audio is damaged in the
    store.
    """
    for condition in conditions:
        condition_of(condition)
    videos = _videos(connection, batch, phrase)
    if not videos:
        raise AsrError(
            "no current video with sound and a reference is asked for; what is said in talk.mp4 must stand "
            "beside it in talk.ctm or talk.txt; "
            "asr sql 'select batch, video_key, status, reference from videos_current' says what there is"
        )
    for video in videos:
        samples: Samples | None = None
        for condition in conditions or CONDITIONS:
            stem = f"{FOLDER}/{condition}/{file_name(video.key)}-{video.video_id[:12]}"
            key = f"{stem}{CONDITIONS[condition].suffix}"
            written = to.head(key) is None
            if written:
                if samples is None:
                    with store.as_local_file(layout.audio(video.video_id)) as flac:
                        samples = read_flac(flac)
                twin = degrade(samples, condition, _seed(video.key, condition))
                for suffix, text in _sidecars(video, condition).items():
                    to.put(f"{stem}{suffix}", text.encode())
                written = to.create(key, twin)  # at last: who notices it finds its sidecars
            yield Twin(video.key, condition, key, written)


def twins_of(settings: Settings, keys: Sequence[str]) -> list[str]:
    """Keys of videos of the same source that were made of these: whoever erases these means them, too."""
    with suppress(WarehouseError), reading(settings) as connection:  # nothing was loaded yet
        found = connection.execute(
            """
            SELECT DISTINCT video_key FROM videos
            WHERE source = $source AND list_contains($keys, json_extract_string(metadata, '$.twin_of'))
              AND NOT list_contains($keys, video_key)
            ORDER BY ALL
            """,
            {"keys": list(keys), "source": Source.of(settings).name},
        ).fetchall()
        return [key for (key,) in found]
    return []


def _videos(connection: duckdb.DuckDBPyConnection, batch: str | None, phrase: str | None) -> list[_Video]:
    """Those that are asked for, twins left out."""
    found = connection.execute(
        """
        SELECT video_id, video_key, reference, coalesce(reference_starts_s, []),
            coalesce(reference_ends_s, []), language_hint, hints, coalesce(metadata, '{}')
        FROM videos_current
        WHERE status = 'ok' AND reference IS NOT NULL AND batch = coalesce($batch, batch)
          AND contains(video_key, coalesce($phrase, ''))
        ORDER BY video_key, video_id
        """,
        {"batch": batch, "phrase": phrase},
    ).fetchall()
    return [video for video in (_Video(*row) for row in found) if "twin_of" not in video.metadata]


def _seed(video_key: str, condition: str) -> int:
    """The same for this video on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{video_key}\0{condition}".encode(), digest_size=8).digest())


def _sidecars(video: _Video, condition: str) -> dict[str, str]:
    """By suffix: what is said in a twin, with its times if they are known, and what else is known of it."""
    wanted = CONDITIONS[condition]
    twin = {"twin_of": video.key, "condition": condition, "kind": wanted.kind}
    level = {} if wanted.level is None else {"level": wanted.level}
    told = {"language": video.language, "hints": video.hints, "metadata": video.metadata | twin | level}
    told = {name: value for name, value in told.items() if value}
    timed = _timed(video)
    readable = 0 < len(timed.encode()) <= MAX_BYTES  # a longer one would be refused when it is taken in
    said = {".ctm": timed} if readable else {".txt": f"{video.reference}\n"}
    return said | {".json": f"{json.dumps(told, ensure_ascii=False, indent=2)}\n"}


def _timed(video: _Video) -> str:
    """NIST's CTM; empty where nobody says when the words are spoken. Its recording is the short video_id."""
    if not video.starts_s:
        return ""
    times = zip(video.reference.split(), video.starts_s, video.ends_s, strict=True)
    name = video.video_id[:12]
    return "".join(f"{name} 1 {start:.3f} {end - start:.3f} {word}\n" for word, start, end in times)
