"""``make bench-orchestration``: what a run adds to the work, what the platform saves, and how far it goes."""

import sys
from typing import Annotated

import typer

from benchmarks.crontab import crontab
from benchmarks.many_batches import many_batches
from benchmarks.overhead import overhead
from benchmarks.ray_scaling import ray_scaling
from benchmarks.report import Check, publish

PARTS = {"overhead": overhead, "crontab": crontab, "ray": ray_scaling, "batches": many_batches}


def main(
    only: Annotated[list[str], typer.Option(help=f"Of {', '.join(PARTS)}: the others' figures stay.")] = [],  # noqa: B006
) -> None:
    """Measure, print, write ``results/orchestration.json``; exit code 1 when something does not hold."""
    checks: list[Check] = []
    for name, part in PARTS.items():
        if not only or name in only:
            checks += part()
    sys.exit(not publish("orchestration", checks, bool(only)))


if __name__ == "__main__":
    typer.run(main)
