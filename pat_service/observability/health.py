"""Liveness (/healthz) and readiness (/readyz), for load balancers and supervisors without credentials."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from flask import Blueprint, Flask, Response, current_app, g, json
from sqlalchemy import Engine

from pat_service import __version__
from pat_service.errors import Unavailable
from pat_service.http.problems import UNAVAILABLE_RETRY_SECONDS, problem
from pat_service.storage import redis_check
from pat_service.storage.readiness import OK, UNAVAILABLE, check_database

#: Age up to which a check's result is reused, so that many requests cause one check.
FRESH_SECONDS: Final = 1.0
#: A part that takes longer to answer counts as unavailable.
DEADLINE_SECONDS: Final = 2.0

_log = logging.getLogger(__name__)

blueprint = Blueprint("health", __name__)


class Probe:
    """Runs one check at a time, in a thread, so that no request waits longer than the deadline."""

    def __init__(
        self,
        parts: tuple[str, ...],
        check: Callable[[], dict[str, str]],
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._check, self._timer = check, timer
        self._unavailable = dict.fromkeys(parts, UNAVAILABLE)
        self._lock = threading.Lock()
        self._last = self._unavailable
        self._fresh_until = float("-inf")
        self._started = 0.0
        self._done: threading.Event | None = None

    def read_states(self) -> dict[str, str]:
        """Return each part's state, at most FRESH_SECONDS old, within DEADLINE_SECONDS."""
        with self._lock:
            now = self._timer()
            if self._done is None:
                if now < self._fresh_until:
                    return self._last
                self._started, self._done = now, threading.Event()
                threading.Thread(target=self._run, args=(self._done,), daemon=True).start()
            done, left = self._done, self._started + DEADLINE_SECONDS - now
        # If a store hangs, only the requests before the check's deadline wait.
        return self._last if done.wait(max(0.0, left)) else self._unavailable

    def _run(self, done: threading.Event) -> None:
        try:
            states = self._check()
        except Exception:
            _log.exception("a readiness check failed")
            states = self._unavailable
        with self._lock:
            self._last, self._fresh_until = states, self._timer() + FRESH_SECONDS
            self._done = None
        done.set()


def init_app(app: Flask, engine: Engine, migrations: Mapping[str, Path]) -> None:
    """Add the routes. Each worker runs its own checks."""

    def check_limiter() -> dict[str, str]:
        return {"limiter": redis_check.check(app.extensions["pat_service.limiter"])}

    app.extensions["pat_service.probes"] = (
        Probe(("database", "schema"), lambda: check_database(engine, migrations)),
        Probe(("limiter",), check_limiter),
    )
    app.register_blueprint(blueprint)


def read_states() -> dict[str, str]:
    """Return the state of each part of the service."""
    probes: tuple[Probe, ...] = current_app.extensions["pat_service.probes"]
    return {part: state for probe in probes for part, state in probe.read_states().items()}


@blueprint.get("/healthz")
def show_liveness() -> dict[str, str]:
    """Answer as long as the process can, without checking anything."""
    g.quiet = True
    return {"status": OK, "version": __version__}


@blueprint.get("/readyz")
def show_readiness() -> Response:
    """Answer 200 if requests can be served, otherwise 503 with the failing parts."""
    checks = read_states()
    failing = [part for part, state in checks.items() if state != OK]
    if not failing:
        g.quiet = True
        return Response(json.dumps({"status": OK, "checks": checks}), mimetype="application/json")
    g.code = Unavailable.code
    unavailable = Unavailable(f"Not ready: {', '.join(failing)}.")
    answer = problem(unavailable, g.request_id) | {"checks": checks}
    return Response(
        json.dumps(answer),
        503,
        {"Retry-After": str(UNAVAILABLE_RETRY_SECONDS)},
        mimetype="application/problem+json",
    )
