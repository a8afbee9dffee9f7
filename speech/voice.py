"""Voice activity and windows: which stretches of a recording an engine gets to hear.

Voice activity comes from the WebRTC detector that the pocketsphinx package carries. It decides on
30 ms frames; everything else here is about never cutting into a word: single frames are smoothed
over, each region is padded, and a window ends only between two regions, or, inside speech that
goes on for longer than a window, at its quietest moment.
"""

from collections.abc import Iterator

import numpy as np

from speech.types import SAMPLE_RATE, Samples, Seconds, Window

VOICE_VERSION = 1
"""Part of every model version's fingerprint: raise it when a change here can change words."""

_FRAME_S: Seconds = 0.03
_SMOOTH_FRAMES = 9  # a majority over 0.27 s: longer than a click, shorter than a word
_PAD_S: Seconds = 0.25  # unvoiced consonants at a word's edge look like noise to the detector
_MIN_REGION_S: Seconds = 0.12


def speech_regions(samples: Samples) -> list[tuple[Seconds, Seconds]]:
    """Where somebody speaks: ``(start, end)`` in seconds, in order, not overlapping.

    >>> speech_regions(np.zeros(SAMPLE_RATE, dtype=np.int16))
    []
    """
    from pocketsphinx import Vad

    detector = Vad(mode=Vad.MEDIUM_STRICT, sample_rate=SAMPLE_RATE, frame_length=_FRAME_S)
    size = detector.frame_bytes // 2
    count = len(samples) // size
    if not count:
        return []
    frames = samples[: count * size].reshape(count, size)
    voiced = np.fromiter((detector.is_speech(f.tobytes()) for f in frames), dtype=np.int8, count=count)
    majority = np.convolve(voiced, np.ones(_SMOOTH_FRAMES), mode="same") > _SMOOTH_FRAMES / 2
    edges = np.flatnonzero(np.diff(majority.astype(np.int8), prepend=0, append=0))

    total: Seconds = len(samples) / SAMPLE_RATE
    regions: list[tuple[Seconds, Seconds]] = []
    for first, last in edges.reshape(-1, 2):
        if (last - first) * _FRAME_S < _MIN_REGION_S:
            continue
        start = max(0.0, first * _FRAME_S - _PAD_S)
        end = min(total, last * _FRAME_S + _PAD_S)
        if regions and start <= regions[-1][1]:
            start = regions.pop()[0]
        regions.append((start, end))
    return regions


def windows(samples: Samples, max_window_s: Seconds) -> Iterator[Window]:
    """Cut a recording into windows of at most ``max_window_s`` that together hold all its speech.

    Neighbouring regions share a window as long as they fit, because an engine hears better with
    context; silence longer than that is never part of a window's edge.
    """
    pieces = [piece for region in speech_regions(samples) for piece in _split(samples, region, max_window_s)]
    start_end: list[tuple[Seconds, Seconds]] = []
    for start, end in pieces:
        if start_end and end - start_end[-1][0] <= max_window_s:
            start_end[-1] = (start_end[-1][0], end)
        else:
            start_end.append((start, end))
    for start, end in start_end:
        first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
        yield Window(samples=samples[first:last], start_s=first / SAMPLE_RATE)


def _split(
    samples: Samples, region: tuple[Seconds, Seconds], max_window_s: Seconds
) -> Iterator[tuple[Seconds, Seconds]]:
    """Split one region that is longer than a window at the quietest frame of each window's second half."""
    start, end = region
    while end - start > max_window_s:
        first = round((start + max_window_s / 2) * SAMPLE_RATE)
        last = round((start + max_window_s) * SAMPLE_RATE)
        size = round(_FRAME_S * SAMPLE_RATE)
        frames = samples[first : first + (last - first) // size * size].reshape(-1, size)
        energy = np.square(frames.astype(np.float32)).mean(axis=1)
        # Over 0.15 s, so that the stop of a "t" does not pass for a pause.
        smooth = np.convolve(energy, np.ones(5) / 5, mode="same")
        smooth[:2], smooth[-2:] = np.inf, np.inf
        cut = (first + (int(smooth.argmin()) + 0.5) * size) / SAMPLE_RATE
        yield start, cut
        start = cut
    yield start, end
