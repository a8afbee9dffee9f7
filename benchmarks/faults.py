"""Nothing lost, nothing twice, nobody in: every case, each without its protection; a kill at every moment;
damaged files; too many at once.

``--full`` has videos arrive for twenty minutes instead of two; ``--every 4`` tries a quarter of what is tried
one by one, and writes nothing.
"""

import sys
from typing import Annotated

import typer

from benchmarks.cases import CASES, cases
from benchmarks.killing import kill_points
from benchmarks.mutants import mutants
from benchmarks.overload import overload
from benchmarks.protections import protections
from benchmarks.report import Check, described, publish, said
from benchmarks.tree import ROOT

PARTS = ("cases", "protections", "kills", "mutants", "overload")
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- tried: written by benchmarks/faults.py -->\n", "<!-- end -->"


def main(
    seed: Annotated[int, typer.Option(help="Of what is wrong in the damaged files.")] = 1,
    files: Annotated[int, typer.Option(help="How many of them.")] = 2000,
    full: Annotated[bool, typer.Option(help="Twenty minutes of arrivals.")] = False,
    every: Annotated[int, typer.Option(help="Of protections, moments and files, one in so many.")] = 1,
    only: Annotated[list[str], typer.Option(help=f"Of {', '.join(PARTS)}; nothing is written then.")] = [],  # noqa: B006
) -> None:
    """All of it; exit code 1 when something does not hold."""
    checks: list[Check] = []
    for name, part in {
        "cases": cases(),
        "protections": protections(every),
        "kills": kill_points(every),
        "mutants": mutants(files // every, seed),
        "overload": overload(1200 if full else 120),
    }.items():
        if not only or name in only:
            checks += part
    if only or every > 1:
        sys.exit(not said(checks))
    holds = publish("faults", checks, seed=seed, files=files)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{tried(checks)}{END}{rest.partition(END)[2]}")
    sys.exit(not holds)


def tried(checks: list[Check]) -> str:
    """What the page tells: the checks, and the cases with their ends."""
    rows = [
        f"| {c.check} | {c.value:g} {c.unit} | {c.bar} | {'yes' if c.holds else '**no**'} |" for c in checks
    ]
    ends = [f"| {number} | {what} | {end} |" for number, (what, end) in CASES.items()]
    return "\n".join(
        [
            f"\nAt {described()}:\n",
            "| check | value | bar | holds |",
            "| --- | --- | --- | --- |",
            *rows,
            "\nThe cases:\n",
            "| case | what happens | how it has to end |",
            "| --- | --- | --- |",
            *ends,
            "\n",
        ]
    )


if __name__ == "__main__":
    typer.run(main)
