"""``make bench-explorer``: how long a browser waits for the first places, of ten million words.

From Enter to the first place that is to be seen, in Chromium; beside it what the server takes for the page.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import requests
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import spoken
from benchmarks.processes import free_port, settings_below, started
from benchmarks.report import Check, publish
from benchmarks.warehouse import Asked, asked, make, note
from resources import snapshot
from resources.warehouse import Warehouse

STARTING_S, TIMES = 60, 15
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
QUESTIONS = {
    "word of rank 10": {"q": spoken.word(10)},
    "word of rank 1,000": {"q": spoken.word(1_000)},
    "word of rank 100,000": {"q": spoken.word(100_000)},
    "phrase of ranks 10 and 11": {"q": f"{spoken.word(10)} {spoken.word(11)}"},
    "rank 1,000, of a model version": {"q": spoken.word(1_000), "model": spoken.MODELS[1]},
    "rank 1,000, at least 0.5 sure": {"q": spoken.word(1_000), "at_least": "0.5"},
}


@contextmanager
def explorer(root: Path) -> Iterator[str]:
    """The command over the store in a folder; its address."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    env = settings_below(root) | {"ASR_STORE_URL": str(root / "store")}
    with started(root, "asr", "explore", "--port", str(port), env=env):
        deadline = time.monotonic() + STARTING_S
        while True:
            try:
                requests.get(url, timeout=STARTING_S).raise_for_status()
                break
            except requests.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield url


@contextmanager
def browser() -> Iterator[Any]:
    """A page of Debian's Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield chromium.new_page()
        chromium.close()


def seen(page: Any, url: str, question: dict[str, str]) -> Asked:
    """Milliseconds from Enter to the first place."""
    filters = urlencode({name: value for name, value in question.items() if name != "q"})
    took = []
    for _ in range(1 + TIMES):
        page.goto(f"{url}/?{filters}")
        page.locator("#q").fill(question["q"])
        began = time.perf_counter()
        page.locator("#q").press("Enter", no_wait_after=True)
        page.locator(".hits a").first.wait_for()
        took.append(1000 * (time.perf_counter() - began))
    return Asked(statistics.median(took[1:]), min(took[1:]), max(took[1:]))


def main(rows: int = 10_000_000, seed: int = 1) -> None:
    """Make the words, serve them, search."""
    shown = Table("median ms (least to most)", "until the first place is seen", "the page alone")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        store, warehouse = make(root, seed, rows), Warehouse(path=str(root / "warehouse.duckdb"))
        with warehouse.exclusive() as path:
            report = warehouse.load(store, lambda *_: None)
            snapshot.publish(store, path, report)
        note(f"{report.words:,} words")
        first: dict[str, Asked] = {}
        with explorer(root) as url, browser() as page:
            for name, question in QUESTIONS.items():
                first[name] = seen(page, url, question)
                alone = asked(lambda question=question: requests.get(url, question, timeout=60))  # type: ignore[misc]
                shown.add_row(name, str(first[name]), str(alone))
    Console().print(shown)
    slowest = max(times.median for times in first.values())
    checks = [
        Check("first_results_ms", first["word of rank 1,000"].median, "ms", 300, below=True),
        Check("first_results_slowest_ms", slowest, "ms", 300, below=True),
    ]
    raise typer.Exit(not publish("explorer", checks, rows=rows, seed=seed))


if __name__ == "__main__":
    typer.run(main)
