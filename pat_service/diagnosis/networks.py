"""Check whether the browser must ask the viewer before a public page may load a frame from a private address.

Chromium's Local Network Access (Chrome and Edge 142 and newer): https://wicg.github.io/local-network-access/.
"""

import socket
import threading
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from pat_service.diagnosis.origins import Parent
from pat_service.findings import Finding, warning

TIMEOUT_SECONDS: Final = 5.0
_CHANGE: Final = (
    "Serve the page by https, and let viewers allow the local network, or set the browser's policy "
    'LocalNetworkAccessAllowedForUrls. A page around it needs allow="local-network-access" on its iframe.'
)


def check_networks(public_url: str, parents: Sequence[Parent]) -> list[Finding]:
    """Warn if the service has private addresses only, and a parent has a public one.

    This machine resolves the names.
    """
    host = urlsplit(public_url).hostname or ""
    if not _is_private(host):
        return []
    public = [str(parent.origin) for parent in parents if _is_public(parent.parts.hostname or "")]
    if not public:
        return []
    text = (
        f"{host} has a private address, and {', '.join(public)} a public one: Chrome and Edge ask the viewer."
    )
    return [warning("address", text, _CHANGE)]


def _is_private(host: str) -> bool:
    addresses = _resolve(host)
    return bool(addresses) and all(each.is_private and not each.is_loopback for each in addresses)


def _is_public(host: str) -> bool:
    return any(each.is_global for each in _resolve(host))


def _resolve(host: str) -> list[IPv4Address | IPv6Address]:
    """Return the addresses of a host, without duplicates. A host that is not found in time has none."""
    texts: list[str] = []
    # In a thread, since name resolution has no timeout of its own.
    thread = threading.Thread(target=lambda: texts.extend(_look_up(host)), daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    return [ip_address(text) for text in dict.fromkeys(texts)]


def _look_up(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host.removeprefix("[").removesuffix("]"), None) if host else []
    except (OSError, UnicodeError):
        return []
    return [str(entry[4][0]).partition("%")[0] for entry in found]
