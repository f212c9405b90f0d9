"""The next release's schema arrives while this release serves: PostgreSQL, under load."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from alembic.script import ScriptDirectory

from tests.e2e.deploy.load import Load
from tests.support.servers import PROJECT, gunicorn, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.postgres, pytest.mark.redis]

#: CONTRIBUTING.md requires this: they only add, and build the index concurrently in its own migration.
NEXT = '''
"""what the next release will use"""

import sqlalchemy as sa
from alembic import op

revision = "next"
down_revision = "{head}"


def upgrade() -> None:
    op.create_table("notes", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("text", sa.Text()))
    op.add_column("tokens", sa.Column("note", sa.Text()))
    op.add_column("tokens", sa.Column("rank", sa.Integer(), nullable=False, server_default="0"))
'''
INDEX = '''
"""an index for it"""

from alembic import op

revision = "index"
down_revision = "next"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # It waits for running transactions, and no transaction waits for it.
        if op.get_context().opts["has_session"]:
            op.execute("SET lock_timeout = 0")
        op.drop_index("ix_tokens_note", if_exists=True, postgresql_concurrently=True)
        op.create_index("ix_tokens_note", "tokens", ["note"], postgresql_concurrently=True)
'''


def upgrade(environ: dict[str, str], migrations: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "app", "db", "upgrade", "--directory", str(migrations)],
        cwd=PROJECT,
        env=environ | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """The migrations of the next release."""
    folder = Path(shutil.copytree(PROJECT / "migrations", tmp_path / "migrations"))
    head = ScriptDirectory(str(folder)).get_current_head()
    (folder / "versions" / "next.py").write_text(NEXT.lstrip().format(head=head))
    (folder / "versions" / "index.py").write_text(INDEX.lstrip())
    return folder


def test_the_next_schema_arrives_under_load_and_loses_no_request(
    installation: dict[str, str], migrations: Path, tmp_path: Path
) -> None:
    with gunicorn(installation, workers=1, log=tmp_path / "log") as server, Load(server.port) as load:
        wait_for(lambda: load.answered > 20)
        # Another transaction blocks the table longer than a migration waits.
        with psycopg.connect(installation["DATABASE_URL"]) as busy:
            busy.execute("SELECT 1 FROM tokens")
            refused = upgrade(installation, migrations)
            busy.rollback()
        assert refused.returncode != 0
        assert "lock timeout" in refused.stderr
        wait_for(lambda: upgrade(installation, migrations).returncode == 0)
        answered = load.answered
        wait_for(lambda: load.answered > answered + 20)
    assert load.failures == []
    with psycopg.connect(installation["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT min(version_num) FROM alembic_version").fetchone() == ("index",)
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_tokens_note'::regclass"
        assert connection.execute(valid).fetchall() == [(True,)]
