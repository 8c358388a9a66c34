"""What /metrics shows, in Prometheus's format. Each application has a registry of its own.

Counts that the batcher and the decode pool keep anyway are read from them when metrics are collected.
"""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from .inference import InferenceEngine
    from .model_repository import ModelRepository

STAGE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Upper bounds in seconds."""


class Metrics:
    """Counters of requests, and a registry that also has the engine's counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "zorro_requests", "Requests that were answered", ("route", "status"), registry=self.registry
        )
        self.rejected = Counter(
            "zorro_rejected",
            "Requests that were refused or failed, by code",
            ("code",),
            registry=self.registry,
        )
        self.stages = Histogram(
            "zorro_stage_seconds",
            "Time of a request in each stage",
            ("stage",),
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge("zorro_in_flight", "Requests at work or waiting", registry=self.registry)
        self.abandoned = Counter("zorro_abandoned", "Requests whose client left", registry=self.registry)

    def watch(self, engine: "InferenceEngine", loading: "asyncio.Future[ModelRepository]") -> None:
        """Show the counts of `engine` too, and the models once they are loaded."""
        self.registry.register(EngineCollector(engine, loading))

    def text(self) -> bytes:
        """All metrics in the text format."""
        return generate_latest(self.registry)


class EngineCollector(Collector):
    """Counts of the batcher and the decode pool, and the models, read at each collection."""

    def __init__(self, engine: "InferenceEngine", loading: "asyncio.Future[ModelRepository]") -> None:
        self._engine, self._loading = engine, loading

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        yield self._queues()
        yield from self._batches()
        yield from self._decode_pool()
        yield self._models()

    def _queues(self) -> Metric:
        # The label is called lane because dashboards know it by that name; its values are names of queues.
        depth = GaugeMetricFamily("zorro_queue_depth", "Windows that wait for a session", labels=("lane",))
        for name, queue in self._engine.batcher.queues.items():
            depth.add_metric((name,), queue.num_waiting)
        return depth

    def _batches(self) -> Iterator[Metric]:
        stats = self._engine.batcher.stats
        sizes = HistogramMetricFamily("zorro_batch_size", "Windows per batch")
        total, buckets = 0, []
        for size in sorted(stats.batch_sizes):
            total += stats.batch_sizes[size]
            buckets.append((str(float(size)), total))
        sizes.add_metric((), [*buckets, ("+Inf", total)], stats.num_items)
        yield sizes
        yield CounterMetricFamily(
            "zorro_failed_batches", "Batches in which a graph failed", stats.num_failed_batches
        )
        yield CounterMetricFamily(
            "zorro_skipped_windows",
            "Windows that never ran because nobody waited for them any more",
            stats.num_skipped,
        )

    def _decode_pool(self) -> Iterator[Metric]:
        pool, num_grown = self._engine.pool.stats, self._engine.pool.num_grown
        for name, value, meaning in (
            ("tasks", pool.num_tasks, "Chunks handed to decode processes"),
            ("crashes", pool.num_crashes, "Decode processes that crashed on a file"),
            ("timeouts", pool.num_timeouts, "Decode tasks that took too long"),
            ("cancelled", pool.num_cancelled, "Decode tasks that were ended because nobody waited for them"),
            ("restarts", pool.num_restarts, "Pools of decode processes that were replaced"),
            ("grown", num_grown, "Decode processes that were replaced because they had grown"),
        ):
            yield CounterMetricFamily(f"zorro_decode_{name}", meaning, value)
        exceptions = CounterMetricFamily(
            "zorro_decode_exceptions",
            "Exceptions of decode tasks that they should not raise",
            labels=("exception",),
        )
        for name, count in pool.exceptions.items():
            exceptions.add_metric((name,), count)
        yield exceptions

    def _models(self) -> Metric:
        info = GaugeMetricFamily(
            "zorro_model_info",
            "Models that answer",
            labels=("model", "version", "variant", "sha256", "graph", "provider"),
        )
        if self._loading.done() and self._loading.exception() is None:
            for model in self._loading.result().all():
                bundle, variant = model.bundle, model.variant.name
                for graph, providers in model.providers.items():
                    values = (bundle.name, bundle.version, variant, bundle.sha256, graph, providers[0])
                    info.add_metric(values, 1)
        return info
