"""What `check` and /readyz say about a Redis that cannot count a mint."""

from collections.abc import Callable
from contextlib import closing

import pytest
import redis
from flask import Flask

from pat_service.storage import redis_check
from tests.support.people import WORLD, Service, provision
from tests.support.servers import redis_server, redis_with_tls

MakeApp = Callable[..., Flask]


def verdict(make_app: MakeApp, url: str) -> tuple[str, list[str], int]:
    """Return the state in /readyz, the lines of `check`, and the status of a mint."""
    app = make_app(REDIS_URL=url)
    provision(app, WORLD)
    service = Service(app.test_client())
    state = service.client.get("/readyz").json["checks"]["limiter"]  # type: ignore[index]
    return state, app.test_cli_runner().invoke(args=["check"]).stderr.splitlines(), service.mint().status_code


def expected(state: str) -> tuple[str, list[str], int]:
    return state, [f"pat-service: {redis_check.FINDINGS[state].text}"], 503


def test_a_plain_redis_is_fine(make_app: MakeApp) -> None:
    with redis_server() as url:
        assert verdict(make_app, url) == ("ok", [], 201)


def test_a_node_of_a_cluster_is_refused_by_name(make_app: MakeApp) -> None:
    with redis_server("--cluster-enabled", "yes") as url:
        with closing(redis.Redis.from_url(url)) as node:
            assert verdict(make_app, url)[:2] == expected("cluster")[:2]
            # With every slot, this node counts each mint until the cluster grows.
            node.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        assert verdict(make_app, url)[:2] == expected("cluster")[:2]
    assert not redis_check.FINDINGS["cluster"].transient


def test_a_wrong_password_is_named(make_app: MakeApp) -> None:
    with redis_server("--requirepass", "correct-horse", ready=b"-NOAUTH") as url:
        assert verdict(make_app, url) == expected("password")
        assert verdict(make_app, url.replace("//", "//:wrong@")) == expected("password")
        assert verdict(make_app, url.replace("//", "//:correct-horse@")) == ("ok", [], 201)


def test_a_store_that_answers_ping_and_refuses_mints_is_named(make_app: MakeApp) -> None:
    with redis_server() as url, closing(redis.Redis.from_url(url)) as store:
        for rules, state in (("+@all -eval -evalsha", "permissions"), ("+@all -info", "ok")):
            store.execute_command("ACL", "SETUSER", "own", "reset", "on", ">secret", "~*", *rules.split())
            found = verdict(make_app, url.replace("//", "//own:secret@"))
            assert found == (("ok", [], 201) if state == "ok" else expected(state))
        store.execute_command("REPLICAOF", "127.0.0.1", "1")
        assert verdict(make_app, url) == expected("read-only")
        store.execute_command("REPLICAOF", "NO", "ONE")
        store.config_set("maxmemory", "1")
        assert verdict(make_app, url) == expected("full")


@pytest.mark.slow
def test_the_certificate_of_a_platforms_own_authority(make_app: MakeApp) -> None:
    with redis_with_tls() as (url, authority):
        assert verdict(make_app, url) == expected("certificate")
        for parameter in (f"ssl_ca_certs={authority}", "ssl_cert_reqs=none"):
            assert verdict(make_app, f"{url}?{parameter}") == ("ok", [], 201)
