"""A pytest plugin for apps: open an app's frame as a user, without a browser.

One line in a test module or in `conftest.py` loads it: `pytest_plugins = ["pat_service.testing"]`. The apps
are those of APPS_PATH, and those whose tests are running. Each test has an empty database.

A test module may import this module before pytest does (PYTEST_DONT_REWRITE: it has no assertions).
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from shutil import copy
from typing import Any, Final

import pytest
from flask import Flask
from sqlalchemy import Connection
from werkzeug.test import Client, TestResponse

import config
from app import create_app
from pat_service.app_folders import INCLUDED
from pat_service.cli import upgrade_schema
from pat_service.http.authentication import utcnow
from pat_service.rules import file_provisioning
from pat_service.storage.database import db, transaction

__all__ = ["AppFrame", "OpenApp", "open_app"]

_PUBLIC_URL: Final = "https://embed.example"
_CLIENT: Final = "tests"
_DATABASE: Final = "test.db"
_UNLIMITED: Final = "1000000 per minute"


@dataclass(frozen=True)
class AppFrame:
    """An open frame. Its methods send what the frame's script sends, and return Werkzeug's responses."""

    #: The answer with the app's first page.
    first_page: TestResponse
    #: The viewer as the app's functions get it: `user`, `app`, `workspace` and `role`.
    viewer: Mapping[str, Any]
    _client: Client = field(repr=False)
    _session: str = field(repr=False)

    def page(self, name: str, **query: Any) -> TestResponse:
        """Request a page, as a link to `page_url` does."""
        return self._send("GET", f"pages/{name}", query_string=query)

    def submit(self, name: str, form: Mapping[str, Any] | None = None, **query: Any) -> TestResponse:
        """Post a form. A file is a tuple of a binary stream and a file name."""
        return self._send("POST", f"pages/{name}", data=dict(form or {}), query_string=query)

    def data(self, name: str, **query: Any) -> TestResponse:
        """Read data, as a request to `data_url` does."""
        return self._send("GET", f"data/{name}", query_string=query)

    def send_data(self, name: str, **request: Any) -> TestResponse:
        """Post to data. `request` has what Werkzeug's test client takes, such as `json` or `data`."""
        return self._send("POST", f"data/{name}", **request)

    def _send(self, method: str, path: str, **request: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self._session}"}
        if (method == "POST" and not {"data", "json"} & request.keys()) or request.get("data") == {}:
            request["content_type"] = "application/x-www-form-urlencoded"
        address = f"/embed-apps/{self.viewer['app']['id']}/{path}"
        return self._client.open(address, method=method, headers=headers, buffered=True, **request)


class OpenApp:
    """Opens apps for users. Users, workspaces and grants are created as needed."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._secret = token_hex(32)
        self._users: dict[tuple[str, str], set[str]] = {}

    def __call__(
        self,
        app: str,
        *,
        email: str = "ana@example.com",
        name: str = "Ana",
        role: str = "end-user",
        workspace: str = "acme",
        attributes: Mapping[str, Any] | None = None,
    ) -> AppFrame:
        """Open the app in the folder `app` for a user, with the mint's `attributes`."""
        slug = app if workspace == "acme" else f"{app}-{workspace}"
        self._provision(app, slug, email, name, role, workspace)
        client = self._app.test_client()
        body = {"email": email, "appSlug": slug, "sessionExpiry": 60, "patExpiry": 3600}
        minted = client.post(
            "/api/ext/users/personal-access-token",
            json=body | ({"attributes": attributes} if attributes else {}),
            auth=(_CLIENT, self._secret),
        )
        if minted.status_code != 201:
            raise AssertionError(f"the token was refused: {minted.text}")
        address = minted.get_json()["redirectUrl"].removeprefix(_PUBLIC_URL)
        first_page = client.get(address, headers={"Sec-Fetch-Dest": "iframe"}, buffered=True)
        if first_page.status_code != 200:
            raise AssertionError(f"the app did not open: {first_page.status_code} {first_page.text}")
        boot = _read_boot(first_page.text)
        return AppFrame(first_page, boot["viewer"], client, boot["session"])

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Give a connection to the app's rows, which commits at the end of the block."""
        with self._app.app_context(), transaction() as connection:
            yield connection

    def _provision(self, app: str, slug: str, email: str, name: str, role: str, workspace: str) -> None:
        users = self._users.setdefault((workspace, slug), set())
        users.add(email)
        client = {"id": _CLIENT, "secret": self._secret, "all_workspaces": True, "mint_limit": _UNLIMITED}
        document = {
            "workspaces": [{"slug": workspace, "name": workspace.title()}],
            "users": [{"email": email, "name": name, "workspaces": {workspace: role}}],
            "apps": [
                {
                    "slug": slug,
                    "name": app.title(),
                    "workspace": workspace,
                    "template": app,
                    "allowed_origins": ["https://portal.example"],
                    "users": sorted(users),
                }
            ],
            "clients": [client],
        }
        with self._app.app_context():
            keyring = self._app.extensions["pat_service.keyring"]
            file_provisioning.provision(keyring, document, utcnow())


@pytest.fixture(scope="session")
def _app_service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Flask, Path]]:
    """The service with an empty database, and a copy of this database."""
    folder = tmp_path_factory.mktemp("pat-service")
    settings = {
        "SECRET_KEY": token_hex(32),
        "PUBLIC_URL": _PUBLIC_URL,
        "DATABASE_URL": f"sqlite:///{folder / _DATABASE}",
        "APPS_PATH": os.pathsep.join(map(str, _list_places(request.session.items))),
        "USER_MINT_RATE_LIMIT": _UNLIMITED,
        "OPEN_RATE_LIMIT": _UNLIMITED,
        "FAILURE_RATE_LIMIT": _UNLIMITED,
    }
    app = create_app(config.Config.from_environment(settings, folder))
    app.config["PROPAGATE_EXCEPTIONS"] = True  # a failing test then shows the traceback
    with app.app_context():
        upgrade_schema()
        db.engine.dispose()
    yield app, Path(copy(folder / _DATABASE, folder / "empty.db"))
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def open_app(_app_service: tuple[Flask, Path]) -> OpenApp:
    """Open an app's frame: `open_app("quote", email=…, role=…, attributes={…})` returns an AppFrame."""
    app, empty = _app_service
    with app.app_context():
        db.engine.dispose()
    for old in empty.parent.glob(f"{_DATABASE}*"):
        old.unlink()
    copy(empty, empty.with_name(_DATABASE))
    return OpenApp(app)


def _list_places(items: list[pytest.Item]) -> list[Path]:
    """Return the folders of APPS_PATH, and of the apps whose own tests are running."""
    given = [Path(part) for part in os.environ.get("APPS_PATH", "").split(os.pathsep) if part]
    # An app's own tests are in its folder `tests`.
    folders = [item.path.parent.parent for item in items if item.path.parent.name == "tests"]
    tested = [folder.parent for folder in folders if (folder / "__init__.py").is_file()]
    return [place for place in dict.fromkeys([*given, *tested]) if place != INCLUDED]


def _read_boot(page: str) -> dict[str, Any]:
    """Return the data that the frame's script starts with."""
    block = page.partition('id="embed-boot"')[2].partition(">")[2].partition("</script>")[0]
    boot: dict[str, Any] = json.loads(block)
    return boot
