"""Every list of the console with many rows, and with hostile names."""

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import select, update

from pat_service.console.filters import PAGE_ROWS
from pat_service.storage.database import db
from pat_service.storage.models import App, Event, Session, Token, User, Workspace
from tests.console.test_roles import ANA, GLOBEX, newest
from tests.support.console import CONSOLE_URL, OLGA, OTTO, VERA, Browser, add_operators
from tests.support.pages import HOSTILE, MANY, counting, crowd, read, require_inert
from tests.support.people import WORLD, Service, build_on, provision
from tests.support.shared_fixtures import MakeService

SignIn = Callable[[str], Browser]

PATHS: Final = (
    "/people",
    "/people?q=crowd",
    "/people/new",
    "/people/{ana}",
    "/clients",
    "/clients/_new",
    "/clients/portal",
    "/clients/portal/revoke",
    "/live",
    "/live?show=tokens",
    "/live?show=tokens&state=any",
    "/live/end?show=tokens&workspace=acme",
    "/audit",
    "/audit?type=token:minted&follow=0",
)
#: The lists of a page: its rows, the choices of its menus, the names of its rows.
MOST_LISTS: Final = 8
MOST_STATEMENTS: Final = 20


@pytest.fixture(scope="module")
def crowded(make_shared: MakeService) -> Service:
    """A service with more rows than a page of each list, whose names attack its pages."""
    service = make_shared(CONSOLE_URL=CONSOLE_URL)
    add_operators(service)
    crowd(service)
    for table in (User, App, Workspace):
        crowds = service.rows(select(table.id).where(table.name.like("Crowd %") | table.name.like("W %")))
        for hostile, (id_,) in zip(cycle(HOSTILE), crowds, strict=False):
            service.change(update(table).where(table.id == id_).values(name=hostile))
    return service


@pytest.fixture(scope="module")
def browsers(crowded: Service) -> dict[str, Browser]:
    return {email: Browser(crowded, email) for email in (OLGA, OTTO)}


@pytest.mark.parametrize("email", [OLGA, OTTO])
@pytest.mark.parametrize("path", PATHS)
def test_a_page_reads_a_page_of_each_list(
    crowded: Service, browsers: dict[str, Browser], path: str, email: str
) -> None:
    path = path.format(ana=ANA(crowded))
    with counting(crowded) as seen:
        answer = browsers[email].get(path)
    assert answer.status_code in (200, 403)
    require_inert(answer.text)
    assert len(seen.statements) <= MOST_STATEMENTS, seen.statements
    assert seen.rows <= MOST_LISTS * (PAGE_ROWS + 1)
    listing = path.partition("?")[0] in ("/people", "/live", "/audit")
    assert not listing or seen.rows < MANY * 3


def test_a_page_reads_no_more_of_twice_the_rows(crowded: Service, browsers: dict[str, Browser]) -> None:
    olga, ana = browsers[OLGA], ANA(crowded)

    def read_all() -> dict[str, tuple[int, int]]:
        reads = {}
        for path in PATHS:
            with counting(crowded) as seen:
                assert olga.get(path.format(ana=ana)).status_code == 200
            reads[path] = (len(seen.statements), seen.rows)
        return reads

    crowd(crowded)
    read_all()  # what a worker reads once
    before = read_all()
    crowd(crowded)
    assert read_all() == before


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_and_attributes_are_texts(console: Service, sign_in: SignIn, hostile: str) -> None:
    console.frame(attributes={"region": hostile[:100]})
    for table in (User, App, Workspace):
        others = table.name.not_in(("Globex", "Mallory", "Ledger"))
        console.change(update(table).where(others).values(name=hostile))
    details = {"before": {"name": hostile}, "after": {"name": "10,000 " * 1500}, "times": hostile}
    console.change(update(Event).values(details=details, code="c" * 300, request_id=hostile))
    for table_ in (Token, Session):
        console.change(update(table_).values(client_id=hostile))
    otto, olga = sign_in(OTTO), sign_in(OLGA)
    try:
        for path in PATHS:
            for browser in (otto, olga):
                answer = browser.get(path.format(ana=ANA(console)))
                require_inert(answer.text)
                if browser is otto:
                    assert not [word for word in GLOBEX if word in read(answer.text)]
                    assert answer.status_code in (200, 403)
                else:
                    assert answer.status_code == 200
    finally:
        provision(console.app, WORLD)


@pytest.mark.parametrize(
    "path",
    [
        *("/people?q=", "/people?cursor=", "/people?workspace=", "/people?status="),
        *("/live?user=", "/live?app=", "/live?client=", "/live?cursor=", "/live?token="),
        *("/audit?type=", "/audit?code=", "/audit?since=", "/audit?session="),
    ],
)
def test_no_filter_is_a_server_error(console: Service, sign_in: SignIn, path: str) -> None:
    otto = sign_in(OTTO)
    for value in ("%00", "%FF%FE", "%ED%A0%80", "\u202e", "x" * 10_000, "<script>", "%25s"):
        answer = otto.get(path + value)
        assert answer.status_code in (200, 400)
        require_inert(answer.text)


def test_the_crowd_is_larger_than_a_page(crowded: Service) -> None:
    for table in (User, App, Workspace, Token, Session):
        assert len(crowded.rows(select(table.id))) > 2 * PAGE_ROWS


@pytest.mark.postgres
def test_every_page_and_change_works_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    service = Service(build_on(postgres_url, tmp_path, CONSOLE_URL=CONSOLE_URL).test_client())
    provision(service.app, WORLD)
    add_operators(service)
    crowd(service)
    service.frame()
    ana = ANA(service)
    for email in (OLGA, OTTO, VERA):
        browser = Browser(service, email)
        for path in PATHS:
            assert browser.get(path.format(ana=ana)).status_code in (200, 403), (email, path)
    otto, olga = Browser(service, OTTO), Browser(service, OLGA)
    changes: list[tuple[str, dict[str, Any]]] = [
        ("/status", {"status": "archived"}),
        ("/status", {"status": "active", "workspace": "acme"}),
        ("/memberships", {"workspace": "acme", "role": "admin"}),
        ("/grants/remove", {"app": "support"}),
        ("/grants", {"app": "support"}),
        ("/end", {}),
        ("/memberships/remove", {"workspace": "acme"}),
    ]
    for path, fields in changes:
        assert otto.post(f"/people/{ana}{path}", **fields).status_code == 303, path
    ((someone,), *_) = service.rows(select(User.email).where(User.email.like("crowd%")))
    session = newest(Session, someone)(service)
    assert otto.post("/live/sessions", session=session).status_code == 303
    assert otto.post("/live/end", show="tokens", client="portal").status_code == 303
    assert "token:revoked" in otto.get("/audit/export?format=jsonl").text
    form: dict[str, Any] = {"id": "shop", "scope": "mint", "reach": "all", "highest_role": "end-user"}
    assert olga.post("/clients", **form).status_code == 200
    assert olga.post("/clients/shop", **(form | {"scope": "audit"})).status_code == 303
    assert olga.post("/clients/shop/rotate", overlap="1h").status_code == 200
    assert olga.post("/clients/shop/revoke", tokens="1").status_code == 303
    with service.app.app_context():
        db.engine.dispose()
