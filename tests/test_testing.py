"""The pytest plugin for apps, with the demo's apps."""

import io
from pathlib import Path

import pytest
from sqlalchemy import func, select

from apps.support import Ticket
from apps.support import app as support
from pat_service.testing import OpenApp

pytest_plugins = ["pat_service.testing"]
TICKET = {"topic": "invoice", "subject": "Twice", "message": "I was charged twice."}


def test_ana_sees_only_her_own_rows(open_app: OpenApp) -> None:
    ana, ben = open_app("support"), open_app("support", email="ben@example.com", name="Ben")
    assert ana.submit("create", TICKET).status_code == 200
    assert "Twice" in ana.page("list").text
    assert "Twice" not in ben.page("list").text
    with open_app.transaction() as connection:
        [owner] = connection.execute(select(Ticket.user_id)).scalars()
    assert owner == ana.viewer["user"]["id"]


def test_each_test_begins_without_rows(open_app: OpenApp) -> None:
    open_app("support")
    with open_app.transaction() as connection:
        assert connection.scalar(select(func.count()).select_from(Ticket)) == 0


def test_ana_is_a_user_of_two_workspaces_with_a_role_in_each(open_app: OpenApp) -> None:
    acme, globex = open_app("support"), open_app("support", workspace="globex", role="builder")
    assert [acme.viewer["role"], globex.viewer["role"]] == ["end-user", "builder"]
    assert acme.viewer["user"]["id"] == globex.viewer["user"]["id"]
    acme.submit("create", TICKET)
    assert "Twice" not in globex.page("list").text


def test_the_attributes_of_the_mint_reach_the_app(open_app: OpenApp) -> None:
    frame = open_app("orders", attributes={"region": "north"})
    assert "Region: North" in frame.first_page.text
    assert frame.page("list", page=2).status_code == 200


def test_data_is_read_and_sent(open_app: OpenApp) -> None:
    frame = open_app("orders")
    assert frame.data("orders.csv").mimetype == "text/csv"
    assert frame.send_data("orders.csv", json={}).status_code == 405
    assert frame.submit("list", {"file": (io.BytesIO(b"x"), "x.txt")}).status_code == 405
    assert frame.submit("nothing").status_code == 404


def test_an_app_that_cannot_be_opened_fails_the_test_with_its_answer(open_app: OpenApp) -> None:
    with pytest.raises(AssertionError, match=r"^the app did not open: 404 "):
        open_app("nothing")
    with pytest.raises(AssertionError, match=r"^the token was refused: "):
        open_app("orders", attributes={"x": "y" * 100_000})


def test_an_error_of_an_app_reaches_its_test(open_app: OpenApp, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = open_app("support")
    monkeypatch.setitem(support.pages, "list", lambda _viewer: {"x": 1 / 0})
    with pytest.raises(ZeroDivisionError):
        frame.page("list")


def test_the_plugin_needs_nothing_of_this_projects_tests() -> None:
    source = Path("pat_service/testing.py").read_text("utf-8")
    assert "tests." not in source.replace("pat_service.testing", "")
