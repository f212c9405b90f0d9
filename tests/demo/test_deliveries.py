"""The demo's app that existed before: it works alone, behind any proxy that sends an email."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from demo import deliveries
from demo.deliveries import MAX_BOOKINGS, app

ANA = {"X-Forwarded-Email": "ana@acme.test"}
BEN = {"X-Forwarded-Email": "ben@acme.test"}


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    deliveries._booked.clear()
    with app.test_client() as client:
        yield client


def booking(**changes: str) -> dict[str, str]:
    return {"goods": "12 office chairs", "day": next(iter(deliveries._days())), "window": "morning"} | changes


def test_it_knows_nothing_of_the_service() -> None:
    source = Path(deliveries.__file__).read_text("utf-8")
    assert not re.search(r"^(?:from|import) pat_service", source, re.MULTILINE)


@pytest.mark.parametrize("path", ["/", "/live", "/deliveries.csv"])
def test_without_an_email_nothing_is_shown(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"X-Forwarded-Email": "nobody"}).status_code == 401


def test_ana_books_a_delivery_that_ben_does_not_see(client: FlaskClient) -> None:
    answer = client.post("/", data=booking(), headers=ANA)
    assert (answer.status_code, answer.location) == (303, "/")
    page = client.get("/", headers=ANA).text
    assert "is booked for" in page
    assert "12 office chairs</td>" in page
    assert "ana@acme.test" in page
    assert "12 office chairs</td>" not in client.get("/", headers=BEN).text


@pytest.mark.parametrize(
    "changes", [{"goods": " "}, {"goods": "x" * 81}, {"day": "2020-01-01"}, {"window": "night"}]
)
def test_a_booking_that_the_form_does_not_offer_is_refused(
    client: FlaskClient, changes: dict[str, str]
) -> None:
    assert client.post("/", data=booking(**changes), headers=ANA).status_code == 400


def test_the_book_of_one_person_is_limited(client: FlaskClient) -> None:
    for _ in range(MAX_BOOKINGS + 1):
        client.post("/", data=booking(), headers=ANA)
    assert "Your book is full" in client.get("/", headers=ANA).text


def test_goods_are_shown_as_text(client: FlaskClient) -> None:
    client.post("/", data=booking(goods="<script>alert(1)</script>"), headers=ANA)
    assert "<script>alert" not in client.get("/", headers=ANA).text


def test_the_download_has_every_delivery(client: FlaskClient) -> None:
    client.post("/", data=booking(), headers=ANA)
    answer = client.get("/deliveries.csv", headers=ANA)
    assert answer.headers["Content-Disposition"] == "attachment; filename=deliveries.csv"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 5
    assert "12 office chairs" in {row["goods"] for row in rows}


def test_the_stream_has_the_time_and_the_position_of_the_van(client: FlaskClient) -> None:
    answer = client.get("/live", headers=ANA, buffered=False)
    event = next(iter(answer.response))
    assert isinstance(event, bytes)
    position = json.loads(event.decode().removeprefix("data: "))
    assert 0 <= position["progress"] < 1
    answer.close()
