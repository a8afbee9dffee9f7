"""Take the screenshots of README and docs: Dagster's UI and the explorer after the demo, light and dark.

Usage (``make screenshots`` installs what it needs: playwright, and Debian's chromium)::

    python -m docs.screenshots
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PICTURES = Path(__file__).with_name("pictures")
SIZE = {"width": 1280, "height": 800}
REPORT = {"x": 0, "y": 0, "width": 1280, "height": 2000}
EXPLORED = {"x": 0, "y": 0, "width": 1280, "height": 560}
JUDGED = {"x": 0, "y": 0, "width": 1280, "height": 760}
TWINS = ("noise_20db", "noise_10db", "noise_5db", "noise_0db", "opus_12k", "opus_6k", "telephone")
PATIENCE_S = 120.0


def main() -> None:
    """Run the demo in an empty folder, open its UI, and write the pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as root, demo(Path(root)) as url, browser() as chromium:
        for theme in ("light", "dark"):
            page = chromium.new_context(viewport=SIZE, color_scheme=theme).new_page()
            page.set_default_timeout(PATIENCE_S * 1000)
            graph(page, url)
            page.screenshot(path=PICTURES / f"graph-{theme}.png")
            transcript(page, url)
            page.screenshot(path=PICTURES / f"transcript-{theme}.png")
            page.goto((Path(root) / "report.html").as_uri())
            page.screenshot(path=PICTURES / f"comparison-{theme}.png", full_page=True, clip=REPORT)
            with explorer(Path(root)) as looked_at:
                playing(page, looked_at)
                page.screenshot(path=PICTURES / f"video-{theme}.png", clip=EXPLORED)
                judging(page, looked_at)
                page.screenshot(path=PICTURES / f"judging-{theme}.png", clip=JUDGED)


def graph(page: Any, url: str) -> None:
    """The lineage of all assets."""
    page.goto(f"{url}/asset-groups")
    page.get_by_text("transcripts").last.wait_for()
    page.mouse.click(SIZE["width"] * 0.6, SIZE["height"] * 0.85, button="right")
    # The menu's items lie under an animation that never lets go of them.
    page.locator("[role=menuitem]", has_text="Expand all groups").last.evaluate("item => item.click()")
    page.get_by_text("word_timings").last.wait_for()
    page.wait_for_timeout(3000)


def transcript(page: Any, url: str) -> None:
    """A batch of transcripts, with its plot."""
    page.goto(f"{url}/assets/transcripts/pocketsphinx?view=partitions&partition=00000001")
    page.locator("tr", has_text="words_over_sound").get_by_text("Show Markdown").first.click()
    plot = page.locator("img[src^='data:image/png']").first
    plot.wait_for()
    if not plot.evaluate("picture => picture.naturalWidth"):
        raise RuntimeError("the plot is there, but the browser cannot show it")
    page.wait_for_timeout(1000)


def playing(page: Any, url: str) -> None:
    """A video that was found by a phrase."""
    page.goto(f"{url}/?q=borrow")
    page.locator(".hits a").first.click()
    page.locator(".w.now").wait_for()
    page.wait_for_timeout(1500)
    page.evaluate("player.pause()")
    page.mouse.move(1000, 700)
    page.wait_for_timeout(3500)  # until the player's buttons are gone


def judging(page: Any, url: str) -> None:
    """Two model versions, and a place that is judged."""
    page.goto(f"{url}/?video=library")
    page.locator(".videos a").first.click()
    page.get_by_text("Compare with").click()
    page.locator(".differ").first.get_by_text("A is right").click()
    page.locator(".judged").first.wait_for()
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1500)


@contextmanager
def explorer(root: Path) -> Iterator[str]:
    """The explorer over what the demo has found; its address."""
    env = os.environ | {"ASR_SOURCE_URL": str(root / "videos"), "ASR_STORE_URL": str(root / "data")}
    command = [str(Path(sys.executable).with_name("asr")), "explore", "--port", "0"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        yield server.stderr.readline().split()[-1].rstrip("/")
        server.terminate()


@contextmanager
def demo(root: Path) -> Iterator[str]:
    """A platform that has run the demo; the address of its UI."""
    asr = str(Path(sys.executable).with_name("asr"))
    env = os.environ | {"ASR_SOURCE_URL": str(root / "videos"), "ASR_STORE_URL": str(root / "data")}
    twins = [f"--condition={name}" for name in TWINS]
    report = ["compare", "pocketsphinx", "micro_whisper", "--html", str(root / "report.html")]
    for command in (["demo"], ["degrade", *twins], ["run"], report):
        subprocess.run([asr, *command], env=env, check=True, timeout=1200)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([asr, "dev", "--port", str(port)], env=env, start_new_session=True) as ui:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not listened_to(port):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{url} does not answer")
                time.sleep(1)
            yield url
        finally:
            os.killpg(ui.pid, signal.SIGTERM)


def listened_to(port: int) -> bool:
    """Whether somebody answers there already."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium, as Debian packages it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        yield chromium
        chromium.close()


if __name__ == "__main__":
    main()
