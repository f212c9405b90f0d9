"""What a caller reaches. A thing outside its workspaces looks like a thing that does not exist."""

import pytest
from sqlalchemy import select

from pat_service.errors import AppNotFound, Refused, UserNotFound, WorkspaceNotFound
from pat_service.rules.callers import OPERATOR, Caller
from pat_service.rules.directory import reach
from pat_service.storage.database import reading
from pat_service.storage.models import App, User, Workspace
from tests.support.directory import UNKNOWN
from tests.support.people import Service

RIVAL = Caller("rival", frozenset({"provision"}), all_workspaces=False)


@pytest.mark.parametrize(
    ("find", "table", "name", "error"),
    [
        (reach.workspace, Workspace, Workspace.slug == "acme", WorkspaceNotFound),
        (reach.user, User, User.email == "ana@acme.test", UserNotFound),
        (reach.app, App, App.slug == "orders", AppNotFound),
    ],
)
def test_mallorys_client_meets_nothing_of_acme(
    service: Service, find: type, table: type, name: object, error: type[Refused]
) -> None:
    ((id_,),) = service.rows(select(table.id).where(name))  # type: ignore[attr-defined, arg-type]
    with service.app.app_context(), reading() as connection:
        assert find(connection, OPERATOR, id_).id == id_
        for unreachable in (id_, UNKNOWN):
            with pytest.raises(error):
                find(connection, RIVAL, unreachable)


def test_a_rule_starts_again_until_it_holds_every_token() -> None:
    attempts = []

    @reach.retry_on_new_tokens
    def delete(name: str) -> str:
        attempts.append(name)
        if len(attempts) < 3:
            raise reach.NewTokens
        return name

    assert delete("orders") == "orders"
    assert attempts == ["orders"] * 3
