"""Operators at the console: Olga owns it, Otto operates Acme, Vera only sees Acme."""

import re
from typing import Any, Final
from urllib.parse import urlsplit

from werkzeug.test import TestResponse

from pat_service.http.authentication import keyring, utcnow
from pat_service.rules import console_sessions, operators
from tests.support.people import Service

CONSOLE_URL: Final = "https://console.example"
OLGA: Final = "olga@acme.test"
OTTO: Final = "otto@acme.test"
VERA: Final = "vera@acme.test"
#: Each operator's role and workspaces.
OPERATORS: Final = {
    OLGA: ("owner", ()),
    OTTO: ("operator", ("acme",)),
    VERA: ("viewer", ("acme",)),
}
SAME_ORIGIN: Final = {"Sec-Fetch-Site": "same-origin"}
_TOKEN: Final = re.compile(r'name="csrf_token" value="([0-9a-f]{64})"')


def add_operators(service: Service) -> None:
    with service.app.app_context():
        for email, (role, workspaces) in OPERATORS.items():
            operators.put(email, role, workspaces, utcnow())


def make_link(service: Service, email: str = OLGA) -> str:
    """Return the secret part of a new sign-in link."""
    with service.app.app_context():
        return console_sessions.create_link(keyring(), email, utcnow()).reveal()


class Browser:
    """A browser at the console, signed in or not."""

    def __init__(self, service: Service, email: str | None = None, origin: str = CONSOLE_URL) -> None:
        self.service, self.origin = service, origin
        self.client = service.app.test_client()
        self._csrf_token = ""
        if email is not None:
            answer = self.use_link(make_link(service, email))
            assert answer.status_code == 303, answer.text

    @property
    def csrf_token(self) -> str:
        """The token of the session's forms, which is read at the first change; "" before the sign-in."""
        if not self._csrf_token and self.cookie is not None:
            found = _TOKEN.search(self.get("/sessions").text)
            assert found is not None
            self._csrf_token = found[1]
        return self._csrf_token

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.client.get(path, base_url=self.origin, **options)

    def post(self, path: str, *, headers: dict[str, str] = SAME_ORIGIN, **fields: Any) -> TestResponse:
        """Send a form with the session's CSRF token, unless the fields have another."""
        data: dict[str, Any] = {"csrf_token": self.csrf_token} | fields
        return self.client.post(path, base_url=self.origin, data=data, headers=headers)

    def use_link(self, link: str, **fields: Any) -> TestResponse:
        return self.post("/sign-in/link", link=link, **fields)

    @property
    def cookie(self) -> str | None:
        """The value of the session's cookie."""
        found = self.client.get_cookie("__Host-pat-console", urlsplit(self.origin).hostname or "")
        return found.value if found else None
