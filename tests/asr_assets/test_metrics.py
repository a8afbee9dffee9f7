"""Metrics arrive at a real OTLP receiver, from asr run and from the sensor."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import AssetKey, AssetMaterialization, DagsterInstance, build_sensor_context

from resources.store import Store
from resources.telemetry import LOADER_LAG, METRICS, QUEUE_OLDEST
from sensors.following import INGESTED_THROUGH, TAKEN_THROUGH
from sensors.metering import collect, metering_sensor
from tests.conftest import FAST_MODEL, Platform
from tests.listener import Listener, listening
from tests.resources.published import add_videos

pytest.importorskip("opentelemetry.proto")
WORDS, HEARD = AssetKey("word_timings"), AssetKey(["transcripts", "m"])

Values = dict[tuple[str, ...], float]


def received(listener: Listener) -> dict[str, Values]:
    """Of the newest message: each metric's values, by its attributes."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    path, body = listener.taken[-1]
    assert path == "/v1/metrics"
    message = ExportMetricsServiceRequest.FromString(body)
    metrics = message.resource_metrics[0].scope_metrics[0].metrics
    found: dict[str, Values] = {}
    for metric in metrics:
        points = metric.sum.data_points if metric.HasField("sum") else metric.gauge.data_points
        found[metric.name] = {
            tuple(
                attribute.value.string_value for attribute in sorted(point.attributes, key=lambda a: a.key)
            ): (point.as_double or point.as_int)
            for point in points
        }
    return found


def test_asr_run_tells_what_was_heard_how_it_ended_and_that_nothing_waits(tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    models.write_text(FAST_MODEL)
    with listening() as listener:
        platform = Platform(
            tmp_path, {"ASR_MODELS": str(models), "OTEL_EXPORTER_OTLP_ENDPOINT": listener.url}
        )
        platform.add("weather.mp4", "soundless.mp4", "corrupt.mp4")
        platform.must("run")
    told = received(listener)
    model = "pocketsphinx_fast"
    assert told["asr.queue.videos"] == {(): 0}
    assert told["asr.queue.oldest"] == told["asr.loader.lag"] == {(): 0}
    assert told["asr.audio.heard"][model,] == pytest.approx(13.4, abs=0.1)
    assert 0 < told["asr.engine.busy"][model,] < 60
    assert told["asr.videos"] == {
        (model, "ok"): 1,
        (model, "no_audio"): 1,
        (model, "unreadable_media"): 1,
    }
    assert told["asr.retries"] == {(model, "due"): 0, (model, "given_up"): 0}
    assert set(told) == {metric.name for metric in METRICS} - {"asr.source.refusals"}
    assert "weather" not in str(listener.taken)


def test_a_collector_that_is_not_there_costs_no_words(tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    models.write_text(FAST_MODEL)
    nobody = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    platform = Platform(tmp_path, {"ASR_MODELS": str(models), **nobody})
    platform.add("soundless.mp4")
    done = platform.asr("run")
    assert done.returncode == 0
    assert "OTEL_EXPORTER_OTLP_ENDPOINT took no metrics" in done.stderr


def test_the_loader_lags_behind_the_log_and_behind_what_is_published(store: Store) -> None:
    now = datetime.now(UTC) + timedelta(hours=1)
    with DagsterInstance.local_temp() as instance:

        def told() -> list[int]:
            readings = {r.metric: r.value for r in collect(instance, store, WORDS, [HEARD], now)}
            return [round(readings[metric] / 60) for metric in (QUEUE_OLDEST, LOADER_LAG)]

        assert told() == [0, 0]
        add_videos(store, "a.mp4")
        assert told() == [60, 60]  # noticed, and not loaded

        instance.report_runless_asset_event(
            AssetMaterialization(WORDS, metadata={INGESTED_THROUGH: 1, TAKEN_THROUGH: 0})
        )
        assert told() == [0, 0]
        instance.report_runless_asset_event(AssetMaterialization(HEARD))
        assert told() == [0, 60]


def test_the_sensor_sends_and_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from resources.telemetry import _telemetry

    with listening() as listener, DagsterInstance.local_temp() as instance:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", listener.url)
        _telemetry.cache_clear()
        sensor = metering_sensor(WORDS, [HEARD])
        with build_sensor_context(instance, resources={"store": store}) as context:
            assert sensor.evaluate_tick(context).skip_message == "sent 3 values"
        assert set(received(listener)) == {"asr.queue.videos", "asr.queue.oldest", "asr.loader.lag"}
    _telemetry.cache_clear()


def test_without_the_extra_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from resources.telemetry import MetricsRefused, _telemetry, push

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    _telemetry.cache_clear()
    with pytest.raises(MetricsRefused, match="install the extra metrics"):
        push([])
