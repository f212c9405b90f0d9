"""The branches of the service's and the apps' migrations, and databases whose app is gone or new."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from flask import Flask
from sqlalchemy import Column, Integer, Table, inspect, text

from pat_service.app_folders import INCLUDED
from pat_service.cli import upgrade_schema
from pat_service.storage import revisions
from pat_service.storage.database import Model, db
from pat_service.storage.revisions import Branch, UnusableMigrations, label_of, list_gone, read_branches

OURS = Branch(None, {"0001": frozenset(), "0002": frozenset({"0001"})})
DESK = Branch("desk", {"desk_0001": frozenset(), "desk_0002": frozenset({"desk_0001"})})
NEW = """
    revision = "{revision}"
    down_revision = {after}
    branch_labels = None
    depends_on = {depends_on}


    def upgrade():
        {step}
"""


@pytest.mark.parametrize(
    ("applied", "behind"),
    [
        (set(), [True, True]),
        ({"0002"}, [False, True]),
        ({"desk_0002"}, [True, False]),
        ({"0002", "desk_0001"}, [False, True]),
        ({"0001", "desk_0002"}, [True, False]),
        ({"0002", "desk_0002"}, [False, False]),
        # Revisions of newer code: ours, the app's, and those of a removed app.
        ({"0003", "desk_0003"}, [False, False]),
        ({"0002", "desk_0002", "gone_0001"}, [False, False]),
        ({"0002", "gone_0001"}, [False, True]),
        ({"gone_0001"}, [True, True]),
    ],
)
def test_a_missing_migration_is_seen_in_each_branch(applied: set[str], behind: list[bool]) -> None:
    assert [branch.is_behind(applied) for branch in (OURS, DESK)] == behind


@pytest.mark.parametrize(
    ("applied", "gone"),
    [
        ({"0002", "desk_0002"}, []),
        ({"0003", "desk_0003"}, []),
        ({"0002", "gone_0007", "a1b2c3"}, ["a1b2c3", "gone_0007"]),
        # A fork's own migration may follow ours.
        ({"a1b2c3", "gone_0007"}, ["gone_0007"]),
    ],
)
def test_a_revision_of_a_missing_app_is_gone(applied: set[str], gone: list[str]) -> None:
    assert list_gone(applied, [OURS, DESK]) == gone


def test_a_label_fits_into_alembics_table() -> None:
    assert label_of(Path("/srv/apps/order-desk")) == "order_desk"
    assert len(f"{label_of(Path('x' * 64))}_0001") == 32


def add(
    folder: Path, revision: str, after: str = "None", depends_on: str = "None", step: str = "pass"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{revision}.py"
    file.write_text(dedent(NEW.format(revision=revision, after=after, depends_on=depends_on, step=step)))
    revisions._read.cache_clear()
    return file


@pytest.mark.parametrize(
    ("of_app", "reason"),
    [
        ({"revision": "0001"}, "two migrations are named 0001: "),
        ({"revision": "x", "after": "'0013'"}, "must follow a migration of its own app"),
        ({"revision": "x", "depends_on": "'0013'"}, "must have depends_on = None"),
    ],
)
def test_a_migration_that_would_mix_branches_is_refused(
    tmp_path: Path, of_app: dict[str, str], reason: str
) -> None:
    file = add(tmp_path, **of_app)
    with pytest.raises(UnusableMigrations, match=reason) as refused:
        revisions.check({"desk": tmp_path})
    assert str(file) in str(refused.value)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with one app, whose module needs nothing."""
    (tmp_path / "apps" / "plain-desk").mkdir(parents=True)
    module = "from pat_service.embed import EmbeddedApp\n\napp = EmbeddedApp()\n"
    (tmp_path / "apps" / "plain-desk" / "__init__.py").write_text(module)
    return tmp_path / "apps"


def applied() -> list[str]:
    with db.engine.connect() as connection:
        return sorted(connection.scalars(text("SELECT version_num FROM alembic_version")))


def test_an_app_that_is_gone_stops_nothing(make_app: Callable[..., Flask], place: Path) -> None:
    folder = place / "plain-desk" / "migrations"
    step = "from alembic import op; op.execute('CREATE TABLE plain_desk (id INTEGER)')"
    add(folder, "plain_desk_0001", step=step)
    runner = make_app(APPS_PATH=str(place)).test_cli_runner()
    assert "the schema is behind" in runner.invoke(args=["check"]).stderr
    assert runner.invoke(args=["db", "upgrade"]).exit_code == 0
    assert runner.invoke(args=["check"]).exit_code == 0
    without = make_app()
    for _ in range(2):
        checked = without.test_cli_runner().invoke(args=["check"])
        assert checked.exit_code == 0, checked.output
        assert "Migration plain_desk_0001 belongs to no app of this installation" in checked.stdout
        with without.app_context():
            upgrade_schema()
            assert "plain_desk_0001" in applied()
            assert "plain_desk" in inspect(db.engine).get_table_names()


def test_a_failing_migration_of_an_app_changes_nothing(make_app: Callable[..., Flask], place: Path) -> None:
    folder = place / "plain-desk" / "migrations"
    add(
        folder, "plain_desk_0001", step="from alembic import op; op.execute('CREATE TABLE half (id INTEGER)')"
    )
    add(folder, "plain_desk_0002", after="'plain_desk_0001'", step="raise RuntimeError('no')")
    app = make_app(APPS_PATH=str(place))
    done = app.test_cli_runner().invoke(args=["db", "upgrade"])
    assert done.exit_code == 1
    with app.app_context():
        assert "half" not in inspect(db.engine).get_table_names()
        assert "plain_desk_0001" not in applied()


def test_a_downgrade_without_a_revision_leaves_apps_alone(make_app: Callable[..., Flask]) -> None:
    app = make_app()
    ours = read_branches({})[0].predecessors
    [newest] = read_branches({})[0].heads
    [before] = ours[newest]
    for expected in (before, *ours[before]):
        done = app.test_cli_runner().invoke(args=["db", "downgrade"])
        assert done.exit_code == 0, done.output
        with app.app_context():
            assert applied() == sorted([expected, "orders_0001", "support_0001"])


def test_a_migration_that_is_not_python_is_named(make_app: Callable[..., Flask], place: Path) -> None:
    file = add(place / "plain-desk" / "migrations", "plain_desk_0001", step="(")
    done = make_app(APPS_PATH=str(place)).test_cli_runner().invoke(args=["db", "upgrade"])
    assert done.exit_code == 1
    assert file.name in done.output + str(done.exception)


def test_a_database_without_the_demo_has_none_of_its_tables(make_app: Callable[..., Flask]) -> None:
    labels = {branch.label for branch in read_branches({})}
    assert labels == {None}
    ours = read_branches({})[0].predecessors
    sources = [file.read_text() for file in revisions.VERSIONS.glob("*.py")]
    assert len(sources) == len(ours)
    assert not any("demo_" in source for source in sources)


def test_a_database_of_before_the_branches_keeps_its_rows(make_app: Callable[..., Flask]) -> None:
    app = make_app()
    with app.app_context():
        with db.engine.execution_options(writes=True).begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO workspaces (id, slug, name, allowed_origins, created_at) "
                    "VALUES ('w', 'w', 'W', '[]', '2026-01-01')"
                )
            )
            connection.execute(
                text(
                    "INSERT INTO users (id, email, name, status, created_at) "
                    "VALUES ('u', 'u@acme.test', 'U', 'active', '2026-01-01')"
                )
            )
            connection.execute(
                text(
                    "INSERT INTO demo_orders (id, workspace_id, user_id, number, status, ship_to, region, "
                    "shipping_cents, total_cents, placed_at) "
                    "VALUES ('o', 'w', 'u', '7', 'shipped', 'x', 'west', 0, 1, '2026-01-01')"
                )
            )
            connection.execute(text("DELETE FROM alembic_version WHERE version_num LIKE '%\\_%' ESCAPE '\\'"))
        assert len(applied()) == 1
        upgrade_schema()
        assert {"orders_0001", "support_0001"} < set(applied())
        with db.engine.connect() as connection:
            assert connection.scalar(text("SELECT region FROM demo_orders")) == "west"


def test_an_own_app_in_place_of_orders_gets_its_tables_in_an_old_database(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    """Every database has the revision orders_0001 of the included app."""
    own = tmp_path / "apps" / "orders"
    assert [label_of(INCLUDED / "orders"), label_of(own)] == ["orders", "own_orders"]
    step = "from alembic import op; op.execute('CREATE TABLE own_orders (id INTEGER)')"
    add(own / "migrations", f"{label_of(own)}_0001", step=step)
    (own / "templates").mkdir()
    app = make_app(APPS_PATH=str(tmp_path / "apps"))
    with app.app_context():
        assert "orders_0001" in applied()
        upgrade_schema()
        assert {"own_orders", "demo_orders"} < set(inspect(db.engine).get_table_names())
    checked = app.test_cli_runner().invoke(args=["check"])
    assert (checked.exit_code, "Migration orders_0001 belongs to no app" in checked.stdout) == (0, True)


def test_a_table_without_a_model_is_left_to_its_author(make_app: Callable[..., Flask], place: Path) -> None:
    links = Table("plain_desk_links", Model.metadata, Column("id", Integer))
    try:
        done = make_app(APPS_PATH=str(place)).test_cli_runner().invoke(args=["app", "migrate", "plain-desk"])
    finally:
        Model.metadata.remove(links)
    assert done.output == "No table has changed.\n"


def test_an_apps_migrations_that_followed_ours_become_a_branch(
    make_app: Callable[..., Flask], place: Path
) -> None:
    """The steps of docs/apps/your-own-repository.md."""
    add(place / "plain-desk" / "migrations", "a1b2c3")
    app = make_app(APPS_PATH=str(place))
    [newest] = read_branches({})[0].heads
    with app.app_context(), db.engine.execution_options(writes=True).begin() as connection:
        connection.execute(
            text("UPDATE alembic_version SET version_num = 'a1b2c3' WHERE version_num = :n"), {"n": newest}
        )
    runner = app.test_cli_runner()
    assert runner.invoke(args=["db", "stamp", newest]).exit_code == 0
    assert runner.invoke(args=["db", "upgrade"]).exit_code == 0
    with app.app_context():
        assert applied() == sorted([newest, "a1b2c3", "orders_0001", "support_0001"])
    assert runner.invoke(args=["check"]).exit_code == 0
