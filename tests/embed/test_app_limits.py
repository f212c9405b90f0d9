"""The declarations of an app: sources of its policy, permissions, the size of uploads, and preloads."""

import re
from typing import Any

import pytest
from flask import Response
from werkzeug.test import TestResponse

from pat_service.embed import EmbeddedApp, WrongDeclaration, ancestors
from pat_service.embed.app_limits import AppLimits, parse_limits
from pat_service.shapes import GRANTABLE
from tests.support.people import LEDGER, ORDERS, PORTAL, SUPPORT, Service

TILES = "https://tiles.example"
MAP: dict[str, Any] = {
    "csp": {
        "img-src": [TILES, "https://b.tiles.example:8443"],
        "connect-src": [TILES, "data:"],
        "worker-src": ["blob:"],
        "script-src": ["'wasm-unsafe-eval'"],
        "frame-src": ["https://video.example"],
    },
    "permissions": ["geolocation", "fullscreen"],
}


def declare(
    csp: Any = None,
    max_upload: Any = None,
    permissions: Any = (),
    preload: Any = (),
    *,
    development: bool = False,
) -> AppLimits:
    return parse_limits(csp, max_upload, permissions, preload, development=development)


@pytest.fixture
def mapped(service: Service, monkeypatch: pytest.MonkeyPatch) -> EmbeddedApp:
    """Orders declares what a map needs."""
    embedded = EmbeddedApp(**MAP)
    registry = service.app.extensions["pat_service.registry"]
    monkeypatch.setitem(registry._apps, "orders", embedded)
    registry.apply_limits(development=False)
    return embedded


def policy_of(answer: TestResponse) -> dict[str, str]:
    (text,) = answer.headers.getlist("Content-Security-Policy")
    text = re.sub(r"'nonce-[\w-]+'", "NONCE", text)
    return dict(part.strip().partition(" ")[::2] for part in text.split(";"))


# ---- Answers ----


def test_every_answer_of_the_app_has_its_policy(service: Service, mapped: EmbeddedApp) -> None:
    frame = service.frame()
    ancestors._known.clear()
    path = f"/embed-apps/{ORDERS}"
    answers = [
        service.client.get(f"{path}/frame"),  # the document that later holds the app's page
        frame.response,
        service.get(frame, "pages/index"),
        service.get(frame, "pages/nothing"),
        service.client.get(path),
        service.open("pat_0"),
        service.get(frame, "session"),
    ]
    for answer in answers:
        assert policy_of(answer) == {
            "default-src": "'none'",
            "script-src": "NONCE 'wasm-unsafe-eval'",
            "style-src": "NONCE",
            "img-src": f"'self' data: blob: {TILES} https://b.tiles.example:8443",
            "font-src": "'self'",
            "connect-src": f"'self' {TILES} data:",
            "media-src": "'self' blob:",
            "form-action": "'none'",
            "base-uri": "'none'",
            "worker-src": "blob:",
            "frame-src": "https://video.example",
            "frame-ancestors": PORTAL,
        }
        denied = answer.headers["Permissions-Policy"].split(", ")
        features = {each.partition("=")[0] for each in denied}
        assert features & set(GRANTABLE) == {"camera", "microphone", "clipboard-write"}
        assert {"usb", "payment", "display-capture"} <= features
        assert all(each.endswith("=()") for each in denied)
        assert "Cross-Origin-Embedder-Policy" not in answer.headers


def test_another_app_keeps_the_default(service: Service, mapped: EmbeddedApp) -> None:
    for path in (f"/embed-apps/{SUPPORT}", f"/embed-apps/{SUPPORT}/frame"):
        answer = service.client.get(path)
        assert TILES not in answer.headers["Content-Security-Policy"]
        assert "geolocation=()" in answer.headers["Permissions-Policy"]
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"


def test_a_launcher_passes_on_what_its_apps_may_do(service: Service, mapped: EmbeddedApp) -> None:
    answer = service.client.get(f"/embed-workspaces/{LEDGER}/frame")
    assert TILES not in answer.headers["Content-Security-Policy"]
    denied = answer.headers["Permissions-Policy"]
    assert "geolocation" not in denied
    assert "fullscreen" not in denied
    assert "camera=()" in denied
    # A page with this header shows only frames that have it too.
    assert "Cross-Origin-Embedder-Policy" not in answer.headers


def test_an_apps_own_response_cannot_widen_what_it_declared(service: Service, mapped: EmbeddedApp) -> None:
    loose = {
        "Content-Security-Policy": "default-src *",
        "Content-Security-Policy-Report-Only": "default-src 'none'; report-uri https://mallory.example",
        "Permissions-Policy": "camera=*",
        "Permissions-Policy-Report-Only": "camera=();report-to=mallory",
        "Feature-Policy": "camera *",
        "Report-To": '{"group":"mallory","max_age":1,"endpoints":[{"url":"https://mallory.example"}]}',
        "Reporting-Endpoints": 'mallory="https://mallory.example"',
        "NEL": "{}",
        "Clear-Site-Data": '"*"',
        "Refresh": "0;url=https://mallory.example",
        "Service-Worker-Allowed": "/",
        "Document-Policy": "js-profiling",
    }
    mapped.data("loose")(lambda viewer: Response("hello", headers=loose))
    frame = service.frame()
    answer, usual = service.get(frame, "data/loose"), service.get(frame, "session")
    assert answer.text == "hello"
    assert policy_of(answer) == policy_of(usual)
    assert answer.headers.getlist("Permissions-Policy") == usual.headers.getlist("Permissions-Policy")
    assert "mallory" not in str(answer.headers)
    assert not (loose.keys() - usual.headers.keys()) & set(answer.headers.keys())


# ---- Declarations ----


def test_an_app_without_origins_of_images_media_and_frames_can_be_in_isolated_hosts() -> None:
    csp = {"connect-src": [TILES], "font-src": [TILES], "worker-src": ["blob:"]}
    assert declare(csp).is_isolated
    for name in ("img-src", "media-src", "frame-src"):
        assert not declare({name: [TILES]}).is_isolated
    assert declare({"img-src": ["blob:"]}).is_isolated


def test_an_origin_is_written_as_browsers_write_it() -> None:
    limits = declare({"img-src": ["HTTPS://Tiles.Example:443", TILES]})
    assert f"img-src 'self' data: blob: {TILES};" in limits.policy


def test_a_source_on_this_machine_is_for_development_only() -> None:
    for origin in ("http://localhost:8000", "http://127.0.0.1"):
        assert origin in declare({"img-src": [origin]}, development=True).policy
        with pytest.raises(WrongDeclaration, match="exact https origins"):
            declare({"img-src": [origin]})


@pytest.mark.parametrize(
    ("csp", "text"),
    [
        *(
            ({"img-src": [source]}, "csp has .* in img-src: allowed are exact https origins, data:, blob:")
            for source in (
                *("*", "https:", "http://tiles.example", "https://*.tiles.example", "tiles.example"),
                *("https://tiles.example/path", "https://tiles.example; script-src *", "'self'", "ws:"),
                *("https://tiles.example\r\nX: y", "https://a.example https://b.example", "'unsafe-inline'"),
                *("https://a.example,default-src *", "wss://tiles.example", "capacitor://localhost", ""),
                *("https://user@a.example", "https://a.example:0", "{nonce}", None, 7, ["https://a.example"]),
            )
        ),
        *(
            ({"script-src": [source]}, "in script-src: allowed are 'wasm-unsafe-eval'$")
            for source in (TILES, "'unsafe-eval'", "'unsafe-inline'", "'strict-dynamic'", "blob:", "data:")
        ),
        ({"worker-src": [TILES]}, "in worker-src: allowed are blob:$"),
        ({"worker-src": ["data:"]}, "in worker-src"),
        ({"frame-src": ["data:"]}, "in frame-src: allowed are exact https origins$"),
        ({"frame-src": ["blob:"]}, "in frame-src"),
        ({"font-src": ["blob:"]}, "in font-src: allowed are exact https origins, data:$"),
        *(
            ({name: [TILES]}, f"csp has '{name}': only img-src, ")
            for name in (
                "default-src",
                "style-src",
                "object-src",
                "frame-ancestors",
                "form-action",
                "IMG-SRC",
            )
        ),
        ({"img-src; script-src": [TILES]}, "csp has 'img-src; script-src'"),
        ({7: [TILES]}, "csp has 7"),
        ({"img-src": TILES}, "csp img-src must be a list of texts, not 'https://tiles.example'"),
        ({"img-src": None}, "csp img-src must be a list"),
        ([TILES], "csp must be a dictionary"),
        (TILES, "csp must be a dictionary"),
    ],
)
def test_any_other_source_is_refused_in_one_line(csp: Any, text: str) -> None:
    with pytest.raises(WrongDeclaration, match=text) as refused:
        declare(csp)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("permissions", [["usb"], ["Camera"], "camera", ["camera=*"], [None], 7])
def test_an_unknown_permission_is_refused(permissions: Any) -> None:
    with pytest.raises(WrongDeclaration, match="permissions"):
        declare(permissions=permissions)


@pytest.mark.parametrize("preload", [["own.woff2"], ["own"], [""], "own.css", [None]])
def test_only_scripts_and_style_sheets_can_be_preloaded(preload: Any) -> None:
    with pytest.raises(WrongDeclaration, match="preload"):
        declare(preload=preload)


@pytest.mark.parametrize("size", ["25", "25MB", "0 MB", "101 MB", "-1 MB", "1.5 MB", "25 GB", "٢ MB", 25, ""])
def test_another_size_of_uploads_is_refused(size: Any) -> None:
    with pytest.raises(WrongDeclaration, match=r"max_upload is .*such as '25 MB', at most 100 MB"):
        declare(max_upload=size)


def test_a_size_of_uploads_is_in_mib() -> None:
    assert declare().upload_bytes == 1024 * 1024
    assert declare(max_upload="25 MB").upload_bytes == 25 * 1024 * 1024


def test_a_wrong_declaration_names_the_app(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = service.app.extensions["pat_service.registry"]
    monkeypatch.setitem(registry._apps, "orders", EmbeddedApp(permissions=["usb"]))
    with pytest.raises(WrongDeclaration, match=r"^apps/orders: permissions has 'usb': choose from camera, "):
        registry.apply_limits(development=False)
