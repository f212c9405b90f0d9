"""docs/apps/your-own-repository.md, followed with this release and the next one."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Final

import psycopg
import pytest
from alembic.script import ScriptDirectory

from tests.e2e.browser.checkout import shell
from tests.support.servers import PROJECT, fresh_database

pytestmark = pytest.mark.slow

GUIDE: Final = "docs/apps/your-own-repository.md"
PARTS: Final = ("app.py", "config.py", "pat_service", "apps", "demo", "templates", "static", "migrations")
FIRST: Final = """
    from sqlalchemy import ForeignKey, Text
    from sqlalchemy.orm import Mapped, mapped_column

    from pat_service.embed import EmbeddedApp, Model, new_id

    app = EmbeddedApp()


    class Quote(Model):
        __tablename__ = "quotes"

        id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
        user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
"""
#: The next version of the app.
SECOND: Final = f"{FIRST}        item: Mapped[str | None] = mapped_column(Text)\n"
#: The next release's migration.
NEXT: Final = '''
    """notes"""

    import sqlalchemy as sa
    from alembic import op

    revision = "9000"
    down_revision = "{head}"
    branch_labels = None
    depends_on = None


    def upgrade() -> None:
        op.create_table("notes", sa.Column("id", sa.Integer(), primary_key=True))
'''


@dataclass(frozen=True)
class Team:
    """The folders of the guide: checkouts of two releases, the team's repository, and a database."""

    folder: Path
    url: str
    tables: Callable[[], dict[str, list[str]]]

    def flask(self, command: str, release: str = "pat-service") -> str:
        environ = {"APPS_PATH": str(self.folder / "our-apps" / "apps"), "DATABASE_URL": self.url}
        return shell(f"flask --app app {command}", self.folder / release, **environ)

    def write(self, module: str) -> None:
        (self.folder / "our-apps" / "apps" / "quote" / "__init__.py").write_text(dedent(module))


@pytest.fixture
def team(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Team]:
    for release in ("pat-service", "next"):
        (tmp_path / release).mkdir()
        for part in PARTS:
            (tmp_path / release / part).symlink_to(PROJECT / part)
    (tmp_path / "next" / "migrations").unlink()
    migrations = Path(shutil.copytree(PROJECT / "migrations", tmp_path / "next" / "migrations"))
    head = ScriptDirectory(str(migrations)).get_current_head()
    (migrations / "versions" / "9000_notes.py").write_text(dedent(NEXT.format(head=head)).lstrip())
    (tmp_path / "our-apps" / "apps" / "quote").mkdir(parents=True)
    if request.getfixturevalue("database") == "sqlite":
        file = tmp_path / "pat.db"
        yield Team(tmp_path, f"sqlite:///{file}", lambda: tables_of_sqlite(file))
        return
    with fresh_database(request.getfixturevalue("postgres_server")) as url:
        yield Team(tmp_path, url, lambda: tables_of_postgresql(url))


def tables_of_sqlite(file: Path) -> dict[str, list[str]]:
    with closing(sqlite3.connect(file)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        return {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in names}


def tables_of_postgresql(url: str) -> dict[str, list[str]]:
    query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    found: dict[str, list[str]] = {}
    with psycopg.connect(url) as connection:
        for table, column in connection.execute(f"{query} ORDER BY table_name, ordinal_position"):
            found.setdefault(table, []).append(column)
    return found


@pytest.mark.parametrize(
    ("database", "first"),
    [("sqlite", "own"), pytest.param("postgresql", "ours", marks=pytest.mark.postgres)],
)
def test_a_team_upgrades_its_app_and_the_service_in_either_order(
    team: Team, database: str, first: str
) -> None:
    team.write(FIRST)
    team.flask("db upgrade")
    assert "quote_0001_who_asked.py" in team.flask('app migrate quote --message "who asked"')
    team.flask("db upgrade")
    assert team.flask("app migrate quote") == "No table has changed.\n"
    assert team.tables()["quotes"] == ["id", "user_id"]

    def change_own(release: str) -> None:
        team.write(SECOND)
        team.flask("app migrate quote --message item", release)
        team.flask("db upgrade", release)

    if first == "own":
        change_own("pat-service")
        team.flask("db upgrade", "next")
    else:
        team.flask("db upgrade", "next")
        change_own("next")
    assert team.tables()["quotes"] == ["id", "user_id", "item"]
    assert team.tables()["notes"] == ["id"]
    # The former release still serves on the new schema.
    assert "Current key" in team.flask("check", "pat-service")
