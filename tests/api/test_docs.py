"""The page of the API's document: its policy, and where it takes its files from."""

import re

import pytest

from tests.support.servers import PROJECT
from tests.support.world import Service, problem_of

DOCS = "/api/docs"
VENDOR = PROJECT / "static" / "vendor"


def test_the_page_runs_its_own_two_scripts_and_nothing_else(lasting: Service) -> None:
    answer = lasting.client.get(DOCS)
    assert (answer.status_code, answer.content_type) == (200, "text/html; charset=utf-8")
    (nonce,) = set(re.findall('nonce="([^"]+)"', answer.text))
    assert answer.headers["Content-Security-Policy"] == (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers
    assert nonce not in lasting.client.get(DOCS).text


def test_each_file_of_the_page_is_served_from_here(lasting: Service) -> None:
    files = re.findall('(?:src|href)="([^"]+)"', lasting.client.get(DOCS).text)
    assert len(files) >= 5
    for file in files:
        assert file.startswith(("/static/", "/api/"))
        assert lasting.client.get(file, buffered=True).status_code == 200


def test_what_comes_from_others_names_its_version_and_has_its_licence_beside_it() -> None:
    for thing in VENDOR.iterdir():
        assert re.search(r"-\d+\.\d+\.\d+", thing.name)
        assert any(
            "LICENSE" in file.name for file in (thing.iterdir() if thing.is_dir() else VENDOR.iterdir())
        )


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_the_page_is_read_and_not_written(lasting: Service, method: str) -> None:
    problem_of(lasting.client.open(DOCS, method=method), 405, "method_not_allowed")
