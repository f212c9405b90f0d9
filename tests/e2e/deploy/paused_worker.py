"""A gunicorn worker on a machine that pauses it before each check for idle connections."""

import time

import worker

STANDS_STILL = 2.0  # seconds


class Worker(worker.Worker):
    def is_parent_alive(self) -> bool:
        time.sleep(STANDS_STILL)
        return bool(super().is_parent_alive())
