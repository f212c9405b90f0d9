"""Addresses of apps that run elsewhere, their first pages, and the own addresses of workspaces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from pat_service.addresses import Site, check_start, parse_apps_url, parse_upstream

HOSTS = "https://{app}.embed.example"


@pytest.mark.parametrize(
    ("spellings", "address"),
    [
        (["http://10.0.0.7:8501", "HTTP://10.0.0.7:08501"], "http://10.0.0.7:8501"),
        (["http://sales", "http://SALES:80", "http://sales:080"], "http://sales"),
        (["https://sales.internal:443", "https://Sales.Internal"], "https://sales.internal"),
        (["http://my_app:8501"], "http://my_app:8501"),
        (["http://[::1]:8501", "http://[0:0:0:0:0:0:0:1]:8501", "http://[::0001]:8501"], "http://[::1]:8501"),
        (["http://[fd00:AB::7]"], "http://[fd00:ab::7]"),
        (["http://[::ffff:10.0.0.7]:8501", "http://[::ffff:a00:7]:8501"], "http://10.0.0.7:8501"),
        (["http://bücher.example", "http://BÜCHER.example"], "http://xn--bcher-kva.example"),
        (["http://xn--bcher-kva.example", "http://XN--BCHER-KVA.example"], "http://xn--bcher-kva.example"),
    ],
)
def test_all_spellings_of_an_upstream_are_one_text(spellings: list[str], address: str) -> None:
    assert [parse_upstream(text) for text in spellings] == [address] * len(spellings)
    assert parse_upstream(address) == address


WRONG_UPSTREAMS = [
    "",
    "10.0.0.7:8501",
    "//10.0.0.7:8501",
    "ftp://10.0.0.7",
    "file:///etc/passwd",
    "unix:/run/app.sock",
    "http://",
    "http://:8501",
    "http://10.0.0.7:",
    "http://10.0.0.7:0",
    "http://10.0.0.7:65536",
    "http://10.0.0.7:999999",
    "http://10.0.0.7:8501/",
    "http://10.0.0.7:8501/path",
    "http://10.0.0.7:8501?query",
    "http://10.0.0.7:8501#fragment",
    "http://ana@10.0.0.7",
    "http://ana:secret@10.0.0.7",
    "http://10.0.0.7\\@evil.example",
    "http:\\\\10.0.0.7",
    " http://10.0.0.7",
    "http://10.0.0.7 ",
    "http://10.0.0.7\n",
    "http://10.0.0.7\r\nX-Evil: 1",
    "http://sa\x00les",
    "http://sa\tles",
    "http://sa les",
    "http://sa\u200bles",
    "http://sa\u3002les",
    "http://sales\uff0einternal",
    "http://sales.",
    "http://.sales",
    "http://sa..les",
    "http://-sales",
    "http://sales-",
    "http://sa$les",
    "http://sa'les",
    'http://sa"les',
    "http://sa;les",
    "http://sa{les}",
    "http://{app}.sales",
    "http://%31%30.0.0.7",
    "http://xn--zzzzzz99999",
    "http://xn--a",
    "http://xn--sales-",
    "http://" + "a" * 64,
    "http://" + ".".join(["a" * 63] * 4),
    "http://" + "a." * 5000,
    "http://" + "ü" * 60,
    # The resolvers of browsers and systems read these as IPv4 addresses.
    "http://2130706433",
    "http://0x7f000001",
    "http://0x7f.1",
    "http://127.1",
    "http://0177.0.0.1",
    "http://10.0.0.07",
    "http://10.0.0.256",
    "http://sales.10",
    "http://１０.0.0.7",
    # The metadata services of clouds, and addresses of no machine.
    "http://169.254.169.254",
    "http://169.254.0.1:8501",
    "http://[fe80::1]",
    "http://[fe80::1%25eth0]",
    "http://[fe80::1%eth0]",
    "http://[febf::1]",
    "http://[::ffff:169.254.169.254]",
    "http://[::ffff:a9fe:a9fe]",
    "http://0.0.0.0:8501",
    "http://[::]:8501",
    "http://[::ffff:0.0.0.0]",
    "http://224.0.0.1",
    "http://[ff02::1]",
    "http://[::1",
    "http://::1]",
    "http://[10.0.0.7]",
    "http://[sales]",
    "http://[]",
    "http://[::1]a",
    "http://\ud800",
]


@pytest.mark.parametrize("text", WRONG_UPSTREAMS, ids=ascii)
def test_another_text_is_no_upstream(text: str) -> None:
    with pytest.raises(ValidationError):
        parse_upstream(text)


@given(st.text(), st.sampled_from(["", "http://", "http://[", "https://{app}.", "http://xn--"]))
def test_no_text_raises_another_error(text: str, start: str) -> None:
    for parse in (parse_upstream, parse_apps_url, check_start):
        try:
            parsed = parse(start + text)
        except ValidationError:
            continue
        assert parsed is None or (parsed.isascii() and parse(parsed) == parsed)


@pytest.mark.parametrize(
    ("public_url", "upstream"),
    [
        (HOSTS, "https://embed.example"),
        (HOSTS, "http://embed.example"),
        (HOSTS, "https://orders.embed.example"),
        (HOSTS, "https://orders--abcdefghijkl.embed.example"),
        ("https://{app}.embed.example:8443", "https://a.embed.example:8443"),
        ("http://{app}.embed.localhost:5000", "http://embed.localhost:5000"),
        ("http://{app}.localhost:5000", "http://localhost:5000"),
    ],
)
def test_the_services_own_hosts_are_no_upstream(public_url: str, upstream: str) -> None:
    with pytest.raises(ValidationError, match="not a host of this service"):
        Site(public_url).check_upstream(parse_upstream(upstream))


@pytest.mark.parametrize(
    ("public_url", "upstream"),
    [
        (HOSTS, "http://embed.example:8501"),
        (HOSTS, "https://myembed.example"),
        (HOSTS, "https://example"),
        ("http://{app}.localhost:5000", "http://localhost:8501"),
        (None, "http://localhost:8501"),
    ],
)
def test_another_server_on_the_services_machine_is_an_upstream(public_url: str | None, upstream: str) -> None:
    Site(public_url).check_upstream(upstream)


@pytest.mark.parametrize(
    "text", ["/", "/reports", "/reports/", "/r?year=2026&next=http://x//y", "/é", "/a.b/../c", "/?", "/:8501"]
)
def test_a_path_is_a_first_page(text: str) -> None:
    check_start(text)


WRONG_STARTS = [
    "",
    "reports",
    "?year=2026",
    "//evil.example",
    "/a//b",
    "/.//evil.example",
    "/\\evil.example",
    "\\evil.example",
    "/a?b\\c",
    "/a#b",
    "/a?b#c",
    "http://evil.example",
    "javascript:alert(1)",
    "/a b",
    "/a\n",
    "/a\tb",
    "/a\x00",
    "/a\x7f",
    "/a\u2028b",
    "/\ud800",
    " /a",
    "/" + "a" * 2048,
    "/" + "é" * 1024,
]


@pytest.mark.parametrize("text", WRONG_STARTS, ids=ascii)
def test_another_text_is_no_first_page(text: str) -> None:
    with pytest.raises(ValidationError):
        check_start(text)


@pytest.mark.parametrize(
    ("spelling", "address"),
    [
        ("https://{app}.apps.portal.example", "https://{app}.apps.portal.example"),
        ("HTTPS://{APP}.Apps.Portal.example:443", "https://{app}.apps.portal.example"),
        ("https://{app}.apps.portal.example:8443", "https://{app}.apps.portal.example:8443"),
        ("https://{app}.bücher.example", "https://{app}.xn--bcher-kva.example"),
        ("http://{app}.apps.localhost:5000", "http://{app}.apps.localhost:5000"),
    ],
)
def test_a_workspaces_address_has_one_spelling(spelling: str, address: str) -> None:
    assert parse_apps_url(spelling) == parse_apps_url(address) == address


WRONG_APPS_URLS = [
    "https://apps.portal.example",
    "https://{app}apps.portal.example",
    "https://apps.{app}.portal.example",
    "https://{app}.{app}.portal.example",
    "https://{app}.",
    "https://{app}",
    "https://{slug}.apps.portal.example",
    "{app}.apps.portal.example",
    "http://{app}.apps.portal.example",
    "https://{app}.10.0.0.7",
    "https://{app}.apps.7",
    "https://{app}.[::1]",
    "https://{app}.my_apps.example",
    "https://{app}.apps.portal.example/",
    "https://{app}.apps.portal.example/path",
    "https://ana@{app}.apps.portal.example",
    "https://{app}.ana@apps.portal.example",
    "https://{app}.apps.portal.example\n",
    "https://{app}.apps.portal.example; script-src *",
    "https://{app}.*.example",
    "https://{app}." + ".".join(["a" * 47] * 4),
]


@pytest.mark.parametrize("text", WRONG_APPS_URLS, ids=ascii)
def test_another_text_is_no_address_of_a_workspace(text: str) -> None:
    with pytest.raises(ValidationError):
        parse_apps_url(text)


@pytest.mark.parametrize(
    ("public_url", "apps_url", "is_free"),
    [
        (HOSTS, "https://{app}.apps.portal.example", True),
        (HOSTS, "https://{app}.myembed.example", True),
        (HOSTS, "https://{app}.embed.example", False),
        (HOSTS, "https://{app}.embed.example:8443", False),
        (HOSTS, "https://{app}.apps.embed.example", False),
        (HOSTS, "https://{app}.example", False),
        (HOSTS, "http://{app}.apps.localhost:5000", False),
        ("http://{app}.embed.localhost:5000", "http://{app}.apps.localhost:5000", True),
        ("http://{app}.localhost:5000", "http://{app}.apps.localhost:5000", False),
        (None, "http://{app}.apps.localhost:5000", True),
    ],
)
def test_a_workspaces_address_shares_no_host_with_the_service(
    public_url: str | None, apps_url: str, is_free: bool
) -> None:
    site = Site(public_url)
    if is_free:
        site.check_apps_url(apps_url)
        return
    with pytest.raises(ValidationError):
        site.check_apps_url(apps_url)
