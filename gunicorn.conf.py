"""gunicorn's settings. The service writes its own access log, since gunicorn's would contain tokens."""

import gc
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

#: Environment variables of pat_service.metrics, which the master does not import.
FOLDER_VARIABLE, SLOT_VARIABLE = "PROMETHEUS_MULTIPROC_DIR", "PAT_SERVICE_WORKER"


class RedactingLogger(Logger):
    """gunicorn's own log, redacted, since it may quote a request that gunicorn cannot parse."""

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
    """Refuse an unsafe start. Warn about transient findings."""
    for finding in list_findings(_config, workers):
        if not finding.transient:
            _refuse(finding.text)
        server.log.warning(finding.text)


def on_starting(server: Arbiter) -> None:
    if not _config.metrics_token:
        os.environ.pop(FOLDER_VARIABLE, None)
        return
    # Named after this process: a master that replaces another one starts new counts.
    prefix = f"pat-service-{os.getpid()}-"
    if not Path(os.environ.get(FOLDER_VARIABLE, "")).name.startswith(prefix):
        try:
            os.environ[FOLDER_VARIABLE] = tempfile.mkdtemp(prefix=prefix)
        except OSError as error:
            os.environ.pop(FOLDER_VARIABLE, None)
            server.log.warning("Each worker counts its metrics separately: %s", error)


def nworkers_changed(server: Arbiter, new: int, old: int | None) -> None:
    """Check the start. Later refuse a worker (SIGTTIN) that would count the rate limits separately.

    gunicorn makes the first call before it opens a port or writes a log line.
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
    """Give the worker the lowest free slot. The worker continues the counts of that slot."""
    taken = {other.slot for other in server.WORKERS.values()}
    worker.slot = min(set(range(len(taken) + 1)) - taken)
    # Frozen objects stay in memory shared with the master: a worker has 33 MB of its own, not 44.
    gc.freeze()


def post_fork(_server: Arbiter, worker: Worker) -> None:
    os.environ[SLOT_VARIABLE] = str(worker.slot)


def child_exit(_server: Arbiter, worker: Worker) -> None:
    """Delete the gauges of a dead worker."""
    if FOLDER_VARIABLE not in os.environ:
        return
    # Imported late, since it would slow the start.
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.slot)


def on_exit(server: Arbiter) -> None:
    if server.pid == os.getpid():
        shutil.rmtree(os.environ.pop(FOLDER_VARIABLE, ""), ignore_errors=True)


try:
    # gunicorn sets SERVER_SOFTWARE only after it has read this file.
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
# All servers of a user would share the control socket.
control_socket_disable = True
# Below the 30 s that platforms usually wait between SIGTERM and SIGKILL.
graceful_timeout = 25
timeout = 30
keepalive = 5
limit_request_line = 8190
limit_request_field_size = 8190
# Proxies and platforms add headers of their own.
limit_request_fields = 100
# Only TRUSTED_PROXIES (ProxyFix) decides about a proxy's headers.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
