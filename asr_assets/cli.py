"""The command line: ``asr``. Data on stdout, everything else on stderr, one sentence for an error."""

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from asr_assets import cli_models
from asr_assets.console import (
    READERS_CACHE,
    TableFormat,
    complain,
    err,
    out,
    reading,
    rows_of,
    saying_when_interrupted,
    write_rows,
)
from asr_assets.drawing import Bars, printable, quiet, table
from asr_assets.processing import process_everything, summarize
from resources import snapshot
from resources.models import SpeechModels
from resources.search import Filters
from resources.search import search as find
from resources.settings import HOME, Settings, local_path
from resources.store import Store
from speech.errors import AsrError
from speech.formats import Format

app = typer.Typer(
    help="Videos in, every spoken word out, with its start, its end and its probability.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_models.app)
Workers = Annotated[
    int, typer.Option(min=0, help="Processes that transcribe; 0: one for each GPU, or for each core")
]


@app.command()
def run(workers: Workers = 0) -> None:
    """Ingest and process everything under the source once, load it, publish it."""
    settings = Settings.from_env()
    process_everything(settings, workers)
    summarize(settings)


@app.command()
def demo(workers: Workers = 0) -> None:
    """Copy the sample videos to the source folder, run everything and show what was found."""
    from asr_assets.demo import copy_samples, show

    settings = Settings.from_env()
    copied = copy_samples(settings)
    err.print(f"{copied} sample videos copied to {settings.source_url}")
    process_everything(settings, workers)
    with reading(settings) as connection:
        show(connection, out)


@app.command()
def transcribe(
    files: Annotated[list[Path], typer.Argument(help="Recordings: video or audio", show_default=False)],
    model: Annotated[str | None, typer.Option(help="A model version; by default the first champion")] = None,
    format: Annotated[Format, typer.Option(help="What to print")] = Format.TEXT,
) -> None:
    """Print the words of local files. Nothing is stored."""
    from speech.pipeline import Transcriber, transcribe_file

    if len(files) > 1 and not format.joins:
        raise AsrError(f"{format} is a document of its own for each file: give one file at a time")
    failed = 0
    with Bars(err) as bars:
        settings = Settings.from_env()
        versions = SpeechModels.of(settings)
        version = versions.get(model or versions.first_champion)
        with bars.busy(f"loading {version.name}"):
            transcriber = Transcriber(version)
        for file in files:
            try:
                with bars.busy(f"transcribing {file.name}"):
                    transcript = transcribe_file(transcriber, file)
                typer.echo(format.write(transcript, str(file)), nl=False)
            except AsrError as error:
                failed += 1
                complain(error)
    raise typer.Exit(1 if failed else 0)


@app.command()
def export(
    out_dir: Annotated[Path, typer.Option("--out", help="The folder to write to")] = Path("exports"),
    format: Annotated[Format, typer.Option(help="What to write")] = Format.SRT,
    model: Annotated[str | None, typer.Option(help="A model version; by default the champion")] = None,
    video: Annotated[str | None, typer.Option(help="Only videos with this in their key")] = None,
) -> None:
    """Write the current words as files, one a video."""
    from asr_assets.exporting import export as write

    shown = table("video", "file", "words")
    with reading(Settings.from_env()) as connection:
        for written in write(connection, out_dir, format, model, video):
            shown.add_row(printable(written.video_key), str(written.path), str(written.words))
    out.print(shown)


@app.command()
def dump(
    out_dir: Annotated[Path, typer.Option("--out", help="A folder that is not there yet")] = Path("dump"),
) -> None:
    """Write words, segments, transcripts and videos, current or not, as Parquet for other engines."""
    from asr_assets.dumping import dump as write

    shown = table("table", "files", "rows")
    store = Store(url=Settings.from_env().store_url)
    with (
        Bars(err) as bars,
        bars.busy("writing Parquet"),
        snapshot.read(store, READERS_CACHE, files=True) as connection,
    ):
        for dumped in write(connection, out_dir):
            shown.add_row(dumped.table, str(dumped.files), str(dumped.rows))
    out.print(shown)


@app.command()
def doctor() -> None:
    """Look at what is installed and what can be reached; say what is wrong, and what to do."""
    from asr_assets.doctor import examine

    quiet()
    shown = table("", "found", "to do")
    problems = 0
    with Bars(err) as bars, bars.busy("looking"):
        for finding in examine(Settings.from_env()):
            problems += bool(finding.remedy)
            shown.add_row(*map(printable, finding))
    out.print(shown)
    raise typer.Exit(1 if problems else 0)


@app.command()
def search(
    phrase: Annotated[str, typer.Argument(help="A word or a phrase, as it is spoken")],
    limit: Annotated[int, typer.Option(min=1, help="How many places at most")] = 20,
    video: Annotated[str | None, typer.Option(help="Only in videos with this in their key")] = None,
    language: Annotated[str | None, typer.Option(help="Only in this language")] = None,
    model: Annotated[str | None, typer.Option(help="In the words of this model version")] = None,
    at_least: Annotated[float | None, typer.Option(help="The least probability", min=0, max=1)] = None,
) -> None:
    """Find a phrase in the current words."""
    with reading(Settings.from_env()) as connection:
        found = find(connection, phrase, limit, Filters(video, language, model, at_least))
    shown = table("video", "from", "to", "probability", "context")
    for hit in found.hits:
        shown.add_row(
            printable(hit.video_key),
            f"{hit.start_s:.2f}",
            f"{hit.end_s:.2f}",
            f"{hit.probability:.2f}",
            hit.context,
        )
    if not found.count:
        where = "what is asked for" if any((video, language, model, at_least)) else "the current words"
        raise AsrError(f"nobody says {phrase!r} in {where}")
    out.print(shown)
    if found.count > len(found.hits):
        err.print(f"these are the first {len(found.hits)} of {found.count} places; --limit shows more")


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT over words_current, videos_current, words, ...")],
    format: Annotated[TableFormat, typer.Option(help="What to print")] = TableFormat.TABLE,
    seconds: Annotated[float, typer.Option(help="How long it may take", min=0.1)] = snapshot.SECONDS,
) -> None:
    """Ask the published copy of the warehouse. It can read no files and write nothing."""
    with reading(Settings.from_env()) as connection, snapshot.query(connection, query, seconds) as answer:
        columns = [column[0] for column in answer.description or ()]
        write_rows(columns, rows_of(answer), format)


@app.command(name="verify")
def verify_() -> None:
    """Compare source, ingest log and transcripts; exit code 1 when anything is missing or doubled."""
    from asr_assets.verifying import WRONG, verify

    with Bars(err) as bars, bars.busy("comparing"):
        counts = verify(Settings.from_env())
    shown = table("", "videos")
    for what, count in counts.items():
        shown.add_row(what.replace("_", " "), str(count))
    out.print(shown)
    raise typer.Exit(1 if any(counts[what] for what in WRONG) else 0)


@app.command()
def failures() -> None:
    """List the current videos that failed, why, and whether they are tried again."""
    from asr_assets.failing import list_failures

    settings = Settings.from_env()
    shown = table("video", "model", "reason", "what happened", "tried again")
    with reading(settings) as connection:
        for failure in list_failures(connection, Store(url=settings.store_url)):
            shown.add_row(*map(printable, failure))
    out.print(shown)


@app.command()
def retry(workers: Workers = 0) -> None:
    """Try all videos again now that failed for a reason that may have passed, given up or not."""
    settings = Settings.from_env()
    process_everything(settings, workers, again=True)
    summarize(settings)


@app.command()
def rebuild() -> None:
    """Make the DuckDB file anew from the store, row for row, and publish it. Until then the former serves."""
    from asr_assets.rebuilding import rebuild as anew

    shown = table("table", "rows before", "rows now", "the same")
    with saying_when_interrupted(), Bars(err) as bars, bars.busy("loading all that was published"):
        for name, before, now in anew(Settings.from_env()):
            was, same = (str(before.rows), "yes" if now == before else "no") if before else ("no file", "-")
            shown.add_row(name, was, str(now.rows), same)
    out.print(shown)


@app.command()
def erase(
    keys: Annotated[list[str], typer.Argument(help="Keys of videos, as videos.video_key has them")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
) -> None:
    """Remove every trace of videos: words, audio, keys, in all versions. The source is left as it is."""
    from asr_assets.degrading import twins_of
    from asr_assets.running import Runner

    quiet()
    settings = Settings.from_env()
    keys = [*keys, *twins_of(settings, keys)]
    if not yes:
        names = ", ".join(map(printable, keys))
        typer.confirm(
            f"Erase every version of {names} in {settings.source_url} for good?", abort=True, err=True
        )
    with saying_when_interrupted(), Bars(err) as bars, bars.busy("erasing"):
        erased = Runner(settings).erase(keys)
    for copy in READERS_CACHE.glob("*.duckdb"):
        copy.unlink()
    versions = "1 version of a video is" if erased == 1 else f"{erased} versions of videos are"
    err.print(f"{versions} erased, and will not be taken in again; a copy under another key would be")


@app.command()
def dev(port: Annotated[int, typer.Option(help="Port of the UI, on this machine only")] = 3000) -> None:
    """Start Dagster's UI and its daemon, with the sensors on."""
    from asr_assets.launchers import Launcher
    from asr_assets.running import start

    settings = Settings.from_env()
    start(Launcher.DAEMON, settings)
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise AsrError(f"port {port} is taken; choose another with asr dev --port") from error
    if folder := local_path(settings.source_url):
        folder.mkdir(parents=True, exist_ok=True)
    err.print(f"watching {settings.source_url}; UI on http://127.0.0.1:{port}")
    _become_dagster("dev", "-w", str(HOME / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port))


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on")] = 4000,
) -> None:
    """Serve sensors and runs to a UI and a daemon that are started elsewhere, as in deploy/compose."""
    from asr_assets.launchers import Launcher
    from asr_assets.running import start

    start(Launcher.DAEMON, Settings.from_env())
    module = ("-m", "asr_assets.definitions", "--location-name", "asr_platform")
    _become_dagster("api", "grpc", "-h", host, "-p", str(port), *module)


@app.command()
def explore(
    host: Annotated[
        str, typer.Option(help="The address to listen on; all but 127.0.0.1 ask for a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on")] = 8765,
) -> None:
    """Serve the search page: find a word, click, hear it; set two model versions side by side."""
    from explorer.app import serve_explorer

    def listening(address: str) -> None:
        err.print(f"the explorer is on {address}")

    serve_explorer(Settings.from_env(), READERS_CACHE, host, port, listening)


def _become_dagster(*arguments: str) -> None:
    # Started in a shell's background it would ignore this, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    dagster = str(Path(sys.executable).with_name("dagster"))
    os.execv(dagster, [dagster, *arguments])


def main() -> None:
    """Entry point: no traceback for what the platform understands."""
    try:
        app()
    except AsrError as error:
        complain(error)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
