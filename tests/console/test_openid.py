"""Sign in with an OpenID provider: a real one, and one that lies."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import delete, select, update

from pat_service.rules import events, operators
from pat_service.storage.models import ConsoleSession, Event, Operator
from tests.support.console import CONSOLE_URL, OLGA, OTTO, VERA, Browser, add_operators
from tests.support.openid import FakeProvider, add_person, authorize, fake_provider, provider_process
from tests.support.people import Service
from tests.support.shared_fixtures import MakeService

CLIENT = {"CONSOLE_OIDC_CLIENT_ID": "console", "CONSOLE_OIDC_CLIENT_SECRET": "correct-horse"}
VIEWERS = "@acme.test, nora@partner.example"


@pytest.fixture(scope="module")
def liar() -> Iterator[FakeProvider]:
    with fake_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def with_provider(make_shared: MakeService, liar: FakeProvider) -> Service:
    settings = {"CONSOLE_OIDC_ISSUER": liar.issuer, "CONSOLE_OIDC_VIEWERS": VIEWERS} | CLIENT
    return make_shared(CONSOLE_URL=CONSOLE_URL, **settings)


@pytest.fixture
def provider(liar: FakeProvider) -> FakeProvider:
    """The provider, correct at first."""
    vars(liar).update(vars(FakeProvider(liar.issuer)) | {"_begun": liar._begun})
    return liar


@pytest.fixture
def console(with_provider: Service) -> Service:
    for table in (Operator, Event):
        with_provider.change(delete(table))
    add_operators(with_provider)
    return with_provider


def begin(browser: Browser, **query: str) -> str:
    """Start at the console, and return the provider's address."""
    answer = browser.get("/sign-in/oidc", query_string=query)
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"]


def sign_in(console: Service, provider: FakeProvider, **extra: str) -> tuple[Browser, Any]:
    browser = Browser(console)
    return browser, browser.get(provider.answer(begin(browser), **extra))


def test_otto_signs_in_with_a_real_provider(make_shared: MakeService) -> None:
    with provider_process() as issuer:
        service = make_shared(CONSOLE_URL=CONSOLE_URL, CONSOLE_OIDC_ISSUER=issuer, **CLIENT)
        add_operators(service)
        add_person(issuer, "otto-1", email=OTTO, email_verified=True)
        add_person(issuer, "mallory", email=OTTO, email_verified=False)
        browser = Browser(service)
        back = authorize(begin(browser, next="/sessions"), "otto-1")
        assert back.startswith(f"{CONSOLE_URL}/sign-in/oidc/callback?")
        answer = browser.get(back.removeprefix(CONSOLE_URL))
        assert (answer.status_code, answer.headers["Location"]) == (303, "/sessions")
        assert "single sign-on" in browser.get("/sessions").text
        other = Browser(service)
        refused = other.get(authorize(begin(other), "mallory").removeprefix(CONSOLE_URL))
        assert (refused.status_code, other.cookie) == (401, None)


def test_the_request_has_pkce_state_and_nonce(console: Service, provider: FakeProvider) -> None:
    asked = [parse_qs(urlsplit(begin(Browser(console))).query) for _ in range(2)]
    first, second = asked
    assert first["code_challenge_method"] == ["S256"]
    assert first["redirect_uri"] == [f"{CONSOLE_URL}/sign-in/oidc/callback"]
    assert first["scope"] == ["openid email"]
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name][0]) >= 32
        assert first[name] != second[name]


def test_the_sign_in_is_audited(console: Service, provider: FakeProvider) -> None:
    browser, answer = sign_in(console, provider)
    assert answer.headers["Location"] == "/"
    (signed_in,) = console.events(events.OPERATOR_SIGNED_IN)
    assert (signed_in.client_id, signed_in.details["method"]) == (operators.id_of(OTTO), "oidc")
    assert OTTO in browser.get("/").text


def spoil(**changes: Any) -> Callable[[FakeProvider], None]:
    return lambda provider: provider.claims.update(changes)


@pytest.mark.parametrize(
    "lie",
    [
        spoil(iss="https://other.example"),
        spoil(aud="another-client"),
        spoil(aud=["another-client", "third"]),
        spoil(aud=["console", "other"], azp="other"),
        spoil(nonce="another"),
        spoil(nonce=None),
        spoil(exp=1),
        spoil(exp=None),
        spoil(sub=""),
        spoil(sub=7),
        spoil(sub=None),
        spoil(email_verified=False),
        spoil(email_verified=None),
        spoil(email="not an email"),
        spoil(email=["otto@acme.test"]),
        lambda provider: provider.use_other_key(),
        lambda provider: provider.sign_with_public_key(),
        lambda provider: provider.header.update(alg="none"),
        lambda provider: provider.header.update(kid="unknown"),
    ],
)
def test_a_wrong_id_token_signs_nobody_in(
    console: Service, provider: FakeProvider, lie: Callable[[FakeProvider], None]
) -> None:
    lie(provider)
    browser, answer = sign_in(console, provider)
    assert (answer.status_code, browser.cookie) == (401, None)
    assert console.count(ConsoleSession) == 0
    # The correct provider would have signed Otto in.
    provider.claims, provider.header = {}, {"alg": "RS256", "kid": "k"}
    provider.key = FakeProvider(provider.issuer).key
    assert sign_in(console, provider)[1].status_code == 303


@pytest.mark.parametrize("iss", ["https://other.example", ""])
def test_the_answer_of_another_provider_is_refused(
    console: Service, provider: FakeProvider, iss: str
) -> None:
    """Mix-up (RFC 9207): the answer names another issuer."""
    assert sign_in(console, provider, iss=iss)[1].status_code == 401


def test_a_provider_that_names_itself_must_do_so(console: Service, provider: FakeProvider) -> None:
    provider.metadata["authorization_response_iss_parameter_supported"] = True
    assert sign_in(console, provider)[1].status_code == 401
    assert sign_in(console, provider, iss=provider.issuer)[1].status_code == 303


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.example"},
        {"token_endpoint": "http://other.example/token"},
        {"jwks_uri": None},
        {"authorization_endpoint": "javascript:alert(1)"},
    ],
)
def test_metadata_of_another_or_an_unsafe_provider_is_refused(
    console: Service, provider: FakeProvider, metadata: dict[str, Any]
) -> None:
    provider.metadata.update(metadata)
    answer = Browser(console).get("/sign-in/oidc")
    assert (answer.status_code, "Provider not available" in answer.text) == (503, True)


def test_a_provider_that_fails_gives_no_server_error(console: Service, provider: FakeProvider) -> None:
    browser = Browser(console)
    back = provider.answer(begin(browser))
    provider.down = True
    assert browser.get(back).status_code == 503
    assert browser.get("/sign-in/oidc").status_code == 503


def test_a_code_signs_in_once_and_only_its_own_browser(console: Service, provider: FakeProvider) -> None:
    otto, mallory = Browser(console), Browser(console)
    back = provider.answer(begin(otto))
    begin(mallory)
    assert mallory.get(back).status_code == 401  # another state
    assert Browser(console).get(back).status_code == 401  # no state at all
    assert otto.get(back).status_code == 303
    assert otto.get(back).status_code == 401
    assert mallory.cookie is None


@pytest.mark.parametrize(
    "query", ["", "?code=x", "?state=x", "?error=access_denied&state=x", "?code=%00&state=%ff"]
)
def test_a_made_up_answer_is_refused(console: Service, provider: FakeProvider, query: str) -> None:
    browser = Browser(console)
    begin(browser)
    assert browser.get(f"/sign-in/oidc/callback{query}").status_code == 401


def test_no_open_redirect_after_the_provider(console: Service, provider: FakeProvider) -> None:
    browser = Browser(console)
    answer = browser.get(provider.answer(begin(browser, next="//evil.example")))
    assert answer.headers["Location"] == "/"


def test_an_email_can_come_from_the_userinfo_endpoint(console: Service, provider: FakeProvider) -> None:
    provider.claims.update(email=None, email_verified=None)
    provider.userinfo = {"sub": "mallory", "email": OTTO, "email_verified": True}
    assert sign_in(console, provider)[1].status_code == 401
    provider.userinfo = {"sub": "otto-1", "email": OTTO, "email_verified": True}
    assert sign_in(console, provider)[1].status_code == 303


def test_a_bound_identity_needs_no_email(console: Service, provider: FakeProvider) -> None:
    assert sign_in(console, provider)[1].status_code == 303
    provider.claims.update(email_verified=False)
    assert sign_in(console, provider)[1].status_code == 303


def test_another_account_with_olgas_email_is_not_olga(console: Service, provider: FakeProvider) -> None:
    provider.claims.update(sub="olga-1", email=OLGA)
    assert sign_in(console, provider)[1].status_code == 303
    provider.claims.update(sub="mallory", email=OLGA)
    browser, answer = sign_in(console, provider)
    assert (answer.status_code, browser.cookie) == (401, None)
    (refused,) = console.events(events.SIGN_IN_REFUSED)
    assert refused.client_id == operators.id_of(OLGA)


@pytest.mark.parametrize(
    ("email", "status"),
    [
        ("nora@partner.example", 303),
        ("hugo@acme.test", 303),
        ("mallory@partner.example", 401),
        ("mallory@acme.test.evil.example", 401),
        ("mallory@evil-acme.test", 401),
    ],
)
def test_the_list_of_viewers_creates_viewers_and_nothing_else(
    console: Service, provider: FakeProvider, email: str, status: int
) -> None:
    provider.claims.update(sub=f"at-{email}", email=email)
    browser, answer = sign_in(console, provider)
    assert answer.status_code == status
    found = console.rows(select(Operator.role).where(Operator.email == email))
    assert [row.role for row in found] == (["viewer"] if status == 303 else [])
    if status == 303:
        assert browser.get("/").status_code == 200
        assert browser.get("/operators").status_code == 403


def test_a_removed_viewer_does_not_come_back_by_the_list(console: Service, provider: FakeProvider) -> None:
    provider.claims.update(sub="vera-1", email=VERA)
    console.change(update(Operator).where(Operator.email == VERA).values(archived_at=datetime.now(UTC)))
    assert sign_in(console, provider)[1].status_code == 401


def test_without_a_provider_there_is_no_sign_in_with_one(make_shared: MakeService) -> None:
    browser = Browser(make_shared(CONSOLE_URL=CONSOLE_URL))
    for path in ("/sign-in/oidc", "/sign-in/oidc/callback?code=x&state=y"):
        assert browser.get(path).status_code == 404
    assert "single sign-on" not in browser.get("/sign-in").text


@pytest.mark.parametrize("kind", ["image", "iframe", "empty"])
def test_a_page_of_another_site_uses_up_no_attempts(
    console: Service, provider: FakeProvider, kind: str
) -> None:
    browser = Browser(console)
    headers = {"Sec-Fetch-Dest": kind, "Sec-Fetch-Site": "cross-site"}
    for path in ("/sign-in/oidc", "/sign-in/oidc/callback?code=x&state=y"):
        assert browser.get(path, headers=headers).status_code == 403
        assert "Set-Cookie" not in browser.get(path, headers=headers).headers
