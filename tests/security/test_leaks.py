"""No token, secret or session leaks into logs, headers, error pages, events or the database."""

import io
import json
import logging
import re
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, Final

import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from pat_service.embed import EmbeddedApp
from pat_service.observability.lines import RedactingFormatter
from pat_service.storage.database import db
from pat_service.storage.models import Workspace
from tests.support.people import (
    KEY,
    MINT,
    ORDERS,
    PORTAL,
    PUBLIC_URL,
    SECRETS,
    SUPPORT,
    WORLD,
    Service,
    basic,
    boot,
    database_folder,
    provision,
)

PATH: Final = f"/embed-apps/{ORDERS}"
JSON: Final = {"Accept": "application/json"}
TOKEN: Final = re.compile(r"pat_[0-9a-f]{72}")


def loggers() -> list[logging.Logger]:
    named = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in named if isinstance(logger, logging.Logger))]


def handlers() -> list[logging.Handler]:
    """Return the process's log handlers, without pytest's."""
    found = {id(h): h for logger in loggers() for h in logger.handlers}.values()
    ours = (h for h in found if not isinstance(h, logging.NullHandler))
    return [h for h in ours if not type(h).__module__.startswith("_pytest")]


@pytest.fixture
def log(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The process's log at debug level."""
    written = io.StringIO()
    for handler in handlers():
        if isinstance(handler, logging.StreamHandler):
            monkeypatch.setattr(handler, "stream", written)
    level = logging.root.level
    logging.root.setLevel(logging.DEBUG)
    yield written
    logging.root.setLevel(level)


class Walk:
    """A session with the service that collects every answer and every secret."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.client = service.client
        self.secrets = {KEY, *SECRETS.values()}
        self.secrets |= {b64encode(f"{name}:{secret}".encode()).decode() for name, secret in SECRETS.items()}
        self.answers: list[TestResponse] = []
        #: Answers that must contain a token or session.
        self.bearers: list[TestResponse] = []

    def keep(self, answer: TestResponse, *, may_carry: bool = False) -> TestResponse:
        (self.bearers if may_carry else self.answers).append(answer)
        return answer

    def mint(self, **fields: Any) -> str:
        answer = self.keep(self.service.mint(**fields), may_carry=True)
        token: str = answer.get_json()["personalAccessToken"]
        self.secrets |= {token, token.removeprefix("pat_")}
        return token

    def open(self, token: str, app_id: str = ORDERS) -> dict[str, str]:
        answer = self.keep(self.service.open(token, app_id), may_carry=True)
        assert answer.status_code == 200
        return self.session(boot(answer)["session"])

    def code(self, text: str) -> str:
        self.secrets |= {text, text.removeprefix("otc_")}
        return text

    def session(self, text: str) -> dict[str, str]:
        self.secrets |= {text, text.rpartition(".")[2]}
        return {"Authorization": f"Bearer {text}"}

    def ask(self, method: str, path: str, **options: Any) -> TestResponse:
        return self.keep(self.client.open(path, method=method, buffered=True, **options))


def mints(walk: Walk) -> None:
    """Mint in every way, with secrets in wrong places."""
    token = walk.mint()
    walk.mint(email="ben@acme.test", endSessions=True)
    for fields in (
        {"appSlug": "nothing"},
        {"email": "mallory@globex.test"},
        {"patExpiry": 0},
        {"email": "a b"},
    ):
        walk.keep(walk.service.mint(**fields))
    walk.keep(walk.service.mint(body=b'{"email": "ana@acme.test", "email": 1}'))
    walk.keep(walk.service.mint(client="auditor"))
    walk.ask("POST", MINT, headers=basic("portal", token), json={})
    walk.ask("POST", MINT, headers=basic(token, SECRETS["portal"]), json={})
    walk.ask("POST", MINT, headers={"Authorization": f"Bearer {token}"}, json={})
    walk.ask("POST", MINT, headers={"Authorization": SECRETS["portal"]}, json={})
    walk.ask("GET", f"{MINT}/{token}")
    walk.ask("GET", MINT, query_string={"client_secret": SECRETS["portal"], "token": token})
    walk.ask("GET", f"/{token}", headers={"Referer": f"{PUBLIC_URL}{PATH}?personal-access-token={token}"})


def opens(walk: Walk) -> None:
    """Open and be refused in every way, with the token wherever a host may put it."""
    token = walk.mint()
    walk.open(token)
    by_form = walk.client.post(PATH, data={"personal-access-token": token})
    walk.session(boot(walk.keep(by_form, may_carry=True))["session"])
    program = walk.client.post("/api/ext/users/session", json={"appId": ORDERS, "accessToken": token})
    walk.keep(program, may_carry=True)
    walk.session(program.get_json()["signedPat"])
    headers: dict[str, str]
    for headers in ({"Accept": "text/html"}, JSON):
        older = token
        token = walk.mint()
        given = {"personal-access-token": token}
        for address in (
            f"{PATH}?personal-access-token={older}",
            f"{PATH}?personal-access-token={token}&personal-access-token={token}",
            f"{PATH}&personal-access-token={token}",
            f"{PATH}%26personal-access-token={token}",
            f"{PATH}/personal-access-token={token}",
            f"{PATH}/pages/{token}",
            f"{PATH}/data/{token}",
            f"{PATH}/session?personal-access-token={token}",
            f"/embed-apps/{token}",
            f"/embed-apps/%70at_{token.removeprefix('pat_')}",
            f"/embed-apps/{SUPPORT}?personal-access-token={token}",
            f"//embed-apps/{ORDERS}?personal-access-token={token}",
            f"/static/embed/embed.css?personal-access-token={token}",
            f"/static/{token}",
            f"/?personal-access-token={token}",
        ):
            walk.ask("GET", address, headers=headers)
            walk.ask("HEAD", address, headers=headers)
            walk.ask("PUT", address, headers=headers)
        walk.ask("GET", PATH, query_string=given, headers=headers | {"Sec-Purpose": "prefetch"})
        walk.ask("GET", PATH, query_string=given | {"q": "\0"}, headers=headers)
        walk.ask("POST", PATH, json=given, headers=headers)
        walk.ask("POST", PATH, data=given | {"padding": "x" * 17_000}, headers=headers)
        walk.ask("GET", PATH, headers=headers | {"Cookie": f"token={token}", "User-Agent": token})
        provision(walk.service.app, {"users": [WORLD["users"][0] | {"status": "archived"}]})
        walk.ask("GET", PATH, query_string=given, headers=headers)
        provision(walk.service.app, WORLD)


def enters(walk: Walk) -> None:
    """Open apps from a launcher and by a redirect, use each code again, and renew."""
    token = walk.mint(client="manager", appSlug=None, workspaceSlug="acme")
    (row,) = walk.service.rows(select(Workspace.id).where(Workspace.slug == "acme"))
    launcher = walk.client.get(f"/embed-workspaces/{row.id}?personal-access-token={token}")
    bearer = walk.session(boot(walk.keep(launcher, may_carry=True))["session"])
    entered = walk.client.post(f"/embed-workspaces/{row.id}/apps/{ORDERS}", headers=bearer)
    code = walk.code(walk.keep(entered, may_carry=True).get_json()["code"])
    handed = {"accessToken": code, "parentOrigin": PORTAL, "session": bearer["Authorization"][7:]}
    opened = walk.keep(walk.client.post(f"{PATH}/frame", json=handed), may_carry=True)
    former = opened.get_json()["session"]
    walk.session(former)
    handed |= {"accessToken": walk.mint(), "session": former}
    renewed = walk.keep(walk.client.post(f"{PATH}/frame", json=handed), may_carry=True)
    walk.session(renewed.get_json()["session"])
    moved = walk.service.open(token).headers["Location"]
    walk.code(moved.partition("code=")[2])
    page = walk.client.get(moved)
    walk.session(boot(walk.keep(page, may_carry=True))["session"])
    for path in (moved, f"{PATH}?code={code}", f"{PATH}/pages/{code}", f"{PATH}/frame?code={code}"):
        walk.ask("GET", path)
    for body in ({"accessToken": code, "parentOrigin": code}, {"accessToken": code, code: code}):
        walk.ask("POST", f"{PATH}/frame", json=body)


def uses(walk: Walk) -> None:
    """Use a frame, end its session, and use it again."""
    for app_id, pages in (
        (ORDERS, ("index", "list", "order?id=1")),
        (SUPPORT, ("index", "new", "ticket?id=1")),
    ):
        bearer = walk.open(walk.mint(appSlug=None, appId=app_id), app_id)
        for ended in (False, True):
            if ended:
                walk.ask("DELETE", f"/embed-apps/{app_id}/session", headers=bearer)
            for page in pages:
                walk.ask("GET", f"/embed-apps/{app_id}/pages/{page}", headers=bearer)
                walk.ask("GET", f"/embed-apps/{app_id}/pages/{page}", headers=bearer | JSON)
            walk.ask("POST", f"/embed-apps/{app_id}/pages/create", data={"subject": ""}, headers=bearer)
            walk.ask("GET", f"/embed-apps/{app_id}/data/orders.csv", headers=bearer)
            walk.ask("GET", f"/embed-apps/{app_id}/session", headers=bearer)
        walk.ask("GET", f"/embed-apps/{ORDERS}/pages/{bearer['Authorization'][7:]}")
        walk.ask("GET", PATH, query_string={"personal-access-token": bearer["Authorization"][7:]})


def breaks(walk: Walk, patch: pytest.MonkeyPatch) -> None:
    """Break an app and the rules, with errors that quote every secret."""
    token = walk.mint()
    bearer = walk.open(token)
    broken = EmbeddedApp()

    def quote(_viewer: object) -> None:
        try:
            raise ValueError(f"{GENERATED_SECRET} {token} {bearer}")
        except ValueError as cause:
            raise RuntimeError(f"{PATH}?personal-access-token={token}") from cause

    broken.page("index")(quote)
    broken.data("broken")(quote)
    with patch.context() as here:
        here.setitem(walk.service.app.extensions["pat_service.registry"]._apps, "orders", broken)
        for headers in ({"Accept": "text/html"}, JSON):
            for path in ("/pages/index", "/data/broken"):
                assert walk.ask("GET", PATH + path, headers=bearer | headers).status_code == 500
            opened = walk.ask("GET", PATH, query_string={"personal-access-token": token}, headers=headers)
            assert opened.status_code == 500
    with patch.context() as here:
        here.setattr("pat_service.rules.openings.check_token", quote_arguments)
        here.setattr("pat_service.rules.minting.generate", quote_arguments)
        assert walk.ask("GET", PATH, query_string={"personal-access-token": token}).status_code == 500
        assert walk.keep(walk.service.mint()).status_code == 500


#: A secret like those that `client create` prints.
GENERATED_SECRET: Final = "pcs_" + "9" * 72


def quote_arguments(*arguments: Any, **_: Any) -> None:
    raise RuntimeError(f"was given {arguments!r} with {GENERATED_SECRET}")


@pytest.fixture
def walk(service: Service, log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Walk:
    walked = Walk(service)
    walked.secrets.add(GENERATED_SECRET)
    for part in (mints, opens, enters, uses):
        part(walked)
    breaks(walked, monkeypatch)
    return walked


def test_a_complete_run_leaks_nothing(
    walk: Walk, log: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    assert len(walk.answers) > 150
    assert len(walk.secrets) > 20

    written = log.getvalue()
    assert "pat_[hidden]" in written, "the walk logged tokens that had to be hidden"
    assert "Traceback" in written
    assert found_in(written, walk) == []
    assert found_in(str(capfd.readouterr()), walk) == []

    for answer in walk.answers:
        assert found_in(str(answer.headers), walk) == []
        assert found_in(answer.text, walk) == [], answer.request.path
    for answer in walk.bearers:
        assert found_in(str(answer.headers), walk) == []
        texts = {text for text in found_in(answer.text, walk) if text.startswith(("pat_", "otc_", "eyJ"))}
        assert len(texts) == 1
        assert not texts & {*SECRETS.values(), KEY}

    assert found_in_database(walk) == []


def found_in(text: str, walk: Walk) -> list[str]:
    return [secret for secret in walk.secrets if secret in text]


def found_in_database(walk: Walk) -> list[str]:
    """Return the secrets in the tables, or in the file with its deleted rows."""
    with walk.service.app.app_context(), db.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint")
        dumped = ""
        for table in db.metadata.sorted_tables:
            rows = connection.execute(table.select()).all()
            dumped += "".join(v.hex() if isinstance(v, bytes) else str(v) for row in rows for v in row)
    assert "token:minted" in dumped
    raw = b"".join(file.read_bytes() for file in database_folder(walk.service.app).glob("pat-service.db*"))
    assert b"token:minted" in raw
    as_bytes = [bytes.fromhex(s) for s in walk.secrets if re.fullmatch(r"([0-9a-f]{2}){36}", s)]
    assert as_bytes
    found = found_in(dumped, walk) + [s for s in walk.secrets if s.encode() in raw]
    return found + [half.hex() for token in as_bytes for half in (token, token[:32]) if half in raw]


def test_a_client_secret_is_shown_once_and_stored_nowhere(service: Service, log: io.StringIO) -> None:
    runner = service.app.test_cli_runner()
    made = runner.invoke(args=["client", "create", "newcomer", "--workspace", "acme"])
    rotated = runner.invoke(args=["client", "rotate", "newcomer"])
    secrets = [re.search(r"pcs_[0-9a-f]{72}", done.output) for done in (made, rotated)]
    assert all(secrets), made.output + rotated.output
    walk = Walk(service)
    walk.secrets |= {found.group() for found in secrets if found}
    walk.mint()
    for found in secrets:
        if found:
            service.client.post(MINT, headers=basic("newcomer", found.group()), json={})
    assert found_in(runner.invoke(args=["client", "list"]).output, walk) == []
    assert found_in(log.getvalue(), walk) == []
    assert found_in_database(walk) == []


# ---- The log by itself ----


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines() if line.startswith("{")]


def test_every_handler_of_the_process_hides_secrets(service: Service) -> None:
    assert service.app.logger.handlers == []
    assert handlers()
    assert all(isinstance(handler.formatter, RedactingFormatter) for handler in handlers())


def test_a_line_of_the_access_log_has_no_query(service: Service, log: io.StringIO) -> None:
    frame = service.frame()
    minted, opened = lines(log)
    expected = {"method": "GET", "path": PATH, "status": 200}
    assert expected.items() <= opened.items()
    assert opened["request_id"] == frame.response.headers["X-Request-Id"]
    assert opened["session_id"] == service.facts(frame)["sessionId"]
    assert minted["client_id"] == "portal"
    assert opened["ms"] >= 0
    assert "?" not in log.getvalue()


@pytest.mark.parametrize(
    "address",
    [
        PATH + "&personal-access-token={}",
        PATH + "%26personal-access-token%3D{}",
        "/embed-apps/{}",
        "/embed-apps/x{}x/pages/index",
        PATH + "/pages/{}{}",
        "/{}",
    ],
)
def test_a_token_in_the_path_is_hidden_in_the_log(service: Service, log: io.StringIO, address: str) -> None:
    token = service.token()
    for text in (token, token.upper(), token[:-1], token + "0"):
        answer = service.client.get(address.format(text, text))
        assert text not in answer.text
    written = log.getvalue()
    assert token[4:40].lower() not in written.lower()
    hidden = [line["path"] for line in lines(log)[1:]]
    assert len(hidden) == 4
    assert all("[hidden]" in path for path in hidden)


def test_a_line_break_in_a_path_starts_no_log_line(service: Service, log: io.StringIO) -> None:
    service.client.get('/embed-apps/x%0A{"method":"GET","path":"forged","status":200}')
    service.client.get("/embed-apps/x%0D%0Aforged%E2%80%A8forged%1B[31m")
    assert len(log.getvalue().splitlines()) == 2
    assert "\x1b" not in log.getvalue()
    assert {line["status"] for line in lines(log)} == {401}


def test_an_apps_own_log_lines_hide_secrets(service: Service, log: io.StringIO) -> None:
    frame, token = service.frame(), service.token()
    own = logging.getLogger("apps.mine")
    own.warning("token %s", token)
    own.error("session %r", {"bearer": frame.bearer})
    try:
        raise RuntimeError(token)
    except RuntimeError:
        own.exception("broken")
    service.app.logger.warning("secret %s", GENERATED_SECRET)
    written = log.getvalue()
    assert written.count("[hidden]") == 4
    assert token not in written
    assert frame.jwt not in written
