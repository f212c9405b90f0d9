"""`flask --app app run` on a laptop, from a fresh checkout without any settings."""

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.deploy.test_gunicorn import MALFORMED, send_raw
from tests.support.http_calls import Answer, HttpConnection, jwt_of
from tests.support.people import KEY, MINT, MINT_BODY, ORDERS, PORTAL, basic, make_secret
from tests.support.servers import WebServer, flask_run, free_port, wait_for, web_server

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[3]
SECRET = make_secret("s")
DIRECTORY = f"""
[[workspaces]]
slug = "acme"
[[users]]
email = "ana@acme.test"
workspaces = {{ acme = "end-user" }}
[[apps]]
id = "{ORDERS}"
slug = "orders"
workspace = "acme"
allowed_origins = ["{PORTAL}"]
users = ["ana@acme.test"]
[[clients]]
id = "portal"
secret = "{SECRET}"
"""


@dataclass
class Laptop:
    """Start the server in a fresh checkout."""

    folder: Path
    server: WebServer

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with HttpConnection(self.server.port) as caller:
            return caller.send(method, path, body, sent)

    def mint(self, **headers: str) -> dict[str, str]:
        minted: dict[str, str] = self.call(
            "POST", MINT, dict(MINT_BODY), **headers, **basic("portal", SECRET)
        ).json
        return minted

    def flask(self, *args: str) -> None:
        command = [sys.executable, "-m", "flask", "--app", "app", *args]
        subprocess.run(command, cwd=self.folder, env={"PATH": os.environ["PATH"]}, check=True, timeout=60)


def checkout(folder: Path) -> Path:
    """Return the project without an instance folder. The files are links to the real ones."""
    parts = ("app.py", "config.py", "pat_service", "apps", "demo", "templates", "static", "migrations")
    for part in parts:
        (folder / part).symlink_to(PROJECT / part)
    return folder


@contextmanager
def running(folder: Path, **environ: str) -> Iterator[Laptop]:
    log = folder / "log"
    with flask_run(environ, cwd=folder, log=log) as server:
        yield Laptop(folder, server)


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    with running(checkout(tmp_path_factory.mktemp("checkout"))) as laptop:
        yield laptop


@pytest.fixture(scope="module")
def peopled(laptop: Laptop) -> Laptop:
    """The same server, with Ana and her app."""
    (laptop.folder / "directory.toml").write_text(DIRECTORY)
    laptop.flask("provision", "directory.toml")
    return laptop


def test_the_first_start_creates_the_schema_and_the_start_page_explains_the_demo(laptop: Laptop) -> None:
    answer = laptop.call("GET", "/")
    assert answer.status == 200
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    command = f"flask --app app demo load --origin http://localhost:{laptop.server.port}"
    assert command in answer.text
    assert {path.name for path in (laptop.folder / "instance").iterdir()} >= {"pat-service.db", "secret_key"}
    assert stat.S_IMODE((laptop.folder / "instance" / "secret_key").stat().st_mode) == 0o600


def test_the_server_prints_one_address(laptop: Laptop) -> None:
    printed = re.findall(r"https?://\S+", laptop.server.log.read_text())
    assert [address for address in printed if "//console." not in address] == [
        f"http://localhost:{laptop.server.port}/"
    ]


def test_ana_mints_and_opens_and_the_log_has_no_token(peopled: Laptop) -> None:
    minted = peopled.mint()
    token = minted["personalAccessToken"]
    parts = urlsplit(minted["redirectUrl"])
    page = peopled.call("GET", f"{parts.path}?{parts.query}", Sec_Fetch_Dest="iframe")
    assert page.status == 200
    jwt = jwt_of(page)
    peopled.call("GET", f"/nowhere?personal-access-token={token}", Referer=minted["redirectUrl"])
    peopled.call("GET", f"{parts.path}/pages/index?x={jwt}", Authorization=f"Bearer {jwt}")
    peopled.call("GET", f"/static/{token}")
    for request in MALFORMED:
        filled = request.format(path=f"{parts.path}?{parts.query}", token=token, basic="")
        send_raw(peopled.server, filled + "\r\n\r\n")
    log = peopled.server.log.read_text()
    assert log.count('"request_id"') >= 6
    for secret in (token, token[4:], jwt, jwt.split(".")[2], SECRET):
        assert secret not in log


def test_a_request_cannot_send_escape_sequences_to_the_terminal(tmp_path: Path) -> None:
    """Any web page can make a developer's browser request an address of a local server."""
    port = free_port()
    serve = [sys.executable, "-m", "flask", "--app", "app", "run", "--port", str(port)]
    in_terminal = [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])", *serve]
    folder = checkout(tmp_path)
    with web_server(in_terminal, {}, port=port, cwd=folder) as server:
        Laptop(folder, server).call("GET", "/%1b%5d0;owned%07%1b%5b2Jhello%e2%80%ae")
        wait_for(lambda: "hello" in server.log.read_text())
        printed = server.log.read_text()
    assert r"\x1b]0;owned\x07\x1b[2Jhello\u202e" in printed
    assert [text for text in ("\x07", "\x1b]", "\x1b[2J", "\u202e") if text in printed] == []


def test_http_1_1_without_a_host_is_400(laptop: Laptop) -> None:
    def status(request: str) -> bytes:
        with socket.create_connection(("127.0.0.1", laptop.server.port), timeout=30) as connection:
            connection.sendall(f"{request}Connection: close\r\n\r\n".encode())
            return connection.makefile("rb").readline().split()[1]

    assert status("GET /healthz HTTP/1.1\r\n") == b"400"
    assert status("GET /healthz HTTP/1.0\r\n") == b"200"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "mallory.example"},
        {"Host": "mallory.example:80", "X_Forwarded_Host": "mallory.example"},
        {"X_Forwarded_Proto": "https", "X_Forwarded_Port": "1", "X_Forwarded_Prefix": "/mallory"},
        {"Forwarded": "host=mallory.example;proto=https", "X_Original_Host": "mallory.example"},
        {"Host": "localhost"},
        {"Host": "127.0.0.1@mallory.example"},
    ],
    ids=str,
)
def test_the_redirect_url_is_the_servers_own_loopback_address(
    peopled: Laptop, headers: dict[str, str]
) -> None:
    minted = peopled.mint(**headers)
    assert minted["redirectUrl"] == (
        f"http://127.0.0.1:{peopled.server.port}/embed-apps/{ORDERS}"
        f"?personal-access-token={minted['personalAccessToken']}"
    )


def test_a_demo_loaded_later_appears_without_a_restart(laptop: Laptop) -> None:
    portal = f"localhost:{laptop.server.port}"
    laptop.flask("demo", "load", "--origin", f"http://{portal}")
    answer = laptop.call("GET", "/")
    assert (answer.status, answer.headers["Location"]) == (
        302,
        f"http://{portal}/",
    )  # a frame needs another site
    answer = laptop.call("GET", "/", Host=portal)
    assert answer.status == 200
    assert "demo load" not in answer.text
    saved = json.loads((laptop.folder / "instance" / "demo.json").read_text())
    assert stat.S_IMODE((laptop.folder / "instance" / "demo.json").stat().st_mode) == 0o600
    for client in saved["clients"].values():
        assert client["secret"] not in answer.text


def test_a_second_start_keeps_key_and_data(tmp_path: Path) -> None:
    checkout(tmp_path)
    (tmp_path / "directory.toml").write_text(DIRECTORY)
    with running(tmp_path) as laptop:
        laptop.flask("provision", "directory.toml")
        token = laptop.mint()["personalAccessToken"]
    with running(tmp_path) as laptop:
        path = f"/embed-apps/{ORDERS}?personal-access-token={token}"
        assert laptop.call("GET", path).status == 200


@pytest.mark.parametrize("server", ["flask", "gunicorn"])
def test_an_app_that_declares_a_wrong_source_stops_the_start(tmp_path: Path, server: str) -> None:
    checkout(tmp_path)
    for file in ("worker.py", "gunicorn.conf.py"):
        (tmp_path / file).symlink_to(PROJECT / file)
    (tmp_path / "apps").unlink()
    shutil.copytree(PROJECT / "apps", tmp_path / "apps")
    stock = tmp_path / "apps" / "stock"
    stock.mkdir()
    (stock / "__init__.py").write_text(
        "from pat_service.embed import EmbeddedApp\napp = EmbeddedApp(csp={'img-src': ['*']})\n"
    )
    env = {
        **{"PATH": os.environ["PATH"], "SECRET_KEY": KEY, "PUBLIC_URL": "https://embed.example"},
        "DATABASE_URL": f"sqlite:///{tmp_path / 'pat.db'}",
    }
    flask = [sys.executable, "-m", "flask", "--app", "app"]
    command = [*flask, "check"]
    if server == "gunicorn":
        (stock / "__init__.py").rename(tmp_path / "later.py")
        subprocess.run([*flask, "db", "upgrade"], cwd=tmp_path, env=env, check=True, capture_output=True)
        (tmp_path / "later.py").rename(stock / "__init__.py")
        command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{free_port()}"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    line = "pat-service: apps/stock: csp has '*' in img-src: allowed are exact https origins, data:, blob:"
    assert line in done.stderr.splitlines()
    assert "Traceback" not in done.stderr


def test_make_run_on_a_busy_port_changes_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        command = ["make", "run", f"PORT={port}", f"PYTHON={sys.executable}", f"VENV={tmp_path / 'venv'}"]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert f"Port {port} cannot be used" in done.stderr
    assert "make run PORT=8080" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_public_url_on_the_internet_brings_no_schema_and_no_portal(tmp_path: Path) -> None:
    """A public address means a deployment, and there `db upgrade` creates the schema."""
    checkout(tmp_path)
    with running(tmp_path, PUBLIC_URL="https://embed.example", SECRET_KEY=KEY) as laptop:
        assert laptop.call("GET", "/").json["name"] == "pat-service"
        answer = laptop.call("POST", MINT, {}, **basic("portal", SECRET))
        assert (answer.status, bool(answer.headers["Retry-After"])) == (503, True)
    names = {path.name for path in (tmp_path / "instance").glob("secret_key*")}
    assert names == set()
