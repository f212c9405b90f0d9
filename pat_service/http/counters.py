"""Moving windows counted in this process: the limiter's store without Redis.

The memory store of `limits` (5.8) keeps every key forever and visits all of them after each hit. A client
with invented tokens could therefore fill a worker's memory. Delete this module once `limits` drops empty keys
from `MemoryStorage.events`. Issues: https://github.com/alisaifee/flask-limiter/issues/4 (closed without that
change) and https://github.com/alisaifee/limits/issues/132.
"""

import time
from collections import deque
from threading import Lock
from typing import Final

from limits.storage import MemoryStorage

#: Seconds between two removals of expired keys.
SWEEP_SECONDS: Final = 60


class WorkerStorage(MemoryStorage):
    """Counts exactly, under one lock, and drops a key soon after its window."""

    STORAGE_SCHEME = ["worker"]  # noqa: RUF012 - `limits` reads it

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **_: str) -> None:
        super().__init__(uri, wrap_exceptions)
        self._lock = Lock()
        self._hits: dict[str, deque[float]] = {}
        self._ends: dict[str, float] = {}
        self._next_sweep = 0.0

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` hits of the key, unless there would be more than `limit` in `expiry` seconds."""
        now = time.time()
        with self._lock:
            hits = self._hits.setdefault(key, deque())
            self._drop_old(hits, now - expiry)
            accepted = len(hits) + amount <= limit
            if accepted:
                hits.extend([now] * amount)
            self._ends[key] = now + expiry
            self._sweep(now)
        return accepted

    def give_back(self, key: str) -> None:
        """Remove the newest hit of the key, if it has one."""
        with self._lock:
            if hits := self._hits.get(key):
                hits.pop()

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return the time of the window's oldest hit, and the number of hits."""
        now = time.time()
        with self._lock:
            hits = self._hits.get(key) or deque()
            self._drop_old(hits, now - expiry)
            return (hits[0] if hits else now), len(hits)

    def _drop_old(self, hits: deque[float], start: float) -> None:
        while hits and hits[0] < start:
            hits.popleft()

    def _sweep(self, now: float) -> None:
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_SECONDS
        for key in [key for key, end in self._ends.items() if end < now]:
            del self._ends[key], self._hits[key]
