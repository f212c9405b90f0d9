"""`GET /metrics`: what was counted, for a Prometheus that sends METRICS_TOKEN."""

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

#: The pool is looked at once in this many seconds.
LOOK_EVERY: Final = 0.1
#: What is live is counted at most once in this many seconds by one worker.
COUNT_EVERY: Final = 15

blueprint = Blueprint("monitoring", __name__)


class _Stores(Collector):
    """How the stores are, and what is live in them: asked at a scrape."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted: token_admin.Live | None = None
        self._until = float("-inf")

    def collect(self) -> Iterator[Metric]:
        states = health.states()
        up = GaugeMetricFamily("pat_up", "Whether a part of the service does its work.", labels=["part"])
        for part, state in states.items():
            up.add_metric([part], state == OK)
        yield up
        counted = self._count() if states["database"] == states["schema"] == OK else None
        if counted is not None:
            yield GaugeMetricFamily("pat_live_tokens", "Tokens that open frames.", counted.tokens)
            yield GaugeMetricFamily("pat_live_sessions", "Sessions that are open.", counted.sessions)

    def _count(self) -> token_admin.Live | None:
        with self._lock:
            if time.monotonic() >= self._until:
                try:
                    self._counted = token_admin.count_live(datetime.now(UTC))
                except SQLAlchemyError:
                    self._counted = None
                self._until = time.monotonic() + COUNT_EVERY
            return self._counted


def init_app(app: Flask, engine: Engine) -> None:
    """Add the route, and look at the pool now and then as a request comes, since others are at work then."""
    app.extensions["pat_service.stores"] = _Stores()
    app.register_blueprint(blueprint)
    seen, due = (-1, -1, -1), 0.0
    gauges = (metrics.POOL_SIZE, metrics.POOL_USED, metrics.POOL_OVERFLOW)

    def look(*_: object) -> None:
        nonlocal seen, due
        if (moment := time.monotonic()) < due:
            return
        due = moment + LOOK_EVERY
        pool = engine.pool
        # Both pools of SQLAlchemy that we use count these; to write a gauge costs more than to compare.
        now = (pool.size(), pool.checkedout(), max(0, pool.overflow()))  # type: ignore[attr-defined]
        if now != seen:
            seen = now
            for gauge, value in zip(gauges, now, strict=True):
                gauge.set(value)

    app.before_request(look)


@blueprint.get("/metrics")
def show() -> Response:
    """All workers' counts in Prometheus's text format. Without METRICS_TOKEN there is no such address."""
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
