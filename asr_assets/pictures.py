"""Pictures for Dagster's UI: inside the metadata, readable on a light and on a dark page.

The UI shows them behind a link beside the other metadata ("Show Markdown"), whatever their size. They show
where words are and how sure the model was, never which: what an event log has once taken in cannot be erased
from it.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from dagster import MarkdownMetadataValue, MetadataValue, TableMetadataValue, TableRecord

from resources.published import WORD_SCHEMA, FinishedVideo
from speech.media import duration_of
from speech.types import Samples, Seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#808080"  # reads on white and on black
BLUE, ORANGE = "#3b82c4", "#d97b29"
POINTS = 1200  # of a waveform: one for each pixel or so
WIDTH_IN, ROW_IN, DPI = 8.6, 1.4, 110  # as wide as the UI's dialog on a laptop


@dataclass(frozen=True, slots=True)
class Envelope:
    """The loudness of a recording over its length: ``(n,)`` peaks in [0, 1], evenly spaced."""

    peaks: npt.NDArray[np.float32]
    duration_s: Seconds

    @classmethod
    def of(cls, samples: Samples) -> "Envelope":
        """Of samples ``(n,)`` or ``(2, n)``, where the louder side counts."""
        step = max(1, samples.shape[-1] // POINTS)
        whole = samples.shape[-1] // step * step
        blocks = samples[..., :whole].reshape(*samples.shape[:-1], -1, step)
        peaks = np.maximum(blocks.max(-1).astype(np.float32), -blocks.min(-1).astype(np.float32)) / 32768
        return cls(peaks if peaks.ndim == 1 else peaks.max(axis=0), duration_of(samples))


@dataclass(frozen=True, slots=True)
class DrawnVideo:
    """One video of a plot: its name there, its sound, and ``(start_s, end_s, probability)`` of its words."""

    name: str
    envelope: Envelope
    words: Sequence[tuple[Seconds, Seconds, float]]


def words_over_sound(rows: Sequence[DrawnVideo]) -> MarkdownMetadataValue:
    """Each recording's waveform with its words below, coloured by how sure the model was."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, ROW_IN * len(rows) + 0.4), dpi=DPI, layout="constrained")
    # From below 0: the dark end of the colours cannot be seen on a dark page.
    colours = ScalarMappable(Normalize(-0.25, 1), "viridis")
    every = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axes, row in zip(every, rows, strict=True):
        _plain(axes)
        at_s = np.linspace(0, row.envelope.duration_s, len(row.envelope.peaks))
        axes.fill_between(at_s, row.envelope.peaks, -row.envelope.peaks, color=GREY, linewidth=0, alpha=0.7)
        if row.words:
            starts, ends, sure = np.array(row.words).T
            axes.broken_barh(
                list(zip(starts, ends - starts, strict=True)),
                (-1.45, 0.3),
                facecolors=colours.to_rgba(sure),
                edgecolors=GREY,
                linewidths=0.5,
            )
        axes.set(xlim=(0, row.envelope.duration_s), ylim=(-1.5, 1), yticks=[])
        axes.set_title(row.name, loc="left", color=GREY, fontsize=9)
    every[-1].set_xlabel("seconds", color=GREY)
    bar = figure.colorbar(colours, ax=list(every), fraction=0.02, pad=0.01)
    bar.set_label("probability", color=GREY)
    bar.ax.set_ylim(0, 1)
    bar.ax.tick_params(colors=GREY)
    return inline(figure, "words over sound")


def growth(buckets: Sequence[tuple[datetime, float, int]]) -> MarkdownMetadataValue:
    """Hours of audio and words by when their videos were taken in: ``(bucket, hours, words)``."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, 2.6), dpi=DPI, layout="constrained")
    when, hours, words = zip(*buckets, strict=True)
    # As wide as what they stand for: an hour, or a day.
    width = timedelta(hours=1) if any(bucket.hour for bucket in when) else timedelta(days=1)
    columns = (("hours of audio", hours, BLUE), ("words", words, ORANGE))
    for axes, (title, values, colour) in zip(figure.subplots(1, 2), columns, strict=True):
        _plain(axes)
        axes.bar(when, values, width=0.9 * width, align="edge", color=colour)
        locator = AutoDateLocator(maxticks=6)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axes.xaxis.get_offset_text().set_color(GREY)
        axes.set_title(title, loc="left", color=GREY, fontsize=10)
    return inline(figure, "hours and words over time")


def batch_table(videos: Sequence[FinishedVideo]) -> TableMetadataValue:
    """A row a video: how it ended, how much was said, how sure the model was."""
    return MetadataValue.table(
        [
            TableRecord(
                {
                    "video": name_of(video),
                    "outcome": str(video.outcome.reason or video.outcome.status),
                    "minutes": round((video.outcome.duration_s or 0.0) / 60, 2),
                    "words": video.outcome.words,
                    "words_per_minute": _per_minute(video),
                    "mean_probability": round(mean_probability(video), 3) if video.rows else None,
                    "seconds": round(video.attempt.seconds, 2) if video.attempt else None,
                }
            )
            for video in videos
        ]
    )


def name_of(video: FinishedVideo) -> str:
    """Enough of its id to find it in SQL; its key may be somebody's name."""
    return video.outcome.video_id[:8]


def timed_words(video: FinishedVideo) -> list[tuple[Seconds, Seconds, float]]:
    """``(start_s, end_s, probability)`` of its words."""
    columns = [WORD_SCHEMA.get_field_index(name) for name in ("start_s", "end_s", "probability")]
    return [tuple(row[column] for column in columns) for row in video.rows]


def mean_probability(video: FinishedVideo) -> float:
    """Over its words."""
    return float(np.mean([sure for *_, sure in timed_words(video)]))


def _per_minute(video: FinishedVideo) -> float | None:
    length_s = video.outcome.duration_s
    return round(video.outcome.words * 60 / length_s, 1) if length_s else None


def _plain(axes: "Axes") -> None:
    axes.set_facecolor("none")
    axes.tick_params(colors=GREY, labelsize=8)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GREY)


def inline(figure: Any, what: str) -> MarkdownMetadataValue:
    """As a picture inside the text, so that nothing has to be served beside the event log."""
    file = io.BytesIO()
    figure.savefig(file, format="png", transparent=True)
    return MetadataValue.md(f"![{what}](data:image/png;base64,{base64.b64encode(file.getvalue()).decode()})")
