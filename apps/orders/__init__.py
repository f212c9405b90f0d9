"""Orders: the viewer's own customer account.

Every query filters by the viewer's id and workspace, so it never returns another user's orders. If the mint
named regions in the attribute `region`, queries also filter by them.
"""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flask import Response, abort, render_template, request
from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    Row,
    String,
    Text,
    UniqueConstraint,
    and_,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.orm import Mapped, mapped_column

from apps._helpers import Paging, is_id, one_line, page_number
from pat_service.embed import EmbeddedApp, Model, UtcDateTime, Viewer, new_id, reading

PAGE_SIZE: Final = 10
MAX_SEARCH_LENGTH: Final = 100
MONTHS: Final = 12
RECENT: Final = timedelta(days=30)
MAX_STEPS: Final = 4  # between the lines of the chart

#: Status → its name and the style of its badge.
ORDER_STATUSES: Final = {
    "processing": ("Processing", "warn"),
    "shipped": ("On the way", "info"),
    "delivered": ("Delivered", "ok"),
    "cancelled": ("Cancelled", ""),
}
CANCELLED: Final = "cancelled"
#: Delivery regions.
REGIONS: Final = {"north": "North", "south": "South", "west": "West"}
#: The attribute of a mint that limits the viewer to a region or a list of regions.
REGION: Final = "region"
# Spreadsheets treat a cell with one of these starts as a formula.
FORMULA_STARTS: Final = tuple("=+-@\t\r\n＝＋－＠")

app = EmbeddedApp(preload=["orders.css", "orders.js"])


class Order(Model):
    """An order of one customer. Money is in euro cents; `total_cents` includes the shipping."""

    __tablename__ = "demo_orders"
    __table_args__ = (
        UniqueConstraint("workspace_id", "number"),
        Index(None, "user_id", "workspace_id", "placed_at"),
        CheckConstraint(f"status IN ({', '.join(map(repr, ORDER_STATUSES))})", "status"),
        CheckConstraint(f"region IN ({', '.join(map(repr, REGIONS))})", "region"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id", ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    number: Mapped[str] = mapped_column(String(20))
    status: Mapped[str] = mapped_column(String(16))
    ship_to: Mapped[str] = mapped_column(Text)
    region: Mapped[str] = mapped_column(String(16))
    tracking: Mapped[str | None] = mapped_column(String(40))
    shipping_cents: Mapped[int]
    total_cents: Mapped[int]
    placed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    shipped_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class OrderLine(Model):
    """One product of an order. `kind` names its picture."""

    __tablename__ = "demo_order_lines"

    order_id: Mapped[str] = mapped_column(ForeignKey(Order.id, ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(String(120))
    kind: Mapped[str] = mapped_column(String(16))
    quantity: Mapped[int]
    unit_cents: Mapped[int]


ORDER: Final = Order.__table__.columns
LINE: Final = OrderLine.__table__.columns


# ---- Requests ----


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """A visitor's filter for orders. Invalid values count as absent."""

    status: str
    search: str
    page: int

    @classmethod
    def from_request(cls) -> "OrderFilter":
        status = request.args.get("status", "")
        return cls(
            status if status in ORDER_STATUSES else "",
            one_line(request.args.get("q", "")[:MAX_SEARCH_LENGTH]),
            page_number(request.args.get("page", "")),
        )

    def query(self, page: int) -> dict[str, Any]:
        """Return the filter, at another page, as the query of a link. Defaults are omitted."""
        values = {"status": self.status, "q": self.search, "page": page if page > 1 else None}
        return {name: value for name, value in values.items() if value}


def regions_of(viewer: Viewer) -> list[str] | None:
    """Return the viewer's regions, or None if the mint named none.

    An invalid attribute gives no region, so that a mistake does not show everything.
    """
    if REGION not in viewer.attributes:
        return None
    named = viewer.attributes[REGION]
    named = named if isinstance(named, list) else [named]
    is_known = all(region in REGIONS for region in named)
    return [region for region in REGIONS if region in named] if is_known else []


def own(viewer: Viewer) -> ColumnElement[bool]:
    """Return the condition for the viewer's orders. Every query uses it."""
    condition = and_(Order.user_id == viewer.user.id, Order.workspace_id == viewer.workspace.id)
    regions = regions_of(viewer)
    return condition if regions is None else and_(condition, Order.region.in_(regions))


def matching(viewer: Viewer, order_filter: OrderFilter) -> ColumnElement[bool]:
    """Return the condition for the viewer's orders that match the filter."""
    condition = own(viewer)
    if order_filter.status:
        condition = and_(condition, Order.status == order_filter.status)
    if order_filter.search:
        text = order_filter.search.lower()
        in_lines = exists().where(
            OrderLine.order_id == Order.id,
            or_(
                func.lower(OrderLine.name).contains(text, autoescape=True),
                func.lower(OrderLine.sku).contains(text, autoescape=True),
            ),
        )
        condition = and_(condition, or_(func.lower(Order.number).contains(text, autoescape=True), in_lines))
    return condition


def find(connection: Connection, viewer: Viewer) -> Row[Any]:
    """Return the viewer's order with the id in the request. Any other id gives 404."""
    order_id = request.args.get("id", "")
    if is_id(order_id):
        row = connection.execute(select(*ORDER).where(own(viewer), Order.id == order_id)).first()
        if row:
            return row
    abort(404)


def lines_of(connection: Connection, chosen: ColumnElement[bool]) -> dict[str, list[Row[Any]]]:
    """Return the matching lines by order id, sorted by position."""
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    for line in connection.execute(select(*LINE).where(chosen).order_by(OrderLine.position)):
        found[line.order_id].append(line)
    return found


# ---- Presentation ----


def euros(cents: int) -> str:
    return f"€{cents / 100:,.2f}"


def day(moment: datetime) -> str:
    return f"{moment.day} {moment:%b %Y}"


def present(order: Row[Any], lines: Sequence[Row[Any]]) -> dict[str, Any]:
    """Return an order for the templates."""
    name, look = ORDER_STATUSES[order.status]
    return {
        "id": order.id,
        "number": order.number,
        "status": name,
        "look": look,
        "placed": day(order.placed_at),
        "placed_at": order.placed_at.isoformat(),
        "products": [line.name for line in lines],
        "region": REGIONS[order.region],
        "total": euros(order.total_cents),
    }


def scope(viewer: Viewer) -> dict[str, Any]:
    """Return the names of the viewer's regions for the templates, or None for all regions."""
    regions = regions_of(viewer)
    several = len(REGIONS if regions is None else regions) > 1
    return {
        "regions": None if regions is None else [REGIONS[region] for region in regions],
        "several_regions": several,
    }


def list_orders(connection: Connection, viewer: Viewer, order_filter: OrderFilter) -> dict[str, Any]:
    """Return the context of the list: the requested page of orders."""
    condition = matching(viewer, order_filter)
    total = connection.execute(select(func.count()).select_from(Order).where(condition)).scalar_one()
    paging = Paging.nearest(order_filter.page, PAGE_SIZE, total)
    rows = connection.execute(
        select(*ORDER)
        .where(condition)
        .order_by(Order.placed_at.desc(), Order.id)
        .limit(paging.size)
        .offset(paging.offset)
    ).all()
    lines = lines_of(connection, OrderLine.order_id.in_([row.id for row in rows]))
    return {
        "filter": order_filter,
        "paging": paging,
        "orders": [present(row, lines[row.id]) for row in rows],
        **scope(viewer),
    }


def count_orders(connection: Connection, viewer: Viewer) -> dict[str, int]:
    """Return the number of the viewer's orders by status."""
    rows = connection.execute(
        select(Order.status, func.count().label("orders")).where(own(viewer)).group_by(Order.status)
    )
    return dict.fromkeys(ORDER_STATUSES, 0) | {row.status: row.orders for row in rows}


def months_until(now: datetime, count: int) -> list[datetime]:
    """Return the starts of the last `count` months in UTC, oldest first, with the current month."""
    this = now.year * 12 + now.month - 1
    return [
        datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC) for month in range(this - count + 1, this + 1)
    ]


def scale(highest: int) -> list[int]:
    """Return evenly spaced whole-euro amounts in cents, from 0 to the first that reaches `highest`."""
    step = 100
    while step * MAX_STEPS < highest:
        step = step * 5 // 2 if str(step).startswith("2") else step * 2  # 1, 2, 5, 10, 20, 50 …
    return [step * number for number in range(max(1, -(-highest // step)) + 1)]


def spending(connection: Connection, viewer: Viewer, now: datetime) -> dict[str, Any]:
    """Return the figures and the chart of the last 12 calendar months in UTC, without cancelled orders."""
    starts = months_until(now, MONTHS)
    rows = connection.execute(
        select(Order.placed_at, Order.total_cents).where(
            own(viewer), Order.placed_at >= starts[0], Order.placed_at <= now, Order.status != CANCELLED
        )
    ).all()
    # Summed here, since SQLite and PostgreSQL share no function for months.
    cents = dict.fromkeys(starts, 0)
    orders = dict.fromkeys(starts, 0)
    for placed_at, total_cents in rows:
        month = placed_at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        cents[month] += total_cents
        orders[month] += 1
    total = sum(cents.values())
    recent = sum(row.total_cents for row in rows if row.placed_at > now - RECENT)
    before = sum(row.total_cents for row in rows if now - 2 * RECENT < row.placed_at <= now - RECENT)
    ticks = scale(max(cents.values()))
    months = [
        {
            "short": f"{start:%b}",
            "name": f"{start:%B %Y}",
            "cents": cents[start],
            "amount": euros(cents[start]),
            "orders": orders[start],
        }
        for start in starts
    ]
    return {
        "total": euros(total),
        "orders": len(rows),
        "average": euros(round(total / len(rows))) if rows else "–",
        "recent": euros(recent),
        "change": round((recent - before) / before * 100) if before else None,
        "months": months,
        "highest": months[starts.index(max(starts, key=cents.__getitem__))],
        "ticks": [{"cents": tick, "text": f"€{tick // 100:,}"} for tick in ticks],
    }


# ---- Pages ----


@app.page("index")
def index(viewer: Viewer) -> dict[str, Any]:
    now = datetime.now(UTC)
    with reading() as connection:
        by_status = count_orders(connection, viewer)
        if not any(by_status.values()):
            return {"customer_orders": 0, **scope(viewer)}
        return {
            "customer_orders": sum(by_status.values()),
            "statuses": [(status, name, by_status[status]) for status, (name, _) in ORDER_STATUSES.items()],
            "open_orders": by_status["processing"] + by_status["shipped"],
            "on_the_way": by_status["shipped"],
            "spending": spending(connection, viewer, now),
            "max_search_length": MAX_SEARCH_LENGTH,
            **list_orders(connection, viewer, OrderFilter.from_request()),
        }


@app.page("list")
def part(viewer: Viewer) -> dict[str, Any]:
    """The part of the index that the filter and the pager replace."""
    with reading() as connection:
        return {"is_update": True, **list_orders(connection, viewer, OrderFilter.from_request())}


@app.page("order")
def order(viewer: Viewer) -> dict[str, Any]:
    """One order. The link back keeps the visitor's filter."""
    order_filter = OrderFilter.from_request()
    with reading() as connection:
        row = find(connection, viewer)
        lines = lines_of(connection, OrderLine.order_id == row.id)[row.id]
    steps = [
        ("Placed", row.placed_at),
        ("Sent", row.shipped_at),
        ("Delivered", row.delivered_at),
    ]
    return {
        "back": order_filter.query(order_filter.page),
        "order": present(row, lines),
        "cancelled": row.status == CANCELLED,
        "ship_to": row.ship_to,
        "tracking": row.tracking,
        "goods": euros(row.total_cents - row.shipping_cents),
        "shipping": euros(row.shipping_cents) if row.shipping_cents else "Free",
        "steps": [
            (name, moment.isoformat(), day(moment)) if moment else (name, "", "") for name, moment in steps
        ],
        **scope(viewer),
        "lines": [
            {
                "sku": line.sku,
                "name": line.name,
                "kind": line.kind,
                "quantity": line.quantity,
                "unit": euros(line.unit_cents),
                "amount": euros(line.quantity * line.unit_cents),
            }
            for line in lines
        ],
    }


# ---- Files ----


def escape_cell(text: str) -> str:
    """Return the text as a cell that no spreadsheet treats as a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA_STARTS) else text


@app.data("orders.csv")
def download(viewer: Viewer) -> Response:
    """The matching orders as a CSV file. Dates are in UTC, amounts in euros."""
    now = datetime.now(UTC)
    condition = matching(viewer, OrderFilter.from_request())
    with reading() as connection:
        rows = connection.execute(
            select(*ORDER).where(condition).order_by(Order.placed_at.desc(), Order.id)
        ).all()
        lines = lines_of(connection, OrderLine.order_id.in_(select(Order.id).where(condition)))
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["Order", "Placed", "Status", "Region", "Items", "Shipping (EUR)", "Total (EUR)"])
    for row in rows:
        table.writerow(
            [
                escape_cell(row.number),
                f"{row.placed_at:%Y-%m-%d}",
                ORDER_STATUSES[row.status][0],
                REGIONS[row.region],
                escape_cell("; ".join(f"{line.quantity} × {line.name}" for line in lines[row.id])),
                f"{row.shipping_cents / 100:.2f}",
                f"{row.total_cents / 100:.2f}",
            ]
        )
    return Response(
        text.getvalue().encode("utf-8-sig"),  # Excel needs the byte order mark
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="orders-{now:%Y-%m-%d}.csv"'},
    )


# Code 39: each character has five bars and four spaces in turn. "w" is a wide element.
CODE_39: Final = dict(
    re.findall(
        "(.):([nw]{9})",
        "0:nnnwwnwnn 1:wnnwnnnnw 2:nnwwnnnnw 3:wnwwnnnnn 4:nnnwwnnnw 5:wnnwwnnnn 6:nnwwwnnnn 7:nnnwnnwnw "
        "8:wnnwnnwnn 9:nnwwnnwnn A:wnnnnwnnw B:nnwnnwnnw C:wnwnnwnnn D:nnnnwwnnw E:wnnnwwnnn F:nnwnwwnnn "
        "G:nnnnnwwnw H:wnnnnwwnn I:nnwnnwwnn J:nnnnwwwnn K:wnnnnnnww L:nnwnnnnww M:wnwnnnnwn N:nnnnwnnww "
        "O:wnnnwnnwn P:nnwnwnnwn Q:nnnnnnwww R:wnnnnnwwn S:nnwnnnwwn T:nnnnwnwwn U:wwnnnnnnw V:nwwnnnnnw "
        "W:wwwnnnnnn X:nwnnwnnnw Y:wwnnwnnnn Z:nwwnwnnnn -:nwnnnnwnw *:nwnnwnwnn",
    )
)
WIDE: Final = 3  # in narrow elements
QUIET: Final = 10  # white on both sides, in narrow elements


def draw_bars(text: str) -> tuple[list[tuple[int, int]], int]:
    """Return the text's Code 39 bars as (x, width), and the total width. The unit is a narrow element."""
    drawn = []
    x = QUIET
    for character in f"*{text}*":
        for number, element in enumerate(CODE_39[character]):
            width = WIDE if element == "w" else 1
            if number % 2 == 0:
                drawn.append((x, width))
            x += width
        x += 1
    return drawn, x - 1 + QUIET


@app.data("label.svg")
def label(viewer: Viewer) -> Response:
    """The order's number as a bar code."""
    with reading() as connection:
        order = find(connection, viewer)
    drawn, width = draw_bars(order.number)
    picture = render_template("apps/orders/_label.svg", bars=drawn, width=width, number=order.number)
    return Response(
        picture,
        content_type="image/svg+xml; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{order.number}.svg"'},
    )
