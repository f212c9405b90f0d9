"""The headers of frames and of all other answers, and the origins that may frame an app."""

import re
from collections.abc import Callable
from typing import Any, Final

import pytest
from flask import Flask, Response
from sqlalchemy import update
from werkzeug.test import TestResponse

from pat_service.embed import EmbeddedApp, ancestors
from pat_service.embed.ancestors import Framed
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
    """One service for the module. Its tests keep the state that later tests need."""
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


def with_session(method: str, path: str, **options: Any) -> Ask:
    return lambda service, frame: service.client.open(
        PATH + path, method=method, headers=frame.bearer, **options
    )


#: Requests for every kind of answer at a frame's addresses, with the status of each.
ANSWERS: Final[dict[str, tuple[int, Ask]]] = {
    "an opened frame": (200, lambda service, frame: frame.response),
    "a frame opened by form": (
        200,
        lambda service, frame: service.client.post(PATH, data={"personal-access-token": service.token()}),
    ),
    "a page": (200, with_session("GET", "/pages/index")),
    "a file": (200, with_session("GET", "/data/orders.csv")),
    "the session": (200, with_session("GET", "/session")),
    "options": (200, with_session("OPTIONS", "/session")),
    "no token": (401, get("")),
    "no token, as JSON": (401, get("", Accept="application/json")),
    "no session": (401, get("/session")),
    "outside a frame": (403, get("", Sec_Fetch_Dest="document", Sec_Fetch_Mode="navigate")),
    "a page that is not there": (404, with_session("GET", "/pages/nothing")),
    "an address that is not there": (404, get("/no/such/thing")),
    "HEAD": (405, lambda service, frame: service.client.head(PATH)),
    "PUT": (405, with_session("PUT", "")),
    "a NUL": (400, with_session("GET", "/pages/index?q=%00")),
    "too large a form": (413, lambda service, frame: service.client.post(PATH, data={"a": "b" * 17_000})),
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
        "Cache-Control": "no-store, no-transform",
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


def test_every_answer_has_a_new_nonce_on_every_script(shared: Service) -> None:
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
    """The app may pass on a response from another site."""
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
    ("public_url", "sent"),
    [
        ("https://embed.example", "max-age=31536000"),
        ("https://{app}.embed.example", "max-age=31536000; includeSubDomains"),
        ("http://127.0.0.1:8000", None),
    ],
)
def test_hsts_is_sent_if_the_public_url_is_https_and_covers_the_hosts_of_apps(
    make_shared: Callable[..., Service], public_url: str, sent: str | None
) -> None:
    service = make_shared(PUBLIC_URL=public_url, SECRET_KEY=KEY)
    answers = [service.client.get(PATH), service.client.get("/nothing"), service.mint(client="auditor")]
    answers += [service.client.get("/static/embed/embed.css", buffered=True)]
    assert {answer.headers.get("Strict-Transport-Security") for answer in answers} == {sent}


@pytest.mark.parametrize(
    ("path", "resource_policy"),
    [
        *((path, "same-origin") for path in ("/", "/nothing", "/embed-appsx", f"//embed-apps/{ORDERS}")),
        *((path, "same-origin") for path in (f"/EMBED-APPS/{ORDERS}", "/healthz", "/favicon.ico")),
        *((path, "same-origin") for path in ("/api/openapi.json", "/api/docs", "/api/ext/users")),
        *((f"/api/ext/users/{path}", "same-origin") for path in ("session", "personal-access-token")),
        *((f"/static/{path}", "cross-origin") for path in ("embed/embed.css", "embed/frame.js", "nothing")),
    ],
)
def test_no_other_answer_can_be_framed_and_only_files_load_elsewhere(
    shared: Service, path: str, resource_policy: str
) -> None:
    for method in ("GET", "POST"):
        answer = shared.client.open(path, method=method, buffered=True)
        assert ancestors_of(answer) == "'none'"
        assert policy_of(answer)["base-uri"] == "'none'"
        assert policy_of(answer)["form-action"] == "'none'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers.getlist("Cross-Origin-Resource-Policy") == [resource_policy]
        alone = resource_policy == "same-origin"
        assert answer.headers.get("Cross-Origin-Opener-Policy") == ("same-origin" if alone else None)
        assert not {"Set-Cookie", "Cross-Origin-Embedder-Policy"} & set(answer.headers.keys())


def test_a_route_for_other_sites_can_set_its_resource_policy(make_app: Callable[..., Flask]) -> None:
    app = make_app()
    loose = {"Cross-Origin-Resource-Policy": "cross-origin"}
    app.add_url_rule("/loose.js", view_func=lambda: Response("", headers=loose))
    answer = app.test_client().get("/loose.js")
    assert answer.headers.getlist("Cross-Origin-Resource-Policy") == ["cross-origin"]


# ---- The origins that may frame an app ----

THREE: Final = ["https://a.example", "http://b.example:8080", "capacitor://localhost"]


@pytest.mark.parametrize(
    ("origins", "directive", "parents"),
    [
        ([], "'none'", []),
        (["https://a.example"], "https://a.example", ["https://a.example"]),
        (THREE, " ".join(THREE), THREE),
        (["HTTPS://A.Example:443", "https://a.example"], "https://a.example", ["https://a.example"]),
        (["*"], "*", ["*"]),
    ],
)
def test_the_allowed_origins_may_frame_the_app_and_its_page_names_them(
    service: Service, origins: list[str], directive: str, parents: list[str]
) -> None:
    provision(service.app, changed("apps", "orders", allowed_origins=origins))
    frame = service.frame()
    assert ancestors_of(frame.response) == directive
    assert boot(frame.response)["parents"] == parents
    assert ancestors_of(service.get(frame, "pages/index")) == directive
    ancestors._known.clear()
    for refused in (service.client.get(PATH), service.open("pat_0")):
        assert ancestors_of(refused) == directive
        assert boot(refused)["parents"] == parents


def test_stored_origins_keep_working_if_new_rules_refuse_them(service: Service) -> None:
    stored = ["capacitor://portal.example", "ionic://localhost:8100"]
    service.change(update(App).where(App.id == ORDERS).values(allowed_origins=stored))
    assert ancestors_of(service.frame().response) == " ".join(stored)
    assert service.mint(allowedOrigins=stored).status_code == 400


def test_each_app_has_its_own_allowed_origins(shared: Service) -> None:
    provision(shared.app, changed("apps", "ledger", allowed_origins=["https://globex.example"]))
    origins = {ORDERS: PORTAL, SUPPORT: PORTAL, LEDGER: "https://globex.example"}
    assert {app: ancestors_of(shared.client.get(f"/embed-apps/{app}")) for app in origins} == origins
    # A refusal allows the origins of the app in the address, not of the token's app.
    assert ancestors_of(shared.open(shared.token(), LEDGER)) == "https://globex.example"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A worker's clock for its cached origins, which the test moves."""
    now = [0.0]
    monkeypatch.setattr(ancestors, "_known", {})
    monkeypatch.setattr(ancestors, "_timer", lambda: now[0])
    return now


def test_new_origins_apply_to_openings_at_once_and_to_refusals_within_a_minute(
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


def test_a_refusal_after_a_query_has_the_current_origins(service: Service, clock: list[float]) -> None:
    older, _ = service.token(), service.token()
    service.client.get(PATH)
    provision(service.app, changed("apps", "orders", allowed_origins=["https://new.example"]))
    assert ancestors_of(service.open(older)) == "https://new.example"


def test_without_a_database_the_last_known_origins_apply_for_a_minute(
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


def test_a_worker_caches_the_origins_of_a_limited_number_of_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ancestors, "_known", {})
    monkeypatch.setattr(ancestors, "MAX_PLACES", 3)
    for number in range(10):
        ancestors.remember(Place(app_id=str(number)), Framed([PORTAL]))
        assert len(ancestors._known) <= 3
    assert ancestors.recent(Place(app_id="9")).origins == [PORTAL]
