"""Two model versions side by side: batch by batch, from what is published."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from resources import layout
from resources.comparisons import (
    COMPARISON_VERSION,
    ComparedBatch,
    ComparedHead,
    Pair,
    made_from,
)
from resources.published import ExtractedBatch, ExtractedVideo, Outcome, PublishedTranscripts, Status
from resources.store import Store
from resources.verdicts import verdict_objects, verdicts_of
from speech.comparing import Against, Compared, compare, language_of
from speech.degrading import CONDITIONS
from speech.normalizing import TimedWord, normalizer_version

ORIGINAL = "original"
MEASURED = ("all", "condition", "language", "duration", "noise", "bit_rate", "codec")
"""Conditions seen in a video itself, or made on purpose. Others are what somebody says of it: even a name."""
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,2}")
_LONG = (60, "under 1 min"), (600, "1 to 10 min"), (3600, "10 to 60 min"), (None, "over 60 min")
_LOUD = (10, "under 10 dB"), (20, "10 to 20 dB"), (40, "20 to 40 dB"), (None, "over 40 dB")
_DENSE = (
    (16, "under 16 kbit/s"),
    (32, "16 to 32 kbit/s"),
    (64, "32 to 64 kbit/s"),
    (128, "64 to 128 kbit/s"),
    (None, "over 128 kbit/s"),
)


def not_compared(store: Store, pair: Pair) -> Iterator[tuple[str, str]]:
    """Batches that both have published and whose comparison is missing or stale, with their states."""
    words_a, words_b, extracted = (
        {_batch_of(found.key): found.etag for found in store.list(folder)}
        for folder in (layout.transcripts_of(pair.a), layout.transcripts_of(pair.b), layout.EXTRACTED)
    )
    compared = defaultdict(set)
    for found in store.list(layout.compared_pair(*pair)):
        compared[_batch_of(str(PurePath(found.key).parent))].add(found.key)
    judged = defaultdict(list)
    for found in verdict_objects(store, pair):
        judged[_batch_of(str(PurePath(found.key).parents[1]))].append(f"{found.key} {found.etag}")
    ours = f"{normalizer_version()} {COMPARISON_VERSION}"
    for batch in sorted(words_a.keys() & words_b.keys() & extracted.keys()):
        made_of = [words_a[batch], words_b[batch], extracted[batch], ours, *sorted(judged[batch])]
        states = made_from(made_of)
        # Two who compared at once may have left two: then nobody could tell which is to be believed.
        if compared[batch] != {layout.compared(*pair, batch, states)}:
            yield batch, states


def _batch_of(key: str) -> str:
    """Of ``.../batch=00000042.parquet``."""
    return PurePath(key).stem.partition("=")[2]


def compare_batch(store: Store, pair: Pair, batch: str) -> ComparedBatch | None:
    """What both heard in a batch; None when somebody has just removed it."""
    a, b = (PublishedTranscripts.read(store, layout.transcripts(model, batch)) for model in pair)
    extracted = ExtractedBatch.read(store, layout.extracted(batch))
    if not (a and b and extracted):
        return None
    ends_a, ends_b = ({o.video_id: o for o in published.head.outcomes} for published in (a, b))
    heard_a, heard_b = _words(a), _words(b)
    judged = defaultdict(list)
    for verdict in verdicts_of(store, pair, batch):
        judged[verdict.video_id].append((verdict.place(pair), verdict.said))
    rows = []
    for video in extracted.videos:
        video_id = video.video.video_id
        ends = [ends[video_id] for ends in (ends_a, ends_b) if video_id in ends]
        if video.audio and is_comparable(ends):
            in_order = reversed(ends) if pair.is_turned else ends
            language = language_of(video.sidecar.language, (end.language for end in in_order))
            both = compare(
                heard_a.get(video_id, []),
                heard_b.get(video_id, []),
                _said(video),
                language,
                judged[video_id],
                pair.is_turned,
            )
            rows.append(_row(video, language, both))
    head = ComparedHead(
        model_a=pair.a,
        model_b=pair.b,
        fingerprint_a=a.head.fingerprint,
        fingerprint_b=b.head.fingerprint,
        normalizer=normalizer_version(),
        batch=batch,
    )
    return ComparedBatch.build(head, rows)


def is_comparable(ends: Sequence[Outcome]) -> bool:
    """Whether both have heard it. Where one of them failed it has heard nothing: failing must not flatter."""
    return (
        len(ends) == 2
        and all(end.status is not Status.LEFT for end in ends)
        and any(end.status is not Status.FAILED for end in ends)
    )


def _words(published: PublishedTranscripts) -> dict[str, list[TimedWord]]:
    heard: dict[str, list[TimedWord]] = {}
    columns = ("video_id", "word", "start_s", "end_s", "probability")
    for video_id, *word in zip(*(published.words[name].to_pylist() for name in columns), strict=True):
        heard.setdefault(video_id, []).append(TimedWord(*word))
    return heard


def _said(video: ExtractedVideo) -> list[TimedWord] | None:
    sidecar = video.sidecar
    if sidecar.reference is None:
        return None
    words = sidecar.reference.split()
    unknown = (None,) * len(words)
    starts, ends = sidecar.reference_starts_s or unknown, sidecar.reference_ends_s or unknown
    return [TimedWord(*word) for word in zip(words, starts, ends, strict=True)]


def conditions_of(video: ExtractedVideo, language: str) -> dict[str, str]:
    """What a video is like, for a GROUP BY: by class where it is a number."""
    audio, media, said = video.audio, video.media, video.sidecar.said
    found = {"language": language if _LANGUAGE.fullmatch(language) else "other"}
    if video.duration_s is not None:
        found["duration"] = _class(video.duration_s, _LONG)
    if audio and audio.noise_db is not None and audio.speech_db is not None:
        found["noise"] = _class(audio.speech_db - audio.noise_db, _LOUD)
    if audio and audio.kbit_per_s is not None:
        found["bit_rate"] = _class(audio.kbit_per_s, _DENSE)
    if media and media.audio_codec:
        found["codec"] = media.audio_codec
    is_twin = "twin_of" in said and said.get("condition") in CONDITIONS
    found["condition"] = said["condition"] if is_twin else ORIGINAL
    told = {
        key: str(value)
        for key, value in said.items()
        if isinstance(value, str | int | float) and key not in {"twin_of", *MEASURED}
    }
    return told | found


def _class(value: float, classes: Sequence[tuple[int | None, str]]) -> str:
    return next(name for below, name in classes if below is None or value < below)


def _row(video: ExtractedVideo, language: str, both: Compared) -> dict[str, Any]:
    return {
        "video_id": video.video.video_id,
        "language": language,
        "conditions": list(conditions_of(video, language).items()),
        "words_a": both.between.words,
        "words_b": both.between.hits + both.between.substitutions + both.between.insertions,
        "edits": both.between.errors,
        "start_differences_ms": [round(1000 * off) for off in both.between.start_errors_s],
        **(_against(both.a, "a") if both.a else {}),
        **(_against(both.b, "b") if both.b else {}),
        "diff": [
            {
                "word_a": place.word_a,
                "word_b": place.word_b,
                "start_s": place.start_s,
                "is_right": place.right,
            }
            for place in both.diff
        ],
    }


def _against(one: Against, side: str) -> dict[str, Any]:
    score, sure = one.words, one.confidence
    return {
        "reference_words": score.words,
        "reference_characters": one.characters,
        f"character_errors_{side}": one.character_errors,
        f"substitutions_{side}": score.substitutions,
        f"deletions_{side}": score.deletions,
        f"insertions_{side}": score.insertions,
        f"start_errors_{side}_ms": [round(1000 * off) for off in score.start_errors_s],
        f"confidence_{side}": {"words": sure.words, "probability": sure.probability, "right": sure.right},
        f"log2_likelihood_{side}": sure.log2_likelihood,
    }
