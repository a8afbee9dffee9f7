"""What several commands do: process everything, compare what is new, say how it ended."""

from pathlib import Path
from typing import TYPE_CHECKING

from asr_assets.console import complain, err, reading, saying_when_interrupted
from asr_assets.drawing import Bars, quiet, table
from resources import snapshot
from resources.backends import HERE
from resources.comparisons import Pair
from resources.models import SpeechModels
from resources.settings import Settings
from speech.errors import AsrError

if TYPE_CHECKING:
    from asr_assets.running import Runner


def process_everything(settings: Settings, workers: int, again: bool = False) -> None:
    """The work of asr run, or of asr retry. Raises AsrError when all was tried and a batch failed."""
    from asr_assets.running import Runner
    from speech.workers import cores, visible_gpus

    quiet()
    failures: list[AsrError] = []
    with saying_when_interrupted(), Bars(err) as bars:
        with bars.busy("starting Dagster"):
            # Elsewhere, the backend knows how many there is room for.
            all_here = len(visible_gpus()) or cores() if settings.backend == HERE else 0
            runner = Runner(settings, workers or settings.workers or all_here)
        with bars.busy(f"listing {settings.source_url}"):
            known = runner.ingest()
            ask = runner.to_try_again if again else runner.missing
            batches = [batch for batch in (runner.failed() if again else known) if ask(batch)]
        for batch in bars.each(batches, "batches"):
            try:
                # Asked again: a daemon may have done it meanwhile.
                if missing := ask(batch):
                    runner.process(batch, missing)
            except AsrError as error:
                failures.append(error)
        with bars.busy("loading words"):
            runner.load()
        if not failures:
            with bars.busy("comparing model versions"):
                runner.compare()
        try:
            runner.copy()
        except AsrError as error:
            failures.append(error)
        try:
            runner.meter()
        except AsrError as error:
            complain(error)  # the words are there
    for failure in failures[1:]:
        complain(failure)
    if failures:
        raise failures[0]


def summarize(settings: Settings) -> None:
    """How the current videos ended under the model versions whose words are current."""
    with reading(settings) as connection:
        rows = connection.execute(
            """
            SELECT coalesce(reason, status), count(*), sum(words)::BIGINT, bool_or(status = 'failed')
            FROM transcripts_current GROUP BY ALL ORDER BY ALL
            """
        ).fetchall()
        champion = snapshot.champion(connection)
        changed = connection.execute("FROM champion_changed LIMIT 1").fetchone()
        unread, damaged = connection.execute(
            "SELECT count(sidecar_problem), "
            "count(*) FILTER (cut_short OR decode_errors > 0 OR lost_share > 0.01) FROM videos_current"
        ).fetchone() or (0, 0)
        known = connection.execute("FROM videos LIMIT 1").fetchone()
    shown = table("outcome", "videos", "words")
    for outcome, videos, words, _ in rows:
        shown.add_row(outcome, str(videos), str(words))
    if rows:
        err.print(shown)
    if unread:
        err.print(
            f"{unread} videos have a sidecar that could not be read; why stands in videos_current, "
            "column sidecar_problem"
        )
    if damaged:
        err.print(
            f"{damaged} videos end early or have lost sound, and their words are those of the rest: "
            "columns cut_short, decode_errors and lost_share of videos_current"
        )
    if not known:
        err.print(f"No video was ever found in {settings.source_url}.")
    if any(failed for *_, failed in rows):
        err.print("Why they failed: asr failures")
    if changed:
        err.print(
            f"{champion} was changed under its name since it became champion: set its entry in models.toml "
            "back, or give what is new a name of its own and promote that."
        )
    first = SpeechModels.of(settings).first_champion
    if not champion:
        err.print(f"There are no current words: {first} is champion once it has published some.")
    elif champion != first:
        err.print(
            f"These are {champion}'s words: naming {first} champion counts for an empty store only, "
            f"asr promote {first} at any time."
        )


def bring_up_to_date(settings: Settings, pairs: list[Pair]) -> "Runner":
    """Compare what has come since; whoever does it."""
    from asr_assets.running import Runner

    quiet()
    with saying_when_interrupted(), Bars(err) as bars:
        with bars.busy("starting Dagster"):
            runner = Runner(settings)
        with bars.busy("comparing"):
            runner.compare(*pairs)
    return runner


def make_known(settings: Settings) -> None:
    """Load who is champion, if a promotion was cut off before it was."""
    from asr_assets.running import Runner

    runner = Runner(settings)
    if runner.crowned_and_not_loaded():
        runner.load()


def write_file(path: Path, text: str) -> None:
    """Raises AsrError where it cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AsrError(f"{path}: cannot be written: {error.strerror}") from error
    err.print(f"written: {path}")
