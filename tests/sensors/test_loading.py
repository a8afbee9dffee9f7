"""When a load is due."""

import pytest

from sensors.loading import TRIES, LoadState, why_not_load

DUE = LoadState(
    published_through=9, loaded_through=4, ingested=False, last_load_at=0.0, in_flight=False, failures=0
)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"loaded_through": 9}, "all that is published is loaded"),
        ({"published_through": 0, "loaded_through": 0}, "all that is published"),
        ({"loaded_through": 9, "ingested": True}, None),
        ({"in_flight": True}, "under way"),
        ({"failures": TRIES}, "by hand"),
        ({"failures": TRIES - 1}, None),
        ({"last_load_at": 950.0}, "less than 60 s ago"),
        ({"last_load_at": 940.0}, None),
    ],
)
def test_why_not_load(change: dict[str, float], reason: str | None) -> None:
    from dataclasses import replace

    answer = why_not_load(replace(DUE, **change), now=1000.0, interval_s=60)  # type: ignore[arg-type]
    assert answer is None if reason is None else answer and reason in answer
