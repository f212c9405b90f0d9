"""Moving windows counted in this process: the limiter's store where there is no Redis.

The `limits` library's own memory store keeps every key that it ever saw, and walks over all of them
after each hit, so that a stranger who makes up tokens could fill the memory of a worker.
"""

import time
from collections import deque
from threading import Lock
from typing import Final

from limits.storage import MemoryStorage

#: How often keys whose window is over are dropped, in seconds.
SWEEP_EVERY: Final = 60


class WorkerStorage(MemoryStorage):
    """Counts exactly under one lock, and forgets a key soon after its window."""

    STORAGE_SCHEME = ["worker"]  # noqa: RUF012 - the library reads it

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **_: str) -> None:
        super().__init__(uri, wrap_exceptions)
        self._lock = Lock()
        self._hits: dict[str, deque[float]] = {}
        self._ends: dict[str, float] = {}
        self._next_sweep = 0.0

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` hits of the key, unless that makes more than `limit` in `expiry` seconds."""
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

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return when the oldest hit of the window was, and how many there are."""
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
        self._next_sweep = now + SWEEP_EVERY
        for key in [key for key, end in self._ends.items() if end < now]:
            del self._ends[key], self._hits[key]
