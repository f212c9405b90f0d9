"""An upstream app for the tests, and the requests of its viewers' browsers and of its proxy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from werkzeug.test import TestResponse

from tests.support.people import PORTAL, Service, provision

SALES: Final = "5a1e5a1e-0000-4000-8000-000000000001"
UPSTREAM: Final = "http://10.0.0.7:8501"
APPS_URL: Final = "https://{app}.apps.portal.example"
#: Settings of a service that has upstream apps behind one proxy.
SETTINGS: Final = {"PUBLIC_URL": "https://{app}.embed.example", "TRUSTED_PROXIES": "1"}
#: The headers of a browser's request that a page of the app sends.
OWN_PAGE: Final = {"Sec-Fetch-Site": "same-origin"}
#: What the proxy reports of the request that it asks about.
REPORT: Final = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/"}


def add_sales(service: Service, **changes: Any) -> None:
    """Add the app Sales of Acme, which runs elsewhere, or change it. Ana and Ben may open it."""
    people = ["ana@acme.test", "ben@acme.test"]
    sales = {"id": SALES, "slug": "sales", "name": "Sales", "workspace": "acme", "upstream": UPSTREAM}
    given = {"allowed_origins": [PORTAL], "users": people} | changes
    provision(service.app, {"apps": [sales | given]})


@dataclass
class Opened:
    """A frame of Sales: its host, its session, and the cookies that its browser has."""

    host: str
    jwt: str
    cookies: dict[str, str]
    answer: TestResponse

    @property
    def cookie(self) -> str:
        return cookie_header(self.cookies)


@dataclass
class Gateway:
    """The calls of viewers' browsers and of the proxy."""

    service: Service

    def mint(self, email: str = "ana@acme.test", **fields: Any) -> tuple[str, str]:
        """Return the host of the viewer's frame, and a token."""
        answer = self.service.mint(email=email, **({"appSlug": "sales"} | fields))
        assert answer.status_code == 201, answer.text
        address = urlsplit(answer.json["redirectUrl"])  # type: ignore[index]
        return address.netloc, parse_qs(address.query)["personal-access-token"][0]

    def hand_over(
        self, host: str, token: str, *, cookies: Mapping[str, str] | None = None, **fields: Any
    ) -> TestResponse:
        """Exchange a token as the script of a frame does."""
        client = self.service.app.test_client(use_cookies=False)
        body = {"accessToken": token, "parentOrigin": PORTAL, "ancestorOrigins": [PORTAL]} | fields
        headers = {"Host": host, "Cookie": cookie_header(cookies or {})}
        return client.post(f"/embed-apps/{SALES}/frame", json=body, headers=headers)

    def open(self, email: str = "ana@acme.test", **fields: Any) -> Opened:
        """Mint and open the frame of a viewer."""
        host, token = self.mint(email, **fields)
        answer = self.hand_over(host, token)
        assert answer.status_code == 200, answer.text
        return Opened(host, answer.json["session"], cookies_of(answer), answer)  # type: ignore[index]

    def session(self, frame: Opened, method: str = "GET", **headers: str) -> TestResponse:
        """Request the session as the frame's script does."""
        client = self.service.app.test_client(use_cookies=False)
        sent = {"Host": frame.host, "Authorization": f"Bearer {frame.jwt}", "Cookie": frame.cookie} | headers
        return client.open(f"/embed-apps/{SALES}/session", method=method, headers=sent)

    def ask(self, host: str, cookie: str, *, path: str = "auth", **headers: str | None) -> TestResponse:
        """Send the proxy's subrequest. None removes a header, and `_` in a name stands for a dash."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Host": host, "Cookie": cookie} | OWN_PAGE | REPORT | named
        client = self.service.app.test_client(use_cookies=False)
        given = {name: value for name, value in sent.items() if value is not None}
        return client.get(f"/internal/embed-{path}", headers=given)


def cookie_header(cookies: Mapping[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


def cookies_of(answer: TestResponse) -> dict[str, str]:
    """Return the cookies that the answer sets, without those that it expires."""
    pairs = [cookie.partition(";")[0] for cookie in answer.headers.getlist("Set-Cookie")]
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs) if value}


def refusal_of(answer: TestResponse) -> tuple[int, str]:
    """Return the status and the code of the service's refusal."""
    return answer.status_code, answer.headers["X-Embed-Code"]
