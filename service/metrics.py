"""What an operator sees at /metrics, in the format of Prometheus. Each app has a registry of its own.

Counts that the batcher and the decode pool keep anyway are read from them when somebody asks.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from .inference import InferenceEngine

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters of requests, and a registry that also asks the engine."""

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
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge("zorro_in_flight", "Requests at work or waiting", registry=self.registry)
        self.abandoned = Counter("zorro_abandoned", "Requests whose client left", registry=self.registry)

    def watch(self, engine: "InferenceEngine") -> None:
        """Show the engine's counts too."""
        self.registry.register(EngineCollector(engine))

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


class EngineCollector(Collector):
    """Counts of the batcher and the decode pool, read when asked for."""

    def __init__(self, engine: "InferenceEngine") -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        yield from self._queues()
        yield from self._batches()
        pool, num_grown = self._engine.pool.stats, self._engine.pool.num_grown
        for name, value, meaning in (
            ("tasks", pool.num_tasks, "Chunks handed to decode processes"),
            ("crashes", pool.num_crashes, "Decode processes that broke down over a file"),
            ("timeouts", pool.num_timeouts, "Decode tasks that took too long"),
            ("cancelled", pool.num_cancelled, "Decode tasks that were ended since nobody waited for them"),
            ("restarts", pool.num_restarts, "Pools of decode processes that were made anew"),
            ("grown", num_grown, "Decode processes that were replaced since they had grown"),
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
        info = GaugeMetricFamily(
            "zorro_model_info",
            "Models that answer",
            labels=("model", "version", "variant", "sha256", "graph", "provider"),
        )
        for model in self._engine.models.all():
            for graph, providers in model.providers.items():
                bundle, variant = model.bundle, model.variant.name
                info.add_metric((bundle.name, bundle.version, variant, bundle.sha256, graph, providers[0]), 1)
        yield info

    def _queues(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("zorro_queue_depth", "Windows that wait for a session", labels=("lane",))
        for name, queue in self._engine.batcher.queues.items():
            depth.add_metric((name,), queue.num_waiting)
        yield depth

    def _batches(self) -> Iterator[Metric]:
        stats = self._engine.batcher.stats
        sizes = HistogramMetricFamily("zorro_batch_size", "Windows per batch")
        total, buckets = 0, []
        for size in sorted(stats.batch_sizes):
            total += stats.batch_sizes[size]
            buckets.append((str(float(size)), total))
        sizes.add_metric((), [*buckets, ("+Inf", total)], stats.num_items)
        yield sizes
        for name, value, meaning in (
            ("failed_batches", stats.num_failed_batches, "Batches in which a graph failed"),
            (
                "skipped_windows",
                stats.num_skipped,
                "Windows that never ran, since nobody waited for them any more",
            ),
        ):
            yield CounterMetricFamily(f"zorro_{name}", meaning, value)
