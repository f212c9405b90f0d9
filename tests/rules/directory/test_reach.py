"""Rows outside a caller's workspaces look like missing rows; a deletion retries on new tokens."""

import pytest
from sqlalchemy import select

from pat_service.errors import AppNotFound, Refused, UserNotFound, WorkspaceNotFound
from pat_service.rules.callers import OPERATOR, Caller
from pat_service.rules.directory import reach
from pat_service.rules.directory.reach import Reach
from pat_service.storage.database import reading
from pat_service.storage.models import App, User, Workspace
from tests.support.directory import UNKNOWN
from tests.support.people import Service

RIVAL = Caller("rival", frozenset({"provision"}), all_workspaces=False)


@pytest.mark.parametrize(
    ("find", "table", "name", "error"),
    [
        (Reach.find_workspace, Workspace, Workspace.slug == "acme", WorkspaceNotFound),
        (Reach.find_user, User, User.email == "ana@acme.test", UserNotFound),
        (Reach.find_app, App, App.slug == "orders", AppNotFound),
    ],
)
def test_mallorys_client_cannot_find_rows_of_acme(
    service: Service, find: type, table: type, name: object, error: type[Refused]
) -> None:
    ((id_,),) = service.rows(select(table.id).where(name))  # type: ignore[attr-defined, arg-type]
    with service.app.app_context(), reading() as connection:
        assert find(Reach(connection, OPERATOR), id_).id == id_
        for unreachable in (id_, UNKNOWN):
            with pytest.raises(error):
                find(Reach(connection, RIVAL), unreachable)


def test_a_rule_is_repeated_until_it_has_locked_every_token() -> None:
    attempts = []

    @reach.retry_on_new_tokens
    def delete(name: str) -> str:
        attempts.append(name)
        if len(attempts) < 3:
            raise reach.NewTokens
        return name

    assert delete("orders") == "orders"
    assert attempts == ["orders"] * 3
