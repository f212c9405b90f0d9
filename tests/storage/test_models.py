"""Ids are UUIDs of version 7."""

from uuid import UUID

import time_machine

from pat_service.storage.models import new_id


def test_an_id_is_a_uuid_of_version_7_that_begins_with_the_time() -> None:
    with time_machine.travel(1_800_000_000, tick=False):
        first = UUID(new_id())
    assert (first.version, first.variant) == (7, "specified in RFC 4122")
    assert first.int >> 80 == 1_800_000_000_000


def test_ids_are_unique_and_later_ids_are_greater() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    with time_machine.travel(4_000_000_000, tick=False):
        assert max(ids) < new_id()
