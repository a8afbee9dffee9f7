"""The door to a collector of metrics: OTLP over HTTP, set up by OpenTelemetry's own ``OTEL_*`` variables.

What is told are states, as the newest load and the store have them, and sums that only grow: hours of audio
an hour, and RTFx, are rates that whoever reads them takes over as long as they like.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from speech.errors import AsrError

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation


class Metric(NamedTuple):
    """A name, its unit in UCUM, what it is, and whether it is a sum that only grows."""

    name: str
    unit: str
    description: str
    grows: bool = False


QUEUE_VIDEOS = Metric("asr.queue.videos", "{video}", "Current videos without an outcome, at the newest load")
QUEUE_OLDEST = Metric("asr.queue.oldest", "s", "How long the one of them waits that was noticed first")
LOADER_LAG = Metric("asr.loader.lag", "s", "How long the oldest thing waits that is published and not loaded")
AUDIO_HEARD = Metric("asr.audio.heard", "s", "Audio that a model version has heard", grows=True)
ENGINE_BUSY = Metric("asr.engine.busy", "s", "Work of its engine on that", grows=True)
VIDEOS = Metric("asr.videos", "{video}", "Current videos by model version and outcome")
RETRIES = Metric("asr.retries", "{video}", "Videos to be tried again, or given up, by model version")
REFUSALS = Metric("asr.source.refusals", "{answer}", "How often in a row a sensor was not answered")
METRICS = (
    *(QUEUE_VIDEOS, QUEUE_OLDEST, LOADER_LAG, AUDIO_HEARD),
    *(ENGINE_BUSY, VIDEOS, RETRIES, REFUSALS),
)


class Reading(NamedTuple):
    """One value. No attribute holds a video's name, or anything else that has many values."""

    metric: Metric
    value: float
    attributes: Mapping[str, str] = MappingProxyType({})


class MetricsRefused(AsrError):
    """The collector took no metrics, or what sends them is not installed."""


def push(readings: Sequence[Reading]) -> None:
    """Send readings. Raises :class:`MetricsRefused` where that fails, after OTEL_EXPORTER_OTLP_TIMEOUT."""
    try:
        _telemetry().push(readings)
    except ImportError as error:
        raise MetricsRefused(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but what sends metrics is not installed: "
            "install the extra metrics, or unset it"
        ) from error


class _Telemetry:
    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.resources import Resource

        self.readings: Sequence[Reading] = ()
        name = os.environ.get("OTEL_SERVICE_NAME", "asr-platform")
        self._exporter, self._reader = OTLPMetricExporter(), InMemoryMetricReader()
        provider = MeterProvider(
            [self._reader], resource=Resource.create({"service.name": name}), shutdown_on_exit=False
        )
        meter = provider.get_meter("asr_platform")
        for metric in METRICS:
            create = meter.create_observable_counter if metric.grows else meter.create_observable_gauge
            create(metric.name, [self._of(metric)], metric.unit, metric.description)

    def _of(self, metric: Metric) -> "Callable[[CallbackOptions], Iterable[Observation]]":
        def observe(_: "CallbackOptions") -> "Iterable[Observation]":
            from opentelemetry.metrics import Observation

            return [Observation(r.value, r.attributes) for r in self.readings if r.metric == metric]

        return observe

    def push(self, readings: Sequence[Reading]) -> None:
        from opentelemetry.sdk.metrics.export import MetricExportResult

        self.readings = readings
        data = self._reader.get_metrics_data()
        if data and self._exporter.export(data) is not MetricExportResult.SUCCESS:
            raise MetricsRefused(
                "the collector in OTEL_EXPORTER_OTLP_ENDPOINT took no metrics: see whether it listens there"
            )


@lru_cache(maxsize=1)
def _telemetry() -> _Telemetry:
    """One for the process: sums are counted from its start."""
    return _Telemetry()
