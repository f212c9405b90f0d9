"""The tables of the documentation, compared with the code."""

import dataclasses
import inspect
import json
import re
from typing import Any, Final

import pytest
from jinja2 import ChoiceLoader, DictLoader, pass_context
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.runtime import Context
from werkzeug.test import TestResponse

from pat_service import embed as public_api
from pat_service import testing
from pat_service.credentials import CLAIMS, JWT_ALGORITHM, JWT_TYPE
from pat_service.rules.access import Viewer
from pat_service.rules.callers import SCOPES
from tests.support.documents import CODE, codes_in, rows, section, snippets, text_of
from tests.support.people import PORTAL, Service, provision
from tests.support.shared_fixtures import MakeService

MINTING: Final = "docs/host/minting.md"
EMBED_JS: Final = "docs/host/embed-js.md"
REFERENCE: Final = "docs/apps/reference.md"
#: Answers of every operation, which the document does not repeat.
EVERYWHERE: Final = {"method_not_allowed", "internal_error"}
#: Classes that only the frame's own pages and scripts use.
OWN_CLASSES: Final = re.compile(r"embed-|hue-|launch|htmx-request|reference|request-id|by-hand")

#: Names that `pat_service.embed` has for `app.py`, and not for apps.
FOR_THE_SERVICE: Final = {"Registry", "WrongDeclaration", "init_app", "refusal_page"}
#: Names that Flask and Jinja give every template.
FRAMEWORKS_NAMES: Final = {
    *DEFAULT_NAMESPACE,
    *("config", "g", "get_flashed_messages", "request", "session", "url_for"),
    *("_", "embed_texts", "names_in", "static_url"),
}
BARE: Final = "bbbbbbbb-1111-4222-8333-444444444444"


@pytest.fixture(scope="module")
def document(shared: Service) -> dict[str, Any]:
    return json.loads(shared.client.get("/api/openapi.json").data)


def interface(name: str) -> list[str]:
    """Return the members of an interface of embed.d.ts."""
    types = re.sub(r"/\*.*?\*/", "", text_of("static/embed.d.ts"), flags=re.DOTALL)
    [body] = re.findall(rf"interface {name} (?:extends \w+ )?\{{\n(.*?)^\}}", types, re.DOTALL | re.MULTILINE)
    found = re.findall(r'^  (?:readonly )?"?([a-zA-Z:-]+)"?[?<(:]', body, re.MULTILINE)
    return list(dict.fromkeys(found))


def union(name: str) -> set[str]:
    """Return the texts of a union type of embed.d.ts."""
    types = text_of("static/embed.d.ts")
    [body] = re.findall(rf"type {name} =(.*?);", types, re.DOTALL)
    return set(re.findall(r'"([^"]+)"', body))


# ---- Minting ----


def statuses_of(title: str) -> dict[str, int]:
    return {CODE.findall(code)[0]: int(status) for code, status, *_ in rows(MINTING, title)}


def test_every_code_is_documented_with_its_status(document: dict[str, Any]) -> None:
    examples = document["components"]["examples"].items()
    problems = {name: example["value"] for name, example in examples if "value" in example}
    real = {value["code"]: value["status"] for value in problems.values() if "code" in value}
    assert len(real) > 20
    assert statuses_of("A mint") | statuses_of("A token or a session") == real


def test_the_table_of_a_mint_has_exactly_the_codes_of_a_mint(document: dict[str, Any]) -> None:
    components = document["components"]
    answers = document["paths"]["/api/ext/users/personal-access-token"]["post"]["responses"].values()
    real = set(EVERYWHERE)
    for answer in answers:
        name = answer.get("$ref", "").rpartition("/")[2]
        (content,) = (components["responses"][name] if name else answer)["content"].values()
        real |= set(content.get("examples", {})) & set(components["examples"])
    assert set(statuses_of("A mint")) == real


@pytest.mark.parametrize(
    ("kind", "title"),
    [
        ("MintRequest", "Request"),
        ("MintAnswer", "Answer"),
        ("NewcomerRequest", "Create the user at the mint"),
        ("ProblemAnswer", "The shape of an error"),
    ],
)
def test_every_field_is_documented(document: dict[str, Any], kind: str, title: str) -> None:
    assert set(codes_in(MINTING, title)) == set(document["components"]["schemas"][kind]["properties"])


def test_required_fields_of_a_mint_are_marked(document: dict[str, Any]) -> None:
    *alternatives, needed = document["components"]["schemas"]["MintRequest"]["allOf"]
    real = dict.fromkeys(needed["required"], "yes")
    for each in alternatives:
        real |= {one["required"][0]: "one" if len(each["oneOf"]) > 2 else "this" for one in each["oneOf"]}
    marked = {row[0].strip("`"): re.split("[ ,]", row[2])[0] for row in rows(MINTING, "Request")}
    assert {name: mark for name, mark in marked.items() if mark != "no"} == real


def test_scopes_are_documented() -> None:
    assert codes_in("docs/concepts.md", "Scopes") == list(SCOPES)


def test_every_route_is_documented(document: dict[str, Any]) -> None:
    documented = set(codes_in("docs/host/api.md", "Routes"))
    real = {path.removeprefix("/api/ext/") for path in document["paths"] if path.startswith("/api/ext/")}
    short = {"appId": "id", "tokenId": "id", "sessionId": "id", "workspaceId": "id"}
    written = set()
    for path in real:
        names = re.findall(r"\{(\w+)\}", path)
        for place, name in enumerate(names):
            path = path.replace(f"{{{name}}}", f"<{'id' if place == 0 else short.get(name, name)}>")
        written.add(path)
    assert documented == written


# ---- embed.js ----


def test_the_documented_options_are_those_of_the_types() -> None:
    attributes, options = codes_in(EMBED_JS, "Options"), codes_in(EMBED_JS, "Options", 1)
    assert set(attributes) == set(interface("PatEmbedAttributes"))
    assert set(options) == {*interface("FrameOptions"), "tokenUrl", "fetchToken"}


def test_the_documented_reasons_are_those_of_the_types() -> None:
    documented = {row[0].strip("`") for row in rows(EMBED_JS, "The token endpoint") if row[0].startswith("`")}
    assert documented == union("TokenReason")


def test_the_documented_events_are_those_of_the_types() -> None:
    assert codes_in(EMBED_JS, "Events") == interface("FrameEvents")


def test_the_documented_members_of_a_frame_are_those_of_the_types() -> None:
    documented = {name.partition("(")[0] for name in codes_in(EMBED_JS, "The frame")}
    assert documented == set(interface("Frame"))


def test_the_documented_errors_are_those_of_the_types() -> None:
    in_tables = {row[0].strip("`") for row in rows(EMBED_JS, "Errors")}
    members, own = set(interface("PatEmbedError")), union("PatEmbedErrorCode")
    assert in_tables == members | {"message"} | (
        own - set(statuses_of("A token or a session")) - set(statuses_of("A mint"))
    )


# ---- Apps ----


def leaves(kind: Any, path: str) -> list[str]:
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    return [leaf for field in fields for leaf in leaves(field.type, f"{path}.{field.name}")] or [path]


def test_every_field_of_the_viewer_is_documented() -> None:
    assert sorted(codes_in(REFERENCE, "The viewer")) == sorted(leaves(Viewer, "viewer"))


def test_the_public_api_has_every_documented_name() -> None:
    documented = {name.partition("(")[0] for name in codes_in(REFERENCE, "Python") if "@" not in name}
    assert documented == set(public_api.__all__) - FOR_THE_SERVICE


@pass_context
def names_in(context: Context) -> str:
    return " ".join(context.get_all())


@pytest.fixture(scope="module")
def bare_frame(make_shared: MakeService) -> TestResponse:
    """A frame of an app with one page, which prints the names that a template has."""
    service = make_shared()
    templates = service.app.jinja_env
    assert templates.loader
    page = DictLoader({"apps/bare/index.html": "{{ names_in() }}"})
    templates.loader = ChoiceLoader([page, templates.loader])
    templates.globals["names_in"] = names_in
    bare = {"id": BARE, "slug": "bare", "name": "Bare", "workspace": "acme", "template": "bare"}
    provision(service.app, {"apps": [bare | {"users": ["ana@acme.test"], "allowed_origins": [PORTAL]}]})
    return service.open(service.token(appSlug="bare"), BARE)


def test_templates_have_the_documented_names(bare_frame: TestResponse) -> None:
    helpers = [row for row in rows(REFERENCE, "Templates") if not row[0].startswith("`embed-")]
    in_layout = set(re.findall(r"\{% block (\w+) %\}", text_of("templates/embed/frame.html")))
    documented = {CODE.findall(row[0])[0].partition("(")[0] for row in helpers}
    given = set(bare_frame.text.split()) - FRAMEWORKS_NAMES - {"boot", "first_head"}
    assert documented == given | in_layout


def test_the_policy_of_a_frame_is_documented(bare_frame: TestResponse) -> None:
    policy, ancestors = bare_frame.headers["Content-Security-Policy"].rsplit("; ", 1)
    [documented] = [s.text for s in snippets(REFERENCE, "What the browser blocks") if s.language == "csp"]
    assert re.sub(r"nonce-[\w-]+", "nonce-…", policy) == documented.strip()
    assert ancestors == f"frame-ancestors {PORTAL}"


def test_the_documented_css_classes_are_those_of_the_style_sheet() -> None:
    sheet = re.sub(r"/\*.*?\*/", "", text_of("static/embed/embed.css"), flags=re.DOTALL)
    selectors = re.findall(r"([^{}]+)\{", sheet)
    real = {name for selector in selectors for name in re.findall(r"\.([a-z][a-z0-9-]*)", selector)}
    documented = codes_in(REFERENCE, "CSS classes")
    assert len(documented) == len(set(documented))
    assert set(documented) == {name for name in real if not OWN_CLASSES.match(name)}
    properties = set(re.findall(r"`(--[a-z-]+)`", section(REFERENCE, "CSS classes")))
    assert properties <= set(re.findall(r"(--[a-z-]+):", sheet))


# ---- Security ----


def test_the_sessions_format_is_documented() -> None:
    table = {row[0]: row[1] for row in rows("docs/security.md", "Formats")}
    documented = {name for key in table for name in CODE.findall(key)}
    assert documented == {*CLAIMS, "alg", "typ", "kid"}
    assert table["header `alg`"] == f"`{JWT_ALGORITHM}`"
    assert table["header `typ`"] == f"`{JWT_TYPE}`"


def test_the_table_of_tests_names_the_members_of_the_plugin() -> None:
    documented = {name for cell in codes_in(REFERENCE, "Tests") for name in re.findall(r"\.(\w+)", cell)}
    public = {name for kind in (testing.AppFrame, testing.OpenApp) for name in dir(kind) if name[0] != "_"}
    public |= {name for name in testing.AppFrame.__dataclass_fields__ if name[0] != "_"}
    assert public <= documented
    given = set(inspect.signature(testing.OpenApp.__call__).parameters) - {"self", "app"}
    [call] = [cell for cell in codes_in(REFERENCE, "Tests") if cell.startswith("open_app(")]
    assert set(re.findall(r"(\w+)=", call)) == given
