"""What the commands say: data on stdout, everything else on stderr."""

import csv
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import duckdb
import typer
from rich.console import Console

from asr_assets.drawing import printable, table
from resources import snapshot
from resources.settings import Settings
from resources.store import Store
from speech.errors import AsrError

# Names and words are other people's text: nothing in them is markup.
out = Console(highlight=False, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)
if not out.is_terminal:
    out.width = 10_000  # a pipe has no width: nothing is folded in it

READERS_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asr"


class TableFormat(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


@contextmanager
def saying_when_interrupted() -> Iterator[None]:
    """Ctrl-C is no failure; the exit code is 130, as a shell expects."""
    try:
        yield
    except KeyboardInterrupt:
        complain(AsrError("interrupted; what is done is kept, and the same command goes on from there"))
        raise


@contextmanager
def reading(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """The published copy."""
    with snapshot.read(Store(url=settings.store_url), READERS_CACHE) as connection:
        yield connection


def rows_of(answer: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    """Row by row, so that a large answer does not have to fit in memory."""
    while rows := answer.fetchmany(10_000):
        yield from rows


def write_rows(columns: list[str], rows: Iterator[tuple[Any, ...]], format: TableFormat) -> None:
    """CSV has a header and an empty field for NULL; JSON is one object a line."""
    if format is TableFormat.CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    elif format is TableFormat.JSON:
        for row in rows:
            typer.echo(json.dumps(dict(zip(columns, row, strict=True)), default=str, ensure_ascii=False))
    else:
        shown = table(*columns)
        for row in rows:
            shown.add_row(*("NULL" if value is None else printable(str(value)) for value in row))
        out.print(shown)


def complain(error: AsrError) -> None:
    """One sentence on stderr."""
    err.print(printable(f"asr: {error}"), style="red", soft_wrap=True)
