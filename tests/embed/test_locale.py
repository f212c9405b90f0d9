"""A frame's locale, language and theme: chosen by the host, or else by the browser."""

import pytest
from flask import Flask

from pat_service.embed import locale


@pytest.fixture(scope="module")
def bare() -> Flask:
    return Flask(__name__)


def wished(bare: Flask, query: str = "", accept: str | None = None) -> tuple[str, str]:
    headers = {} if accept is None else {"Accept-Language": accept}
    with bare.test_request_context(f"/?{query}", headers=headers):
        return locale.locale(), locale.language()


@pytest.mark.parametrize(
    ("query", "accept", "tag", "language"),
    [
        *(("", None, "en", "en"), ("locale=es", None, "es", "es"), ("locale=es-MX", None, "es-MX", "es")),
        *(("locale=ES_mx", None, "es-MX", "es"), ("locale=es-latn-419", None, "es-Latn-419", "es")),
        *(("locale=es-ES-u-nu-latn", None, "es-ES", "es"), ("locale=pt-BR", None, "pt-BR", "en")),
        *(("locale=pt", "es", "pt", "en"), ("locale=en", "es", "en", "en")),
        *(("locale=", "es-AR", "es-AR", "es"), ("locale=es&locale=en", None, "es", "es")),
        *(("", "es", "es", "es"), ("", "es-MX,es;q=0.9,en;q=0.8", "es-MX", "es")),
        ("", "en;q=0.5, es-MX;q=0.9", "es-MX", "es"),
        *(("", "pt-BR,pt;q=0.9,es;q=0.5,en;q=0.4", "pt-BR", "es"), ("", "de", "de", "en")),
        *(("", "es;q=0, en", "en", "en"), ("", "*", "en", "en"), ("", "*, es;q=0.5", "es", "es")),
        ("", "", "en", "en"),
    ],
)
def test_the_host_chooses_the_language_before_the_browser(
    bare: Flask, query: str, accept: str | None, tag: str, language: str
) -> None:
    assert wished(bare, query, accept) == (tag, language)


HOSTILE = [
    *("../../x", "..%2f..%2fes", "es%00", "es%0d%0aX-Evil:1", "e", "espanol", "es-", "es--MX"),
    *("es/../../etc", "%C3%A9s", "%D9%A1%D9%A2", "es-" + "x" * 500_000, "<script>", "es" * 250_000),
    *("es" + "-a" * 250_000, "__proto__"),
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_an_invalid_locale_is_ignored(bare: Flask, hostile: str) -> None:
    assert wished(bare, f"locale={hostile}", "es-MX") == ("es-MX", "es")
    assert wished(bare, f"locale={hostile}&locale=es") == ("en", "en")


@pytest.mark.parametrize(
    "hostile",
    [
        *("es" + ",es" * 170_000, "a;q=" * 125_000, "," * 500_000, ";" * 500_000),
        *('es;q="' + "\\" * 500_000, "../../x, \0, es\0", "es;q=nan", "es;q=-1", "es;q=1e400", "é" * 100),
        "=?utf-8?q?es?=",
    ],
    ids=range(11),
)
def test_mallorys_accept_language_is_ignored(bare: Flask, hostile: str) -> None:
    with bare.test_request_context(environ_overrides={"HTTP_ACCEPT_LANGUAGE": hostile}):
        assert (locale.locale(), locale.language()) in [("en", "en"), ("es", "es")]


@pytest.mark.parametrize(
    ("query", "header", "theme"),
    [
        *(("", None, "auto"), ("theme=dark", None, "dark"), ("theme=light", "dark", "light")),
        *(("theme=auto", "dark", "auto"), ("theme=", "dark", "dark"), ("", "dark", "dark")),
        *(("", "DARK", "auto"), ("theme=dark%00", None, "auto"), ("theme=" + "x" * 500_000, None, "auto")),
        *(("theme=dark&theme=light", None, "dark"), ('theme="><script>', None, "auto")),
    ],
)
def test_the_host_chooses_the_theme_before_the_viewers_system(
    bare: Flask, query: str, header: str | None, theme: str
) -> None:
    headers = {} if header is None else {"X-Embed-Theme": header}
    with bare.test_request_context(f"/?{query}", headers=headers):
        assert locale.theme() == theme
