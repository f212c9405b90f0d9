"""Support desk: the viewer's own tickets, read and written from inside the frame.

Every query filters by the viewer's id and workspace, so it never returns another user's tickets.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from flask import abort, request
from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate
from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    Row,
    String,
    Text,
    and_,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.orm import Mapped, mapped_column

from apps._helpers import Paging, is_id, one_line, page_number, tidy
from pat_service.embed import EmbeddedApp, Model, Page, UtcDateTime, Viewer, new_id, reading, transaction

PAGE_SIZE: Final = 10
MAX_SUBJECT_LENGTH: Final = 120
MAX_MESSAGE_LENGTH: Final = 4000
MAX_REPLIES: Final = 200  # a ticket's page shows all of them

TOPICS: Final = {
    "delivery": "Delivery",
    "return": "Return or damage",
    "invoice": "Invoice or payment",
    "product": "Product question",
    "other": "Something else",
}

app = EmbeddedApp(preload=["support.css"])


class Ticket(Model):
    """A question of one customer, open until `closed_at`. `active_at` is the time of the last change."""

    __tablename__ = "demo_tickets"
    __table_args__ = (
        Index(None, "user_id", "workspace_id", "active_at"),
        CheckConstraint(f"topic IN ({', '.join(map(repr, TOPICS))})", "topic"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id", ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    subject: Mapped[str] = mapped_column(String(MAX_SUBJECT_LENGTH))
    topic: Mapped[str] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    active_at: Mapped[datetime] = mapped_column(UtcDateTime)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class TicketReply(Model):
    """A reply to a ticket, from the customer or from the desk."""

    __tablename__ = "demo_ticket_replies"
    __table_args__ = (Index(None, "ticket_id", "created_at"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    ticket_id: Mapped[str] = mapped_column(ForeignKey(Ticket.id, ondelete="CASCADE"))
    author: Mapped[str] = mapped_column(Text)
    from_desk: Mapped[bool]
    message: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


TICKET: Final = Ticket.__table__.columns
REPLY: Final = TicketReply.__table__.columns

#: Filter → its name, and the condition for its tickets.
SHOWS: Final = {
    "open": ("Open", Ticket.closed_at.is_(None)),
    "closed": ("Closed", Ticket.closed_at.is_not(None)),
    "all": ("All", Ticket.id.is_not(None)),
}


# ---- Forms: schemas ----


class Words(fields.String):
    """Tidied text of at most `max_length` characters. `ask` is the error for an empty text."""

    def __init__(self, *, ask: str, max_length: int, lines: bool = False) -> None:
        super().__init__(required=True, error_messages={"required": ask})
        self.ask = ask
        self.max_length = max_length
        self.tidy = tidy if lines else one_line

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text = self.tidy(super()._deserialize(value, attr, data, **kwargs))
        if not text:
            raise ValidationError(self.ask)
        if len(text) > self.max_length:
            raise ValidationError(f"Use {self.max_length:,} characters at most. These are {len(text):,}.")
        return text


class ReplyForm(Schema):
    message = Words(ask="Write your reply first.", max_length=MAX_MESSAGE_LENGTH, lines=True)


class TicketForm(Schema):
    subject = Words(ask="Say in a few words what it is about.", max_length=MAX_SUBJECT_LENGTH)
    topic = fields.String(
        required=True,
        validate=validate.OneOf(TOPICS, error="Choose a topic from the list."),
        error_messages={"required": "Choose a topic from the list."},
    )
    message = Words(ask="Tell us what happened, or what you need.", max_length=MAX_MESSAGE_LENGTH, lines=True)


REPLY_FORM: Final = ReplyForm(unknown=EXCLUDE)
TICKET_FORM: Final = TicketForm(unknown=EXCLUDE)


# ---- The viewer's tickets ----


def own(viewer: Viewer) -> ColumnElement[bool]:
    return and_(Ticket.user_id == viewer.user.id, Ticket.workspace_id == viewer.workspace.id)


def requested_ticket(viewer: Viewer) -> ColumnElement[bool]:
    """Return the condition for the viewer's ticket with the id in the request, or answer 404."""
    ticket_id = request.args.get("id", "")
    if not is_id(ticket_id):
        abort(404)
    return and_(own(viewer), Ticket.id == ticket_id)


def find(connection: Connection, chosen: ColumnElement[bool]) -> Row[Any]:
    """Return the viewer's ticket. Another user's ticket gives 404, like a missing one."""
    return connection.execute(select(*TICKET).where(chosen)).first() or abort(404)


def replies_to(connection: Connection, tickets: Sequence[str]) -> dict[str, list[bool]]:
    """Return a list for each ticket id, oldest reply first. True means that the desk wrote the reply."""
    found: dict[str, list[bool]] = defaultdict(list)
    for ticket_id, from_desk in connection.execute(
        select(TicketReply.ticket_id, TicketReply.from_desk)
        .where(TicketReply.ticket_id.in_(tickets))
        .order_by(TicketReply.created_at, TicketReply.id)
    ):
        found[ticket_id].append(from_desk)
    return found


# ---- Presentation ----


def moment(at: datetime, now: datetime) -> dict[str, str]:
    """Return a time for the templates: its age, its day, and the exact time in UTC."""
    minutes = int((now - at).total_seconds() // 60)
    if minutes < 1:
        text = "just now"
    elif minutes < 60:
        text = f"{minutes} min ago"
    elif minutes < 24 * 60:
        text = f"{minutes // 60} h ago"
    elif minutes < 7 * 24 * 60:
        days = minutes // (24 * 60)
        text = "yesterday" if days == 1 else f"{days} days ago"
    else:
        text = f"{at.day} {at:%b %Y}" if at.year != now.year else f"{at.day} {at:%b}"
    return {
        "iso": at.isoformat(),
        "text": text,
        "day": f"{at.day} {at:%b %Y}",
        "exact": f"{at.day} {at:%b %Y, %H:%M} UTC",
    }


def state(ticket: Row[Any], replies: Sequence[bool]) -> tuple[str, str]:
    """Return the ticket's state in words and the style of its badge. `replies`: True for the desk's."""
    if ticket.closed_at:
        return "Closed", ""
    if replies and replies[-1]:
        return "Answered", "ok"
    return "Waiting for us", "warn"


def initials(name: str) -> str:
    words = name.split()
    return (words[0][:1] + (words[-1][:1] if len(words) > 1 else "")).upper() if words else "?"


def present(ticket: Row[Any], replies: Sequence[bool], now: datetime) -> dict[str, Any]:
    """Return a ticket for the templates."""
    words, look = state(ticket, replies)
    return {
        "id": ticket.id,
        "reference": ticket.id[:8].upper(),
        "subject": ticket.subject,
        "topic": TOPICS[ticket.topic],
        "state": words,
        "look": look,
        "is_open": ticket.closed_at is None,
        "replies": len(replies),
        "opened": moment(ticket.created_at, now),
        "active": moment(ticket.active_at, now),
        "closed": moment(ticket.closed_at, now) if ticket.closed_at else None,
    }


def message(author: str, text: str, at: datetime, from_desk: bool, now: datetime) -> dict[str, Any]:
    return {
        "author": author,
        "initials": initials(author),
        "from_desk": from_desk,
        "text": text,
        "at": moment(at, now),
    }


def thread(
    connection: Connection, viewer: Viewer, chosen: ColumnElement[bool], now: datetime
) -> dict[str, Any]:
    """Return the context of a ticket's page, or answer 404."""
    ticket = find(connection, chosen)
    replies = connection.execute(
        select(*REPLY)
        .where(TicketReply.ticket_id == ticket.id)
        .order_by(TicketReply.created_at, TicketReply.id)
    ).all()
    first = message(viewer.user.name, ticket.message, ticket.created_at, False, now)
    rest = [
        # The viewer wrote the other replies, and may have a new name.
        message(
            reply.author if reply.from_desk else viewer.user.name,
            reply.message,
            reply.created_at,
            reply.from_desk,
            now,
        )
        for reply in replies
    ]
    return {
        "ticket": present(ticket, [reply.from_desk for reply in replies], now),
        "messages": [first, *rest],
        "full": len(replies) >= MAX_REPLIES,
        "max_message_length": MAX_MESSAGE_LENGTH,
    }


# ---- Pages ----


def list_tickets(connection: Connection, viewer: Viewer, now: datetime) -> dict[str, Any]:
    """Return the context of the list: the requested page of tickets, latest first."""
    show = request.args.get("show", "open")
    show = show if show in SHOWS else "open"
    mine = select(func.count()).select_from(Ticket).where(own(viewer))
    numbers = {
        name: connection.execute(mine.where(condition)).scalar_one() for name, (_, condition) in SHOWS.items()
    }
    paging = Paging.nearest(page_number(request.args.get("page", "")), PAGE_SIZE, numbers[show])
    tickets = connection.execute(
        select(*TICKET)
        .where(own(viewer), SHOWS[show][1])
        .order_by(Ticket.active_at.desc(), Ticket.id)
        .limit(paging.size)
        .offset(paging.offset)
    ).all()
    replies = replies_to(connection, [ticket.id for ticket in tickets])
    return {
        "show": show,
        "shows": [(name, text, numbers[name]) for name, (text, _) in SHOWS.items()],
        "customer_tickets": numbers["all"],
        "paging": paging,
        "tickets": [present(ticket, replies[ticket.id], now) for ticket in tickets],
    }


@app.page("index")
def index(viewer: Viewer) -> dict[str, Any]:
    with reading() as connection:
        return list_tickets(connection, viewer, datetime.now(UTC))


@app.page("list")
def part(viewer: Viewer) -> dict[str, Any]:
    """The part of the index that the filter and the pager replace."""
    with reading() as connection:
        return {"is_update": True, **list_tickets(connection, viewer, datetime.now(UTC))}


@app.page("ticket")
def ticket(viewer: Viewer) -> dict[str, Any]:
    with reading() as connection:
        return thread(connection, viewer, requested_ticket(viewer), datetime.now(UTC))


@app.page("new")
def new(viewer: Viewer) -> dict[str, Any]:
    return {
        "topics": TOPICS,
        "max_subject_length": MAX_SUBJECT_LENGTH,
        "max_message_length": MAX_MESSAGE_LENGTH,
    }


# ---- Forms ----


@app.form("create", page="new")
def create(viewer: Viewer) -> Page:
    """Open a ticket, and show it."""
    words = TICKET_FORM.load(request.form.to_dict())
    now = datetime.now(UTC)
    ticket_id = new_id()
    with transaction() as connection:
        connection.execute(
            insert(Ticket).values(
                id=ticket_id,
                workspace_id=viewer.workspace.id,
                user_id=viewer.user.id,
                created_at=now,
                active_at=now,
                **words,
            )
        )
        context = thread(connection, viewer, and_(own(viewer), Ticket.id == ticket_id), now)
    return Page("ticket", {**context, "notice": "Your ticket is open. We answer within one working day."})


@app.form("reply", page="ticket")
def reply(viewer: Viewer) -> Page:
    """Add a reply to an open ticket."""
    chosen = requested_ticket(viewer)
    words = REPLY_FORM.load(request.form.to_dict())
    now = datetime.now(UTC)
    with transaction() as connection:
        # Update first, to lock the row: a concurrent close or reply must wait.
        updated = connection.execute(update(Ticket).where(chosen).values(active_at=now)).rowcount
        if not updated:
            abort(404)
        found = find(connection, chosen)
        if found.closed_at:
            raise ValidationError({"message": ["This ticket is closed now. Reopen it to reply."]})
        count = select(func.count()).select_from(TicketReply).where(TicketReply.ticket_id == found.id)
        if connection.execute(count).scalar_one() >= MAX_REPLIES:
            raise ValidationError({"message": ["This ticket has no room left. Please open a new one."]})
        connection.execute(
            insert(TicketReply).values(
                id=new_id(),
                ticket_id=found.id,
                author=viewer.user.name,
                from_desk=False,
                created_at=now,
                **words,
            )
        )
        context = thread(connection, viewer, chosen, now)
    return Page("ticket", {**context, "notice": "Your reply was sent."})


def set_open(viewer: Viewer, is_open: bool, notice: str) -> Page:
    """Close or reopen the ticket. A repeat changes nothing."""
    chosen = requested_ticket(viewer)
    now = datetime.now(UTC)
    changes = Ticket.closed_at.is_not(None) if is_open else Ticket.closed_at.is_(None)
    with transaction() as connection:
        connection.execute(
            update(Ticket).where(chosen, changes).values(closed_at=None if is_open else now, active_at=now)
        )
        context = thread(connection, viewer, chosen, now)
    return Page("ticket", {**context, "notice": notice})


@app.form("close", page="ticket")
def close(viewer: Viewer) -> Page:
    return set_open(viewer, False, "The ticket is closed. You can reopen it at any time.")


@app.form("reopen", page="ticket")
def reopen(viewer: Viewer) -> Page:
    return set_open(viewer, True, "The ticket is open again.")
