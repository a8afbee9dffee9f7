"""README and docs tell the truth: their commands run, and what they show is what those print."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import ROOT, Platform

pytestmark = pytest.mark.xdist_group("demo")

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> Iterator[tuple[str, str | None]]:
    """Each line of a page's sh blocks, and the text block behind it if there is one."""
    blocks = [*re.findall(r"```(sh|text)\n(.*?)```", page.read_text(), re.DOTALL), ("", "")]
    for (kind, block), (next_kind, shown) in pairwise(blocks):
        if kind == "sh":
            yield from ((line, shown if next_kind == "text" else None) for line in block.splitlines())


COMMANDS = [command for page in PAGES for command in commands(page)]


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize(("command", "output"), [c for c in COMMANDS if c[0].startswith(".venv/bin/asr")])
def test_commands_of_the_pages(demo: Platform, command: str, output: str | None) -> None:
    arguments = [
        str(ROOT / word) if word.startswith("samples/") else word for word in shlex.split(command)[1:]
    ]
    printed = demo.must(*arguments)
    assert printed.strip()
    if output is not None:
        assert lines(printed) == lines(output)


@pytest.mark.parametrize("command", [c[0] for c in COMMANDS if c[0].startswith("make ")])
def test_make_targets_of_the_pages(command: str) -> None:
    done = subprocess.run(
        [*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"asr {command.split()[1]}" in done.stdout


def test_every_command_is_one_of_these() -> None:
    assert len(PAGES) == 9
    assert len(COMMANDS) >= 25
    assert all(line.startswith((".venv/bin/asr ", "make ")) for line, _ in COMMANDS)


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *PAGES[1:]], ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"\]\(((?!http)[^)#]+)\)", text)
    named += re.findall(r'(?:src|srcset)="([^"]+)"', text)
    named += re.findall(r"`((?:asr_assets|sensors|resources|speech|tests|samples|deploy)/[\w./]+)`", text)
    missing = [name for name in named if not ((ROOT / name).exists() or (page.parent / name).exists())]
    assert missing == []
