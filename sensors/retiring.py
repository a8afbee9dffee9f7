"""Batches long settled leave Dagster's list of partitions; what was made of them stays.

Dagster is at ease with a hundred thousand partitions of an asset. A retired one comes back when its batch
is processed again.
"""

from collections.abc import Iterable

from dagster import DagsterInstance

from resources.routing import Routing
from sensors.batches import BATCHES, Steps

KEPT = 50_000
"""The newest partitions, settled or not, are left alone."""

AT_ONCE = 10_000
"""Each is a transaction of its own; a backlog is retired in several goes."""


def sum_up(instance: DagsterInstance, steps: Steps) -> None:
    """Have Dagster keep a summary of each asset's partitions, from which the UI's next answer goes on.

    Without one, the first look at a hundred thousand batches takes half a minute.
    """
    for asset in steps.all:
        instance.get_status_by_partition(asset, [], BATCHES)


def retire(instance: DagsterInstance, steps: Steps, routing: Routing, unsettled: Iterable[str]) -> int:
    """Retire old batches that every model version that is to hear them has published; how many were.

    ``unsettled`` are batches with videos that are to be tried again.
    """
    assert BATCHES.name is not None
    old = sorted(instance.get_dynamic_partitions(BATCHES.name))[:-KEPT]
    if not old:
        return 0
    settled = set(old).difference(unsettled)
    for model, key in steps.transcripts.items():
        published = instance.get_materialized_partitions(key)
        settled = {batch for batch in settled if batch in published or not routing.takes(model, batch)}
    retired = sorted(settled)[:AT_ONCE]
    for batch in retired:
        instance.delete_dynamic_partition(BATCHES.name, batch)
    return len(retired)
