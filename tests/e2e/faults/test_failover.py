"""A primary dies under load, and its synchronous standby is promoted: nothing acknowledged is lost."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.e2e.faults.installation import PAIRS, installed
from tests.e2e.faults.test_kills import Rig, attempt, strike
from tests.support.http_calls import HttpConnection
from tests.support.servers import PostgresSwitch, free_port, postgres, postgres_standby, redis_server, within

pytestmark = [pytest.mark.slow, pytest.mark.postgres]

#: Seconds that the service may take after the promotion.
RECOVERY_SECONDS = 10


class ReplicatedRig(Rig):
    """An installation on a primary, and the URL of its standby."""

    stack: ExitStack
    standby: str


@pytest.fixture
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedRig]:
    folder, port = tmp_path_factory.mktemp("rig"), free_port()
    with ExitStack() as stack:
        primary = stack.enter_context(postgres(durable=True))
        with psycopg.connect(primary, autocommit=True) as admin:
            admin.execute("CREATE DATABASE pat")
        hosts = f"{urlsplit(primary).netloc},127.0.0.1:{port}"
        installation = installed(folder, f"postgresql://{hosts}/pat?target_session_attrs=read-write")
        found = installation.with_(REDIS_URL=stack.enter_context(redis_server()))
        rig = ReplicatedRig(found, folder, stack)
        rig.stack, rig.switch = stack, PostgresSwitch(primary)
        rig.standby = stack.enter_context(postgres_standby(primary, port))
        yield rig


def fail_over(rig: ReplicatedRig) -> None:
    """Kill the primary, promote the standby after a while, and give it a standby on the old port."""
    port = urlsplit(rig.switch.url).port
    assert port is not None
    rig.switch.crash()
    email, slug = PAIRS[-1]
    with HttpConnection(rig.port) as caller:
        for _ in range(5):
            assert attempt(lambda: caller.mint(email=email, appSlug=slug))[0] in (503, None)
            time.sleep(0.3)
        assert caller.call("GET", "/healthz").status == 200
        with psycopg.connect(rig.standby, autocommit=True) as admin:
            admin.execute("SELECT pg_promote()")
        with within(RECOVERY_SECONDS):
            while attempt(lambda: caller.mint(email=email, appSlug=slug))[0] != 201:
                time.sleep(0.1)
    rig.switch = PostgresSwitch(rig.standby)
    rig.standby = rig.stack.enter_context(postgres_standby(rig.standby, port))


def test_acknowledged_writes_survive_a_failover(rig: ReplicatedRig) -> None:
    strike(rig, lambda _: fail_over(rig))
