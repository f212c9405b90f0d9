"""The waiting page, and the handover of a token for a session and the first page."""

import re
from typing import Any, Final

import pytest
from sqlalchemy import select, update
from werkzeug.test import TestResponse

from pat_service.embed import answers
from pat_service.embed.advice import script_texts
from pat_service.storage.models import Session, User, Workspace
from tests.support.line import source_of
from tests.support.people import ORDERS, PORTAL, SUPPORT, Service, boot, changed, problem_of, provision

NONCE: Final = "n" * 22
JSON: Final = {"Accept": "application/json"}
FRAMED: Final = {"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Mode": "navigate"}


def hand_over(
    service: Service, body: Any, place: str = f"embed-apps/{ORDERS}", **headers: str
) -> TestResponse:
    return service.client.post(f"/{place}/frame", json=body, headers=JSON | headers)


def handed(token: Any, **fields: Any) -> dict[str, Any]:
    return {"accessToken": token, "parentOrigin": PORTAL} | fields


def opened(answer: TestResponse) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store, no-transform"
    found: dict[str, Any] = answer.get_json()
    return found


# ---- The page that waits ----


def test_the_waiting_page_contains_no_personal_data(shared: Service) -> None:
    before = shared.count(Session)
    answer = shared.client.get(f"/embed-apps/{ORDERS}/frame", headers=FRAMED)
    started = boot(answer)
    assert started.keys() == {"base", "parents", "locale", "language", "theme"}
    assert (started["base"], started["parents"]) == (f"/embed-apps/{ORDERS}", [])
    shown = re.sub(r' nonce="[^"]+"', "", answer.text)  # a random nonce may contain these texts
    for text in ("ana@", "Ana", "Acme", "Orders", "pat_", "eyJ"):
        assert text not in shown
    assert shared.count(Session) == before
    policy = answer.headers["Content-Security-Policy"]
    assert f"frame-ancestors {PORTAL}" in policy
    assert "form-action 'none'" in policy
    assert answer.headers["Cache-Control"] == "no-store, no-transform"


@pytest.mark.parametrize(
    ("place", "preloads"),
    [
        (f"embed-apps/{ORDERS}", ["orders.css", "orders.js"]),
        (f"embed-apps/{'0' * 8}-0000-4000-8000-{'0' * 12}", []),
        ("embed-workspaces/{workspace}", ["embed.js", "launcher.js"]),
    ],
)
def test_the_waiting_page_loads_the_files_of_the_first_page(
    shared: Service, place: str, preloads: list[str]
) -> None:
    workspace = shared.rows(select(Workspace.id).where(Workspace.slug == "acme"))[0].id
    page = shared.client.get(f"/{place.format(workspace=workspace)}/frame").text
    found = re.findall(r'<link rel="preload" as="(script|style)" href="([^"]+)" nonce="[\w-]+">', page)
    names = [source_of(address).rpartition("/")[2] for _, address in found]
    assert names == ["htmx-4.0.1.min.js", *preloads]
    assert all(kind == ("style" if ".css" in address else "script") for kind, address in found)
    for _, address in found:
        assert shared.client.get(address).status_code == 200


def test_the_waiting_page_has_the_hosts_language_and_theme(shared: Service) -> None:
    answer = shared.client.get(f"/embed-apps/{ORDERS}/frame?locale=es-MX&theme=dark")
    assert '<html lang="es" data-theme="dark">' in answer.text
    assert "Abriendo" in answer.text
    assert '<html lang="en" data-theme="auto">' in shared.client.get(f"/embed-apps/{ORDERS}/frame").text


ANYBODY: Final = ["*"]
NATIVE: Final = "safari-web-extension://1B2C"


@pytest.mark.parametrize(
    ("allowed", "named", "parent"),
    [
        *(([PORTAL], PORTAL, PORTAL), (ANYBODY, PORTAL, PORTAL), ([NATIVE.lower()], NATIVE, NATIVE)),
        *(([PORTAL], "https://other.example", None), ([PORTAL], "", None), ([PORTAL], "*", None)),
        *((ANYBODY, "*", None), (ANYBODY, "https://a.example/" + "a" * 2000, None)),
        (["https://other.example"], PORTAL, None),
    ],
)
def test_the_waiting_page_greets_only_an_allowed_parent(
    monkeypatch: pytest.MonkeyPatch, shared: Service, allowed: list[str], named: str, parent: str | None
) -> None:
    monkeypatch.setattr(answers, "current_origins", lambda app_id: allowed)
    answer = shared.client.get(f"/embed-apps/{ORDERS}/frame", query_string={"parent": named})
    assert boot(answer).get("parent") == parent
    assert boot(answer)["parents"] == ([parent.lower()] if parent else [])


@pytest.mark.parametrize(("named", "parents"), [(PORTAL, [PORTAL]), ("https://other.example", []), ("", [])])
def test_a_refusal_of_the_waiting_page_names_only_its_parent(
    service: Service, named: str, parents: list[str]
) -> None:
    """Anyone may request this page, and an app's origins name its customers."""
    provision(service.app, changed("apps", "orders", allowed_origins=[PORTAL, "https://customer.example"]))
    tab = {"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"}
    answer = service.client.get(f"/embed-apps/{ORDERS}/frame", query_string={"parent": named}, headers=tab)
    assert answer.status_code == 403
    assert boot(answer)["parents"] == parents


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (FRAMED, 200),
        ({}, 200),
        # If a frame stays blank, embed.js checks whether its address answers.
        ({"Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "no-cors"}, 200),
        ({"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"}, 403),
        (FRAMED | {"Sec-Purpose": "prefetch"}, 403),
    ],
)
def test_the_waiting_page_loads_only_in_frames(shared: Service, headers: dict[str, str], status: int) -> None:
    assert shared.client.get(f"/embed-apps/{ORDERS}/frame", headers=headers).status_code == status


def test_the_waiting_page_reads_the_current_allowed_origins(service: Service) -> None:
    def policy() -> str:
        return service.client.get(f"/embed-apps/{ORDERS}/frame").headers["Content-Security-Policy"]

    assert f"frame-ancestors {PORTAL}" in policy()
    provision(service.app, changed("apps", "orders", allowed_origins=["https://new.example"]))
    assert "frame-ancestors https://new.example" in policy()


@pytest.mark.parametrize(
    ("app", "status"),
    [("00000000-0000-4000-8000-000000000000", 200), ("orders", 404), ("%22%3E%3Cscript%3E", 404)],
)
def test_no_page_may_frame_a_missing_app(shared: Service, app: str, status: int) -> None:
    answer = shared.client.get(f"/embed-apps/{app}/frame")
    assert answer.status_code == status
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert "<script>" not in answer.text


# ---- A session for a token ----


def test_ana_gets_a_session_and_the_apps_page_for_her_token(shared: Service) -> None:
    found = opened(hand_over(shared, handed(shared.token(sessionExpiry=60), nonce=NONCE)))
    assert found["expiresIn"] == 3600
    assert found["viewer"]["user"]["name"] == "Ana"
    page = found["page"]
    assert page.startswith("<!doctype html>")
    assert f'nonce="{NONCE}"' in page
    assert set(re.findall(r'nonce="([^"]*)"', page)) == {NONCE}
    assert found["session"] not in page
    assert "embed-boot" not in page
    facts = shared.client.get(
        f"/embed-apps/{ORDERS}/session", headers={"Authorization": f"Bearer {found['session']}"}
    )
    assert facts.status_code == 200


def test_a_page_in_greek_needs_two_bytes_for_a_letter(service: Service) -> None:
    service.change(update(User).where(User.email == "ana@acme.test").values(name="Άννα"))
    answer = hand_over(service, handed(service.token(), nonce=NONCE))
    found = opened(answer)
    assert "Άννα" in found["page"]
    assert answer.data.count("Άννα".encode()) == 1 + found["page"].count("Άννα")


def test_a_renewal_gets_only_a_session_and_the_first_one_stays(service: Service) -> None:
    first = opened(hand_over(service, handed(service.token(), nonce=NONCE)))
    second = opened(hand_over(service, handed(service.token())))
    assert second["page"] is None
    assert second["session"] != first["session"]
    for found in (first, second):
        bearer = {"Authorization": f"Bearer {found['session']}"}
        assert service.client.get(f"/embed-apps/{ORDERS}/session", headers=bearer).status_code == 200
    assert len(service.events("session:opened")) == 2


def test_an_invalid_token_opens_nothing(service: Service) -> None:
    old, of_orders = service.token(), service.token()
    before = service.count(Session)
    for token, app_id, code in (
        *((text, ORDERS, "token_invalid") for text in ("pat_no", "pat_" + "0" * 72, "\0", "ü" * 500)),
        *(("", ORDERS, "token_missing"), (old, ORDERS, "token_superseded")),
        (of_orders, SUPPORT, "token_invalid"),
    ):
        problem_of(hand_over(service, handed(token, nonce=NONCE), f"embed-apps/{app_id}"), 401, code)
    assert service.count(Session) == before


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"accessToken": "pat_x"}, {"parentOrigin": PORTAL}, handed(None), handed(7)),
        *(handed(["pat_x"]), handed("pat_x", parentOrigin=None), handed("pat_x", parentOrigin="")),
        *(handed("pat_x", parentOrigin="h" * 301), handed("pat_x", parentOrigin={})),
        *(handed("pat_x", nonce=""), handed("pat_x", nonce='"><script>'), handed("pat_x", nonce="n" * 65)),
        *(handed("pat_x", nonce=7), handed("pat_x", more=1), [], "pat_x", 7),
    ],
)
def test_an_invalid_body_is_refused_and_not_repeated(shared: Service, body: Any) -> None:
    answer = hand_over(shared, body)
    assert problem_of(answer, 400, "invalid_payload")["errors"]
    assert "pat_x" not in answer.text
    assert "<script>" not in answer.text


# ---- The parent page ----


@pytest.mark.parametrize("parent", ["https://evil.example", "null", PORTAL.upper(), f"{PORTAL}/", "*"])
def test_a_parent_that_is_not_allowed_gets_no_session(shared: Service, parent: str) -> None:
    token, before = shared.token(), shared.count(Session)
    answer = hand_over(shared, handed(token, parentOrigin=parent, nonce=NONCE))
    problem_of(answer, 403, "origin_not_allowed")
    assert shared.count(Session) == before


@pytest.mark.parametrize("parent", ["https://any.example", "null", "capacitor://any", "http://[::1]:3000"])
def test_an_app_that_allows_all_origins_opens_in_any_page(service: Service, parent: str) -> None:
    provision(service.app, changed("apps", "orders", allowed_origins=["*"]))
    opened(hand_over(service, handed(service.token(), parentOrigin=parent)))


# ---- Single use, and a whole workspace ----


def test_only_a_single_use_token_is_marked_in_the_mints_answer(shared: Service) -> None:
    """embed.js shares other tokens between frames."""
    options: list[dict[str, Any]] = [{"singleUse": True}, {}, {"singleUse": False}, {"singleUse": None}]
    answers = [shared.mint(**option).get_json() for option in options]
    assert [answer.get("singleUse", "absent") for answer in answers] == [True, *["absent"] * 3]


def workspace_token(service: Service) -> tuple[str, str]:
    found = service.mint(appSlug=None, workspaceSlug="acme", client="manager").get_json()
    return found["personalAccessToken"], found["redirectUrl"].partition("?")[0].rpartition("/")[2]


def test_a_workspace_token_opens_the_launcher(service: Service) -> None:
    token, id_ = workspace_token(service)
    waits = service.client.get(f"/embed-workspaces/{id_}/frame")
    assert f"frame-ancestors {PORTAL}" in waits.headers["Content-Security-Policy"]
    assert "frame-src 'self'" in waits.headers["Content-Security-Policy"]
    found = opened(hand_over(service, handed(token, nonce=NONCE), f"embed-workspaces/{id_}"))
    assert "Your apps" in found["page"]
    assert f'value="{ORDERS}"' in found["page"]
    assert found["session"] not in found["page"]
    evil = hand_over(service, handed(token, parentOrigin="https://evil.example"), f"embed-workspaces/{id_}")
    problem_of(evil, 403, "origin_not_allowed")


def test_an_apps_page_takes_no_workspace_token(service: Service) -> None:
    """The scripts of one app could read a token that opens the others."""
    for nonce in (NONCE, None):
        answer = hand_over(service, handed(workspace_token(service)[0], nonce=nonce))
        assert "Mint one for it" in problem_of(answer, 401, "token_invalid")["detail"]
    assert service.count(Session) == 0


# ---- Texts ----


def test_texts_come_in_the_requested_language(shared: Service) -> None:
    answer = shared.client.get("/embed-texts?locale=es-AR").get_json()
    assert (answer["locale"], answer["language"]) == ("es-AR", "es")
    assert answer["texts"]["words"] == script_texts("es")["words"] != script_texts("en")["words"]
    assert shared.client.get("/embed-texts?locale=../..").get_json()["language"] == "en"
