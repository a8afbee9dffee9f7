"""When a load, or a comparison, is due."""

import pytest

from sensors.following import TRIES, State, why_wait

DUE = State(published_through=9, taken_through=4, logged=False, last_at=0.0, in_flight=False, failures=0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"taken_through": 9}, "all that is published is taken in"),
        ({"published_through": 0, "taken_through": 0}, "all that is published"),
        ({"taken_through": 9, "logged": True}, None),
        ({"in_flight": True}, "under way"),
        ({"failures": TRIES}, "by hand"),
        ({"failures": TRIES - 1}, None),
        ({"last_at": 950.0}, "less than 60 s ago"),
        ({"last_at": 940.0}, None),
    ],
)
def test_why_wait(change: dict[str, float], reason: str | None) -> None:
    from dataclasses import replace

    answer = why_wait(replace(DUE, **change), now=1000.0, interval_s=60)  # type: ignore[arg-type]
    assert answer is None if reason is None else answer and reason in answer
