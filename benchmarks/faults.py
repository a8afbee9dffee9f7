"""Nothing lost, nothing twice, nobody in: every case, a kill at every moment, damaged files, and too many.

``--full`` has videos arrive for twenty minutes instead of two.
"""

import sys
from typing import Annotated

import typer

from benchmarks.cases import cases
from benchmarks.killing import kill_points
from benchmarks.mutants import mutants
from benchmarks.overload import overload
from benchmarks.report import Check, publish

PARTS = ("cases", "kills", "mutants", "overload")


def main(
    seed: Annotated[int, typer.Option(help="Of what is wrong in the damaged files.")] = 1,
    files: Annotated[int, typer.Option(help="How many of them.")] = 2000,
    full: Annotated[bool, typer.Option(help="Twenty minutes of arrivals.")] = False,
    only: Annotated[list[str], typer.Option(help=f"Of {', '.join(PARTS)}; nothing is written then.")] = [],  # noqa: B006
) -> None:
    """All of it; exit code 1 when something does not hold."""
    checks: list[Check] = []
    for name, part in {
        "cases": cases(),
        "kills": kill_points(),
        "mutants": mutants(files, seed),
        "overload": overload(1200 if full else 120),
    }.items():
        if not only or name in only:
            checks += part
    if only:
        for check in checks:
            typer.echo(
                f"{check.check} {check.value:g} {check.bar} {'holds' if check.holds else 'DOES NOT HOLD'}"
            )
        sys.exit(not all(check.holds for check in checks))
    sys.exit(not publish("faults", checks, seed=seed, files=files))


if __name__ == "__main__":
    typer.run(main)
