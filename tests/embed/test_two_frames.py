"""Two frames on one page stay apart: two users, two apps, two tabs."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from flask.testing import FlaskClient
from sqlalchemy import select

from pat_service.storage.models import Session
from tests.support.people import ORDERS, SUPPORT, Frame, Service, boot, changed, problem_of, provision

ANA: Final = "ana@acme.test"
BEN: Final = "ben@acme.test"


def emails(service: Service, *frames: Frame) -> list[str]:
    return [service.facts(frame)["user"]["email"] for frame in frames]


def test_ana_and_ben_stay_apart_in_two_frames_of_one_app(shared: Service) -> None:
    """One browser and one origin, but no cookie that they could share."""
    anas, bens = shared.frame(email=ANA), shared.frame(email=BEN)
    for _ in range(3):
        assert emails(shared, anas, bens, anas) == [ANA, BEN, ANA]
    assert boot(anas.response)["session"] != boot(bens.response)["session"]
    assert ANA not in bens.response.text
    assert BEN not in anas.response.text


def test_ben_does_not_see_anas_ticket(shared: Service) -> None:
    """Each viewer has their own tickets."""
    both = changed("apps", "support", users=[ANA, BEN])
    provision(shared.app, both)
    anas, bens = shared.frame(SUPPORT, email=ANA), shared.frame(SUPPORT, email=BEN)
    ticket = {"subject": "Ana's own words", "topic": "other", "message": "Nobody else's."}
    assert "Ana&#39;s own words" in shared.post(anas, "pages/create", data=ticket).text
    assert "Ana&#39;s own words" in shared.get(anas, "pages/index").text
    assert "Ana&#39;s own words" not in shared.get(bens, "pages/index").text


def test_ana_stays_when_ben_ends_his_session(shared: Service) -> None:
    anas, bens = shared.frame(email=ANA), shared.frame(email=BEN)
    assert shared.client.delete(f"/embed-apps/{ORDERS}/session", headers=bens.bearer).status_code == 204
    problem_of(shared.get(bens, "session"), 401, "session_revoked")
    assert emails(shared, anas) == [ANA]


def test_ana_stays_when_ben_loses_access(service: Service) -> None:
    anas, bens = service.frame(email=ANA), service.frame(email=BEN)
    provision(service.app, changed("users", BEN, status="archived"))
    problem_of(service.get(bens, "session"), 401, "access_revoked")
    assert emails(service, anas) == [ANA]


def test_bens_new_token_does_not_replace_anas(shared: Service) -> None:
    anas = shared.token(email=ANA)
    bens = [shared.token(email=BEN) for _ in range(3)]
    assert shared.open(anas).status_code == 200
    assert shared.refusal(bens[0]) == "token_invalid"
    assert shared.refusal(bens[1]) == "token_superseded"


def test_anas_two_tabs_have_separate_sessions(shared: Service) -> None:
    token = shared.token()
    first, second = (
        Frame(answer, ORDERS, boot(answer)["session"]) for answer in (shared.open(token), shared.open(token))
    )
    assert shared.facts(first)["sessionId"] != shared.facts(second)["sessionId"]
    shared.client.delete(f"/embed-apps/{ORDERS}/session", headers=first.bearer)
    assert shared.facts(second)["user"]["email"] == ANA


def test_anas_two_apps_accept_only_their_own_session(shared: Service) -> None:
    orders, support = shared.frame(ORDERS), shared.frame(SUPPORT)
    assert shared.facts(orders)["app"]["slug"] == "orders"
    assert shared.facts(support)["app"]["slug"] == "support"
    for jwt, app_id in ((orders.jwt, SUPPORT), (support.jwt, ORDERS)):
        swapped = Frame(orders.response, app_id, jwt)
        problem_of(shared.get(swapped, "session"), 401, "session_invalid")


def test_concurrent_requests_are_not_mixed_up(shared: Service) -> None:
    """Threads do not share the viewer of a request."""
    anas, bens = shared.frame(email=ANA), shared.frame(email=BEN)

    def ask(turn: int) -> bool:
        service = Service(FlaskClient(shared.app, shared.app.response_class))
        frame, email = (anas, ANA) if turn % 2 else (bens, BEN)
        page = service.get(frame, "pages/index")
        shown = [name for name in ("Ana", "Ben") if name in page.text]
        return emails(service, frame) == [email] and shown == ["Ana" if email == ANA else "Ben"]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(60)))


def test_concurrent_openings_are_not_mixed_up(service: Service) -> None:
    tokens = {email: service.token(email=email) for email in (ANA, BEN)}

    def open_as(turn: int) -> tuple[str, str]:
        email = ANA if turn % 2 else BEN
        answer = Service(FlaskClient(service.app, service.app.response_class)).open(tokens[email])
        return email, boot(answer)["viewer"]["user"]["email"]

    with ThreadPoolExecutor(8) as threads:
        assert all(wanted == got for wanted, got in threads.map(open_as, range(40)))
    assert len(service.rows(select(Session.id))) == 40
