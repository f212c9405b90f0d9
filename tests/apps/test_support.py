"""Support desk: what its viewer reads and writes, and that nobody else's ticket is there to be found."""

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
from tests.support.people import SUPPORT, Frame, Service, changed, problem_of, provision

pytestmark = pytest.mark.slow

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


@pytest.fixture(scope="module")
def ana(service: Service) -> Frame:
    return service.frame(SUPPORT)


@pytest.fixture(scope="module")
def ben(service: Service) -> Frame:
    return service.frame(SUPPORT, email="ben@acme.test")


@pytest.fixture(scope="module")
def cleo(service: Service) -> Frame:
    return service.frame(SUPPORT, email="cleo@acme.test")


@pytest.fixture(scope="module")
def ana_at_globex(service: Service) -> Frame:
    return service.frame(HELP, client="rival")


@pytest.fixture(scope="module")
def doras_frame(service: Service) -> Frame:
    return service.frame(SUPPORT, email="dora@acme.test")


@pytest.fixture
def dora(service: Service, doras_frame: Frame) -> Iterator[Frame]:
    """Dora, who has no tickets when a test begins."""
    yield doras_frame
    dora = select(User.id).where(User.email == "dora@acme.test").scalar_subquery()
    service.change(delete(Ticket).where(Ticket.user_id == dora))


def post(service: Service, frame: Frame, path: str, fields: Any = None, **options: Any) -> TestResponse:
    """Send a form as the frame's script does."""
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


def answered(service: Service, id_: str, message: str = "We will see to it.", count: int = 1) -> None:
    """Let the desk answer, which the app has no page for."""
    rows = [
        {
            "id": new_id(),
            "ticket_id": id_,
            "author": "Maya",
            "from_desk": True,
            "message": message,
            "created_at": datetime.now(UTC),
        }
        for _ in range(count)
    ]
    service.change(insert(TicketReply).values(rows))


def subjects(answer: TestResponse) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [html.unescape(subject) for _, subject in ITEM.findall(answer.text)]


def counts(answer: TestResponse) -> dict[str, int]:
    """Open, closed and all, as the filter says it."""
    found = re.findall(
        r'name="show" value="(\w+)"[^>]*><span>\w+ <span class="count">(\d+)</span>', answer.text
    )
    return {name: int(count) for name, count in found}


def place(answer: TestResponse) -> str:
    found = re.search(r'<p class="muted small">([^<]+ of \d+)</p>', answer.text)
    return found[1] if found else "nothing"


def wrong(answer: TestResponse) -> dict[str, str]:
    """Each field's text, once it is seen that the field points at it."""
    found = dict(WRONG.findall(answer.text))
    for name in found:
        (control,) = re.findall(rf'<(?:input|select|textarea) id="{name}"[^>]*>', answer.text)
        assert 'aria-invalid="true"' in control
        assert re.search(rf'aria-describedby="{name}-error\b', control)
    assert answer.text.count('aria-invalid="true"') == len(found)
    return {name: html.unescape(text) for name, text in found.items()}


def typed(answer: TestResponse, name: str) -> str:
    """What a field of the form holds. A browser drops the line feed that a textarea begins with."""
    area = re.search(rf'<textarea id="{name}"[^>]*>\n(.*?)</textarea>', answer.text, re.DOTALL)
    field = area or re.search(rf'<input id="{name}" name="{name}" value="([^"]*)"', answer.text)
    assert field is not None, answer.text
    return html.unescape(field[1])


def said(answer: TestResponse) -> list[tuple[str, str]]:
    """The messages of a ticket's page: author, text."""
    assert answer.status_code == 200, answer.text
    found = re.findall(r'<h2><bdi>(.*?)</bdi></h2>.*?<p class="words"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    return [(html.unescape(author), html.unescape(text)) for author, text in found]


def badge(answer: TestResponse) -> str:
    return re.findall(r'<span class="badge[^>]*>([^<]+)</span>', answer.text)[0]


def notice(answer: TestResponse) -> str:
    return re.findall(r'<div class="notice ok" role="status"><p>([^<]+)</p>', answer.text)[0]


def refusal(
    service: Service, frame: Frame, method: str, path: str, status: int, code: str, **options: Any
) -> dict[str, Any]:
    headers = frame.bearer | {"Accept": "application/json"}
    if method == "POST":
        options = {"content_type": FORM} | options
    path = f"/embed-apps/{frame.app_id}/pages/{path}"
    answer = service.client.open(path, method=method, headers=headers, **options)
    return problem_of(answer, status, code)


# ---- The list ----


def test_ana_and_ben_each_see_their_own_tickets(service: Service, ana: Frame, ben: Frame) -> None:
    seen = {}
    for email, frame in (("ana@acme.test", ana), ("ben@acme.test", ben)):
        own = tickets_of(service, email)
        numbers = counts(service.get(frame, "pages/index"))
        assert numbers["all"] == len(own) > 10
        assert numbers["open"] == len([row for row in own if row.closed_at is None]) > 2
        assert numbers["closed"] == numbers["all"] - numbers["open"]
        pages = [service.get(frame, f"pages/list?show=all&page={page}") for page in (1, 2)]
        assert [subject for page in pages for subject in subjects(page)] == [row.subject for row in own]
        seen[email] = {row.subject for row in own}
    assert seen["ana@acme.test"].isdisjoint(seen["ben@acme.test"])


@pytest.mark.parametrize(("show", "closed"), [("open", False), ("closed", True)])
def test_the_filter_shows_open_or_closed_tickets(
    service: Service, ana: Frame, show: str, closed: bool
) -> None:
    own = [row for row in tickets_of(service, "ana@acme.test") if (row.closed_at is not None) is closed]
    answer = service.get(ana, f"pages/index?show={show}")
    assert subjects(answer) == [row.subject for row in own][:10]
    assert f'value="{show}" checked' in answer.text


@pytest.mark.parametrize("show", ["", "Open", "none", "open ", "' OR 1=1 --", "all%0a"])
def test_what_no_filter_is_called_shows_the_open_tickets(service: Service, ana: Frame, show: str) -> None:
    answer = service.get(ana, f"pages/index?show={show}")
    assert 'value="open" checked' in answer.text
    assert subjects(answer) == subjects(service.get(ana, "pages/index?show=open"))


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        *(("1", "1–10 of 12"), ("2", "11–12 of 12"), ("3", "11–12 of 12"), ("999999999", "11–12 of 12")),
        *(("0", "1–10 of 12"), ("-1", "1–10 of 12"), ("9223372036854775808", "1–10 of 12")),
        *(("9" * 5000, "1–10 of 12"), ("２", "1–10 of 12"), ("2.5", "1–10 of 12"), ("two", "1–10 of 12")),
    ],
)
def test_a_page_that_does_not_exist_is_the_nearest(
    service: Service, ben: Frame, page: str, shown: str
) -> None:
    assert place(service.get(ben, "pages/list", query_string={"show": "all", "page": page})) == shown


def test_the_pager_keeps_the_filter_and_stops_at_both_ends(service: Service, ben: Frame) -> None:
    first, last = (service.get(ben, f"pages/list?show=all&page={page}").text for page in (1, 2))
    address = f'hx-get="/embed-apps/{SUPPORT}/pages/list?show=all&amp;page='
    assert re.search(rf'id="tickets-next"[^>]*{re.escape(address)}2"', first)
    assert re.search(rf'id="tickets-previous"[^>]*{re.escape(address)}1"', last)
    assert re.search(r'id="tickets-previous"[^>]*aria-disabled="true"', first)
    assert re.search(r'id="tickets-next"[^>]*aria-disabled="true"', last)
    assert '<span id="tickets-said" hx-swap-oob="innerHTML">11 to 12 of 12 tickets</span>' in last


def test_cleo_who_has_no_tickets_is_led_to_her_first(service: Service, cleo: Frame) -> None:
    for answer in (cleo.response, service.get(cleo, "pages/index")):
        assert "<h2>No tickets yet</h2>" in answer.text
        assert f'href="/embed-apps/{SUPPORT}/pages/new">New ticket</a>' in answer.text
        assert "<form" not in answer.text
        assert ITEM.findall(answer.text) == []


def test_dora_whose_tickets_are_all_closed_is_told_that_nothing_is_open(
    service: Service, dora: Frame
) -> None:
    id_ = opened(service, dora)
    assert "You have not closed a ticket yet." in service.get(dora, "pages/index?show=closed").text
    post(service, dora, f"close?id={id_}")
    answer = service.get(dora, "pages/index")
    assert "<h3>Nothing is open</h3>" in answer.text
    assert counts(answer) == {"open": 0, "closed": 1, "all": 1}


def test_a_list_of_ten_costs_as_many_statements_as_a_list_of_two(service: Service, ben: Frame) -> None:
    costs = []
    for page in (1, 2):
        with service.statements() as seen:
            service.get(ben, f"pages/list?show=all&page={page}")
        costs.append(len(seen))
    assert costs[0] == costs[1]


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


def test_a_new_ticket_is_the_first_of_the_list(service: Service, dora: Frame) -> None:
    for subject in ("First", "Second", "Third"):
        opened(service, dora, subject=subject)
    assert subjects(service.get(dora, "pages/index")) == ["Third", "Second", "First"]


def test_a_ticket_by_multipart_is_a_ticket_as_well(service: Service, dora: Frame) -> None:
    answer = post(service, dora, "create", GOOD, content_type="multipart/form-data")
    assert said(answer) == [("Dora", "It came in two parts.")]


def test_fields_that_the_form_does_not_have_change_nothing(service: Service, dora: Frame, ben: Frame) -> None:
    before = tickets_of(service, "ben@acme.test")
    forged = {
        "id": NOBODYS,
        "user_id": before[0].user_id,
        "workspace_id": NOBODYS,
        "closed_at": "2020-01-01",
        "created_at": "2020-01-01",
        "viewer": "ben",
    }
    opened(service, dora, **forged)
    (row,) = tickets_of(service, "dora@acme.test")
    assert row.id != NOBODYS
    assert row.closed_at is None
    assert row.created_at.year > 2020
    assert tickets_of(service, "ben@acme.test") == before
    assert "Broken cup" not in subjects(service.get(ben, "pages/index"))


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"subject": ""}, {"subject": ASK["subject"]}),
        ({"subject": " \t\r\n"}, {"subject": ASK["subject"]}),
        ({"subject": "\u200b\u2060\ufeff\u00a0"}, {"subject": ASK["subject"]}),
        ({"subject": "\x07\x1b"}, {"subject": ASK["subject"]}),
        ({"subject": None}, {"subject": ASK["subject"]}),
        ({"subject": "a" * 121}, {"subject": "Use 120 characters at most. These are 121."}),
        ({"subject": "a" * 100_000}, {"subject": "Use 120 characters at most. These are 100,000."}),
        ({"topic": ""}, {"topic": ASK["topic"]}),
        ({"topic": None}, {"topic": ASK["topic"]}),
        ({"topic": "Delivery"}, {"topic": ASK["topic"]}),
        ({"topic": "delivery\n"}, {"topic": ASK["topic"]}),
        ({"topic": HOSTILE}, {"topic": ASK["topic"]}),
        ({"message": ""}, {"message": ASK["message"]}),
        ({"message": "\n\n"}, {"message": ASK["message"]}),
        ({"message": None}, {"message": ASK["message"]}),
        ({"message": "a" * 4001}, {"message": "Use 4,000 characters at most. These are 4,001."}),
        ({"subject": None, "topic": None, "message": None}, ASK),
    ],
)
def test_a_ticket_that_does_not_validate_says_what_to_do_and_keeps_what_was_typed(
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
def test_a_text_may_be_as_long_as_it_says_in_any_script(service: Service, dora: Frame, letter: str) -> None:
    id_ = opened(service, dora, subject=letter * 120, message=letter * 4000)
    assert (ticket(service, id_).subject, ticket(service, id_).message) == (letter * 120, letter * 4000)
    answer = post(service, dora, "create", GOOD | {"subject": letter * 121, "message": letter * 4001})
    assert set(wrong(answer)) == {"subject", "message"}


def test_a_line_end_is_one_character_however_the_browser_writes_it(service: Service, dora: Frame) -> None:
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
def test_what_is_kept_has_no_control_characters(
    service: Service, dora: Frame, field: str, sent: str, kept: str
) -> None:
    assert getattr(ticket(service, opened(service, dora, **{field: sent})), field) == kept


def test_a_text_that_is_no_unicode_is_kept_as_text(service: Service, dora: Frame) -> None:
    sent = b"subject=%ff%fe&topic=other&message=%ed%a0%80%ed%b0%80"
    assert post(service, dora, "create", sent).status_code in (200, 422)
    assert all(row.subject.encode() for row in tickets_of(service, "dora@acme.test"))


def test_a_file_in_place_of_a_text_is_no_text(service: Service, dora: Frame) -> None:
    file = {"subject": (io.BytesIO(b"Broken cup"), "subject.txt")}
    answer = post(service, dora, "create", GOOD | file, content_type="multipart/form-data")
    assert wrong(answer) == {"subject": ASK["subject"]}


def test_hostile_words_are_text_wherever_they_are_shown(service: Service, dora: Frame) -> None:
    created = post(service, dora, "create", {"subject": HOSTILE, "topic": "other", "message": HOSTILE})
    id_ = tickets_of(service, "dora@acme.test")[0].id
    refused = post(service, dora, "create", {"subject": HOSTILE, "topic": HOSTILE, "message": HOSTILE})
    replied = post(service, dora, f"reply?id={id_}", {"message": HOSTILE})
    index = service.get(dora, "pages/index")
    for answer in (created, refused, replied, index):
        assert "<img" not in answer.text
        assert "{{ 7 * 7 }}" in answer.text
    assert said(replied) == [("Dora", HOSTILE), ("Dora", HOSTILE)]
    assert subjects(index) == [HOSTILE]
    assert (typed(refused, "subject"), typed(refused, "message")) == (HOSTILE, HOSTILE)


# ---- Answering ----


def test_a_reply_stands_below_the_ticket_and_waits_for_the_desk(service: Service, dora: Frame) -> None:
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


def test_a_reply_brings_its_ticket_to_the_top(service: Service, dora: Frame) -> None:
    first = opened(service, dora, subject="First")
    opened(service, dora, subject="Second")
    post(service, dora, f"reply?id={first}", {"message": "Any news?"})
    assert subjects(service.get(dora, "pages/index")) == ["First", "Second"]


def test_a_reply_cannot_speak_for_the_desk(service: Service, dora: Frame) -> None:
    id_ = opened(service, dora)
    forged = {"message": "Yes.", "author": "Maya", "from_desk": "1", "ticket_id": NOBODYS, "id": NOBODYS}
    post(service, dora, f"reply?id={id_}", forged)
    (reply,) = replies(service, id_)
    assert (reply.author, reply.from_desk, reply.ticket_id) == ("Dora", False, id_)
    assert reply.id != NOBODYS


def test_what_dora_wrote_is_under_the_name_that_she_has_now(service: Service, dora: Frame) -> None:
    id_ = opened(service, dora)
    post(service, dora, f"reply?id={id_}", {"message": "Me again."})
    answered(service, id_)
    user = {"email": "dora@acme.test", "workspaces": {"acme": "end-user"}}
    provision(service.app, {"users": [user | {"name": "Dora </bdi><i>Ray"}]})
    authors = [author for author, _ in said(service.get(dora, f"pages/ticket?id={id_}"))]
    provision(service.app, {"users": [user | {"name": "Dora"}]})
    assert authors == ["Dora </bdi><i>Ray", "Dora </bdi><i>Ray", "Maya"]


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ({}, "Write your reply first."),
        ({"message": ""}, "Write your reply first."),
        ({"message": " \r\n\t"}, "Write your reply first."),
        ({"message": "\u200b"}, "Write your reply first."),
        ({"message": "\n" + "a" * 4001}, "Use 4,000 characters at most. These are 4,001."),
    ],
)
def test_a_reply_that_does_not_validate_is_not_sent_and_stays_typed(
    service: Service, dora: Frame, sent: dict[str, str], text: str
) -> None:
    id_ = opened(service, dora)
    before = ticket(service, id_)
    answer = post(service, dora, f"reply?id={id_}", sent)
    assert answer.status_code == 422
    assert answer.text.startswith("<title>Not sent yet: Broken cup</title>")
    assert wrong(answer) == {"message": text}
    assert typed(answer, "message") == sent.get("message", "")
    assert replies(service, id_) == []
    assert ticket(service, id_) == before


def test_a_reply_to_a_closed_ticket_is_not_sent_and_stays_typed(service: Service, dora: Frame) -> None:
    id_ = opened(service, dora)
    post(service, dora, f"close?id={id_}")
    before = ticket(service, id_)
    answer = post(service, dora, f"reply?id={id_}", {"message": "One more thing & more"})
    assert answer.status_code == 422
    assert wrong(answer) == {"message": "This ticket is closed now. Reopen it to reply."}
    assert typed(answer, "message") == "One more thing & more"
    assert "Reopen ticket</button>" in answer.text
    assert replies(service, id_) == []
    assert ticket(service, id_) == before


def test_a_ticket_takes_two_hundred_replies_and_not_one_more(service: Service, dora: Frame) -> None:
    id_ = opened(service, dora)
    answered(service, id_, count=MAX_REPLIES - 1)
    assert post(service, dora, f"reply?id={id_}", {"message": "The last one."}).status_code == 200
    before = ticket(service, id_)
    answer = post(service, dora, f"reply?id={id_}", {"message": "One too many."})
    assert answer.status_code == 422
    assert wrong(answer) == {"message": "This ticket has no room left. Please open a new one."}
    assert typed(answer, "message") == "One too many."
    assert len(replies(service, id_)) == MAX_REPLIES
    assert ticket(service, id_) == before
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


def test_closing_twice_keeps_the_time_of_the_first_and_reopening_twice_changes_nothing(
    service: Service, dora: Frame
) -> None:
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
def test_what_is_done_to_a_ticket_is_done_to_that_one_alone(
    service: Service, dora: Frame, action: str
) -> None:
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
def test_the_way_back_from_a_ticket_is_to_the_list_that_has_it(
    service: Service, dora: Frame, action: str, show: str
) -> None:
    answer = post(service, dora, f"{action}?id={opened(service, dora)}")
    back = f"/embed-apps/{SUPPORT}/pages/index?show={show}"
    assert f'<a class="back" href="{back}">' in answer.text
    assert subjects(service.client.get(back, headers=dora.bearer)) == ["Broken cup"]


# ---- Whose tickets ----

ROUTES: Final = [
    *(("GET", "ticket", None), ("POST", "reply", {"message": "I was here."})),
    *(("POST", "reply", {"message": ""}), ("POST", "close", {}), ("POST", "reopen", {})),
]


@pytest.fixture(scope="module")
def anas_ticket(service: Service, ana: Frame) -> str:
    return opened(service, ana, subject="Between us")


@pytest.fixture(scope="module")
def anas_closed_ticket(service: Service, ana: Frame) -> str:
    id_ = opened(service, ana, subject="Done with")
    post(service, ana, f"close?id={id_}")
    return id_


@pytest.mark.parametrize(("method", "path", "fields"), ROUTES)
@pytest.mark.parametrize("outsider", ["ben", "cleo", "ana_at_globex"])
def test_a_ticket_of_anas_at_acme_is_as_absent_elsewhere_as_one_that_never_was(
    service: Service,
    anas_ticket: str,
    anas_closed_ticket: str,
    request: pytest.FixtureRequest,
    outsider: str,
    method: str,
    path: str,
    fields: dict[str, str] | None,
) -> None:
    frame: Frame = request.getfixturevalue(outsider)
    hers = (anas_ticket, anas_closed_ticket)
    before = [(ticket(service, id_), replies(service, id_)) for id_ in hers]
    told = [
        refusal(service, frame, method, f"{path}?id={id_}", 404, "not_found", data=fields) | {"requestId": ""}
        for id_ in (*hers, NOBODYS)
    ]
    assert told[0] == told[1] == told[2]
    assert [(ticket(service, id_), replies(service, id_)) for id_ in hers] == before


def test_what_ana_writes_at_globex_is_there_and_not_at_acme(
    service: Service, ana: Frame, ana_at_globex: Frame
) -> None:
    id_ = opened(service, ana_at_globex, subject="To Globex alone")
    assert subjects(service.get(ana_at_globex, "pages/index?show=all")) == ["To Globex alone"]
    pages = [service.get(ana, f"pages/list?show=all&page={page}") for page in (1, 2)]
    assert "To Globex alone" not in [subject for page in pages for subject in subjects(page)]
    refusal(service, ana, "GET", f"ticket?id={id_}", 404, "not_found")


@pytest.mark.parametrize(("method", "path", "fields"), ROUTES)
@pytest.mark.parametrize(
    "query",
    [
        *("", "?id=", "?id=1", "?id=%25", f"?id={NOBODYS}%0a", f"?id={NOBODYS.replace('-', '')}"),
        *(f"?id=%7B{NOBODYS}%7D", "?id=" + "0" * 5000, "?id=%ff", "?id='%20OR%201=1%20--"),
    ],
)
def test_what_is_no_tickets_id_is_404(
    service: Service, ana: Frame, method: str, path: str, fields: dict[str, str] | None, query: str
) -> None:
    refusal(service, ana, method, path + query, 404, "not_found", data=fields)


def test_an_id_counts_in_the_address_alone_and_as_it_is_written(
    service: Service, ana: Frame, anas_ticket: str
) -> None:
    before = replies(service, anas_ticket)
    sent = {"id": anas_ticket, "message": "Hello?"}
    refusal(service, ana, "POST", "reply", 404, "not_found", data=sent)
    refusal(service, ana, "POST", f"reply?id={anas_ticket.upper()}", 404, "not_found", data=sent)
    refusal(service, ana, "POST", f"reply?id=x&id={anas_ticket}", 404, "not_found", data=sent)
    assert replies(service, anas_ticket) == before


def test_nothing_is_written_once_the_grant_is_gone(service: Service, dora: Frame) -> None:
    id_ = opened(service, dora)
    before = ticket(service, id_)
    everybody = [f"{name}@acme.test" for name in ("ana", "ben", "cleo", "dora", "emil")]
    provision(service.app, changed("apps", "support", users=everybody[:3]))
    try:
        for path in (f"reply?id={id_}", f"close?id={id_}", "create"):
            refusal(service, dora, "POST", path, 401, "access_revoked", data=GOOD)
    finally:
        provision(service.app, changed("apps", "support", users=everybody))
    assert ticket(service, id_) == before
    assert replies(service, id_) == []
    assert len(tickets_of(service, "dora@acme.test")) == 1


# ---- What is no form ----


@pytest.mark.parametrize("multipart", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        *({"subject": "a\0b"}, {"topic": "return\0"}, {"message": "\0"}, {"message": "a" * 3000 + "\0"}),
        *({"un\0known": "1"}, {"unknown": "\0"}),
    ],
)
def test_a_nul_in_a_form_is_refused_and_nothing_is_kept(
    service: Service, dora: Frame, fields: dict[str, str], multipart: bool
) -> None:
    kind = "multipart/form-data" if multipart else FORM
    for path in ("create", f"reply?id={NOBODYS}"):
        sent = GOOD | fields
        problem = refusal(service, dora, "POST", path, 400, "invalid_payload", data=sent, content_type=kind)
        assert list(problem["errors"]) == [name.replace("\0", "") for name in fields]
    assert tickets_of(service, "dora@acme.test") == []


@pytest.mark.parametrize(("method", "path", "fields"), ROUTES)
def test_a_nul_in_an_address_is_refused(
    service: Service, ana: Frame, anas_ticket: str, method: str, path: str, fields: dict[str, str] | None
) -> None:
    for query in (f"id={anas_ticket}%00", f"id={anas_ticket}&x=%00"):
        refusal(service, ana, method, f"{path}?{query}", 400, "invalid_payload", data=fields)


@pytest.mark.parametrize(
    ("kind", "sent", "status", "code"),
    [
        (
            "application/json",
            '{"subject": "a", "topic": "other", "message": "b"}',
            415,
            "unsupported_media_type",
        ),
        ("text/plain", "subject=a&topic=other&message=b", 415, "unsupported_media_type"),
        ("", "subject=a&topic=other&message=b", 415, "unsupported_media_type"),
        (FORM, "subject=a&topic=other&message=" + "b" * 1024 * 1024, 413, "payload_too_large"),
    ],
)
def test_what_is_no_form_or_too_large_is_refused(
    service: Service, dora: Frame, kind: str, sent: str, status: int, code: str
) -> None:
    refusal(service, dora, "POST", "create", status, code, data=sent, content_type=kind)
    assert tickets_of(service, "dora@acme.test") == []


@pytest.mark.parametrize("path", ["create", "reply", "close", "reopen"])
def test_nothing_is_written_by_a_get(service: Service, ana: Frame, anas_ticket: str, path: str) -> None:
    before = ticket(service, anas_ticket)
    refusal(service, ana, "GET", f"{path}?id={anas_ticket}&message=x", 405, "method_not_allowed")
    assert ticket(service, anas_ticket) == before


@pytest.mark.parametrize("path", ["index", "list", "new", "ticket"])
def test_what_is_only_read_takes_no_post(service: Service, ana: Frame, path: str) -> None:
    refusal(service, ana, "POST", path, 405, "method_not_allowed", data=GOOD)


# ---- How a time is said ----

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
def test_a_time_is_said_as_people_say_it(ago: timedelta, text: str) -> None:
    shown = moment(NOW - ago, NOW)
    assert shown["text"] == text
    assert datetime.fromisoformat(shown["iso"]) == NOW - ago
    assert shown["exact"].endswith(" UTC")
