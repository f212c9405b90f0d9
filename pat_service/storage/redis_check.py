"""The state of the store of the rate limits: whether it can count a mint."""

from typing import Any, Final

from limits import RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import MovingWindowRateLimiter, RateLimiter

from pat_service.findings import Finding, problem
from pat_service.storage.readiness import OK, READ_ONLY, UNAVAILABLE

#: The answer is 503 if the store takes longer.
TIMEOUT_SECONDS: Final = 2

CLUSTER: Final = "cluster"
PASSWORD: Final = "password"
PERMISSIONS: Final = "permissions"
CERTIFICATE: Final = "certificate"
FULL: Final = "full"

#: A limit that no one reaches.
_limit: Final = RateLimitItemPerSecond(1_000_000)
_UNTIL_THEN: Final = "Until then mints and openings answer 503."


def _transient(text: str, change: str) -> Finding:
    return problem("limits", f"REDIS_URL names {text}", f"{change} {_UNTIL_THEN}", transient=True)


FINDINGS: Final = {
    UNAVAILABLE: _transient("a store that does not answer", "Start Redis, or correct REDIS_URL."),
    CLUSTER: problem(
        "limits",
        "REDIS_URL names a node of a Redis Cluster, which the rate limits cannot use; "
        "name a Redis without cluster mode",
        "Create a Redis without cluster mode, and set REDIS_URL to it.",
    ),
    PASSWORD: _transient(
        "a store that refuses the user name or password; correct them in redis://USER:PASSWORD@HOST",
        "Correct REDIS_URL.",
    ),
    PERMISSIONS: _transient(
        "a store whose user lacks permissions; it needs +eval, +evalsha and +script on all keys LIMITS*",
        "Change the user's ACL.",
    ),
    CERTIFICATE: _transient(
        "a store whose certificate does not verify; add ?ssl_ca_certs=FILE with the certificates of its "
        "authority, or ?ssl_cert_reqs=none to accept any",
        "Correct REDIS_URL.",
    ),
    READ_ONLY: _transient("a replica, which is read-only; name the primary", "Correct REDIS_URL."),
    FULL: _transient("a store that is full; raise maxmemory", "Raise maxmemory."),
}


def check_url(redis_url: str) -> str:
    """Return the state of the store at this URL, over a new connection."""
    timeouts: Any = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), TIMEOUT_SECONDS)
    store: Any = storage_from_string(redis_url, wrap_exceptions=True, **timeouts)
    try:
        return check(MovingWindowRateLimiter(store))
    finally:
        store.get_connection().close()


def check(limiter: RateLimiter) -> str:
    """Return the state of the limiter's store. It counts a hit, as a mint does."""
    try:
        limiter.hit(_limit, "readyz")
    except StorageError as error:
        return _state(error.storage_error)
    except Exception:
        # Any error of the store or its driver makes every limited request fail.
        return UNAVAILABLE
    return CLUSTER if _is_cluster(limiter.storage) else OK


def _is_cluster(storage: Any) -> bool:
    """Return whether the store is a node of a cluster. It may have some of the keys only."""
    if not hasattr(storage, "get_connection"):
        return False
    import redis

    try:
        return bool(storage.get_connection().info("cluster").get("cluster_enabled"))
    except redis.RedisError:
        # The user may lack the permission, or the store may lack the command.
        return False


def _state(error: Any) -> str:
    import redis

    text = str(error)
    if isinstance(error, redis.exceptions.ClusterError | redis.exceptions.AskError):
        return CLUSTER
    if isinstance(error, redis.AuthenticationError) or text.startswith("NOAUTH"):
        return PASSWORD
    if isinstance(error, redis.exceptions.NoPermissionError):
        return PERMISSIONS
    # A script's error quotes that of its command.
    for sign, state in (("READONLY", READ_ONLY), ("OOM ", FULL), ("CERTIFICATE_VERIFY_FAILED", CERTIFICATE)):
        if sign in text:
            return state
    return UNAVAILABLE
