"""`make run`: the demo on this machine, with an app that runs elsewhere: `python -m demo.laptop`.

Caddy listens on the port, in front of the service and of the app. Without Caddy, or if PUBLIC_URL has no
`{app}`, the service listens on the port itself, and the portal has no such app. All files are in instance/.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

from marshmallow import ValidationError

from demo import people
from pat_service.addresses import APP_LABEL, CONSOLE_IN_DEVELOPMENT, parse_upstream

PROJECT: Final = Path(__file__).resolve().parents[1]
GATEWAY: Final = PROJECT / "docs/operate/gateway.Caddyfile"
FOLDER: Final = PROJECT / "instance/caddy"
LOOPBACK: Final = "127.0.0.1"
PUBLIC_URL: Final = "http://{{app}}.embed.localhost:{port}"
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 3.0
PROBE_SECONDS: Final = 3.0
#: The texts of GATEWAY that a laptop changes.
INSTANCES: Final = "unix//run/pat-service/1.sock unix//run/pat-service/2.sock"
FIRST_INSTANCE: Final = "unix//run/pat-service/1.sock"
LISTED: Final = '"http://10.0.0.7:8501" 10.0.0.7:8501 http'
CADDYFILE: Final = """{{
	admin off
	auto_https off
	persist_config off
	storage file_system {folder}/storage
	log {{
		level ERROR
	}}
}}

import gateway.Caddyfile

http://:{port} {{
	bind {host}
	import gateway
	handle {{
		respond /internal/* 404
		reverse_proxy {service} {{
			# The service may be loading changed code.
			lb_try_duration 5s
		}}
	}}
}}
"""


def _stop(text: str) -> NoReturn:
    sys.exit(f"make run: {text}")


def read_upstream(text: str) -> tuple[str, str]:
    """Return the address of the newcomer's app and its first path, or stop with what is wrong."""
    parts = urlsplit(text if "://" in text else f"http://{text}")
    start = parts.path or "/"
    if parts.query:
        start += f"?{parts.query}"
    try:
        address = parse_upstream(f"{parts.scheme}://{parts.netloc}")
    except ValidationError:
        _stop(f"UPSTREAM={text} is not an address such as http://127.0.0.1:8501")
    if not _answers(address):
        _stop(f"nothing answers at {address}. Start your app first, or correct UPSTREAM={text}")
    return address, start


def _answers(address: str) -> bool:
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), PROBE_SECONDS):
            return True
    except OSError:
        return False


def free_port() -> int:
    with closing(socket.create_server((LOOPBACK, 0))) as listener:
        return int(listener.getsockname()[1])


def write_caddyfile(folder: Path, port: int, service: str, upstreams: Sequence[str]) -> Path:
    """Write the configuration: the documented one for upstream apps, for this machine. Return its path."""
    lines = [f'"{each}" {_target(each)} {urlsplit(each).scheme}' for each in upstreams]
    gateway = GATEWAY.read_text(encoding="utf-8")
    for old, new in ((INSTANCES, service), (FIRST_INSTANCE, service), (LISTED, "\n\t\t".join(lines))):
        if old not in gateway:
            raise RuntimeError(f"{GATEWAY} has no {old}")
        gateway = gateway.replace(old, new)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / GATEWAY.name).write_text(gateway, encoding="utf-8")
    path = folder / "Caddyfile"
    path.write_text(
        CADDYFILE.format(folder=folder, port=port, host=LOOPBACK, service=service), encoding="utf-8"
    )
    return path


def _target(upstream: str) -> str:
    parts = urlsplit(upstream)
    default_port = 443 if parts.scheme == "https" else 80
    return parts.netloc if parts.port else f"{parts.netloc}:{default_port}"


def find_caddy() -> str | None:
    """Return the path of pip's Caddy. An older one of the system may not know the configuration."""
    return shutil.which("caddy", path=Path(sys.executable).parent)


class Processes:
    """The demo's processes. They end together."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], **environ: str) -> None:
        # In this process's group, so that Ctrl-C reaches them and a debugger can read the terminal.
        self._running[name] = subprocess.Popen(command, cwd=PROJECT, env=os.environ | environ)

    def wait_for(self, port: int) -> None:
        """Return when the port answers, or stop if a process ends before."""
        end = time.monotonic() + START_SECONDS
        while not _answers(f"http://{LOOPBACK}:{port}"):
            self._check()
            if time.monotonic() > end:
                _stop(f"nothing answered on port {port} within {START_SECONDS:.0f} s")
            time.sleep(0.05)

    def watch(self) -> NoReturn:
        """Stop when one of them ends."""
        while True:
            self._check()
            time.sleep(0.5)

    def _check(self) -> None:
        for name, process in self._running.items():
            if process.poll() is not None:
                _stop(f"{name} has ended with {process.returncode}")

    def end(self, *, interrupted: bool) -> None:
        """End them all. `interrupted`: Ctrl-C has reached them already."""
        if not interrupted or not self._have_ended(STOP_SECONDS):
            for process in self._running.values():
                # On this signal, a server that reloads code ends both of its processes.
                process.send_signal(signal.SIGINT)
        if not self._have_ended(STOP_SECONDS):
            for process in self._running.values():
                process.kill()

    def _have_ended(self, within: float) -> bool:
        end = time.monotonic() + within
        while any(process.poll() is None for process in self._running.values()):
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True


@contextmanager
def _processes() -> Iterator[Processes]:
    processes, interrupted = Processes(), False
    try:
        yield processes
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        # A second Ctrl-C must not leave one behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        processes.end(interrupted=interrupted)


def _flask(app: str, *command: str) -> list[str]:
    return [sys.executable, "-m", "flask", "--app", app, *command]


def load(port: int, *options: str, **environ: str) -> None:
    """Bring the schema and the demo up to date, or stop."""
    command = _flask("app", "demo", "load", "--origin", f"http://localhost:{port}", *options)
    done = subprocess.run(command, cwd=PROJECT, env=os.environ | environ, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def run_alone(port: int) -> NoReturn:
    """Run the service alone."""
    load(port)
    with _processes() as processes:
        processes.start("the service", _flask("app", "run", "--port", str(port)))
        processes.watch()


def run_behind(caddy: str, port: int, public_url: str, upstream: str | None) -> NoReturn:
    """Run Caddy on the port, in front of the service and of an app that runs elsewhere."""
    service_port, app_port = free_port(), free_port()
    slug = people.YOUR_APP if upstream else people.DELIVERIES
    address, start = read_upstream(upstream) if upstream else (f"http://{LOOPBACK}:{app_port}", "/")
    config = write_caddyfile(FOLDER, port, f"{LOOPBACK}:{service_port}", [address])
    load(port, "--upstream", slug, address, start, PUBLIC_URL=public_url)
    with _processes() as processes:
        if not upstream:
            processes.start("the deliveries app", [sys.executable, "-m", "demo.deliveries", str(app_port)])
        processes.start(
            "the service",
            _flask("app", "run", "--port", str(service_port)),
            PUBLIC_URL=public_url,
            CONSOLE_URL=f"http://{CONSOLE_IN_DEVELOPMENT}:{port}",
            TRUSTED_PROXIES="1",
            DEMO_PROXY_PORT=str(port),
        )
        processes.wait_for(service_port)
        processes.start(
            "Caddy",
            [caddy, "run", "--config", str(config), "--adapter", "caddyfile"],
            **dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(FOLDER)),
        )
        processes.wait_for(port)
        print(f" * Open http://localhost:{port}/" + (f"#/ana/{slug}" if upstream else ""), flush=True)
        processes.watch()


def main() -> NoReturn:
    """Run the demo until Ctrl-C, or until one of its processes ends."""
    parser = argparse.ArgumentParser(prog="python -m demo.laptop", description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--upstream", help="the address of your own running app")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    caddy, public_url = find_caddy(), os.environ.get("PUBLIC_URL") or PUBLIC_URL.format(port=options.port)
    try:
        if caddy and APP_LABEL in public_url:
            run_behind(caddy, options.port, public_url, options.upstream)
        obstacle = "PUBLIC_URL has no {app}" if caddy else "pip finds no Caddy for this machine"
        if options.upstream:
            _stop(f"UPSTREAM cannot be embedded, since {obstacle}")
        print(f"The portal shows no app that runs elsewhere, since {obstacle}.", flush=True)
        run_alone(options.port)
    except OSError as error:
        _stop(f"{error.filename} cannot be used: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
