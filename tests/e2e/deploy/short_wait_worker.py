"""A gunicorn worker that waits for requests no longer than a test does."""

import worker


class Worker(worker.Worker):
    receive_seconds = 0.5
