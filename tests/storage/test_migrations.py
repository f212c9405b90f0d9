"""The schema on both databases: migrations and models agree, and upgrades may run concurrently."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import downgrade, upgrade
from sqlalchemy import bindparam, create_engine, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError, StatementError

from pat_service.storage import readiness, revisions
from pat_service.storage.database import UtcDateTime, db, reading, transaction
from pat_service.storage.models import Event, User
from tests.e2e.deploy.test_schema_upgrade import INDEX, NEXT
from tests.support.people import KEY, PUBLIC_URL, WORLD, Service, provision
from tests.support.servers import fresh_database

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
MIGRATIONS = str(PROJECT / "migrations")
HEAD = ScriptDirectory(MIGRATIONS).get_current_head()
HEADS = {HEAD, "orders_0001", "support_0001"}
BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    with fresh_database(request.getfixturevalue("postgres_server")) as url:
        yield url


@pytest.fixture
def empty(url: str, make_app: Callable[..., Flask]) -> Iterator[Flask]:
    """An app on an empty database, with its context."""
    app = make_app(DATABASE_URL=url)
    with app.app_context():
        yield app
        db.engine.dispose()


def shape() -> dict[str, Any]:
    """Return the database's own description of its tables, for comparison."""
    found = inspect(db.engine)
    return {
        name: {
            "columns": sorted(
                (column["name"], str(column["type"]), column["nullable"], str(column["default"]))
                for column in found.get_columns(name)
            ),
            "primary key": found.get_pk_constraint(name),
            "foreign keys": sorted(map(repr, found.get_foreign_keys(name))),
            "unique": sorted(map(repr, found.get_unique_constraints(name))),
            "indexes": sorted(
                repr(index | {"dialect_options": {k: str(v) for k, v in index["dialect_options"].items()}})
                for index in found.get_indexes(name)
            ),
            "checks": sorted(map(repr, found.get_check_constraints(name))),
        }
        for name in found.get_table_names()
        if name != "alembic_version"
    }


def version() -> set[str]:
    with db.engine.connect() as connection:
        return set(MigrationContext.configure(connection).get_current_heads())


def test_the_migrations_have_one_head() -> None:
    assert len(ScriptDirectory(MIGRATIONS).get_heads()) == 1


def test_a_database_made_by_migrations_serves_requests(empty: Flask) -> None:
    upgrade(revision="heads")
    assert version() == HEADS
    provision(empty, WORLD)
    service = Service(empty.test_client())
    frame, before = service.frame(), shape()
    upgrade(revision="heads")  # a second time, which changes nothing
    assert shape() == before
    assert service.get(frame, "session").status_code == 200


def test_models_and_migrations_agree(empty: Flask) -> None:
    upgrade(revision="heads")
    with db.engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, db.metadata) == []
    # alembic does not compare CHECK and ON DELETE.
    migrated = shape()
    downgrade(revision="base")
    db.create_all()
    assert shape() == migrated
    assert {"tokens", "sessions", "events", "demo_orders"} <= set(migrated)
    assert any(table["checks"] for table in migrated.values())
    # One token per app and user is a constraint of the database.
    pairs = inspect(db.engine).get_unique_constraints("tokens")
    assert ["app_id", "user_id"] in [constraint["column_names"] for constraint in pairs]


def test_a_downgrade_removes_everything_and_an_upgrade_works_again(empty: Flask) -> None:
    upgrade(revision="heads")
    first = shape()
    downgrade(revision="base")
    assert inspect(db.engine).get_table_names() == ["alembic_version"]
    upgrade(revision="heads")
    assert shape() == first


def test_a_downgrade_and_upgrade_keep_the_tokens(empty: Flask) -> None:
    upgrade(revision="heads")
    provision(empty, WORLD)
    token = Service(empty.test_client()).token()
    downgrade(revision="0001")
    upgrade(revision="heads")
    assert Service(empty.test_client()).open(token).status_code == 200


def test_a_failed_upgrade_changes_nothing(empty: Flask) -> None:
    with db.engine.execution_options(writes=True).begin() as connection:
        # This table makes a migration fail.
        connection.execute(text("CREATE TABLE sessions (id INTEGER)"))
    with pytest.raises(DBAPIError):
        upgrade(revision="heads")
    assert inspect(db.engine).get_table_names() == ["sessions"]
    with db.engine.execution_options(writes=True).begin() as connection:
        connection.execute(text("DROP TABLE sessions"))
    upgrade(revision="heads")
    assert version() == HEADS


@pytest.mark.slow
def test_concurrent_upgrades_all_succeed(empty: Flask, url: str) -> None:
    """Some platforms run the release command on each machine."""
    environ = {
        "PATH": os.environ["PATH"],
        "SECRET_KEY": KEY,
        "PUBLIC_URL": PUBLIC_URL,
        "DATABASE_URL": url.replace("postgresql://", "postgres://"),
    }
    command = [sys.executable, "-m", "flask", "--app", "app", "db", "upgrade"]
    processes = [
        subprocess.Popen(command, cwd=PROJECT, env=environ, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert version() == HEADS
    provision(empty, WORLD)
    assert Service(empty.test_client()).token()


@pytest.mark.slow
@pytest.mark.postgres
def test_a_migration_after_an_index_waits_briefly_again(
    postgres_server: str, make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    """A migration that builds an index concurrently lifts the limit of waits for a lock."""
    folder = Path(shutil.copytree(MIGRATIONS, tmp_path / "migrations"))
    last = 'revision = "last"\ndown_revision = "index"\n\ndef upgrade():\n    '
    check = 'assert op.get_bind().scalar(sa.text("SHOW lock_timeout")) == "500ms"\n'
    (folder / "versions" / "next.py").write_text(NEXT.lstrip().format(head=HEAD))
    (folder / "versions" / "index.py").write_text(INDEX.lstrip())
    (folder / "versions" / "last.py").write_text(
        f"import sqlalchemy as sa\nfrom alembic import op\n\n{last}{check}"
    )
    with fresh_database(postgres_server) as url:
        app = make_app(DATABASE_URL=url)
        with app.app_context():
            upgrade(str(folder), "heads")
            assert version() == HEADS - {HEAD} | {"last"}
            db.engine.dispose()


def test_a_moment_is_stored_in_utc_and_a_naive_one_is_refused(empty: Flask) -> None:
    upgrade(revision="heads")
    there = datetime(2026, 11, 22, 1, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with transaction() as connection:
        connection.execute(insert(Event), {"at": there, "type": "test"})
    with reading() as connection:
        assert connection.execute(select(Event.at).where(Event.at == there)).scalars().all() == [there]
        assert connection.execute(select(Event.at)).scalar_one().utcoffset() == timedelta(0)
    with pytest.raises(StatementError), transaction() as connection:
        connection.execute(insert(Event), {"at": datetime(2026, 11, 22), "type": "test"})


# Both spellings of a domain become one email

UNICODE, ASCII = "ana@bücher.example", "ana@xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("stored", "emails"),
    [
        ([ASCII], [UNICODE]),
        ([UNICODE], [UNICODE]),
        # The older user keeps the email, and the younger one the other spelling.
        ([UNICODE, ASCII], [UNICODE, ASCII]),
        ([ASCII, UNICODE], [UNICODE, ASCII]),
        (
            ["a@xn--fa-hia.xn--r8jz45g", "a@faß.例え", "a@xn--fa-hia.例え"],
            ["a@faß.例え", "a@xn--fa-hia.xn--r8jz45g", "a@xn--fa-hia.例え"],
        ),
        (["a@xn--zzzzzz99999", "an\u200ba@acme.test", "xn--a@acme.test"],) * 2,
    ],
)
def test_an_upgrade_makes_both_spellings_of_a_domain_one_email(
    empty: Flask, stored: list[str], emails: list[str]
) -> None:
    upgrade(revision="0011")
    add = text(
        "INSERT INTO users (id, email, name, status, created_at) VALUES (:id, :email, '', 'active', :at)"
    ).bindparams(bindparam("at", type_=UtcDateTime))
    ids = [f"00000000-0000-4000-8000-00000000000{9 - place}" for place in range(len(stored))]
    with db.engine.execution_options(writes=True).begin() as connection:
        for day, (id_, email) in enumerate(zip(ids, stored, strict=True), 1):
            connection.execute(add, {"id": id_, "email": email, "at": datetime(2026, 11, day, tzinfo=UTC)})
    for _ in range(2):
        upgrade(revision="0012")
        with reading() as connection:
            found = {row.id: row.email for row in connection.execute(select(User.id, User.email))}
        assert [found[id_] for id_ in ids] == emails
        with db.engine.execution_options(writes=True).begin() as connection:
            connection.execute(
                text("UPDATE alembic_version SET version_num = '0011' WHERE version_num = '0012'")
            )


# Migrations that the previous release survives

#: Rolling upgrades begin after this migration.
FIRST_RELEASE = "0004"
#: A comment that says why old code survives the step.
CONTRACT = re.compile(r"^# contract: \S.{10,}$", re.M)
TAKES_AWAY = {"drop_table", "drop_column", "rename_table"}
TIGHTENS = {"create_check_constraint", "create_unique_constraint", "create_foreign_key"}


def breaks_old_code(source: str) -> list[str]:
    """Return the steps of a migration's upgrade that break the previous release while it still runs."""
    if CONTRACT.search(source):
        return []
    tree = ast.parse(source)
    steps = [node for node in tree.body if getattr(node, "name", "") != "downgrade"]
    calls = [node for step in steps for node in ast.walk(step) if isinstance(node, ast.Call)]
    new = {ast.unparse(call.args[0]) for call in calls if name_of(call) == "create_table"}
    return [found for call in calls if (found := fault_of(call, new))]


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def fault_of(call: ast.Call, new: set[str]) -> str:
    name, given = name_of(call), {word.arg: ast.unparse(word.value) for word in call.keywords}
    if name in TAKES_AWAY or name in TIGHTENS:
        return name
    if name == "alter_column" and given.keys() & {"new_column_name", "type_"}:
        return "alter_column renames or changes a type"
    if given.get("nullable") == "False":
        if name == "alter_column":
            return "alter_column requires a value"
        if name == "Column" and "server_default" not in given and not new:
            return "a new column requires a value"
    if name == "create_index" and given.get("postgresql_concurrently") != "True":
        return "" if ast.unparse(call.args[1]) in new else "create_index blocks all writes"
    if name == "execute" and re.search(r"\b(DROP|RENAME|ALTER|NOT NULL)\b", ast.unparse(call), re.I):
        return "execute changes tables"
    return ""


def test_readiness_and_alembic_agree_on_the_chain() -> None:
    chain = {
        script.revision: frozenset(script._all_down_revisions)
        for script in ScriptDirectory(MIGRATIONS).walk_revisions()
    }
    assert revisions.read_branches({})[0].predecessors == chain


def test_readiness_misses_a_migration_beside_a_forks_own(
    schema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork added a migration of its own to 0005, and later took ours."""
    versions = shutil.copytree(Path(MIGRATIONS) / "versions", tmp_path / "versions")
    (versions / "own.py").write_text('revision: str = "own1"\ndown_revision: str | None = "0005"\n')
    branches = revisions.read_branches

    def read_branches(migrations: dict[str, Path]) -> list[revisions.Branch]:
        revisions._read.cache_clear()
        return branches(migrations, versions)

    monkeypatch.setattr(revisions, "read_branches", read_branches)
    engine = create_engine(f"sqlite:///{shutil.copy(schema, tmp_path / 'pat.db')}")

    def state(*applied: str | None) -> str:
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM alembic_version"))
            for revision in applied:
                connection.execute(text("INSERT INTO alembic_version VALUES (:name)"), {"name": revision})
        return readiness.check_database(engine, {})["schema"]

    try:
        assert [state("own1"), state(HEAD), state("own1", "0006")] == ["behind"] * 3
        assert [state("own1", HEAD), state("a newer one")] == ["ok"] * 2
        (versions / "merge.py").write_text(f"revision = 'both'\ndown_revision = ('own1', '{HEAD}')\n")
        assert [state("own1", HEAD), state("both")] == ["behind", "ok"]
    finally:
        engine.dispose()


def test_new_migrations_do_not_break_the_previous_release() -> None:
    scripts = ScriptDirectory(MIGRATIONS).walk_revisions()
    new = {
        script.path: Path(script.path).read_text() for script in scripts if script.revision > FIRST_RELEASE
    }
    assert new or HEAD == FIRST_RELEASE
    assert {path: faults for path, source in new.items() if (faults := breaks_old_code(source))} == {}


def test_a_migration_can_add_a_table_a_column_and_an_index() -> None:
    assert breaks_old_code(NEXT) == breaks_old_code(INDEX) == []


@pytest.mark.parametrize(
    ("step", "faults"),
    [
        ('op.add_column("tokens", sa.Column("note", sa.Text()))', 0),
        ('op.add_column("tokens", sa.Column("n", sa.Integer(), nullable=False, server_default="0"))', 0),
        ('op.add_column("tokens", sa.Column("n", sa.Integer(), nullable=False))', 1),
        ('op.create_table("notes", sa.Column("id", sa.Integer(), nullable=False))', 0),
        ('op.create_index("ix", "tokens", ["note"], postgresql_concurrently=True)', 0),
        ('op.create_index("ix", "tokens", ["note"])', 1),
        ('op.drop_column("tokens", "last_four")', 1),
        ('op.drop_table("tokens")', 1),
        ('op.rename_table("tokens", "pats")', 1),
        ('op.alter_column("tokens", "last_four", new_column_name="tail")', 1),
        ('op.alter_column("tokens", "last_four", nullable=False)', 1),
        ('op.alter_column("tokens", "last_four", nullable=True)', 0),
        ('op.alter_column("tokens", "last_four", type_=sa.String(2))', 1),
        ('op.create_unique_constraint("uq", "tokens", ["last_four"])', 1),
        ('op.execute("ALTER TABLE tokens DROP COLUMN last_four")', 1),
        ('op.execute("UPDATE tokens SET last_four = NULL")', 0),
    ],
)
def test_a_step_that_breaks_old_code_is_found_unless_a_comment_allows_it(step: str, faults: int) -> None:
    source = f"def upgrade():\n    {step}\n\ndef downgrade():\n    op.drop_table('x')\n"
    assert len(breaks_old_code(source)) == faults
    assert breaks_old_code(f"# contract: no release since 1.4 reads last_four\n{source}") == []
