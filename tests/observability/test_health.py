"""Liveness and readiness: the checks, their age and their deadline."""

import threading
from collections.abc import Callable

import pytest
from limits.errors import StorageError
from sqlalchemy import text

from pat_service import __version__
from pat_service.observability.health import DEADLINE_SECONDS, FRESH_SECONDS, Probe
from tests.support.people import Service, database_folder, lose_the_database

FINE = {"database": "ok", "schema": "ok", "limiter": "ok"}


@pytest.fixture(autouse=True)
def _forget_answers(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the shared app's states, which would stay fresh for a second."""
    fresh = tuple(
        Probe(tuple(p._unavailable), p._check) for p in service.app.extensions["pat_service.probes"]
    )
    monkeypatch.setitem(service.app.extensions, "pat_service.probes", fresh)


def failing(service: Service) -> dict[str, str]:
    """Return the checks of a 503 of /readyz."""
    answer = service.client.get("/readyz")
    assert answer.status_code == 503
    checks: dict[str, str] = answer.get_json()["checks"]
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.content_type == "application/problem+json"
    assert (answer.get_json()["code"], answer.get_json()["status"]) == ("unavailable", 503)
    assert answer.get_json()["requestId"] == answer.headers["X-Request-Id"]
    for part, state in checks.items():
        assert (state != "ok") == (part in answer.get_json()["detail"])
    return checks


def test_a_process_is_alive_without_its_stores(service: Service) -> None:
    lose_the_database(service.app, database_folder(service.app))
    with service.statements() as statements:
        answer = service.client.get("/healthz")
    assert (answer.status_code, answer.get_json()) == (200, {"status": "ok", "version": __version__})
    assert statements == []


def test_a_ready_service_answers_ok_and_logs_nothing(
    service: Service, request_lines: Callable[[], list[object]]
) -> None:
    # The schema of a newer release is fine.
    service.change(text("UPDATE alembic_version SET version_num='9999' WHERE version_num LIKE '00%'"))
    answer = service.client.get("/readyz")
    assert (answer.status_code, answer.get_json()) == (200, {"status": "ok", "checks": FINE})
    service.client.get("/healthz")
    assert request_lines() == []


@pytest.mark.parametrize(
    ("harm", "states"),
    [
        ("lost", {"database": "unavailable", "schema": "unknown"}),
        ("read-only", {"database": "read-only"}),
        ("DROP TABLE alembic_version", {"schema": "behind"}),
        ("DELETE FROM alembic_version", {"schema": "behind"}),
        ("UPDATE alembic_version SET version_num='0001' WHERE version_num LIKE '00%'", {"schema": "behind"}),
    ],
)
def test_without_a_usable_database_the_service_is_not_ready(
    service: Service, monkeypatch: pytest.MonkeyPatch, harm: str, states: dict[str, str]
) -> None:
    if harm == "lost":
        lose_the_database(service.app, database_folder(service.app))
    elif harm == "read-only":
        monkeypatch.setattr("os.access", lambda *_: False)
    else:
        service.change(text(harm))
    assert failing(service) == FINE | states


@pytest.mark.parametrize("error", [StorageError(OSError("redis://:correct-horse@redis")), OSError("x")])
def test_without_redis_the_service_is_not_ready(
    service: Service, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(service.app.extensions["pat_service.limiter"], "hit", fail)
    assert failing(service) == FINE | {"limiter": "unavailable"}
    assert "correct-horse" not in service.client.get("/readyz").text


def test_many_checks_query_the_database_once(service: Service) -> None:
    with service.statements() as statements:
        for _ in range(50):
            assert service.client.get("/readyz").status_code == 200
    assert len(statements) <= 2 * 2  # a second check may start after a second


def test_a_state_is_at_most_a_second_old() -> None:
    answers, now = iter([{"x": "ok"}, {"x": "behind"}]), [100.0]
    probe = Probe(("x",), lambda: next(answers), lambda: now[0])
    assert probe.read_states() == {"x": "ok"}
    now[0] += FRESH_SECONDS - 0.01
    assert probe.read_states() == {"x": "ok"}
    now[0] += 0.01
    assert probe.read_states() == {"x": "behind"}


def test_only_the_first_checks_wait_for_a_store_that_hangs() -> None:
    asked, answer_now, now = [], threading.Event(), [100.0]

    def ask() -> dict[str, str]:
        asked.append(1)
        answer_now.wait(30)
        return {"x": "ok"}

    probe = Probe(("x",), ask, lambda: now[0])
    first = threading.Thread(target=probe.read_states)
    first.start()
    while not asked:
        pass
    now[0] += DEADLINE_SECONDS
    for _ in range(100):
        assert probe.read_states() == {"x": "unavailable"}
    assert asked == [1]
    answer_now.set()
    first.join()


def test_a_check_that_raises_an_error_reports_its_stores_as_unavailable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def ask() -> dict[str, str]:
        raise ZeroDivisionError

    assert Probe(("x", "y"), ask).read_states() == {"x": "unavailable", "y": "unavailable"}
    assert "a readiness check failed" in caplog.text
