"""An app's functions: their input, and the responses made from their results."""

import io
import re
import textwrap
from typing import Any, Final

import pytest
from jinja2 import ChoiceLoader
from werkzeug.formparser import MultiPartParser
from werkzeug.test import TestResponse

from pat_service.app_folders import find_apps
from pat_service.embed import Registry
from pat_service.http.static_files import static_files
from pat_service.storage.models import Session
from tests.support.people import Frame, Service, boot, changed, problem_of, provision

DESK: Final = "dddddddd-1111-4222-8333-444444444444"
BARE: Final = "bbbbbbbb-1111-4222-8333-444444444444"
GHOST: Final = "99999999-1111-4222-8333-444444444444"
FORM: Final = "application/x-www-form-urlencoded"
MIB: Final = 1024 * 1024

MODULE: Final = """
import io

from flask import Response, abort, make_response, redirect, request, send_file
from marshmallow import Schema, ValidationError, fields

from pat_service.embed import EmbeddedApp, Page

app = EmbeddedApp()


class Question(Schema):
    subject = fields.String(required=True)
    size = fields.Integer(strict=True, required=True)


@app.page("index")
def index(viewer):
    if request.args.get("broken"):
        raise RuntimeError("the vault's code is 4711")
    return {"greeting": f"Hello, {viewer.user.name}", "query": request.args.get("q", "")}


@app.page("other")
def other(viewer):
    return Page("index", {"greeting": "From elsewhere"})


@app.page("onwards")
def onwards(viewer):
    return Page("index")


@app.page("nowhere")
def nowhere(viewer):
    return Page("gone")


@app.page("moved")
def moved(viewer):
    return redirect("/embed-apps/elsewhere")


@app.page("missing")
def missing(viewer):
    abort(404)


@app.page("teapot")
def teapot(viewer):
    abort(Response("short and stout", 418))


@app.page("facts")
def facts(viewer):
    return {"viewer": None, "errors": "mine", "csp_nonce": "mine", "page_url": None}


@app.page("cookie")
def cookie(viewer):
    answer = make_response("baked")
    answer.set_cookie("session", "mine")
    answer.set_cookie("second", "mine")
    return answer


@app.page("form")
def form(viewer):
    return {"greeting": "Ask away"}


@app.form("ask", page="form")
def ask(viewer):
    question = Question().load({"subject": request.form.get("subject", ""), "size": len(request.form)})
    if not question["subject"]:
        raise ValidationError({"subject": ["Say what it is about."]})
    return Page("index", {"greeting": f"Asked: {question['subject']}"})


@app.form("form")
def plain(viewer):
    return {"greeting": f"Got {sorted(request.form)}, {[f.filename for f in request.files.values()]}"}


@app.form("silent", page="index")
def silent(viewer):
    return None


@app.form("whole", page="form")
def whole(viewer):
    raise ValidationError("Everything is wrong.")


@app.form("answer")
def answer(viewer):
    return Response("as it is", 202, {"X-Own": "yes"})


@app.data("numbers")
def numbers(viewer):
    return {"who": viewer.user.email, "app": viewer.app.slug, "of": [1, 2.5, None, "é"]}


@app.data("nothing")
def nothing(viewer):
    return None


@app.data("report.pdf")
def report(viewer):
    return send_file(io.BytesIO(b"%PDF-1.7"), "application/pdf", as_attachment=True, download_name="r e.pdf")


@app.data("note", methods=["POST"])
def note(viewer):
    if not (text := (request.get_json() or {}).get("text")):
        raise ValidationError({"text": ["Say something."]})
    return {"text": text}


@app.data("note")
def read_note(viewer):
    return {"text": "so far"}


@app.data("sizes", methods=["POST"])
def sizes(viewer):
    return {name: len(value) for name, value in request.form.items()}


@app.data("broken")
def broken(viewer):
    raise RuntimeError("the vault's code is 4711")


def not_declared(viewer):
    raise AssertionError("called from outside")
"""

TEMPLATES: Final = {
    "index": """\
        {% extends layout %}
        {% block title %}Desk{% endblock %}
        {% block head %}
        <link rel="stylesheet" href="{{ app_static('desk.css') }}" nonce="{{ csp_nonce }}">
        {% endblock %}
        {% block content %}
        <h1>{{ greeting }}</h1>
        <p>{{ query }}</p>
        <a href="{{ page_url('form', size=1, none=None, list=['a', 'b&c']) }}">{{ data_url('numbers') }}</a>
        {% endblock %}
    """,
    "form": """\
        {% extends layout %}
        {% block content %}
        <h1>{{ greeting }}</h1>
        <input name="subject" value="{{ form.get('subject', '') }}">
        {% for name, texts in errors.items() %}<p id="{{ name }}-error">{{ texts|join(' ') }}</p>{% endfor %}
        {% endblock %}
    """,
    "facts": """\
        {{ viewer.user.email }} {{ viewer.role }} {{ errors }} {{ page_url('index') }}
        {{ csp_nonce != 'mine' }}
    """,
    "part": "<li>{{ viewer.user.name }}</li>",
    "broken": "{{ viewer.no.such.thing }}",
    "includes": "{% include 'apps/desk/_gone.html' %}",
    "_secret": "never alone",
}


#: An app without a title of its own.
BARE_INDEX: Final = "{% extends layout %}{% block content %}<h1>{{ viewer.role }}</h1>{% endblock %}"
BARE_NAME: Final = "</title><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def desk(shared: Service, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """The service with an app of its own, and two without code."""
    folder = tmp_path_factory.mktemp("own")
    package = folder / "own_apps"
    for template, files in (("desk", TEMPLATES), ("bare", {"index": BARE_INDEX})):
        (package / template / "templates").mkdir(parents=True)
        for name, text in files.items():
            (package / template / "templates" / f"{name}.html").write_text(textwrap.dedent(text))
    (package / "__init__.py").write_text("")
    (package / "desk" / "__init__.py").write_text(MODULE)
    (package / "helpers.py").write_text("app = 'no app at all'")
    (package / "desk" / "templates" / "notes.txt").write_text("never")
    (package / "desk" / "static").mkdir()
    (package / "desk" / "static" / "desk.css").write_text("h1 { color: teal }")

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        registry = shared.app.extensions["pat_service.registry"] = Registry("own_apps", find_apps([package]))
    static_files(shared.app).add("apps/desk", package / "desk" / "static")
    loaders = [registry.loader(), shared.app.jinja_env.loader]
    shared.app.jinja_env.loader = ChoiceLoader([loader for loader in loaders if loader])
    own = [
        (DESK, "desk", "desk", "Desk"),
        (BARE, "bare", "bare", BARE_NAME),
        (GHOST, "ghost", "none", "Ghost"),
    ]
    for app_id, slug, template, name in own:
        provision(shared.app, changed("apps", "orders", id=app_id, slug=slug, template=template, name=name))
    return shared


@pytest.fixture(scope="module")
def frame(desk: Service) -> Frame:
    return desk.frame(DESK)


def body(answer: TestResponse) -> str:
    """Return a fragment's text with its spaces collapsed."""
    return " ".join(answer.text.split())


# ---- Pages ----


def test_the_first_page_is_a_document_and_later_pages_are_fragments(desk: Service, frame: Frame) -> None:
    whole, fragment = frame.response, desk.get(frame, "pages/index")
    assert whole.text.startswith("<!doctype html>")
    assert "<h1>Hello, Ana</h1>" in whole.text
    [sheet] = re.findall(
        r'<link rel="stylesheet" href="(/embed-static/[0-9a-f]{12}/apps/desk/[^"]+)"', whole.text
    )
    assert desk.client.get(sheet).text == "h1 { color: teal }"
    assert body(fragment).startswith("<title>Desk</title> <h1>Hello, Ana</h1>")
    assert all(tag not in fragment.text for tag in ("<html", "<head", "<script", "<link", "embed-boot"))
    assert frame.jwt not in fragment.text
    assert boot(whole)["base"] == f"/embed-apps/{DESK}"


def test_addresses_in_a_page_carry_their_query(desk: Service, frame: Frame) -> None:
    text = desk.get(frame, "pages/index").text
    assert f'href="/embed-apps/{DESK}/pages/form?size=1&amp;list=a&amp;list=b%26c"' in text
    assert f"/embed-apps/{DESK}/data/numbers" in text


def test_the_first_page_reads_its_query_too(desk: Service, frame: Frame) -> None:
    token = desk.token(appSlug=None, appId=DESK)
    query = {"personal-access-token": token, "params": "q=%3Cb%3E"}
    opened = desk.client.get(f"/embed-apps/{DESK}", query_string=query)
    assert "<p>&lt;b&gt;</p>" in opened.text
    assert "<p>&lt;b&gt;</p>" in desk.get(frame, "pages/index", query_string={"q": "<b>"}).text


def test_a_page_without_a_function_has_the_common_context(desk: Service, frame: Frame) -> None:
    assert desk.get(frame, "pages/part").text == "<li>Ana</li>"


def test_a_page_function_cannot_hide_the_common_context(desk: Service, frame: Frame) -> None:
    expected = f"ana@acme.test end-user {{}} /embed-apps/{DESK}/pages/index True"
    assert body(desk.get(frame, "pages/facts")) == expected


@pytest.mark.parametrize(
    ("page", "greeting"), [("other", "From elsewhere"), ("onwards", "Hello, Ana"), ("index", "Hello, Ana")]
)
def test_a_page_function_may_answer_with_another_page(
    desk: Service, frame: Frame, page: str, greeting: str
) -> None:
    """If the answer has no context, the other page's own function provides it."""
    assert f"<h1>{greeting}</h1>" in desk.get(frame, f"pages/{page}").text


def test_a_page_function_may_answer_with_a_response(desk: Service, frame: Frame) -> None:
    moved, teapot = desk.get(frame, "pages/moved"), desk.get(frame, "pages/teapot")
    assert (moved.status_code, moved.headers["Location"]) == (302, "/embed-apps/elsewhere")
    assert (teapot.status_code, teapot.text) == (418, "short and stout")


def test_a_response_loses_its_cookies(desk: Service, frame: Frame) -> None:
    answer = desk.get(frame, "pages/cookie")
    assert (answer.status_code, answer.text) == (200, "baked")
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "name",
    [
        *("nothing", "nowhere", "missing", "_secret", "Index", "index.html", "notes.txt", "index%0a"),
        *("index%00", "..%2fdesk%2findex", "../desk/index", "%2e%2e", "", "index/", "éa", "not_declared"),
        "not-declared",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_page_is_not_found(desk: Service, frame: Frame, method: str, name: str) -> None:
    headers = frame.bearer | {"Accept": "application/json"}
    form = {"a": "b"} if method == "POST" else None
    answer = desk.client.open(f"/embed-apps/{DESK}/pages/{name}", method=method, headers=headers, data=form)
    if method == "POST" and name in ("nowhere", "missing"):
        problem_of(answer, 405, "method_not_allowed")
    else:
        problem_of(answer, 404, "not_found")


def test_an_app_without_templates_is_not_found(desk: Service) -> None:
    token = desk.token(appSlug=None, appId=GHOST)
    problem_of(desk.open(token, GHOST, Accept="application/json"), 404, "not_found")


def test_an_app_needs_neither_a_module_nor_titles(desk: Service) -> None:
    bare = desk.frame(BARE)
    for answer in (bare.response, desk.get(bare, "pages/index")):
        assert "<h1>end-user</h1>" in answer.text
        assert "<title>&lt;/title&gt;&lt;img src=x onerror=alert(1)&gt;</title>" in answer.text


@pytest.mark.parametrize("path", ["pages/index?broken=1", "pages/broken", "pages/includes", "data/broken"])
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_a_broken_app_shows_no_details(desk: Service, frame: Frame, path: str, accept: str) -> None:
    address = f"/embed-apps/{DESK}/{path}"
    answer = desk.client.get(address, headers=frame.bearer | {"Accept": accept})
    assert answer.status_code == 500
    assert answer.headers["X-Request-Id"] in answer.text
    if accept == "application/json" or path.startswith("data/"):
        problem_of(answer, 500, "internal_error")
    for detail in ("vault", "RuntimeError", "Traceback", "jinja", "desk.py", "_gone.html", frame.jwt):
        assert detail not in answer.text


def test_a_broken_first_page_contains_no_session(desk: Service) -> None:
    query = {"personal-access-token": desk.token(appSlug=None, appId=DESK), "params": "broken=1"}
    answer = desk.client.get(f"/embed-apps/{DESK}", query_string=query)
    assert answer.status_code == 500
    assert not re.search(r"eyJ[\w-]+\.", answer.text)
    assert "frame-ancestors http://portal.example" in answer.headers["Content-Security-Policy"]


# ---- Forms ----


@pytest.mark.parametrize("kind", [FORM, "multipart/form-data"])
def test_a_form_is_answered_with_a_page(desk: Service, frame: Frame, kind: str) -> None:
    answer = desk.post(frame, "pages/ask", data={"subject": "<b>Ink</b>"}, content_type=kind)
    assert answer.status_code == 200
    assert "<h1>Asked: &lt;b&gt;Ink&lt;/b&gt;</h1>" in answer.text


def test_an_invalid_form_comes_back_with_its_errors(desk: Service, frame: Frame) -> None:
    answer = desk.post(frame, "pages/ask", data={"subject": "", "note": '"><script>'})
    assert answer.status_code == 422
    assert answer.mimetype == "text/html"
    assert "<h1>Ask away</h1>" in answer.text
    assert '<p id="subject-error">Say what it is about.</p>' in answer.text
    assert "frame-ancestors http://portal.example" in answer.headers["Content-Security-Policy"]


def test_an_invalid_form_keeps_the_sent_fields(desk: Service, frame: Frame) -> None:
    answer = desk.post(frame, "pages/whole", data={"subject": '"><img src=x onerror=alert(1)>'})
    assert answer.status_code == 422
    assert 'value="&#34;&gt;&lt;img src=x onerror=alert(1)&gt;"' in answer.text
    assert "Everything is wrong." in answer.text


def test_a_form_without_a_page_uses_the_page_of_its_name(desk: Service, frame: Frame) -> None:
    file = (io.BytesIO(b"ink"), "ink.txt")
    answer = desk.post(frame, "pages/form", data={"b": "1", "a": "2", "file": file})
    assert "Got [&#39;a&#39;, &#39;b&#39;], [&#39;ink.txt&#39;]" in answer.text


def test_a_form_may_answer_with_a_response_or_its_page(desk: Service, frame: Frame) -> None:
    answer = desk.post(frame, "pages/answer", data={"a": "b"})
    assert (answer.status_code, answer.text, answer.headers["X-Own"]) == (202, "as it is", "yes")
    assert "<h1>Hello, Ana</h1>" in desk.post(frame, "pages/silent", data={"a": "b"}).text


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "", "multipart/mixed", "x"])
def test_a_form_of_another_type_is_415(desk: Service, frame: Frame, kind: str) -> None:
    headers = frame.bearer | {"Accept": "application/json"}
    answer = desk.client.post(
        f"/embed-apps/{DESK}/pages/ask", headers=headers, data=b'{"subject": "Ink"}', content_type=kind
    )
    problem_of(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("size", "status"), [(MIB, 200), (MIB + 1, 413)])
@pytest.mark.parametrize("path", ["pages/ask", "data/sizes"])
def test_a_form_may_have_a_mebibyte(
    desk: Service, frame: Frame, path: str, size: int, status: int, chunked: bool
) -> None:
    data = b"subject=Ink&padding="
    data += b"x" * (size - len(data))
    options: dict[str, Any] = {"data": data}
    if chunked:
        options = {"input_stream": io.BytesIO(data), "environ_overrides": {"wsgi.input_terminated": True}}
    assert desk.post(frame, path, content_type=FORM, **options).status_code == status


def multipart(**fields: str) -> dict[str, Any]:
    """Return a multipart form; the client itself would leave a large one in a file."""
    parts = [f'--x\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    return {"data": "".join(parts) + "--x--\r\n", "content_type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize("path", ["pages/ask", "data/sizes"])
def test_one_field_of_a_multipart_form_may_have_the_whole_size(
    desk: Service, frame: Frame, path: str
) -> None:
    large, too_large = (multipart(subject="Ink", padding="x" * size) for size in (900_000, MIB))
    assert desk.post(frame, path, **large).status_code == 200
    assert desk.post(frame, path, **too_large).status_code == 413


DISPOSITION: Final = 'Content-Disposition: form-data; name="subject"'
#: Headers of one part that take long to parse, and their beginning.
LONG_HEADERS: Final = {
    "parameters": DISPOSITION + ";a=b" * 50_000,
    "a quoted value": f'{DISPOSITION}; x="{chr(92) * 200_000}"',
    "an open quote": f'{DISPOSITION}; x="{"y" * 200_000}',
    "lines": DISPOSITION + "\r\na:b" * 50_000,
    "lines that end with LF": DISPOSITION + "\na:" * 60_000,
    "folded lines": DISPOSITION + "\r\n " * 60_000,
    "a boundary inside": f"{DISPOSITION}; x=--x\r\n--x" + ";a=b" * 50_000,
    "a blank line behind the boundary": "\r\n" + DISPOSITION + ";a=b" * 50_000,
    "spaces behind the boundary": "   \r\n" + DISPOSITION + ";a=b" * 50_000,
    "parts": f"{DISPOSITION}{';a=b' * 300}\r\n\r\n\r\n--x\r\n" * 130 + DISPOSITION,
    "a part that looks like two": f"{DISPOSITION}\r\n\r\nx--x\n\r\n--x\r\n\r\n{DISPOSITION}{';a=b' * 50_000}",
}


@pytest.mark.parametrize("name", LONG_HEADERS)
@pytest.mark.parametrize("path", ["pages/ask", "data/sizes"])
def test_long_headers_of_parts_are_refused_unparsed(
    desk: Service, frame: Frame, path: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mebibyte of them occupied the worker for 0.6 s."""

    def parse(*_: object) -> None:
        pytest.fail("the headers were parsed")

    monkeypatch.setattr(MultiPartParser, "parse", parse)
    body = f"--x\r\n{LONG_HEADERS[name]}\r\n\r\nInk\r\n--x--\r\n"
    answer = desk.post(frame, path, data=body, content_type="multipart/form-data; boundary=x")
    assert answer.status_code == 413


def test_a_form_may_have_a_thousand_fields_or_files(desk: Service, frame: Frame) -> None:
    fields = {f"{'name' * 15}{number:03}": "x" for number in range(999)}
    assert desk.post(frame, "pages/ask", **multipart(subject="Ink", **fields)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "options", "field"),
    [
        *(("GET", f"{path}?q=%00", {}, "q") for path in ("pages/index", "pages/part", "data/numbers")),
        ("GET", "pages/index?a%00b=c", {}, "ab"),
        ("POST", "pages/ask?q=%00", {"data": {"subject": "Ink"}}, "q"),
        *(("POST", "pages/ask", {"data": {"subject": text}}, "subject") for text in ("Ink\0", ["Ink", "\0"])),
        ("POST", "pages/ask", {"data": {"subject": "Ink", "a\0": "b"}}, "a"),
        ("POST", "pages/ask", {"data": {"a": "\0"}, "content_type": "multipart/form-data"}, "a"),
        ("POST", "data/sizes", {"data": {"a": "\0"}}, "a"),
        ("POST", "data/note?q=%00", {"json": {"text": "a"}}, "q"),
    ],
)
def test_no_function_receives_a_nul_character(
    desk: Service, frame: Frame, method: str, path: str, options: dict[str, Any], field: str
) -> None:
    address = f"/embed-apps/{DESK}/{path}"
    headers = frame.bearer | {"Accept": "application/json"}
    answer = desk.client.open(address, method=method, headers=headers, **options)
    problem = problem_of(answer, 400, "invalid_payload")
    assert problem["errors"] == {field: ["Must not contain NUL characters."]}


@pytest.mark.parametrize(("method", "place"), [("GET", "query"), ("POST", "form"), ("POST", "query")])
def test_no_function_receives_a_nul_character_when_the_frame_opens(
    desk: Service, method: str, place: str
) -> None:
    sent: dict[str, dict[str, str]] = {"query": {}, "form": {}}
    way = "query" if method == "GET" else "form"
    sent[way]["personal-access-token"] = desk.token(appSlug=None, appId=DESK)
    sent[place]["q"] = "\0"
    before = desk.count(Session)
    options: Any = {"query_string": sent["query"]} | ({"data": sent["form"]} if method == "POST" else {})
    answer = desk.client.open(
        f"/embed-apps/{DESK}", method=method, headers={"Accept": "application/json"}, **options
    )
    problem_of(answer, 400, "invalid_payload")
    assert desk.count(Session) == before


def test_a_form_needs_a_session_before_it_is_read(desk: Service) -> None:
    answer = desk.client.post(f"/embed-apps/{DESK}/pages/ask", data=b"x" * 2 * MIB, content_type="text/plain")
    assert answer.status_code == 401


def test_a_page_refuses_post_and_a_form_refuses_get(desk: Service, frame: Frame) -> None:
    for path in ("pages/index", "pages/part"):
        taken = desk.post(frame, path, data={"a": "b"})
        assert (taken.status_code, taken.headers["Allow"]) == (405, "GET")
    shown = desk.get(frame, "pages/ask")
    assert (shown.status_code, shown.headers["Allow"]) == (405, "POST")


# ---- Data ----


def test_data_is_json(desk: Service, frame: Frame) -> None:
    answer = desk.get(frame, "data/numbers")
    assert answer.mimetype == "application/json"
    assert answer.json == {"who": "ana@acme.test", "app": "desk", "of": [1, 2.5, None, "é"]}
    assert desk.get(frame, "data/nothing").json is None


def test_data_may_be_a_file(desk: Service, frame: Frame) -> None:
    answer = desk.get(frame, "data/report.pdf")
    assert (answer.status_code, answer.data, answer.mimetype) == (200, b"%PDF-1.7", "application/pdf")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="r e.pdf"'


def test_data_can_be_posted_too(desk: Service, frame: Frame) -> None:
    assert desk.post(frame, "data/note", json={"text": "hello"}).json == {"text": "hello"}
    assert desk.get(frame, "data/note").json == {"text": "so far"}


def test_invalid_posted_data_is_a_problem(desk: Service, frame: Frame) -> None:
    problem = problem_of(desk.post(frame, "data/note", json={"text": ""}), 400, "invalid_payload")
    assert problem["errors"] == {"text": ["Say something."]}


@pytest.mark.parametrize("sent", [b"{", b"\xff", b"", b'{"text": "a"'])
def test_malformed_posted_json_is_a_problem(desk: Service, frame: Frame, sent: bytes) -> None:
    answer = desk.post(frame, "data/note", data=sent, content_type="application/json")
    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (400, "invalid_payload")
    assert "errors" in problem


@pytest.mark.parametrize(
    "name", ["gone", "_note", "Note", "note/", "..", "%2e%2e%2fnote", ".note", "note%0a"]
)
def test_unknown_data_is_not_found(desk: Service, frame: Frame, name: str) -> None:
    problem_of(desk.get(frame, f"data/{name}"), 404, "not_found")


def test_data_accepts_only_its_declared_methods(desk: Service, frame: Frame) -> None:
    posted, read = desk.post(frame, "data/numbers", json={}), desk.get(frame, "data/sizes")
    for answer, allowed in ((posted, "GET"), (read, "POST")):
        problem_of(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"] == allowed


# ---- The registry ----


def test_an_app_has_only_its_own_functions(desk: Service) -> None:
    """Bare has no module, so it has none of the desk's functions."""
    bare = desk.frame(BARE)
    problem_of(desk.get(bare, "data/numbers"), 404, "not_found")
    assert desk.get(bare, "pages/form").status_code == 404
    assert desk.post(bare, "pages/ask", data={"subject": "Ink"}).status_code == 404
