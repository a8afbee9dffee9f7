"""The demo: sample videos whose words are known, so that it can say how right it was."""

import shutil

import duckdb
from rich.console import Console
from rich.table import Table

from asr_assets.comparison import milliseconds, read_references, score_videos
from asr_assets.drawing import printable, table
from resources import snapshot
from resources.settings import HOME, Settings, local_path
from speech.errors import AsrError
from speech.scoring import Score

SAMPLES = HOME / "samples"
REFERENCES = SAMPLES / "references.json"


def copy_samples(settings: Settings) -> int:
    """Copy samples that are not there yet; a copy keeps its time, so it stays the same video."""
    folder = local_path(settings.source_url)
    if folder is None:
        raise AsrError(
            f"the demo copies its samples to a folder, and ASR_SOURCE_URL is {settings.source_url}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    copied = 0
    for sample in sorted((SAMPLES / "videos").iterdir()):
        if not (folder / sample.name).exists():
            shutil.copy2(sample, folder / sample.name)
            copied += 1
    return copied


def show(connection: duckdb.DuckDBPyConnection, console: Console) -> None:
    """What was found: every video's end, the two models side by side, and what to type next."""
    champion = snapshot.champion(connection) or "nobody"
    shown = table(
        "video", "outcome", "words", "first words", title=f"Every video ended as a row; what {champion} heard"
    )
    rows = connection.execute(
        """
        SELECT video_key, coalesce(t.reason, t.status), t.words,
               (SELECT string_agg(word, ' ' ORDER BY word_index) FROM words_current AS w
                WHERE w.video_id = v.video_id AND word_index < 8)
        FROM videos_current AS v JOIN transcripts AS t USING (video_id)
        SEMI JOIN champion_current USING (model_version)
        ORDER BY video_key
        """
    ).fetchall()
    for key, outcome, words, text in rows:
        shown.add_row(printable(key), outcome, str(words), text or "")
    console.print(shown)

    console.print(_versions(connection))
    console.print(
        "WER: words wrong, of those said. Start error: the median over words heard right. pocketsphinx knows "
        "many words and hears them badly; micro_whisper knows 83 words and writes them whatever it hears: on "
        "the open samples it is lost."
    )
    (total,) = connection.execute("SELECT count(*) FROM words_current").fetchone() or (0,)
    console.print(f"{total} words, those of {champion}, stand in words_current. Next:")
    console.print('  .venv/bin/asr search "the right time"')
    console.print(
        '  .venv/bin/asr sql "select word, start_s, end_s, probability from words_current limit 10"'
    )


def _versions(connection: duckdb.DuckDBPyConnection) -> Table:
    references = read_references(REFERENCES)
    shown = table(
        *("model", "WER, 83 words", "WER, open", "start error", "times real time"),
        title="Two model versions heard the same samples",
    )
    for model, rtfx in connection.execute(
        """
        SELECT model_version, sum(t.duration_s) / nullif(sum(a.seconds), 0)
        FROM transcripts AS t LEFT JOIN attempts AS a USING (video_id, model_version)
        JOIN videos_current AS v USING (video_id)
        WHERE a.seconds IS NOT NULL AND v.video_key IN (SELECT unnest(?))
        GROUP BY ALL ORDER BY ALL
        """,
        [list(references)],
    ).fetchall():
        scores = score_videos(connection, model, references)
        known, opened = (
            sum((scores[key] for key in scores if references[key].vocabulary == vocabulary), Score())
            for vocabulary in ("micro_whisper", "open")
        )
        start = milliseconds((known + opened).median_start_error_s)
        shown.add_row(model, f"{known.wer:.1%}", f"{opened.wer:.1%}", start, f"{rtfx:.1f}")
    return shown
