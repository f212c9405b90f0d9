"""A server that does not answer is asked by one caller now and then, so that the others need not wait."""

import time
from threading import Lock
from typing import Final

#: How long nobody asks again, in seconds.
OPEN_SECONDS: Final = 3


class CircuitBreaker:
    """Knows whether a server was silent when it was asked last.

    Else every thread would wait for it, and those who come meanwhile would not be told anything.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._until: float | None = None

    def is_open(self) -> bool:
        """Tell whether it is too early to ask. After a silence, whoever is told no is the one who asks."""
        if self._until is None:
            return False
        with self._lock:
            if self._until is not None:
                if time.monotonic() < self._until:
                    return True
                self._until = time.monotonic() + OPEN_SECONDS
        return False

    def trip(self) -> None:
        with self._lock:
            self._until = time.monotonic() + OPEN_SECONDS

    def reset(self) -> None:
        if self._until is not None:
            with self._lock:
                self._until = None
