"""Alive and ready: what is asked, how often, and how long it may take."""

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
    """The app lives longer than a test, and an answer longer than most tests."""
    fresh = tuple(
        Probe(tuple(p._unavailable), p._check) for p in service.app.extensions["pat_service.probes"]
    )
    monkeypatch.setitem(service.app.extensions, "pat_service.probes", fresh)


def failing(service: Service) -> dict[str, str]:
    """Ask for readiness, which must be refused as every 503 is, and return the checks."""
    answer = service.client.get("/readyz")
    assert answer.status_code == 503
    told: dict[str, str] = answer.get_json()["checks"]
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.content_type == "application/problem+json"
    assert (answer.get_json()["code"], answer.get_json()["status"]) == ("unavailable", 503)
    assert answer.get_json()["requestId"] == answer.headers["X-Request-Id"]
    for part, state in told.items():
        assert (state != "ok") == (part in answer.get_json()["detail"])
    return told


def test_a_process_is_alive_whatever_became_of_its_stores(service: Service) -> None:
    lose_the_database(service.app, database_folder(service.app))
    with service.statements() as statements:
        answer = service.client.get("/healthz")
    assert (answer.status_code, answer.get_json()) == (200, {"status": "ok", "version": __version__})
    assert statements == []


def test_what_is_ready_says_so_and_fills_no_log(
    service: Service, request_lines: Callable[[], list[object]]
) -> None:
    answer = service.client.get("/readyz")
    assert (answer.status_code, answer.get_json()) == (200, {"status": "ok", "checks": FINE})
    service.client.get("/healthz")
    assert request_lines() == []


def test_without_a_database_it_is_not_ready(service: Service) -> None:
    lose_the_database(service.app, database_folder(service.app))
    assert failing(service) == FINE | {"database": "unavailable", "schema": "unknown"}


@pytest.mark.parametrize(
    "harm",
    [
        "DROP TABLE alembic_version",
        "DELETE FROM alembic_version",
        "UPDATE alembic_version SET version_num='0001'",
    ],
)
def test_with_a_schema_that_is_behind_it_is_not_ready(service: Service, harm: str) -> None:
    service.change(text(harm))
    assert failing(service) == FINE | {"schema": "behind"}


def test_a_schema_that_a_newer_release_has_brought_up_will_do(service: Service) -> None:
    service.change(text("UPDATE alembic_version SET version_num='9999'"))
    assert service.client.get("/readyz").status_code == 200


def test_with_a_file_that_only_reads_it_is_not_ready(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    assert failing(service) == FINE | {"database": "read-only"}


@pytest.mark.parametrize("error", [StorageError(OSError("redis://:correct-horse@redis")), OSError("x")])
def test_without_the_limiters_store_it_is_not_ready(
    service: Service, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(service.app.extensions["pat_service.limiter"], "hit", fail)
    assert failing(service) == FINE | {"limiter": "unavailable"}
    assert "correct-horse" not in service.client.get("/readyz").text


def test_a_flood_asks_the_database_once(service: Service) -> None:
    with service.statements() as statements:
        for _ in range(50):
            assert service.client.get("/readyz").status_code == 200
    assert len(statements) <= 2 * 2  # a second may begin meanwhile


def test_whoever_asks_gets_the_way_that_it_was_at_most_a_second_ago() -> None:
    answers, now = iter([{"x": "ok"}, {"x": "behind"}]), [100.0]
    probe = Probe(("x",), lambda: next(answers), lambda: now[0])
    assert probe.read_states() == {"x": "ok"}
    now[0] += FRESH_SECONDS - 0.01
    assert probe.read_states() == {"x": "ok"}
    now[0] += 0.01
    assert probe.read_states() == {"x": "behind"}


def test_while_a_store_hangs_only_the_first_wait_for_it() -> None:
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


def test_a_check_that_fails_itself_is_told_as_not_ready(caplog: pytest.LogCaptureFixture) -> None:
    def ask() -> dict[str, str]:
        raise ZeroDivisionError

    assert Probe(("x", "y"), ask).read_states() == {"x": "unavailable", "y": "unavailable"}
    assert "a readiness check failed" in caplog.text


def test_the_deadlines_leave_room_for_a_load_balancers_own() -> None:
    assert FRESH_SECONDS <= 1
    assert DEADLINE_SECONDS <= 2
