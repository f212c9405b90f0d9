"""The script of hosts: one text for every site, under versions that never change."""

import base64
import gzip
import hashlib
import re
import shutil
from pathlib import Path
from typing import Final

import pytest
from werkzeug.test import TestResponse

from pat_service.embed import embed_js
from pat_service.embed.embed_js import Script
from pat_service.errors import BY_CODE
from tests.support.people import ORDERS, Service, problem_of
from tools.publish_embed import RECORD, STATIC, publish, read_record
from tools.publish_static import publish as publish_static

SOURCE: Final = (STATIC / "embed.js").read_text("utf-8")
VERSION: Final = embed_js.version_of(SOURCE)
PATHS: Final = ["/embed.js", "/embed.mjs", "/embed.d.ts", f"/embed-{VERSION}.js", f"/embed-{VERSION}.mjs"]
EXPORTS: Final = "\nexport const PatEmbed = globalThis.PatEmbed;\nexport default PatEmbed;\n"
SHORT: Final = "public, max-age=300, no-transform"
FOREVER: Final = "public, max-age=31536000, immutable, no-transform"
#: Compressed sizes: of a published version, and of the source with its comments.
LIMIT_BYTES: Final = 8000
SOURCE_LIMIT_BYTES: Final = 12_000
#: Codes of answers to back ends, which no frame meets.
OF_BACK_ENDS: Final = {
    *("invalid_client", "scope_missing", "app_forbidden", "user_not_found", "app_not_found", "conflict"),
}
#: Codes that frames and the script report when the service has not answered.
OF_SCRIPTS: Final = {
    "cookies_blocked",
    "upstream_unreachable",
    "upstream_not_listed",
    "unsupported_browser",
    "fetch_token_failed",
    "timeout",
    "unreachable",
    "left_app",
    "redirect_refused",
    "unknown",
}


def integrity(body: bytes) -> str:
    return f"sha384-{base64.b64encode(hashlib.sha384(body).digest()).decode()}"


def get(service: Service, path: str, method: str = "GET", **headers: str) -> TestResponse:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.client.open(path, method=method, headers=names)


def minify(source: str) -> str:
    """Stand in for the real minifier, which needs the network."""
    return "// minified\n" + source.replace("  ", "")


@pytest.fixture
def static(tmp_path: Path) -> Path:
    """A copy of the script as version 8.0.0, to publish and to change."""
    for name in (embed_js.SCRIPT, embed_js.TYPES):
        shutil.copy(STATIC / name, tmp_path)
    change(tmp_path, VERSION, "8.0.0")
    return tmp_path


def change(static: Path, old: str, new: str) -> None:
    file = static / embed_js.SCRIPT
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


def serve(service: Service, monkeypatch: pytest.MonkeyPatch, static: Path) -> None:
    monkeypatch.setitem(service.app.extensions, "pat_service.script", Script(static))


# ---- Responses ----


def test_an_unpublished_script_is_the_file_and_the_module_adds_exports(
    shared: Service, monkeypatch: pytest.MonkeyPatch, static: Path
) -> None:
    serve(shared, monkeypatch, static)
    source = (static / "embed.js").read_text("utf-8")
    for name in ("/embed", "/embed-8.0.0"):
        assert get(shared, f"{name}.js").text == source
        assert get(shared, f"{name}.mjs").text == source + EXPORTS
    assert get(shared, "/embed.d.ts").data == (STATIC / "embed.d.ts").read_bytes()


@pytest.mark.parametrize("path", PATHS)
def test_pages_of_every_site_may_load_the_script_and_it_reads_nothing_of_them(
    shared: Service, path: str
) -> None:
    with shared.statements() as statements:
        answer = get(shared, path, Origin="https://portal.example", Cookie="a=b")
    assert statements == []
    assert answer.status_code == 200
    kind = "text/plain" if path.endswith(".ts") else "text/javascript"
    assert answer.content_type == f"{kind}; charset=utf-8"
    for name, value in {
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept-Encoding",
        "Cache-Control": FOREVER if VERSION in path and VERSION in read_record(STATIC) else SHORT,
    }.items():
        assert answer.headers.getlist(name) == [value]
    assert {"Set-Cookie", "Access-Control-Allow-Credentials", "Accept-Ranges"}.isdisjoint(
        answer.headers.keys()
    )
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        *(("gzip", True), ("br, GZIP", True), ("*", True), ("gzip;q=0.1, identity", True)),
        *(("", False), ("identity", False), ("br", False), ("gzip;q=0", False), ("gzip;q=0, *", False)),
        *(("gzip;q=x", False), (",;=,", False), ("a," * 100_000 + "gzip", False), ("\xff\xfe", False)),
    ],
)
def test_a_browser_that_accepts_gzip_gets_a_compressed_script(
    shared: Service, accepted: str, packed: bool
) -> None:
    for path in PATHS:
        plain, answer = get(shared, path), get(shared, path, Accept_Encoding=accepted)
        assert answer.status_code == 200
        assert "Content-Encoding" not in plain.headers
        assert answer.headers.get("Content-Encoding") == ("gzip" if packed else None)
        assert (gzip.decompress(answer.data) if packed else answer.data) == plain.data
        assert len(answer.data) == int(answer.headers["Content-Length"])
        assert (answer.headers["ETag"] != plain.headers["ETag"]) == packed


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("path", PATHS)
def test_a_browser_with_the_current_file_gets_304(shared: Service, path: str, encoding: str) -> None:
    first = get(shared, path, Accept_Encoding=encoding)
    for known in (first.headers["ETag"], f"W/{first.headers['ETag']}", "*"):
        again = get(shared, path, Accept_Encoding=encoding, If_None_Match=known)
        assert (again.status_code, again.data) == (304, b"")
        for name in ("ETag", "Cache-Control", "Vary", "Access-Control-Allow-Origin"):
            assert again.headers.getlist(name) == first.headers.getlist(name)
    assert get(shared, path, Accept_Encoding=encoding, If_None_Match='"other"').data == first.data


@pytest.mark.parametrize("path", PATHS)
def test_head_and_range_get_the_usual_headers(shared: Service, path: str) -> None:
    whole, head = get(shared, path), get(shared, path, "HEAD")
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == whole.headers["Content-Length"]
    for part in ("bytes=0-3", "bytes=99999999-", "bytes=x"):
        answer = get(shared, path, Range=part)
        assert (answer.status_code, answer.data) == (200, whole.data)
    problem_of(get(shared, path, "POST"), 405, "method_not_allowed")


@pytest.mark.parametrize("name", ["0.0.9.js", "99.0.0.mjs", "latest.js", "1.0.js", "%2e.js"])
def test_the_answer_to_an_unknown_version_names_the_current_one(shared: Service, name: str) -> None:
    answer = get(shared, f"/embed-{name}")
    assert f"/embed-{VERSION}.js" in problem_of(answer, 404, "not_found")["detail"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_other_addresses_with_the_same_beginning_serve_no_script(shared: Service) -> None:
    for path in (f"/embed-{VERSION}.ts", f"/embed-{VERSION}", "/embed-1.0.0/.js", "/embed.json"):
        problem_of(get(shared, path), 404, "not_found")
    problem_of(get(shared, f"/embed-apps/{ORDERS}.js", Accept="application/json"), 401, "token_missing")
    assert "Access-Control-Allow-Origin" not in shared.open(shared.token()).headers


# ---- Versions ----


def test_a_published_version_stays_after_an_upgrade(
    shared: Service, monkeypatch: pytest.MonkeyPatch, static: Path
) -> None:
    assert publish(static, minify) == publish(static, minify) == "8.0.0"
    serve(shared, monkeypatch, static)
    assert get(shared, "/embed.js").text.startswith("// minified")
    assert get(shared, "/embed.js").headers["Cache-Control"] == SHORT
    change(static, "8.0.0", "8.0.1")
    serve(shared, monkeypatch, static)
    assert '"8.0.1"' in get(shared, "/embed.js").text
    assert get(shared, "/embed-8.0.1.js").headers["Cache-Control"] == SHORT
    for kind in ("js", "mjs"):
        answer = get(shared, f"/embed-8.0.0.{kind}")
        assert integrity(answer.data) == read_record(static)["8.0.0"][kind]
        assert answer.headers["Cache-Control"] == FOREVER
    assert "/embed-8.0.1.js" in get(shared, "/embed-8.0.2.js").get_json()["detail"]


def test_a_release_serves_the_minified_script_until_the_source_changes(
    shared: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, static: Path
) -> None:
    project = tmp_path / "project"
    shutil.copytree(static, project / "static")
    source = project / "static" / embed_js.SCRIPT
    [made] = publish_static(project, lambda content, _: b"// small\n" + content)
    serve(shared, monkeypatch, source.parent)
    for path in ("/embed.js", "/embed-8.0.0.mjs"):
        answer = get(shared, path)
        assert answer.text.startswith("// small\n")
        assert answer.headers["Cache-Control"] == SHORT

    change(source.parent, '"use strict";', '"use strict"; // why')
    serve(shared, monkeypatch, source.parent)
    assert get(shared, "/embed.js").text == source.read_text("utf-8")
    list(publish_static(project, lambda content, _: content))
    assert not made.exists(), "a result of the former content stays"


def test_a_changed_script_needs_a_new_version(static: Path) -> None:
    publish(static, minify)
    before = read_record(static)
    change(static, '"use strict";', '"use strict"; // why')
    with pytest.raises(SystemExit, match="increase its VERSION"):
        publish(static, minify)
    assert read_record(static) == before


@pytest.mark.parametrize("line", ["", 'const VERSION = "1.0";', "const VERSION = version;"])
def test_a_script_without_a_version_does_not_start(static: Path, line: str) -> None:
    change(static, 'const VERSION = "8.0.0";', line)
    with pytest.raises(ValueError, match="must have one line"):
        Script(static)


def test_published_versions_are_unchanged_and_small() -> None:
    """A published version never changes, and a changed source has a new VERSION: see CONTRIBUTING.md."""
    known, folder = read_record(STATIC), STATIC / embed_js.VERSIONS
    files = {file.name for file in folder.iterdir()} if folder.exists() else set()
    assert files == {f"{version}.js" for version in known} | ({RECORD} if known else set())
    for version, pinned in known.items():
        text = (folder / f"{version}.js").read_text("utf-8")
        assert f'"{version}"' in text
        assert len(gzip.compress(text.encode(), 9)) <= LIMIT_BYTES
        assert integrity(text.encode()) == pinned["js"]
        assert integrity((text + EXPORTS).encode()) == pinned["mjs"]
    assert known.get(VERSION, {}).get("source", integrity(SOURCE.encode())) == integrity(SOURCE.encode())
    assert len(gzip.compress(SOURCE.encode(), 9)) <= SOURCE_LIMIT_BYTES


# ---- The tag ----


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize(
    ("public_url", "at"),
    [
        ("https://embed.example", "https://embed.example"),
        ("https://{app}.embed.example:8443", "https://embed.example:8443"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_the_tag_pins_the_version_of_this_installation(
    shared: Service, monkeypatch: pytest.MonkeyPatch, static: Path, public_url: str, at: str, published: bool
) -> None:
    if published:
        publish(static, minify)
    serve(shared, monkeypatch, static)
    monkeypatch.setitem(shared.app.config, "PUBLIC_URL", public_url)
    for options, kind, start, end in (
        ([], "js", "<script ", " defer></script>\n"),
        (["--module"], "mjs", '<script type="module" ', "></script>\n"),
    ):
        done = shared.app.test_cli_runner().invoke(args=["embed-tag", *options])
        assert done.exit_code == 0, done.output
        found = re.fullmatch(
            f'{start}src="{re.escape(at)}(/embed-8.0.0.{kind})" '
            f'integrity="(.*)" crossorigin="anonymous"{end}',
            done.stdout,
        )
        assert found, done.stdout
        assert integrity(get(shared, found[1]).data) == found[2]
        assert ("not published" in done.stderr) != published


@pytest.mark.parametrize(
    ("public_url", "origin"),
    [
        ("https://embed.example", "https://embed.example"),
        ("https://{app}.embed.example", "https://orders.embed.example"),
    ],
)
def test_the_tag_of_an_app_names_the_frame_that_loads_early(
    shared: Service, monkeypatch: pytest.MonkeyPatch, public_url: str, origin: str
) -> None:
    monkeypatch.setitem(shared.app.config, "PUBLIC_URL", public_url)
    done = shared.app.test_cli_runner().invoke(args=["embed-tag", "--app", "orders"])
    assert done.stdout.splitlines()[1] == (
        f'<pat-embed app="orders" frame="{origin}/embed-apps/{ORDERS}" '
        'token-url="/embed-token" auto-height></pat-embed>'
    )
    missing = shared.app.test_cli_runner().invoke(args=["embed-tag", "--app", "nothing"])
    assert missing.exit_code == 1
    assert "nothing" in missing.stderr


def test_the_tag_needs_public_url(shared: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(shared.app.config, "PUBLIC_URL", None)
    done = shared.app.test_cli_runner().invoke(args=["embed-tag"])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: Set PUBLIC_URL")


# ---- Types ----


def test_the_types_list_every_event() -> None:
    types = (STATIC / "embed.d.ts").read_text("utf-8")
    found = re.search(r"export interface FrameEvents \{(.*?)\n\}", types, re.DOTALL)
    assert found
    scripts = SOURCE + (STATIC / "embed" / "frame.js").read_text("utf-8")
    assert set(re.findall(r'^  "?([a-z:]+)"?:', found[1], re.MULTILINE)) == set(
        re.findall(r'emit\("([a-z:]+)"', scripts)
    )


def test_the_types_list_every_code_that_a_frame_can_report() -> None:
    types = (STATIC / "embed.d.ts").read_text("utf-8")
    found = re.search(r"export type PatEmbedErrorCode =(.*?);$", types, re.DOTALL | re.MULTILINE)
    assert found
    codes = re.findall(r'^  \| "(\w+)"$', found[1], re.MULTILINE)
    assert len(codes) == len(set(codes))
    assert set(codes) == (set(BY_CODE) - OF_BACK_ENDS) | OF_SCRIPTS
