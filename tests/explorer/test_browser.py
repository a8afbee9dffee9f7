"""In a real browser: what people do, by mouse and by keyboard, and what hostile text does not."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from resources.comparisons import Pair
from resources.verdicts import verdicts_of
from tests.explorer.conftest import HARM, HOSTILE, Explored, exploring

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.long
PATIENCE_MS = 60_000
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--mute-audio"]


@pytest.fixture
def page(chromium: str) -> Iterator["Page"]:
    """A page that fails its test when a script of ours does, or the policy refuses something."""
    from playwright.sync_api import sync_playwright

    problems = list[str]()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        yield page
        browser.close()
    # A source that is not there any more is a problem of a video, and shown as such.
    assert [problem for problem in problems if "Failed to load resource" not in problem] == []


def wait_for(page: "Page", holds: str) -> None:
    """Asked from here: the page's own policy lets nobody evaluate text in it."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(holds):
        assert time.monotonic() < deadline, f"never: {holds}"
        page.wait_for_timeout(30)


def player(page: "Page", what: str) -> Any:
    return page.evaluate(f"player.{what}")


def plays_from(page: "Page", low: float, high: float) -> None:
    wait_for(page, f"player.currentTime >= {low} && player.currentTime <= {high} && player.readyState > 1")
    assert player(page, "videoWidth") > 0


def test_search_click_hear(read: Explored, page: "Page") -> None:
    page.goto(read.url)
    page.get_by_label("A word or a phrase").fill("every day")
    page.keyboard.press("Enter")
    page.locator(".hits a").click()
    assert "t=4.00" in page.url
    plays_from(page, 4.0, 6.0)
    # The transcript follows, and the captions are there.
    wait_for(page, "document.querySelector('.w.now')?.textContent === 'day'")
    assert page.evaluate("player.textTracks[0].cues.length") > 0
    page.locator(".w", has_text="nine").click()
    plays_from(page, 7.0, 8.5)


def test_as_one_types(read: Explored, page: "Page") -> None:
    page.goto(read.url)
    page.get_by_label("A word or a phrase").press_sequentially("libr")
    page.get_by_text("Nobody says that").wait_for()
    page.get_by_label("A word or a phrase").press_sequentially("ary", delay=20)
    page.locator(".hits a").wait_for()
    assert page.url == f"{read.url}/?q=library"
    page.get_by_label("Words of").select_option("n")
    wait_for(page, "location.search === '?q=library&model=n'")
    assert "model=n" in str(page.locator(".hits a").get_attribute("href"))


def test_keys_alone(read: Explored, page: "Page") -> None:
    page.goto(f"{read.url}/status")
    page.keyboard.press("/")
    page.wait_for_url(f"{read.url}/")
    page.keyboard.type("library")
    page.keyboard.press("Enter")
    page.wait_for_selector(".hits a")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('.hits') !== null"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("#player")
    plays_from(page, 1.0, 3.0)
    page.keyboard.press(" ")
    wait_for(page, "player.paused")
    at = player(page, "currentTime")
    page.keyboard.press("l")
    wait_for(page, f"player.currentTime > {at} + 4.5")
    page.keyboard.press("ArrowRight")
    wait_for(page, "Number.isInteger(player.currentTime)")
    word = page.evaluate("document.querySelector('.w.now').textContent")
    page.keyboard.press("ArrowLeft")
    wait_for(page, f"document.querySelector('.w.now').textContent !== '{word}'")


def test_compare_and_judge(published: Explored, page: "Page") -> None:
    with exploring(published.platform) as url:
        explored = replace(published, url=url)
        page.goto(f"{url}/video/{explored.id('talk.mp4')}")
        page.get_by_text("Compare with n").click()
        place = page.locator(".differ").first
        assert place.locator(".a").inner_text() == "is"
        assert place.locator(".b").inner_text() == "was"
        place.locator(".hear").click()
        wait_for(page, "player.currentTime > 1.3")
        wait_for(page, "player.paused && player.currentTime < 4.5")  # what was to be heard is over
        place.get_by_text("A is right").click()
        page.wait_for_selector(".differ .judged")
        page.keyboard.press("]")
        page.keyboard.press("]")
        field = page.locator(".differ input[name=said]").nth(1)
        field.fill(HARM)
        field.press("Enter")  # says neither, as the button beside it
        wait_for(page, "document.querySelectorAll('.judged').length === 2")
        assert page.title() == "m and n: talk.mp4"
        kept = verdicts_of(explored.store, Pair("m", "n"), explored.batch, explored.id("talk.mp4"))
        assert {verdict.said for verdict in kept} == {"is", HARM}


@pytest.mark.parametrize("path", ["/", "/?q=word&model=m", "/video/{id}", "/compare/{id}?a=m&b=n", "/status"])
def test_hostile_text_does_nothing(read: Explored, page: "Page", path: str) -> None:
    page.goto(read.url + path.format(id=read.id(HOSTILE)))
    page.wait_for_timeout(300)
    assert page.title() != "harm"
    assert page.locator("main img").count() == 0
    if path != "/status":
        assert HOSTILE in page.inner_text("main")


def test_bad_questions_are_told_in_the_page(read: Explored, page: "Page") -> None:
    page.goto(f"{read.url}/?q=%3F%3F")
    assert "no word" in page.get_by_role("alert").inner_text()
    page.goto(f"{read.url}/video/nothing")
    assert "no such video" in page.get_by_role("alert").inner_text()


def test_only_the_sound_is_left(published: Explored, page: "Page") -> None:
    """A video that is gone, or that the browser does not play, is heard all the same."""
    (published.platform.videos / "talk.mp4").unlink()
    with exploring(published.platform) as url:
        page.goto(f"{url}/video/{published.id('talk.mp4')}?t=7")
        wait_for(page, "player.currentSrc.includes('/audio/') && player.currentTime >= 7")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/?q=the", "/video/{id}", "/compare/{id}?a=m&b=n", "/status"])
def test_readable_on_a_phone(read: Explored, page: "Page", theme: str, path: str) -> None:
    """Nothing sticks out, everything has a name, and text stands out from its ground: WCAG 2.2, 1.4.3 AA."""
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(read.url + path.format(id=read.id("talk.mp4")))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    nameless = page.evaluate(
        """[...document.querySelectorAll('input:not([type=hidden]), select, button, a')].filter(
            (e) => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim()))
            .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    assert page.evaluate(CONTRASTS) == []


CONTRASTS = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = (color) => [0, 1, 2].map((n) => color[n] / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const color = rgb(getComputedStyle(e).backgroundColor);
      if (color[3] > 0) return color;
    }
  };
  const texts = [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() &&
    [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
  return texts.map((e) => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.outerHTML.slice(0, 100)];
  }).filter(([contrast]) => contrast < 4.5);
})()
"""
