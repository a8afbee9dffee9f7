"""Every kind of object in the store, and how its key is made.

Keys hold only numbers, hashes and model names, never a video's own name.
"""

import hashlib

INGEST = "ingest"
"""``ingest/00000042.json``: the ingest log, one entry a batch. Append-only."""

CHECKPOINTS = "ingest_checkpoints"
"""``ingest_checkpoints/00001000.parquet``: entries 1 to 1000 of the ingest log in one object, and so on."""

LISTING = "listing/position.json"
"""How far the look through the source that is under way has come."""

RETRIES = "retries"
"""``retries/batch=00000042/model=m.json``: what may be tried again."""

DEAD_LETTERS = "dead_letters"
"""Notifications that nobody can read, each with the reason."""

CHAMPIONS = "champions"
"""``champions/00000001.json``: who became champion when, and why. Append-only."""

PROBED = "probed"
EXTRACTED = "extracted"
CONVERSIONS = "conversions"
UNFINISHED = "unfinished"
TRANSCRIPTS = "transcripts"
ATTEMPTS = "attempts"

COMPARISONS = "comparisons"
"""``comparisons/a=m/b=n/batch=00000042/<states>.parquet``: how two model versions differ in a batch."""

SUMMARIES = "comparison_summaries"
"""``comparison_summaries/a=m/b=n.json``: how they differ over all current videos, by condition."""

REPORTS = "reports"
"""``reports/m--n.html``: the same, to be read."""

VERDICTS = "verdicts"
"""``verdicts/m--n/batch=00000042/video=<video_id>/<place>.json``: who is right, by whoever has listened."""

PROBES = "probes"
"""``probes/<random>``: written, read and deleted by ``asr doctor``."""

SNAPSHOTS = "snapshots"
LATEST_SNAPSHOT = "snapshots/latest.json"
"""Names the newest published copy of the warehouse."""


def numbered(folder: str, number: int) -> str:
    """Entry of an append-only log.

    >>> numbered(INGEST, 42)
    'ingest/00000042.json'
    """
    return f"{folder}/{number:08d}.json"


def checkpoint(last: int) -> str:
    """Entries of the ingest log up to number ``last``."""
    return f"{CHECKPOINTS}/{last:08d}.parquet"


def retries_of(batch: str) -> str:
    """The folder of what may be tried again in a batch."""
    return f"{RETRIES}/batch={batch}"


def retry(batch: str, model: str) -> str:
    """What of a batch one model version may do better at another time."""
    return f"{retries_of(batch)}/model={model}.json"


def dead_letter(body: str) -> str:
    """One notification, known by its text."""
    return f"{DEAD_LETTERS}/{hashlib.blake2b(body.encode(), digest_size=16).hexdigest()}.json"


def probed(batch: str) -> str:
    """What raw_videos saw of a batch."""
    return f"{PROBED}/batch={batch}.json"


def audio(video_id: str) -> str:
    """16 kHz, mono or stereo, first sample at 0 of the video's timeline."""
    return f"audio/{video_id}.flac"


def extracted(batch: str) -> str:
    """What became of each video of a batch on its way to audio."""
    return f"{EXTRACTED}/batch={batch}.json"


def conversions(batch: str) -> str:
    """The folder of what MediaConvert is asked for, and makes; gone once it is known what became of it."""
    return f"{CONVERSIONS}/batch={batch}"


def conversion(batch: str, video_id: str) -> str:
    """A job of MediaConvert's that is under way; its sound is written beside it, with another ending."""
    return f"{conversions(batch)}/{video_id}.json"


def transcripts_of(model: str) -> str:
    """The folder of all that a model version has published."""
    return f"{TRANSCRIPTS}/model={model}"


def transcripts(model: str, batch: str) -> str:
    """One row a word, the outcome of each video in the file's metadata. Its PUT publishes a batch."""
    return f"{transcripts_of(model)}/batch={batch}.parquet"


def attempts(model: str, batch: str, run_id: str) -> str:
    """Who tried what, when, for how long: all that may differ between two runs."""
    return f"{ATTEMPTS}/model={model}/batch={batch}/{run_id}.json"


def unfinished(model: str, batch: str) -> str:
    """The folder of videos that are done in a batch that is not: a killed step need not redo them."""
    return f"{UNFINISHED}/model={model}/batch={batch}"


def unfinished_video(model: str, batch: str, fingerprint: str, video_id: str) -> str:
    """One video's words; gone once its batch is published."""
    return f"{unfinished_videos(model, batch, fingerprint)}/{video_id}.json"


def unfinished_videos(model: str, batch: str, fingerprint: str) -> str:
    """The folder of videos that are done by one definition of a model version."""
    return f"{unfinished(model, batch)}/{fingerprint}/videos"


def unfinished_windows(model: str, batch: str, fingerprint: str, video_id: str) -> str:
    """The folder of what was heard of a video that is not done: a long one need not begin anew."""
    return f"{unfinished(model, batch)}/{fingerprint}/windows/{video_id}"


def asked(model: str, batch: str, fingerprint: str, request: str) -> str:
    """A request that a service elsewhere is working on; gone once its batch is published."""
    return f"{unfinished(model, batch)}/{fingerprint}/asked/{request}.json"


def compared_pair(a: str, b: str) -> str:
    """The folder of all batches in which two model versions were compared."""
    return f"{COMPARISONS}/a={a}/b={b}"


def compared_batch(a: str, b: str, batch: str) -> str:
    """The folder of one object."""
    return f"{compared_pair(a, b)}/batch={batch}"


def compared(a: str, b: str, batch: str, states: str) -> str:
    """How two model versions differ in a batch; ``states`` says of what it was made."""
    return f"{compared_batch(a, b, batch)}/{states}.parquet"


def summary(a: str, b: str) -> str:
    """How two model versions differ over all current videos."""
    return f"{SUMMARIES}/a={a}/b={b}.json"


def report(a: str, b: str) -> str:
    """The page about two model versions."""
    return f"{REPORTS}/{a}--{b}.html"


def verdicts(first: str, second: str) -> str:
    """The folder of verdicts between two model versions, in the order of their names."""
    return f"{VERDICTS}/{first}--{second}"


def verdicts_in(first: str, second: str, batch: str) -> str:
    """Those on a batch."""
    return f"{verdicts(first, second)}/batch={batch}"


def verdicts_on(folder: str, video_id: str) -> str:
    """Those on a video of it."""
    return f"{folder}/video={video_id}"


def snapshot(number: int) -> str:
    """One published copy of the warehouse."""
    return f"{SNAPSHOTS}/{number:08d}.duckdb"
