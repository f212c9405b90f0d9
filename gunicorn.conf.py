"""gunicorn's settings. The service writes its own access log; gunicorn's would hold tokens."""

import os
import sys

from gunicorn.arbiter import Arbiter
from gunicorn.config import Config as GunicornConfig
from gunicorn.glogging import Logger

from config import Config, ConfigError, check_workers
from pat_service.http.log import RedactingFormatter


class RedactingLogger(Logger):
    """gunicorn's own log, in which a request that it cannot read may stand word for word."""

    def setup(self, cfg: GunicornConfig) -> None:
        super().setup(cfg)
        for log, text in ((self.error_log, self.error_fmt), (self.access_log, self.access_fmt)):
            for handler in log.handlers:
                handler.setFormatter(RedactingFormatter(text, self.datefmt))


def _refuse(error: ConfigError) -> None:
    print(f"pat-service: {error}", file=sys.stderr)
    sys.exit(1)


def on_starting(server: Arbiter) -> None:
    """Refuse, before a port is opened, what would start and then not be safe."""
    try:
        check_workers(server.cfg.workers, Config.from_environment().redis_url)
    except ConfigError as error:
        _refuse(error)


try:
    # Its own mark in the environment comes later than this file.
    _config = Config.from_environment(os.environ | {"SERVER_SOFTWARE": "gunicorn"})
except ConfigError as error:
    _refuse(error)

bind = f"0.0.0.0:{_config.port}"
workers = _config.workers
worker_class = "worker.Worker"
threads = _config.threads
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
