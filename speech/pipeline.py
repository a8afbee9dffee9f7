"""From recordings to transcripts: read ahead, cut into windows, batch across recordings, put together.

Threads read recordings, listen for voice and cut windows; the windows of all of them, the longest first, go
in batches to whoever transcribes (:mod:`speech.workers`); what comes back goes onto its recording's timeline.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Self

from speech.engines import ENGINES, Asked, Hardware
from speech.errors import EngineError, MediaError, Reason
from speech.listening import Usage
from speech.media import LocalFile, MediaDecoder
from speech.models import ModelVersion
from speech.reading import Cut, Forgetful, Found, HeardAlready, Memory, Read, Reading, Recording
from speech.types import HeardWindow, Seconds, Segment, Transcript, Word, ends_sentence
from speech.workers import Answered, Crew, hire

SEGMENT_PAUSE_S: Seconds = 0.45
SEGMENT_MAX_S: Seconds = 15.0
BATCHES_AHEAD = 2  # for each worker, that are sorted by length together
KEEP_EVERY_S: Seconds = 20.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What became of one recording: a transcript, or the error that only this recording met.

    ``seconds`` is the wall time of its share of the batches that its windows were in, ``usage`` that of the
    worker that heard the last of them.
    """

    id: str
    outcome: Transcript | EngineError
    seconds: Seconds
    usage: Usage | None = None


class Transcriber:
    """A model version, loaded once (in each worker), for any number of recordings.

    Use as a context manager. ``workers`` None is this process; 0 a process for each device of
    ``hardware.device``, which may be a list; else so many, over those devices; a ``crew`` is hired already.
    Raises :class:`~speech.errors.ModelError` when the model cannot be loaded: here at once, in workers at the
    first recording.
    """

    def __init__(
        self,
        model: ModelVersion,
        hardware: Hardware | None = None,
        workers: int | None = None,
        crew: Crew | None = None,
    ) -> None:
        self.model = model
        self._hardware = hardware or Hardware()
        self._crew = crew or hire(model, self._hardware, workers)

    def run(self, recordings: Iterable[Recording], memory: Memory | None = None) -> Iterator[Heard]:
        """Transcribe recordings, each as it is done; one that fails does not end the rest.

        What ``memory`` holds of their windows is not heard again. Recordings are taken from the iterable,
        and read, only as far ahead as is needed to keep the workers busy.
        """
        yield from _Run(self.model, self._crew, self._batch_size, memory or Forgetful()).of(recordings)

    def hear(self, recording: Recording) -> Heard:
        """Transcribe one recording."""
        (heard,) = self.run([recording])
        return heard

    @property
    def _batch_size(self) -> int:
        return self._hardware.batch_size if ENGINES[self.model.engine].batches else 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._crew.close()


@dataclass
class _Progress:
    """What is known of a recording so far."""

    recording: Recording
    heard: list[HeardWindow] = field(default_factory=list)
    unkept: list[HeardWindow] = field(default_factory=list)
    kept_at: float = field(default_factory=time.monotonic)
    error: EngineError | None = None
    answered: int = 0
    seconds: Seconds = 0.0
    usage: Usage | None = None
    read: Read | None = None


class _Run:
    """One run over recordings."""

    def __init__(self, model: ModelVersion, crew: Crew, batch_size: int, memory: Memory) -> None:
        self._model, self._crew, self._batch_size, self._memory = model, crew, batch_size, memory
        self._round = batch_size * crew.size * BATCHES_AHEAD
        self._progress: dict[str, _Progress] = {}
        self._under_way: dict[Future[Answered], list[Cut]] = {}

    def of(self, recordings: Iterable[Recording]) -> Iterator[Heard]:
        least = self._batch_size * self._crew.size
        with Reading(recordings, self._model, self._memory, least) as reading:
            try:
                for some in reading.rounds(least, self._round):
                    self._take(some)
                    yield from self._finish(wait_for=0)
                    for batch in self._batches([found for found in some if isinstance(found, Cut)]):
                        asked = self._asked(batch[0].recording)
                        self._under_way[self._crew.submit([cut.window for cut in batch], asked)] = batch
                        # While this many wait, the next round is read; then it is sorted on its own.
                        while len(self._under_way) > self._crew.size:
                            yield from self._finish()
                while self._under_way:
                    yield from self._finish()
            finally:
                self._keep(0.0)

    def _take(self, some: Iterable[Found]) -> None:
        for found in some:
            recording = found.recording
            progress = self._progress.setdefault(recording.id, _Progress(recording))
            if isinstance(found, Read):
                progress.read = found
                progress.error = progress.error or found.error
            elif isinstance(found, HeardAlready):
                progress.heard.append(found.heard)
                progress.answered += 1

    def _batches(self, cuts: list[Cut]) -> Iterator[list[Cut]]:
        """Windows that are asked for alike, the longest first: little of a batch is padding."""
        alike: dict[Asked, list[Cut]] = defaultdict(list)
        for cut in sorted(cuts, key=lambda cut: -len(cut.window.samples)):
            alike[self._asked(cut.recording)].append(cut)
        for some in alike.values():
            # What would fill no batch for each worker is shared out all the same.
            size = min(self._batch_size, -(-len(some) // self._crew.size))
            for first in range(0, len(some), size):
                yield some[first : first + size]

    def _asked(self, recording: Recording) -> Asked:
        language = self._model.language
        if language == "auto" and recording.language:
            language = recording.language
        if not ENGINES[self._model.engine].asked:
            return Asked(language)
        return Asked(language, ", ".join(filter(None, [self._model.prompt, recording.prompt])))

    def _finish(self, wait_for: Seconds | None = None) -> Iterator[Heard]:
        """Take in what the workers have answered; recordings that are done by that."""
        done, _ = wait(self._under_way, wait_for, FIRST_COMPLETED)
        for future in done:
            batch, answered = self._under_way.pop(future), future.result()
            total = sum(len(cut.window.samples) for cut in batch)
            for cut, answer in zip(batch, answered.answers, strict=True):
                progress = self._progress[cut.recording.id]
                progress.answered += 1
                progress.usage = answered.usage
                progress.seconds += answered.seconds * len(cut.window.samples) / total
                if isinstance(answer, EngineError):
                    progress.error = answer
                else:
                    heard = replace(answer, channel=cut.channel)
                    progress.heard.append(heard)
                    progress.unkept.append(heard)
        self._keep(KEEP_EVERY_S)
        yield from self._done()

    def _keep(self, every_s: Seconds) -> None:
        now = time.monotonic()
        for progress in self._progress.values():
            if progress.unkept and now - progress.kept_at >= every_s:
                self._memory.keep(progress.recording, progress.unkept)
                progress.unkept, progress.kept_at = [], now

    def _done(self) -> Iterator[Heard]:
        done = [
            (recording_id, progress, progress.read)
            for recording_id, progress in self._progress.items()
            if progress.read and progress.answered == progress.read.windows
        ]
        for recording_id, progress, read in done:
            del self._progress[recording_id]
            outcome = progress.error or transcript_of(progress.heard, read.duration_s, self._model.language)
            yield Heard(recording_id, outcome, progress.seconds, progress.usage)


def transcript_of(heard: Iterable[HeardWindow], duration_s: Seconds, language: str) -> Transcript:
    """Windows on their recording's timeline: words in order inside it, in milliseconds."""
    by_channel: dict[int | None, list[HeardWindow]] = defaultdict(list)
    for window in heard:
        by_channel[window.channel].append(window)
    segments = chain.from_iterable(_segments(windows, duration_s) for windows in by_channel.values())
    in_order = tuple(sorted(segments, key=lambda segment: (segment.start_s, segment.words[0].channel or 0)))
    spoken: dict[str, Seconds] = defaultdict(float)
    for segment in in_order:
        for word in segment.words:
            if word.signals:
                spoken[word.signals.language] += word.end_s - word.start_s
    return Transcript(max(spoken, key=lambda name: spoken[name], default=language), duration_s, in_order)


def _segments(heard: Iterable[HeardWindow], duration_s: Seconds) -> Iterator[Segment]:
    clock = 0.0
    for window in sorted(heard, key=lambda window: window.start_s):
        on_timeline: list[Word] = []
        for word in window.words:
            # Milliseconds, so that the same work gives the same bytes on every machine.
            start = min(max(round(window.start_s + word.start_s, 3), clock), duration_s)
            end = min(max(round(window.start_s + word.end_s, 3), start), duration_s)
            clock = start
            probability = round(word.probability, 4)
            on_timeline.append(
                replace(
                    word,
                    start_s=start,
                    end_s=end,
                    probability=probability,
                    channel=window.channel,
                    signals=window.signals,
                )
            )
        yield from into_segments(on_timeline)


def into_segments(words: Iterable[Word]) -> Iterator[Segment]:
    """Group words into sentence-like stretches: up to a full stop, a pause, or 15 s."""
    current: list[Word] = []
    for word in words:
        if current and (
            ends_sentence(current[-1].text)
            or word.start_s - current[-1].end_s > SEGMENT_PAUSE_S
            or word.end_s - current[0].start_s > SEGMENT_MAX_S
        ):
            yield Segment(tuple(current))
            current = []
        current.append(word)
    if current:
        yield Segment(tuple(current))


def transcribe_file(transcriber: Transcriber, path: str | Path) -> Transcript:
    """Decode and transcribe one local file.

    Raises :class:`~speech.errors.MediaError` or :class:`~speech.errors.EngineError`; a file without
    audio is a MediaError with reason ``no_audio`` here, because somebody asked for its words.
    """
    try:
        source = LocalFile(path)
    except OSError as error:
        raise MediaError(Reason.MISSING, f"{path}: cannot be read: {error.strerror}") from error
    with tempfile.TemporaryDirectory() as folder, MediaDecoder() as decoder, source:
        flac = Path(folder) / "audio.flac"
        decoder.extract(source, str(path), flac)
        heard = transcriber.hear(Recording(str(path), flac))
    if isinstance(heard.outcome, EngineError):
        raise heard.outcome
    return heard.outcome
