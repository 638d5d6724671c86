"""Metrics of the server in Prometheus' text format, for ``/metrics``."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from underhood.infer.request import OutputChunk
from underhood.web.registry import ModelRegistry, Served

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The counts of one server.

    Requests are counted by route and status, answers by model; how the engines do is asked when somebody looks.
    """

    def __init__(self, registry: ModelRegistry):
        self.registry = CollectorRegistry(auto_describe=False)
        self.requests = Counter(
            "underhood_http_requests", "Requests answered.", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "underhood_http_request_seconds",
            "From a request's arrival to its answer's end.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.open = Gauge("underhood_http_requests_open", "Requests being answered.", registry=self.registry)
        self.first_token = Histogram(
            "underhood_time_to_first_token_seconds",
            "From a request's arrival at the engine to its first token.",
            ("model",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.next_token = Histogram(
            "underhood_inter_token_seconds",
            "Between two tokens of one answer.",
            ("model",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.feedback = Counter("underhood_feedback", "Feedback taken.", ("model", "kind"), registry=self.registry)
        self.retrievals = Counter(
            "underhood_retrievals",
            "Chat requests that searched the documents, by whether a passage matched.",
            ("model", "matched"),
            registry=self.registry,
        )
        self.registry.register(_Engines(registry))

    def stopwatch(self, served: Served) -> "Stopwatch":
        """Starts now."""
        return Stopwatch(self, served.id)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class Stopwatch:
    """Times the tokens of one request's choices."""

    def __init__(self, metrics: Metrics, model: str):
        self._first = metrics.first_token.labels(model)
        self._next = metrics.next_token.labels(model)
        self._start = time.perf_counter()
        self._last: dict[tuple[int, int], float] = {}

    def chunk(self, handle: int, chunk: OutputChunk) -> None:
        if not chunk.tokens:
            return
        now, key = time.perf_counter(), (handle, chunk.choice)
        if key in self._last:
            self._next.observe(now - self._last[key])
        elif not self._last:
            self._first.observe(now - self._start)
        self._last[key] = now


class _Engines(Collector):
    def __init__(self, registry: ModelRegistry):
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        gauges = {
            "running": "Texts being read or written.",
            "waiting": "Texts that have not begun, or have been put back.",
            "blocks_used": "Blocks of the cache in use.",
            "blocks_cached": "Blocks kept for prompts that begin alike.",
            "blocks_total": "Blocks of the cache.",
        }
        counters = {
            "prompt_tokens": "Tokens of prompts.",
            "cached_tokens": "Tokens of prompts that did not have to be read.",
            "completion_tokens": "Tokens written.",
            "prefix_hits": "Texts whose beginning was in the cache.",
            "preemptions": "Times that a text was put back for want of memory.",
            "draft_tokens": "Tokens drafted by speculative decoding.",
            "accepted_tokens": "Draft tokens that were accepted.",
            "steps": "Passes through the model.",
            "step_seconds": "Seconds in passes through the model.",
            "failures": "Passes that failed.",
        }
        stats = [(served.id, served.engine.stats(), served.healthy) for served in self._registry.served]
        for name, help_text in gauges.items():
            gauge = GaugeMetricFamily(f"underhood_{name}", help_text, labels=["model"])
            for model, counts, _ in stats:
                gauge.add_metric([model], getattr(counts, name))
            yield gauge
        for name, help_text in counters.items():
            counter = CounterMetricFamily(f"underhood_{name}", help_text, labels=["model"])
            for model, counts, _ in stats:
                counter.add_metric([model], getattr(counts, name))
            yield counter
        finished = CounterMetricFamily("underhood_finished", "Answers ended, by how.", labels=["model", "finish"])
        healthy = GaugeMetricFamily("underhood_healthy", "1 while the model's engine works.", labels=["model"])
        for model, counts, well in stats:
            healthy.add_metric([model], float(well))
            for finish, count in counts.finished.items():
                finished.add_metric([model, finish], count)
        yield finished
        yield healthy


class Metered:
    """Counts and times every request, by the route that answered it."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 499  # nobody was there to be answered

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.metrics.open.inc()
        try:
            await self.app(scope, receive, noting)
        finally:
            self.metrics.open.dec()
            # Addresses that are not ours count as one, or anybody could grow this list without end.
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
