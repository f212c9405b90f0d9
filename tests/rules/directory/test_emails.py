"""Older versions stored emails that no request can name."""

import pytest
from sqlalchemy import update

from pat_service.rules.directory import emails
from pat_service.rules.directory.emails import UnreachableUser
from pat_service.storage.models import User
from tests.support.directory import ANA, BEN, MALLORY, Directory


def store(directory: Directory, email: str, stored: str) -> None:
    directory.service.change(update(User).where(User.email == email).values(email=stored))


def list_unreachable(directory: Directory) -> list[UnreachableUser]:
    with directory.service.app.app_context():
        return emails.list_unreachable()


def test_valid_emails_are_reachable(directory: Directory) -> None:
    store(directory, ANA, "ana@bücher.example")
    assert list_unreachable(directory) == []


def test_every_page_of_users_is_read_and_the_result_is_sorted(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emails, "READ_ROWS", 1)
    stored = {ANA: "b b@acme.test", BEN: "Ben@acme.test", MALLORY: "a\u200ba@acme.test"}
    for email, text in stored.items():
        store(directory, email, text)
    assert [(user.email, user.other_id) for user in list_unreachable(directory)] == [
        (email, None) for email in ("Ben@acme.test", "a\u200ba@acme.test", "b b@acme.test")
    ]


def test_the_user_who_has_the_normalized_email_is_named(directory: Directory) -> None:
    store(directory, BEN, "ANA@acme.test")
    assert list_unreachable(directory) == [
        UnreachableUser(directory.user(BEN), "ANA@acme.test", directory.user(ANA), ANA)
    ]
