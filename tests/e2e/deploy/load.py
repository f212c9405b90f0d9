"""Back ends and viewers that mint and open without a pause, and record every wrong answer."""

import http.client
import json
import re
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlencode

from tests.support.people import MINT, ORDERS, basic
from tests.support.servers import HOST

#: Each user has its own token and session, so no other mint replaces them.
CROWD = [f"viewer{number}@acme.test" for number in range(8)]
ANSWER_SECONDS = 30


class Connection(http.client.HTTPConnection):
    """A connection to a port of this machine, with or without TLS."""

    def __init__(self, port: int, *, tls: bool = False) -> None:
        super().__init__(HOST, timeout=ANSWER_SECONDS)
        self._at, self._tls = port, tls

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self._at), timeout=ANSWER_SECONDS)
        self.sock = any_certificate().wrap_socket(plain, server_hostname=HOST) if self._tls else plain

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Return the status and text of the answer."""
        if body is not None:
            body, headers = json.dumps(body), headers | {"Content-Type": "application/json"}
        self.request(method, path, body, headers)
        answer = self.getresponse()
        return answer.status, answer.read().decode()


def any_certificate() -> ssl.SSLContext:
    """Return a context that accepts the certificate made for the test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def minting(email: str = "ana@acme.test") -> dict[str, Any]:
    return {"email": email, "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 1000}


def visit(connection: Connection, email: str = "ana@acme.test") -> list[tuple[int, str]]:
    """Mint, open, and send one request with the session. Stop at the first refusal; return the answers."""
    answers = [connection.ask("POST", MINT, minting(email), **basic("portal"))]
    if answers[-1][0] != 201:
        return answers
    query = urlencode({"personal-access-token": json.loads(answers[-1][1])["personalAccessToken"]})
    answers.append(connection.ask("GET", f"/embed-apps/{ORDERS}?{query}"))
    if jwt := re.search(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", answers[-1][1]):
        bearer = {"Authorization": f"Bearer {jwt[0]}"}
        answers.append(connection.ask("GET", f"/embed-apps/{ORDERS}/session", **bearer))
    return answers


@dataclass
class Load:
    """Visits by each user of the crowd, repeated while the block runs.

    Half of the users keep their connection, as a back end does. The others open a new one for each visit.

    A session of another user counts as a failure.
    """

    port: int
    tls: bool = False
    #: Seconds between two visits, so that the load does not overload the server.
    pause: float = 0.1
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        for number, email in enumerate(CROWD):
            self._threads.append(threading.Thread(target=self._go_on, args=(email, number % 2 == 0)))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self, email: str, keep: bool) -> None:
        connection = Connection(self.port, tls=self.tls)
        while not self._stop.is_set():
            try:
                answers = visit(connection, email)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            self.answered += len(answers)
            if [status for status, _ in answers] != [201, 200, 200]:
                self.failures.append(str(answers)[-300:])
            elif (seen := json.loads(answers[-1][1])["user"]["email"]) != email:
                self.failures.append(f"{email} was let in as {seen}")
            if not keep:
                connection.close()
            self._stop.wait(self.pause)
        with suppress(OSError):
            connection.close()
