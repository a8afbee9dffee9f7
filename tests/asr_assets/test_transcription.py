"""What a model was told of a video beforehand is part of what it heard."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from asr_assets.extracted_audio import as_known_now
from asr_assets.transcription import BatchTranscription
from resources.observations import Video
from resources.policy import Policy
from resources.published import ExtractedBatch, ExtractedVideo, ProbedVideo, Status
from resources.routing import Routing
from resources.sidecars import Sidecar
from resources.store import Store
from speech.media import AudioInfo
from speech.models import ModelVersion
from speech.types import HeardWindow, Signals

VIDEO = Video(
    source="s", key="a.mp4", version="1", size_bytes=1, modified_at=datetime(2026, 1, 1, tzinfo=UTC)
)
MODEL = ModelVersion("m", "whisper", weights="./none", language="auto")
WINDOW = HeardWindow(1.0, 2.0, (), Signals("de"), channel=1)


def batch(sidecar: Sidecar) -> ExtractedBatch:
    video = ExtractedVideo(video=VIDEO, status=Status.OK, audio=AudioInfo(10.0, 0, 0), sidecar=sidecar)
    return ExtractedBatch(batch="00000001", videos=(video,))


@pytest.mark.case(14)
@pytest.mark.parametrize(
    ("model", "later", "again"),
    [
        (MODEL, Sidecar(language="de", hints=("Dagster",)), False),
        (MODEL, Sidecar(language="fr", hints=("Dagster",)), True),
        (MODEL, Sidecar(language="de", hints=("Dagster", "DuckDB")), True),
        (MODEL, Sidecar(language="de", hints=("Dagster",), reference="what is said"), False),
        (MODEL, Sidecar(), True),
        (replace(MODEL, language="de"), Sidecar(language="fr", hints=("Dagster",)), False),
        (replace(MODEL, engine="ctc"), Sidecar(language="de"), False),
    ],
)
def test_words_are_heard_again_when_a_sidecar_says_something_else(
    model: ModelVersion, later: Sidecar, again: bool, tmp_path: Path
) -> None:
    work = BatchTranscription(
        Store(url=f"file://{tmp_path}"), model, "f", "00000001", "run", Routing("m", [model], Policy())
    )
    first, second = batch(Sidecar(language="de", hints=("Dagster",))), batch(later)

    class Scripted:
        """Hears nothing, and leaves a window as if it had been killed."""

        def run(self, recordings: Sequence[object], memory: BatchTranscription) -> Sequence[object]:
            from speech.pipeline import Heard
            from speech.types import Transcript

            (recording,) = recordings
            memory.keep(recording, [WINDOW])  # type: ignore[arg-type]
            return [Heard(VIDEO.video_id, Transcript("de", 10.0, ()), 0.1)]

    (video,) = work.transcribe(Scripted(), first.videos)  # type: ignore[arg-type]
    recording = work._recording(second.videos[0])
    assert list(work.recall(recording)) == ([] if again else [WINDOW])
    assert len(list(work.from_before(second))) == (not again)  # from a killed run
    work.publish(first, [video])
    assert len(list(work.from_before(first))) == 1
    assert len(list(work.from_before(second))) == (not again)
    assert list(work.recall(recording)) == []  # what is published needs no windows any more


def test_a_sidecar_that_comes_late_is_known_though_the_sound_is_kept() -> None:
    (former,) = batch(Sidecar(language="de")).videos
    late = Sidecar(language="fr", hints=("Dagster",))
    there = ProbedVideo(video=VIDEO, status=Status.OK, sidecar=late)
    assert as_known_now(former, there) == former.model_copy(update={"sidecar": late})
    gone = ProbedVideo(video=VIDEO, status=Status.FAILED)  # another version stands there now
    assert as_known_now(former, gone) == former
