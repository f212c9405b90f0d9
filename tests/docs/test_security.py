"""docs/security.md answers each requirement of OWASP ASVS that the review found open."""

from typing import Final

from tests.support.documents import rows

#: The requirements of version 5.0.0 that the review named.
OPEN: Final = """
3.1.1 3.2.3 3.4.1 3.4.3 3.4.7 3.4.8 3.5.3 3.5.4 3.7.3 3.7.4 3.7.5 4.1.1 4.1.3 4.1.5 4.2.5
7.1.1 7.1.2 7.2.4 7.3.1 7.4.2 7.4.4 7.5.2 7.6.2 8.1.2 8.2.1 8.2.2 8.2.3 8.4.1
10.1.1 10.3.3 10.3.5 10.4.2 10.4.9 10.4.14 11.1.1 11.1.2 11.2.3 11.4.2
13.1.4 13.2.1 13.2.2 13.3.1 13.3.3 13.3.4 13.4.2 13.4.5 14.1.1 14.1.2 14.2.1 14.2.6 14.2.7
16.1.1 16.2.1 16.3.1 16.3.2 16.4.1 16.4.2
"""


def test_each_open_requirement_has_a_row_with_a_state_and_a_reason() -> None:
    found = rows("docs/security.md", "OWASP ASVS 5.0")
    assert [number for number, *_ in found] == OPEN.split()
    for number, about, state, reason in found:
        assert state.split()[0] in ("held", "deviation"), number
        assert about, number
        assert reason, number
