"""The doctor warns if a public page embeds a service at a private address."""

import socket
from typing import Any, Final

import pytest
from flask import Flask

from pat_service.diagnosis import http_check
from pat_service.diagnosis.networks import check_networks
from pat_service.diagnosis.origins import parse_parent

HOSTS: Final = {
    "intranet.example": ["10.1.2.3", "fd00::7"],
    "embed.example": ["10.1.2.3", "9.9.9.9"],
    "here.example": ["127.0.0.1"],
    "portal.example": ["1.1.1.1"],
    "wiki.example": ["192.168.0.9"],
}


def resolve(host: str, *_: Any) -> list[Any]:
    if host not in HOSTS:
        return real(host, None, flags=socket.AI_NUMERICHOST)
    return [(0, 0, 0, "", (address, 0)) for address in HOSTS[host]]


real: Final = socket.getaddrinfo


@pytest.mark.parametrize(
    ("service", "page", "warns"),
    [
        ("https://intranet.example", "https://portal.example", True),
        ("https://192.168.7.7", "https://portal.example", True),
        ("https://[fd00::1]:8443", "https://portal.example:444", True),
        ("https://intranet.example", "https://1.1.1.1", True),
        ("https://intranet.example", "https://wiki.example", False),
        ("https://intranet.example", "https://unknown.example", False),
        ("https://intranet.example", "capacitor://localhost", False),
        ("https://embed.example", "https://portal.example", False),
        ("https://here.example", "https://portal.example", False),
        ("https://unknown.example", "https://portal.example", False),
        (f"https://{'a' * 70}.example", "https://portal.example", False),
    ],
)
def test_a_private_service_in_a_public_page_is_reported(
    monkeypatch: pytest.MonkeyPatch, service: str, page: str, warns: bool
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    found = check_networks(service, [parse_parent(page)])
    assert [(each.level, each.part) for each in found] == [("warning", "address")] * warns
    if warns:
        assert page in found[0].text
        assert "LocalNetworkAccessAllowedForUrls" in (found[0].change or "")


def test_the_doctor_asks_for_each_parent(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(http_check, "check_answer", lambda *_, **__: [])
    monkeypatch.setitem(app.config, "PUBLIC_URL", "https://intranet.example")
    done = app.test_cli_runner().invoke(args=["doctor", "--parent", "https://portal.example"])
    assert "intranet.example has a private address, and https://portal.example a public one" in done.output
