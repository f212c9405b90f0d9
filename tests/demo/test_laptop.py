"""`make run`: what it refuses, and the configuration of its proxy. tests/e2e/browser/ runs it."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import laptop
from tests.support.servers import free_port

ADDRESS = "http://127.0.0.1"


@pytest.fixture
def port() -> Iterator[int]:
    """The port of an app that runs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("written", "address", "start"),
    [
        ("http://127.0.0.1:{}", "http://127.0.0.1:{}", "/"),
        ("http://127.0.0.1:{}/", "http://127.0.0.1:{}", "/"),
        ("127.0.0.1:{}", "http://127.0.0.1:{}", "/"),
        ("HTTP://LocalHost:{}/app?x=1", "http://localhost:{}", "/app?x=1"),
    ],
)
def test_an_address_is_read_as_people_write_it(port: int, written: str, address: str, start: str) -> None:
    assert laptop.read_upstream(written.format(port)) == (address.format(port), start)


@pytest.mark.parametrize(
    "written", ["8501", "ftp://127.0.0.1:1", "http://", "http://me:pw@127.0.0.1:1", "a b"]
)
def test_what_is_no_address_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(SystemExit, match=r"is not an address such as http://127\.0\.0\.1:8501"):
        laptop.read_upstream(written)


def test_an_app_that_does_not_run_is_named() -> None:
    with pytest.raises(SystemExit, match=rf"nothing answers at {ADDRESS}:\d+\. Start your app first"):
        laptop.read_upstream(f"{ADDRESS}:{free_port()}")


@pytest.mark.parametrize(
    ("upstream", "target"),
    [
        ("http://127.0.0.1:8501", "127.0.0.1:8501"),
        ("http://[::1]:8501", "[::1]:8501"),
        ("http://app", "app:80"),
        ("https://app.internal", "app.internal:443"),
        ("https://[fd00::7]", "[fd00::7]:443"),
    ],
)
def test_the_proxy_connects_to_the_address(upstream: str, target: str, tmp_path: Path) -> None:
    path = laptop.write_caddyfile(tmp_path, 5000, "127.0.0.1:5001", [upstream])
    written = (path.parent / "gateway.Caddyfile").read_text()
    assert f'"{upstream}" {target} {upstream.partition(":")[0]}\n' in written


def test_the_proxy_is_only_for_this_machine_and_lists_one_address(tmp_path: Path) -> None:
    path = laptop.write_caddyfile(tmp_path / "caddy", 5000, "127.0.0.1:5001", ["http://127.0.0.1:8501"])
    written = path.read_text()
    for line in ("admin off", "auto_https off", "persist_config off", "bind 127.0.0.1"):
        assert f"\t{line}\n" in written
    gateway = (path.parent / "gateway.Caddyfile").read_text()
    assert '"http://127.0.0.1:8501" 127.0.0.1:8501 http' in gateway
    assert "10.0.0.7" not in gateway.replace("# ", "")
    assert "/run/pat-service" not in gateway
    caddy = laptop.find_caddy()
    assert caddy
    done = subprocess.run(
        [caddy, "adapt", "--config", str(path), "--adapter", "caddyfile"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr
