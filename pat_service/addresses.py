"""Check the addresses of apps that run elsewhere, and of a workspace's own hosts.

The functions raise marshmallow's ValidationError. An upstream is the address at which the proxy reaches an
app: scheme, host and port. Two spellings of one address become one text.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from marshmallow import ValidationError

from pat_service.shapes import MAX_ORIGIN_LENGTH, check_text, is_dns_label, is_loopback, normalize_label

APP_LABEL: Final = "{app}."
#: The console's host name in development, at the server's own port.
CONSOLE_IN_DEVELOPMENT: Final = "console.localhost"
#: Characters of a label of DNS (RFC 1035).
MAX_LABEL_LENGTH: Final = 63
#: Characters of a workspace's host, which follow a label of up to 63 and a dot.
MAX_APPS_HOST_LENGTH: Final = 253 - MAX_LABEL_LENGTH - len(".")
MAX_START_BYTES: Final = 2048
#: JSON Schema patterns for the OpenAPI document. The service accepts more: Unicode, for example.
_NAME: Final = "[a-z]([a-z0-9-]{0,30}[a-z0-9])?"
UPSTREAM_PATTERN: Final = rf"^https?://{_NAME}(\.{_NAME}){{0,3}}(:[1-9][0-9]{{0,3}})?$"
APPS_URL_PATTERN: Final = rf"^(https://\{{app\}}\.{_NAME}(\.{_NAME}){{0,3}})?$"
START_PATTERN: Final = r"^/([A-Za-z0-9._~-]+/)*[A-Za-z0-9._~-]*(\?[A-Za-z0-9._~&=%/:-]*)?$"

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_UPSTREAM = re.compile(r"(?P<scheme>https?)://(?P<host>\[[^\]]+\]|[^\[\]:/?#@\\]+)(?::(?P<port>[0-9]{1,5}))?")
#: Names of containers have underscores.
_LABEL = re.compile(r"(?!xn--)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
#: The URL standard reads a host with this last label as an IPv4 address.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_WHITE_SPACE = re.compile(r"\s")


def parse_upstream(text: str) -> str:
    """Return the address of an app that runs elsewhere, or refuse the text."""
    scheme, host, port = _parse_address(text, "http://10.0.0.7:8501")
    _refuse_special(host)
    return _join(scheme, host, port)


def parse_apps_url(text: str) -> str:
    """Return a workspace's own address, with `{app}` as the first label of its host, or refuse the text."""
    scheme, label, rest = text.lower().partition(f"://{APP_LABEL}")
    if not label:
        raise ValidationError("Must have {app} as the host's first label: https://{app}.apps.portal.example")
    scheme, host, port = _parse_address(f"{scheme}://{rest}", "https://{app}.apps.portal.example")
    is_name = all(map(_is_label_of_browsers, host.split("."))) and not _ends_in_number(host)
    if len(host) > MAX_APPS_HOST_LENGTH or not is_name:
        raise ValidationError("Must have {app} before a host name of DNS, not before an IP address.")
    if scheme == "http" and not is_loopback(host):
        raise ValidationError("Must be https, unless its host is localhost.")
    return _join(scheme, f"{APP_LABEL}{host}", port)


def check_start(text: str) -> None:
    """Refuse anything but the path of an app's first page, with an optional query."""
    if len(text.encode(errors="replace")) > MAX_START_BYTES:
        raise ValidationError(f"Must be at most {MAX_START_BYTES} bytes.")
    check_text(text)
    path = text.partition("?")[0]
    if not path.startswith("/") or "//" in path or set("\\#") & set(text) or _WHITE_SPACE.search(text):
        raise ValidationError(
            "Must be a path such as /reports?year=2026, without //, backslash, # and white space."
        )


@dataclass(frozen=True, slots=True)
class Site:
    """The addresses of this installation. `public_url` has `{app}` if each app has its own host."""

    public_url: str | None = None
    console_url: str | None = None

    @property
    def app_hosts(self) -> bool:
        """Whether each app has its own host."""
        return APP_LABEL in (self.public_url or "")

    @property
    def _urls(self) -> list[str]:
        return [url.replace(APP_LABEL, "", 1) for url in (self.public_url, self.console_url) if url]

    def check_upstream(self, upstream: str) -> None:
        """Refuse an address at which the proxy would reach itself."""
        there = urlsplit(upstream)
        for url in self._urls:
            here = urlsplit(url)
            ports = {here.port or _DEFAULT_PORTS[here.scheme], *_DEFAULT_PORTS.values()}
            port = there.port or _DEFAULT_PORTS[there.scheme]
            if _is_within(there.hostname or "", here.hostname or "") and port in ports:
                raise ValidationError("Must be the app's own address, not a host of this service.")

    def check_apps_url(self, apps_url: str) -> None:
        """Refuse a workspace's address that shares hosts with the service, or is http in production."""
        for url in self._urls:
            if have_common_hosts(apps_url, url):
                raise ValidationError("Must not equal, contain or be below a host of this service.")
        if apps_url.startswith("http:") and not (self.public_url or "http:").startswith("http:"):
            raise ValidationError("Must be https, as PUBLIC_URL is.")


def have_common_hosts(first: str, second: str) -> bool:
    """Return whether the hosts of two addresses are equal, or one is below the other. Ports don't count."""
    hosts = [urlsplit(url.replace(APP_LABEL, "", 1)).hostname or "" for url in (first, second)]
    return _is_within(*hosts) or _is_within(*reversed(hosts))


def covers_host(url: str, host: str) -> bool:
    """Return whether a URL has this host name, or can have it: `{app}` stands for any first label.

    The domain after `{app}` counts too. Ports do not, since all ports of a host share its cookies.
    """
    own = urlsplit(url.replace(APP_LABEL, "", 1)).hostname or ""
    return host == own or (APP_LABEL in url and host.partition(".")[2] == own)


def may_share_domain(url: str, other: str) -> bool:
    """Return whether two URLs may be below one registered domain. Some of these have more than two labels."""
    domains = {".".join((urlsplit(one).hostname or "").split(".")[-2:]) for one in (url, other)}
    return len(domains) == 1


def _is_within(host: str, other: str) -> bool:
    return host == other or host.endswith(f".{other}")


def _parse_address(text: str, example: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address that has nothing else."""
    found = _UPSTREAM.fullmatch(text.lower()) if len(text) <= MAX_ORIGIN_LENGTH else None
    if found is None:
        raise ValidationError(f"Must be a scheme, a host and an optional port, such as {example}")
    port = int(found["port"] or _DEFAULT_PORTS[found["scheme"]])
    if not 1 <= port <= 65535:
        raise ValidationError("Must have a port from 1 to 65535, or none.")
    return found["scheme"], _normalize_host(found["host"]), port


def _normalize_host(host: str) -> str:
    """Return the host in ASCII and lower case, an IPv6 address in its shortest form."""
    try:
        if host.startswith("["):
            return _spell(IPv6Address(host[1:-1]))
        host = ".".join(map(_to_ascii, host.split(".")))
        if _ends_in_number(host):
            return str(IPv4Address(host))
    except ValueError:
        raise ValidationError("Must have a host name, an IPv4 address or an IPv6 address in [].") from None
    if len(host) > MAX_ORIGIN_LENGTH - len("https://:65535"):
        raise ValidationError("Must have a host of at most 253 characters.")
    return host


def _ends_in_number(host: str) -> bool:
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _spell(address: IPv6Address) -> str:
    """Return the address for a URL. One that stands for an IPv4 address becomes that address."""
    if address.scope_id is not None:
        raise ValueError
    mapped = address.ipv4_mapped
    return f"[{address.compressed}]" if mapped is None else str(mapped)


def _to_ascii(label: str) -> str:
    """Return the label in ASCII. Raise ValueError for anything but a label (IDNA 2008)."""
    if _LABEL.fullmatch(label):
        return label
    import idna

    return idna.alabel(normalize_label(label)).decode()


def _refuse_special(host: str) -> None:
    """Refuse addresses that name no machine, or the metadata service of a cloud."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        raise ValidationError("Must not be a link-local, multicast or unspecified address.")


def _is_label_of_browsers(label: str) -> bool:
    return is_dns_label(label) or label.startswith("xn--")


def _join(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{host}" if port == _DEFAULT_PORTS[scheme] else f"{scheme}://{host}:{port}"
