"""The Prometheus metrics of the service. `rules` and `http` count; `observability.monitoring` serves them.

Under gunicorn each worker writes its own files in PROMETHEUS_MULTIPROC_DIR, and a scrape adds them up.
gunicorn.conf.py creates this folder. The files are named by the worker's slot, not by its process id. A
worker that replaces a dead one continues its files, so counts survive and files do not pile up.
"""

import os
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, values

#: The environment variable in which gunicorn.conf.py gives a worker its slot.
SLOT_VARIABLE: Final = "PAT_SERVICE_WORKER"
#: The shortest bucket fits a session check; the longest, a request that waits for an unavailable store.
BUCKETS_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Decisions of a rate limit.
ALLOWED, REFUSED = "allowed", "refused"

#: The environment variable that names the folder of the workers' files.
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
#: The size of each file, which suffices for our few labels.
FILE_SIZE_BYTES: Final = 2**20
FILE_KINDS: Final = ("counter", "gauge_liveall", "histogram")

_slot = os.environ.get(SLOT_VARIABLE, "0")


def _reserve_files() -> bool:
    """Create the worker's files with all their blocks; return whether the disk has room.

    The files are mapped into memory. If the disk is full, a write to a missing block would kill the process.
    """
    try:
        folder = Path(os.environ[FOLDER_VARIABLE])
        folder.mkdir(parents=True, exist_ok=True)
        for kind in FILE_KINDS:
            with (folder / f"{kind}_{_slot}.db").open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, FILE_SIZE_BYTES)
    except (KeyError, OSError):
        return False
    return True


disable_created_metrics()
#: Whether the workers share their counts in files; otherwise each process has its own.
IN_FILES: Final = _reserve_files()
# Set this before the first metric, which reads it.
values.ValueClass = values.MultiProcessValue(lambda: _slot) if IN_FILES else values.MutexValue

REGISTRY: Final = CollectorRegistry()

MINTS: Final = Counter("pat_mints", "Minted tokens.", registry=REGISTRY)
OPENS: Final = Counter("pat_opens", "Opened sessions.", registry=REGISTRY)
_refusals: Final = Counter("pat_refusals", "Error answers, by code.", ["code", "kind"], registry=REGISTRY)
_requests: Final = Histogram(
    "pat_request_duration_seconds",
    "Time to answer a request, by route.",
    ["method", "route", "status"],
    buckets=BUCKETS_SECONDS,
    registry=REGISTRY,
)
_decisions: Final = Counter(
    "pat_limiter_decisions", "Decisions of the rate limits.", ["limit", "decision"], registry=REGISTRY
)
_unavailable: Final = Counter("pat_store_unavailable", "Failures of a store.", ["store"], registry=REGISTRY)
UNWRITTEN: Final = Counter(
    "pat_events_unwritten", "Failed attempts to record refusals; they are repeated.", registry=REGISTRY
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
    "Connections of a worker in use.",
    multiprocess_mode="liveall",
    registry=REGISTRY,
)

# Create one child now, so every file stays open even if the folder disappears later.
_requests.labels("GET", "none", "2xx")
# Finding a child by its labels costs more than counting, so each is found once.
_refusal_children: dict[tuple[str, str], Counter] = {}
_request_children: dict[tuple[str, str, int], Histogram] = {}
_decision_children: dict[tuple[str, bool], Counter] = {}


def count_refusal(code: str, kind: str) -> None:
    """Count an error answer. Both labels come from our own short lists, never from a request."""
    child = _refusal_children.get((code, kind))
    if child is None:
        child = _refusal_children[code, kind] = _refusals.labels(code, kind)
    child.inc()


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count a request by its route's template, never its path, and by the class of its status."""
    key = (method, route, status // 100)
    child = _request_children.get(key)
    if child is None:
        child = _request_children[key] = _requests.labels(method, route, f"{status // 100}xx")
    child.observe(seconds)


def count_limit_decision(limit: str, allowed: bool) -> None:
    """Count a decision of the named rate limit."""
    child = _decision_children.get((limit, allowed))
    if child is None:
        child = _decisions.labels(limit, ALLOWED if allowed else REFUSED)
        _decision_children[limit, allowed] = child
    child.inc()


def count_unavailable(store: str) -> None:
    """Count a failure of the `database`, its `pool`, the `limiter` or the `disk` for uploads."""
    _unavailable.labels(store).inc()
