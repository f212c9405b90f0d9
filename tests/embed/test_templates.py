"""The templates contain nothing that the policy blocks or that avoids escaping.

The scan reads the source, so it also finds code that no page shows now.
"""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from threading import Lock
from time import sleep
from typing import Final

import pytest
from flask import Flask

from tests.support.line import source_of
from tests.support.servers import PROJECT

TEMPLATES: Final = PROJECT / "templates"
APPS: Final = PROJECT / "apps"
#: A team may add apps, which follow rules of their own.
OURS: Final = [APPS / name for name in ("orders", "support")]


def files_of(folders: Iterable[Path], pattern: str) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob(pattern)) if path.is_file()]


#: The sources of our own scripts, without those of vendors and the minified files of a release.
SCRIPTS: Final = [
    file
    for file in files_of((PROJECT / "static", *OURS), "*.js")
    if "vendor" not in file.relative_to(PROJECT).parts and source_of(file.name) == file.name
]

JINJA: Final = re.compile(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
#: Attributes in macros are outside tags, so the scan reads texts as well.
LOOSE_ATTRIBUTE: Final = re.compile(r"(?<=[\s\"'])(style|on[a-z]+)\s*=\s*[\"']", re.IGNORECASE)
UNESCAPED: Final = re.compile(r"\|\s*safe\b|\bautoescape\s+false|\bMarkup\s*\(", re.IGNORECASE)
ELSEWHERE: Final = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
SCRIPT_URL: Final = re.compile(r"\s*(?:javascript|vbscript|data:text/html)\s*:?", re.IGNORECASE)
#: Attributes with addresses that an element loads.
LOADS: Final = ("src", "srcset", "href", "xlink:href", "data", "poster", "action", "formaction", "background")
FRAMES: Final = ("iframe", "frame", "object", "embed", "applet", "base")
#: htmx evaluates these as scripts or writes to the browser's history.
HTMX_BLOCKED: Final = ("hx-on", "hx-push-url", "hx-replace-url", "hx-history", "hx-preserve")
#: Sanitizers leave attributes that begin with data-, so the frame reads none of them.
WITHOUT_EFFECT: Final = ("data-hx-", "data-embed-")


class Scan(HTMLParser):
    """Collect the faults of one template. `area` selects the policy: embed, apps, portal or api."""

    def __init__(self, source: str, area: str) -> None:
        super().__init__(convert_charrefs=True)
        self.area = area
        self.wrong: list[str] = []
        self.in_head = False
        self._look_for_texts(source)
        # Blocks become markers, to distinguish a script in the head from one in the content.
        marked = re.sub(r"\{%-?\s*block\s+(\w+)\s*-?%\}", r"<jinja-\1>", source)
        marked = re.sub(r"\{%-?\s*endblock\b.*?%\}", "<jinja-end>", marked)
        self.feed(JINJA.sub(lambda found: self._placeholder(found.group()), marked))
        self.close()

    @staticmethod
    def _placeholder(jinja: str) -> str:
        """Replace an expression by the function that it calls, and a statement by a space."""
        if not jinja.startswith("{{"):
            return " "
        found = re.search(r"\b(data_url|page_url|csp_nonce)\b", jinja)
        return f"jinja-{found.group(1)}" if found else "jinja"

    def _look_for_texts(self, source: str) -> None:
        without_comments = re.sub(r"\{#.*?#\}", "", source, flags=re.DOTALL)
        if UNESCAPED.search(without_comments):
            self.wrong.append("unescaped")
        if LOOSE_ATTRIBUTE.search(without_comments):
            self.wrong.append("attribute that is a script or a style")
        if re.search(r"url\(\s*['\"]?(?:https?:)?//|@import", without_comments):
            self.wrong.append("resource from elsewhere")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag.startswith("jinja-"):
            self.in_head = tag == "jinja-head"
            return
        given = {name: value or "" for name, value in attrs}
        self._check_tag(tag, given)
        for name, value in given.items():
            self._check_attribute(tag, name, value)

    def _check_tag(self, tag: str, given: dict[str, str]) -> None:
        if tag in FRAMES and self.area != "portal":
            self.wrong.append("frame or base")
        if tag == "meta" and "http-equiv" in given:
            self.wrong.append("meta in place of a header")
        nonced = given.get("nonce") == "jinja-csp_nonce"
        if tag == "style" and not (self.area == "apps" and self.in_head and nonced):
            self.wrong.append("style element")
        if tag == "script":
            data = given.get("type") == "application/json"
            if self.area == "portal" and not given.get("src"):
                self.wrong.append("inline script")
            if self.area == "embed" and not (nonced or data):
                self.wrong.append("script without a nonce")
            if self.area in ("api", "console") and not (nonced and given.get("src")):
                self.wrong.append("script without a nonce")
            if self.area == "apps" and not (self.in_head and nonced and given.get("src")):
                self.wrong.append("script in a fragment")
        if tag == "link" and given.get("rel") == "stylesheet" and self.area != "portal" and not nonced:
            self.wrong.append("stylesheet without a nonce")

    def _check_attribute(self, tag: str, name: str, value: str) -> None:
        if name.startswith("on") or name == "style":
            self.wrong.append("attribute that is a script or a style")
        if name in LOADS and SCRIPT_URL.match(value):
            self.wrong.append("address that is a script")
        if name in LOADS and tag != "a" and ELSEWHERE.match(value.partition(",")[0]):
            self.wrong.append("resource from elsewhere")
        if name.startswith(WITHOUT_EFFECT):
            self.wrong.append("attribute that nothing reads")
        # Only the console changes its address. A frame's history belongs to the host page.
        if name.startswith(HTMX_BLOCKED) and (self.area, name) != ("console", "hx-push-url"):
            self.wrong.append("htmx that the policy blocks")
        if name.startswith("hx-") and re.match(r"\s*(js|javascript):", value):
            self.wrong.append("htmx that the policy blocks")
        if name == "hx-trigger" and re.search(r"\[.*[^=\w\s'\"-].*\]", re.sub(r"target:\S+", "", value)):
            self.wrong.append("htmx that the policy blocks")
        if name in ("src", "href", "action") and "jinja-data_url" in value:
            self.wrong.append("address that cannot carry the session")
        if name == "src" and "jinja-page_url" in value:
            self.wrong.append("address that cannot carry the session")


def area_of(template: Path) -> str:
    return "apps" if template.is_relative_to(APPS) else template.relative_to(TEMPLATES).parts[0]


def templates() -> list[Path]:
    return files_of((TEMPLATES, *(app / "templates" for app in OURS)), "*")


@pytest.mark.parametrize("template", templates(), ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_template_contains_nothing_that_the_policy_blocks(template: Path) -> None:
    areas = ("embed", "apps", "portal", "api", "gateway", "console")
    assert area_of(template) in areas, "a new area needs a policy of its own here"
    assert Scan(template.read_text("utf-8"), area_of(template)).wrong == []


def test_every_template_has_an_escaped_type() -> None:
    assert {path.suffix for path in templates()} <= {".html", ".svg", ".xml"}


#: By fault and area.
PLANTED: Final[dict[str, dict[str, list[str]]]] = {
    "attribute that is a script or a style": {
        "apps": [
            *('<button onclick="go()">', "<body\nonload = 'go()'>", "<a OnMouseOver=go()>"),
            *('<b {% if x %}onclick="go()"{% endif %}>', '{% macro m() %} onclick="go()"{% endmacro %}'),
            *('<p style="color: red">', "<p class='a' STYLE='color: {{ colour }}'>"),
            "<svg><rect style='fill: red'/></svg>",
        ],
        "embed": ['<p style="color: red">'],
        "portal": ['<p style="color: red">'],
    },
    "style element": {
        "apps": ["<style>p { color: red }</style>", '<style nonce="{{ csp_nonce }}">p {}</style>'],
        "embed": ['<style nonce="{{ csp_nonce }}">p {}</style>'],
    },
    "script without a nonce": {
        "embed": [
            *("<script>go()</script>", '<script src="/static/x.js"></script>'),
            *('<script nonce="{{ nonce }}">go()</script>', '<script nonce="abc">go()</script>'),
        ],
        "api": ['<script src="/static/x.js"></script>', '<script nonce="{{ csp_nonce }}">go()</script>'],
    },
    "stylesheet without a nonce": {
        "api": ['<link rel="stylesheet" href="a.css">'],
        "apps": ['{% block head %}<link rel="stylesheet" href="a.css">{% endblock %}'],
    },
    "script in a fragment": {
        "apps": [
            '{% block content %}<script nonce="{{ csp_nonce }}" src="a.js"></script>',
            '<script nonce="{{ csp_nonce }}" src="a.js"></script>',
            '<script type="application/json">1</script>',
            '{% block head %}<script src="a.js"></script>{% endblock %}',
            '{% block head %}{% endblock %}<script src="a.js" nonce="{{ csp_nonce }}">',
        ],
    },
    "inline script": {"portal": ["<script>go()</script>"]},
    "resource from elsewhere": {
        "portal": ['<script src="https://cdn.example/x.js"></script>'],
        "embed": ['<link rel="stylesheet" href="https://fonts.example/a">'],
        "apps": [
            *('<img src="https://elsewhere.example/a.png">', '<img src="//elsewhere.example/a.png">'),
            '<img srcset="HTTP://elsewhere.example/a.png 2x">',
            '<svg><use href="https://elsewhere.example/a.svg#b"/></svg>',
            '<form action="https://elsewhere.example/">',
        ],
    },
    "address that is a script": {
        "apps": [
            *('<a href="javascript:go()">', '<a href=" JavaScript:go()">'),
            '<form action="javascript:go()">',
        ],
    },
    "htmx that the policy blocks": {
        "apps": [
            *('<a hx-on:click="go()">', '<a hx-on--after-request="go()">'),
            *('<a hx-get="x" hx-push-url="true">', "<a hx-vals='js:{a: b}'>"),
            '<a hx-trigger="click[ctrlKey && go()]">',
        ],
    },
    "attribute that nothing reads": {
        "apps": [
            *('<a data-hx-get="x">', "<img data-embed-src=\"{{ data_url('a.png') }}\" alt=''>"),
        ],
    },
    "unescaped": {
        "apps": [
            *("{{ name|safe }}", "{{ name | safe }}", "{% autoescape false %}{{ name }}{% endautoescape %}"),
        ],
    },
    "frame or base": {
        "apps": ["<iframe src='/x'></iframe>", "<base href='/x'>"],
    },
    "meta in place of a header": {
        "apps": ["<meta http-equiv='refresh' content='0'>"],
    },
    "address that cannot carry the session": {
        "apps": ["<img src=\"{{ data_url('a.png') }}\">", "<a href=\"{{ data_url('a.csv') }}\">"],
    },
}


@pytest.mark.parametrize("wrong", PLANTED)
def test_the_scan_finds_planted_faults(wrong: str) -> None:
    page = (APPS / "orders" / "templates" / "order.html").read_text("utf-8")
    for area, sources in PLANTED[wrong].items():
        for source in sources:
            # The scan must find the fault alone, and inside one of our pages.
            for text in (source, page + source):
                assert wrong in Scan(text, area).wrong, (area, text)


HARMLESS: Final = [
    ("apps", '<a href="{{ page_url(\'index\') }}">On = "on"</a>'),
    ("apps", '<img embed-src="{{ data_url(\'a.png\') }}" alt="">'),
    ("apps", "<button embed-download=\"{{ data_url('a.csv') }}\">"),
    ("apps", '<form method="post" action="{{ page_url(\'ask\') }}">'),
    ("apps", '<input hx-trigger="submit, change target:input[type=radio], input delay:250ms">'),
    (
        "apps",
        '{% block head %}<script src="a.js" nonce="{{ csp_nonce }}" defer></script>{% endblock %}',
    ),
    ("apps", '{% block head %}<style nonce="{{ csp_nonce }}"></style>{% endblock %}'),
    ("embed", '<script nonce="{{ csp_nonce }}">go()</script>'),
    ("embed", '<script type="application/json">{{ boot|tojson }}</script>'),
    ("portal", "<script src=\"{{ url_for('static', filename='a.js') }}\" defer></script>"),
    ("portal", '<svg xmlns="http://www.w3.org/2000/svg"></svg>'),
]


@pytest.mark.parametrize(("area", "source"), HARMLESS)
def test_the_scan_accepts_valid_templates(area: str, source: str) -> None:
    assert Scan(source, area).wrong == []


def without_comments(script: str) -> str:
    return re.sub(r"/\*.*?\*/|^\s*//.*?$|\s//\s.*?$", "", script, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_our_scripts_store_nothing_and_evaluate_no_text(script: Path) -> None:
    # The only exception is a session's first page, which the service made.
    text = without_comments(script.read_text("utf-8")).replace("document.write(opening.page);", "")
    kept = r"localStorage|sessionStorage|indexedDB|document\.cookie|window\.name|\bcaches\."
    code = (
        r"\beval\(|new Function|\.write(?:ln)?\(|\.innerHTML|\.outerHTML|insertAdjacentHTML|setAttribute\(.on"
    )
    assert re.findall(kept, text) == []
    assert re.findall(code, text) == []
    assert not re.search(r"postMessage\([^;]*,\s*[\"']\*[\"']\s*\)", text), "messages go to exact origins"
    assert "https://" not in text.replace("https://example", "")


def test_styles_load_nothing_from_elsewhere() -> None:
    for file in files_of((PROJECT / "static", *OURS), "*.css"):
        text = file.read_text("utf-8")
        assert not re.search(r"@import|url\(\s*['\"]?(?:https?:)?//", text), file.name


def test_threads_compile_templates_one_at_a_time(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 can raise SystemError if two threads parse a number (`ast.literal_eval`) at once."""
    busy, seen = Lock(), []

    def compile_slowly(*_: object, **__: object) -> None:
        seen.append(busy.acquire(blocking=False))
        sleep(0.05)
        busy.release()

    monkeypatch.setattr("jinja2.Environment.compile", compile_slowly)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(app.jinja_env.compile, ["{{ 1 }}"] * 4))
    assert seen == [True] * 4
