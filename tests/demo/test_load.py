"""`flask --app app demo load`: its result, repeated loads, and refusal outside development."""

import json
import os
import re
import sqlite3
import stat
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import Any, Final

import pytest
import time_machine
from click.testing import Result
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from sqlalchemy import delete, select, update

from apps.orders import CANCELLED, ORDER_STATUSES, REGIONS, Order, OrderLine
from apps.support import MAX_MESSAGE_LENGTH, MAX_SUBJECT_LENGTH, TOPICS, Ticket, TicketReply
from demo import people
from demo.rows import CUSTOMERS, load_rows
from pat_service.cli import upgrade_schema
from pat_service.embed import ancestors
from pat_service.storage.database import db, transaction
from pat_service.storage.models import App, Client, Grant, Member, User, Workspace
from tests.support.people import MINT, ORDERS, Service, boot, changed, database_folder, provision

pytestmark = pytest.mark.slow

#: The column of regions, and its check, in the table's SQL.
REGION: Final = re.compile(r"^\s*(region|CONSTRAINT ck_demo_orders_region) .*,\s*$\n", re.MULTILINE)
CLIENTS: Final = ("portal", "portal-limited")

TABLES: Final = (Workspace, User, Member, App, Grant, Client, Order, OrderLine, Ticket, TicketReply)


def load(runner: FlaskCliRunner, *options: str) -> Result:
    done = runner.invoke(args=["demo", "load", *options])
    assert done.exit_code == 0, done.output
    return done


def refused(runner: FlaskCliRunner, *options: str, code: int) -> str:
    """Run a load that must be refused, and return the error's text."""
    done = runner.invoke(args=["demo", "load", *options])
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == code
    assert "Traceback" not in done.output
    return done.output


def kept(app: Flask) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(app.instance_path, "demo.json").read_text())
    return loaded


def secrets(app: Flask) -> dict[str, str]:
    return {id_: client["secret"] for id_, client in kept(app)["clients"].items()}


def mint_status(client: FlaskClient, id_: str, secret: str) -> int:
    body = {"email": people.ANA, "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 60}
    return client.post(MINT, json=body, auth=(id_, secret)).status_code


def everything(service: Service) -> dict[str, list[Any]]:
    """Return every row of the demo."""
    found = {table.__tablename__: service.rows(select(*table.__table__.columns)) for table in TABLES}
    return {name: sorted(rows, key=str) for name, rows in found.items()}


# ---- The result of a load ----


def test_a_load_writes_secrets_to_a_file_that_only_its_owner_can_read(
    app: Flask, runner: FlaskCliRunner, client: FlaskClient
) -> None:
    before = os.umask(0)
    try:
        done = load(runner)
    finally:
        os.umask(before)
    assert done.stdout.splitlines()[-1] == "The demo is loaded."
    assert kept(app)["origin"] == "http://localhost:5000"
    file = Path(app.instance_path, "demo.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["demo.json"]
    assert set(secrets(app)) == set(CLIENTS)
    with app.app_context():
        db.engine.dispose()
    stored = b"".join(file.read_bytes() for file in database_folder(app).glob("pat-service.db*"))
    assert b"Ana Ruiz" in stored
    for id_, secret in secrets(app).items():
        assert mint_status(client, id_, secret) == 201
        assert secret not in done.output
        assert secret.encode() not in stored


@pytest.mark.parametrize("already", ["a file for all to read", "a link", "a draft that is a link"])
def test_a_link_in_the_files_place_is_replaced_and_not_followed(
    app: Flask, runner: FlaskCliRunner, tmp_path: Path, already: str
) -> None:
    folder = Path(app.instance_path)
    folder.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("untouched")
    if already == "a link":
        (folder / "demo.json").symlink_to(elsewhere)
    elif already == "a draft that is a link":
        (folder / "demo.new").symlink_to(elsewhere)
    else:
        (folder / "demo.json").write_text("{}")
        (folder / "demo.json").chmod(0o666)
    load(runner)
    assert elsewhere.read_text() == "untouched"
    assert stat.S_IMODE((folder / "demo.json").lstat().st_mode) == 0o600
    assert set(secrets(app)) == set(CLIENTS)
    assert [path.name for path in folder.iterdir()] == ["demo.json"]


def test_a_folder_that_cannot_hold_the_file_is_reported_in_one_line(
    app: Flask, runner: FlaskCliRunner
) -> None:
    Path(app.instance_path, "demo.json").mkdir(parents=True)
    assert "demo.json" in refused(runner, code=1)


def test_a_missing_schema_is_created(app: Flask, runner: FlaskCliRunner, client: FlaskClient) -> None:
    (database_folder(app) / "pat-service.db").unlink()
    load(runner)
    assert mint_status(client, "portal", secrets(app)["portal"]) == 201


# ---- Repeated loads ----


def test_a_second_or_much_later_load_keeps_every_row(runner: FlaskCliRunner, loaded: Service) -> None:
    first = everything(loaded)
    assert min(len(rows) for rows in first.values()) > 0
    for days in (0, 400):
        with time_machine.travel(datetime.now(UTC) + timedelta(days=days), tick=False):
            load(runner)
            assert everything(loaded) == first


def test_a_second_load_replaces_the_secrets_and_ends_the_old_ones(
    app: Flask, runner: FlaskCliRunner, loaded: Service
) -> None:
    old = secrets(app)
    load(runner)
    new = secrets(app)
    assert len({*old.values(), *new.values()}) == 4
    for id_ in CLIENTS:
        assert mint_status(loaded.client, id_, old[id_]) == 401
        assert mint_status(loaded.client, id_, new[id_]) == 201
    assert stat.S_IMODE(Path(app.instance_path, "demo.json").stat().st_mode) == 0o600


def test_a_load_keeps_anas_tickets_and_restores_cleos_access(runner: FlaskCliRunner, loaded: Service) -> None:
    ana, cleo = (
        loaded.rows(select(User.id).where(User.email == email))[0].id for email in (people.ANA, people.CLEO)
    )
    loaded.change(update(Ticket).where(Ticket.user_id == ana).values(subject="Mine now"))
    loaded.change(delete(Grant).where(Grant.user_id == cleo))
    load(runner)
    assert set(loaded.rows(select(Ticket.subject).where(Ticket.user_id == ana))) == {("Mine now",)}
    assert len(loaded.rows(select(Grant.app_id).where(Grant.user_id == cleo))) == 2


def test_a_person_without_orders_gets_them_again(runner: FlaskCliRunner, loaded: Service) -> None:
    first = everything(loaded)
    (ben,) = loaded.rows(select(User.id).where(User.email == people.BEN))
    loaded.change(delete(Order).where(Order.user_id == ben.id))
    load(runner)
    again = everything(loaded)
    assert {row.number for row in again["demo_orders"]} == {row.number for row in first["demo_orders"]}
    assert len(again["demo_order_lines"]) == len(first["demo_order_lines"])
    assert again["demo_tickets"] == first["demo_tickets"]


def test_other_data_in_the_database_stays(app: Flask, runner: FlaskCliRunner, service: Service) -> None:
    provision(app, {"workspaces": [{"slug": "globex", "name": "Globex"}]})
    provision(app, changed("users", "mallory@globex.test"))
    provision(app, changed("apps", "ledger"))
    load(runner)
    assert ("Ledger",) in service.rows(select(App.name))
    assert len(service.rows(select(Grant.user_id))) == 6 + 1


def test_another_app_under_the_demos_slug_is_kept_and_nothing_is_loaded(
    app: Flask, runner: FlaskCliRunner, service: Service
) -> None:
    provision(app, {"workspaces": [{"slug": "acme", "name": "My own"}]})
    provision(app, changed("apps", "orders", id="77777777-2222-4333-8444-555555555555", users=[]))
    before = everything(service)
    assert "orders" in refused(runner, code=1)
    assert everything(service) == before
    assert not Path(app.instance_path).exists()


# ---- The portal's origin ----


def test_frames_open_only_in_pages_of_the_last_loads_origin(
    app: Flask, runner: FlaskCliRunner, loaded: Service
) -> None:
    body = {"email": people.ANA, "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 60}
    for origin, meant in (
        ("http://localhost:8080", "http://localhost:8080"),
        ("HTTP://LocalHost:80", "http://localhost"),
        ("https://portal.example", "https://portal.example"),
    ):
        load(runner, "--origin", origin)
        assert kept(app)["origin"] == meant
        for table in (App, Workspace):
            allowed = loaded.rows(select(table.allowed_origins))
            assert {tuple(row.allowed_origins) for row in allowed} == {(meant,)}
        ancestors._known.clear()
        minted = loaded.client.post(MINT, json=body, auth=("portal", secrets(app)["portal"]))
        answer = loaded.open(minted.json["personalAccessToken"], ORDERS)  # type: ignore[index]
        assert boot(answer)["parents"] == [meant]
        assert f"; frame-ancestors {meant};" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "",
            "localhost:5000",
            "http://localhost:5000/",
            "http://localhost:5000?x",
            "http://localhost:99999",
        ),
        *("http://me:secret@localhost", "http://localhost; script-src *", "https://*.example.com", "*"),
        *("http://localhost\nhttp://evil.example", "null", "javascript:alert(1)"),
    ],
)
def test_an_invalid_origin_is_refused_before_anything_changes(
    app: Flask, runner: FlaskCliRunner, service: Service, origin: str
) -> None:
    before = everything(service)
    assert "--origin" in refused(runner, "--origin", origin, code=2)
    assert everything(service) == before
    assert not Path(app.instance_path).exists()


# ---- The rows ----


def test_the_orders_add_up_and_show_every_status(loaded: Service) -> None:
    now = datetime.now(UTC)
    for email in (people.ANA, people.BEN):
        orders = loaded.rows(
            select(*Order.__table__.columns).join(User, User.id == Order.user_id).where(User.email == email)
        )
        assert Counter(order.status for order in orders).keys() == ORDER_STATUSES.keys()
        for order in orders:
            lines = loaded.rows(select(*OrderLine.__table__.columns).where(OrderLine.order_id == order.id))
            assert lines
            goods = sum(line.quantity * line.unit_cents for line in lines)
            assert order.total_cents == goods + order.shipping_cents
            times = [at for at in (order.placed_at, order.shipped_at, order.delivered_at, now) if at]
            assert times == sorted(times)
            expected = {"shipped": 3, "delivered": 4}.get(order.status, 2)
            assert len(times) == expected
            assert (order.tracking is not None) is (expected > 2)


def test_the_last_month_of_ana_and_ben_is_like_the_others(loaded: Service) -> None:
    now = datetime.now(UTC)
    for email in (people.ANA, people.BEN):
        spent: Counter[int] = Counter()
        for order in loaded.rows(
            select(Order.placed_at, Order.total_cents)
            .join(User, User.id == Order.user_id)
            .where(User.email == email, Order.status != CANCELLED)
        ):
            spent[(now - order.placed_at).days // 30] += order.total_cents
        year = [spent[month] for month in range(12)]
        assert year[0] == pytest.approx(mean(year), rel=0.6)
        assert 0.5 < year[0] / year[1] < 1.5


def test_the_form_would_accept_every_ticket(loaded: Service) -> None:
    now = datetime.now(UTC)
    for ticket in loaded.rows(select(*Ticket.__table__.columns)):
        assert len(ticket.subject) <= MAX_SUBJECT_LENGTH
        assert len(ticket.message) <= MAX_MESSAGE_LENGTH
        assert ticket.topic in TOPICS
        replies = loaded.rows(
            select(TicketReply.created_at)
            .where(TicketReply.ticket_id == ticket.id)
            .order_by(TicketReply.created_at)
        )
        times = [ticket.created_at, *(reply.created_at for reply in replies)]
        assert times[-1] == ticket.active_at <= now
        assert ticket.closed_at in (None, ticket.active_at)


def test_cleo_and_dan_have_no_rows_and_dan_no_grant(loaded: Service) -> None:
    owners = select(User.email).distinct()
    for table in (Order, Ticket):
        found = {email for (email,) in loaded.rows(owners.join(table, table.user_id == User.id))}
        assert found == {people.ANA, people.BEN}
    granted = {email for (email,) in loaded.rows(owners.join(Grant, Grant.user_id == User.id))}
    assert granted == {people.ANA, people.BEN, people.CLEO}


def test_every_load_creates_the_same_orders(app: Flask, service: Service) -> None:
    provision(app, people.directory("http://localhost:5000") | {"clients": []})
    users = {row.email: row.id for row in service.rows(select(User.email, User.id))}
    seen = []
    for now in (datetime(2027, 2, 28, 23, 59, tzinfo=UTC), datetime(2028, 2, 29, tzinfo=UTC)):
        with app.app_context(), transaction() as connection:
            load_rows(connection, users, now)
        numbers = select(Order.number, Order.total_cents, Order.status).order_by(Order.number)
        seen.append(service.rows(numbers))
        for table in (Order, Ticket):
            service.change(delete(table))
    assert seen[0] == seen[1]


def test_only_existing_people_get_rows(app: Flask, service: Service) -> None:
    provision(app, people.directory("http://localhost:5000") | {"clients": []})
    (ben,) = service.rows(select(User.id).where(User.email == people.BEN))
    with app.app_context(), transaction() as connection:
        load_rows(connection, {people.BEN: ben.id, "mallory@globex.test": ben.id}, datetime.now(UTC))
    for table in (Order, Ticket):
        assert set(service.rows(select(table.user_id))) == {(ben.id,)}


def test_orders_are_in_every_region_with_an_address_there(loaded: Service) -> None:
    for email, customer in CUSTOMERS.items():
        found = Counter(
            loaded.rows(
                select(Order.region, Order.ship_to)
                .join(User, User.id == Order.user_id)
                .where(User.email == email)
            )
        )
        assert {(row.region, row.ship_to) for row in found} == set(customer["ship_to"].items())
        assert customer["ship_to"].keys() == REGIONS.keys()
        assert min(found.values()) > 10


def test_older_orders_get_their_region_by_the_same_rule(app: Flask, loaded: Service) -> None:
    """A database of before the service's former migration 0004 has no regions."""
    regions = select(Order.number, Order.region).order_by(Order.number)
    before = loaded.rows(regions)
    with app.app_context():
        db.engine.dispose()
        with closing(sqlite3.connect(database_folder(app) / "pat-service.db")) as connection:
            query = "SELECT sql FROM sqlite_master WHERE name = 'demo_orders'"
            [ddl] = connection.execute(query).fetchone()
            older = REGION.sub("", ddl)
            assert "region" not in older
            names = [row[1] for row in connection.execute("PRAGMA table_info(demo_orders)")]
            kept = ", ".join(name for name in names if name != "region")
            connection.executescript(f"""
                PRAGMA legacy_alter_table = ON;
                ALTER TABLE demo_orders RENAME TO newer;
                {older};
                INSERT INTO demo_orders SELECT {kept} FROM newer;
                DROP TABLE newer;
                DELETE FROM alembic_version WHERE version_num = 'orders_0001';
            """)
        upgrade_schema()
        db.engine.dispose()
    assert loaded.rows(regions) == before


# ---- The app that runs elsewhere ----

HERE: Final = ("--upstream", people.DELIVERIES, "http://127.0.0.1:8501", "/")
THEIRS: Final = ("--upstream", people.YOUR_APP, "http://127.0.0.1:8765", "/app?x=1")


def elsewhere(service: Service) -> list[Any]:
    columns = select(App.slug, App.name, App.upstream, App.start)
    return service.rows(columns.where(App.upstream.is_not(None)))


def test_one_app_runs_elsewhere_and_the_last_address_counts(
    app: Flask, runner: FlaskCliRunner, service: Service
) -> None:
    assert elsewhere(service) == []
    for options, row in (
        (HERE, ("deliveries", "Deliveries", "http://127.0.0.1:8501", "/")),
        (THEIRS, ("your-app", "Your app", "http://127.0.0.1:8765", "/app?x=1")),
        (HERE, ("deliveries", "Deliveries", "http://127.0.0.1:8501", "/")),
    ):
        load(runner, *options)
        assert elsewhere(service) == [row]
        assert kept(app)["elsewhere"] == row[0]


def test_another_load_keeps_the_app_that_runs_elsewhere(
    app: Flask, runner: FlaskCliRunner, service: Service
) -> None:
    load(runner)
    assert kept(app)["elsewhere"] is None
    load(runner, *THEIRS)
    load(runner)
    assert kept(app)["elsewhere"] == people.YOUR_APP
    assert len(elsewhere(service)) == 1


def test_what_is_no_address_is_refused(app: Flask, runner: FlaskCliRunner) -> None:
    text = refused(runner, "--upstream", people.DELIVERIES, "ftp://127.0.0.1", "/", code=1)
    assert "upstream" in text
    assert not Path(app.instance_path).exists()
