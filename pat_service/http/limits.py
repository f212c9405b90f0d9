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

#: The answer is 503 if the store takes longer.
STORE_TIMEOUT_SECONDS: Final = 2

_parse = lru_cache(maxsize=256)(parse_limit)


def address() -> str:
    """Return the address of the request's sender, as the trusted proxies report it."""
    # The limiter lets every request with an empty key pass.
    return request.remote_addr or "unknown"


def init_app(app: Flask, redis_url: str | None) -> None:
    """Keep the counters in Redis, or in this process without it."""
    options: dict[str, Any] = {"wrap_exceptions": True}
    if redis_url:
        options |= dict.fromkeys(("socket_timeout", "socket_connect_timeout"), STORE_TIMEOUT_SECONDS)
    limiter = Limiter(
        key_func=address,
        strategy="moving-window",
        storage_uri=redis_url or f"{WorkerStorage.STORAGE_SCHEME[0]}://",
        storage_options=options,
    )
    # A registered limiter adds no hook. The hook would search each request for decorators.
    app.extensions.setdefault("limiter", set()).add(limiter)
    limiter.init_app(app)
    app.extensions["pat_service.limiter"] = limiter.limiter
    app.extensions["pat_service.limiter.circuit_breaker"] = CircuitBreaker()


def hit(name: str, limit: str | None, subject: str) -> None:
    """Count one request of `subject`. Raise RateLimited beyond the limit; None means no limit."""
    if limit is None:
        return
    item = _parse(limit)
    extensions = current_app.extensions
    strategy, breaker = extensions["pat_service.limiter"], extensions["pat_service.limiter.circuit_breaker"]
    if breaker.is_open():
        raise Unavailable
    try:
        allowed = strategy.hit(item, name, subject)
    except StorageError as error:
        import redis  # only Redis raises this error, so it is loaded

        if isinstance(error.storage_error, redis.TimeoutError):
            breaker.trip()
        # This Redis may no longer be the primary: the next hit opens a new connection.
        strategy.storage.get_connection().connection_pool.disconnect(inuse_connections=False)
        raise
    breaker.reset()
    metrics.count_limit_decision(name, allowed)
    if not allowed:
        reset_at = strategy.get_window_stats(item, name, subject).reset_time
        # A hit exactly as old as the window still counts, so wait one second more.
        raise RateLimited(max(1, floor(reset_at - time.time()) + 1))


def hit_open(token: Secret) -> None:
    """Count one opening with this token, valid or not. The store gets its digest."""
    digest = hashlib.sha256(token.reveal().encode()).hexdigest()
    hit("open", current_app.config["OPEN_RATE_LIMIT"], digest)


def hit_failure() -> None:
    """Count a failed client authentication of the request's address."""
    hit("failure", current_app.config["FAILURE_RATE_LIMIT"], address())
