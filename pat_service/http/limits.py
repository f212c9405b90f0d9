"""Rate limits: a moving window for each client, token, session and failing address."""

import hashlib
import time
from functools import lru_cache
from math import floor
from typing import Any, Final

from flask import Flask, current_app, request
from flask_limiter import Limiter
from limits.errors import StorageError

from pat_service import metrics
from pat_service.credentials import Secret
from pat_service.errors import RateLimited, Unavailable
from pat_service.http.counters import WorkerStorage
from pat_service.shapes import parse_limit
from pat_service.storage.circuit_breaker import CircuitBreaker

#: How long the limiter's store may take, in seconds, before the answer is 503.
STORE_TIMEOUT: Final = 2

_parse = lru_cache(maxsize=256)(parse_limit)


def _address() -> str:
    # An empty key would let everything through.
    return request.remote_addr or "unknown"


def init_app(app: Flask, redis_url: str | None) -> None:
    """Keep the counters in Redis, or without it in this process."""
    options: dict[str, Any] = {"wrap_exceptions": True}
    if redis_url:
        options |= {"socket_timeout": STORE_TIMEOUT, "socket_connect_timeout": STORE_TIMEOUT}
    limiter = Limiter(
        key_func=_address,
        strategy="moving-window",
        storage_uri=redis_url or f"{WorkerStorage.STORAGE_SCHEME[0]}://",
        storage_options=options,
    )
    # As if it were registered already: it would look for its decorators at each request, and there are none.
    app.extensions.setdefault("limiter", set()).add(limiter)
    limiter.init_app(app)
    app.extensions["pat_service.limiter"] = limiter.limiter
    app.extensions["pat_service.limiter.circuit_breaker"] = CircuitBreaker()


def hit(name: str, limit: str | None, subject: str) -> None:
    """Count one request of `subject` against its limit; raise RateLimited past it. No limit: no count."""
    if limit is None:
        return
    item = _parse(limit)
    extensions = current_app.extensions
    strategy, breaker = extensions["pat_service.limiter"], extensions["pat_service.limiter.circuit_breaker"]
    if breaker.is_open():
        raise Unavailable
    try:
        passes = strategy.hit(item, name, subject)
    except StorageError as error:
        # Loaded already: only that store has such errors.
        import redis

        if isinstance(error.storage_error, redis.TimeoutError):
            breaker.trip()
        # What is connected may be one that another has taken over from: the next hit connects anew.
        strategy.storage.get_connection().connection_pool.disconnect(inuse_connections=False)
        raise
    breaker.reset()
    metrics.count_limit_decision(name, passes)
    if not passes:
        reset_at = strategy.get_window_stats(item, name, subject).reset_time
        # A hit still counts when it is just as old as the window: wait for the second after that.
        raise RateLimited(max(1, floor(reset_at - time.time()) + 1))


def hit_open(token: Secret) -> None:
    """Count one opening with this token, good or not. The store sees a digest of it."""
    digest = hashlib.sha256(token.reveal().encode()).hexdigest()
    hit("open", current_app.config["OPEN_RATE_LIMIT"], digest)


def hit_failure() -> None:
    """Count a failed client authentication against the caller's address."""
    hit("failure", current_app.config["FAILURE_RATE_LIMIT"], _address())
