"""Slugs of apps: reserved names, `--` in hosts, and slugs that another workspace gave up."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask
from sqlalchemy import func, select, update

from pat_service.errors import Conflict
from pat_service.http.authentication import utcnow
from pat_service.rules import retention
from pat_service.rules.directory.slugs import RESERVED_NAMES
from pat_service.storage.models import App, ReleasedSlug
from tests.rules.test_concurrency import race
from tests.support.directory import Directory
from tests.support.people import LEDGER, ORDERS, WORLD, Service, changed, problem_of, provision

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(params=BOTH)
def directory(request: pytest.FixtureRequest) -> Directory:
    fixture = "app" if request.param == "sqlite" else "postgres_app"
    return Directory(Service(request.getfixturevalue(fixture).test_client()))


def create(directory: Directory, slug: str, workspace: str = "globex", client: str = "rival") -> Any:
    body = {"slug": slug, "workspaceId": directory.workspaces[workspace]}
    return directory.call("POST", "apps", body, client=client)


def rename(directory: Directory, app_id: str, slug: str, client: str = "manager") -> Any:
    return directory.call("PATCH", f"apps/{app_id}", {"slug": slug}, client=client)


# Slugs that were given up.

GIVE_UP: dict[str, Callable[[Directory], Any]] = {
    "by a new slug": lambda directory: rename(directory, ORDERS, "purchases"),
    "by a deletion": lambda directory: directory.call("DELETE", f"apps/{ORDERS}"),
    "by a move with a new slug": lambda directory: directory.call(
        "PATCH",
        f"apps/{ORDERS}",
        {"slug": "purchases", "workspaceId": directory.globex},
        client="everywhere",
    ),
    "by the file": lambda directory: provision(
        directory.service.app, changed("apps", "orders", slug="purchases")
    ),
}


@pytest.mark.parametrize("way", GIVE_UP)
def test_a_slug_that_is_given_up_stays_reserved_for_its_workspace(directory: Directory, way: str) -> None:
    """Scripts of the former app stored data under the slug's host."""
    taken = problem_of(create(directory, "orders"), 409, "conflict")["detail"]
    GIVE_UP[way](directory)
    for client in ("rival", "everywhere"):
        assert problem_of(create(directory, "orders", client=client), 409, "conflict")["detail"] == taken
        problem_of(rename(directory, LEDGER, "orders", client), 409, "conflict")
    ledger = changed("apps", "ledger", slug="orders")
    with pytest.raises(Conflict, match="gave up the slug 'orders' in the last 30 days"):
        provision(directory.service.app, ledger)
    assert create(directory, "orders", "acme", "manager").status_code == 201


def test_a_reservation_ends_after_30_days(directory: Directory) -> None:
    with time_machine.travel("2026-11-02T12:00:00+00:00", tick=False) as clock:
        assert rename(directory, ORDERS, "purchases").status_code == 200
        clock.shift(timedelta(days=30) - timedelta(seconds=1))
        problem_of(create(directory, "orders"), 409, "conflict")
        clock.shift(1)
        assert create(directory, "orders").status_code == 201


def test_an_app_takes_its_slug_back_and_the_reservation_ends(directory: Directory) -> None:
    for slug in ("purchases", "orders"):
        assert rename(directory, ORDERS, slug).status_code == 200
    reserved = directory.service.rows(select(ReleasedSlug.slug, ReleasedSlug.workspace_id))
    assert reserved == [("purchases", directory.acme)]


def test_a_move_takes_the_slug_along(directory: Directory) -> None:
    move = {"workspaceId": directory.globex}
    assert directory.call("PATCH", f"apps/{ORDERS}", move, client="everywhere").status_code == 200
    assert directory.service.count(ReleasedSlug) == 0
    assert rename(directory, ORDERS, "purchases", "rival").status_code == 200
    problem_of(create(directory, "orders", "acme", "manager"), 409, "conflict")
    assert create(directory, "orders").status_code == 201


def test_a_moved_app_does_not_get_back_a_slug_of_its_former_workspace(directory: Directory) -> None:
    assert rename(directory, ORDERS, "purchases").status_code == 200
    move = {"workspaceId": directory.globex}
    assert directory.call("PATCH", f"apps/{ORDERS}", move, client="everywhere").status_code == 200
    problem_of(rename(directory, ORDERS, "orders", "rival"), 409, "conflict")
    assert directory.service.rows(select(App.slug).where(App.id == ORDERS)) == [("purchases",)]


def test_a_refused_slug_changes_nothing(directory: Directory) -> None:
    rename(directory, ORDERS, "purchases")
    directory.take_events()
    problem_of(rename(directory, LEDGER, "orders", "rival"), 409, "conflict")
    assert directory.take_events() == []
    assert directory.service.rows(select(App.slug).where(App.id == LEDGER)) == [("ledger",)]
    assert directory.service.count(ReleasedSlug) == 1


def test_a_purge_deletes_reservations_that_have_ended(directory: Directory) -> None:
    with time_machine.travel("2026-11-02T12:00:00+00:00", tick=False) as clock:
        rename(directory, ORDERS, "purchases")
        for days, left in ((29, 1), (1, 0)):
            clock.shift(timedelta(days=days))
            with directory.service.app.app_context():
                retention.purge(utcnow(), timedelta(days=1000))
            assert directory.service.count(ReleasedSlug) == left


@pytest.mark.slow
def test_globex_cannot_take_a_slug_while_acme_gives_it_up(directory: Directory) -> None:
    """At each moment the slug is either in use or reserved."""
    for number in range(20):
        slug = f"contested-{number}"
        app_id = create(directory, slug, "acme", "manager").json["id"]

        def delete(caller: Service, path: str = f"apps/{app_id}") -> Any:
            return call_as(directory, caller, "DELETE", path, None, "manager")

        def take(caller: Service, slug: str = slug) -> Any:
            body = {"slug": slug, "workspaceId": directory.globex}
            return [call_as(directory, caller, "POST", "apps", body, "rival") for _ in range(5)]

        deleted, taken = race(directory.service, delete, take)
        assert deleted.status_code == 204
        assert {answer.status_code for answer in taken} == {409}


def call_as(directory: Directory, service: Service, method: str, path: str, body: Any, client: str) -> Any:
    """Call with the test client of a thread."""
    other = object.__new__(Directory)
    other.__dict__ = directory.__dict__ | {"service": service}
    return other.call(method, path, body, client)


# Reserved names.


@pytest.mark.parametrize("client", ["manager", "everywhere"])
def test_no_client_may_take_a_reserved_name(directory: Directory, client: str) -> None:
    for name in RESERVED_NAMES:
        for answer in (create(directory, name, "acme", client), rename(directory, ORDERS, name, client)):
            assert list(problem_of(answer, 400, "invalid_payload")["errors"]) == ["slug"]
    assert create(directory, "www2", "acme", client).status_code == 201


def test_the_file_may_take_a_reserved_name_and_the_app_keeps_it(directory: Directory) -> None:
    service = directory.service
    provision(service.app, changed("apps", "orders", slug="www"))
    assert service.open(service.token(appSlug="www")).status_code == 200
    same = {"slug": "www", "name": "Orders again"}
    assert directory.call("PATCH", f"apps/{ORDERS}", same).status_code == 200
    assert "App www keeps its slug until it is renamed." in check(service.app)
    assert rename(directory, ORDERS, "orders").status_code == 200
    problem_of(rename(directory, ORDERS, "www"), 400, "invalid_payload")
    assert "keeps its slug" not in check(service.app)


def check(app: Flask) -> str:
    done = app.test_cli_runner().invoke(args=["check"])
    assert done.exit_code == 0, done.output
    return done.stdout


# `--`.


@pytest.fixture
def with_hosts(make_app: Callable[..., Flask]) -> Directory:
    """A directory of apps that have hosts of their own. Ledger has a slug from an older version."""
    app = make_app(PUBLIC_URL="https://{app}.embed.example")
    provision(app, WORLD)
    directory = Directory(Service(app.test_client()))
    directory.service.change(update(App).where(App.id == LEDGER).values(slug="the--ledger"))
    return directory


def test_with_app_hosts_no_new_slug_contains_two_dashes(with_hosts: Directory) -> None:
    for answer in (create(with_hosts, "a--b", "acme", "manager"), rename(with_hosts, ORDERS, "orders--2")):
        assert list(problem_of(answer, 400, "invalid_payload")["errors"]) == ["slug"]
    with pytest.raises(Conflict, match="App 'orders--2': The slug 'orders--2': Must not contain --"):
        provision(with_hosts.service.app, changed("apps", "orders", slug="orders--2"))
    with pytest.raises(Conflict, match="Must not contain --"):
        provision(with_hosts.service.app, {"apps": [{"slug": "a--b", "workspace": "acme"}]})


def test_with_app_hosts_an_existing_slug_with_two_dashes_works_until_it_is_renamed(
    with_hosts: Directory,
) -> None:
    service = with_hosts.service
    token = service.token(appSlug="the--ledger", email="mallory@globex.test", client="rival")
    address = f"https://the--ledger.embed.example/embed-apps/{LEDGER}"
    opened = service.client.get(address, query_string={"personal-access-token": token}, base_url=None)
    assert opened.status_code == 200
    named = {"slug": "the--ledger", "name": "The ledger"}
    assert with_hosts.call("PATCH", f"apps/{LEDGER}", named, client="rival").status_code == 200
    provision(service.app, changed("apps", "ledger", slug="the--ledger"))
    assert "App the--ledger keeps its slug until it is renamed." in check(service.app)
    assert rename(with_hosts, LEDGER, "ledger", "rival").status_code == 200
    problem_of(rename(with_hosts, LEDGER, "the--ledger", "rival"), 400, "invalid_payload")


def test_on_one_origin_a_slug_may_contain_two_dashes(directory: Directory) -> None:
    assert create(directory, "a--b", "acme", "manager").status_code == 201
    provision(directory.service.app, changed("apps", "orders", slug="orders--2"))
    assert "keeps its slug" not in check(directory.service.app)
    assert directory.service.rows(select(func.count()).where(App.slug.contains("--"))) == [(2,)]
