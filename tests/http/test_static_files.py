"""Public files: an address that changes with the content, kept for a year; a stable one, always checked."""

import gzip
import os
import re
from pathlib import Path
from typing import Final

import brotli
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from pat_service.http import static_files
from pat_service.http.static_files import CHECKED, FOREVER, brotli_path, content_digest
from tests.support.line import source_of
from tests.support.people import ORDERS, Service, problem_of
from tests.support.servers import PROJECT
from tools.publish_static import publish

SCRIPT: Final = "export const price = 450; // cents\n" * 20
SHEET: Final = "@font-face { src: url(fonts/desk.woff2) }\n" * 20
FONT: Final = bytes(range(256)) * 4
FRAME_JS: Final = re.compile(r"/embed-static/[0-9a-f]{12}/embed/frame\.js")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "desk" / "fonts").mkdir(parents=True)
    for name, content in {"desk.js": SCRIPT, "desk.css": SHEET, "note.txt": "short"}.items():
        (tmp_path / "desk" / name).write_text(content)
    (tmp_path / "desk" / "fonts" / "desk.woff2").write_bytes(FONT)
    return tmp_path / "desk"


def serve(folder: Path, *, follow: bool = False) -> FlaskClient:
    """Return a client of an instance that has just started."""
    app = Flask(__name__, static_folder=None)
    static_files.init_app(app, folder.parent, follow=follow)
    return app.test_client()


def address(client: FlaskClient, name: str) -> str:
    return static_files.static_files(client.application).address(name)


def get(client: FlaskClient, path: str, method: str = "GET", **headers: str) -> TestResponse:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.open(path, method=method, headers=names, buffered=True)


def replace(file: Path, text: str) -> None:
    """Replace a file as a deployment does, with another time."""
    file.write_text(text)
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))


# ---- Addresses ----


def test_an_address_is_kept_for_a_year_and_changes_with_any_file_of_its_folder(folder: Path) -> None:
    before = serve(folder)
    old = {name: address(before, f"desk/{name}") for name in ("desk.js", "desk.css", "fonts/desk.woff2")}
    for path in old.values():
        assert get(before, path).headers["Cache-Control"] == FOREVER
    # A style sheet names its font by a relative address, so the font's content is part of its address.
    (folder / "fonts" / "desk.woff2").write_bytes(FONT[::-1])
    after = serve(folder)
    assert all(address(after, f"desk/{name}") != path for name, path in old.items())


def test_the_stable_address_serves_the_same_file_and_is_checked_each_time(folder: Path) -> None:
    client = serve(folder)
    first = get(client, "/static/desk/desk.js")
    assert (first.text, first.headers["Cache-Control"]) == (SCRIPT, CHECKED)
    again = get(client, "/static/desk/desk.js", If_None_Match=first.headers["ETag"])
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["Cache-Control"] == CHECKED


def test_the_etag_depends_on_the_content_and_not_on_the_time(folder: Path) -> None:
    first = get(serve(folder), "/static/desk/desk.js").headers["ETag"]
    os.utime(folder / "desk.js", (1, 1))
    assert get(serve(folder), "/static/desk/desk.js").headers["ETag"] == first
    # Some builds give every file the same time.
    (folder / "desk.js").write_text(SCRIPT.replace("450", "460"))
    os.utime(folder / "desk.js", (1, 1))
    static_files._digest.cache_clear()
    static_files._file.cache_clear()
    assert get(serve(folder), "/static/desk/desk.js").headers["ETag"] != first


def test_another_instances_address_gets_this_instances_file_and_nobody_keeps_it(folder: Path) -> None:
    client = serve(folder)
    for digest in ("0" * 12, "x", "0123456789abcdef"):
        answer = get(client, f"/embed-static/{digest}/desk/desk.js")
        assert (answer.text, answer.headers["Cache-Control"]) == (SCRIPT, "no-store")


def test_a_file_that_a_deployment_replaces_is_not_kept_under_the_old_address(folder: Path) -> None:
    client = serve(folder)
    old = address(client, "desk/desk.js")
    replace(folder / "desk.js", "longer than before" * 100)
    answer = get(client, old, Accept_Encoding="gzip")
    assert gzip.decompress(answer.data) == (folder / "desk.js").read_bytes()
    assert answer.headers["Cache-Control"] == "no-store"
    # The page of the old instance still names the address that it has named before.
    assert address(client, "desk/desk.js") == old


def test_development_notices_changed_and_new_files_without_a_restart(folder: Path) -> None:
    client = serve(folder, follow=True)
    old = address(client, "desk/desk.js")
    replace(folder / "desk.js", "changed")
    changed = address(client, "desk/desk.js")
    (folder / "new.js").write_text("new")
    assert len({old, changed, address(client, "desk/new.js")}) == 3
    for name, text in {"desk.js": "changed", "new.js": "new"}.items():
        answer = get(client, address(client, f"desk/{name}"))
        assert (answer.text, answer.headers["Cache-Control"]) == (text, FOREVER)


def test_a_page_that_names_a_missing_file_still_renders(folder: Path) -> None:
    assert address(serve(folder), "nothing/x y.js") == "/static/nothing/x%20y.js"


# ---- Compression ----


@pytest.mark.parametrize("accepted", ["gzip", "gzip, deflate, br", "*", "gzip;q=0.1, identity"])
def test_a_text_is_compressed_for_browsers_that_accept_gzip(folder: Path, accepted: str) -> None:
    client = serve(folder)
    answer = get(client, address(client, "desk/desk.js"), Accept_Encoding=accepted)
    assert gzip.decompress(answer.data) == SCRIPT.encode()
    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) == len(answer.data)
    assert answer.headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("accepted", ["", "identity", "gzip;q=0", "a," * 100_000 + "gzip"])
def test_other_programs_get_the_plain_text(folder: Path, accepted: str) -> None:
    client = serve(folder)
    answer = get(client, address(client, "desk/desk.js"), Accept_Encoding=accepted)
    assert (answer.text, answer.headers["Vary"]) == (SCRIPT, "Accept-Encoding")
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("name", ["note.txt", "fonts/desk.woff2"])
def test_short_texts_and_fonts_stay_as_they_are(folder: Path, name: str) -> None:
    client = serve(folder)
    answer = get(client, address(client, f"desk/{name}"), Accept_Encoding="gzip, br")
    assert answer.data == (folder / name).read_bytes()
    assert "Content-Encoding" not in answer.headers


def test_a_published_brotli_variant_is_served_until_the_file_changes(folder: Path) -> None:
    published = Path(brotli_path(str(folder / "desk.js"), content_digest(SCRIPT.encode())))
    published.write_bytes(brotli.compress(SCRIPT.encode()))
    client = serve(folder)
    path = address(client, "desk/desk.js")
    answer = get(client, path, Accept_Encoding="gzip, br")
    assert answer.headers["Content-Encoding"] == "br"
    assert brotli.decompress(answer.data) == SCRIPT.encode()
    assert get(client, path, Accept_Encoding="gzip").headers["Content-Encoding"] == "gzip"
    assert get(client, f"/static/desk/{published.name}").status_code == 404

    replace(folder / "desk.js", SCRIPT.replace("450", "460"))
    assert get(client, path, Accept_Encoding="gzip, br").headers["Content-Encoding"] == "gzip"


# ---- HTTP ----


def test_a_video_can_be_read_in_parts(folder: Path) -> None:
    client = serve(folder)
    answer = get(client, address(client, "desk/fonts/desk.woff2"), Range="bytes=10-19")
    assert (answer.status_code, answer.data) == (206, FONT[10:20])


@pytest.mark.parametrize(
    "name",
    [
        *("", "desk", "desk/", "desk/fonts", "desk/nothing.js", "nothing/desk.js", "desk/../desk/desk.js"),
        *("desk/%2e%2e/secret.txt", "desk//etc/passwd", "desk/%00", "desk/" + "x" * 300, "desk/desk.js/"),
    ],
)
def test_what_is_no_file_is_not_found(folder: Path, name: str) -> None:
    (folder.parent / "secret.txt").write_text("secret")
    client = serve(folder)
    for prefix in ("/static/", "/embed-static/0123456789ab/"):
        assert get(client, prefix + name).status_code == 404


def test_head_and_other_methods(shared: Service) -> None:
    path = address(shared.client, "embed/frame.js")
    whole, head = get(shared.client, path), get(shared.client, path, "HEAD")
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == whole.headers["Content-Length"]
    problem_of(get(shared.client, path, "POST"), 405, "method_not_allowed")


def test_pages_of_every_site_may_read_the_files_and_errors_are_not_kept(shared: Service) -> None:
    for path in (address(shared.client, "embed/frame.js"), "/static/embed/frame.js"):
        answer = get(shared.client, path)
        assert answer.headers.getlist("Access-Control-Allow-Origin") == ["*"]
        assert answer.headers.getlist("Cross-Origin-Resource-Policy") == ["cross-origin"]
        assert answer.content_type == "text/javascript; charset=utf-8"
    for path in ("/static/embed/nothing.js", "/embed-static/0123456789ab/embed/nothing.js"):
        assert get(shared.client, path).headers.getlist("Cache-Control") == ["no-store"]


def test_each_file_of_orders_first_page_is_kept_for_a_year(shared: Service) -> None:
    page = shared.open(shared.token()).text
    files = re.findall(r'(?:src|href)="(/[^"]+)"', page)
    assert {source_of(path).rpartition("/")[2] for path in files} == {
        *("frame.js", "embed.css", "htmx-4.0.1.min.js", "orders.css", "orders.js")
    }
    assert any(FRAME_JS.match(path) for path in files)
    for path in files:
        assert get(shared.client, path).headers["Cache-Control"] == FOREVER
    assert ORDERS not in "".join(files)


# ---- Releases ----


def test_a_release_serves_minified_files_until_the_source_changes(tmp_path: Path) -> None:
    source = tmp_path / "static" / "embed" / "frame.js"
    source.parent.mkdir(parents=True)
    source.write_text(SCRIPT)
    assert len(list(publish(tmp_path, lambda content, _: content.replace(b" ", b"")))) == 2
    assert list(publish(tmp_path, lambda *_: pytest.fail("nothing has changed"))) == []

    client = serve(source.parent)
    answer = get(client, address(client, "embed/frame.js"), Accept_Encoding="br")
    assert brotli.decompress(answer.data).decode() == SCRIPT.replace(" ", "")
    assert answer.headers["Cache-Control"] == FOREVER
    assert get(client, "/static/embed/frame.js").text == SCRIPT
    developing = serve(source.parent, follow=True)
    assert get(developing, address(developing, "embed/frame.js")).text == SCRIPT

    source.write_text(SCRIPT * 2)
    changed = serve(source.parent)
    assert get(changed, address(changed, "embed/frame.js")).text == SCRIPT * 2
    list(publish(tmp_path, lambda content, _: content.replace(b" ", b"")))
    assert len(list(source.parent.iterdir())) == 3, "results of the former content stay"


def test_a_release_compresses_the_files_of_apps(tmp_path: Path) -> None:
    file = tmp_path / "apps" / "desk" / "static" / "desk.js"
    file.parent.mkdir(parents=True)
    file.write_text(SCRIPT)
    [packed] = publish(tmp_path)
    assert brotli.decompress(packed.read_bytes()) == file.read_bytes()


def test_each_variant_in_the_project_has_its_files_content() -> None:
    variants = [file for place in ("static", "apps") for file in (PROJECT / place).rglob("*.br")]
    assert variants
    for variant in variants:
        name, digest, _ = variant.name.rsplit(".", 2)
        content = brotli.decompress(variant.read_bytes())
        assert content_digest(content) == digest, f"Run make static: {variant.name} is damaged"
        assert variant.with_name(name).exists()
