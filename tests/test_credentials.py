"""Tokens, secrets and their digests: pure functions."""

import copy
import dataclasses
import json
import logging
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
    parse_token,
    redact,
    well_formed,
)
from pat_service.errors import SessionExpired, SessionInvalid, TokenInvalid
from pat_service.observability.lines import RedactingFormatter

OLD, NEW, NEWEST = "o" * 64, "n" * 64, "w" * 64
APP = "8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc"
SESSION, ANA, ACME = (f"{digit * 8}-1111-4222-8333-444444444444" for digit in "abc")
#: Always the same token, so that a failure can be read: 32 bytes of ab, with their checksum.
TOKEN = "pat_" + "ab" * 32 + "a3d79768"


def session(**changes: object) -> SessionClaims:
    now = datetime.now(UTC)
    claims = SessionClaims(SESSION, ANA, APP, ACME, now, now + timedelta(hours=1))
    return dataclasses.replace(claims, **changes)  # type: ignore[arg-type]


# The text of a token


def test_a_token_has_the_form_that_the_contract_publishes() -> None:
    assert re.fullmatch(r"pat_[0-9a-f]{72}", generate(TOKEN_PREFIX).reveal())


def test_the_checksum_is_the_crc32_of_all_before_it_so_that_a_scanner_can_tell() -> None:
    assert parse_token(TOKEN).reveal() == TOKEN


def test_no_two_tokens_are_the_same() -> None:
    assert len({generate(TOKEN_PREFIX).reveal() for _ in range(1000)}) == 1000


@given(st.sampled_from([TOKEN_PREFIX, CLIENT_SECRET_PREFIX]))
def test_what_is_generated_is_well_formed_for_its_own_prefix_alone(prefix: str) -> None:
    text = generate(prefix).reveal()
    assert well_formed(text, prefix)
    assert not any(well_formed(text, other) for other in ("pat", "pcs", "pa", "pat_", "") if other != prefix)


def test_a_client_secret_is_no_token() -> None:
    with pytest.raises(TokenInvalid):
        parse_token(generate(CLIENT_SECRET_PREFIX).reveal())


@given(st.integers(0, len(TOKEN) - 1), st.characters(categories=["L", "N", "P", "S", "Z", "C"]))
def test_the_checksum_catches_any_one_character_that_is_changed(place: int, character: str) -> None:
    changed = TOKEN[:place] + character + TOKEN[place + 1 :]
    assert well_formed(changed, TOKEN_PREFIX) == (changed == TOKEN)


@given(st.integers(0, len(TOKEN)), st.characters())
def test_a_token_with_one_character_more_is_none(place: int, character: str) -> None:
    assert not well_formed(TOKEN[:place] + character + TOKEN[place:], TOKEN_PREFIX)


@given(st.integers(4, len(TOKEN) - 1), st.integers(4, len(TOKEN) - 1))
def test_two_digits_that_changed_places_are_caught(one: int, other: int) -> None:
    letters = list(TOKEN)
    letters[one], letters[other] = letters[other], letters[one]
    assert well_formed("".join(letters), TOKEN_PREFIX) == ("".join(letters) == TOKEN)


@given(st.text())
def test_no_text_from_outside_breaks_the_parser(text: str) -> None:
    for hostile in (text, f"pat_{text}", TOKEN + text + TOKEN):
        with pytest.raises(TokenInvalid):
            parse_token(hostile)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(TOKEN + "\n", id="newline"),
        pytest.param("\ufeff" + TOKEN, id="byte-order-mark"),
        pytest.param(TOKEN.upper(), id="upper-case"),
        pytest.param("PAT_" + TOKEN[4:], id="upper-case-prefix"),
        pytest.param(TOKEN.replace("7", "７"), id="full-width-digit"),
        pytest.param(TOKEN.replace("7", "٧"), id="arabic-digit"),
        pytest.param(TOKEN + "\0", id="nul"),
        pytest.param(TOKEN[:-1] + "\ud800", id="lone-surrogate"),
        pytest.param("pat_" + "a" * 5000, id="five-kilobytes"),
        pytest.param("eyJhbGciOiJIUzI1NiJ9.e30.c2ln", id="a-jwt"),
    ],
)
def test_what_only_looks_like_a_token_is_refused(text: str) -> None:
    with pytest.raises(TokenInvalid):
        parse_token(text)


# Nothing prints


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


def test_a_secret_is_not_written_as_json_by_accident() -> None:
    with pytest.raises(TypeError):
        json.dumps(Secret("open sesame"))


def test_a_secret_has_no_dict_that_a_debugger_or_a_log_would_list() -> None:
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
def test_a_token_is_hidden_wherever_it_stands(before: str, after: str) -> None:
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
        f'{{"personalAccessToken": "{TOKEN}"}}',
        f"{TOKEN}{TOKEN}",
        f"'Authorization Bearer {TOKEN}'",
    ],
)
def test_tokens_and_client_secrets_are_hidden_in_every_spelling(text: str) -> None:
    shown = redact(text).lower()
    assert "abab" not in shown
    assert "hidden" in shown


@pytest.mark.parametrize(
    "form", ["Basic {}", "basic  {}", "Authorization: Basic {}", "'Authorization Basic {}'"]
)
def test_client_credentials_are_hidden(form: str) -> None:
    # portal: and a secret that an operator brought, which has no form of ours
    credentials = "cG9ydGFsOmNvcnJlY3QgaG9yc2UgYmF0dGVyeSBzdGFwbGUgYW5kIG1vcmU="
    shown = redact(form.format(credentials))
    assert credentials[:12] not in shown
    assert "hidden" in shown


def test_a_session_is_hidden() -> None:
    jwt = Keyring(NEW).sign_session(session())
    shown = redact(f"Bearer {jwt}, and again {jwt}")
    assert not any(part in shown for part in jwt.split("."))


def test_what_is_no_secret_stays_readable() -> None:
    line = 'POST /api/ext/users/personal-access-token 201 "A basic fact", path_to/pat/file'
    assert redact(line) == line


@given(st.text())
def test_redacting_twice_is_redacting_once(text: str) -> None:
    once = redact(f"{text}{TOKEN}")
    assert redact(once) == once


def test_a_traceback_in_the_log_holds_no_token(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        try:
            raise RuntimeError(f"no row for {TOKEN}")
        except RuntimeError:
            logging.getLogger("tests").exception("asked for %s", TOKEN)
    line = RedactingFormatter().format(caplog.records[-1])
    assert "Traceback" in line
    assert TOKEN[4:] not in line


# Keys


def test_a_key_has_an_id_that_tells_nothing_and_is_the_same_in_every_process() -> None:
    assert Key(NEW.encode()).id == Key(NEW.encode()).id == "79a4149e2f04"
    assert Key(OLD.encode()).id != Key(NEW.encode()).id
    assert re.fullmatch(r"[0-9a-f]{12}", Key(NEW.encode()).id)


def test_each_purpose_has_a_key_of_its_own() -> None:
    key = Key(NEW.encode())
    derived = {key.for_digests, key.for_sessions, key.derived("key-id"), key.material}
    assert len(derived) == 4
    assert all(len(material) == 32 for material in derived - {key.material})


def test_a_digest_differs_by_key_and_by_secret_and_by_nothing_else() -> None:
    secret, other = generate("pat"), generate("pat")
    key, older = Key(NEW.encode()), Key(OLD.encode())
    assert key.digest(secret) == key.digest(Secret(secret.reveal()))
    assert len({key.digest(secret), key.digest(other), older.digest(secret)}) == 3
    assert len(key.digest(secret)) == 32


def test_the_keyring_knows_its_keys_by_id() -> None:
    keyring = Keyring(NEW, (OLD,))
    assert keyring.get(Key(NEW.encode()).id) == keyring.current
    assert keyring.get(Key(OLD.encode()).id) == Key(OLD.encode())
    assert keyring.get(Key(NEWEST.encode()).id) is None
    assert keyring.get("") is None


def test_a_key_that_is_listed_as_its_own_fallback_does_no_harm() -> None:
    keyring = Keyring(NEW, (NEW,))
    assert keyring.get(keyring.current.id) == keyring.current
    assert keyring.read_session(keyring.sign_session(session()), APP).user_id == ANA


def test_an_old_key_verifies_and_never_signs() -> None:
    old, both = Keyring(OLD), Keyring(NEW, (OLD,))
    assert both.read_session(old.sign_session(session()), APP).session_id == SESSION
    with pytest.raises(SessionInvalid):
        old.read_session(both.sign_session(session()), APP)


def test_a_key_that_is_retired_verifies_no_more() -> None:
    with pytest.raises(SessionInvalid):
        Keyring(NEW).read_session(Keyring(OLD).sign_session(session()), APP)


def test_a_session_reads_back_as_it_was_signed() -> None:
    claims = session()
    read = Keyring(NEW).read_session(Keyring(NEW).sign_session(claims), APP)
    assert read == dataclasses.replace(
        claims,
        issued_at=claims.issued_at.replace(microsecond=0),
        expires_at=claims.expires_at.replace(microsecond=0),
    )


def test_a_session_past_its_time_is_told_apart_from_one_that_never_was() -> None:
    ring = Keyring(NEW)
    past = datetime.now(UTC) - timedelta(hours=2)
    jwt = ring.sign_session(session(issued_at=past, expires_at=past + timedelta(hours=1)))
    with pytest.raises(SessionExpired):
        ring.read_session(jwt, APP)
    with pytest.raises(SessionInvalid):
        Keyring(OLD).read_session(jwt, APP)


@given(st.text())
def test_no_text_from_outside_breaks_the_reader_of_sessions(text: str) -> None:
    for hostile in (text, f"eyJ.{text}.x", f"{text}.{text}.{text}"):
        with pytest.raises(SessionInvalid):
            Keyring(NEW).read_session(hostile, APP)
