"""Rate limits: a moving window for each client, user, token, session and failing address."""

import hashlib
import re
import time
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address, ip_network
from math import floor
from typing import Any, Final

from flask import Flask, current_app, request
from flask_limiter import Limiter
from limits.errors import StorageError

from pat_service import metrics
from pat_service.credentials import Keyring, Secret
from pat_service.errors import RateLimited, Unavailable
from pat_service.http.counters import WorkerStorage
from pat_service.rules.callers import Caller
from pat_service.shapes import parse_limit
from pat_service.storage.circuit_breaker import CircuitBreaker
from pat_service.storage.redis_check import TIMEOUT_SECONDS

#: `203.0.113.8:50001`, `[2001:db8::1]:50001` or `[2001:db8::1]`, as some proxies write an address.
_WITH_PORT: Final = re.compile(r"([0-9.]+):[0-9]+|\[([0-9a-fA-F:.]+)\](?::[0-9]+)?")

_parse = lru_cache(maxsize=256)(parse_limit)


def address() -> str:
    """Return the address of the request's sender, as the trusted proxies report it, without a port."""
    text = request.remote_addr or ""
    with_port = _WITH_PORT.fullmatch(text)
    # The limiter lets every request with an empty key pass.
    return (with_port and (with_port[1] or with_port[2])) or text or "unknown"


def _network() -> str:
    """Return the sender's address. For IPv6 return its /64 network, since one customer has all of it."""
    text = address()
    try:
        found = ip_address(text)
    except ValueError:
        return text
    if found.version == 4:
        return text
    return str(found.ipv4_mapped or ip_network((found, 64), strict=False))


def init_app(app: Flask, redis_url: str | None) -> None:
    """Keep the counters in Redis, or in this process without it."""
    options: dict[str, Any] = {"wrap_exceptions": True}
    if redis_url:
        options |= dict.fromkeys(("socket_timeout", "socket_connect_timeout"), TIMEOUT_SECONDS)
    limiter = Limiter(
        key_func=_network,
        strategy="moving-window",
        storage_uri=redis_url or f"{WorkerStorage.STORAGE_SCHEME[0]}://",
        storage_options=options,
    )
    # A registered limiter adds no hook. The hook would search each request for decorators.
    app.extensions.setdefault("limiter", set()).add(limiter)
    limiter.init_app(app)
    app.extensions["pat_service.limiter"] = limiter.limiter
    app.extensions["pat_service.limiter.circuit_breaker"] = CircuitBreaker()


def hit(name: str, limit: str | None, subject: str, *, counted: str = "requests") -> None:
    """Count one request of `subject`. Raise RateLimited beyond the limit; None means no limit.

    `counted` is the error's word for the requests.
    """
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
        raise RateLimited(max(1, floor(reset_at - time.time()) + 1), counted)


def hit_mint(caller: Caller) -> None:
    """Count one mint of the client."""
    hit("mint", _mint_limit(caller), caller.id)


def hit_user_mint(caller: Caller, user: str) -> None:
    """Count one mint of the client for this user. A mint beyond this limit does not count against the
    client's limit.

    The store gets a keyed digest, so it reveals no email. A client can add at most as many users as its own
    limit allows.
    """
    keyring: Keyring = current_app.extensions["pat_service.keyring"]
    digest = keyring.current.derive(f"mints-of-user/{user}").hex()
    try:
        limit = current_app.config["USER_MINT_RATE_LIMIT"]
        hit("user_mint", limit, f"{caller.id}/{digest}", counted="mints for this user")
    except RateLimited:
        _give_back("mint", _mint_limit(caller), caller.id)
        raise


def _mint_limit(caller: Caller) -> str:
    limit: str = caller.mint_limit or current_app.config["MINT_RATE_LIMIT"]
    return limit


def _give_back(name: str, limit: str, subject: str) -> None:
    """Undo the newest hit of `subject`. If Redis fails, the hit stays."""
    key = _parse(limit).key_for(name, subject)
    storage = current_app.extensions["pat_service.limiter"].storage
    if isinstance(storage, WorkerStorage):
        storage.give_back(key)
        return
    import redis  # only Redis needs it

    with suppress(redis.RedisError):
        # `limits` has no call for this. Its window is a list of times, the newest first.
        storage.get_connection().lpop(storage.prefixed_key(key))


def hit_open(token: Secret) -> None:
    """Count one opening with this token, valid or not. The store gets its digest."""
    digest = hashlib.sha256(token.reveal().encode()).hexdigest()
    hit("open", current_app.config["OPEN_RATE_LIMIT"], digest)


def hit_failure() -> None:
    """Count a failed client authentication of the request's address."""
    hit("failure", current_app.config["FAILURE_RATE_LIMIT"], _network())


def hit_sign_in() -> None:
    """Count an attempt of the request's address to sign in to the console."""
    hit("sign_in", current_app.config["FAILURE_RATE_LIMIT"], _network(), counted="attempts to sign in")
