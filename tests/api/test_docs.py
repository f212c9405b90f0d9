"""The page of the API's document: its policy and its files."""

import re

import pytest

from tests.support.people import Service, problem_of
from tests.support.servers import PROJECT

DOCS = "/api/docs"
VENDOR = PROJECT / "static" / "vendor"


def test_the_page_runs_only_its_own_two_scripts(shared: Service) -> None:
    answer = shared.client.get(DOCS)
    assert (answer.status_code, answer.content_type) == (200, "text/html; charset=utf-8")
    (nonce,) = set(re.findall('nonce="([^"]+)"', answer.text))
    assert answer.headers["Content-Security-Policy"] == (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers
    assert nonce not in shared.client.get(DOCS).text


def test_the_service_itself_serves_each_file_of_the_page(shared: Service) -> None:
    files = re.findall('(?:src|href)="([^"]+)"', shared.client.get(DOCS).text)
    assert len(files) >= 5
    for file in files:
        assert file.startswith(("/embed-static/", "/api/"))
        assert shared.client.get(file, buffered=True).status_code == 200


def test_vendored_files_name_their_version_and_come_with_their_licence() -> None:
    for vendored in VENDOR.iterdir():
        assert re.search(r"-\d+\.\d+\.\d+", vendored.name)
        folder = vendored if vendored.is_dir() else VENDOR
        assert any("LICENSE" in file.name for file in folder.iterdir())


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("address", [DOCS, "/api/openapi.json"])
def test_the_page_and_the_document_are_read_only(shared: Service, address: str, method: str) -> None:
    problem_of(shared.client.open(address, method=method), 405, "method_not_allowed")
    assert "Set-Cookie" not in shared.client.get(address).headers
