"""Sound out of videos by AWS Elemental MediaConvert: a job a video, all of a batch side by side.

MediaConvert reads the source's bucket and writes a WAV of 16 kHz into the store's (its FLAC begins at 22.05
kHz). That goes through :class:`~speech.media.MediaDecoder` as any media does, to the same FLAC. A job under
way is noted in the store, so that whoever is killed, or has waited too long, waits for it the next time and
pays for no other; MediaConvert itself knows a video's token again for a minute.

What it cannot keep: it takes the first audio track, not FFmpeg's choice. Its documentation does not say that
sound which begins after the picture is preceded by silence in an output without picture, nor what becomes of
gaps: where words must stand at the video's own times, compare a few of your videos with the decoder first.
What is counted of damage (``decode_errors``, ``lost_share``, ``cut_short``) is the WAV's: nearly always none.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from resources import layout
from resources.aws import patience
from resources.observations import Video
from resources.published import JsonObject
from resources.source_s3 import S3Bucket
from resources.store import Store
from speech.errors import AsrError, MediaError, Reason, SourceUnavailable, VideoError, first_line
from speech.media import ByteSource
from speech.types import SAMPLE_RATE, Seconds

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 20.0
JOB_S: Seconds = 6 * 3600.0
"""So long a batch is waited for, queue and all."""
BUSY_S: Seconds = 900.0
"""So long a job is asked for again where MediaConvert is busy."""
_NOT_NOW = {"TooManyRequestsException", "InternalServerErrorException", "ServiceQuotaExceededException"}
_NOT_NOW |= {"ConflictException", "ThrottlingException", "503", "500"}


class Job(JsonObject, frozen=True):
    """One that is under way, by MediaConvert's name for it; empty while that is being asked for."""

    id: str = ""


class MediaConvert:
    """Opens what was made of a video, as soon as it is made; jobs for all ``videos`` begin at once.

    Raises :class:`~speech.errors.AsrError` where it is not allowed or not set up.
    """

    def __init__(
        self,
        opened: Callable[[Video], Any],
        store: Store,
        batch: str,
        videos: Sequence[Video],
        role: str,
        queue: str,
    ) -> None:
        if not store.url.startswith("s3://") or not all(video.source.startswith("s3://") for video in videos):
            raise AsrError(
                "MediaConvert reads and writes S3 alone: set ASR_SOURCE_URL and ASR_STORE_URL to s3://…, or "
                "leave ASR_EXTRACTOR out"
            )
        if not role:
            raise AsrError("MediaConvert reads and writes under a role of its own: set ASR_MEDIACONVERT_ROLE")
        self._opened, self._store, self._batch = opened, store, batch
        self._asked = {"Role": role, **({"Queue": queue} if queue else {})}
        self._client = boto3.client("mediaconvert", config=patience())
        self._made = S3Bucket(store.url, boto3.client("s3", config=patience()))
        self._until = time.monotonic() + JOB_S
        self._jobs = {video.video_id: self._begin(video) for video in videos}

    @contextmanager
    def open(self, video: Video) -> Iterator[ByteSource]:
        """A video's sound as WAV. Raises VideoError where there is none; waits until it is known."""
        begun = self._jobs[video.video_id]
        if isinstance(begun, VideoError):
            raise begun
        self._wait(begun, video)
        with self._opened(video):  # it read the key, and that has to be this version still
            made = self._made.find(self._key(video))
        if made is None:
            self._store.delete(layout.conversion(self._batch, video.video_id))
            raise MediaError(Reason.DECODER_DIED, f"{video.key}: MediaConvert is done and has left nothing")
        with self._made.open(made) as sound:
            yield sound

    def _begin(self, video: Video) -> Job | VideoError:
        note = layout.conversion(self._batch, video.video_id)
        if (job := Job.read(self._store, note)) and job.id:
            return job
        try:
            with self._opened(video):
                # Whoever may not write this would buy a job that nobody finds again, at each try.
                self._store.put(note, Job().model_dump_json().encode())
                job = Job(id=self._ask(video, lambda: self._client.create_job(**self._job(video)))["Id"])
        except VideoError as error:
            return error
        self._store.put(note, job.model_dump_json().encode())
        return job

    def _wait(self, job: Job, video: Video) -> None:
        wait_s = FIRST_WAIT_S
        while (now := self._ask(video, lambda: self._known(job)))["Status"] != "COMPLETE":
            if now["Status"] in ("ERROR", "CANCELED"):
                # Whoever asks again gets another job.
                self._store.delete(layout.conversion(self._batch, video.video_id))
                if now["Status"] == "CANCELED":
                    raise MediaError(
                        Reason.DECODER_DIED, f"{video.key}: its MediaConvert job was canceled, or forgotten"
                    )
                said = f"{now.get('ErrorMessage', 'no reason given')} ({now.get('ErrorCode', 'no code')})"
                raise MediaError(Reason.UNDECODABLE_AUDIO, f"{video.key}: MediaConvert failed: {said}")
            if time.monotonic() > self._until:
                raise MediaError(
                    Reason.DECODER_STALLED,
                    f"{video.key}: its MediaConvert job is {now['Status']} after {JOB_S / 3600:.0f} hours: "
                    "look at its queue; the next try waits for the same job",
                )
            time.sleep(wait_s)
            wait_s = min(wait_s * 1.5, LONGEST_WAIT_S)

    def _known(self, job: Job) -> Any:
        """MediaConvert forgets a job after three months."""
        try:
            return self._client.get_job(Id=job.id)
        except self._client.exceptions.NotFoundException:
            return {"Job": {"Status": "CANCELED"}}

    def _ask(self, video: Video, ask: Callable[[], Any]) -> Any:
        until, wait_s = time.monotonic() + BUSY_S, FIRST_WAIT_S
        while True:
            try:
                return ask()["Job"]
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code == "BadRequestException":  # most likely it is about this video, or its name
                    said = first_line(error)
                    raise MediaError(
                        Reason.UNREADABLE_OBJECT, f"{video.key}: MediaConvert refuses it: {said}"
                    ) from None
                if code not in _NOT_NOW:
                    raise AsrError(
                        f"MediaConvert refuses: {code}; check ASR_MEDIACONVERT_ROLE, ASR_MEDIACONVERT_QUEUE, "
                        "mediaconvert:CreateJob, mediaconvert:GetJob and iam:PassRole"
                    ) from None
            except BotoCoreError as error:
                code = type(error).__name__
            if time.monotonic() > until:
                raise SourceUnavailable(f"MediaConvert cannot be reached: {code}; check the AWS_* variables")
            time.sleep(wait_s)
            wait_s = min(wait_s * 1.5, LONGEST_WAIT_S)

    def _key(self, video: Video) -> str:
        _, _, prefix = self._store.url.removeprefix("s3://").partition("/")
        key = layout.conversion(self._batch, video.video_id).replace(".json", ".wav")
        return f"{prefix}/{key}" if prefix else key

    def _job(self, video: Video) -> dict[str, Any]:
        bucket = self._store.url.removeprefix("s3://").partition("/")[0]
        destination = f"s3://{bucket}/{self._key(video).removesuffix('.wav')}"
        # RF64: a day in stereo does not fit into plain RIFF. No channels: as many as there are.
        wav = {"BitDepth": 16, "Channels": 0, "SampleRate": SAMPLE_RATE, "Format": "RF64"}
        output = {
            "ContainerSettings": {"Container": "RAW"},
            "Extension": "wav",
            "AudioDescriptions": [
                {"AudioSourceName": "Audio Selector 1", "CodecSettings": {"Codec": "WAV", "WavSettings": wav}}
            ],
        }
        return self._asked | {
            "ClientRequestToken": video.video_id,
            "Settings": {
                "Inputs": [
                    {
                        "FileInput": f"{video.source}/{video.key}",
                        "TimecodeSource": "ZEROBASED",
                        "AudioSelectors": {"Audio Selector 1": {"DefaultSelection": "DEFAULT"}},
                    }
                ],
                "OutputGroups": [
                    {
                        "OutputGroupSettings": {
                            "Type": "FILE_GROUP_SETTINGS",
                            "FileGroupSettings": {"Destination": destination},
                        },
                        "Outputs": [output],
                    }
                ],
            },
        }
