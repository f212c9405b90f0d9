"""What the demo's customers bought and asked: rows of the two apps, the same for everybody who loads them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
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
LATEST: Final = (0.3, 1.0, 2.9, 3.8)  # days ago, so that something is always on its way
PROCESSING: Final = timedelta(days=2)  # until an order is handed to the carrier
ON_THE_WAY: Final = timedelta(days=7)  # until it has arrived


@dataclass(frozen=True, slots=True)
class Product:
    sku: str
    name: str
    kind: str
    cents: int
    most: int  # of it in one order


@dataclass(frozen=True, slots=True)
class Question:
    """A ticket that was opened `days` ago. Each answer: how many hours after what came before, who, what."""

    days: float
    topic: str
    subject: str
    message: str
    answers: tuple[tuple[float, str, str], ...] = ()
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody with an account, and an address in each region.

    Above 1, `busy` gives the later months more of the orders; below, fewer.
    """

    ship_to: Mapping[str, str]
    first_number: int
    orders: int
    busy: float
    products: Sequence[Product]
    questions: Sequence[Question]


#: The region of an order, by the last digit of its number.
REGION_BY_DIGIT: Final = ("north",) * 4 + ("south",) * 3 + ("west",) * 3

ME: Final = "me"
MAYA: Final = "Maya Lindqvist"
TOM: Final = "Tom Adeyemi"

CAFE: Final = (
    Product("COF-1101", "House blend, whole bean, 1 kg", "coffee", 1895, 12),
    Product("COF-1104", "Ethiopia Guji, whole bean, 1 kg", "coffee", 2640, 6),
    Product("COF-1109", "Decaf, whole bean, 1 kg", "coffee", 2190, 4),
    Product("CUP-2008", "Paper cups, 8 oz, sleeve of 50", "cup", 645, 20),
    Product("CUP-2012", "Paper cups, 12 oz, sleeve of 50", "cup", 790, 20),
    Product("CUP-2090", "Lids for 8 and 12 oz, 100", "cup", 520, 12),
    Product("MLK-3002", "Oat drink, barista, 6 × 1 l", "carton", 1130, 10),
    Product("MLK-3005", "Almond drink, 6 × 1 l", "carton", 1380, 4),
    Product("SYR-3301", "Vanilla syrup, 700 ml", "bottle", 795, 6),
    Product("SYR-3304", "Crème brûlée syrup, 700 ml", "bottle", 845, 4),
    Product("CLN-4101", "Espresso machine cleaner, 900 g", "bottle", 1560, 3),
    Product("CLN-4108", "Microfibre cloths, pack of 10", "cloth", 985, 4),
    Product("GRI-5502", "Grinder burrs, 64 mm, pair", "gear", 6450, 1),
    Product("TEA-1502", "Breakfast tea, 100 bags", "carton", 1120, 4),
)

WORKSHOP: Final = (
    Product("CHN-6011", "Chain, 11-speed, 118 links", "chain", 2790, 10),
    Product("CHN-6012", "Chain, 12-speed, 126 links", "chain", 4150, 6),
    Product("BRK-6102", "Disc brake pads, organic, pair", "gear", 1480, 20),
    Product("CAS-6210", "Cassette, 11–34, 11-speed", "gear", 5890, 5),
    Product("TUB-6301", "Inner tube, 28 inch, box of 10", "wheel", 3950, 6),
    Product("TYR-6315", "Tyre, 700 × 35C, puncture guard", "wheel", 3290, 8),
    Product("WHL-6330", "Rear wheel, 28 inch, disc", "wheel", 12900, 2),
    Product("OIL-6401", "Chain oil, wet, 500 ml", "bottle", 1890, 6),
    Product("OIL-6405", "Degreaser, 5 l", "bottle", 3490, 3),
    Product("GLV-6501", "Nitrile gloves, size L, 100", "glove", 1240, 8),
    Product("LGT-6602", "Light set, front and rear, USB", "light", 3990, 8),
    Product("TLS-6702", "Torque wrench, 2–20 Nm", "tool", 8900, 1),
    Product("TLS-6711", "Chain checker", "tool", 1350, 2),
    Product("CLO-6801", "Workshop cloths, 5 kg", "cloth", 2250, 3),
)

ANAS_QUESTIONS: Final = (
    Question(
        0.1,
        "delivery",
        "Can tomorrow’s delivery come before eight?",
        "We open at half past eight and the street is closed to vans after that. "
        "Could the driver come between seven and eight?",
    ),
    Question(
        1.2,
        "return",
        "Two sleeves of 12 oz cups arrived crushed",
        "The carton was wet on one side. Two of the twenty sleeves cannot be used. I kept them, "
        "in case you need to see them.",
        (
            (
                2.5,
                MAYA,
                "Sorry about that. There is no need to send them back. Shall I add two sleeves to your next "
                "order, or would you like a credit note?",
            ),
            (1.2, ME, "Two sleeves with the next order, please."),
            (
                3,
                MAYA,
                "Done. They will be in the next parcel, at no charge.\n\nI have told the carrier about the "
                "wet carton, too.",
            ),
        ),
    ),
    Question(
        3.4,
        "product",
        "Is the oat drink going to change?",
        "A customer told us that the recipe of the barista oat drink changes in spring. Is that so, and will "
        "it still be free of gluten?",
        (
            (
                20,
                TOM,
                "The maker has announced a new recipe for March. I have asked them for the new data sheet "
                "and will send it to you as soon as I have it.",
            ),
            (4, ME, "Thank you. We need it before we change our menu board, so there is no hurry."),
        ),
    ),
    Question(
        9,
        "invoice",
        "Second address on our invoices",
        "From next month on we need the address of our bookkeeper on the invoices, below our own. "
        "Where can I enter it?",
        ((5, MAYA, "I can do that for you. Which address should it be?"),),
    ),
    Question(
        24,
        "delivery",
        "Parcel is marked as delivered, but nothing is here",
        "The carrier says it was left with a neighbour, and none of them has it.",
        (
            (1, TOM, "I am asking the carrier where exactly it was left. You will hear from me today."),
            (
                4,
                TOM,
                "It is with the bakery at number 18: the driver wrote the wrong number down. Can you fetch "
                "it there?",
            ),
            (1.5, ME, "Found it, thank you!"),
        ),
        closed=True,
    ),
    Question(
        41,
        "product",
        "Which burrs fit our grinder?",
        "Ours is the one with the 64 mm flat burrs, bought in 2021. Does GRI-5502 fit?",
        (
            (
                6,
                TOM,
                "Yes, GRI-5502 is the right pair for every 64 mm flat grinder that we have sold since 2018. "
                "Change both burrs together and set the grind anew.",
            ),
            (26, ME, "They fit. Thanks."),
        ),
        closed=True,
    ),
    Question(
        67,
        "other",
        "Closed for two weeks in summer",
        "We are closed for the first two weeks of the month after next. Please don’t deliver anything "
        "in that time.",
        (
            (
                3,
                MAYA,
                "Noted: nothing will be sent in those two weeks. Your standing order goes on the Monday "
                "after.",
            ),
        ),
        closed=True,
    ),
    Question(
        96,
        "invoice",
        "Charged twice for shipping",
        "Two parcels of one order, and shipping on both. Should it not be charged once?",
        (
            (
                2,
                MAYA,
                "It should. I have refunded the second charge; it will be with you in two or three days.",
            ),
            (49, ME, "It has arrived."),
        ),
        closed=True,
    ),
    Question(
        139,
        "return",
        "Wrong size of lids",
        "We ordered lids for 8 and 12 oz, and got the ones for 4 oz. They are unopened.",
        (
            (
                4,
                TOM,
                "Our mistake. The right ones leave today. Print the label on the page of the order, and the "
                "driver takes the others with him.",
            ),
            (30, ME, "Swapped this morning, thank you."),
        ),
        closed=True,
    ),
    Question(
        188,
        "product",
        "Sample of the Guji?",
        "We would like to try the Ethiopia Guji before we take six bags. Is there a small one?",
        ((7, MAYA, "There is now: a bag of 250 g is on its way to you, with our compliments."),),
        closed=True,
    ),
    Question(
        231,
        "delivery",
        "Please leave parcels in the yard",
        "If nobody answers: the gate on the left is open from six, and the yard has a roof.",
        ((2, TOM, "Thank you, that is in the driver’s notes now."),),
        closed=True,
    ),
    Question(
        302,
        "other",
        "A second person for our account",
        "My sister orders for us as well. Can she have her own access?",
        (
            (8, MAYA, "Of course. Which email address should she have?"),
            (1, ME, "I will let her write to you herself."),
            (70, MAYA, "She did, and her access is there. I am closing this one."),
        ),
        closed=True,
    ),
)

BENS_QUESTIONS: Final = (
    Question(
        0.6,
        "return",
        "Rear wheel is out of true",
        "WHL-6330 from this week’s order wobbles by about 3 mm, and two spokes are loose. "
        "The customer is waiting for the bike.",
        (
            (
                1.5,
                TOM,
                "A new wheel leaves us this afternoon and should be with you tomorrow before noon. The "
                "driver takes the other one with him.",
            ),
        ),
    ),
    Question(
        2.3,
        "delivery",
        "When do the 12-speed chains come in?",
        "The shop says two weeks. Is that still so? I have five bikes waiting for CHN-6012.",
        (
            (18, MAYA, "Our supplier now says Thursday next week. I can put six aside for you, if you like."),
            (2, ME, "Six, please. And could they go out on the day they arrive?"),
        ),
    ),
    Question(
        5,
        "invoice",
        "Invoice without our VAT number",
        "Last month’s invoice has no VAT number of ours on it, and our accountant sends it back. "
        "Could I have it again with the number?",
    ),
    Question(
        16,
        "product",
        "Do these pads fit four-piston brakes?",
        "BRK-6102 on a four-piston caliper: the shape looks right, but the list names two-piston ones alone.",
        (
            (
                9,
                TOM,
                "They don’t: the four-piston ones are 4 mm longer. The right pads come into the range this "
                "month. I will write here when they do.",
            ),
        ),
    ),
    Question(
        33,
        "return",
        "Torque wrench sticks at 8 Nm",
        "It clicks at 8 Nm whatever I set. It is four months old, and has not been dropped.",
        (
            (
                5,
                TOM,
                "That is a fault, and it is under warranty. Please send it in with the label of the order.",
            ),
            (96, TOM, "It is here. The maker repairs it, which takes about ten days."),
            (240, ME, "It is back and works."),
        ),
        closed=True,
    ),
    Question(
        52,
        "delivery",
        "Tyres missing from the parcel",
        "Eight tyres on the delivery note, six in the parcel.",
        (
            (2, MAYA, "They were sent as a second parcel, which should reach you today."),
            (7, ME, "It just did."),
        ),
        closed=True,
    ),
    Question(
        78,
        "other",
        "Open day on Saturday",
        "We have an open day on the 14th. Do you have some catalogues that we could lay out?",
        ((22, MAYA, "A box of fifty is on its way. Have a good day!"),),
        closed=True,
    ),
    Question(
        110,
        "invoice",
        "Paying by direct debit",
        "Can we change from invoice to direct debit?",
        (
            (3, MAYA, "Yes. Please fill in the mandate that I have sent by email."),
            (51, ME, "Signed and sent."),
            (12, MAYA, "Thank you, it counts from your next order on."),
        ),
        closed=True,
    ),
    Question(
        155,
        "product",
        "Safety data sheet of the degreaser",
        "The inspector wants to see the data sheet for OIL-6405.",
        ((1, TOM, "I have sent it to you by email. It also lies in every carton, under the lid."),),
        closed=True,
    ),
    Question(
        203,
        "return",
        "Gloves in the wrong size",
        "I took M by mistake. Can I swap three boxes for L, if they are unopened?",
        ((4, MAYA, "Gladly. Hand them to the driver with your next delivery; the L ones will be in it."),),
        closed=True,
    ),
    Question(
        247,
        "delivery",
        "Collect in person?",
        "I am in your street on Friday. Can I collect the order instead of having it sent?",
        ((1, TOM, "Yes, at the goods desk, until five. Have the bar code of the order scanned there."),),
        closed=True,
    ),
    Question(
        320,
        "product",
        "Price for fifty tubes a month",
        "We use about fifty inner tubes a month. Is there a price for that?",
        (
            (26, MAYA, "From five boxes on it is 8 % less. I have put that into your account."),
            (3, ME, "That helps, thank you."),
        ),
        closed=True,
    ),
)

CUSTOMERS: Final = {
    people.ANA: Customer(
        {
            "north": "Ruiz Coffee Bar\n2 Port Road\nLetterkenny F92 K7W3",
            "south": "Ruiz Coffee Bar\n31 Oliver Street\nCork T12 R6C8",
            "west": "Ruiz Coffee Bar\n14 Quay Street\nGalway H91 E2D4",
        },
        20417,
        61,
        1.1,
        CAFE,
        ANAS_QUESTIONS,
    ),
    people.BEN: Customer(
        {
            "north": "Okafor Cycles\n8 Castle Street\nSligo F91 D5V2",
            "south": "Okafor Cycles\n3 Mill Lane\nCork T12 X7P9",
            "west": "Okafor Cycles\n20 Bridge Street\nWestport F28 A4H6",
        },
        31096,
        58,
        0.9,
        WORKSHOP,
        BENS_QUESTIONS,
    ),
}


def load_rows(connection: Connection, users: Mapping[str, str], now: datetime) -> None:
    """Give Ana and Ben their orders and tickets in the demo's workspace, inside the caller's transaction.

    `users` has user ids by email; whoever is not in it is left out. Somebody who has orders already gets no
    more of them, and likewise tickets. Times count back from `now`.
    """
    workspace_id = connection.execute(
        select(Workspace.id).where(Workspace.slug == people.WORKSPACE)
    ).scalar_one()
    for email, customer in CUSTOMERS.items():
        if email not in users:
            continue
        whose = {"workspace_id": workspace_id, "user_id": users[email]}
        if not _has_any(connection, Order, whose):
            orders = list(_orders(customer, Random(email), now))  # noqa: S311 - the same rows for everybody
            connection.execute(insert(Order), [order | whose for order, _ in orders])
            connection.execute(insert(OrderLine), [line for _, lines in orders for line in lines])
        if not _has_any(connection, Ticket, whose):
            name = connection.execute(select(User.name).where(User.id == users[email])).scalar_one()
            tickets = [_ticket(question, name, now) for question in customer.questions]
            connection.execute(insert(Ticket), [ticket | whose for ticket, _ in tickets])
            connection.execute(insert(TicketReply), [reply for _, replies in tickets for reply in replies])


def _has_any(connection: Connection, table: type[Order] | type[Ticket], whose: dict[str, str]) -> bool:
    found = select(table.id).where(
        table.user_id == whose["user_id"], table.workspace_id == whose["workspace_id"]
    )
    return connection.execute(found.limit(1)).first() is not None


def _orders(
    customer: Customer, random: Random, now: datetime
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield each order with its lines, the oldest first."""
    number = customer.first_number
    # One in each of as many stretches of the year: people order regularly, on no particular day.
    older = customer.orders - len(LATEST)
    ages = [DAYS * ((place + random.random()) / older) ** customer.busy for place in range(older)]
    ages = sorted(ages + [age * random.uniform(0.7, 1.3) for age in LATEST], reverse=True)
    for place, age in enumerate(ages):
        number += random.randint(3, 40)
        placed_at = now - timedelta(days=age)
        # One in fifteen is cancelled, but none of the newest: these show what is on its way.
        cancelled = place % 15 == 9 and age > DAYS / 12
        order_id = new_id()
        lines: list[dict[str, Any]] = [
            {
                "order_id": order_id,
                "position": position,
                "sku": product.sku,
                "name": product.name,
                "kind": product.kind,
                "quantity": random.randint(1, product.most),
                "unit_cents": product.cents,
            }
            for position, product in enumerate(random.sample(customer.products, random.randint(1, 5)), 1)
        ]
        region = REGION_BY_DIGIT[number % 10]
        goods = sum(line["quantity"] * line["unit_cents"] for line in lines)
        shipping = 0 if goods >= FREE_SHIPPING else SHIPPING
        yield (
            {
                "id": order_id,
                "number": f"BR-{number}",
                "region": region,
                "ship_to": customer.ship_to[region],
                "shipping_cents": shipping,
                "total_cents": goods + shipping,
                "placed_at": placed_at,
                **_progress(placed_at, cancelled, random, now),
            },
            lines,
        )


def _progress(placed_at: datetime, cancelled: bool, random: Random, now: datetime) -> dict[str, Any]:
    """Return how far an order has come: its status, its parcel, and when."""
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


def _ticket(question: Question, name: str, now: datetime) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the ticket that `name` opened, and its replies. None of them is later than now."""
    ticket_id = new_id()
    at = created_at = now - timedelta(days=question.days)
    replies = []
    for hours, author, message in question.answers:
        at = min(at + timedelta(hours=hours), now)
        replies.append(
            {
                "id": new_id(),
                "ticket_id": ticket_id,
                "author": name if author == ME else author,
                "from_desk": author != ME,
                "message": message,
                "created_at": at,
            }
        )
    ticket = {
        "id": ticket_id,
        "subject": question.subject,
        "topic": question.topic,
        "message": question.message,
        "created_at": created_at,
        "active_at": at,
        "closed_at": at if question.closed else None,
    }
    return ticket, replies
