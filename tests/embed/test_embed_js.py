"""The script of hosts: one text, for every site, under versions that stay."""

import base64
import gzip
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
from werkzeug.test import TestResponse

from pat_service.embed import embed_js
from pat_service.embed.embed_js import Script
from pat_service.errors import BY_CODE
from tests.support.world import ORDERS, Service, folder_of, lose_the_database, problem_of
from tools.publish_embed import RECORD, STATIC, publish, record

SOURCE: Final = (STATIC / "embed.js").read_text("utf-8")
TEXT: Final = embed_js.spare(SOURCE)
VERSION: Final = embed_js.version_of(TEXT)
PATHS: Final = ["/embed.js", "/embed.mjs", "/embed.d.ts", f"/embed-{VERSION}.js", f"/embed-{VERSION}.mjs"]
#: Of the script as it travels, in bytes.
MOST: Final = 5000
#: Answers to back ends, which no frame meets.
OF_BACK_ENDS: Final = {
    *("invalid_client", "scope_missing", "app_forbidden", "user_not_found", "app_not_found", "conflict"),
}
#: What frames and the script tell without an answer of the service.
OF_SCRIPTS: Final = {"fetch_token_failed", "timeout", "unreachable", "redirect_refused", "unknown"}


def integrity(body: bytes) -> str:
    return f"sha384-{base64.b64encode(hashlib.sha384(body).digest()).decode()}"


def get(service: Service, path: str, method: str = "GET", **headers: str) -> TestResponse:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.client.open(path, method=method, headers=names)


@pytest.fixture
def static(tmp_path: Path) -> Path:
    """A copy of what is published and of the script, to be changed."""
    folder = tmp_path / "static"
    folder.mkdir()
    for name in (embed_js.SCRIPT, embed_js.TYPES):
        shutil.copy(STATIC / name, folder)
    shutil.copytree(STATIC / embed_js.VERSIONS, folder / embed_js.VERSIONS)
    return folder


def change(static: Path, old: str, new: str) -> None:
    file = static / embed_js.SCRIPT
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


# ---- What is served ----


def test_only_indentation_and_comments_are_left_out() -> None:
    source = (
        '// Title\n\n(() => {\n  // why\n  const url = "https://a"; // where\n\n\tgo(a // b);\n'
        "  /x/.test(a);\n})();\n"
    )
    assert embed_js.spare(source) == (
        '// Title\n(() => {\nconst url = "https://a"; // where\ngo(a // b);\n/x/.test(a);\n})();\n'
    )
    left = [line.strip() for line in SOURCE.splitlines()[1:] if line.strip() and line.strip()[:2] != "//"]
    assert TEXT.splitlines()[1:] == left
    # Of a text over several lines the indentation would count.
    assert [line for line in SOURCE.splitlines() if line.count("`") % 2] == []


def test_the_script_is_the_file_and_the_module_is_the_same_with_exports(lasting: Service) -> None:
    classic, module = get(lasting, "/embed.js"), get(lasting, "/embed.mjs")
    assert classic.text == TEXT
    assert module.text == TEXT + (
        "\nexport const PatEmbed = globalThis.PatEmbed;\nexport default PatEmbed;\n"
    )
    assert get(lasting, f"/embed-{VERSION}.js").data == classic.data
    assert get(lasting, f"/embed-{VERSION}.mjs").data == module.data
    assert get(lasting, "/embed.d.ts").data == (STATIC / "embed.d.ts").read_bytes()


@pytest.mark.parametrize("path", PATHS)
def test_pages_of_every_site_may_load_it_and_nothing_else_is_let_in(lasting: Service, path: str) -> None:
    with lasting.statements() as statements:
        answer = get(lasting, path, Origin="https://portal.example", Cookie="a=b")
    assert statements == []
    assert answer.status_code == 200
    kind = "text/plain" if path.endswith(".ts") else "text/javascript"
    assert answer.content_type == f"{kind}; charset=utf-8"
    for name, value in {
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept-Encoding",
    }.items():
        assert answer.headers.getlist(name) == [value]
    assert {"Set-Cookie", "Access-Control-Allow-Credentials", "Accept-Ranges"}.isdisjoint(
        answer.headers.keys()
    )
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_without_a_database_it_is_served_all_the_same(service: Service) -> None:
    lose_the_database(service.app, folder_of(service.app))
    assert [get(service, path).status_code for path in PATHS] == [200] * len(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_whoever_takes_gzip_gets_it(lasting: Service, path: str) -> None:
    plain = get(lasting, path)
    assert "Content-Encoding" not in plain.headers
    packed = get(lasting, path, Accept_Encoding="br, gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert len(packed.data) == int(packed.headers["Content-Length"])
    assert packed.headers["ETag"] != plain.headers["ETag"]


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        *(("gzip", True), ("GZIP", True), ("*", True), ("gzip;q=0.1, identity", True)),
        *(("", False), ("identity", False), ("br", False), ("gzip;q=0", False), ("gzip;q=0, *", False)),
        *(("gzip;q=x", False), (",;=,", False), ("a," * 100_000 + "gzip", False), ("\xff\xfe", False)),
    ],
)
def test_no_wish_for_an_encoding_does_harm(lasting: Service, accepted: str, packed: bool) -> None:
    answer = get(lasting, "/embed.js", Accept_Encoding=accepted)
    assert answer.status_code == 200
    assert ("Content-Encoding" in answer.headers) == packed


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("path", PATHS)
def test_what_a_browser_has_is_not_sent_again(lasting: Service, path: str, encoding: str) -> None:
    first = get(lasting, path, Accept_Encoding=encoding)
    for known in (first.headers["ETag"], f"W/{first.headers['ETag']}", "*"):
        again = get(lasting, path, Accept_Encoding=encoding, If_None_Match=known)
        assert (again.status_code, again.data) == (304, b"")
        for name in ("ETag", "Cache-Control", "Vary", "Access-Control-Allow-Origin"):
            assert again.headers.getlist(name) == first.headers.getlist(name)
    assert get(lasting, path, Accept_Encoding=encoding, If_None_Match='"other"').data == first.data


@pytest.mark.parametrize("path", PATHS)
def test_head_and_range_do_no_harm(lasting: Service, path: str) -> None:
    whole = get(lasting, path)
    head = get(lasting, path, "HEAD")
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == whole.headers["Content-Length"]
    for wanted in ("bytes=0-3", "bytes=99999999-", "bytes=x"):
        part = get(lasting, path, Range=wanted)
        assert (part.status_code, part.data) == (200, whole.data)
    problem_of(get(lasting, path, "POST"), 405, "method_not_allowed")


def test_an_unknown_version_is_told_the_current_one(lasting: Service) -> None:
    for path in (
        "/embed-0.0.9.js",
        "/embed-99.0.0.mjs",
        "/embed-latest.js",
        "/embed-1.0.js",
        "/embed-%2e.js",
    ):
        answer = get(lasting, path)
        assert f"/embed-{VERSION}.js" in problem_of(answer, 404, "not_found")["detail"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
    for path in (f"/embed-{VERSION}.ts", f"/embed-{VERSION}", "/embed-1.0.0/.js", "/embed.json"):
        problem_of(get(lasting, path), 404, "not_found")


# ---- Versions ----


def test_the_short_address_is_asked_for_again_soon(lasting: Service) -> None:
    for path in PATHS[:3]:
        assert get(lasting, path).headers.getlist("Cache-Control") == ["public, max-age=300, no-transform"]


@pytest.mark.parametrize("published", [True, False])
def test_a_published_version_is_kept_for_a_year(
    lasting: Service, monkeypatch: pytest.MonkeyPatch, static: Path, published: bool
) -> None:
    """One that is not may still change, and so is asked for again."""
    change(static, VERSION, "8.0.0")
    if published:
        publish(static)
    monkeypatch.setitem(lasting.app.extensions, "pat_service.script", Script(static))
    kept = "public, max-age=31536000, immutable, no-transform"
    for kind in ("js", "mjs"):
        found = get(lasting, f"/embed-8.0.0.{kind}").headers["Cache-Control"]
        assert found == (kept if published else "public, max-age=300, no-transform")


def test_hosts_that_pinned_a_version_go_on_after_an_upgrade(
    lasting: Service, monkeypatch: pytest.MonkeyPatch, static: Path
) -> None:
    change(static, VERSION, "8.0.0")
    assert publish(static) == publish(static) == "8.0.0"
    change(static, "8.0.0", "8.0.1")
    monkeypatch.setitem(lasting.app.extensions, "pat_service.script", Script(static))
    assert '"8.0.1"' in get(lasting, "/embed.js").text
    for kind, pinned in record(static)["8.0.0"].items():
        assert integrity(get(lasting, f"/embed-8.0.0.{kind}").data) == pinned
    assert "/embed-8.0.1.js" in get(lasting, "/embed-8.0.2.js").get_json()["detail"]


def test_what_is_published_cannot_be_published_otherwise(static: Path) -> None:
    change(static, VERSION, "8.0.0")
    publish(static)
    before = record(static)
    change(static, '"use strict";', '"use strict"; // why')
    with pytest.raises(SystemExit, match="new number"):
        publish(static)
    assert record(static) == before


@pytest.mark.parametrize("line", ["", 'const VERSION = "1.0";', "const VERSION = version;"])
def test_a_script_without_a_version_does_not_start(static: Path, line: str) -> None:
    change(static, f'const VERSION = "{VERSION}";', line)
    with pytest.raises(ValueError, match="must have one line"):
        Script(static)


def test_what_was_published_is_as_it_was() -> None:
    """A change of static/embed.js needs a new VERSION once it is published: see CONTRIBUTING.md."""
    known = Script(STATIC)
    published = {version for version, release in known.releases.items() if release.published}
    assert published == set(record(STATIC))
    for version, pinned in record(STATIC).items():
        found = known.releases[version]
        assert {"js": found.classic.integrity, "mjs": found.module.integrity} == pinned, version
        assert (STATIC / embed_js.VERSIONS / f"{version}.js").is_file()
    assert known.newest == known.releases[VERSION], f"{VERSION} is published: give VERSION a new number"
    assert {file.name for file in (STATIC / embed_js.VERSIONS).iterdir()} == {RECORD} | {
        f"{version}.js" for version in published
    }


def test_it_is_small() -> None:
    assert len(gzip.compress(TEXT.encode(), 9)) <= MOST


# ---- Where it is served ----


@pytest.mark.parametrize("host", ["embed.example", "orders.embed.example", "nothing.embed.example", "x"])
def test_each_host_has_it(lasting: Service, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setitem(lasting.app.config, "PUBLIC_URL", "https://{app}.embed.example")
    assert get(lasting, "/embed.js", Host=host).text == TEXT


@pytest.mark.parametrize(
    ("public_url", "at"),
    [
        ("https://embed.example", "https://embed.example"),
        ("https://{app}.embed.example:8443", "https://embed.example:8443"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_the_tag_of_this_installation(
    lasting: Service, monkeypatch: pytest.MonkeyPatch, public_url: str, at: str
) -> None:
    monkeypatch.setitem(lasting.app.config, "PUBLIC_URL", public_url)
    for options, kind, start, end in (
        ([], "js", "<script ", " defer></script>\n"),
        (["--module"], "mjs", '<script type="module" ', "></script>\n"),
    ):
        done = lasting.app.test_cli_runner().invoke(args=["embed-tag", *options])
        assert done.exit_code == 0, done.output
        found = re.fullmatch(
            f'{start}src="{re.escape(at)}(/embed-{VERSION}.{kind})" '
            f'integrity="(.*)" crossorigin="anonymous"{end}',
            done.stdout,
        )
        assert found, done.stdout
        assert integrity(get(lasting, found[1]).data) == found[2]
        published = lasting.app.extensions["pat_service.script"].newest.published
        assert ("not published" in done.stderr) != published


def test_a_tag_needs_to_know_where_the_service_is(lasting: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lasting.app.config, "PUBLIC_URL", None)
    done = lasting.app.test_cli_runner().invoke(args=["embed-tag"])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: Set PUBLIC_URL")


# ---- Types ----


def test_the_types_know_each_event() -> None:
    types = (STATIC / "embed.d.ts").read_text("utf-8")
    found = re.search(r"export interface FrameEvents \{(.*?)\n\}", types, re.DOTALL)
    assert found
    scripts = SOURCE + (STATIC / "embed" / "frame.js").read_text("utf-8")
    assert set(re.findall(r'^  "?([a-z:]+)"?:', found[1], re.MULTILINE)) == set(
        re.findall(r'emit\("([a-z:]+)"', scripts)
    )


def test_the_types_know_each_code_that_a_frame_can_meet() -> None:
    types = (STATIC / "embed.d.ts").read_text("utf-8")
    found = re.search(r"export type PatEmbedErrorCode =(.*?);$", types, re.DOTALL | re.MULTILINE)
    assert found
    codes = re.findall(r'^  \| "(\w+)"$', found[1], re.MULTILINE)
    assert len(codes) == len(set(codes))
    assert set(codes) == (set(BY_CODE) - OF_BACK_ENDS) | OF_SCRIPTS


# ---- What a mint says of a single use ----


def test_only_a_token_for_one_use_is_called_one(lasting: Service) -> None:
    def minted(**wish: Any) -> dict[str, Any]:
        answer: dict[str, Any] = lasting.mint(**wish).get_json()
        return answer

    assert minted(singleUse=True)["singleUse"] is True
    for usual in (minted(), minted(singleUse=False), minted(singleUse=None)):
        assert "singleUse" not in usual


def test_a_frame_is_no_script(lasting: Service) -> None:
    """The addresses begin alike."""
    answer = lasting.open(lasting.token())
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers
    problem_of(get(lasting, f"/embed-apps/{ORDERS}.js", Accept="application/json"), 401, "token_missing")


def test_the_record_can_be_read_by_hosts(lasting: Service) -> None:
    with lasting.client.get(f"/static/{embed_js.VERSIONS}/{RECORD}") as answer:
        assert json.loads(answer.data) == record(STATIC)
