"""Addresses of apps that run elsewhere: each belongs to one workspace."""

from typing import Any

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from pat_service.storage.database import transaction
from pat_service.storage.models import App, Upstream
from tests.support.directory import Directory
from tests.support.people import LEDGER, ORDERS, Service

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]
SALES = "http://10.0.0.7:8501"


@pytest.fixture(params=BOTH)
def directory(request: pytest.FixtureRequest) -> Directory:
    fixture = "app" if request.param == "sqlite" else "postgres_app"
    return Directory(Service(request.getfixturevalue(fixture).test_client()))


# The database is the last guard.


def run(directory: Directory, *statements: Any) -> None:
    """Execute the statements in one transaction."""
    with directory.service.app.app_context(), transaction() as connection:
        for statement in statements:
            connection.execute(statement)


def belong(app_id: str, **values: Any) -> Any:
    return update(App).where(App.id == app_id).values(values)


def test_the_database_keeps_an_address_in_one_workspace(directory: Directory) -> None:
    acme, globex = directory.acme, directory.globex
    owned = insert(Upstream).values(address=SALES, workspace_id=acme)
    run(directory, owned, belong(ORDERS, upstream=SALES))
    refused = [
        owned,
        belong(LEDGER, upstream=SALES),
        belong(LEDGER, upstream="http://10.0.0.8:8501"),
        belong(ORDERS, workspace_id=globex),
        update(Upstream).values(workspace_id=globex),
        update(Upstream).values(address="http://10.0.0.8:8501"),
    ]
    for statement in refused:
        with pytest.raises(IntegrityError):
            run(directory, statement)
    assert directory.service.rows(select(App.id, App.workspace_id).where(App.upstream == SALES)) == [
        (ORDERS, acme)
    ]


def test_an_address_moves_with_its_app_in_one_transaction(directory: Directory) -> None:
    globex = directory.globex
    run(
        directory,
        insert(Upstream).values(address=SALES, workspace_id=directory.acme),
        belong(ORDERS, upstream=SALES),
    )
    run(directory, update(Upstream).values(workspace_id=globex), belong(ORDERS, workspace_id=globex))
    assert directory.service.rows(select(Upstream.address, Upstream.workspace_id)) == [(SALES, globex)]
