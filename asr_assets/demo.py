"""The demo: sample videos whose words are known, so that it can say how right it was."""

import shutil

import duckdb
from rich.console import Console

from asr_assets import comparison
from asr_assets.drawing import printable, table
from asr_assets.report import verdict
from resources import snapshot
from resources.comparisons import Pair
from resources.settings import HOME, Settings, local_path
from speech.errors import AsrError

SAMPLES = HOME / "samples" / "videos"


def copy_samples(settings: Settings) -> int:
    """Copy samples that are not there yet, and what stands beside them; how many of them are new videos.

    A copy keeps its time, so it stays the same video.
    """
    folder = local_path(settings.source_url)
    if folder is None:
        raise AsrError(
            f"the demo copies its samples to a folder, and ASR_SOURCE_URL is {settings.source_url}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    copied = 0
    for sample in sorted(SAMPLES.iterdir()):
        if not (folder / sample.name).exists():
            shutil.copy2(sample, folder / sample.name)
            copied += sample.suffix in settings.suffixes.split()
    return copied


def show(connection: duckdb.DuckDBPyConnection, console: Console) -> None:
    """What was found: every video's end, the two models side by side, and what to type next."""
    champion = snapshot.champion(connection) or "nobody"
    shown = table(
        "video", "outcome", "words", "first words", title=f"Every video ended as a row; what {champion} heard"
    )
    rows = connection.execute(
        """
        SELECT video_key, coalesce(reason, status), words,
               (SELECT string_agg(word, ' ' ORDER BY word_index) FROM words_current AS w
                WHERE w.video_id = t.video_id AND word_index < 8)
        FROM transcripts_current AS t ORDER BY video_key
        """
    ).fetchall()
    for key, outcome, words, text in rows:
        shown.add_row(printable(key), outcome, str(words), text or "")
    console.print(shown)

    compared = connection.execute("SELECT DISTINCT model_a, model_b FROM comparison ORDER BY ALL").fetchall()
    for pair in (Pair(*row) for row in compared):
        found = comparison.rows_of(connection, pair)
        console.print(verdict(found[0]))
        console.print(comparison.totals(found[0], pair))
        console.print(comparison.by_condition(found, pair))
    console.print(
        "WER: words wrong, of those said. pocketsphinx knows many words and hears them badly; micro_whisper "
        "knows 83 words and writes them whatever it hears: on the open samples it is lost."
    )
    (total,) = connection.execute("SELECT count(*) FROM words_current").fetchone() or (0,)
    console.print(f"{total} words, those of {champion}, stand in words_current. Next:")
    console.print('  .venv/bin/asr search "the right time"')
    console.print(
        '  .venv/bin/asr sql "select word, start_s, end_s, probability from words_current limit 10"'
    )
