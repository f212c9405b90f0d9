"""The worker on a machine that lets it stand still, each time before it looks who was idle for too long."""

import time

import worker

STANDS_STILL = 2.0  # seconds


class Worker(worker.Worker):
    def is_parent_alive(self) -> bool:
        time.sleep(STANDS_STILL)
        return bool(super().is_parent_alive())
