"""Nothing lost, nothing twice, nobody in: every case, each without its protection; a kill at every moment;
damaged files; too many at once.

``--full`` has videos arrive for twenty minutes instead of two; ``--only`` renews a part of the results;
``--every 4`` tries a quarter of what is tried one by one, and writes nothing.
"""

import sys
from typing import Annotated, Any

import typer

from benchmarks.cases import CASES, cases
from benchmarks.killing import kill_points
from benchmarks.mutants import mutants
from benchmarks.overload import overload
from benchmarks.protections import protections
from benchmarks.report import Check, publish, published, said
from benchmarks.tree import ROOT

PARTS = ("cases", "protections", "kills", "mutants", "overload")
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- tried: written by benchmarks/faults.py -->\n", "<!-- end -->"


def main(
    seed: Annotated[int, typer.Option(help="Of what is wrong in the damaged files.")] = 1,
    files: Annotated[int, typer.Option(help="How many of them.")] = 2000,
    full: Annotated[bool, typer.Option(help="Twenty minutes of arrivals.")] = False,
    every: Annotated[int, typer.Option(help="Of protections, moments and files, one in so many.")] = 1,
    only: Annotated[list[str], typer.Option(help=f"Of {', '.join(PARTS)}.")] = [],  # noqa: B006
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
    if every > 1:
        sys.exit(not said(checks))
    taken = {"seed": seed, "files": files} if not only or "mutants" in only else {}
    holds = publish("faults", checks, bool(only), **taken)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{tried(published('faults') or {})}{END}{rest.partition(END)[2]}")
    sys.exit(not holds)


def tried(results: dict[str, Any]) -> str:
    """What the page tells: the checks, and the cases with their ends."""
    commit = results["commit"]
    rows = [
        f"| {c['check']} | {c['value']:g} {c['unit']} | {c['bar']} | {'yes' if c['holds'] else '**no**'} "
        f"| {c.get('commit', commit)} |"
        for c in results["checks"]
    ]
    ends = [f"| {number} | {what} | {end} |" for number, (what, end) in CASES.items()]
    return "\n".join(
        [
            f"\nOn {results['machine']}:\n",
            "| check | value | bar | holds | commit |",
            "| --- | --- | --- | --- | --- |",
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
