"""The Procfile on PostgreSQL and Redis, started as a platform starts it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import create_app
from config import Config
from pat_service.storage.database import db
from tests.e2e.deploy.load import Connection, visit
from tests.support.people import KEY, PUBLIC_URL, WORLD, provision
from tests.support.servers import PROJECT, free_port, fresh_database, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.postgres, pytest.mark.redis]

HONCHO = [sys.executable, "-m", "honcho", "start", "--no-colour"]


@pytest.fixture
def environ(postgres_server: str, redis_url: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment that a platform sets, with a new and empty database."""
    with fresh_database(postgres_server) as url:
        yield {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "PYTHONUNBUFFERED": "1",
            "DATABASE_URL": url.replace("postgresql://", "postgres://"),
            "REDIS_URL": redis_url,
            "PORT": str(free_port()),
            "WEB_CONCURRENCY": "2",
            "SECRET_KEY": KEY,
            "PUBLIC_URL": PUBLIC_URL,
        }


def test_the_release_and_two_workers_start_serve_and_stop(environ: dict[str, str], tmp_path: Path) -> None:
    # An empty folder has no .env that could change settings.
    honcho = [
        *HONCHO,
        "--procfile",
        str(PROJECT / "Procfile"),
        "--app-root",
        str(PROJECT),
        "--env",
        os.devnull,
    ]
    release = subprocess.run(
        [*honcho, "release"], cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=60
    )
    assert release.returncode == 0, release.stdout + release.stderr
    people(environ, tmp_path)

    log = tmp_path / "log"
    with log.open("wb") as out:
        web = subprocess.Popen(
            [*honcho, "web"], cwd=PROJECT, env=environ, stdout=out, stderr=out, start_new_session=True
        )
    try:
        wait_for(lambda: log.read_text().count("Booting worker") == 2, web)
        with contextlib.closing(Connection(int(environ["PORT"]))) as connection:
            wait_for(lambda: connection.ask("GET", "/nowhere")[0] == 404, web)
            answers = visit(connection)
        assert [status for status, _ in answers] == [201, 200, 200]
        assert json.loads(answers[0][1])["redirectUrl"].startswith(f"{PUBLIC_URL}/embed-apps/")
    finally:
        web.send_signal(signal.SIGTERM)
        web.wait(40)
    text = log.read_text()
    # honcho itself always ends by the signal.
    assert "web.1 stopped (rc=0)" in text, text
    assert text.count("Worker exiting") == 2
    assert "Traceback" not in text
    assert "SIGKILL" not in text


def people(environ: dict[str, str], instance: Path) -> None:
    app = create_app(Config.from_environment(environ, instance))
    provision(app, WORLD)
    with app.app_context():
        db.engine.dispose()
