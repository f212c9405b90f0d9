"""The texts of frames: every catalog has every text of the code."""

import json
import subprocess
import sys
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Final

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from pat_service.embed import texts
from pat_service.embed.advice import ADVICE, UNKNOWN, WORDS, advice, retryable, script_texts
from pat_service.errors import BY_CODE

ROOT: Final = Path(__file__).parent.parent.parent
TRANSLATED: Final = [language for language in texts.LANGUAGES if language != texts.SOURCE]
#: Codes for clients and app developers, which frames never answer.
NOT_OF_FRAMES: Final = {
    "invalid_client",
    "scope_missing",
    "app_forbidden",
    "user_not_found",
    "app_not_found",
    "method_not_allowed",
    "unsupported_media_type",
}


def catalog(path: Path, locale: str | None = None) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale=locale, abort_invalid=True)


def ids(of: Catalog) -> set[str]:
    return {str(message.id) for message in of if message.id}


@cache
def in_the_code() -> set[str]:
    mappings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["babel"]["mappings"]
    methods = [(mapping["pattern"], mapping["method"]) for mapping in mappings]
    return {
        str(message)
        for folder in ("pat_service/embed", "templates/embed")
        for _file, _line, message, _comments, _context in extract_from_dir(ROOT / folder, methods)
    }


def fields(text: str) -> Counter[str | None]:
    return Counter(name for _text, name, _spec, _conversion in Formatter().parse(text) if name is not None)


def test_every_text_of_the_code_is_in_the_template_of_the_catalogs() -> None:
    assert ids(catalog(texts.TRANSLATIONS / "messages.pot")) == in_the_code(), "run make texts"


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_catalog_is_complete_and_has_no_fuzzy_text(language: str) -> None:
    found = catalog(texts.TRANSLATIONS / language / "LC_MESSAGES" / "messages.po", language)
    assert ids(found) == in_the_code(), "run make texts"
    for message in found:
        if message.id:
            assert message.string, f"to be translated: {message.id}"
            assert not message.fuzzy, f"to be looked at: {message.id}"
            assert fields(str(message.string)) == fields(str(message.id)), message.id


@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_all_headings_differ(language: str) -> None:
    headings = [advice(code, language)[0] for code in (*ADVICE, "unknown")]
    assert len(set(headings)) == len(headings)


def test_ana_reads_spanish() -> None:
    assert advice("session_expired", "en")[0] == "Your session has ended"
    assert advice("session_expired", "es")[0] == "Su sesión ha terminado"
    assert advice("teapot", "en") == UNKNOWN
    assert advice("teapot", "es") == tuple(map(texts.translator("es"), UNKNOWN))


def test_every_code_of_a_frame_has_advice() -> None:
    assert set(BY_CODE) - NOT_OF_FRAMES <= set(ADVICE)
    assert not NOT_OF_FRAMES & set(ADVICE)


@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_the_script_has_a_text_for_every_code(language: str) -> None:
    given = script_texts(language)
    assert given is script_texts(language)
    assert json.loads(json.dumps(given)) == given
    assert set(given["codes"]) == {*ADVICE, "unknown"}
    assert all(heading and sentence for heading, sentence in given["codes"].values())
    assert set(given["words"]) == set(WORDS)
    assert set(given["retry"]) <= set(given["codes"])
    assert given["codes"]["token_expired"] == list(advice("token_expired", language))


def test_the_frame_offers_a_button_only_if_another_try_can_help() -> None:
    for code in ("token_expired", "session_expired", "rate_limited", "unavailable", "timeout", "unreachable"):
        assert retryable(code)
    for code in ("access_revoked", "origin_not_allowed", "not_framed", "not_found", "invalid_payload"):
        assert not retryable(code)


@pytest.mark.slow
def test_a_worker_that_serves_english_loads_no_catalog() -> None:
    """Babel would add a tenth of a second to a start, and megabytes of memory."""
    asked = "import sys, app; from pat_service.embed import advice; advice.script_texts('en')"
    subprocess.run(
        [sys.executable, "-c", f"{asked}; assert 'babel' not in sys.modules"], cwd=ROOT, check=True
    )
