"""The page at `/` of a deployment."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from pat_service import __version__
from tests.support.people import Service, problem_of
from tests.support.shared_fixtures import MakeService

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize("accept", [None, "*/*", "application/json"])
def test_a_program_learns_what_this_server_is(shared: Service, accept: str | None) -> None:
    answer = shared.client.get("/", headers={"Accept": accept} if accept else {})
    found = answer.get_json()
    assert found.pop("name") == "pat-service"
    for address in found.values():
        assert shared.client.get(address).status_code == 200


def test_a_person_gets_a_page_that_links_to_the_api_and_tells_nothing_else(shared: Service) -> None:
    answer = shared.client.get("/", headers=HTML)
    assert "pat-service is running" in answer.text
    assert '<a class="primary" href="/api/docs">' in answer.text
    assert "<script" not in answer.text
    for file in re.findall('(?:src|href)="([^"]+)"', answer.text):
        assert shared.client.get(file, buffered=True).status_code == 200
    for secret in (__version__, "acme", "Acme", "orders", "sqlite"):
        assert secret not in answer.text


def test_in_development_the_page_stands_in_for_the_demo_without_its_apps(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    """A team has an app named Support of its own."""
    (tmp_path / "support" / "templates").mkdir(parents=True)
    client = make_app(PUBLIC_URL="http://localhost:5000", APPS_PATH=str(tmp_path)).test_client()
    assert client.get("/").get_json()["name"] == "pat-service"


def test_with_app_origins_only_the_common_host_has_the_page(make_shared: MakeService) -> None:
    client = make_shared(PUBLIC_URL="https://{app}.embed.example").client
    assert client.get("/", headers={"Host": "embed.example"}).status_code == 200
    for host in ("orders.embed.example", "nothing.embed.example", "a.b.embed.example", "127.0.0.1:8000"):
        problem_of(client.get("/", headers={"Host": host} | HTML), 404, "not_found")


def test_the_page_is_read_only(shared: Service) -> None:
    problem_of(shared.client.post("/"), 405, "method_not_allowed")
