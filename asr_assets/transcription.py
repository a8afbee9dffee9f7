"""One run's work on one batch with one model version: reuse, transcribe, publish."""

import hashlib
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from asr_assets.pictures import DrawnVideo, Envelope, mean_probability, name_of, timed_words
from resources import layout
from resources.backends import Transcribing
from resources.published import (
    Attempt,
    AttemptsBatch,
    ExtractedBatch,
    ExtractedVideo,
    FinishedVideo,
    HeardWindows,
    Outcome,
    PublishedTranscripts,
    Row,
    Status,
    TranscriptsHead,
    word_rows,
)
from resources.retries import remember
from resources.routing import Routing
from resources.store import Store
from speech.engines import ENGINES
from speech.errors import EngineError, Reason
from speech.media import read_flac
from speech.models import ModelVersion
from speech.pipeline import Heard
from speech.reading import Recording
from speech.types import HeardWindow, Samples

DRAWN = 3  # videos of a batch that its plot shows


@dataclass(frozen=True, slots=True)
class BatchTranscription:
    """The work, step by step; ``fingerprint`` is the model's, taken once."""

    store: Store
    model: ModelVersion
    fingerprint: str
    batch: str
    run_id: str
    routing: Routing

    @property
    def key(self) -> str:
        """The object that this work publishes."""
        return layout.transcripts(self.model.name, self.batch)

    def without_engine(self, extracted: ExtractedBatch) -> Iterator[FinishedVideo]:
        """Videos without audio: they end here as they ended there, with the same reason."""
        for video in extracted.videos:
            if video.audio is None:
                outcome = Outcome(
                    video_id=video.video.video_id,
                    status=video.status,
                    reason=video.reason,
                    duration_s=video.duration_s,
                )
                yield FinishedVideo(outcome=outcome)

    def left(self, extracted: ExtractedBatch) -> Iterator[FinishedVideo]:
        """Videos that are another model version's to hear."""
        for video in extracted.videos:
            if video.audio and not self.routing.hears(self.model.name, self.batch, video):
                outcome = Outcome(
                    video_id=video.video.video_id, status=Status.LEFT, reason=Reason.ANOTHER_MODEL
                )
                yield FinishedVideo(outcome=outcome)

    def from_before(self, extracted: ExtractedBatch) -> Iterator[FinishedVideo]:
        """Videos that this very definition of the model has transcribed, knowing what is known now of them:
        published, or in a killed run.
        """
        told = {video.video.video_id: _told(self._recording(video)) for video in extracted.videos}
        published = PublishedTranscripts.read(self.store, self.key)
        if published and published.head.fingerprint == self.fingerprint:
            for outcome in published.head.outcomes:
                if outcome.status in (Status.OK, Status.EMPTY) and outcome.told == told.get(outcome.video_id):
                    yield FinishedVideo(outcome=outcome, rows=published.rows_of(outcome.video_id))
        folder = layout.unfinished_videos(self.model.name, self.batch, self.fingerprint)
        for leftover in self.store.list(folder):
            video = FinishedVideo.read(self.store, leftover.key)
            if video and video.outcome.told == told.get(video.outcome.video_id):
                yield video

    def transcribe(
        self, transcriber: Transcribing, videos: Iterable[ExtractedVideo]
    ) -> Iterator[FinishedVideo]:
        """New words, each video's kept in the store at once, and now and then those of a long one's windows:
        a kill costs seconds.
        """
        recordings = {video.video.video_id: self._recording(video) for video in videos}
        for heard in transcriber.run(recordings.values(), memory=self):
            video = self._finish(heard, _told(recordings[heard.id]))
            if video.outcome.status is not Status.FAILED:
                key = layout.unfinished_video(self.model.name, self.batch, self.fingerprint, heard.id)
                self.store.put(key, video.model_dump_json().encode())
            yield video

    def recall(self, recording: Recording) -> Iterator[HeardWindow]:
        """See :class:`speech.reading.Memory`."""
        for kept in self.store.list(self._windows(recording)):
            if some := HeardWindows.read(self.store, kept.key):
                yield from some.windows

    def keep(self, recording: Recording, heard: Sequence[HeardWindow]) -> None:
        """See :class:`speech.reading.Memory`."""
        first = min(heard, key=lambda window: (window.channel or 0, window.start_s))
        name = f"{first.channel or 0}-{round(first.start_s * 1000):010d}"
        some = HeardWindows(windows=tuple(heard))
        self.store.put(f"{self._windows(recording)}/{name}.json", some.model_dump_json().encode())

    def _windows(self, recording: Recording) -> str:
        name = f"{recording.id}-{_told(recording)}"
        return layout.unfinished_windows(self.model.name, self.batch, self.fingerprint, name)

    def publish(self, extracted: ExtractedBatch, finished: Sequence[FinishedVideo]) -> PublishedTranscripts:
        """Record the attempts, then publish the batch with one PUT; ``finished`` in the batch's order."""
        rules = self._rules(extracted)
        videos = [
            video.model_copy(
                update={
                    "outcome": video.outcome.model_copy(update={"rule": rules.get(video.outcome.video_id)})
                }
            )
            for video in finished
        ]
        attempts = tuple(video.attempt for video in videos if video.attempt)
        if attempts:
            record = AttemptsBatch(model=self.model.name, batch=self.batch, attempts=attempts)
            key = layout.attempts(self.model.name, self.batch, self.run_id)
            self.store.put(key, record.model_dump_json().encode())
        head = TranscriptsHead(
            model=self.model.name,
            fingerprint=self.fingerprint,
            batch=self.batch,
            outcomes=tuple(video.outcome for video in videos),
            routing=self.routing.state(self.model.name, self.batch),
        )
        # Before publishing: killed in between, a batch that need not be tried again is.
        remember(self.store, head, datetime.now(UTC))
        published = PublishedTranscripts.build(head, videos)
        self.store.put(self.key, published.encode())
        self.store.delete_below(layout.unfinished(self.model.name, self.batch))
        return published

    def _rules(self, extracted: ExtractedBatch) -> dict[str, str | None]:
        """Which rule sends a video to this model version, by its id."""
        return {
            video.video.video_id: rule.name
            for video in extracted.videos
            if (rule := self.routing.rule(video)) and rule.model == self.model.name
        }

    def drawn(self, videos: Sequence[FinishedVideo]) -> list[DrawnVideo]:
        """The few of the videos whose words are the least sure: worth a look."""
        doubtful = sorted((video for video in videos if video.rows), key=mean_probability)[:DRAWN]
        return [DrawnVideo(name_of(v), self._envelope(v.outcome.video_id), timed_words(v)) for v in doubtful]

    def _envelope(self, video_id: str) -> Envelope:
        return Envelope.of(self._samples(video_id))

    def _recording(self, video: ExtractedVideo) -> Recording:
        video_id, sidecar = video.video.video_id, video.sidecar
        return Recording(
            video_id,
            partial(self.store.as_local_file, layout.audio(video_id)),
            # Only what this model makes use of: nothing else changes its words.
            language=(sidecar.language or "") if self.model.language == "auto" else "",
            prompt=", ".join(sidecar.hints) if ENGINES[self.model.engine].asked else "",
        )

    def _samples(self, video_id: str) -> Samples:
        with self.store.as_local_file(layout.audio(video_id)) as flac:
            return read_flac(flac)

    def _finish(self, heard: Heard, told: str) -> FinishedVideo:
        ended_at = datetime.now(UTC)
        outcome, rows, message = _outcome(heard, told)
        attempt = Attempt(
            video_id=heard.id,
            run_id=self.run_id,
            worker=socket.gethostname(),
            started_at=ended_at - timedelta(seconds=heard.seconds),
            ended_at=ended_at,
            seconds=heard.seconds,
            outcome=outcome.reason or outcome.status,
            message=message,
            **(heard.usage._asdict() if heard.usage else {}),
        )
        return FinishedVideo(outcome=outcome, rows=rows, attempt=attempt)


def _told(recording: Recording) -> str:
    """What a model was told of a recording beforehand, as a short name; empty for nothing."""
    said = f"{recording.language}|{recording.prompt}"
    return "" if said == "|" else hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


def _outcome(heard: Heard, told: str) -> tuple[Outcome, tuple[Row, ...], str | None]:
    if isinstance(heard.outcome, EngineError):
        failed = Outcome(video_id=heard.id, status=Status.FAILED, reason=heard.outcome.reason, told=told)
        return failed, (), str(heard.outcome)
    transcript = heard.outcome
    rows = word_rows(heard.id, transcript)
    outcome = Outcome(
        video_id=heard.id,
        status=Status.OK if rows else Status.EMPTY,
        reason=None if rows else Reason.NO_SPEECH,
        language=transcript.language,
        duration_s=transcript.duration_s,
        words=len(rows),
        told=told,
    )
    return outcome, rows, None
