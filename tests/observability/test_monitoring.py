"""`/metrics`: access, the counts, and the absence of secrets."""

import re
from collections.abc import Callable

import pytest
import yaml
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from pat_service import metrics
from pat_service.errors import BY_CODE, Unavailable
from pat_service.storage.database import reading
from tests.support.people import (
    KEY,
    MINT,
    ORDERS,
    SECRETS,
    WORLD,
    Service,
    basic,
    database_folder,
    lose_the_database,
    make_secret,
    provision,
)
from tests.support.servers import PROJECT

TOKEN = "metrics-" + make_secret("metrics")
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PAGE = (PROJECT / "docs" / "operate" / "monitoring.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def _forget_other_tests() -> None:
    """Clear the counts of other tests of this process: their many labels make a scrape slow."""
    for metric, children in (
        (metrics._refusals, metrics._refusal_children),
        (metrics._requests, metrics._request_children),
        (metrics._decisions, metrics._decision_children),
    ):
        metric.clear()
        children.clear()


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    app = make_app(METRICS_TOKEN=TOKEN, OPEN_RATE_LIMIT="2 per minute")
    provision(app, WORLD)
    return app


def scrape(service: Service, name: str = "") -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the samples whose names begin with `name`. Few are cheap: one process runs many tests."""
    answer = service.client.get("/metrics", headers=BEARER)
    assert answer.status_code == 200
    lines = [line for line in answer.text.splitlines() if line.startswith((name, "#"))]
    families = text_string_to_metric_families("\n".join([*lines, ""]))
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


class Change:
    """The growth of each sample since the object's creation."""

    def __init__(self, service: Service) -> None:
        self.service, self.before = service, scrape(service)

    def __call__(self, name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return scrape(self.service, name).get(key, 0) - self.before.get(key, 0)


# Access


def test_without_a_metrics_token_the_answer_is_404(make_app: Callable[..., Flask]) -> None:
    client = make_app().test_client()
    for headers in ({}, BEARER, {"Authorization": "Bearer None"}, {"Authorization": "Bearer "}):
        assert client.get("/metrics", headers=headers).status_code == 404


def test_with_a_wrong_token_the_answer_is_401(service: Service) -> None:
    near = (f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN)
    for sent in ("", "Bearer", "Bearer ", "Bearer é", *near):
        answer = service.client.get("/metrics", headers={"Authorization": sent})
        assert (answer.status_code, answer.get_json()["code"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "pat_mints" not in answer.text
    assert service.client.get("/metrics", headers=basic("manager")).status_code == 401


# Counts


def test_mints_opens_and_refusals_are_counted(service: Service) -> None:
    grown = Change(service)
    old, new = service.token(), service.token()
    service.refusal(old)
    for _ in range(3):
        service.open(new)
    service.client.get(f"/embed-apps/{ORDERS}/session", headers={"Authorization": "Bearer x"})
    service.mint(client="auditor")
    service.client.post(MINT, headers=basic("portal", "w" * 40), json={})
    service.client.get("/nothing")
    service.frame()
    service.client.post("/api/ext/users/session", json={"appId": ORDERS, "accessToken": service.token()})
    assert (grown("pat_mints_total"), grown("pat_opens_total")) == (4, 4)
    for code, kind in {
        "token_superseded": "open",
        "rate_limited": "open",
        "session_invalid": "session",
        "scope_missing": "mint",
        "invalid_client": "mint",
        "not_found": "none",
    }.items():
        assert grown("pat_refusals_total", code=code, kind=kind) == 1, code
    assert grown("pat_limiter_decisions_total", limit="open", decision="allowed") == 5
    assert grown("pat_limiter_decisions_total", limit="open", decision="refused") == 1
    assert grown("pat_limiter_decisions_total", limit="failure", decision="allowed") == 1


def routes(service: Service) -> set[str]:
    name = "pat_request_duration_seconds_count"
    return {dict(labels).get("route", "none") for _, labels in scrape(service, name)}


def test_latency_is_counted_by_route_and_never_by_path(service: Service) -> None:
    grown, before = Change(service), routes(service)
    frame = service.frame()
    service.get(frame, "pages/index")
    for number in range(20):
        service.client.get(f"/nothing/{number}")
        service.client.get(f"/embed-apps/{number}")
        service.client.open("/nothing", method=f"BREW{number}")
    name = "pat_request_duration_seconds_count"
    route = "/embed-apps/<app_id>/pages/<page_name:name>"
    assert grown(name, method="GET", route=route, status="2xx") == 1
    assert grown(name, method="GET", route="none", status="4xx") == 20
    assert grown(name, method="other", route="none", status="4xx") == 20
    assert grown(name, method="GET", route="/embed-apps/<app_id>", status="4xx") == 20
    known = {rule.rule for rule in service.app.url_map.iter_rules()} | {"none"}
    # Other tests of this process are counted too.
    assert routes(service) - before <= known


def test_live_tokens_and_sessions_are_counted_once_for_several_scrapes_and_by_an_index(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.frame()
    service.token(email="ben@acme.test")
    service.token(email="ben@acme.test", patExpiry=1)
    with service.statements() as statements:
        found = [scrape(service) for _ in range(5)]
    assert all(each["pat_live_tokens", ()] == 2 for each in found)
    assert all(each["pat_live_sessions", ()] == 1 for each in found)
    counts = [statement for statement in statements if "count(*)" in statement]
    assert len(counts) == 2
    with service.app.app_context(), reading() as connection:
        for statement in counts:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", ("2026-11-22",)).one()
            assert "USING COVERING INDEX" in plan.detail


def test_without_a_database_the_other_metrics_remain(service: Service) -> None:
    lose_the_database(service.app, database_folder(service.app))
    found = scrape(service)
    assert found["pat_up", (("part", "database"),)] == 0
    assert found["pat_up", (("part", "limiter"),)] == 1
    assert not {"pat_live_tokens", "pat_live_sessions"} & {name for name, _ in found}
    assert ("pat_mints_total", ()) in found
    grown = Change(service)
    assert service.mint().status_code == 503
    assert grown("pat_store_unavailable_total", store="database") == 1


def test_a_busy_writer_and_an_unwritten_event_are_counted(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise Unavailable

    old, _new = service.token(), service.token()
    grown = Change(service)
    with monkeypatch.context() as patched:
        patched.setattr("pat_service.rules.events.transaction", busy)
        assert service.refusal(old) == "token_superseded"
    with monkeypatch.context() as patched:
        patched.setattr("pat_service.storage.prepared.write_lock", busy)
        assert service.mint().status_code == 503
    assert grown("pat_events_unwritten_total") == 1
    assert grown("pat_store_unavailable_total", store="database") == 1
    assert grown("pat_refusals_total", code="unavailable", kind="mint") == 1


def test_a_scrape_contains_no_secret(service: Service) -> None:
    frame = service.frame()
    token = service.token()
    for path in (f"/{token}", f"/embed-apps/{token}", f"{MINT}?x={token}", f"/static/{frame.jwt}"):
        service.client.get(path)
    service.client.open("/x", method="PAT" + "AB" * 36)
    text = service.client.get("/metrics", headers=BEARER).text
    for secret in (token, token[4:20], token[4:20].upper(), frame.jwt[:40], TOKEN, KEY, *SECRETS.values()):
        assert secret not in text
    assert "ana@" not in text


# The claims of docs/operate/monitoring.md


def names_in(text: str) -> set[str]:
    """Return the metrics that a text names, without the suffixes of histograms and counters."""
    return {re.sub(r"_(bucket|count|sum|total)\Z", "", name) for name in re.findall(r"\bpat_[a-z_]+", text)}


def alerts() -> list[dict[str, str]]:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (rules,) = (parsed for parsed in map(yaml.safe_load, blocks) if "groups" in parsed)
    return [rule for group in rules["groups"] for rule in group["rules"]]


def test_every_metric_is_documented_and_every_alert_uses_existing_ones(service: Service) -> None:
    service.mint(client="auditor")
    lines = service.client.get("/metrics", headers=BEARER).text
    shown = names_in("\n".join(re.findall(r"^# TYPE (\w+)", lines, re.MULTILINE)))
    assert len(shown) >= 12
    table = PAGE.partition("| metric |")[2].partition("## Alerts")[0]
    assert names_in(table) == shown
    for rule in alerts():
        assert names_in(rule["expr"]) <= shown, rule["alert"]
        assert names_in(rule["expr"]), rule["alert"]


def test_every_alert_says_what_to_do() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names) >= 8
    table = PAGE.partition("| alert | do |")[2].partition("## The log")[0]
    rows = re.findall(r"^\| ([A-Z]\w+(?:, \w+)*) \|", table, re.MULTILINE)
    documented = {name for row in rows for name in row.split(", ")}
    assert documented == set(names)


def test_alerts_use_existing_codes_and_kinds() -> None:
    text = "\n".join(rule["expr"] for rule in alerts())
    codes = {code for found in re.findall(r'code=~?"([^"]+)"', text) for code in found.split("|")}
    assert codes <= set(BY_CODE)
    kinds = {kind for found in re.findall(r'kind=~?"([^"]+)"', text) for kind in found.split("|")}
    assert kinds <= {"mint", "open", "session", "api", "none"}
