"""What Prometheus reads at /metrics; one set of figures for all workers."""

import os

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SCORES = tuple(n / 20 for n in range(1, 21))


class Metrics:
    """Counters and histograms. No label holds a name, a text or anything a client made up."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = self._counter(
            "gateway_requests", "Requests answered", "route", "method", "status")
        self.seconds = Histogram(
            "gateway_request_seconds", "Seconds from a request's arrival to its answer",
            ["route", "method"], buckets=_SECONDS, registry=self._registry)
        self.predictions = self._counter(
            "gateway_predictions", "Pairs scored", "model_version", "prediction")
        self.scores = Histogram(
            "gateway_score", "Distribution of the scores given", ["score"], buckets=_SCORES,
            registry=self._registry)
        self.trainings = self._counter(
            "gateway_trainings", "Trainings by what became of them", "outcome")
        self.failed_logins = self._counter("gateway_failed_logins", "Logins refused", "reason")
        for outcome in ("started", "refused", "finished", "failed", "stopped", "lost"):
            self.trainings.labels(outcome)
        for reason in ("credentials", "limit"):
            self.failed_logins.labels(reason)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def exposition(self) -> bytes:
        """All figures in Prometheus' text format; of all workers when there are several."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return generate_latest(registry)
