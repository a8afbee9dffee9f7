"""The README tells the truth: its commands run, and what it shows is what they print."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, Platform

pytestmark = pytest.mark.xdist_group("demo")

BLOCKS = re.findall(r"```(sh|text)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
COMMANDS = [
    (line, BLOCKS[n + 1][1] if BLOCKS[n + 1 : n + 2] and BLOCKS[n + 1][0] == "text" else None)
    for n, (kind, block) in enumerate(BLOCKS)
    if kind == "sh"
    for line in block.splitlines()
]


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize(("command", "output"), [c for c in COMMANDS if c[0].startswith(".venv/bin/asr")])
def test_commands_of_the_readme(demo: Platform, command: str, output: str | None) -> None:
    arguments = [
        str(ROOT / word) if word.startswith("samples/") else word for word in shlex.split(command)[1:]
    ]
    printed = demo.must(*arguments)
    assert printed.strip()
    if output is not None:
        assert lines(printed) == lines(output)


@pytest.mark.parametrize("command", [c[0] for c in COMMANDS if c[0].startswith("make ")])
def test_make_targets_of_the_readme(command: str) -> None:
    done = subprocess.run(
        [*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"asr {command.split()[1]}" in done.stdout


def test_every_command_is_one_of_these() -> None:
    assert len(COMMANDS) >= 8
    assert all(line.startswith((".venv/bin/asr ", "make ")) for line, _ in COMMANDS)


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"\]\(((?!http)[^)#]+)\)", text)
    named += re.findall(r"`((?:asr_assets|sensors|resources|speech|tests|samples|deploy)/[\w./]+)`", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    assert missing == []
