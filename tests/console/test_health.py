"""The health page: keys and what depends on them."""

from collections.abc import Callable

import pytest

from pat_service.console import health
from tests.support.console import OLGA, Browser
from tests.support.people import Service

SignIn = Callable[[str], Browser]


def test_the_page_counts_many_tokens_only_when_asked(
    console: Service, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.frame()
    olga = sign_in(OLGA)
    assert "fallback, not in use" not in olga.get("/health").text
    assert 'data-label="Tokens"' in olga.get("/health").text
    monkeypatch.setattr(health, "MAX_COUNTED", 0)
    page = olga.get("/health").text
    assert 'data-label="Tokens"' not in page
    assert '<a href="/health?keys=all">Count them by key</a>' in page
    assert 'data-label="Tokens"' in olga.get("/health?keys=all").text
