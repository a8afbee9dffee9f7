"""The end of every benchmark: a table, a file of results, and an exit code."""

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).with_name("results")


class Check(NamedTuple):
    """One figure and the bar it has to hold: at most ``limit``, less than it where ``below``, or at least."""

    check: str
    value: float
    unit: str
    limit: float
    below: bool = False
    least: bool = False

    @classmethod
    def at_least(cls, check: str, value: float, unit: str, limit: float) -> "Check":
        """A figure that must not be smaller than its bar."""
        return cls(check, value, unit, limit, least=True)

    @property
    def bar(self) -> str:
        """The bar as it is written."""
        return f"{'>=' if self.least else '<' if self.below else '<='} {self.limit:g}"

    @property
    def holds(self) -> bool:
        """Whether it does."""
        if self.value == self.limit:
            return not self.below
        return self.value > self.limit if self.least else self.value < self.limit


def publish(name: str, checks: list[Check], is_part: bool = False, **parameters: float) -> bool:
    """Print the checks and write them, and what they were taken with, to ``results/<name>.json``.

    Of a part, the others' checks stay, each with the commit that it was taken at. True when all hold.
    """
    commit, machine = _commit(), _machine()
    shown = Table("check", "value", "unit", "bar", "holds", title=f"{name}: {machine}, {commit}")
    rows = []
    for check in checks:
        value = round(check.value, 3)
        rows.append(
            {"check": check.check, "value": value, "unit": check.unit, "bar": check.bar, "holds": check.holds}
        )
        shown.add_row(check.check, f"{value:g}", check.unit, check.bar, "yes" if check.holds else "NO")
    Console().print(shown)
    RESULTS.mkdir(exist_ok=True)
    if is_part and (former := published(name)):
        ours = {row["check"] for row in rows}
        kept = [{"commit": former["commit"], **row} for row in former["checks"] if row["check"] not in ours]
        rows, parameters = kept + rows, former["parameters"] | parameters
    document = {"machine": machine, "commit": commit, "parameters": parameters, "checks": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    return all(check.holds for check in checks)


def published(name: str) -> dict[str, Any] | None:
    """What was written last; None when nothing was."""
    file = RESULTS / f"{name}.json"
    return dict(json.loads(file.read_text())) if file.exists() else None


def said(checks: list[Check]) -> bool:
    """Print the checks of a part of a benchmark, and write nothing. True when all hold."""
    for check in checks:
        holds = "holds" if check.holds else "DOES NOT HOLD"
        Console().print(f"{check.check} {check.value:g} {check.unit} {check.bar} {holds}")
    return all(check.holds for check in checks)


def _commit() -> str:
    git = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
