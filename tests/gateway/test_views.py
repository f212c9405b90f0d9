"""The answers to the proxy's subrequests."""

import pytest

from tests.support.shared_fixtures import MakeService
from tests.support.upstreams import SETTINGS, UPSTREAM, Gateway, add_sales, refusal_of


@pytest.fixture(scope="module")
def gateway(make_shared: MakeService) -> Gateway:
    service = make_shared(**SETTINGS)
    add_sales(service)
    return Gateway(service)


def test_ana_reaches_her_app(gateway: Gateway) -> None:
    frame = gateway.open()
    answer = gateway.ask(frame.host, frame.cookie)
    assert answer.status_code == 200, answer.headers
    assert answer.headers["X-Embed-Upstream"] == UPSTREAM
    assert refusal_of(gateway.ask(frame.host, "")) == (401, "session_missing")
    assert refusal_of(gateway.ask(frame.host, frame.cookie, Sec_Fetch_Site="cross-site")) == (
        403,
        "cross_site",
    )
    assert gateway.session(frame).json["cookie"] is True  # type: ignore[index]
