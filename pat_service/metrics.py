"""What the service counts, for Prometheus. Rules and HTTP add to it; `http/monitoring` shows it.

Under gunicorn each worker writes to files of its own in PROMETHEUS_MULTIPROC_DIR, which gunicorn.conf.py
makes, and a scrape adds them up. A worker is known by its place among the workers and not by its process,
so that whoever takes a dead one's place goes on with its files: counts survive, and files do not pile up.
"""

import os
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, values

#: The variable in which gunicorn.conf.py tells a worker its place.
PLACE: Final = "PAT_SERVICE_WORKER"
#: From a session check to the time after which a store counts as away, in seconds.
BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: How a request was limited: by name of the limit.
ALLOWED, REFUSED = "allowed", "refused"

#: The variable that names the folder of the workers' files.
FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
#: What a worker's files of each kind may hold, in bytes: labels are few.
FILE_SIZE: Final = 2**20
KINDS: Final = ("counter", "gauge_liveall", "histogram")

_place = os.environ.get(PLACE, "0")


def _reserve() -> bool:
    """Make the worker's files with all of their blocks, and tell whether there is room for them.

    They are mapped into memory: to write where a full disk has no block for it would kill the process.
    """
    try:
        folder = Path(os.environ[FOLDER])
        folder.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            with (folder / f"{kind}_{_place}.db").open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, FILE_SIZE)
    except (KeyError, OSError):
        return False
    return True


disable_created_metrics()
#: Whether counts are in files, for all workers. Without, each process has its own.
IN_FILES: Final = _reserve()
# Read before the first metric below is made.
values.ValueClass = values.MultiProcessValue(lambda: _place) if IN_FILES else values.MutexValue

REGISTRY: Final = CollectorRegistry()

MINTS: Final = Counter("pat_mints", "Tokens that were minted.", registry=REGISTRY)
OPENS: Final = Counter("pat_opens", "Sessions that were opened.", registry=REGISTRY)
_refusals: Final = Counter(
    "pat_refusals", "Answers with an error, by its code.", ["code", "kind"], registry=REGISTRY
)
_requests: Final = Histogram(
    "pat_request_duration_seconds",
    "Time to answer a request, by route.",
    ["method", "route", "status"],
    buckets=BUCKETS,
    registry=REGISTRY,
)
_decisions: Final = Counter(
    "pat_limiter_decisions", "What the rate limits decided.", ["limit", "decision"], registry=REGISTRY
)
_unavailable: Final = Counter(
    "pat_store_unavailable", "Times that a store did not do its part.", ["store"], registry=REGISTRY
)
UNWRITTEN: Final = Counter(
    "pat_events_unwritten", "Attempts to record refusals that failed; they are made again.", registry=REGISTRY
)
POOL_SIZE: Final = Gauge(
    "pat_database_pool_size",
    "Connections that a worker keeps.",
    multiprocess_mode="liveall",
    registry=REGISTRY,
)
POOL_OVERFLOW: Final = Gauge(
    "pat_database_pool_overflow",
    "Connections of a worker beyond its pool's size.",
    multiprocess_mode="liveall",
    registry=REGISTRY,
)
POOL_USED: Final = Gauge(
    "pat_database_pool_checked_out",
    "Connections of a worker that are at work.",
    multiprocess_mode="liveall",
    registry=REGISTRY,
)

# To look a child up by its labels costs more than to count: each is looked up once.
#: Made now, so that every file is open: what becomes of the folder later is of no matter.
_requests.labels("GET", "none", "2xx")
_of_refusal: dict[tuple[str, str], Counter] = {}
_of_request: dict[tuple[str, str, int], Histogram] = {}
_of_decision: dict[tuple[str, bool], Counter] = {}


def refused(code: str, kind: str) -> None:
    """Count an answer with an error. Codes and kinds are few; nothing here may come from a stranger."""
    child = _of_refusal.get((code, kind))
    if child is None:
        child = _of_refusal[code, kind] = _refusals.labels(code, kind)
    child.inc()


def answered(method: str, route: str, status: int, seconds: float) -> None:
    """Count a request by its route's template, never by its path; the status by its class, such as 4xx."""
    key = (method, route, status // 100)
    child = _of_request.get(key)
    if child is None:
        child = _of_request[key] = _requests.labels(method, route, f"{status // 100}xx")
    child.observe(seconds)


def limited(limit: str, allowed: bool) -> None:
    """Count a decision of the limit with this name."""
    child = _of_decision.get((limit, allowed))
    if child is None:
        child = _decisions.labels(limit, ALLOWED if allowed else REFUSED)
        _of_decision[limit, allowed] = child
    child.inc()


def unavailable(store: str) -> None:
    """Count that the `database`, its `pool` or the `limiter` did not do its part."""
    _unavailable.labels(store).inc()
