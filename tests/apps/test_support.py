"""Support desk: tickets, replies and their forms. test_both_apps.py has the shared rules."""

import html
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import time_machine
from sqlalchemy import delete, insert, select
from werkzeug.test import TestResponse

from apps.support import MAX_REPLIES, Ticket, TicketReply, moment
from pat_service.storage.models import User, Workspace, new_id
from tests.support.people import SUPPORT, Frame, Service, provision

pytestmark = pytest.mark.slow

APP: Final = "support"

HELP: Final = "22222222-2222-4333-8444-555555555555"
NOBODYS: Final = "00000000-0000-4000-8000-000000000000"
FORM: Final = "application/x-www-form-urlencoded"
HOSTILE: Final = "</textarea></script><img src=x onerror=alert(1)>{{ 7 * 7 }}"
ITEM: Final = re.compile(r'<a class="ticket-link" href="([^"]+)"[^>]*>([^<]*)</a>')
WRONG: Final = re.compile(r'<p class="error" id="([a-z]+)-error">([^<]*)</p>')
GOOD: Final = {"subject": "Broken cup", "topic": "return", "message": "It came in two parts."}
ASK: Final = {
    "subject": "Say in a few words what it is about.",
    "topic": "Choose a topic from the list.",
    "message": "Tell us what happened, or what you need.",
}


@pytest.fixture
def dora(service: Service, doras_frame: Frame) -> Iterator[Frame]:
    """Dora, without tickets at the start of a test."""
    yield doras_frame
    dora = select(User.id).where(User.email == "dora@acme.test").scalar_subquery()
    service.change(delete(Ticket).where(Ticket.user_id == dora))


def post(service: Service, frame: Frame, path: str, fields: Any = None, **options: Any) -> TestResponse:
    """Send a form as frame.js does."""
    options = {"content_type": FORM} | options
    return service.post(frame, f"pages/{path}", data=fields or {}, **options)


def opened(service: Service, frame: Frame, **fields: str) -> str:
    """Open a ticket and return its id."""
    answer = post(service, frame, "create", GOOD | fields)
    assert answer.status_code == 200, answer.text
    (id_,) = set(re.findall(r"[?]id=([0-9a-f-]{36})", answer.text))
    return id_


def ticket(service: Service, id_: str) -> Any:
    (found,) = service.rows(select(*Ticket.__table__.columns).where(Ticket.id == id_))
    return found


def replies(service: Service, id_: str) -> list[Any]:
    return service.rows(
        select(*TicketReply.__table__.columns)
        .where(TicketReply.ticket_id == id_)
        .order_by(TicketReply.created_at, TicketReply.id)
    )


def tickets_of(service: Service, email: str) -> list[Any]:
    return service.rows(
        select(*Ticket.__table__.columns)
        .join(User, User.id == Ticket.user_id)
        .where(User.email == email)
        .order_by(Ticket.active_at.desc(), Ticket.id)
    )


def answered(service: Service, id_: str, count: int = 1) -> None:
    """Add the desk's replies to the database, since the app has no page for them."""
    reply = {"ticket_id": id_, "author": "Maya", "from_desk": True, "message": "We will see to it."}
    rows = [reply | {"id": new_id(), "created_at": datetime.now(UTC)} for _ in range(count)]
    service.change(insert(TicketReply).values(rows))


def subjects(answer: TestResponse) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [html.unescape(subject) for _, subject in ITEM.findall(answer.text)]


def counts(answer: TestResponse) -> dict[str, int]:
    """Return the numbers of the filter: open, closed and all."""
    found = re.findall(
        r'name="show" value="(\w+)"[^>]*><span>\w+ <span class="count">(\d+)</span>', answer.text
    )
    return {name: int(count) for name, count in found}


def wrong(answer: TestResponse) -> dict[str, str]:
    """Return the error of each field after checking that the field references it."""
    found = dict(WRONG.findall(answer.text))
    for name in found:
        (control,) = re.findall(rf'<(?:input|select|textarea) id="{name}"[^>]*>', answer.text)
        assert 'aria-invalid="true"' in control
        assert re.search(rf'aria-describedby="{name}-error\b', control)
    assert answer.text.count('aria-invalid="true"') == len(found)
    return {name: html.unescape(text) for name, text in found.items()}


def typed(answer: TestResponse, name: str) -> str:
    """Return the value of a form field. Browsers drop the first line feed of a textarea."""
    area = re.search(rf'<textarea id="{name}"[^>]*>\n(.*?)</textarea>', answer.text, re.DOTALL)
    field = area or re.search(rf'<input id="{name}" name="{name}" value="([^"]*)"', answer.text)
    assert field is not None, answer.text
    return html.unescape(field[1])


def said(answer: TestResponse) -> list[tuple[str, str]]:
    """Return the author and text of each message."""
    assert answer.status_code == 200, answer.text
    found = re.findall(r'<h2><bdi>(.*?)</bdi></h2>.*?<p class="words"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    return [(html.unescape(author), html.unescape(text)) for author, text in found]


def badge(answer: TestResponse) -> str:
    return re.findall(r'<span class="badge[^>]*>([^<]+)</span>', answer.text)[0]


def notice(answer: TestResponse) -> str:
    return re.findall(r'<div class="notice ok" role="status"><p>([^<]+)</p>', answer.text)[0]


# ---- The list ----


@pytest.mark.parametrize(("show", "closed"), [("open", False), ("closed", True)])
def test_the_filter_shows_open_or_closed_tickets(
    service: Service, ana: Frame, show: str, closed: bool
) -> None:
    own = [row for row in tickets_of(service, "ana@acme.test") if (row.closed_at is not None) is closed]
    answer = service.get(ana, f"pages/index?show={show}")
    assert subjects(answer) == [row.subject for row in own][:10]
    assert f'value="{show}" checked' in answer.text


@pytest.mark.parametrize("show", ["", "Open", "none", "open ", "' OR 1=1 --", "all%0a"])
def test_an_unknown_filter_shows_the_open_tickets(service: Service, ana: Frame, show: str) -> None:
    answer = service.get(ana, f"pages/index?show={show}")
    assert 'value="open" checked' in answer.text
    assert subjects(answer) == subjects(service.get(ana, "pages/index?show=open"))


def test_cleo_can_open_her_first_ticket(service: Service, cleo: Frame) -> None:
    for answer in (cleo.response, service.get(cleo, "pages/index")):
        assert "<h2>No tickets yet</h2>" in answer.text
        assert f'href="/embed-apps/{SUPPORT}/pages/new">New ticket</a>' in answer.text
        assert "<form" not in answer.text
        assert ITEM.findall(answer.text) == []


def test_dora_sees_that_all_her_tickets_are_closed(service: Service, dora: Frame) -> None:
    id_ = opened(service, dora)
    assert "You have not closed a ticket yet." in service.get(dora, "pages/index?show=closed").text
    post(service, dora, f"close?id={id_}")
    answer = service.get(dora, "pages/index")
    assert "<h3>Nothing is open</h3>" in answer.text
    assert counts(answer) == {"open": 0, "closed": 1, "all": 1}


# ---- Opening a ticket ----


def test_dora_opens_a_ticket_and_it_is_hers(service: Service, dora: Frame) -> None:
    answer = post(service, dora, "create", GOOD)
    assert answer.status_code == 200
    assert notice(answer) == "Your ticket is open. We answer within one working day."
    assert answer.text.startswith("<title>Broken cup</title>")
    assert said(answer) == [("Dora", "It came in two parts.")]
    assert badge(answer) == "Waiting for us"
    (row,) = tickets_of(service, "dora@acme.test")
    ((acme,),) = service.rows(select(Workspace.id).where(Workspace.slug == "acme"))
    assert (row.subject, row.topic, row.message, row.workspace_id) == (*GOOD.values(), acme)
    assert row.created_at == row.active_at
    assert row.closed_at is None
    index = service.get(dora, "pages/index")
    assert subjects(index) == ["Broken cup"]
    assert counts(index) == {"open": 1, "closed": 0, "all": 1}


def test_the_list_begins_with_the_newest_ticket_or_reply(service: Service, dora: Frame) -> None:
    tickets = [opened(service, dora, subject=subject) for subject in ("First", "Second", "Third")]
    assert subjects(service.get(dora, "pages/index")) == ["Third", "Second", "First"]
    post(service, dora, f"reply?id={tickets[0]}", {"message": "Any news?"})
    assert subjects(service.get(dora, "pages/index")) == ["First", "Third", "Second"]


def test_unknown_fields_change_nothing(service: Service, dora: Frame, ben: Frame) -> None:
    before = tickets_of(service, "ben@acme.test")
    forged = {"id": NOBODYS, "workspace_id": NOBODYS, "user_id": before[0].user_id, "viewer": "ben"}
    opened(service, dora, **forged, closed_at="2020-01-01", created_at="2020-01-01")
    (row,) = tickets_of(service, "dora@acme.test")
    assert row.id != NOBODYS
    assert row.closed_at is None
    assert row.created_at.year > 2020
    assert tickets_of(service, "ben@acme.test") == before
    assert "Broken cup" not in subjects(service.get(ben, "pages/index"))


TOO_LONG: Final = "Use {} characters at most. These are {}."
INVALID: Final[list[dict[str, str | None]]] = [
    *({"subject": text} for text in (None, "", " \t\r\n", "\u200b\u2060\ufeff\u00a0", "\x07\x1b")),
    *({"topic": text} for text in (None, "", "Delivery", "delivery\n", HOSTILE)),
    *({"message": text} for text in (None, "", "\n\n")),
    {"subject": None, "topic": None, "message": None},
]


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        *((fields, {name: ASK[name] for name in fields}) for fields in INVALID),
        ({"subject": "a" * 121}, {"subject": TOO_LONG.format("120", "121")}),
        ({"subject": "a" * 100_000}, {"subject": TOO_LONG.format("120", "100,000")}),
        ({"message": "a" * 4001}, {"message": TOO_LONG.format("4,000", "4,001")}),
    ],
)
def test_an_invalid_ticket_shows_errors_and_keeps_its_fields(
    service: Service, dora: Frame, fields: dict[str, str | None], texts: dict[str, str]
) -> None:
    sent = {name: text for name, text in (GOOD | fields).items() if text is not None}
    answer = post(service, dora, "create", sent)
    assert answer.status_code == 422
    assert answer.text.startswith("<title>Not sent yet: New ticket</title>")
    assert wrong(answer) == texts
    for name in ("subject", "message"):
        assert typed(answer, name) == sent.get(name, "")
    chosen = re.findall(r'<option value="(\w+)" selected>', answer.text)
    assert chosen == ([sent["topic"]] if sent.get("topic") == "return" else [])
    assert tickets_of(service, "dora@acme.test") == []


@pytest.mark.parametrize("letter", ["a", "é", "漢", "😀", "&", "<"])
def test_length_limits_count_characters_of_any_alphabet(service: Service, dora: Frame, letter: str) -> None:
    id_ = opened(service, dora, subject=letter * 120, message=letter * 4000)
    assert (ticket(service, id_).subject, ticket(service, id_).message) == (letter * 120, letter * 4000)
    answer = post(service, dora, "create", GOOD | {"subject": letter * 121, "message": letter * 4001})
    assert set(wrong(answer)) == {"subject", "message"}


def test_a_line_end_is_one_character(service: Service, dora: Frame) -> None:
    id_ = opened(service, dora, message="a\r\n" * 1999 + "bc")
    assert ticket(service, id_).message == "a\n" * 1999 + "bc"


@pytest.mark.parametrize(
    ("field", "sent", "kept"),
    [
        ("subject", "  two\r\nlines  ", "two lines"),
        ("subject", "bell\x07and\x1b[31mred", "bell and [31mred"),
        ("subject", "tab\tand\u2028line", "tab and line"),
        ("message", "\r\n  one\rtwo\r\n\r\nthree\n", "one\ntwo\n\nthree"),
        ("message", "c1\x85and\x9bdel\x7f.", "c1 and del ."),
        ("message", HOSTILE, HOSTILE),
        ("message", "Robert'); DROP TABLE demo_tickets;--", "Robert'); DROP TABLE demo_tickets;--"),
    ],
)
def test_stored_texts_have_no_control_characters(
    service: Service, dora: Frame, field: str, sent: str, kept: str
) -> None:
    assert getattr(ticket(service, opened(service, dora, **{field: sent})), field) == kept


def test_invalid_unicode_is_stored_as_valid_text(service: Service, dora: Frame) -> None:
    sent = b"subject=%ff%fe&topic=other&message=%ed%a0%80%ed%b0%80"
    assert post(service, dora, "create", sent).status_code in (200, 422)
    assert all(row.subject.encode() for row in tickets_of(service, "dora@acme.test"))


def test_an_uploaded_file_is_refused_as_a_text(service: Service, dora: Frame) -> None:
    file = {"subject": (io.BytesIO(b"Broken cup"), "subject.txt")}
    answer = post(service, dora, "create", GOOD | file, content_type="multipart/form-data")
    assert wrong(answer) == {"subject": ASK["subject"]}


# ---- Answering ----


def test_a_reply_appears_below_the_ticket(service: Service, dora: Frame) -> None:
    id_ = opened(service, dora)
    answered(service, id_)
    assert badge(service.get(dora, f"pages/ticket?id={id_}")) == "Answered"
    answer = post(service, dora, f"reply?id={id_}", {"message": "Thank you.\r\nThat helps."})
    assert answer.status_code == 200
    assert notice(answer) == "Your reply was sent."
    assert said(answer) == [
        ("Dora", "It came in two parts."),
        ("Maya", "We will see to it."),
        ("Dora", "Thank you.\nThat helps."),
    ]
    assert badge(answer) == "Waiting for us"
    assert typed(answer, "message") == ""
    assert "2 replies" in service.get(dora, "pages/index").text


def test_dora_cannot_reply_as_the_desk(service: Service, dora: Frame) -> None:
    id_ = opened(service, dora)
    forged = {"message": "Yes.", "author": "Maya", "from_desk": "1", "ticket_id": NOBODYS, "id": NOBODYS}
    post(service, dora, f"reply?id={id_}", forged)
    (reply,) = replies(service, id_)
    assert (reply.author, reply.from_desk, reply.ticket_id) == ("Dora", False, id_)
    assert reply.id != NOBODYS


def test_messages_show_doras_current_name(service: Service, dora: Frame) -> None:
    id_ = opened(service, dora)
    post(service, dora, f"reply?id={id_}", {"message": "Me again."})
    answered(service, id_)
    user = {"email": "dora@acme.test", "workspaces": {"acme": "end-user"}}
    provision(service.app, {"users": [user | {"name": "Dora </bdi><i>Ray"}]})
    authors = [author for author, _ in said(service.get(dora, f"pages/ticket?id={id_}"))]
    provision(service.app, {"users": [user | {"name": "Dora"}]})
    assert authors == ["Dora </bdi><i>Ray", "Dora </bdi><i>Ray", "Maya"]


def refused_reply(service: Service, dora: Frame, id_: str, sent: dict[str, str], text: str) -> TestResponse:
    """Send a reply that changes nothing and comes back with this error, and return the answer."""
    before = ticket(service, id_), replies(service, id_)
    answer = post(service, dora, f"reply?id={id_}", sent)
    assert answer.status_code == 422
    assert answer.text.startswith("<title>Not sent yet: Broken cup</title>")
    assert wrong(answer) == {"message": text}
    assert typed(answer, "message") == sent.get("message", "")
    assert (ticket(service, id_), replies(service, id_)) == before
    return answer


def test_an_invalid_reply_is_not_stored_and_keeps_its_text(service: Service, dora: Frame) -> None:
    id_ = opened(service, dora)
    for sent in ({}, {"message": ""}, {"message": " \r\n\t"}, {"message": "\u200b"}):
        refused_reply(service, dora, id_, sent, "Write your reply first.")
    refused_reply(service, dora, id_, {"message": "\n" + "a" * 4001}, TOO_LONG.format("4,000", "4,001"))


def test_a_reply_to_a_closed_ticket_is_not_stored_and_keeps_its_text(service: Service, dora: Frame) -> None:
    id_ = opened(service, dora)
    post(service, dora, f"close?id={id_}")
    text = "This ticket is closed now. Reopen it to reply."
    answer = refused_reply(service, dora, id_, {"message": "One more thing & more"}, text)
    assert "Reopen ticket</button>" in answer.text


def test_a_ticket_accepts_at_most_two_hundred_replies(service: Service, dora: Frame) -> None:
    id_ = opened(service, dora)
    answered(service, id_, count=MAX_REPLIES - 1)
    assert post(service, dora, f"reply?id={id_}", {"message": "The last one."}).status_code == 200
    text = "This ticket has no room left. Please open a new one."
    refused_reply(service, dora, id_, {"message": "One too many."}, text)
    assert len(replies(service, id_)) == MAX_REPLIES
    page = service.get(dora, f"pages/ticket?id={id_}").text
    assert "This ticket has no room left for replies." in page
    assert "<textarea" not in page


# ---- Closing and reopening ----


def test_dora_closes_a_ticket_and_opens_it_again(service: Service, dora: Frame) -> None:
    id_ = opened(service, dora)
    closed = post(service, dora, f"close?id={id_}")
    assert closed.status_code == 200
    assert notice(closed) == "The ticket is closed. You can reopen it at any time."
    assert badge(closed) == "Closed"
    assert "<textarea" not in closed.text
    assert "Close ticket" not in closed.text
    assert ticket(service, id_).closed_at is not None
    assert counts(service.get(dora, "pages/index")) == {"open": 0, "closed": 1, "all": 1}

    reopened = post(service, dora, f"reopen?id={id_}")
    assert notice(reopened) == "The ticket is open again."
    assert badge(reopened) == "Waiting for us"
    assert ticket(service, id_).closed_at is None
    assert post(service, dora, f"reply?id={id_}", {"message": "Thanks."}).status_code == 200


def test_closing_or_reopening_twice_changes_nothing(service: Service, dora: Frame) -> None:
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=10)
    with time_machine.travel(start, tick=False) as clock:
        id_ = opened(service, dora)
        for action, at in (("close", start), ("reopen", start + timedelta(minutes=2))):
            clock.move_to(at)
            assert post(service, dora, f"{action}?id={id_}").status_code == 200
            first = ticket(service, id_)
            assert first.active_at == at
            assert first.closed_at == (at if action == "close" else None)
            clock.shift(60)
            assert post(service, dora, f"{action}?id={id_}").status_code == 200
            assert ticket(service, id_) == first


@pytest.mark.parametrize("action", ["reply", "close", "reopen"])
def test_an_action_changes_only_its_own_ticket(service: Service, dora: Frame, action: str) -> None:
    id_, other, closed = (opened(service, dora) for _ in range(3))
    post(service, dora, f"close?id={closed}")
    if action == "reopen":
        post(service, dora, f"close?id={id_}")
    others = select(*Ticket.__table__.columns).where(Ticket.id != id_)
    before = service.rows(others)
    assert {other, closed} < {row.id for row in before}
    assert post(service, dora, f"{action}?id={id_}", {"message": "Mine."}).status_code == 200
    assert service.rows(others) == before
    assert replies(service, other) == []


@pytest.mark.parametrize(("action", "show"), [("reopen", "open"), ("close", "closed")])
def test_the_link_back_leads_to_the_list_with_the_ticket(
    service: Service, dora: Frame, action: str, show: str
) -> None:
    answer = post(service, dora, f"{action}?id={opened(service, dora)}")
    back = f"/embed-apps/{SUPPORT}/pages/index?show={show}"
    assert f'<a class="back" href="{back}">' in answer.text
    assert subjects(service.client.get(back, headers=dora.bearer)) == ["Broken cup"]


# ---- How a time is shown ----

NOW: Final = datetime(2027, 3, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        *((timedelta(seconds=-90), "just now"), (timedelta(seconds=59), "just now")),
        *((timedelta(seconds=60), "1 min ago"), (timedelta(minutes=59, seconds=59), "59 min ago")),
        *((timedelta(hours=1), "1 h ago"), (timedelta(hours=23, minutes=59), "23 h ago")),
        *((timedelta(hours=24), "yesterday"), (timedelta(hours=48), "2 days ago")),
        *((timedelta(days=6, hours=23), "6 days ago"), (timedelta(days=7), "8 Mar")),
        (timedelta(days=74), "31 Dec 2026"),
    ],
)
def test_a_time_is_shown_by_its_age(ago: timedelta, text: str) -> None:
    shown = moment(NOW - ago, NOW)
    assert shown["text"] == text
    assert datetime.fromisoformat(shown["iso"]) == NOW - ago
    assert shown["exact"].endswith(" UTC")
