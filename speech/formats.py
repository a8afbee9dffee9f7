"""A transcript as text, JSON, SubRip, WebVTT, TSV, CTM or Parquet."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from enum import StrEnum

from speech.captions import Caption, captions
from speech.types import Seconds, Transcript

COLUMNS = ("word", "start_s", "end_s", "probability", "segment_index", "channel", "timing_source")


def as_text(transcript: Transcript, _: str) -> str:
    """A line per segment, after the side of stereo that it is from."""
    return "\n".join(
        _said_by(segment.words[0].side, segment.text) for segment in transcript.segments if segment.words
    )


def as_json(transcript: Transcript, name: str) -> str:
    """One line of JSON: each word once, with numeric ``start_s``, ``end_s`` and ``probability``."""
    document = {
        "file": name,
        "language": transcript.language,
        "duration_s": transcript.duration_s,
        "words": _rows(transcript),
    }
    return json.dumps(document, ensure_ascii=False)


def as_srt(transcript: Transcript, _: str) -> str:
    """SubRip: numbered captions, times with a comma."""
    shown = (
        f"{number}\n{_shown_at(caption, ',')}\n{_said_by(caption.side, _joined(caption.lines))}\n"
        for number, caption in enumerate(captions(transcript), start=1)
    )
    return "\n".join(shown)


def as_vtt(transcript: Transcript, _: str) -> str:
    """WebVTT, as the HTML track element reads it."""
    shown = (
        f"{_shown_at(caption, '.')}\n{_voice(caption.side)}{_escape(_joined(caption.lines))}\n"
        for caption in captions(transcript)
    )
    return "\n".join(["WEBVTT\n", *shown])


def as_tsv(transcript: Transcript, _: str) -> str:
    """A header, then a word a line, tabs between its columns; quoted where a value needs it."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(transcript))
    return file.getvalue().removesuffix("\n")


def as_ctm(transcript: Transcript, name: str) -> str:
    """NIST's time-marked conversation: recording, channel (1 or 2), start, length, word, confidence.

    Source: the format of sclite's hypotheses. A name must not hold spaces there: they become ``_``.
    """
    recording = "_".join(name.split()) or "-"
    return "\n".join(
        f"{recording} {(word.channel or 0) + 1} {word.start_s:.3f} {word.end_s - word.start_s:.3f} "
        f"{'_'.join(word.text.split())} {word.probability:.4f}"
        for word in sorted(transcript.words, key=lambda word: (word.channel or 0, word.start_s))
    )


def as_parquet(transcript: Transcript, name: str) -> bytes:
    """A row a word; the recording's name, language and length in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {"file": name, "language": transcript.language, "duration_s": str(transcript.duration_s)}
    types = (pa.string(), *[pa.float64()] * 3, *[pa.int32()] * 2, pa.string())
    schema = pa.schema(zip(COLUMNS, types, strict=True), metadata=about)
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(_rows(transcript), schema=schema), file)
    return file.getvalue()


class Format(StrEnum):
    """What a transcript can be written as."""

    TEXT = "text"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"
    TSV = "tsv"
    CTM = "ctm"
    PARQUET = "parquet"

    @property
    def suffix(self) -> str:
        """Of its files."""
        return ".txt" if self is Format.TEXT else f".{self}"

    @property
    def joins(self) -> bool:
        """Whether several recordings may be written one after the other."""
        return self in {Format.TEXT, Format.JSON, Format.CTM}

    def write(self, transcript: Transcript, name: str) -> bytes:
        """The transcript of the recording of that name in this format; text in UTF-8."""
        written = _WRITERS[self](transcript, name)
        return written if isinstance(written, bytes) else f"{written}\n".encode()


_WRITERS: dict[Format, Callable[[Transcript, str], str | bytes]] = {
    Format.TEXT: as_text,
    Format.JSON: as_json,
    Format.SRT: as_srt,
    Format.VTT: as_vtt,
    Format.TSV: as_tsv,
    Format.CTM: as_ctm,
    Format.PARQUET: as_parquet,
}


def _rows(transcript: Transcript) -> list[dict[str, str | float | int | None]]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in _values(transcript)]


def _values(transcript: Transcript) -> Iterator[tuple[str | float | int | None, ...]]:
    """Words in the order of :data:`COLUMNS`."""
    for index, segment in enumerate(transcript.segments):
        for w in segment.words:
            yield w.text, w.start_s, w.end_s, w.probability, index, w.channel, w.timing_source


def _said_by(side: str, text: str) -> str:
    return f"{side}: {text}" if side else text


def _voice(side: str) -> str:
    return f"<v {side}>" if side else ""


def _joined(lines: tuple[str, ...]) -> str:
    return "\n".join(lines)


def _shown_at(caption: Caption, mark: str) -> str:
    return f"{_clock(caption.start_s, mark)} --> {_clock(caption.end_s, mark)}"


def _clock(time_s: Seconds, mark: str) -> str:
    """Hours, minutes, seconds and milliseconds.

    >>> _clock(3723.5, ",")
    '01:02:03,500'
    """
    seconds, milliseconds = divmod(round(time_s * 1000), 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{milliseconds:03d}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
