"""The relay process: `python relay.py`. It serves the WebSockets of apps that run elsewhere.

A proxy in front sends it every request with `Upgrade: websocket` for the host of such an app.
"""

import asyncio
import logging
import resource
import signal
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from config import ConfigError, RelayConfig
from pat_service.observability import lines
from pat_service.relay.service import Service
from pat_service.relay.sockets import Relay

#: A socket has a connection to the client and one to the app. As many clients may wait for a refusal.
FILES_PER_SOCKET: Final = 3
OTHER_FILES: Final = 50
#: Every client comes back at once after a restart.
BACKLOG: Final = 1024

_log = logging.getLogger("pat_service.relay")


def _allow_files(sockets: int) -> None:
    """Raise the limit of open files, or raise ConfigError if the system's maximum is too low."""
    needed = FILES_PER_SOCKET * sockets + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"RELAY_MAX_SOCKETS={sockets} needs {needed} open files: raise `ulimit -Hn`, now {hard}"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


async def _listen(config: RelayConfig, relay: Relay) -> asyncio.Server:
    address = config.relay_listen
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        server = await asyncio.start_unix_server(relay.accept, path, backlog=BACKLOG)
        # As gunicorn's socket: its folder decides who can reach it.
        path.chmod(0o777)
        return server
    url = urlsplit(address)
    return await asyncio.start_server(relay.accept, url.hostname, url.port, backlog=BACKLOG)


async def serve(config: RelayConfig) -> None:
    """Serve until SIGTERM or SIGINT, then close every socket."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    service = Service(*config.relay_service)
    relay = Relay(service, config.relay_upstreams, config.relay_max_sockets)
    server = await _listen(config, relay)
    _log.info(
        "The relay listens on %s for %s", config.relay_listen, ", ".join(sorted(config.relay_upstreams))
    )
    await stop.wait()
    server.close()
    await relay.stop()
    _log.info("The relay has stopped")


def main() -> None:
    """Run the relay. One line says what keeps it from starting."""
    lines.configure()
    _log.setLevel(logging.INFO)
    try:
        config = RelayConfig.from_environment()
        _allow_files(config.relay_max_sockets)
        asyncio.run(serve(config))
    except ConfigError as error:
        sys.exit(f"pat-service: {error}")
    except OSError as error:
        sys.exit(f"pat-service: RELAY_LISTEN cannot be used: {error.strerror}")


if __name__ == "__main__":
    main()
