"""One-time codes, the launcher's exchange, renewals, and the pages around a frame."""

import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any, Final

import jwt
import pytest
import time_machine
from sqlalchemy import delete, select, update
from werkzeug.test import TestResponse

from pat_service.credentials import JWT_LEEWAY_SECONDS, Secret, is_well_formed
from pat_service.rules.openings import CODE_SECONDS, REPLACED_WITHIN
from pat_service.storage.models import Grant, Session, Workspace
from tests.support.api_calls import call, open_session
from tests.support.people import (
    LEDGER,
    ORDERS,
    PORTAL,
    PUBLIC_URL,
    SUPPORT,
    Service,
    boot,
    changed,
    problem_of,
    provision,
)

OUTER: Final = "https://outer.example"
EVIL: Final = "https://evil.example"
NONCE: Final = "n" * 22
JSON: Final = {"Accept": "application/json"}


@pytest.fixture
def service(each_service: Service) -> Service:
    """The service on each database."""
    return each_service


def home(service: Service) -> str:
    """Return the path of Acme's launcher."""
    return f"/embed-workspaces/{service.rows(select(Workspace.id).where(Workspace.slug == 'acme'))[0].id}"


def workspace_token(service: Service, **fields: Any) -> str:
    return service.token(**{"client": "manager", "appSlug": None, "workspaceSlug": "acme"} | fields)


def bearer(text: str) -> dict[str, str]:
    return JSON | {"Authorization": f"Bearer {text}"}


def claims(text: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(text, options={"verify_signature": False})
    return found


def launch(service: Service, **fields: Any) -> str:
    """Open Acme's launcher, and return its session."""
    answer = service.client.get(
        home(service), query_string={"personal-access-token": workspace_token(service, **fields)}
    )
    assert answer.status_code == 200, answer.text
    session: str = boot(answer)["session"]
    return session


def enter(service: Service, launcher: str, app_id: str = ORDERS) -> TestResponse:
    return service.client.post(f"{home(service)}/apps/{app_id}", headers=bearer(launcher))


def code_for(service: Service, launcher: str, app_id: str = ORDERS) -> str:
    answer = enter(service, launcher, app_id)
    assert answer.status_code == 201, answer.text
    code: str = answer.get_json()["code"]
    return code


def hand_over(
    service: Service, credential: str, place: str = f"/embed-apps/{ORDERS}", **fields: Any
) -> TestResponse:
    body = {"accessToken": credential, "parentOrigin": PORTAL, "ancestorOrigins": [PORTAL]} | fields
    return service.client.post(f"{place}/frame", json=body, headers=JSON)


def session_of(answer: TestResponse) -> str:
    assert answer.status_code == 200, answer.text
    session: str = answer.get_json()["session"]
    return session


def navigate(service: Service, code: str, place: str = f"/embed-apps/{ORDERS}") -> TestResponse:
    return service.client.get(place, query_string={"code": code}, headers=JSON)


def ask(service: Service, session: str, place: str = f"/embed-apps/{ORDERS}") -> TestResponse:
    return service.client.get(f"{place}/session", headers=bearer(session))


def serves(service: Service, session: str, place: str = f"/embed-apps/{ORDERS}") -> bool:
    answer = ask(service, session, place)
    assert answer.status_code in (200, 401), answer.text
    return answer.status_code == 200


# ---- The launcher's exchange ----


def test_a_launcher_exchanges_its_session_for_a_code_and_the_code_for_a_session(service: Service) -> None:
    launcher = launch(service)
    answer = enter(service, launcher)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store, no-transform"
    found = answer.get_json()
    code = found.pop("code")
    assert found == {"expiresIn": CODE_SECONDS, "url": f"/embed-apps/{ORDERS}"}
    assert is_well_formed(code, "otc")
    session = session_of(hand_over(service, code))
    assert claims(session)["aud"] == f"embed:{ORDERS}"
    assert claims(session)["exp"] <= claims(launcher)["exp"]
    assert serves(service, session)
    _, opened = service.events("session:opened")
    assert (opened.app_id, opened.details) == (ORDERS, {"launcher": claims(launcher)["jti"]})
    assert opened.session_id == claims(session)["jti"]


def test_a_code_opens_the_first_page_by_a_navigation(service: Service) -> None:
    answer = navigate(service, code_for(service, launch(service)))
    assert answer.status_code == 200
    started = boot(answer)
    assert "ways" not in started
    assert serves(service, started["session"])


@pytest.mark.parametrize("redeem", [hand_over, navigate])
def test_a_code_works_once(service: Service, redeem: Callable[..., TestResponse]) -> None:
    code = code_for(service, launch(service))
    assert redeem(service, code).status_code == 200
    for again in (hand_over, navigate):
        problem_of(again(service, code), 401, "token_invalid")
    assert {row.code_digest for row in service.rows(select(Session.code_digest))} == {None}


@pytest.mark.parametrize(("seconds", "status"), [(CODE_SECONDS - 0.001, 200), (CODE_SECONDS, 401)])
def test_a_code_expires_at_its_exact_second(service: Service, seconds: float, status: int) -> None:
    with time_machine.travel(1_795_000_000, tick=False) as clock:
        code = code_for(service, launch(service))
        clock.shift(timedelta(seconds=seconds))
        answer = hand_over(service, code)
        assert answer.status_code == status, answer.text
        if status == 401:
            problem_of(answer, 401, "token_expired")
            problem_of(navigate(service, code), 401, "token_expired")


def test_a_code_works_only_at_its_own_app_and_stays_unused_elsewhere(service: Service) -> None:
    code = code_for(service, launch(service))
    for place in (f"/embed-apps/{SUPPORT}", f"/embed-apps/{LEDGER}", home(service), "/embed-apps/nothing"):
        problem_of(hand_over(service, code, place), 401, "token_invalid")
        problem_of(navigate(service, code, place), 401, "token_invalid")
    assert hand_over(service, code).status_code == 200


@pytest.mark.parametrize("text", ["otc_", "otc_" + "0" * 72, "OTC_" + "0" * 72])
def test_a_made_up_code_is_refused_without_a_query(service: Service, text: str) -> None:
    navigate(service, text)  # reads the allowed origins, which a refusal names
    with service.statements() as statements:
        problem_of(hand_over(service, text), 401, "token_invalid")
    assert statements == []
    assert navigate(service, text).status_code == 401


def test_concurrent_redemptions_of_one_code_give_one_session(service: Service) -> None:
    code, runs = code_for(service, launch(service)), 12
    start = Barrier(runs)

    def redeem(number: int) -> TestResponse:
        caller = Service(service.app.test_client())
        start.wait()
        return (hand_over if number % 2 else navigate)(caller, code)

    with ThreadPoolExecutor(runs) as threads:
        answers = list(threads.map(redeem, range(runs)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 401: runs - 1}


def test_a_code_and_a_token_together_are_refused(service: Service) -> None:
    query = {"code": code_for(service, launch(service)), "personal-access-token": service.token()}
    answer = service.client.get(f"/embed-apps/{ORDERS}", query_string=query, headers=JSON)
    problem_of(answer, 401, "token_invalid")


def test_a_code_opens_no_session_for_a_program(service: Service) -> None:
    body = {"appId": ORDERS, "accessToken": code_for(service, launch(service))}
    problem_of(service.client.post("/api/ext/users/session", json=body), 401, "token_invalid")


def test_a_launcher_opens_only_the_apps_that_its_user_may_open(service: Service) -> None:
    bens = launch(service, email="ben@acme.test")
    problem_of(enter(service, bens, SUPPORT), 403, "app_forbidden")
    for app_id in (LEDGER, "00000000-0000-4000-8000-000000000000", "nothing"):
        problem_of(enter(service, bens, app_id), 404, "app_not_found")
    assert enter(service, bens).status_code == 201
    service.change(delete(Grant))
    problem_of(enter(service, bens), 403, "app_forbidden")


def test_only_a_launchers_session_opens_apps(service: Service) -> None:
    for text in (service.frame().jwt, session_of(hand_over(service, code_for(service, launch(service))))):
        problem_of(enter(service, text), 401, "session_invalid")
    problem_of(service.client.post(f"{home(service)}/apps/{ORDERS}", headers=JSON), 401, "session_invalid")


def test_a_code_of_a_session_that_was_ended_opens_nothing(service: Service) -> None:
    code = code_for(service, launch(service))
    (row,) = service.rows(select(Session.id).where(Session.app_id == ORDERS))
    assert call(service, "DELETE", f"/api/ext/sessions/{row.id}").status_code == 204
    problem_of(hand_over(service, code), 401, "session_revoked")


def test_the_apps_of_a_launcher_end_with_its_session(service: Service) -> None:
    for by_client in (True, False):
        launcher = launch(service)
        apps = [session_of(hand_over(service, code_for(service, launcher))) for _ in range(2)]
        other = session_of(hand_over(service, code_for(service, launch(service))))
        if by_client:
            session_id = claims(launcher)["jti"]
            assert call(service, "DELETE", f"/api/ext/sessions/{session_id}").status_code == 204
        else:
            service.client.delete(f"{home(service)}/session", headers=bearer(launcher))
        for text in apps:
            problem_of(ask(service, text), 401, "session_revoked")
        assert serves(service, other)


def test_revoking_a_workspace_token_ends_the_apps_that_it_opened(service: Service) -> None:
    token = workspace_token(service)
    answer = service.client.get(home(service), query_string={"personal-access-token": token})
    app = session_of(hand_over(service, code_for(service, boot(answer)["session"])))
    of_app = service.frame().jwt
    assert call(service, "DELETE", "/api/ext/personal-access-tokens?appId=" + SUPPORT).status_code == 200
    assert serves(service, app)
    found: Any = call(service, "GET", "/api/ext/personal-access-tokens").get_json()
    (id_,) = [item["id"] for item in found["items"] if item["app"] is None]
    assert call(service, "DELETE", f"/api/ext/personal-access-tokens/{id_}").status_code == 204
    problem_of(ask(service, app), 401, "session_revoked")
    assert serves(service, of_app), "Another token opened it."


def test_revoking_an_apps_token_leaves_the_sessions_of_the_workspace_token(service: Service) -> None:
    app = session_of(hand_over(service, code_for(service, launch(service))))
    service.token()
    found: Any = call(service, "GET", "/api/ext/personal-access-tokens").get_json()
    (id_,) = [item["id"] for item in found["items"] if item["app"] is not None]
    assert call(service, "DELETE", f"/api/ext/personal-access-tokens/{id_}").status_code == 204
    assert serves(service, app)


def test_a_launcher_and_its_apps_count_as_one_frame(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(service.app.config, "MAX_SESSIONS_PER_TOKEN", 1)
    launcher = launch(service)
    for _ in range(3):
        assert serves(service, session_of(hand_over(service, code_for(service, launcher))))


@pytest.mark.parametrize(("seconds", "is_listed"), [(CODE_SECONDS - 0.001, True), (CODE_SECONDS, False)])
def test_a_session_whose_code_expired_unused_is_neither_listed_nor_counted(
    service: Service, monkeypatch: pytest.MonkeyPatch, seconds: float, is_listed: bool
) -> None:
    """No page ever had this session, for example since the viewer closed the tab."""
    monkeypatch.setitem(service.app.config, "MAX_SESSIONS_PER_TOKEN", 1)
    runner, token = service.app.test_cli_runner(), workspace_token(service)
    query = {"personal-access-token": token}
    with time_machine.travel(timedelta(0), tick=False) as clock:
        # The address of an app redirects a workspace token to a page with a code.
        assert service.client.get(f"/embed-apps/{ORDERS}", query_string=query).status_code == 303
        clock.shift(seconds)
        sessions: Any = call(service, "GET", "/api/ext/sessions").get_json()
        tokens: Any = call(service, "GET", "/api/ext/personal-access-tokens").get_json()
        assert len(sessions["items"]) == is_listed
        assert [item["liveSessions"] for item in tokens["items"]] == [is_listed]
        assert bool(runner.invoke(args=["session", "list"]).stdout) == is_listed
        again = service.client.get(f"/embed-apps/{ORDERS}", query_string=query)
        assert again.status_code == (429 if is_listed else 303)


def test_no_app_of_a_launcher_survives_its_concurrent_end(service: Service) -> None:
    for _ in range(5):
        launcher, runs = launch(service), 8
        start = Barrier(runs + 1)

        def run(end: bool, launcher: str = launcher, start: Barrier = start) -> None:
            caller = Service(service.app.test_client())
            start.wait()
            if end:
                caller.client.delete(f"{home(caller)}/session", headers=bearer(launcher))
            else:
                enter(caller, launcher)

        with ThreadPoolExecutor(runs + 1) as threads:
            list(threads.map(run, [True] + [False] * runs))
        assert service.rows(select(Session.id).where(Session.ended_at.is_(None))) == []


# ---- Renewals ----


def test_a_renewal_replaces_its_session_at_the_first_request(service: Service) -> None:
    former = session_of(hand_over(service, service.token()))
    assert serves(service, former)
    newer = session_of(hand_over(service, service.token(), session=former))
    assert serves(service, former), "A request may still be on its way."
    assert serves(service, newer)
    problem_of(ask(service, former), 401, "session_replaced")
    assert serves(service, newer)
    (event,) = service.events("session:replaced")
    assert (event.session_id, event.details) == (claims(former)["jti"], {"by": claims(newer)["jti"]})


def test_a_replaced_session_ends_after_sixty_seconds_at_the_latest(service: Service) -> None:
    with time_machine.travel(1_795_000_000, tick=False) as clock:
        former = session_of(hand_over(service, service.token()))
        session_of(hand_over(service, service.token(), session=former))
        clock.shift(REPLACED_WITHIN - timedelta(milliseconds=1))
        assert serves(service, former)
        clock.shift(timedelta(milliseconds=1))
        problem_of(ask(service, former), 401, "session_replaced")
        clock.move_to(claims(former)["exp"] + JWT_LEEWAY_SECONDS - 0.001)
        problem_of(ask(service, former), 401, "session_replaced")
        clock.shift(timedelta(milliseconds=1))
        problem_of(ask(service, former), 401, "session_expired")


def test_a_renewal_does_not_prolong_the_former_session(service: Service) -> None:
    with time_machine.travel(1_795_000_000, tick=False) as clock:
        former = session_of(hand_over(service, service.token(sessionExpiry=1)))
        clock.shift(timedelta(seconds=30))
        session_of(hand_over(service, service.token(), session=former))
        clock.shift(timedelta(seconds=30))
        assert not serves(service, former)


def test_a_session_of_another_user_app_or_place_is_not_replaced(service: Service) -> None:
    others = [
        (service.frame(email="ben@acme.test").jwt, f"/embed-apps/{ORDERS}"),
        (service.frame(app_id=SUPPORT).jwt, f"/embed-apps/{SUPPORT}"),
        (launch(service), home(service)),
    ]
    for text in (*(text for text, _ in others), "eyJ.eyJ.nothing", ""):
        assert serves(service, session_of(hand_over(service, service.token(), session=text)))
    assert all(serves(service, text, place) for text, place in others)
    assert service.events("session:replaced") == []


def test_a_second_renewal_ends_the_successor_whose_answer_was_lost(service: Service) -> None:
    former = session_of(hand_over(service, service.token()))
    lost = session_of(hand_over(service, service.token(), session=former))
    newer = session_of(hand_over(service, service.token(), session=former))
    assert serves(service, newer)
    problem_of(ask(service, former), 401, "session_replaced")
    problem_of(ask(service, lost), 401, "session_revoked")
    replaced = [(event.session_id, event.details["by"]) for event in service.events("session:replaced")]
    former_id, lost_id, newer_id = (claims(text)["jti"] for text in (former, lost, newer))
    assert replaced == [(former_id, lost_id), (lost_id, newer_id), (former_id, newer_id)]


def test_a_session_that_was_replaced_is_not_replaced_again(service: Service) -> None:
    former = session_of(hand_over(service, service.token()))
    newer = session_of(hand_over(service, service.token(), session=former))
    assert serves(service, newer)
    assert serves(service, session_of(hand_over(service, service.token(), session=former)))
    assert serves(service, newer)


def test_a_code_renews_a_nested_app(service: Service) -> None:
    launcher = launch(service)
    former = session_of(hand_over(service, code_for(service, launcher)))
    newer = session_of(hand_over(service, code_for(service, launcher), session=former))
    assert serves(service, former)
    assert serves(service, newer)
    problem_of(ask(service, former), 401, "session_replaced")


def test_a_renewed_launcher_passes_its_apps_on(service: Service) -> None:
    former = launch(service)
    app = session_of(hand_over(service, code_for(service, former)))
    newer = session_of(hand_over(service, workspace_token(service), home(service), session=former))
    assert serves(service, newer, home(service))
    problem_of(ask(service, former, home(service)), 401, "session_replaced")
    assert serves(service, app)
    session_id = claims(newer)["jti"]
    assert call(service, "DELETE", f"/api/ext/sessions/{session_id}").status_code == 204
    assert not serves(service, app)


def test_a_launcher_renewed_twice_keeps_its_apps(service: Service) -> None:
    """The answer of the first renewal was lost. The apps still end with the launcher."""
    former = launch(service)
    app = session_of(hand_over(service, code_for(service, former)))
    for _ in range(2):
        newer = session_of(hand_over(service, workspace_token(service), home(service), session=former))
    assert serves(service, newer, home(service))
    assert serves(service, app)
    assert call(service, "DELETE", f"/api/ext/sessions/{claims(newer)['jti']}").status_code == 204
    assert not serves(service, app)


def test_an_app_expires_with_its_renewed_launcher(service: Service, clock: time_machine.Traveller) -> None:
    former = launch(service, sessionExpiry=600)
    app = session_of(hand_over(service, code_for(service, former)))
    short = workspace_token(service, sessionExpiry=2)
    newer = session_of(hand_over(service, short, home(service), session=former))
    assert serves(service, newer, home(service))
    clock.shift(timedelta(seconds=119))
    assert serves(service, app)
    clock.shift(timedelta(seconds=1))
    problem_of(ask(service, app), 401, "session_expired")


def test_a_renewal_needs_no_room_for_its_former_session(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(service.app.config, "MAX_SESSIONS_PER_TOKEN", 1)
    token = service.token()
    session = session_of(hand_over(service, token))
    for _ in range(3):
        session = session_of(hand_over(service, token, session=session))
        assert serves(service, session)


def test_ending_a_renewed_session_ends_its_predecessor(service: Service) -> None:
    former = session_of(hand_over(service, service.token()))
    newer = session_of(hand_over(service, service.token(), session=former))
    assert call(service, "DELETE", f"/api/ext/sessions/{claims(newer)['jti']}").status_code == 204
    assert not serves(service, former)


def test_a_renewed_session_ends_its_predecessor_even_without_a_request(service: Service) -> None:
    first = session_of(hand_over(service, service.token()))
    second = session_of(hand_over(service, service.token(), session=first))
    third = session_of(hand_over(service, service.token(), session=second))
    problem_of(ask(service, first), 401, "session_replaced")
    assert serves(service, second)
    assert call(service, "DELETE", f"/api/ext/sessions/{claims(third)['jti']}").status_code == 204
    assert not serves(service, second)


def test_an_unconfirmed_session_writes_once(service: Service) -> None:
    former = session_of(hand_over(service, service.token()))
    newer = session_of(hand_over(service, service.token(), session=former))
    with service.statements() as statements:
        assert serves(service, newer)
    assert len(statements) > 1
    with service.statements() as statements:
        assert serves(service, newer)
    assert len(statements) == 1


# ---- Single use ----


@pytest.mark.parametrize("second", ["form", "a program", "a hand-over"])
def test_only_the_same_kind_of_navigation_repeats_an_opening(service: Service, second: str) -> None:
    token = service.token(singleUse=True)
    first = boot(service.open(token))["session"]
    if second == "form":
        form = {"personal-access-token": token}
        answer = service.client.post(f"/embed-apps/{ORDERS}", data=form, headers=JSON)
    elif second == "a program":
        body = {"appId": ORDERS, "accessToken": token}
        answer = service.client.post("/api/ext/users/session", json=body)
    else:
        answer = hand_over(service, token)
    problem_of(answer, 401, "token_used")
    assert serves(service, first)


@pytest.mark.parametrize("first", ["a program", "a hand-over"])
def test_a_script_gets_no_repeat(service: Service, first: str) -> None:
    token = service.token(singleUse=True)
    if first == "a program":
        session, _ = open_session(service, token)
    else:
        session = session_of(hand_over(service, token))
    assert service.refusal(token) == "token_used"
    problem_of(hand_over(service, token), 401, "token_used")
    assert serves(service, session)


def test_the_first_request_of_the_first_session_ends_the_repeat(service: Service) -> None:
    token = service.token(singleUse=True)
    first = boot(service.open(token))["session"]
    second = boot(service.open(token))["session"]
    assert not serves(service, first), "The second navigation has replaced it."
    assert serves(service, second)
    assert service.refusal(token) == "token_used"
    assert serves(service, second)


def test_a_form_can_be_repeated_by_a_form(service: Service) -> None:
    form = {"personal-access-token": service.token(singleUse=True)}
    for _ in range(2):
        answer = service.client.post(f"/embed-apps/{ORDERS}", data=form)
        assert answer.status_code == 200
    assert serves(service, boot(answer)["session"])
    assert service.client.post(f"/embed-apps/{ORDERS}", data=form).status_code == 401


def test_only_one_navigation_repeats_an_opening(service: Service) -> None:
    token = service.token(singleUse=True)
    assert service.open(token).status_code == 200
    second = boot(service.open(token))["session"]
    assert service.refusal(token) == "token_used"
    assert serves(service, second)


@pytest.mark.parametrize("way", ["address", "form", "hand-over", "code"])
def test_a_first_page_that_raises_leaves_token_and_code_unused(
    service: Service, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    credential = code_for(service, launch(service)) if way == "code" else service.token(singleUse=True)
    before = service.rows(select(Session.id, Session.code_digest))

    def open_() -> TestResponse:
        if way in ("address", "code"):
            name = "code" if way == "code" else "personal-access-token"
            return service.client.get(f"/embed-apps/{ORDERS}", query_string={name: credential})
        if way == "form":
            return service.client.post(f"/embed-apps/{ORDERS}", data={"personal-access-token": credential})
        return hand_over(service, credential, nonce=NONCE)

    def fail(viewer: Any) -> Any:
        raise ValueError("a fault of the app")

    registry = service.app.extensions["pat_service.registry"]
    opened = len(service.events("session:opened"))
    monkeypatch.setitem(service.app.config, "PROPAGATE_EXCEPTIONS", False)
    monkeypatch.setitem(service.app.config, "TESTING", False)
    with monkeypatch.context() as faulty:
        faulty.setitem(registry.get("orders").pages, "index", fail)
        assert open_().status_code == 500
    assert service.rows(select(Session.id, Session.code_digest)) == before
    assert len(service.events("session:opened")) == opened
    assert open_().status_code == 200


def test_a_repeat_and_a_concurrent_first_request_leave_one_session(service: Service) -> None:
    for _ in range(5):
        token = service.token(singleUse=True)
        first = boot(service.open(token))["session"]
        start = Barrier(2)

        def run(call: Callable[[Service], TestResponse], start: Barrier = start) -> TestResponse:
            caller = Service(service.app.test_client())
            start.wait()
            return call(caller)

        def repeat(caller: Service, token: str = token) -> TestResponse:
            return caller.open(token)

        def use(caller: Service, first: str = first) -> TestResponse:
            return ask(caller, first)

        with ThreadPoolExecutor(2) as threads:
            repeated, used = threads.map(run, (repeat, use))
        assert {repeated.status_code, used.status_code} == {200, 401}
        assert serves(service, first) is (used.status_code == 200)


# ---- The pages around a frame ----


@pytest.fixture
def two_origins(service: Service) -> Service:
    """Orders allows the portal and the page around it."""
    provision(service.app, changed("apps", "orders", allowed_origins=[PORTAL, OUTER]))
    return service


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        ([PORTAL], True),
        ([PORTAL, PORTAL.upper()], True),
        ([PORTAL, OUTER], False),
        ([PORTAL, PORTAL, OUTER], False),
        ([PORTAL, "null"], False),
        ([PORTAL, PUBLIC_URL], False),
    ],
)
def test_a_narrowed_token_binds_every_page_around_the_frame(
    two_origins: Service, origins: list[str], allowed: bool
) -> None:
    token = two_origins.token(allowedOrigins=[PORTAL])
    answer = hand_over(two_origins, token, ancestorOrigins=origins)
    if allowed:
        assert serves(two_origins, session_of(answer))
    else:
        problem_of(answer, 403, "origin_not_allowed")
        assert two_origins.count(Session) == 0


def test_pages_around_the_frame_need_the_apps_permission_too(two_origins: Service) -> None:
    token = two_origins.token()
    assert serves(two_origins, session_of(hand_over(two_origins, token, ancestorOrigins=[PORTAL, OUTER])))
    answer = hand_over(two_origins, token, ancestorOrigins=[PORTAL, EVIL])
    problem_of(answer, 403, "origin_not_allowed")


def test_a_browser_without_a_list_moves_to_an_address_with_a_code(two_origins: Service) -> None:
    token = two_origins.token(allowedOrigins=[PORTAL], singleUse=True)
    answer = hand_over(two_origins, token, ancestorOrigins=None, nonce=NONCE)
    assert set(answer.get_json()) == {"moveTo"}
    address = answer.get_json()["moveTo"]
    assert re.match(rf"/embed-apps/{ORDERS}\?code=otc_[0-9a-f]{{72}}&parent=http%3A%2F%2Fportal", address)
    assert token not in address
    problem_of(hand_over(two_origins, token), 401, "token_used")
    page = two_origins.client.get(address)
    assert f"frame-ancestors {PORTAL}" in page.headers["Content-Security-Policy"]
    assert OUTER not in page.headers["Content-Security-Policy"]
    assert boot(page)["parent"] == PORTAL
    session = boot(page)["session"]
    assert serves(two_origins, session)
    assert two_origins.client.get(address).status_code == 401
    assert len(two_origins.events("session:opened")) == 1
    # The page was loaded with the narrowed policy, so its renewal needs no navigation.
    token = two_origins.token(allowedOrigins=[PORTAL])
    newer = session_of(hand_over(two_origins, token, ancestorOrigins=None, session=session))
    assert serves(two_origins, newer)
    problem_of(ask(two_origins, session), 401, "session_replaced")


def test_a_page_with_a_wider_policy_moves_when_its_renewal_is_narrower(two_origins: Service) -> None:
    wide = session_of(hand_over(two_origins, two_origins.token(), ancestorOrigins=None))
    token = two_origins.token(allowedOrigins=[PORTAL])
    answer = hand_over(two_origins, token, ancestorOrigins=None, session=wide)
    page = two_origins.client.get(answer.get_json()["moveTo"])
    assert serves(two_origins, wide)
    assert serves(two_origins, boot(page)["session"])
    problem_of(ask(two_origins, wide), 401, "session_replaced")


def test_a_code_moves_to_the_address_with_itself(two_origins: Service) -> None:
    """A launcher in a browser without a list hands over the code of a narrowed session."""
    provision(two_origins.app, changed("workspaces", "acme", allowed_origins=[PORTAL, OUTER]))
    code = code_for(two_origins, launch(two_origins, allowedOrigins=[PORTAL]))
    answer = hand_over(two_origins, code, ancestorOrigins=None, nonce=NONCE)
    address = answer.get_json()["moveTo"]
    assert f"code={code}&" in address
    page = two_origins.client.get(address)
    assert f"frame-ancestors {PORTAL}" in page.headers["Content-Security-Policy"]
    assert serves(two_origins, boot(page)["session"])
    problem_of(hand_over(two_origins, code), 401, "token_invalid")


def test_a_token_that_narrows_nothing_needs_no_list(two_origins: Service) -> None:
    assert serves(two_origins, session_of(hand_over(two_origins, two_origins.token(), ancestorOrigins=None)))


def test_a_narrowed_launcher_without_a_list_moves_too(service: Service) -> None:
    provision(service.app, changed("workspaces", "acme", allowed_origins=[PORTAL, OUTER]))
    token = workspace_token(service, allowedOrigins=[PORTAL])
    answer = hand_over(service, token, home(service), ancestorOrigins=None)
    page = service.client.get(answer.get_json()["moveTo"])
    assert serves(service, boot(page)["session"], home(service))


@pytest.mark.parametrize("origins", [[], [""], ["x" * 301], [1], "https://portal.example", [PORTAL] * 51, {}])
def test_a_list_that_no_browser_sends_is_refused(service: Service, origins: Any) -> None:
    answer = hand_over(service, service.token(), ancestorOrigins=origins)
    problem_of(answer, 400, "invalid_payload")


def test_a_launcher_may_frame_the_apps_that_it_opens(service: Service) -> None:
    around = {"parentOrigin": PUBLIC_URL, "ancestorOrigins": [PUBLIC_URL, PORTAL]}
    host = PUBLIC_URL.partition("://")[2]

    def at_host(credential: str) -> TestResponse:
        body = {"accessToken": credential} | around
        return service.client.post(f"/embed-apps/{ORDERS}/frame", json=body, headers=JSON | {"Host": host})

    launcher = launch(service)
    assert serves(service, session_of(at_host(code_for(service, launcher))))
    problem_of(at_host(service.token()), 403, "origin_not_allowed")
    around["ancestorOrigins"] = [PUBLIC_URL, EVIL]
    problem_of(at_host(code_for(service, launcher)), 403, "origin_not_allowed")


def test_a_waiting_page_lets_its_launcher_frame_it(service: Service) -> None:
    host = {"Host": PUBLIC_URL.partition("://")[2]}
    path = f"/embed-apps/{ORDERS}/frame"
    answer = service.client.get(path, query_string={"parent": PUBLIC_URL}, headers=host)
    assert f"frame-ancestors {PORTAL} 'self'" in answer.headers["Content-Security-Policy"]
    assert boot(answer)["parent"] == PUBLIC_URL
    for parent in (PORTAL, EVIL):
        answer = service.client.get(path, query_string={"parent": parent}, headers=host)
        assert "'self'" not in answer.headers["Content-Security-Policy"].partition("frame-ancestors")[2]


def test_a_code_is_stored_as_a_digest(service: Service) -> None:
    code = code_for(service, launch(service))
    (row,) = service.rows(select(Session.code_digest).where(Session.code_digest.is_not(None)))
    keyring = service.app.extensions["pat_service.keyring"]
    assert row.code_digest == keyring.current.digest(Secret(code))
    assert code.encode() not in row.code_digest


def test_codes_and_former_sessions_appear_in_no_log_or_event(
    service: Service, request_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    former = session_of(hand_over(service, service.token()))
    code = code_for(service, launch(service))
    navigate(service, code)
    navigate(service, code)
    hand_over(service, service.token(), session=former)
    service.client.get(f"/embed-apps/{code}/pages/{code}")
    logged = (
        repr(request_lines())
        + repr(service.events("session:opened"))
        + repr(service.events("session:refused"))
    )
    assert code not in logged
    assert former not in logged


def test_an_expired_code_keeps_no_session_alive(service: Service) -> None:
    with time_machine.travel(1_795_000_000, tick=False) as clock:
        code = code_for(service, launch(service, sessionExpiry=1))
        service.change(update(Session).where(Session.app_id == ORDERS).values(created_at=Session.expires_at))
        clock.shift(timedelta(seconds=60))
        problem_of(hand_over(service, code), 401, "session_expired")
