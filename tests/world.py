"""The people of the tests, and what they can do.

Ana and Ben may open Orders. Mallory belongs to another company. The client `portal` is limited to
Acme; `rival` to Globex.
"""

import json
from base64 import b64encode
from dataclasses import dataclass
from typing import Any, Final

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from pat_service import provisioning
from pat_service.database import reading, transaction
from pat_service.http.authentication import utcnow

KEY: Final = "k" * 64
PUBLIC_URL: Final = "https://embed.example"
PORTAL: Final = "http://portal.example"
MINT: Final = "/api/ext/users/personal-access-token"
ORDERS: Final = "8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc"
SUPPORT: Final = "3d1c0a52-94e7-4c0b-9f65-2b7f4e8a6d10"
LEDGER: Final = "11111111-2222-4333-8444-555555555555"
SECRETS: Final = {"portal": "p" * 40, "rival": "r" * 40, "everywhere": "e" * 40, "auditor": "a" * 40}

WORLD: Final[dict[str, Any]] = {
    "workspaces": [{"slug": "acme", "name": "Acme"}, {"slug": "globex", "name": "Globex"}],
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
        {"id": "everywhere", "secret": SECRETS["everywhere"], "mint_limit": "1000 per minute"},
        {"id": "auditor", "secret": SECRETS["auditor"], "workspaces": ["acme"], "scopes": ["audit"]},
    ],
}


def provision(app: Flask, document: dict[str, Any]) -> provisioning.Provisioned:
    with app.app_context():
        return provisioning.provision(app.extensions["pat_service.keyring"], document, utcnow())


def basic(client_id: str, secret: str | None = None) -> dict[str, str]:
    """The Authorization header of a client."""
    pair = f"{client_id}:{SECRETS[client_id] if secret is None else secret}"
    return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


@dataclass
class Frame:
    """An opened frame: what its script holds."""

    response: TestResponse
    app_id: str
    jwt: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.jwt}"}


class Service:
    """What the outside does, in a line each."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client
        self.app = client.application

    def mint(self, body: Any = None, *, client: str = "portal", **fields: Any) -> TestResponse:
        """Mint with a body as it is, or with Ana's usual one and these fields changed (None: left out)."""
        usual = {"email": "ana@acme.test", "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 1000}
        if body is None:
            body = {key: value for key, value in (usual | fields).items() if value is not None}
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

    def change(self, statement: Any) -> None:
        """Change a row behind the service's back."""
        with self.app.app_context(), transaction() as connection:
            connection.execute(statement)

    def rows(self, statement: Any) -> list[Any]:
        with self.app.app_context(), reading() as connection:
            return list(connection.execute(statement))


def boot(answer: TestResponse) -> dict[str, Any]:
    """What the frame's script starts from."""
    block = answer.text.partition('id="embed-boot"')[2].partition(">")[2].partition("</script>")[0]
    found: dict[str, Any] = json.loads(block)
    return found
