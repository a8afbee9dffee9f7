"""Every kind of object in the store, and how its key is made.

Keys hold only numbers, hashes and model names, never a video's own name.
"""

INGEST = "ingest"
"""``ingest/00000042.json``: the ingest log, one entry a batch. Append-only."""

CHAMPIONS = "champions"
"""``champions/00000001.json``: who became champion when, and why. Append-only."""

EXTRACTED = "extracted"
TRANSCRIPTS = "transcripts"
ATTEMPTS = "attempts"

PROBES = "probes"
"""``probes/<random>``: written, read and deleted by ``asr doctor``."""

LATEST_SNAPSHOT = "snapshots/latest.json"
"""Names the newest published copy of the warehouse."""


def numbered(folder: str, number: int) -> str:
    """Entry of an append-only log.

    >>> numbered(INGEST, 42)
    'ingest/00000042.json'
    """
    return f"{folder}/{number:08d}.json"


def probed(batch: str) -> str:
    """What raw_videos saw of a batch."""
    return f"probed/batch={batch}.json"


def audio(video_id: str) -> str:
    """16 kHz, mono or stereo, first sample at 0 of the video's timeline."""
    return f"audio/{video_id}.flac"


def extracted(batch: str) -> str:
    """What became of each video of a batch on its way to audio."""
    return f"{EXTRACTED}/batch={batch}.json"


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
    return f"unfinished/model={model}/batch={batch}"


def unfinished_video(model: str, batch: str, fingerprint: str, video_id: str) -> str:
    """One video's words; gone once its batch is published."""
    return f"{unfinished(model, batch)}/{fingerprint}/{video_id}.json"


def snapshot(number: int) -> str:
    """One published copy of the warehouse."""
    return f"snapshots/{number:08d}.duckdb"
