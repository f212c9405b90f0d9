"""The orders and tickets of the demo's customers. Every load creates the same rows."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

from sqlalchemy import Connection, insert, select

from apps.orders import Order, OrderLine
from apps.support import Ticket, TicketReply
from demo import people
from pat_service.storage.models import User, Workspace, new_id

FREE_SHIPPING: Final = 15_000  # cents of goods
SHIPPING: Final = 690  # cents
DAYS: Final = 358  # from the first order to now
LATEST: Final = (0.3, 1.0, 2.9, 3.8)  # days ago, so that a parcel is always on its way
QUIET: Final = 18  # the last days have only these orders, so that the last month is like the others
PROCESSING: Final = timedelta(days=2)  # until an order is handed to the carrier
ON_THE_WAY: Final = timedelta(days=7)  # until it has arrived
#: The region of an order, by the last digit of its number.
REGION_BY_DIGIT: Final = ("north",) * 4 + ("south",) * 3 + ("west",) * 3
#: Written for the customer's own name in `demo/rows.json`.
ME: Final = "me"
#: Email → the customer's orders and tickets. If `busy` is above 1, later months have more orders.
CUSTOMERS: Final[dict[str, Any]] = json.loads(Path(__file__).with_name("rows.json").read_text("utf-8"))


def load_rows(connection: Connection, users: Mapping[str, str], now: datetime) -> None:
    """Give Ana and Ben their orders and tickets in the demo's workspace, inside the caller's transaction.

    `users` has user ids by email. A customer without an id is left out. A customer who already has orders
    gets no new orders, and the same holds for tickets. Times count back from `now`.
    """
    workspace_id = connection.execute(
        select(Workspace.id).where(Workspace.slug == people.WORKSPACE)
    ).scalar_one()
    for email, customer in CUSTOMERS.items():
        if email not in users:
            continue
        whose = {"workspace_id": workspace_id, "user_id": users[email]}
        if not _has_any(connection, Order, whose):
            orders = list(_orders(customer, Random(email), now))  # noqa: S311 - every load creates the same rows
            connection.execute(insert(Order), [order | whose for order, _ in orders])
            connection.execute(insert(OrderLine), [line for _, lines in orders for line in lines])
        if not _has_any(connection, Ticket, whose):
            name = connection.execute(select(User.name).where(User.id == users[email])).scalar_one()
            tickets = [_ticket(question, name, now) for question in customer["questions"]]
            connection.execute(insert(Ticket), [ticket | whose for ticket, _ in tickets])
            connection.execute(insert(TicketReply), [reply for _, replies in tickets for reply in replies])


def _has_any(connection: Connection, table: type[Order] | type[Ticket], whose: dict[str, str]) -> bool:
    found = select(table.id).where(
        table.user_id == whose["user_id"], table.workspace_id == whose["workspace_id"]
    )
    return connection.execute(found.limit(1)).first() is not None


def _orders(
    customer: dict[str, Any], random: Random, now: datetime
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield each order with its lines, the oldest first."""
    number = customer["first_number"]
    # One order on a random day in each equal part of the year.
    older = customer["orders"] - len(LATEST)
    parts = [(place + random.random()) / older for place in range(older)]
    ages = [QUIET + (DAYS - QUIET) * part ** customer["busy"] for part in parts]
    ages = sorted(ages + [age * random.uniform(0.7, 1.3) for age in LATEST], reverse=True)
    for place, age in enumerate(ages):
        number += random.randint(3, 40)
        placed_at = now - timedelta(days=age)
        # One in fifteen is cancelled, but none of the newest, which show parcels on their way.
        cancelled = place % 15 == 9 and age > DAYS / 12
        order_id = new_id()
        lines: list[dict[str, Any]] = [
            {
                "order_id": order_id,
                "position": position,
                **{name: product[name] for name in ("sku", "name", "kind")},
                "quantity": random.randint(1, product["most"]),
                "unit_cents": product["cents"],
            }
            for position, product in enumerate(random.sample(customer["products"], random.randint(1, 5)), 1)
        ]
        region = REGION_BY_DIGIT[number % 10]
        goods = sum(line["quantity"] * line["unit_cents"] for line in lines)
        shipping = 0 if goods >= FREE_SHIPPING else SHIPPING
        yield (
            {
                "id": order_id,
                "number": f"BR-{number}",
                "region": region,
                "ship_to": customer["ship_to"][region],
                "shipping_cents": shipping,
                "total_cents": goods + shipping,
                "placed_at": placed_at,
                **_progress(placed_at, cancelled, random, now),
            },
            lines,
        )


def _progress(placed_at: datetime, cancelled: bool, random: Random, now: datetime) -> dict[str, Any]:
    """Return the status of an order, its parcel number and its times."""
    parcel = f"BXP {random.randint(1000, 9999)} {random.randint(1000, 9999)} IE"
    shipped_at = placed_at + PROCESSING * random.uniform(0.4, 1)
    delivered_at = shipped_at + (ON_THE_WAY - PROCESSING) * random.uniform(0.3, 1)
    if cancelled:
        return {"status": "cancelled", "tracking": None, "shipped_at": None, "delivered_at": None}
    if shipped_at > now:
        return {"status": "processing", "tracking": None, "shipped_at": None, "delivered_at": None}
    if delivered_at > now:
        return {"status": "shipped", "tracking": parcel, "shipped_at": shipped_at, "delivered_at": None}
    return {"status": "delivered", "tracking": parcel, "shipped_at": shipped_at, "delivered_at": delivered_at}


def _ticket(
    question: dict[str, Any], name: str, now: datetime
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the ticket that `name` opened, and its replies. No reply is later than `now`."""
    ticket_id = new_id()
    at = created_at = now - timedelta(days=question["days"])
    replies = []
    for reply in question["replies"]:
        at = min(at + timedelta(hours=reply["after_hours"]), now)
        author = reply["author"]
        replies.append(
            {
                "id": new_id(),
                "ticket_id": ticket_id,
                "author": name if author == ME else author,
                "from_desk": author != ME,
                "message": reply["message"],
                "created_at": at,
            }
        )
    ticket = {
        "id": ticket_id,
        "subject": question["subject"],
        "topic": question["topic"],
        "message": question["message"],
        "created_at": created_at,
        "active_at": at,
        "closed_at": at if question["closed"] else None,
    }
    return ticket, replies
