"""Tokens, secrets and their digests: pure functions."""

import copy
import dataclasses
import json
import re
import traceback
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pat_service.credentials import (
    CLIENT_SECRET_PREFIX,
    TOKEN_PREFIX,
    Key,
    Keyring,
    Secret,
    SessionClaims,
    generate,
    is_well_formed,
    parse_token,
    redact,
)
from pat_service.errors import SessionExpired, SessionInvalid, TokenInvalid

OLD, NEW, NEWEST = "o" * 64, "n" * 64, "w" * 64
APP = "8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc"
SESSION, ANA, ACME = (f"{digit * 8}-1111-4222-8333-444444444444" for digit in "abc")
#: A constant token, so failures are readable: 32 bytes of ab and their checksum.
TOKEN = "pat_" + "ab" * 32 + "a3d79768"


def session(**changes: object) -> SessionClaims:
    now = datetime.now(UTC)
    claims = SessionClaims(SESSION, ANA, APP, ACME, now, now + timedelta(hours=1))
    return dataclasses.replace(claims, **changes)  # type: ignore[arg-type]


# The text of a token


def test_a_token_has_the_published_form() -> None:
    assert re.fullmatch(r"pat_[0-9a-f]{72}", generate(TOKEN_PREFIX).reveal())


def test_a_token_with_the_right_crc32_is_parsed() -> None:
    assert parse_token(TOKEN).reveal() == TOKEN


def test_generated_tokens_are_unique() -> None:
    assert len({generate(TOKEN_PREFIX).reveal() for _ in range(1000)}) == 1000


@given(st.sampled_from([TOKEN_PREFIX, CLIENT_SECRET_PREFIX]))
def test_a_generated_secret_is_well_formed_for_its_own_prefix_only(prefix: str) -> None:
    text = generate(prefix).reveal()
    assert is_well_formed(text, prefix)
    assert not any(
        is_well_formed(text, other) for other in ("pat", "pcs", "pa", "pat_", "") if other != prefix
    )


@given(st.integers(0, len(TOKEN) - 1), st.characters(categories=["L", "N", "P", "S", "Z", "C"]))
def test_the_checksum_detects_one_changed_character(place: int, character: str) -> None:
    changed = TOKEN[:place] + character + TOKEN[place + 1 :]
    assert is_well_formed(changed, TOKEN_PREFIX) == (changed == TOKEN)


@given(st.integers(0, len(TOKEN)), st.characters())
def test_a_token_with_an_extra_character_is_refused(place: int, character: str) -> None:
    assert not is_well_formed(TOKEN[:place] + character + TOKEN[place:], TOKEN_PREFIX)


@given(st.integers(4, len(TOKEN) - 1), st.integers(4, len(TOKEN) - 1))
def test_the_checksum_detects_two_swapped_characters(one: int, other: int) -> None:
    letters = list(TOKEN)
    letters[one], letters[other] = letters[other], letters[one]
    assert is_well_formed("".join(letters), TOKEN_PREFIX) == ("".join(letters) == TOKEN)


@given(st.text())
def test_the_token_parser_refuses_any_other_text(text: str) -> None:
    for hostile in (text, f"pat_{text}", TOKEN + text + TOKEN):
        with pytest.raises(TokenInvalid):
            parse_token(hostile)


# Secrets never print


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        "{!r}".format,
        "%s".__mod__,
        lambda secret: f"{secret}",
        lambda secret: f"{[secret]} { ({'k': secret}) }",
        lambda secret: "".join(traceback_of(secret)),
    ],
)
def test_a_secret_never_prints(show) -> None:
    shown = show(Secret("open sesame"))
    assert "sesame" not in shown
    assert "hidden" in shown


def traceback_of(secret: Secret) -> list[str]:
    try:
        raise ValueError(secret)
    except ValueError as error:
        return traceback.format_exception(error)


def test_a_secret_cannot_be_serialized_as_json() -> None:
    with pytest.raises(TypeError):
        json.dumps(Secret("open sesame"))


def test_a_secret_has_no_dict() -> None:
    assert not hasattr(Secret("open sesame"), "__dict__")


def test_a_copied_secret_does_not_print_either() -> None:
    assert "sesame" not in repr(copy.deepcopy([Secret("open sesame")]))


def test_keys_and_keyrings_do_not_print() -> None:
    keyring = Keyring(NEW, (OLD,))
    shown = repr(keyring) + repr(keyring.current) + repr(vars(keyring)["keys"])
    assert NEW not in shown
    assert OLD not in shown


# redact()


@given(st.text(), st.text())
def test_a_token_is_redacted_anywhere_in_a_text(before: str, after: str) -> None:
    shown = redact(before + TOKEN + after)
    assert TOKEN not in shown
    assert TOKEN[4:40] not in shown


@pytest.mark.parametrize(
    "text",
    [
        f"GET /embed-apps/x?personal-access-token={TOKEN} HTTP/1.1",
        f"GET /embed-apps/x?personal-access-token={TOKEN.replace('_', '%5F')} HTTP/1.1",
        f"GET /embed-apps/x?personal-access-token={TOKEN.replace('_', '%5f')} HTTP/1.1",
        f"b'{TOKEN[:70]}",
        TOKEN.upper(),
        TOKEN.replace("pat_", "pcs_"),
        TOKEN.replace("pat_", "otc_"),
        f'{{"personalAccessToken": "{TOKEN}"}}',
        f"{TOKEN}{TOKEN}",
        f"'Authorization Bearer {TOKEN}'",
    ],
)
def test_tokens_and_client_secrets_are_redacted_in_every_spelling(text: str) -> None:
    shown = redact(text).lower()
    assert "abab" not in shown
    assert "hidden" in shown


@pytest.mark.parametrize(
    "form", ["Basic {}", "basic  {}", "Authorization: Basic {}", "'Authorization Basic {}'"]
)
def test_client_credentials_are_redacted(form: str) -> None:
    # `portal:` and an operator's own secret, which lacks our prefix
    credentials = "cG9ydGFsOmNvcnJlY3QgaG9yc2UgYmF0dGVyeSBzdGFwbGUgYW5kIG1vcmU="
    shown = redact(form.format(credentials))
    assert credentials[:12] not in shown
    assert "hidden" in shown


def test_a_session_jwt_is_redacted() -> None:
    jwt = Keyring(NEW).sign_session(session())
    shown = redact(f"Bearer {jwt}, and again {jwt}")
    assert not any(part in shown for part in jwt.split("."))


def test_a_text_without_secrets_is_not_redacted() -> None:
    line = 'POST /api/ext/users/personal-access-token 201 "A basic fact", path_to/pat/file'
    assert redact(line) == line


@given(st.text())
def test_redacting_twice_is_redacting_once(text: str) -> None:
    once = redact(f"{text}{TOKEN}")
    assert redact(once) == once


# Keys


def test_a_key_id_is_a_stable_digest() -> None:
    assert Key(NEW.encode()).id == Key(NEW.encode()).id == "79a4149e2f04"
    assert Key(OLD.encode()).id != Key(NEW.encode()).id
    assert re.fullmatch(r"[0-9a-f]{12}", Key(NEW.encode()).id)


def test_each_purpose_has_its_own_derived_key() -> None:
    key = Key(NEW.encode())
    derived = {key.derive("digest"), key.for_sessions, key.derive("key-id"), key.material}
    assert len(derived) == 4
    assert all(len(material) == 32 for material in derived - {key.material})


def test_a_digest_depends_on_the_key_and_the_secret_only() -> None:
    secret, other = generate("pat"), generate("pat")
    key, older = Key(NEW.encode()), Key(OLD.encode())
    assert key.digest(secret) == key.digest(Secret(secret.reveal()))
    assert len({key.digest(secret), key.digest(other), older.digest(secret)}) == 3
    assert len(key.digest(secret)) == 32


def test_a_keyring_finds_its_keys_by_id() -> None:
    keyring = Keyring(NEW, (OLD,))
    assert keyring.get(Key(NEW.encode()).id) == keyring.current
    assert keyring.get(Key(OLD.encode()).id) == Key(OLD.encode())
    assert keyring.get(Key(NEWEST.encode()).id) is None
    assert keyring.get("") is None


def test_the_current_key_may_also_be_a_fallback() -> None:
    keyring = Keyring(NEW, (NEW,))
    assert keyring.get(keyring.current.id) == keyring.current
    assert keyring.read_session(keyring.sign_session(session()), APP).user_id == ANA


def test_a_fallback_key_verifies_but_never_signs() -> None:
    old, both = Keyring(OLD), Keyring(NEW, (OLD,))
    assert both.read_session(old.sign_session(session()), APP).session_id == SESSION
    with pytest.raises(SessionInvalid):
        old.read_session(both.sign_session(session()), APP)


def test_a_removed_key_no_longer_verifies() -> None:
    with pytest.raises(SessionInvalid):
        Keyring(NEW).read_session(Keyring(OLD).sign_session(session()), APP)


def test_a_signed_session_reads_back_unchanged() -> None:
    claims = session()
    read = Keyring(NEW).read_session(Keyring(NEW).sign_session(claims), APP)
    assert read == dataclasses.replace(
        claims,
        issued_at=claims.issued_at.replace(microsecond=0),
        expires_at=claims.expires_at.replace(microsecond=0),
    )


def test_an_expired_session_differs_from_an_invalid_one() -> None:
    ring = Keyring(NEW)
    past = datetime.now(UTC) - timedelta(hours=2)
    jwt = ring.sign_session(session(issued_at=past, expires_at=past + timedelta(hours=1)))
    with pytest.raises(SessionExpired):
        ring.read_session(jwt, APP)
    with pytest.raises(SessionInvalid):
        Keyring(OLD).read_session(jwt, APP)


@given(st.text())
def test_the_session_reader_refuses_any_other_text(text: str) -> None:
    for hostile in (text, f"eyJ.{text}.x", f"{text}.{text}.{text}"):
        with pytest.raises(SessionInvalid):
            Keyring(NEW).read_session(hostile, APP)


# Cookies and hosts of upstream apps.


def test_a_cookie_reads_back_with_each_configured_key() -> None:
    old, both = Keyring(OLD), Keyring(NEW, (OLD,))
    assert old.read_cookie(old.sign_cookie(SESSION)) == SESSION
    assert (
        both.read_cookie(old.sign_cookie(SESSION)) == both.read_cookie(both.sign_cookie(SESSION)) == SESSION
    )
    assert both.sign_cookie(SESSION) != old.sign_cookie(SESSION)
    assert old.read_cookie(both.sign_cookie(SESSION)) is None


@given(place=st.integers(0, 41), character=st.sampled_from("AZaz09_-"))
def test_a_cookie_with_one_changed_character_is_refused(place: int, character: str) -> None:
    # The last of the 43 characters has two bits that mean nothing.
    value = Keyring(NEW).sign_cookie(SESSION)
    changed = value[:place] + character + value[place + 1 :]
    assert Keyring(NEW).read_cookie(changed) == (SESSION if changed == value else None)


@given(st.text())
def test_the_cookie_reader_refuses_any_other_text(text: str) -> None:
    for hostile in (text, text[:43], text[:42].ljust(43, "A"), text[:43].ljust(43, "-")):
        assert Keyring(NEW).read_cookie(hostile) is None


def test_a_cookie_is_redacted() -> None:
    value = Keyring(NEW).sign_cookie(SESSION)
    text = redact(f"Cookie: a=b; __Host-pat-12345678={value}; c=d")
    assert value not in text
    assert text.endswith("; c=d")


def test_a_tag_depends_on_the_key_app_user_and_attributes() -> None:
    ring = Keyring(NEW, (OLD,))
    tags = {
        key.viewer_tag(app, user, attributes)
        for key in ring.keys
        for app in (APP, SESSION)
        for user in (ANA, SESSION)
        for attributes in (None, {"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"a": [1]}, {"b": 1})
    }
    assert len(tags) == 2 * 2 * 2 * 7
    assert all(re.fullmatch("[a-z2-7]{12}", tag) for tag in tags)
    assert all(ring.is_viewer_tag(key.viewer_tag(APP, ANA, {}), APP, ANA, None) for key in ring.keys)
    assert not ring.is_viewer_tag(Keyring(NEWEST).current.viewer_tag(APP, ANA, None), APP, ANA, None)


#: What a mint takes as the value of an attribute.
SCALARS = st.one_of(st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))


@given(st.dictionaries(st.text(), st.one_of(SCALARS, st.lists(SCALARS))))
def test_attributes_that_a_database_gives_back_have_the_same_tag(attributes: dict) -> None:
    current = Keyring(NEW).current
    stored = json.loads(json.dumps(dict(reversed(attributes.items()))))
    assert current.viewer_tag(APP, ANA, stored) == current.viewer_tag(APP, ANA, attributes)
