"""gunicorn's settings. The service writes its own access log; gunicorn's would hold tokens."""

import gc

# Before what follows is loaded, for `_collect`.
gc.disable()

import os
import shutil
import sys
import tempfile
from pathlib import Path

from gunicorn.arbiter import Arbiter
from gunicorn.config import Config as GunicornConfig
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

from config import Config, ConfigError, check_workers, list_findings
from pat_service.observability.lines import RedactingFormatter, configure

#: What pat_service.metrics reads: where workers keep their counts, and a worker's place among them.
COUNTS, PLACE = "PROMETHEUS_MULTIPROC_DIR", "PAT_SERVICE_WORKER"


class RedactingLogger(Logger):
    """gunicorn's own log, in which a request that it cannot read may stand word for word."""

    def setup(self, cfg: GunicornConfig) -> None:
        super().setup(cfg)
        configure()
        for log in (self.error_log, self.access_log):
            for handler in log.handlers:
                handler.setFormatter(RedactingFormatter())


def _refuse(text: object) -> None:
    print(f"pat-service: {text}", file=sys.stderr)
    sys.exit(1)


def _check_start(server: Arbiter, workers: int) -> None:
    """Refuse what would start and then not be safe; warn of what may pass by itself."""
    for finding in list_findings(_config, workers):
        if not finding.transient:
            _refuse(finding.text)
        server.log.warning(finding.text)


def on_starting(server: Arbiter) -> None:
    if not _config.metrics_token:
        os.environ.pop(COUNTS, None)
        return
    # Named after this process: a master that took over from another has counts of its own.
    mine = f"pat-service-{os.getpid()}-"
    if not Path(os.environ.get(COUNTS, "")).name.startswith(mine):
        try:
            os.environ[COUNTS] = tempfile.mkdtemp(prefix=mine)
        except OSError as error:
            os.environ.pop(COUNTS, None)
            server.log.warning("Each worker counts on its own: %s", error)


def nworkers_changed(server: Arbiter, new: int, old: int | None) -> None:
    """Check the start; later stay with as many workers, where one more (SIGTTIN) would count on its own.

    At the start this is called before a port is opened, and before gunicorn writes its first line.
    """
    if old is None:
        _check_start(server, new)
        return
    if new <= old:
        return
    try:
        check_workers(new, _config.redis_url)
    except ConfigError as error:
        server.log.error("No more workers: %s", error)
        server.num_workers = old


def pre_fork(server: Arbiter, worker: Worker) -> None:
    """Give the worker the lowest free place: it goes on with the counts of whoever had it."""
    taken = {other.place for other in server.WORKERS.values()}
    worker.place = min(set(range(len(taken) + 1)) - taken)


def _collect() -> None:
    """Let Python look for garbage, in what comes from now on.

    What is loaded stays: to look through it takes a fifth of a start, and holds up requests later. Nor is it
    written to, so that workers share more of what the master has loaded.
    """
    gc.freeze()
    gc.enable()


def when_ready(_server: Arbiter) -> None:
    _collect()


def on_reload(_server: Arbiter) -> None:
    # What was loaded for the workers before: kept as well, it would add up from reload to reload.
    gc.unfreeze()
    gc.collect()
    _collect()


def post_fork(_server: Arbiter, worker: Worker) -> None:
    os.environ[PLACE] = str(worker.place)
    gc.disable()


def post_worker_init(_worker: Worker) -> None:
    _collect()


def child_exit(_server: Arbiter, worker: Worker) -> None:
    """Forget what was true of a worker only while it lived."""
    if COUNTS not in os.environ:
        return
    # Only now: a library's import costs a start.
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.place)


def on_exit(server: Arbiter) -> None:
    if server.pid == os.getpid():
        shutil.rmtree(os.environ.pop(COUNTS, ""), ignore_errors=True)


try:
    # Its own mark in the environment comes later than this file.
    _config = Config.from_environment(os.environ | {"SERVER_SOFTWARE": "gunicorn"})
except ConfigError as error:
    _refuse(error)

wsgi_app = "app:create_app()"
bind = f"0.0.0.0:{_config.port}"
workers = _config.web_concurrency
worker_class = "worker.Worker"
threads = _config.web_threads
logger_class = RedactingLogger
accesslog = None
# Its control socket would be one for all the servers of this user.
control_socket_disable = True
# Shorter than the usual 30 s a platform waits between SIGTERM and SIGKILL.
graceful_timeout = 25
timeout = 30
keepalive = 5
# A page's address with its token is short, and no client of ours sends many headers.
limit_request_line = 8190
limit_request_field_size = 8190
limit_request_fields = 50
# What a proxy says is believed by TRUSTED_PROXIES alone (ProxyFix), not by gunicorn's own defaults.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
