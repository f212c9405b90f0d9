"""Orders: lists, single orders, files and figures. test_both_apps.py has the shared rules."""

import csv
import html
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final
from xml.etree import ElementTree

import pytest
import time_machine
from sqlalchemy import delete, insert, select
from werkzeug.test import TestResponse

from apps.orders import Order, OrderLine
from pat_service.storage.models import new_id
from tests.apps.conftest import ids, place, refusal
from tests.support.people import ORDERS, Frame, Service

pytestmark = pytest.mark.slow

APP: Final = "orders"

MARCH: Final = datetime(2027, 3, 15, 12, tzinfo=UTC)
STATUSES: Final = ("Processing", "On the way", "Delivered", "Cancelled")
ROW: Final = re.compile(r'<a class="row-link" href="([^"]+)">([^<]+)</a>')
BADGE: Final = re.compile(r'<span class="badge[^>]*>([^<]+)</span>')
NOBODYS: Final = "00000000-0000-4000-8000-000000000000"
#: Bytes of Ana's page, which travels uncompressed with her session. A tenth more fails.
PAGE_BYTES: Final = 14_700


@dataclass
class Shelf:
    """A person's orders, which a test can add to."""

    service: Service
    frame: Frame
    workspace_id: str
    user_id: str
    numbers: list[str] = field(default_factory=list)

    def put(self, *products: Any, days_ago: float = 1, **fields: Any) -> str:
        """Add an order and return its id. A product is a name, or (quantity, name, cents)."""
        id_ = new_id()
        usual: dict[str, Any] = {"id": id_, "workspace_id": self.workspace_id, "user_id": self.user_id}
        usual |= {"number": f"T-{len(self.numbers) + 1}", "status": "delivered", "region": "north"}
        usual |= {"ship_to": "Dora\n1 Long Street", "shipping_cents": 0, "total_cents": 1000}
        usual["placed_at"] = datetime.now(UTC) - timedelta(days=days_ago)
        self.numbers.append(fields.get("number", usual["number"]))
        self.service.change(insert(Order).values(usual | fields))
        for position, product in enumerate(products, 1):
            quantity, name, cents = product if isinstance(product, tuple) else (1, product, 1000)
            line = {"order_id": id_, "position": position, "quantity": quantity, "unit_cents": cents}
            self.service.change(insert(OrderLine).values(**line, name=name, sku=f"X-{position}", kind="cup"))
        return id_

    def clear(self) -> None:
        self.service.change(delete(Order).where(Order.user_id == self.user_id))


@pytest.fixture
def dora(service: Service, doras_frame: Frame) -> Iterator[Shelf]:
    """Dora's account, which is empty before each test."""
    shelf = Shelf(service, doras_frame, *ids(service, "dora@acme.test", "acme"))
    yield shelf
    shelf.clear()


@pytest.fixture(scope="module")
def emil(service: Service) -> Shelf:
    """Emil's account, with products that are hard to search for."""
    shelf = Shelf(service, service.frame(email="emil@acme.test"), *ids(service, "emil@acme.test", "acme"))
    shelf.put("Crème brûlée syrup", days_ago=1, number="E-1")
    shelf.put("Filter", "Juice, 100% orange", days_ago=2, number="E-2")
    shelf.put("mix_1", days_ago=3, number="E-3")
    shelf.put("mix-1 \\ and/or", days_ago=4, number="E-4")
    shelf.put("Barista's <b>choice", days_ago=5, number="E-5")
    return shelf


@pytest.fixture(scope="module")
def anas_at_globex(service: Service, ana_at_globex: Frame) -> Iterator[list[str]]:
    """Return the ids of Ana's two orders at Globex."""
    shelf = Shelf(service, ana_at_globex, *ids(service, "ana@acme.test", "globex"))
    yield [shelf.put("Ledger paper", number="GX-1"), shelf.put("Ink", number="GX-2", days_ago=2)]
    for number in shelf.numbers:
        service.change(delete(Order).where(Order.number == number))


def orders_of(service: Service, email: str, workspace: str = "acme") -> list[Any]:
    """Return the orders in the database, newest first."""
    workspace_id, user_id = ids(service, email, workspace)
    return service.rows(
        select(*Order.__table__.columns)
        .where(Order.user_id == user_id, Order.workspace_id == workspace_id)
        .order_by(Order.placed_at.desc(), Order.id)
    )


def numbers(answer: TestResponse) -> list[str]:
    """Return the order numbers of a list."""
    assert answer.status_code == 200, answer.text
    return [html.unescape(number) for _, number in ROW.findall(answer.text)]


def listed(service: Service, frame: Frame, **query: Any) -> list[str]:
    return numbers(service.get(frame, "pages/list", query_string=query))


def table(answer: TestResponse) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.data.decode("utf-8-sig"), newline="")))


def words(answer: TestResponse) -> str:
    """Return the text of a page without its tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


# ---- Orders of other viewers ----


@pytest.mark.usefixtures("anas_at_globex")
def test_anas_two_workspaces_have_separate_lists_files_and_figures(
    service: Service, ana: Frame, ana_at_globex: Frame
) -> None:
    assert listed(service, ana_at_globex) == ["GX-1", "GX-2"]
    assert [row["Order"] for row in table(service.get(ana_at_globex, "data/orders.csv"))] == ["GX-1", "GX-2"]
    assert "€20.00 2 orders" in words(service.get(ana_at_globex, "pages/index"))
    assert listed(service, ana, q="GX-") == []
    assert not [row for row in table(service.get(ana, "data/orders.csv")) if row["Order"].startswith("GX")]


def test_anas_page_with_all_its_figures_stays_light(service: Service, ana: Frame) -> None:
    size = len(service.get(ana, "pages/index").data)
    assert PAGE_BYTES * 0.9 < size < PAGE_BYTES * 1.1, f"The page has {size} bytes"


def test_file_and_first_page_have_only_the_viewers_own_orders(
    service: Service, ana: Frame, ben: Frame
) -> None:
    for email, frame in (("ana@acme.test", ana), ("ben@acme.test", ben)):
        own = [order.number for order in orders_of(service, email)]
        assert [row["Order"] for row in table(service.get(frame, "data/orders.csv"))] == own
        assert numbers(frame.response) == own[:10]


def test_a_search_does_not_reach_into_the_orders_of_others(service: Service, ana: Frame, ben: Frame) -> None:
    number = orders_of(service, "ben@acme.test")[0].number
    assert listed(service, ben, q=number) == [number]
    assert listed(service, ana, q=number) == []
    assert listed(service, ben, q="Rear wheel")
    assert listed(service, ana, q="Rear wheel") == []


# ---- The viewer's regions ----


REGIONS: Final = ["north", "south", "west"]


def held(service: Service, *regions: str, email: str = "ana@acme.test") -> list[Any]:
    """Return the orders of these regions from the database."""
    return [order for order in orders_of(service, email) if order.region in regions]


@pytest.mark.parametrize(
    ("attribute", "regions", "said"),
    [
        ("north", ["north"], "Region: North"),
        ("west", ["west"], "Region: West"),
        (["south"], ["south"], "Region: South"),
        (["west", "north", "west"], ["north", "west"], "Regions: North, West"),
        (REGIONS, REGIONS, "Regions: North, South, West"),
    ],
)
def test_ana_sees_only_the_orders_of_her_regions(
    service: Service, ana: Frame, attribute: Any, regions: list[str], said: str
) -> None:
    frame = service.frame(attributes={"region": attribute})
    expected = [order.number for order in held(service, *regions)]
    assert expected
    pages = [listed(service, frame, page=page) for page in range(1, -(-len(expected) // 10) + 1)]
    assert [number for page in pages for number in page] == expected
    file = table(service.get(frame, "data/orders.csv"))
    assert [row["Order"] for row in file] == expected
    assert {row["Region"].lower() for row in file} == set(regions)
    whole = service.get(frame, "pages/index")
    assert said in words(whole)
    assert said in words(frame.response)
    assert f"All {len(expected)} Processing" in words(whole)
    assert sum(int(number) for number in re.findall(r'"count">(\d+)</span>', whole.text)) == 2 * len(expected)


def test_figures_and_chart_count_only_orders_of_the_region(dora: Shelf) -> None:
    dora.put(total_cents=20_00, status="shipped", region="north")
    dora.put(total_cents=30_00, status="shipped", region="south", days_ago=2)
    dora.put(total_cents=40_00, status="processing", region="south", days_ago=40)
    for region, said in (
        ("north", "€20.00 1 order Last 30 days €20.00 Nothing before Average order €20.00"),
        ("south", "€70.00 2 orders Last 30 days €30.00 Down 25 % on the 30 days before Average order €35.00"),
    ):
        frame = dora.service.frame(email="dora@acme.test", attributes={"region": region})
        text = words(frame.response)
        assert f"Last 12 months {said}" in text
        assert f"Not yet delivered {said.split()[1]} " in text
        assert sum(count for count, _ in monthly(frame.response.text).values()) == int(said.split()[1])


@pytest.mark.parametrize("path", ["pages/order", "data/label.svg"])
def test_an_order_of_another_region_is_not_found(service: Service, path: str) -> None:
    frame = service.frame(attributes={"region": ["north", "west"]})
    (south, *_), (north, *_) = held(service, "south"), held(service, "north")
    theirs, nobodys = (
        refusal(service, frame, "GET", f"{path}?id={id_}", 404, "not_found") for id_ in (south.id, NOBODYS)
    )
    assert theirs | {"requestId": ""} == nobodys | {"requestId": ""}
    assert service.get(frame, path, query_string={"id": north.id}).status_code == 200


def test_a_search_and_a_filter_stay_within_the_region(service: Service, ana: Frame) -> None:
    south = held(service, "south")[0].number
    frame = service.frame(attributes={"region": "north"})
    assert listed(service, frame, q=south) == []
    assert listed(service, ana, q=south) == [south]
    delivered = [order.number for order in held(service, "north") if order.status == "delivered"]
    assert listed(service, frame, status="delivered") == delivered[:10]


@pytest.mark.parametrize(
    "attribute",
    [
        *("", "North", " north", "east", "*", "%", "north,south", 1, 0, True, False, 1.5, []),
        *(["north", "east"], ["north", 1], [True], ["", "north"]),
    ],
    ids=repr,
)
def test_an_invalid_region_shows_nothing(service: Service, attribute: Any) -> None:
    frame = service.frame(attributes={"region": attribute})
    assert "No region to show" in words(frame.response)
    assert listed(service, frame) == []
    assert table(service.get(frame, "data/orders.csv")) == []
    for path in ("pages/order", "data/label.svg"):
        refusal(
            service, frame, "GET", f"{path}?id={orders_of(service, 'ana@acme.test')[0].id}", 404, "not_found"
        )


def test_other_attributes_set_no_region(service: Service) -> None:
    frame = service.frame(attributes={"regions": "north", "Region": "north", "seats": 4})
    assert len(listed(service, frame)) == 10
    assert place(service.get(frame, "pages/list")) == "1–10 of 61"
    assert "Region:" not in words(frame.response)


def test_a_region_without_orders_differs_from_an_empty_account(dora: Shelf) -> None:
    dora.put("Cup", region="south")
    frame = dora.service.frame(email="dora@acme.test", attributes={"region": ["north", "west"]})
    assert "No orders for North or West" in words(frame.response)
    assert "Regions: North, West" in words(frame.response)


def test_a_region_does_not_show_other_users_orders(service: Service, ana: Frame) -> None:
    frame = service.frame(email="ben@acme.test", attributes={"region": REGIONS, "email": "ana@acme.test"})
    assert listed(service, frame) == [order.number for order in orders_of(service, "ben@acme.test")[:10]]


def test_the_list_names_the_region_if_there_are_several(service: Service, ana: Frame) -> None:
    column = '<th scope="col" class="wide">Region</th>'
    assert column in service.get(ana, "pages/list").text
    assert column in service.get(service.frame(attributes={"region": ["north", "west"]}), "pages/list").text
    assert column not in service.get(service.frame(attributes={"region": "north"}), "pages/list").text


# ---- The list: paging ----


@pytest.mark.parametrize(
    ("count", "pages"), [(1, ["1 of 1"]), (10, ["1–10 of 10"]), (11, ["1–10 of 11", "11 of 11"])]
)
def test_a_page_is_full_before_another_begins(dora: Shelf, count: int, pages: list[str]) -> None:
    for _ in range(count):
        dora.put("Cup")
    answers = [
        dora.service.get(dora.frame, "pages/list", query_string={"page": page + 1})
        for page in range(len(pages))
    ]
    assert [place(answer) for answer in answers] == pages
    assert all(("pager" in answer.text) == (len(pages) > 1) for answer in answers)
    assert sorted(number for answer in answers for number in numbers(answer)) == sorted(dora.numbers)


def test_orders_with_the_same_time_each_appear_on_one_page_only(dora: Shelf) -> None:
    at = datetime.now(UTC) - timedelta(days=1)
    for _ in range(25):
        dora.put("Cup", placed_at=at)
    seen = [number for page in (1, 2, 3) for number in listed(dora.service, dora.frame, page=page)]
    assert sorted(seen) == sorted(dora.numbers)


# ---- The list: filter and search ----


@pytest.mark.parametrize("status", ["processing", "shipped", "delivered", "cancelled"])
def test_the_filter_shows_one_status_and_counts_it(service: Service, ana: Frame, status: str) -> None:
    expected = [order.number for order in orders_of(service, "ana@acme.test") if order.status == status]
    assert expected
    answer = service.get(ana, "pages/list", query_string={"status": status})
    assert numbers(answer) == expected[:10]
    assert len(set(BADGE.findall(answer.text))) == 1
    assert place(answer).endswith(f" of {len(expected)}")
    whole = service.get(ana, "pages/index", query_string={"status": status})
    assert f'value="{status}" checked><span>' in whole.text
    assert re.search(rf'value="{status}" checked>.*?<span class="count">{len(expected)}</span>', whole.text)
    assert [row["Order"] for row in table(service.get(ana, f"data/orders.csv?status={status}"))] == expected


@pytest.mark.parametrize("status", ["lost", "Delivered", "delivered ", "' OR 1=1 --", "delivered,shipped"])
def test_an_unknown_status_filters_nothing(service: Service, ana: Frame, status: str) -> None:
    answer = service.get(ana, "pages/index", query_string={"status": status})
    assert place(answer) == "1–10 of 61"
    assert 'value="" checked><span>All' in answer.text


@pytest.mark.parametrize(
    ("search", "found"),
    [
        *(("E-1", ["E-1"]), ("e-1", ["E-1"]), ("  e-1\t", ["E-1"]), ("CRÈME", ["E-1"])),
        *(("crème   BRÛLÉE", ["E-1"]), ("x-2", ["E-2"]), ("%", ["E-2"]), ("100%", ["E-2"]), ("%%", [])),
        *(("1%0", []), ("_", ["E-3"]), ("mix_1", ["E-3"]), ("E_1", []), ("\\", ["E-4"]), ("\\%", [])),
        *(("/", ["E-4"]), ("/%", []), ("'", ["E-5"]), ("' OR 1=1 --", []), ("<b>", ["E-5"])),
        *(("a" * 5000, []), ("", ["E-1", "E-2", "E-3", "E-4", "E-5"])),
        (" \t\n", ["E-1", "E-2", "E-3", "E-4", "E-5"]),
        ("\u200b\ufeff", ["E-1", "E-2", "E-3", "E-4", "E-5"]),
    ],
)
def test_a_search_has_no_wildcards(emil: Shelf, search: str, found: list[str]) -> None:
    assert listed(emil.service, emil.frame, q=search) == found
    rows = table(emil.service.get(emil.frame, "data/orders.csv", query_string={"q": search}))
    assert [row["Order"] for row in rows] == found


def test_an_order_with_several_matching_lines_is_found_once(dora: Shelf) -> None:
    dora.put("Cup, small", "Cup, large", "Cup, paper", number="CUP-1")
    assert listed(dora.service, dora.frame, q="cup") == ["CUP-1"]
    assert place(dora.service.get(dora.frame, "pages/list?q=cup")) == "1 of 1"


def test_filter_and_search_combine(dora: Shelf) -> None:
    dora.put("Tea", days_ago=1)
    dora.put("Tea", days_ago=2, status="cancelled")
    dora.put("Milk", days_ago=3, status="cancelled")
    assert listed(dora.service, dora.frame, q="tea", status="cancelled") == ["T-2"]


def test_the_search_text_is_escaped(service: Service, ana: Frame) -> None:
    hostile = '</script><img src=x onerror="alert(1)">{{ 7 * 7 }}'
    for page in ("list", "index"):
        answer = service.get(ana, f"pages/{page}", query_string={"q": hostile})
        assert answer.status_code == 200
        assert "<img src=x" not in answer.text
        assert "Nothing is called “<bdi>&lt;/script&gt;&lt;img src=x" in answer.text
        assert "{{ 7 * 7 }}" in answer.text


@pytest.mark.parametrize("query", ["q=%ff%fe", "q=%ed%a0%80", "q=%e2%80%ae", "q=a&q=b", "q[]=a", "Q=%25"])
def test_an_odd_query_causes_no_error(service: Service, ana: Frame, query: str) -> None:
    for path in ("pages/list", "data/orders.csv"):
        assert service.get(ana, f"{path}?{query}").status_code == 200


def test_the_link_back_from_an_order_keeps_page_and_filter(service: Service, ana: Frame) -> None:
    query = {"status": "delivered", "q": "cups & more? 8 oz"[:4], "page": 2}
    answer = service.get(ana, "pages/list", query_string=query)
    href, number = ROW.findall(answer.text)[0]
    order = service.client.get(html.unescape(href), headers=ana.bearer)
    assert f"<h1>Order {number}</h1>" in order.text
    (back,) = re.findall(r'<a class="back" href="([^"]+)">', order.text)
    returned = service.client.get(html.unescape(back), headers=ana.bearer)
    assert numbers(returned) == numbers(answer)
    assert place(returned) == place(answer)
    assert place(answer).startswith("11–")
    assert 'value="delivered" checked' in returned.text
    assert 'name="q" value="cups"' in returned.text


# ---- One order ----


def test_an_order_shows_its_products_and_costs(dora: Shelf) -> None:
    id_ = dora.put(
        (3, "Paper cups", 645),
        (12, "Grinder", 123_456),
        number="BR-77",
        status="shipped",
        shipping_cents=690,
        total_cents=3 * 645 + 12 * 123_456 + 690,
        tracking="BXP 1234 5678 IE",
        placed_at=datetime(2026, 11, 1, 23, 59, tzinfo=UTC),
        shipped_at=datetime(2026, 11, 3, tzinfo=UTC),
    )
    text = words(dora.service.get(dora.frame, "pages/order", query_string={"id": id_}))
    for expected in (
        *("Order BR-77", "On the way", "Placed 1 Nov 2026 Sent 3 Nov 2026 Delivered Not yet"),
        *("Paper cups X-1 3 × €6.45 3 €6.45 €19.35", "Grinder X-2 12 × €1,234.56 12 €1,234.56 €14,814.72"),
        *("Goods €14,834.07 Shipping €6.90 Total €14,840.97", "Dora 1 Long Street Region North"),
        "BXP 1234 5678 IE",
    ):
        assert expected in text


def test_a_cancelled_order_has_no_delivery_and_no_label(dora: Shelf) -> None:
    id_ = dora.put("Cup", status="cancelled")
    answer = dora.service.get(dora.frame, "pages/order", query_string={"id": id_})
    assert "This order was cancelled. Nothing was charged." in words(answer)
    assert "Shipping Free" in words(answer)
    assert "label.svg" not in answer.text


def test_an_order_without_lines_is_also_shown(dora: Shelf) -> None:
    id_ = dora.put()
    assert listed(dora.service, dora.frame) == ["T-1"]
    assert dora.service.get(dora.frame, f"pages/order?id={id_}").status_code == 200
    assert table(dora.service.get(dora.frame, "data/orders.csv"))[0]["Items"] == ""


# Code 39: two of a character's five bars are wide and choose one of ten. One of its four spaces is wide and
# chooses the set of ten.
BARS: Final = ("10001", "01001", "11000", "00101", "10100", "01100", "00011", "10010", "01010", "00110")
SPACES: Final = {"0100": "1234567890", "0010": "ABCDEFGHIJ", "0001": "KLMNOPQRST", "1000": "UVWXYZ-. *"}


def read_bars(picture: bytes) -> str:
    """Read a Code 39 label as a scanner does: from the widths of its bars and spaces."""
    group = ElementTree.fromstring(picture).find("{http://www.w3.org/2000/svg}g")
    assert group is not None
    drawn = [(int(bar.attrib["x"]), int(bar.attrib["width"])) for bar in group]
    spaces = [following - (x + width) for (x, width), (following, _) in pairwise(drawn)]
    text = ""
    for start in range(0, len(drawn), 5):
        wide_bars = "".join("1" if width > 1 else "0" for _, width in drawn[start : start + 5])
        wide_spaces = "".join("1" if width > 1 else "0" for width in spaces[start : start + 4])
        text += SPACES[wide_spaces][BARS.index(wide_bars)]
    return text


def test_a_scanner_reads_the_orders_number_from_its_label(service: Service, ana: Frame) -> None:
    order = orders_of(service, "ana@acme.test")[0]
    answer = service.get(ana, "data/label.svg", query_string={"id": order.id})
    assert answer.status_code == 200
    assert answer.content_type == "image/svg+xml; charset=utf-8"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{order.number}.svg"'
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert read_bars(answer.data) == f"*{order.number}*"


def test_a_label_can_have_every_character_that_numbers_have(dora: Shelf) -> None:
    for number in ("0123456789-ABCDEF", "GHIJKLMNOPQ-RSTUVWXYZ"[:20]):
        id_ = dora.put("Cup", number=number)
        answer = dora.service.get(dora.frame, "data/label.svg", query_string={"id": id_})
        assert read_bars(answer.data) == f"*{number}*"


# ---- The file ----


def test_the_file_describes_each_order(dora: Shelf) -> None:
    dora.put(
        (2, "Cups, 8 oz", 100),
        (1, 'Sign "Open"\nsecond line', 50),
        number="BR-9",
        status="shipped",
        region="south",
        shipping_cents=690,
        total_cents=123_456_789,
        placed_at=datetime(2026, 2, 3, 23, 59, 59, tzinfo=UTC),
    )
    answer = dora.service.get(dora.frame, "data/orders.csv")
    assert answer.data.startswith(b"\xef\xbb\xbfOrder,")
    assert answer.content_type == "text/csv; charset=utf-8"
    assert table(answer) == [
        {
            "Order": "BR-9",
            "Placed": "2026-02-03",
            "Status": "On the way",
            "Region": "South",
            "Items": '2 × Cups, 8 oz; 1 × Sign "Open"\nsecond line',
            "Shipping (EUR)": "6.90",
            "Total (EUR)": "1234567.89",
        }
    ]


@time_machine.travel(MARCH, tick=False)
def test_the_file_is_named_after_the_day(service: Service) -> None:
    answer = service.get(service.frame(), "data/orders.csv")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="orders-2027-03-15.csv"'


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", "\t=", "\r=", "\n=", " =", "  @", "＝", "＋", "－", "＠"]
)
def test_a_spreadsheet_reads_no_cell_as_a_formula(dora: Shelf, start: str) -> None:
    hostile = f"{start}HYPERLINK(1)"
    dora.put((1, hostile, 100), (-1, hostile, 100), number=hostile)
    dora.put((-1, hostile, 100), days_ago=2)
    first, second = table(dora.service.get(dora.frame, "data/orders.csv"))
    assert first["Order"] == f"'{hostile}"
    assert first["Items"] == f"1 × {hostile}; -1 × {hostile}"
    assert second["Items"] == f"'-1 × {hostile}"


def test_the_download_keeps_the_filter_but_not_the_page(service: Service, ana: Frame) -> None:
    text = service.get(ana, "pages/list", query_string={"q": "cup", "status": "delivered", "page": 2}).text
    address = f"/embed-apps/{ORDERS}/data/orders.csv?status=delivered&amp;q=cup"
    assert f'embed-download="{address}">Download these as CSV' in text
    all_of_them = f'embed-download="/embed-apps/{ORDERS}/data/orders.csv">Download all as CSV'
    assert all_of_them in service.get(ana, "pages/list?page=3").text


# ---- The figures and the chart ----


def test_the_chart_has_a_description(service: Service, ana: Frame) -> None:
    text = service.get(ana, "pages/index").text
    (chart,) = re.findall(r'<svg class="chart" role="img"[^>]*>', text)
    for attribute, tag in (("labelledby", "title"), ("describedby", "desc")):
        (id_,) = re.findall(rf'aria-{attribute}="([^"]+)"', chart)
        (said,) = re.findall(rf'<{tag} id="{id_}">([^<]+)</{tag}>', text)
        assert len(said) > 20
    assert re.search(
        r"<desc[^>]*>Highest in \w+ \d{4} with €[\d,.]+\. €[\d,.]+ in all\. The table below", text
    )
    months = monthly(text)
    assert len(months) == 12
    assert sum(count for count, _ in months.values()) > 40


def monthly(text: str) -> dict[str, tuple[int, str]]:
    """Return the chart's table: month → orders, spend."""
    rows = re.findall(r'<th scope="row">(\w+ \d{4})</th><td>(\d+)</td><td>(€[\d,.]+)</td>', text)
    return {month: (int(count), amount) for month, count, amount in rows}


def bars_of(text: str) -> dict[str, int]:
    """Return the height of each month's bar, in pixels. A month without orders has none."""
    months = re.findall(r'<svg class="month".*?<title>(\w+ \d{4})(.*?)class="name"', text, re.DOTALL)
    places = {month: re.search(r'height="(\d+)"><rect class="bar" y="(\d+)"', its) for month, its in months}
    return {month: int(its[1]) - int(its[2]) if its else 0 for month, its in places.items()}


@time_machine.travel(MARCH, tick=False)
def test_the_chart_has_exactly_the_last_twelve_months(dora: Shelf) -> None:
    second = timedelta(seconds=1)
    april, march = datetime(2026, 4, 1, tzinfo=UTC), datetime(2027, 3, 1, tzinfo=UTC)
    dora.put(placed_at=april - second, total_cents=1_00)
    dora.put(placed_at=april, total_cents=20_00)
    dora.put(placed_at=march - second, total_cents=30_00)
    dora.put(placed_at=march, total_cents=40_00)
    dora.put(placed_at=MARCH, total_cents=2_50)
    dora.put(placed_at=MARCH, total_cents=500_00, status="cancelled")
    dora.put(placed_at=MARCH + second, total_cents=600_00)
    frame = dora.service.frame(email="dora@acme.test")
    answer = dora.service.get(frame, "pages/index")
    months = monthly(answer.text)
    assert list(months) == [
        *("March 2027", "February 2027", "January 2027", "December 2026", "November 2026", "October 2026"),
        *("September 2026", "August 2026", "July 2026", "June 2026", "May 2026", "April 2026"),
    ]
    assert {month: found for month, found in months.items() if found[0]} == {
        "April 2026": (1, "€20.00"),
        "February 2027": (1, "€30.00"),
        "March 2027": (2, "€42.50"),
    }
    assert "Last 12 months €92.50 4 orders" in words(answer)
    assert "Average order €23.12" in words(answer)
    assert "Spend per month, April 2026 to March 2027" in answer.text
    assert "Highest in March 2027 with €42.50. €92.50 in all." in answer.text
    bars = bars_of(answer.text)
    assert list(bars) == list(months)[::-1]
    assert bars["March 2027"] > bars["February 2027"] > bars["April 2026"] > 0
    assert {height for month, height in bars.items() if not months[month][0]} == {0}


@pytest.mark.parametrize(
    ("orders", "said"),
    [
        ([(29.9, 300_00), (30, 200_00)], "Last 30 days €300.00 Up 50 % on the 30 days before"),
        ([(1, 100_00), (59.9, 200_00), (60, 900_00)], "Last 30 days €100.00 Down 50 % on the 30 days before"),
        ([(1, 100_00), (31, 100_00)], "Last 30 days €100.00 As much as before"),
        ([(1, 100_00)], "Last 30 days €100.00 Nothing before"),
        ([(31, 100_00)], "Last 30 days €0.00 Down 100 % on the 30 days before"),
    ],
)
@time_machine.travel(MARCH, tick=False)
def test_the_last_thirty_days_are_compared_with_the_thirty_before(
    dora: Shelf, orders: list[tuple[float, int]], said: str
) -> None:
    for days_ago, cents in orders:
        dora.put(days_ago=days_ago, total_cents=cents)
    frame = dora.service.frame(email="dora@acme.test")
    assert said in words(dora.service.get(frame, "pages/index"))


@pytest.mark.parametrize("highest", [1, 99, 100, 399, 400, 401, 999, 2_000, 12_345, 99_999, 2_000_000_000])
@time_machine.travel(MARCH, tick=False)
def test_the_charts_lines_are_few_and_reach_the_highest_bar(dora: Shelf, highest: int) -> None:
    dora.put(total_cents=highest)
    text = dora.service.get(dora.service.frame(email="dora@acme.test"), "pages/index").text
    ticks = [int(tick.replace(",", "")) for tick in re.findall(r'class="tick"[^>]*>€([\d,]+)<', text)]
    steps = {later - earlier for earlier, later in pairwise(ticks)}
    assert ticks[0] == 0
    assert len(steps) == 1
    assert ticks[-2] * 100 < highest <= ticks[-1] * 100
    assert 2 <= len(ticks) <= 5


def test_the_chart_works_for_an_account_with_no_spending_in_a_year(dora: Shelf) -> None:
    dora.put("Cup", status="cancelled")
    dora.put("Cup", days_ago=800)
    answer = dora.service.get(dora.frame, "pages/index")
    assert place(answer) == "1–2 of 2"
    assert "Last 12 months €0.00 0 orders" in words(answer)
    assert "Average order –" in words(answer)
    assert set(bars_of(answer.text).values()) == {0}


# ---- Empty accounts and lists ----


def test_cleo_sees_that_she_has_no_orders(service: Service, cleo: Frame) -> None:
    for answer in (cleo.response, service.get(cleo, "pages/index")):
        assert "<h2>No orders yet</h2>" in answer.text
        assert not [
            tag for tag in ("<table", 'class="chart"', "<form", "embed-download") if tag in answer.text
        ]


def test_cleos_list_and_file_are_empty(service: Service, cleo: Frame) -> None:
    answer = service.get(cleo, "pages/list")
    assert numbers(answer) == []
    assert "You have no orders in this status." in answer.text
    assert service.get(cleo, "data/orders.csv").data.decode("utf-8-sig").splitlines() == [
        "Order,Placed,Status,Region,Items,Shipping (EUR),Total (EUR)"
    ]


def test_a_filter_without_matches_links_to_all_orders(dora: Shelf) -> None:
    dora.put("Cup")
    answer = dora.service.get(dora.frame, "pages/list", query_string={"status": "shipped"})
    assert "You have no orders in this status." in answer.text
    assert f'href="/embed-apps/{ORDERS}/pages/index">Show all orders</a>' in answer.text
    assert '<span id="orders-said" hx-swap-oob="innerHTML">No orders fit</span>' in answer.text
