"""`GET /metrics`, for a Prometheus that sends METRICS_TOKEN."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Final

from flask import Blueprint, Flask, Response, current_app, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import NotFound, Unauthorized

from pat_service import metrics
from pat_service.observability import health
from pat_service.rules import token_admin
from pat_service.storage.readiness import OK

#: Seconds between two samples of the connection pool.
POOL_SAMPLE_SECONDS: Final = 0.1
#: Seconds between a worker's counts of live tokens and sessions.
LIVE_COUNT_SECONDS: Final = 15

blueprint = Blueprint("monitoring", __name__)


class _Stores(Collector):
    """The state of the stores and their live tokens and sessions, at each scrape."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: token_admin.Counts | None = None
        self._fresh_until = float("-inf")

    def collect(self) -> Iterator[Metric]:
        states = health.read_states()
        up = GaugeMetricFamily("pat_up", "Whether a part of the service does its work.", labels=["part"])
        for part, state in states.items():
            up.add_metric([part], state == OK)
        yield up
        live = self._count_live() if states["database"] == states["schema"] == OK else None
        if live is not None:
            yield GaugeMetricFamily("pat_live_tokens", "Tokens that open frames.", live.tokens)
            yield GaugeMetricFamily("pat_live_sessions", "Sessions that are open.", live.sessions)

    def _count_live(self) -> token_admin.Counts | None:
        with self._lock:
            if time.monotonic() >= self._fresh_until:
                try:
                    self._live = token_admin.count_live(datetime.now(UTC))
                except SQLAlchemyError:
                    self._live = None
                self._fresh_until = time.monotonic() + LIVE_COUNT_SECONDS
            return self._live


def init_app(app: Flask, engine: Engine) -> None:
    """Add the route. Sample the pool during requests, since it is in use then."""
    app.extensions["pat_service.stores"] = _Stores()
    app.register_blueprint(blueprint)
    last_sample, due = (-1, -1, -1), 0.0
    gauges = (metrics.POOL_SIZE, metrics.POOL_USED, metrics.POOL_OVERFLOW)

    def sample_pool(*_: object) -> None:
        nonlocal last_sample, due
        if (now := time.monotonic()) < due:
            return
        due = now + POOL_SAMPLE_SECONDS
        pool = engine.pool
        # A comparison costs less than writing a gauge.
        sample = (pool.size(), pool.checkedout(), max(0, pool.overflow()))  # type: ignore[attr-defined]
        if sample != last_sample:
            last_sample = sample
            for gauge, value in zip(gauges, sample, strict=True):
                gauge.set(value)

    app.before_request(sample_pool)


@blueprint.get("/metrics")
def show() -> Response:
    """Return all workers' counts in Prometheus's text format; 404 without METRICS_TOKEN."""
    _authorize()
    registry = CollectorRegistry()
    if metrics.IN_FILES:
        MultiProcessCollector(registry)
    else:
        registry = metrics.REGISTRY
    g.quiet = True
    stores = CollectorRegistry()
    stores.register(current_app.extensions["pat_service.stores"])
    return Response(generate_latest(registry) + generate_latest(stores), content_type=CONTENT_TYPE_LATEST)


def _authorize() -> None:
    token: str | None = current_app.config["METRICS_TOKEN"]
    if token is None:
        raise NotFound
    sent = request.headers.get("Authorization", "")
    if not compare_digest(sent.encode("utf-8", "replace"), f"Bearer {token}".encode()):
        raise Unauthorized(www_authenticate=WWWAuthenticate("bearer", {"realm": "pat-service"}))
