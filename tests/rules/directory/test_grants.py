"""Give and remove grants, and show whether they have effect."""

from collections.abc import Callable

import pytest

from tests.support.directory import ANA, BEN, MALLORY, UNKNOWN, Directory
from tests.support.people import ORDERS, SUPPORT, changed, problem_of, provision


def path(directory: Directory, email: str, app_id: str = ORDERS) -> str:
    return f"apps/{app_id}/grants/{directory.users.get(email, email)}"


def test_an_app_lists_its_grants(directory: Directory) -> None:
    found = {item["userId"]: item for item in directory.items(f"apps/{ORDERS}/grants?limit=1")}
    assert set(found) == {directory.user(ANA), directory.user(BEN)}
    ana = {"id": directory.user(ANA), "email": ANA, "name": "Ana", "status": "active"}
    assert found[directory.user(ANA)] == {
        "appId": ORDERS,
        "userId": directory.user(ANA),
        "effective": True,
        "user": ana,
    }
    assert directory.ok("GET", path(directory, ANA)) == found[directory.user(ANA)]


def test_a_list_of_any_length_takes_the_same_statements(directory: Directory) -> None:
    directory.ok("GET", "apps")  # a client's first call in a minute is recorded
    costs = []
    for app_id in (SUPPORT, ORDERS):
        with directory.service.statements() as statements:
            directory.ok("GET", f"apps/{app_id}/grants")
        costs.append(len(statements))
    assert costs[0] == costs[1]


@pytest.mark.parametrize("body", [None, {}, b"", " {} "])
def test_a_grant_can_be_put_twice(directory: Directory, body: object) -> None:
    """The body may be missing or an empty object."""
    made = directory.ok("PUT", path(directory, BEN, SUPPORT), body, status=201)
    assert (made["appId"], made["userId"], made["effective"]) == (SUPPORT, directory.user(BEN), True)
    assert directory.ok("PUT", path(directory, BEN, SUPPORT), body) == made
    assert directory.take_event_facts() == [("grant:added", "manager", "acme", None)]
    assert directory.service.frame(SUPPORT, email=BEN).response.status_code == 200


def test_the_event_of_a_grant_names_app_and_user(directory: Directory) -> None:
    directory.ok("PUT", path(directory, BEN, SUPPORT), status=201)
    directory.ok("DELETE", path(directory, BEN, SUPPORT), status=204)
    events = directory.take_events()
    assert [event.type for event in events] == ["grant:added", "grant:removed"]
    assert {(event.app_id, event.user_id, event.client_id) for event in events} == {
        (SUPPORT, directory.user(BEN), "manager")
    }


def test_a_removed_grant_takes_effect_on_the_next_request_of_an_open_frame(directory: Directory) -> None:
    service = directory.service
    frame, token = service.frame(), service.token()
    directory.ok("DELETE", path(directory, ANA), status=204)
    problem_of(service.get(frame, "session"), 401, "access_revoked")
    assert service.refusal(token) == "access_revoked"
    problem_of(service.mint(), 403, "app_forbidden")
    problem_of(directory.call("DELETE", path(directory, ANA)), 404, "not_found")
    directory.ok("PUT", path(directory, ANA), status=201)
    assert service.get(frame, "session").status_code == 200


LOSSES: dict[str, Callable[[Directory], object]] = {
    "Ana is archived": lambda it: it.ok("PATCH", f"users/{it.user(ANA)}", {"status": "archived"}),
    "Ana is not a member": lambda it: provision(
        it.service.app, changed("users", ANA, workspaces={"globex": "end-user"})
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_grant_is_effective_exactly_if_a_mint_succeeds(directory: Directory, loss: str) -> None:
    assert directory.ok("GET", path(directory, ANA), client="everywhere")["effective"] is True
    assert directory.service.mint(client="everywhere").status_code == 201
    LOSSES[loss](directory)
    assert directory.ok("GET", path(directory, ANA), client="everywhere")["effective"] is False
    listed = {
        g["userId"]: g["effective"] for g in directory.items(f"apps/{ORDERS}/grants", client="everywhere")
    }
    assert listed == {directory.user(ANA): False, directory.user(BEN): True}
    problem_of(directory.service.mint(client="everywhere"), 403, "app_forbidden")


def test_a_grant_for_a_member_of_another_workspace_opens_nothing(directory: Directory) -> None:
    held = directory.ok("PUT", path(directory, MALLORY), client="everywhere", status=201)
    assert held["effective"] is False
    problem_of(directory.service.mint(email=MALLORY, client="everywhere"), 403, "app_forbidden")


def test_a_client_cannot_find_the_grant_of_a_user_it_does_not_see(directory: Directory) -> None:
    """The grant exists, but its user has left the client's workspaces."""
    directory.ok("PUT", path(directory, MALLORY), client="everywhere", status=201)
    directory.take_event_facts()
    for who in (MALLORY, UNKNOWN):
        problem_of(directory.call("GET", path(directory, who)), 404, "not_found")
        problem_of(directory.call("DELETE", path(directory, who)), 404, "not_found")
        problem_of(directory.call("PUT", path(directory, who)), 404, "user_not_found")
    assert {item["userId"] for item in directory.items(f"apps/{ORDERS}/grants")} == {
        directory.user(ANA),
        directory.user(BEN),
    }
    assert directory.take_event_facts() == []


@pytest.mark.parametrize("body", [{"effective": True}, b"[]", b"null", b"{", b"\xff", b"x", '{"a":1,"a":1}'])
def test_a_body_with_content_is_refused(directory: Directory, body: object) -> None:
    problem_of(directory.call("PUT", path(directory, BEN, SUPPORT), body), 400, "invalid_payload")
    assert directory.take_event_facts() == []


def test_a_body_of_the_wrong_type_or_size_is_refused(directory: Directory) -> None:
    there = path(directory, BEN, SUPPORT)
    answer = directory.call("PUT", there, "a=1", content_type="application/x-www-form-urlencoded")
    problem_of(answer, 415, "unsupported_media_type")
    problem_of(directory.call("PUT", there, b" " * 16_385), 413, "payload_too_large")
    assert directory.take_event_facts() == []
