"""The headers of every answer: those of frames, those of everything else, and who may frame what."""

import re
from collections.abc import Callable
from typing import Any, Final

import pytest
from flask import Flask, Response
from sqlalchemy import update
from werkzeug.test import TestResponse

from pat_service.embed import EmbeddedApp, ancestors
from pat_service.rules.access import Place
from pat_service.storage.models import App
from tests.support.people import (
    KEY,
    LEDGER,
    ORDERS,
    PORTAL,
    SUPPORT,
    Frame,
    Service,
    boot,
    changed,
    database_folder,
    lose_the_database,
    provision,
)
from tests.support.shared_fixtures import MakeService

PATH: Final = f"/embed-apps/{ORDERS}"
UNKNOWN: Final = "99999999-9999-4999-8999-999999999999"
Ask = Callable[[Service, Frame], TestResponse]


@pytest.fixture(scope="module")
def shared(make_shared: MakeService) -> Service:
    """One service for the module: its tests leave what the others need."""
    return make_shared()


def policy_of(answer: TestResponse) -> dict[str, str]:
    """The directives of the answer's one policy."""
    (text,) = answer.headers.getlist("Content-Security-Policy")
    return dict(part.strip().partition(" ")[::2] for part in text.split(";"))


def ancestors_of(answer: TestResponse) -> str:
    return policy_of(answer)["frame-ancestors"]


def get(path: str, **headers: str) -> Ask:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda service, frame: service.client.get(PATH + path, headers=given)


def bearing(method: str, path: str, **options: Any) -> Ask:
    return lambda service, frame: service.client.open(
        PATH + path, method=method, headers=frame.bearer, **options
    )


#: Every kind of answer of a frame's addresses, by what it is, with its status.
ANSWERS: Final[dict[str, tuple[int, Ask]]] = {
    "an opened frame": (200, lambda service, frame: frame.response),
    "a frame opened by form": (
        200,
        lambda service, frame: service.client.post(PATH, data={"personal-access-token": service.token()}),
    ),
    "a page": (200, bearing("GET", "/pages/index")),
    "a part": (200, bearing("GET", "/pages/list")),
    "a file": (200, bearing("GET", "/data/orders.csv")),
    "the session": (200, bearing("GET", "/session")),
    "options": (200, bearing("OPTIONS", "/session")),
    "no token": (401, get("")),
    "no token, as JSON": (401, get("", Accept="application/json")),
    "garbage for a token": (401, get("?personal-access-token=pat_0")),
    "a token that is too much": (401, get("?personal-access-token=a&personal-access-token=b")),
    "no session": (401, get("/session")),
    "a page without a session": (401, get("/pages/index")),
    "outside a frame": (403, get("", Sec_Fetch_Dest="document", Sec_Fetch_Mode="navigate")),
    "a prefetch": (403, get("", Sec_Purpose="prefetch")),
    "a page that is not there": (404, bearing("GET", "/pages/nothing")),
    "a page that is no name": (404, bearing("GET", "/pages/_chart")),
    "data that is not there": (404, bearing("GET", "/data/nothing")),
    "an address that is not there": (404, get("/no/such/thing")),
    "an address with a slash behind": (404, get("/")),
    "an order that is not there": (404, bearing("GET", "/pages/order?id=1")),
    "HEAD": (405, lambda service, frame: service.client.head(PATH)),
    "HEAD of a page": (405, bearing("HEAD", "/pages/index")),
    "PUT": (405, bearing("PUT", "")),
    "PATCH of the session": (405, bearing("PATCH", "/session")),
    "POST to a page without a form": (405, bearing("POST", "/pages/index")),
    "POST to data without a function for it": (405, bearing("POST", "/data/orders.csv")),
    "a NUL": (400, bearing("GET", "/pages/index?q=%00")),
    "a form that is too large": (
        413,
        lambda service, frame: service.client.post(PATH, data={"a": "b" * 17_000}),
    ),
    "no form": (415, lambda service, frame: service.client.post(PATH, json={})),
}

IMAGES: Final = "'self' data: blob:"


@pytest.fixture(scope="module")
def frame(shared: Service) -> Frame:
    return shared.frame()


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_answer_of_a_frame_has_every_header(shared: Service, frame: Frame, kind: str) -> None:
    status, ask = ANSWERS[kind]
    answer = ask(shared, frame)
    assert answer.status_code == status
    policy = policy_of(answer)
    nonce = policy["script-src"]
    assert re.fullmatch(r"'nonce-[A-Za-z0-9_-]{22,}'", nonce), "16 random bytes at least"
    assert policy == {
        "default-src": "'none'",
        "script-src": nonce,
        "style-src": nonce,
        "img-src": IMAGES,
        "font-src": "'self'",
        "connect-src": "'self'",
        "media-src": "'self' blob:",
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": PORTAL,
    }
    once = {
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
    }
    for name, value in once.items():
        assert answer.headers.getlist(name) == [value]
    assert answer.headers["Permissions-Policy"]
    assert "max-age=" in answer.headers["Strict-Transport-Security"]
    assert answer.headers["X-Request-Id"]
    never = ("X-Frame-Options", "Set-Cookie", "Access-Control-Allow-Origin")
    assert not [name for name in never if name in answer.headers]


def test_a_nonce_is_used_once_and_stands_on_every_script(shared: Service) -> None:
    nonces = set()
    for _ in range(3):
        answers = [shared.open(shared.token()), shared.client.get(PATH)]
        for answer in answers:
            nonce = policy_of(answer)["script-src"].removeprefix("'nonce-").removesuffix("'")
            nonces.add(nonce)
            scripts = re.findall(r"<script\b[^>]*>", answer.text)
            assert scripts
            running = [tag for tag in scripts if 'type="application/json"' not in tag]
            assert all(f'nonce="{nonce}"' in tag for tag in running)
            assert all(f'nonce="{nonce}"' in tag for tag in re.findall(r"<link\b[^>]*>", answer.text))
    assert len(nonces) == 6


def test_an_apps_own_response_cannot_weaken_the_headers(
    shared: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that it hands on from elsewhere."""
    embedded = EmbeddedApp()
    loose = {
        "Content-Security-Policy": "default-src *; frame-ancestors *",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "unsafe-url",
        "Cache-Control": "public, max-age=3600",
        "X-Content-Type-Options": "sniff",
        "Strict-Transport-Security": "max-age=0",
        "Permissions-Policy": "camera=*",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "unsafe-none",
        "Set-Cookie": "a=b",
    }
    embedded.data("loose")(lambda viewer: Response("hello", headers=loose))
    monkeypatch.setitem(shared.app.extensions["pat_service.registry"]._apps, "orders", embedded)
    frame = shared.frame()
    answer, usual = shared.get(frame, "data/loose"), shared.get(frame, "session")
    assert answer.text == "hello"
    assert ancestors_of(answer) == PORTAL
    assert "Set-Cookie" not in answer.headers
    assert "X-Frame-Options" not in answer.headers
    for name in loose.keys() - {"Content-Security-Policy", "X-Frame-Options", "Set-Cookie"}:
        assert answer.headers.getlist(name) == usual.headers.getlist(name)


@pytest.mark.parametrize(
    ("public_url", "sent"), [("https://embed.example", True), ("http://127.0.0.1:8000", False)]
)
def test_hsts_is_sent_where_the_service_is_known_by_https(
    make_shared: Callable[..., Service], public_url: str, sent: bool
) -> None:
    service = make_shared(PUBLIC_URL=public_url, SECRET_KEY=KEY)
    answers = [service.frame().response, service.client.get(PATH), service.client.get("/nothing")]
    answers += [service.client.get("/static/embed/embed.css", buffered=True), service.mint(client="auditor")]
    assert {"Strict-Transport-Security" in answer.headers for answer in answers} == {sent}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/nothing"),
        ("GET", "/embed-appsx"),
        ("GET", f"//embed-apps/{ORDERS}"),
        ("GET", f"/EMBED-APPS/{ORDERS}"),
        ("GET", "/api/openapi.json"),
        ("GET", "/api/ext/users/session"),
        ("POST", "/api/ext/users/session"),
        ("POST", "/api/ext/users/personal-access-token"),
        ("GET", "/api/ext/users/personal-access-token"),
        ("GET", "/static/embed/embed.css"),
        ("GET", "/static/embed/frame.js"),
        ("GET", "/static/nothing"),
        ("GET", "/favicon.ico"),
    ],
)
def test_everything_else_may_be_framed_by_nobody(shared: Service, method: str, path: str) -> None:
    answer = shared.client.open(path, method=method, buffered=True)
    assert ancestors_of(answer) == "'none'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        ("/static/embed/embed.css", "cross-origin"),
        ("/static/embed/frame.js", "cross-origin"),
        ("/static/nothing", "cross-origin"),
        ("/api/openapi.json", "same-origin"),
        ("/api/docs", "same-origin"),
        ("/api/ext/users", "same-origin"),
        ("/healthz", "same-origin"),
        ("/nothing", "same-origin"),
        ("/embed-appsx", "same-origin"),
    ],
)
def test_an_isolated_site_loads_public_files_and_nothing_else(
    shared: Service, path: str, policy: str
) -> None:
    answer = shared.client.get(path, buffered=True)
    assert answer.headers.getlist("Cross-Origin-Resource-Policy") == [policy]
    assert "Cross-Origin-Embedder-Policy" not in answer.headers


def test_a_route_that_is_meant_for_other_sites_can_say_so(make_app: Callable[..., Flask]) -> None:
    app = make_app()
    loose = {"Cross-Origin-Resource-Policy": "cross-origin"}
    app.add_url_rule("/loose.js", view_func=lambda: Response("", headers=loose))
    answer = app.test_client().get("/loose.js")
    assert answer.headers.getlist("Cross-Origin-Resource-Policy") == ["cross-origin"]


@pytest.mark.parametrize("path", ["/embed-apps", "/embed-apps/", "/embed-apps/x", f"/embed-apps/{UNKNOWN}"])
def test_what_is_no_app_may_be_framed_by_nobody(shared: Service, path: str) -> None:
    answer = shared.client.get(path)
    assert answer.status_code in (401, 404)
    assert ancestors_of(answer) == "'none'"
    assert policy_of(answer)["script-src"].startswith("'nonce-")


# ---- Who may frame an app ----


@pytest.mark.parametrize(
    ("origins", "directive", "parents"),
    [
        ([], "'none'", []),
        (["https://a.example"], "https://a.example", ["https://a.example"]),
        (
            ["https://a.example", "http://b.example:8080", "capacitor://localhost"],
            "https://a.example http://b.example:8080 capacitor://localhost",
            ["https://a.example", "http://b.example:8080", "capacitor://localhost"],
        ),
        (["HTTPS://A.Example:443", "https://a.example"], "https://a.example", ["https://a.example"]),
        (["*"], "*", ["*"]),
    ],
)
def test_the_apps_origins_may_frame_it_and_are_told(
    service: Service, origins: list[str], directive: str, parents: list[str]
) -> None:
    provision(service.app, changed("apps", "orders", allowed_origins=origins))
    frame = service.frame()
    assert ancestors_of(frame.response) == directive
    assert boot(frame.response)["parents"] == parents
    assert ancestors_of(service.get(frame, "pages/index")) == directive
    ancestors._known.clear()
    assert ancestors_of(service.client.get(PATH)) == directive


def test_origins_that_are_stored_already_stay_though_none_like_them_may_come_in(service: Service) -> None:
    stored = ["capacitor://portal.example", "ionic://localhost:8100"]
    service.change(update(App).where(App.id == ORDERS).values(allowed_origins=stored))
    assert ancestors_of(service.frame().response) == " ".join(stored)
    assert service.mint(allowedOrigins=stored).status_code == 400


def test_each_app_has_its_own_parents(shared: Service) -> None:
    provision(shared.app, changed("apps", "ledger", allowed_origins=["https://globex.example"]))
    told = {app: ancestors_of(shared.client.get(f"/embed-apps/{app}")) for app in (ORDERS, SUPPORT, LEDGER)}
    assert told == {ORDERS: PORTAL, SUPPORT: PORTAL, LEDGER: "https://globex.example"}


def test_a_refused_token_of_another_app_is_shown_to_the_parents_of_the_address(shared: Service) -> None:
    provision(shared.app, changed("apps", "ledger", allowed_origins=["https://globex.example"]))
    assert ancestors_of(shared.open(shared.token(), LEDGER)) == "https://globex.example"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds by which a worker's memory of origins grows old."""
    now = [0.0]
    monkeypatch.setattr(ancestors, "_known", {})
    monkeypatch.setattr(ancestors, "_timer", lambda: now[0])
    return now


def test_new_origins_count_at_the_next_opening_and_within_a_minute_for_refusals(
    service: Service, clock: list[float]
) -> None:
    frame = service.frame()
    provision(service.app, changed("apps", "orders", allowed_origins=["https://new.example"]))
    clock[0] = 59.0
    assert ancestors_of(service.client.get(PATH)) in (PORTAL, "https://new.example")
    clock[0] = 61.0
    assert ancestors_of(service.client.get(PATH)) == "https://new.example"

    provision(service.app, changed("apps", "orders", allowed_origins=["https://newer.example"]))
    assert ancestors_of(service.get(frame, "pages/index")) == "https://newer.example"
    assert ancestors_of(service.client.get(PATH)) == "https://newer.example"


def test_a_refusal_that_asked_the_database_shows_its_present_origins(
    service: Service, clock: list[float]
) -> None:
    older, _ = service.token(), service.token()
    service.client.get(PATH)
    provision(service.app, changed("apps", "orders", allowed_origins=["https://new.example"]))
    assert ancestors_of(service.open(older)) == "https://new.example"


def test_without_a_database_the_origins_last_known_count_for_a_minute(
    service: Service, clock: list[float]
) -> None:
    frame, token = service.frame(), service.token()
    lose_the_database(service.app, database_folder(service.app))
    asks: list[Callable[[], TestResponse]] = [
        lambda: service.open(token),
        lambda: service.get(frame, "pages/index"),
        lambda: service.get(frame, "session"),
    ]
    for seconds, directive in ((59.0, PORTAL), (60.5, "'none'"), (3600.0, "'none'")):
        clock[0] = seconds
        for ask in asks:
            answer = ask()
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) >= 1
            assert ancestors_of(answer) == directive
        refused = service.open("pat_0")
        assert (refused.status_code, ancestors_of(refused)) == (401, directive)


def test_without_a_database_an_app_never_seen_may_be_framed_by_nobody(
    service: Service, clock: list[float]
) -> None:
    lose_the_database(service.app, database_folder(service.app))
    answer = service.client.get(PATH)
    assert (answer.status_code, ancestors_of(answer)) == (401, "'none'")


def test_origins_are_known_to_a_worker_for_a_minute_at_most() -> None:
    assert 0 < ancestors.MAX_AGE_SECONDS <= 60


def test_a_worker_remembers_a_bounded_number_of_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ancestors, "_known", {})
    monkeypatch.setattr(ancestors, "MAX_PLACES", 3)
    for number in range(10):
        ancestors.remember(Place(app_id=str(number)), [PORTAL])
        assert len(ancestors._known) <= 3
    assert ancestors.recent_origins(Place(app_id="9")) == [PORTAL]
