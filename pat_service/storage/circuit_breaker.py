"""A circuit breaker: while it is open, calls to a server that timed out fail at once."""

import time
from threading import Lock
from typing import Final

#: Seconds until the next probe.
OPEN_SECONDS: Final = 3


class CircuitBreaker:
    """Saves threads from waiting for a server that has timed out.

    A closed breaker lets every call through. An open breaker fails calls at once, except one probe every
    `OPEN_SECONDS`. The probe's caller either resets the breaker, which closes it, or trips it again.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._open_until: float | None = None

    def is_open(self) -> bool:
        """Return whether a call must fail at once. After `OPEN_SECONDS` one call, the probe, gets False."""
        if self._open_until is None:
            return False
        with self._lock:
            if self._open_until is not None:
                if time.monotonic() < self._open_until:
                    return True
                self._open_until = time.monotonic() + OPEN_SECONDS
        return False

    def trip(self) -> None:
        with self._lock:
            self._open_until = time.monotonic() + OPEN_SECONDS

    def reset(self) -> None:
        if self._open_until is not None:
            with self._lock:
                self._open_until = None
