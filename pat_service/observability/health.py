"""Is the process alive, and is the service ready? For load balancers and supervisors, who do not log in."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from flask import Blueprint, Flask, Response, current_app, g, json
from limits import RateLimitItemPerSecond
from sqlalchemy import Engine

from pat_service.errors import Unavailable
from pat_service.http.problems import RETRY_AFTER_UNAVAILABLE, problem
from pat_service.storage.readiness import AWAY, OK, ask_database

#: An answer is good for this long, in seconds: however many ask, the stores are asked once in it.
FRESH: Final = 1.0
#: What has not answered after this long, in seconds, counts as away.
DEADLINE: Final = 2.0

#: A hit of its own, since a store that only reads would pass a ping.
_probe = RateLimitItemPerSecond(1_000_000)
_log = logging.getLogger(__name__)

blueprint = Blueprint("health", __name__)


class Probe:
    """Asks how some parts are, one question at a time and each in a thread, so that nobody waits for long."""

    def __init__(
        self,
        parts: tuple[str, ...],
        ask: Callable[[], dict[str, str]],
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._timer = ask, timer
        self._silent = dict.fromkeys(parts, AWAY)
        self._lock = threading.Lock()
        self._last = self._silent
        self._until = float("-inf")
        self._asked_at = 0.0
        self._answered: threading.Event | None = None

    def states(self) -> dict[str, str]:
        """Return how each part is, at most FRESH seconds old, within DEADLINE."""
        with self._lock:
            now = self._timer()
            if self._answered is None:
                if now < self._until:
                    return self._last
                self._asked_at, self._answered = now, threading.Event()
                threading.Thread(target=self._run, args=(self._answered,), daemon=True).start()
            answered, left = self._answered, self._asked_at + DEADLINE - now
        # While a store hangs, only those who ask first wait for it.
        return self._last if answered.wait(max(0.0, left)) else self._silent

    def _run(self, answered: threading.Event) -> None:
        try:
            states = self._ask()
        except Exception:
            _log.exception("a readiness check failed")
            states = self._silent
        with self._lock:
            self._last, self._until = states, self._timer() + FRESH
            self._answered = None
        answered.set()


def init_app(app: Flask, engine: Engine) -> None:
    """Add the routes; each worker asks for itself."""

    def ask_limiter() -> dict[str, str]:
        try:
            app.extensions["pat_service.limiter"].hit(_probe, "readyz")
        except Exception:
            # The store's own errors and those of its driver: whatever it is, nobody can be let through.
            return {"limiter": AWAY}
        return {"limiter": OK}

    app.extensions["pat_service.probes"] = (
        Probe(("database", "schema"), lambda: ask_database(engine)),
        Probe(("limiter",), ask_limiter),
    )
    app.register_blueprint(blueprint)


def states() -> dict[str, str]:
    """Return how each part of the service is."""
    probes: tuple[Probe, ...] = current_app.extensions["pat_service.probes"]
    return {part: state for probe in probes for part, state in probe.states().items()}


@blueprint.get("/healthz")
def alive() -> dict[str, str]:
    """Answer as long as the process can answer at all; nothing is asked."""
    g.quiet = True
    return {"status": OK}


@blueprint.get("/readyz")
def ready() -> Response:
    """Tell whether requests can be served, and where not, for which part."""
    checks = states()
    failing = [part for part, state in checks.items() if state != OK]
    if not failing:
        g.quiet = True
        return Response(json.dumps({"status": OK, "checks": checks}), mimetype="application/json")
    g.code = Unavailable.code
    told = problem(Unavailable.code, Unavailable.title, f"Not ready: {', '.join(failing)}.", g.request_id)
    return Response(
        json.dumps(told | {"checks": checks}),
        503,
        {"Retry-After": str(RETRY_AFTER_UNAVAILABLE)},
        mimetype="application/problem+json",
    )
