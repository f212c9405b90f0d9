"""Checks of emails, ids and origins in input."""

import re
import unicodedata
from collections.abc import Callable
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from pat_service import shapes
from pat_service.api.fields import EMAIL_PATTERN
from pat_service.shapes import (
    MAX_ORIGIN_LENGTH,
    ORIGIN_PATTERN,
    check_email,
    check_text,
    check_variety,
    is_loopback,
    is_uuid,
    normalize_email,
    parse_origin,
    parse_uuid,
)
from tests.support.people import make_secret

CONTROLS = ["\0", "\t", "\n", "\r", "\x1b", "\x7f", "\x85", "\ud800", "\udfff"]
ORDERS = "8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc"


def is_refused(check: Callable[[str], object], text: str) -> bool:
    try:
        check(text)
    except ValidationError:
        return True
    return False


# Emails


@given(st.text())
def test_a_normalized_email_is_lower_case_nfc_and_stays_the_same(email: str) -> None:
    normalized = normalize_email(email)
    assert normalize_email(normalized) == normalized
    assert unicodedata.is_normalized("NFC", normalized)
    assert normalized == normalized.lower()


@given(st.emails())
def test_every_spelling_of_an_email_normalizes_to_the_same_text(email: str) -> None:
    spellings = [email.upper(), email.lower(), email.swapcase(), unicodedata.normalize("NFD", email)]
    assert {normalize_email(spelling) for spelling in spellings} == {normalize_email(email)}


@given(st.emails())
def test_every_standard_email_passes(email: str) -> None:
    check_email(email)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ana@Acme.Test", "ana@acme.test"),
        ("JOSÉ@acme.test", "jose\u0301@acme.test"),
        ("Å@acme.test", "\u212b@acme.test"),  # the Ångström sign
        ("Ἀ@acme.test", "\u03b1\u0313@acme.test"),
        ("ana@bücher.example", "ana@XN--bcher-kva.Example"),
        ("ana@BÜCHER.example", "ana@bu\u0308cher.example"),
        ("ana@faß.de", "ana@xn--fa-hia.de"),
        ("ana@例え.xn--r8jz45g", "ana@xn--r8jz45g.例え"),
    ],
)
def test_two_spellings_of_one_email_are_equal(one: str, other: str) -> None:
    assert normalize_email(one) == normalize_email(other)


@pytest.mark.parametrize(
    ("ana", "mallory"),
    [
        ("ana@acme.test", "аna@acme.test"),  # a Cyrillic а
        ("ana@acme.test", "ana@acme.test "),
        ("ana@acme.test", "ａna@acme.test"),  # full-width: NFKC would fold it
        ("strasse@acme.test", "straße@acme.test"),  # casefold() would fold it
        ("ana@acme.test", "ana\u200b@acme.test"),
        ("i@acme.test", "ı@acme.test"),
        ("ana@fass.de", "ana@faß.de"),  # IDNA 2003, a transitional mapping, would fold it
        ("ana@σοφός.example", "ana@σοφόσ.example"),
        ("ana@acme.test", "ana@ａcme.test"),
    ],
)
def test_mallory_cannot_spell_an_email_that_becomes_anas(ana: str, mallory: str) -> None:
    assert normalize_email(ana) != normalize_email(mallory)


@pytest.mark.parametrize(
    "email",
    [
        *("", "@", "ana", "ana@", "@acme.test", "ana@acme@test", "@@", "ana@acme.test@", "a" * 253 + "@b"),
        # Not one plain address.
        *("Ana <ana@acme.test>", "<ana@acme.test>", "ana@acme.test,ben@acme.test", "ana@acme.test;"),
        *(
            '"ana"@acme.test',
            "ana(x)@acme.test",
            "ana\\@acme.test",
            "mailto:ana@acme.test",
            "[ana]@acme.test",
        ),
        # No domain.
        *("ana@acme..test", "ana@.test", "ana@acme.", "ana@-acme.test", "ana@acme-.test", "ana@[192.0.2.1]"),
        *("ana@my_host.test", "ana@" + "a" * 64, "ana@acme.test/", "ana@acme.test:25", "ana@*.test"),
        # IDNA 2008 has no mappings, and each label has one form in ASCII.
        *(
            "ana@ａcme.test",
            "ana@acme。test",
            "ana@xn--acme-",
            "ana@xn--",
            "ana@xn--a",
            "ana@xn--zzzzzz99999",
        ),
        *("ana@ab--é.test", "ana@♥.test", "ana@ﬁ.test", "ana@xn--fuball-cta.xn--ss-"),
        # NFC turns these into ASCII.
        *("mi\u212ae@acme.test", "ana\u037e@acme.test", "\u1fef@acme.test", "ana@\u212a.test"),
    ],
)
def test_an_invalid_email_is_refused(email: str) -> None:
    assert is_refused(check_email, email)


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("place", [0, 3, 13])
def test_an_email_with_a_control_character_is_refused(control: str, place: int) -> None:
    assert is_refused(check_email, "ana@acme.test"[:place] + control + "ana@acme.test"[place:])


@pytest.mark.parametrize(
    "unseen", "\x20\xa0\u3000\u2028\u2029\u200b\u200d\u2060\ufeff\xad\u202e\u2066\ue000\u0378"
)
@pytest.mark.parametrize("place", [0, 3, 4, 13])
def test_an_email_with_a_blank_or_an_invisible_character_is_refused(unseen: str, place: int) -> None:
    """Two emails that look the same are not two users."""
    assert is_refused(check_email, "ana@acme.test"[:place] + unseen + "ana@acme.test"[place:])


@pytest.mark.parametrize("unseen", "\u3164\u115f\u1160\u034f\ufe0f\U000e0100\u2800")
def test_an_email_with_a_filler_or_a_variation_selector_is_refused(unseen: str) -> None:
    assert is_refused(check_email, f"ana{unseen}@acme.test")


@pytest.mark.parametrize(
    "email",
    [
        *("ana+x@acme.test", "o'brien@acme.test", "a.b..c.@acme.test", "ana@localhost", "ana@a--b.test"),
        *(
            "josé@acme.test",
            "аna@acme.test",
            "ana@bücher.example",
            "ana@xn--bcher-kva.example",
            "用户@例え.jp",
        ),
    ],
)
def test_a_plain_email_is_accepted(email: str) -> None:
    check_email(email)


@given(st.from_regex(EMAIL_PATTERN, fullmatch=True).filter(lambda text: len(text) <= 200))
def test_every_email_of_the_documented_pattern_is_accepted(email: str) -> None:
    check_email(email)
    check_email(normalize_email(email))


@given(st.text(max_size=40).map(lambda text: f"{text}@xn--bcher-kva.example"))
def test_the_normalized_form_of_a_valid_email_is_valid(email: str) -> None:
    if not is_refused(check_email, email):
        assert not is_refused(check_email, normalize_email(email))


def test_a_long_text_is_refused_before_its_characters_are_read() -> None:
    """Normalizing 15 KB of combining marks would take a tenth of a second."""
    with patch.object(shapes, "unicodedata", None):
        assert is_refused(check_email, "a" + "\u0301" * 8000 + "@acme.test")


def test_an_email_has_at_most_254_characters_before_and_after_normalization() -> None:
    check_email("a" * 252 + "@b")
    assert is_refused(check_email, "a" * 253 + "@b")
    grows = "İ" * 150 + "@b"  # lower case: an i and a dot above
    assert len(grows) <= 254 < len(normalize_email(grows))
    assert is_refused(check_email, grows)


@given(st.text())
def test_a_check_accepts_or_refuses_any_text_and_raises_no_other_error(text: str) -> None:
    for check in (check_text, check_email, parse_uuid, parse_origin):
        is_refused(check, text)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_a_name_may_contain_anything_but_control_characters(name: str) -> None:
    check_text(name)


@pytest.mark.parametrize("control", CONTROLS)
def test_a_name_with_a_control_character_is_refused(control: str) -> None:
    assert is_refused(check_text, f"A{control}na")


# Ids


@given(st.uuids())
def test_a_uuid_is_parsed_to_lower_case(uuid) -> None:
    assert parse_uuid(str(uuid)) == parse_uuid(str(uuid).upper()) == str(uuid)
    assert is_uuid(str(uuid))


def test_an_upper_case_uuid_is_parsed_but_is_not_a_stored_id() -> None:
    assert parse_uuid(ORDERS.upper()) == ORDERS
    assert not is_uuid(ORDERS.upper())


@pytest.mark.parametrize(
    "text",
    [
        *("", ORDERS + "\n", " " + ORDERS, "{" + ORDERS + "}", "urn:uuid:" + ORDERS, ORDERS.replace("-", "")),
        *(ORDERS[:-1], ORDERS + "0", ORDERS.replace("8", "８"), ORDERS.replace("b", "g")),
        *(ORDERS.replace("-", "\u2010"), ORDERS[:-1] + "\0", ORDERS[:-1] + "\ud800"),
    ],
)
def test_a_text_that_only_resembles_a_uuid_is_refused(text: str) -> None:
    assert is_refused(parse_uuid, text)
    assert not is_uuid(text)


# Origins


@pytest.mark.parametrize(
    "origin",
    [
        *("*", "https://portal.example", "http://localhost:8000", "http://127.0.0.1:5000"),
        *("https://portal.example:8443", "https://xn--bcher-kva.example", "https://a-b.c-d.example"),
        *("http://portal", "https://portal.example:1", "https://portal.example:65535"),
        *("capacitor://localhost", "ionic://localhost", "tauri://localhost"),
        "chrome-extension://aapbdbdomjkkjkaonfhkkikfgjllcleb",
        "moz-extension://8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc",
        "safari-web-extension://8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc",
        "https://localhost",  # Capacitor on Android
        *("http://tauri.localhost", "https://tauri.localhost", "https://" + "a" * 253 + ":65535"),
    ],
)
def test_an_exact_origin_is_accepted_unchanged(origin: str) -> None:
    assert parse_origin(origin) == origin


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("HTTPS://Portal.Example", "https://portal.example"),
        ("https://portal.example:443", "https://portal.example"),
        ("http://portal.example:80", "http://portal.example"),
        ("http://portal.example:0080", "http://portal.example"),
        ("http://portal.example:443", "http://portal.example:443"),
        ("https://portal.example:80", "https://portal.example:80"),
        ("https://portal.example:08443", "https://portal.example:8443"),
        ("Capacitor://LocalHost", "capacitor://localhost"),
        ("safari-web-extension://" + ORDERS.upper(), "safari-web-extension://" + ORDERS),
    ],
)
def test_an_origin_is_stored_as_browsers_write_it(written: str, stored: str) -> None:
    assert parse_origin(written) == stored
    assert parse_origin(stored) == stored


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "'self'", "'none'", "https:", "https://", "portal.example", "//portal.example"),
        *("https://*.example.com", "https://*", "*.example.com", "**", "* https://mallory.example"),
        *("https://portal.example/", "https://portal.example/path", "https://portal.example?x"),
        *("https://portal.example#x", "https://portal.example\\", "https://ana@portal.example"),
        *("https://ana:pw@portal.example", "https://portal.example:", "https://portal.example:0"),
        *("https://portal.example:65536", "https://portal.example:99999", "https://portal.example:123456"),
        *("https://portal.example:-1", "https://portal.example:*", "https://portal.example:８０"),
        *("https://portal..example", "https://.portal.example", "https://portal.example."),
        *("https://portal_example", "https://pörtal.example", "https://portal。example"),
        *("https://por%74al.example", "http://[::1]", "http://[::1]:8000", "file:///etc/passwd", "file://"),
        *("data:text/html,x", "javascript://portal.example", "ftp://portal.example", "ws://portal.example"),
        *("https:/portal.example", "https:///portal.example", " https://portal.example"),
        *("https://portal.example ", "https://portal.example https://mallory.example"),
        *("https://portal.example,https://mallory.example", "https://portal.example; script-src *"),
        *("https://portal.example;script-src", "https://portal.example\r\nSet-Cookie: a=b"),
        *("https://portal.example\n", "https://portal.example\t", "https://portal.example\0"),
        "https://portal.example\ud800",
    ],
)
def test_an_inexact_origin_is_refused(text: str) -> None:
    assert is_refused(parse_origin, text)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("capacitor://portal.example", "Must be capacitor://localhost, without a port or path."),
        ("capacitor://localhost:8080", "Must be capacitor://localhost, without a port or path."),
        ("ionic://localhost/", "Must be ionic://localhost, without a port or path."),
        ("tauri://", "Must be tauri://localhost, without a port or path."),
        ("tauri://*", "Must be tauri://localhost, without a port or path."),
        ("chrome-extension://*", "32 letters from a to p"),
        ("chrome-extension://" + "a" * 31, "32 letters from a to p"),
        ("chrome-extension://" + "a" * 33, "32 letters from a to p"),
        ("chrome-extension://" + "a" * 31 + "q", "32 letters from a to p"),
        ("chrome-extension://" + "a" * 32 + ":443", "without a port"),
        ("moz-extension://orders", "the extension's UUID"),
        ("moz-extension://" + ORDERS.replace("-", ""), "the extension's UUID"),
        ("safari-web-extension://" + ORDERS + "/popup.html", "without a port or path"),
        ("http://[::1]:8000", "a page's policy cannot name an IPv6 address"),
        ("opera://localhost", "Must be an exact origin"),
        ("https://" + "a" * 300, "Must be an exact origin"),
    ],
)
def test_the_error_names_the_form_that_the_scheme_requires(text: str, advice: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(advice)):
        parse_origin(text)


ORIGINS = st.sampled_from(
    [
        "https://portal.example",
        "http://127.0.0.1:8000",
        "capacitor://localhost",
        "chrome-extension://" + "ap" * 16,
        "moz-extension://" + ORDERS,
        "*",
    ]
)
BREAKS = st.text(alphabet="htps:/*'.-a1 ;,\r\n\t\"@[]#?\\_%\u212a\u2028\x00", max_size=8)


@given(ORIGINS, st.integers(0, 60), BREAKS, BREAKS)
def test_an_accepted_origin_is_one_source_of_a_policy(origin: str, place: int, middle: str, end: str) -> None:
    """No accepted origin ends a directive, a policy or a header, or names more than one origin."""
    try:
        stored = parse_origin(origin[:place] + middle + origin[place:] + end)
    except ValidationError:
        return
    assert stored.isascii()
    assert stored == "*" or stored.count("/") == 2
    assert not set(stored.removeprefix("*")) & set(" \r\n\t;,'\"@?#\\*[]%_\0")
    assert len(stored) <= MAX_ORIGIN_LENGTH
    assert parse_origin(stored) == stored


@given(st.from_regex(ORIGIN_PATTERN, fullmatch=True))
def test_the_openapi_pattern_accepts_only_origins(text: str) -> None:
    if len(text) <= MAX_ORIGIN_LENGTH:
        assert re.search(ORIGIN_PATTERN, parse_origin(text))


@pytest.mark.parametrize("host", ["localhost", "orders.localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"])
def test_a_host_of_the_viewers_own_machine_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        *("", "0.0.0.0", "::", "10.0.0.1", "embed.example", "localhost.example", "notlocalhost"),
        "127.0.0.1.example",
    ],
)
def test_another_host_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


# Variety of secrets.


@pytest.mark.parametrize(
    "secret", ["a" * 40, "abcdefg" * 6, "0123456789abcdef" * 2, "0123456789abcdef" * 2 + "0", "12" * 16]
)
def test_a_secret_of_low_variety_is_refused(secret: str) -> None:
    assert is_refused(check_variety, secret)


@pytest.mark.parametrize("secret", ["abcdefgh" + "a" * 24, "0123456789abcdef" * 2 + "1", make_secret("x")])
def test_a_varied_secret_is_accepted(secret: str) -> None:
    check_variety(secret)
