"""The lock files have every package of the lists, each with its version and the hashes of its files."""

import re
from collections.abc import Iterator
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.documents import text_of

LISTS = {
    "requirements.txt": "requirements.lock",
    "requirements-demo.txt": "requirements-demo.lock",
    "requirements-dev.txt": "requirements-dev.lock",
}
Entry = tuple[str, str]


def listed(name: str) -> list[Requirement]:
    return [Requirement(line) for line in text_of(name).splitlines() if line[:1] not in ("", "#", "-")]


def locked(name: str) -> dict[Entry, list[str]]:
    """Return the hashes of each name and version."""
    text = re.sub(r"^ *#.*\n", "", text_of(name), flags=re.MULTILINE).replace("\\\n", "")
    found: dict[Entry, list[str]] = {}
    for line in text.splitlines():
        entry, *hashes = line.split(" --hash=")
        requirement = Requirement(entry)
        (pin,) = requirement.specifier
        assert pin.operator == "==", line
        found[str(canonicalize_name(requirement.name)), pin.version] = [hash_.strip() for hash_ in hashes]
    return found


def dependencies(requirement: Requirement, seen: set[str]) -> Iterator[str]:
    """Yield the name of an installed package, and of all packages that it needs on this machine."""
    name = canonicalize_name(requirement.name)
    yield name
    key = f"{name}{sorted(requirement.extras)}"
    if key in seen:
        return
    seen.add(key)
    for needed in map(Requirement, requires(name) or []):
        extras = requirement.extras or {""}
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            yield from dependencies(needed, seen)


@pytest.mark.parametrize(("file", "lock"), LISTS.items())
def test_the_lock_has_every_package_of_its_list_and_their_dependencies(file: str, lock: str) -> None:
    """If this fails, run `make lock`."""
    entries = locked(lock)
    names = {name for name, _ in entries}
    for requirement in listed(file):
        (pin,) = requirement.specifier
        assert (canonicalize_name(requirement.name), pin.version) in entries
        assert set(dependencies(requirement, set())) <= names


@pytest.mark.parametrize("lock", LISTS.values())
def test_every_locked_package_has_hashes_and_no_registry_is_named(lock: str) -> None:
    entries = locked(lock)
    assert entries
    for hashes in entries.values():
        assert hashes
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", hash_) for hash_ in hashes)
    assert "://" not in text_of(lock)
    assert "--index-url" not in text_of(lock)


def test_the_tests_run_with_the_versions_of_a_deployment() -> None:
    runtime, development = locked("requirements.lock"), locked("requirements-dev.lock")
    assert runtime.items() <= development.items()
