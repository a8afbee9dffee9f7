"""Decoded frames at their place in time, whatever a container's clock does; and how loud they are."""

from collections.abc import Iterator

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from speech.types import SAMPLE_RATE, Samples, Seconds

LAYOUTS = {1: "mono", 2: "stereo"}
CLOCK_TOLERANCE_S: Seconds = 0.03  # containers round timestamps to a millisecond or a packet
BELIEVABLE_GAP_S: Seconds = 600.0  # where the container does not say how long it is
SILENCE_CHUNK = SAMPLE_RATE * 10


class Timeline:
    """Puts decoded frames at their place in time: the n-th sample out stands at n / 16 000 s.

    Samples go out as ``(n, channels)``.
    """

    def __init__(self, origin_s: Seconds, end_s: Seconds | None, channels: int) -> None:
        self._end_s = end_s
        self._channels = channels
        self.clock_jumps = 0
        self.written = 0
        self.filled = 0
        """Samples of silence where the container has no sound, after its first."""
        self._origin_s = origin_s
        self._anchor_s: Seconds = 0.0  # where the current run of unbroken input began
        self._run = 0  # input samples since then
        self._skip = 0  # output samples to drop because their time has passed already
        self._shape: tuple[str, str, int] | None = None
        self._resampler: AudioResampler | None = None

    def place(self, frame: AudioFrame) -> Iterator[Samples]:
        """The samples that can be written now that this frame is there."""
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        expected_s = self._anchor_s + (self._run / self._shape[2] if self._shape else 0.0)
        time_s = expected_s if frame.time is None else frame.time - self._origin_s
        off_s = time_s - expected_s
        if shape != self._shape or abs(off_s) > CLOCK_TOLERANCE_S:
            yield from self.finish()
            if self._shape is not None and not self._believable(time_s, off_s):
                # The clock wrapped or was spliced: sound goes on, so go on from where we are.
                self.clock_jumps += 1
                self._origin_s += off_s
                time_s = expected_s
            yield from self._silence_until(time_s)
            self._anchor_s, self._run, self._shape = time_s, 0, shape
            self._resampler = AudioResampler("s16", LAYOUTS[self._channels], SAMPLE_RATE)
        assert self._resampler is not None
        self._run += frame.samples
        frame.pts = None  # the resampler must not second-guess the timeline
        for out in self._resampler.resample(frame):
            yield from self._emit(self._samples_of(out))

    def _believable(self, time_s: Seconds, off_s: Seconds) -> bool:
        """Whether sound really pauses until then, or the clock has jumped."""
        if off_s < -1.0:
            return False
        return off_s <= BELIEVABLE_GAP_S if self._end_s is None else time_s <= self._end_s + 1.0

    def finish(self) -> Iterator[Samples]:
        """What the resampler still holds."""
        if self._resampler is not None:
            for out in self._resampler.resample(None):
                yield from self._emit(self._samples_of(out))
            self._resampler = None

    def _samples_of(self, frame: AudioFrame) -> Samples:
        return np.asarray(frame.to_ndarray(), np.int16).reshape(-1, self._channels)

    def _silence_until(self, time_s: Seconds) -> Iterator[Samples]:
        missing = round(time_s * SAMPLE_RATE) - self.written
        self._skip = max(0, -missing)
        if self._shape is not None:
            self.filled += max(0, missing)
        while missing > 0:
            size = min(missing, SILENCE_CHUNK)
            missing -= size
            yield from self._emit(np.zeros((size, self._channels), dtype=np.int16))

    def _emit(self, samples: Samples) -> Iterator[Samples]:
        if self._skip:
            dropped = min(self._skip, len(samples))
            self._skip -= dropped
            samples = samples[dropped:]
        if len(samples):
            self.written += len(samples)
            yield samples


class Levels:
    """How loud a recording is, 20 ms at a time, in decibels below the loudest that samples can be."""

    FRAME = SAMPLE_RATE // 50
    QUIETEST = 96  # of 16 bits; digital silence counts as that

    def __init__(self) -> None:
        self._counts = np.zeros(self.QUIETEST + 1, np.int64)
        self._rest = np.zeros(0, np.float32)

    def add(self, samples: Samples) -> None:
        """Some more, ``(n, c)``: the sides of stereo count together."""
        heard = np.concatenate([self._rest, samples.astype(np.float32).mean(axis=1)])
        whole = len(heard) // self.FRAME * self.FRAME
        power = np.square(heard[:whole].reshape(-1, self.FRAME)).mean(axis=1) / 32768**2
        below = -10 * np.log10(np.maximum(power, 1e-12))
        self._counts += np.bincount(np.clip(below, 0, self.QUIETEST).astype(int), minlength=self.QUIETEST + 1)
        self._rest = heard[whole:]

    def louder_than(self, share: float) -> int | None:
        """The level, at most 0, that this share of it is quieter than; None for a very short one."""
        total = self._counts.sum()
        if not total:
            return None
        return -int(np.searchsorted(np.cumsum(self._counts), (1 - share) * total))
