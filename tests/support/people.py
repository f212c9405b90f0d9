"""The people and clients of the tests, and the calls that they make.

Ana and Ben may open Orders. Mallory belongs to another company. The client `portal` is limited to
Acme; `rival` to Globex. `manager` has every scope in Acme.
"""

import json
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import shake_256
from pathlib import Path
from shutil import copy, rmtree
from typing import Any, Final
from unittest.mock import patch

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event, func, select
from werkzeug.test import TestResponse

from app import create_app
from config import Config
from pat_service.http.authentication import utcnow
from pat_service.http.public_url import site
from pat_service.rules import file_provisioning
from pat_service.storage import prepared
from pat_service.storage.database import db, reading, transaction
from pat_service.storage.models import Event
from tests.support.fast_apps import TEMPLATES


def make_secret(name: str, length: int = 64) -> str:
    """Return a secret or key that is always the same, and as varied as a random one."""
    return shake_256(name.encode()).hexdigest(length)[:length]


KEY: Final = make_secret("key")
#: The key after a rotation.
NEW_KEY: Final = make_secret("new key")
PUBLIC_URL: Final = "https://embed.example"
PORTAL: Final = "http://portal.example"
MINT: Final = "/api/ext/users/personal-access-token"
ORDERS: Final = "8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc"
SUPPORT: Final = "3d1c0a52-94e7-4c0b-9f65-2b7f4e8a6d10"
LEDGER: Final = "11111111-2222-4333-8444-555555555555"
SECRETS: Final = {name: make_secret(name) for name in ("portal", "rival", "everywhere", "auditor", "manager")}

WORLD: Final[dict[str, Any]] = {
    "workspaces": [
        {"slug": "acme", "name": "Acme", "allowed_origins": [PORTAL]},
        {"slug": "globex", "name": "Globex"},
    ],
    "users": [
        {"email": "ana@acme.test", "name": "Ana", "workspaces": {"acme": "end-user"}},
        {"email": "ben@acme.test", "name": "Ben", "workspaces": {"acme": "builder"}},
        {"email": "mallory@globex.test", "name": "Mallory", "workspaces": {"globex": "admin"}},
    ],
    "apps": [
        {
            "id": ORDERS,
            "slug": "orders",
            "name": "Orders",
            "workspace": "acme",
            "template": "orders",
            "allowed_origins": [PORTAL],
            "users": ["ana@acme.test", "ben@acme.test"],
        },
        {
            "id": SUPPORT,
            "slug": "support",
            "name": "Support",
            "workspace": "acme",
            "template": "support",
            "allowed_origins": [PORTAL],
            "users": ["ana@acme.test"],
        },
        {
            "id": LEDGER,
            "slug": "ledger",
            "name": "Ledger",
            "workspace": "globex",
            "template": "orders",
            "allowed_origins": [PORTAL],
            "users": ["mallory@globex.test"],
        },
    ],
    "clients": [
        {
            "id": "portal",
            "secret": SECRETS["portal"],
            "workspaces": ["acme"],
            "mint_limit": "1000 per minute",
        },
        {
            "id": "rival",
            "secret": SECRETS["rival"],
            "workspaces": ["globex"],
            "mint_limit": "1000 per minute",
        },
        {
            "id": "everywhere",
            "secret": SECRETS["everywhere"],
            "all_workspaces": True,
            "mint_limit": "1000 per minute",
        },
        {"id": "auditor", "secret": SECRETS["auditor"], "workspaces": ["acme"], "scopes": ["audit"]},
        {
            "id": "manager",
            "secret": SECRETS["manager"],
            "workspaces": ["acme"],
            "scopes": ["mint", "mint:workspace", "provision", "audit"],
            "highest_role": "builder",
            "mint_limit": "1000 per minute",
        },
    ],
}


def provision(app: Flask, document: dict[str, Any]) -> file_provisioning.Provisioned:
    with app.app_context():
        keyring = app.extensions["pat_service.keyring"]
        return file_provisioning.provision(keyring, document, utcnow(), site=site())


def changed(kind: str, name: str, /, **changes: Any) -> dict[str, Any]:
    """Return a provisioning document with one entry of WORLD, by slug, id or email, and these changes."""
    entry = next(e for e in WORLD[kind] if name in (e.get("slug"), e.get("id"), e.get("email")))
    return {kind: [entry | changes]}


#: Documents that take Orders from Ana. Provisioning WORLD gives it back.
ACCESS_LOSSES: Final = {
    "she is archived": changed("users", "ana@acme.test", status="archived"),
    "she loses her grant": changed("apps", "orders", users=["ben@acme.test"]),
    "she leaves the workspace": changed("users", "ana@acme.test", workspaces={"globex": "admin"}),
}


def basic(client_id: str, secret: str | None = None) -> dict[str, str]:
    """The Authorization header of a client."""
    pair = f"{client_id}:{SECRETS[client_id] if secret is None else secret}"
    return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


@dataclass
class Frame:
    """An opened frame and the session that its script has."""

    response: TestResponse
    app_id: str
    jwt: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.jwt}"}


#: The usual mint request for Ana.
MINT_BODY: Final = {"email": "ana@acme.test", "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 1000}


class Service:
    """The calls of clients and viewers, in one line each."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client
        self.app = client.application

    def mint(self, body: Any = None, *, client: str = "portal", **fields: Any) -> TestResponse:
        """Mint with this body, or with MINT_BODY and these fields changed. None removes a field."""
        if body is None:
            body = {key: value for key, value in (MINT_BODY | fields).items() if value is not None}
        data = body if isinstance(body, (bytes, str)) else json.dumps(body)
        return self.client.post(MINT, data=data, headers=basic(client), content_type="application/json")

    def token(self, **fields: Any) -> str:
        answer = self.mint(**fields)
        assert answer.status_code == 201, answer.text
        token: str = answer.json["personalAccessToken"]  # type: ignore[index]
        return token

    def open(self, token: str, app_id: str = ORDERS, **headers: str) -> TestResponse:
        """Open a frame by address."""
        return self.client.get(
            f"/embed-apps/{app_id}",
            query_string={"personal-access-token": token},
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    def refusal(self, token: str, app_id: str = ORDERS) -> str:
        """Open a frame that must be refused, and return the code."""
        answer = self.open(token, app_id, Accept="application/json")
        assert answer.status_code >= 400, answer.text
        code: str = answer.json["code"]  # type: ignore[index]
        return code

    def frame(self, app_id: str = ORDERS, **fields: Any) -> Frame:
        """Mint for the app and open it."""
        answer = self.open(self.token(**({"appSlug": None, "appId": app_id} | fields)), app_id)
        assert answer.status_code == 200, answer.text
        return Frame(answer, app_id, boot(answer)["session"])

    def get(self, frame: Frame, path: str, **options: Any) -> TestResponse:
        return self.client.get(f"/embed-apps/{frame.app_id}/{path}", headers=frame.bearer, **options)

    def post(self, frame: Frame, path: str, **options: Any) -> TestResponse:
        return self.client.post(f"/embed-apps/{frame.app_id}/{path}", headers=frame.bearer, **options)

    def facts(self, frame: Frame) -> dict[str, Any]:
        """Return the facts of an open frame's session."""
        answer = self.get(frame, "session")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = json.loads(answer.text)
        return found

    def change(self, statement: Any) -> None:
        """Execute a statement directly on the database."""
        with self.app.app_context(), transaction() as connection:
            connection.execute(statement)

    def rows(self, statement: Any) -> list[Any]:
        with self.app.app_context(), reading() as connection:
            return list(connection.execute(statement))

    def count(self, table: Any) -> int:
        number: int = self.rows(select(func.count()).select_from(table))[0][0]
        return number

    def events(self, type_: str | None = None) -> list[Any]:
        """Return the audit events, or those of one type, oldest first."""
        statement = select(Event.__table__).order_by(Event.id)
        return self.rows(statement if type_ is None else statement.where(Event.type == type_))

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """Collect the SQL statements of the block, without BEGIN and PRAGMA."""
        seen: list[str] = []

        def executes(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if not statement.startswith(("BEGIN", "PRAGMA")):
                seen.append(" ".join(statement.split()))

        with self.app.app_context():
            engine = db.engine

        def execute(connection: Any, compiled: Any, values: Any) -> Any:
            seen.append(" ".join(compiled.text.split()))
            return directly(connection, compiled, values)

        directly = prepared.execute
        event.listen(engine, "before_cursor_execute", executes)
        try:
            with patch.object(prepared, "execute", execute):
                yield seen
        finally:
            event.remove(engine, "before_cursor_execute", executes)


def lose_the_database(app: Flask, folder: Path) -> None:
    """Replace the database file by a folder, so that it cannot be opened."""
    with app.app_context():
        db.engine.dispose()
    for file in folder.glob("pat-service.db*"):
        file.unlink()
    (folder / "pat-service.db").mkdir()


def boot(answer: TestResponse) -> dict[str, Any]:
    """Return the data that the frame's script starts with."""
    block = answer.text.partition('id="embed-boot"')[2].partition(">")[2].partition("</script>")[0]
    found: dict[str, Any] = json.loads(block)
    return found


def frame_ancestors(answer: TestResponse) -> str:
    """Return the parents that the answer's Content-Security-Policy allows."""
    policy = answer.headers["Content-Security-Policy"]
    return policy.partition("frame-ancestors ")[2].partition(";")[0]


def problem_of(answer: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Check that the answer is a problem of the documented shape (RFC 9457), and return it."""
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), answer.text
    problem: dict[str, Any] = answer.json  # type: ignore[assignment]
    errors = {"errors"} if status == 400 else set()
    assert set(problem) == {"type", "title", "status", "detail", "code", "requestId", "message"} | errors
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["message"] == problem["detail"]
    assert problem["requestId"] == answer.headers["X-Request-Id"]
    assert all(
        isinstance(problem[name], str) and problem[name] for name in set(problem) - errors - {"status"}
    )
    for name, texts in problem.get("errors", {}).items():
        assert isinstance(name, str)
        assert texts
        assert all(isinstance(text, str) and text for text in texts)
    assert "Set-Cookie" not in answer.headers
    return problem


@contextmanager
def long_lived_service(schema: Path, folder: Path, **environ: str) -> Iterator[Service]:
    """Run a service with the people of WORLD."""
    copy(_populate(schema), folder / "pat-service.db")
    app = build_on(f"sqlite:///{folder / 'pat-service.db'}", folder, **environ)
    yield Service(app.test_client())
    with app.app_context():
        db.engine.dispose()


@cache
def _populate(schema: Path) -> Path:
    """Return a copy of this database with the people of WORLD."""
    populated = schema.with_name("populated.db")
    copy(schema, populated)
    app = build_on(f"sqlite:///{populated}", schema.parent)
    provision(app, WORLD)
    with app.app_context():
        db.engine.dispose()
    return populated


def build_on(url: str, folder: Path, **environ: str) -> Flask:
    """Build an app on this database, with limits that no test reaches."""
    limits = {f"{name}_RATE_LIMIT": "10000 per minute" for name in ("USER_MINT", "OPEN", "FAILURE")}
    settings = {"SECRET_KEY": KEY, "PUBLIC_URL": PUBLIC_URL, "DATABASE_URL": url} | limits | environ
    app = create_app(Config.from_environment(settings, folder))
    prepare_for_tests(app)
    return app


class BufferedClient(FlaskClient):
    """A client that reads each answer. An unread stream would end inside a later test."""

    def open(self, *args: Any, buffered: bool = True, **options: Any) -> TestResponse:
        return super().open(*args, buffered=buffered, **options)


def prepare_for_tests(app: Flask) -> None:
    """Read every answer, and stop SQLite from waiting for the disk, which is slower than a mint."""
    app.test_client_class = BufferedClient
    app.jinja_env.bytecode_cache = TEMPLATES
    with app.app_context():
        if db.engine.dialect.name == "sqlite":
            event.listen(db.engine, "connect", _skip_fsync)


def _skip_fsync(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF")


def database_folder(app: Flask) -> Path:
    """Return the folder of the app's SQLite file and its journal."""
    with app.app_context():
        return Path(str(db.engine.url.database)).parent


def restore_database(app: Flask, database: Path) -> None:
    """Replace the app's database by a copy of this file."""
    with app.app_context():
        db.engine.dispose()
    for old in database_folder(app).glob("pat-service.db*"):
        rmtree(old) if old.is_dir() else old.unlink()
    copy(database, database_folder(app) / "pat-service.db")
