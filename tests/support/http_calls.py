"""HTTP calls over real sockets, in one line each."""

import http.client
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlencode

from tests.support.people import MINT, ORDERS, basic
from tests.support.servers import WebServer

EXCHANGE: Final = "/api/ext/users/session"
#: Seconds to wait for an answer. A test of response times sets its own.
TIMEOUT_SECONDS: Final = 60
#: An older idle connection is replaced: the server may be about to close it.
IDLE_SECONDS: Final = 2

Result = TypeVar("Result")


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        """`served`, or the code of the refusal."""
        return "served" if self.status < 400 else str(self.json["code"])


class HttpConnection:
    """A client connection that stays open between calls."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
        self._used_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def call(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: str | None = None
    ) -> Answer:
        """Call, and return the answer. After an error, the next call opens a new connection."""
        if time.monotonic() - self._used_at > IDLE_SECONDS:
            self._connection.close()
        try:
            self._connection.request(method, path, body, headers or {})
            answer = self._connection.getresponse()
            self._used_at = time.monotonic()
            return Answer(answer.status, answer.headers, answer.read().decode())
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def send(
        self, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Call with a JSON body, or without a body."""
        if body is None:
            return self.call(method, path, headers)
        kind = {"Content-Type": "application/json"}
        return self.call(method, path, (headers or {}) | kind, json.dumps(body))

    def mint(self, client: str = "portal", secret: str | None = None, **fields: Any) -> Answer:
        usual = {"email": "ana@acme.test", "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 1000}
        return self.send("POST", MINT, usual | fields, basic(client, secret))

    def open(self, token: str, app_id: str = ORDERS, **headers: str) -> Answer:
        """Open a frame by address."""
        query = urlencode({"personal-access-token": token})
        return self.call("GET", f"/embed-apps/{app_id}?{query}", headers)

    def exchange(self, token: str, app_id: str = ORDERS) -> Answer:
        """Open a session for a program."""
        return self.send("POST", EXCHANGE, {"appId": app_id, "accessToken": token})

    def facts(self, jwt: str, app_id: str = ORDERS) -> Answer:
        return self.call("GET", f"/embed-apps/{app_id}/session", {"Authorization": f"Bearer {jwt}"})


def call(
    server: WebServer, method: str, path: str, headers: dict[str, str] | None = None, body: str | None = None
) -> Answer:
    with HttpConnection(server.port) as caller:
        return caller.call(method, path, headers, body)


def mint(server: WebServer, client: str = "portal", secret: str | None = None, **fields: Any) -> Answer:
    with HttpConnection(server.port) as caller:
        return caller.mint(client, secret, **fields)


def open_frame(server: WebServer, token: str, **headers: str) -> Answer:
    with HttpConnection(server.port) as caller:
        return caller.open(token, **headers)


def jwt_of(page: Answer) -> str:
    return re.findall(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", page.text)[0]


def run_concurrently(times: int, do: Callable[[int], Result]) -> list[Result]:
    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(do, range(times)))
