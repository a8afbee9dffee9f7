"""Model versions against references: what ``asr compare`` and the demo print."""

from dataclasses import dataclass
from pathlib import Path

import duckdb
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from asr_assets.drawing import printable, table
from speech.errors import AsrError, what_is_wrong
from speech.scoring import Score, TimedWord, score


@dataclass(frozen=True, slots=True)
class Reference:
    """What is truly said in a video; ``vocabulary`` says who can know its words."""

    words: tuple[TimedWord, ...]
    vocabulary: str = "open"


_REFERENCES = TypeAdapter(dict[str, Reference])


def read_references(path: Path) -> dict[str, Reference]:
    """References by video key, from a file such as ``samples/references.json``; silent ones left out."""
    try:
        known = _REFERENCES.validate_json(path.read_bytes())
    except OSError as error:
        raise AsrError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise AsrError(
            f'{path}: is not {{"video key": {{"words": [{{"word": "a", "start_s": 0.1}}, ...]}}, ...}}: '
            f"{what_is_wrong(error)}"
        ) from error
    return {key: reference for key, reference in known.items() if reference.words}


def score_videos(
    connection: duckdb.DuckDBPyConnection, model: str, references: dict[str, Reference]
) -> dict[str, Score]:
    """A model version's score on each current video that has a reference; a failed one has no words."""
    done = connection.execute(
        """
        SELECT video_key FROM transcripts JOIN videos_current USING (video_id)
        WHERE model_version = ? ORDER BY video_key
        """,
        [model],
    ).fetchall()
    scores = {}
    for (key,) in done:
        if key in references:
            heard = connection.execute(
                """
                SELECT word, start_s FROM words JOIN videos_current USING (video_id)
                WHERE video_key = ? AND model_version = ? ORDER BY word_index
                """,
                [key, model],
            ).fetchall()
            scores[key] = score(references[key].words, [TimedWord(*row) for row in heard])
    return scores


def compare(
    connection: duckdb.DuckDBPyConnection, models: list[str], references: dict[str, Reference]
) -> Table:
    """Word error rate and median start error (of words heard right), by video and in total.

    Raises :class:`~speech.errors.AsrError` where they have no video in common to be compared on.
    """
    scores = {model: score_videos(connection, model, references) for model in models}
    common = set.intersection(*(set(by_video) for by_video in scores.values()))
    if not common:
        found = ", ".join(f"{model} {len(by_video)}" for model, by_video in scores.items())
        raise AsrError(
            "no current video has a reference and words of each of these models "
            f"(videos with both: {found}); --references names a file of your own, asr models and "
            "asr sql 'from transcripts' say what there is"
        )
    shown = table("video", "vocabulary", "words", "model", "WER", "start error")
    groups = [({key}, printable(key), references[key].vocabulary) for key in sorted(common)]
    for vocabulary in sorted({references[key].vocabulary for key in common}):
        those = {key for key in common if references[key].vocabulary == vocabulary}
        groups.append((those, "all of them", vocabulary))
    for keys, name, vocabulary in groups:
        words = sum(len(references[key].words) for key in keys)
        about = [name, vocabulary, str(words)]
        for model in models:
            total = sum((scores[model][key] for key in sorted(keys)), Score())
            shown.add_row(*about, model, f"{total.wer:.1%}", milliseconds(total.median_start_error_s))
            about = ["", "", ""]
    return shown


def milliseconds(seconds: float | None) -> str:
    """A median that may not exist."""
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"
