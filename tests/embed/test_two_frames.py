"""Two frames on one page stay apart: two users, two apps, two tabs."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from flask.testing import FlaskClient
from sqlalchemy import select

from pat_service.storage.models import Session
from tests.support.people import Frame, Service, boot

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
