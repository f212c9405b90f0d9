"""Uploads of an app with `max_upload`, through both proxies and gunicorn."""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.deploy.conftest import installed_or_skipped
from tests.e2e.deploy.load import Connection, visit
from tests.support import servers
from tests.support.people import KEY, ORDERS, PUBLIC_URL, long_lived_service
from tests.support.servers import Proxy, WebServer, gunicorn

pytestmark = pytest.mark.slow

MB: Final = 1024 * 1024
PROXIES: Final[dict[str, Callable[..., AbstractContextManager[Proxy]]]] = {
    "nginx": servers.nginx,
    "caddy": servers.caddy,
}
CONTENT: Final = bytes(range(256)) * (5 * MB // 512)
PARTS: Final = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="stock.bin"\r\n\r\n',
    b"\r\n--x--\r\n",
)


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sockets")


@pytest.fixture(scope="module")
def service(schema: Path, sockets: Path) -> Iterator[WebServer]:
    with long_lived_service(schema, sockets):
        environ = {
            "SECRET_KEY": KEY,
            "PUBLIC_URL": PUBLIC_URL,
            "DATABASE_URL": f"sqlite:///{sockets / 'pat-service.db'}",
            "TRUSTED_PROXIES": "1",
            "FAILURE_RATE_LIMIT": "1000 per minute",
        }
    app = "tests.support.upload_app:create_app()"
    with gunicorn(environ, workers=1, at=sockets / "1.sock", log=sockets / "service.log", app=app) as server:
        yield server


def upload(proxy: Proxy, session: str, content: bytes, *, chunked: bool) -> tuple[int, str]:
    """Send the file as a form, and return the status and text of the answer."""
    headers = {
        "Authorization": f"Bearer {session}",
        "Accept": "application/json",
        "Content-Type": "multipart/form-data; boundary=x",
    }
    body = PARTS[0] + content + PARTS[1]
    pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))
    with contextlib.closing(Connection(proxy.port, tls=True)) as connection:
        # A proxy may answer before it has the whole body, and close.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(
                "POST",
                f"/embed-apps/{ORDERS}/data/store",
                pieces if chunked else body,
                headers,
                encode_chunked=chunked,
            )
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def session_of_ana(proxy: Proxy) -> str:
    with contextlib.closing(Connection(proxy.port, tls=True)) as connection:
        page = visit(connection)[1][1]
    found = re.search(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", page)
    assert found
    return found[0]


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.usefixtures("service")
def test_ana_uploads_through_a_proxy_that_has_the_size(name: str, sockets: Path) -> None:
    with installed_or_skipped(partial(PROXIES[name], body_mb=4))(sockets) as proxy:
        session = session_of_ana(proxy)
        for chunked in (False, True):
            status, text = upload(proxy, session, CONTENT, chunked=chunked)
            assert (status, text) == (200, f'"{hashlib.sha256(CONTENT).hexdigest()}"\n')
            status, text = upload(proxy, session, bytes(3 * MB), chunked=chunked)
            assert status == 413
            assert json.loads(text)["detail"].endswith("at most 3 MB.")
        assert upload(proxy, "eyJ.x.y", CONTENT, chunked=False)[0] == 401


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.usefixtures("service")
def test_a_proxy_as_it_is_refuses_a_larger_upload_itself(name: str, sockets: Path) -> None:
    with installed_or_skipped(PROXIES[name])(sockets) as proxy:
        status, text = upload(proxy, session_of_ana(proxy), CONTENT, chunked=False)
    assert (status, "payload_too_large" in text) == (413, False)
