"""The deployed service on each database, with a crowd that keeps it busy."""

from collections.abc import Iterator

import pytest

from tests.e2e.faults.installation import Installation, installed, on_postgres
from tests.support.servers import WebServer


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def installation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """One installation for each module: only SQLite, or PostgreSQL with Redis."""
    folder = tmp_path_factory.mktemp("installation")
    if request.param == "sqlite":
        yield installed(folder, f"sqlite:///{folder / 'pat-service.db'}")
        return
    with on_postgres(request.getfixturevalue("postgres_server"), folder) as found:
        yield found.with_(REDIS_URL=request.getfixturevalue("redis_url"))


@pytest.fixture(scope="module")
def server(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """The service of the installation. Its log must contain no failure."""
    log = tmp_path_factory.mktemp("log") / "log"
    with installation.serving(log=log) as server:
        yield server
    assert "Traceback" not in log.read_text()
