"""Old, settled batches leave the list of partitions; nothing else does."""

import pytest
from dagster import AssetKey, AssetMaterialization, DagsterInstance

from resources.policy import Policy
from resources.routing import Routing
from sensors.batches import BATCHES, Steps
from sensors.retiring import retire, sum_up
from speech.models import ModelVersion

ARMS = [AssetKey(["transcripts", name]) for name in ("a", "b", "c")]
STEPS = Steps([], dict(zip("abc", ARMS, strict=True)))
MODELS = [ModelVersion(name, "pocketsphinx", share=0.0 if name == "c" else 1.0) for name in "abc"]
ROUTING = Routing("a", MODELS, Policy())


def test_the_ui_need_not_count_what_was_there_an_hour_ago() -> None:
    with DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(BATCHES.name), ["00000001"])
        instance.report_runless_asset_event(AssetMaterialization(ARMS[0], partition="00000001"))
        sum_up(instance, STEPS)
        (record,) = instance.get_asset_records(ARMS[:1])
        summary = record.asset_entry.cached_status
        assert summary
        counted = summary.deserialize_materialized_partition_subsets(BATCHES)
        assert list(counted.get_partition_keys()) == ["00000001"]


def test_only_what_is_old_and_settled_is_retired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensors.retiring.KEPT", 2)
    batches = [f"{number:08d}" for number in range(1, 7)]
    half_done, to_retry, *newest = batches[1], batches[2], *batches[4:]
    with DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(BATCHES.name), batches)
        for arm in ARMS[:2]:  # the third hears none
            for batch in batches:
                if (arm, batch) != (ARMS[1], half_done):
                    instance.report_runless_asset_event(AssetMaterialization(arm, partition=batch))
        assert retire(instance, STEPS, ROUTING, [to_retry]) == 2
        assert sorted(instance.get_dynamic_partitions(str(BATCHES.name))) == [half_done, to_retry, *newest]
        assert retire(instance, STEPS, ROUTING, [to_retry]) == 0
