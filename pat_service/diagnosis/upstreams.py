"""Check an app that runs elsewhere, as this machine reaches it, and the settings that it needs."""

import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from pat_service.addresses import APP_LABEL
from pat_service.diagnosis.http_check import Answer, fetch, short
from pat_service.diagnosis.origins import Parent
from pat_service.findings import Finding, ok, problem, warning
from pat_service.shapes import is_loopback, parse_limit

PART: Final = "upstream"
#: Requests of a first page: Streamlit's has 143.
COLD_LOAD_REQUESTS: Final = 150
SAME_SITE: Final = "same-site"
NEEDS_PROXY: Final = (
    "with TRUSTED_PROXIES=0 the service believes nothing that the proxy says of a request, and refuses all"
)
_ANOTHER_WAY_FIX: Final = (
    "Let only the proxy reach the app, by a firewall, a private network or a listener on loopback; or let "
    "the app verify X-Embed-Jwt."
)


# ---- Settings ----


def check_settings(settings: Mapping[str, Any], own_url: str | None) -> Iterator[Finding]:
    """Check the settings for an app that runs elsewhere. `own_url`: its workspace's own address."""
    public_url = settings["PUBLIC_URL"] or ""
    if not settings["TRUSTED_PROXIES"]:
        text = f"The app cannot open: {NEEDS_PROXY}."
        yield problem(PART, text, "Set TRUSTED_PROXIES to the number of proxies in front.")
    if APP_LABEL not in public_url:
        text = "The app cannot open: an upstream needs {app} in PUBLIC_URL."
        yield problem(
            PART, text, "Set PUBLIC_URL to https://{app}.embed.example: see docs/operate/gateway.md."
        )
    if public_url.startswith("http:") and not is_loopback(urlsplit(public_url).hostname or ""):
        text = "PUBLIC_URL is http, so browsers keep no session's cookie, which is Secure."
        yield problem(PART, text, "Serve PUBLIC_URL by https.")
    if is_limit_low(settings):
        yield warning(
            PART,
            f"SESSION_RATE_LIMIT is {settings['SESSION_RATE_LIMIT']}, which is low: a first page of "
            "Streamlit has 143 requests, and each one counts.",
            f'Set SESSION_RATE_LIMIT="{COLD_LOAD_REQUESTS * 4} per minute", or leave it unset.',
        )
    if own_url is not None:
        yield warning(
            SAME_SITE,
            f"The app is on a site of its own workspace ({own_url}). For a portal on that site, the app's "
            "scripts can send requests with the portal's SameSite cookies.",
            "The portal needs host-only cookies and protection against CSRF: see \"A workspace's own "
            'address" in docs/operate/gateway.md.',
        )


def is_limit_low(settings: Mapping[str, Any]) -> bool:
    """Return whether the limit of a session's requests is below a first page's."""
    limit = settings["SESSION_RATE_LIMIT"]
    if limit is None:
        return False
    item = parse_limit(limit)
    return item.amount < COLD_LOAD_REQUESTS


# ---- The app ----


def check_upstream(upstream: str, start: str, viewer_url: str, *, is_reached: bool) -> list[Finding]:
    """Request the app's first page past the proxy, as a browser at the viewer's host would.

    `is_reached`: the proxy reaches the app. Then it is best if this machine does not.
    """
    local = is_loopback(urlsplit(upstream).hostname or "")
    try:
        answer = fetch(upstream, start, {"Host": urlsplit(viewer_url).netloc, "Accept": "text/html"})
    except ssl.SSLError as error:
        text = f"This machine does not trust {upstream}: {short(error.reason or 'the TLS handshake fails')}."
        return [warning(PART, text, "Give the app a certificate for this name that the proxy trusts.")]
    except (http.client.HTTPException, ValueError):
        text = f"The server at {upstream} does not speak HTTP."
        return [problem(PART, text, "Correct the app's upstream.")]
    except OSError as error:
        if is_reached:
            return [ok(PART, f"This machine does not reach {upstream} past the proxy.")]
        text = f"{upstream} gives this machine no answer: {short(error.strerror or 'it takes too long')}."
        change = "Start the app, or correct its upstream. Only the proxy needs to reach it."
        return [warning(PART, text, change)]
    return [_check_reach(upstream, viewer_url, local=local), *_check_page(answer, upstream, viewer_url)]


def _check_reach(upstream: str, viewer_url: str, *, local: bool) -> Finding:
    """Say what it means that this machine reaches the app."""
    if local:
        return ok(PART, f"The app answers at {upstream}, which only programs of this machine reach.")
    host = urlsplit(upstream).hostname or ""
    addresses = _resolve(host)
    if any(ip_address(address).is_global for address in addresses):
        text = f"The app answers at {upstream}, a public address: anybody can name any viewer by a header."
        return problem(PART, text, _ANOTHER_WAY_FIX)
    if any(map(_is_own, _resolve(urlsplit(viewer_url).hostname or ""))):
        # This is the proxy's machine, which must reach the app.
        return ok(PART, f"The app answers at {upstream}. Try the same from a machine that is not the proxy.")
    text = (
        f"The app answers this machine at {upstream}, past the proxy, and would believe any viewer's header."
    )
    return warning(
        PART, text, f"If this machine is not the proxy: {_ANOTHER_WAY_FIX[0].lower()}{_ANOTHER_WAY_FIX[1:]}"
    )


def check_open_port(upstream: str, viewer_url: str) -> list[Finding]:
    """Check that the app's port is closed at the public address, since containers often publish it."""
    host, port = urlsplit(viewer_url).hostname or "", urlsplit(upstream).port
    public = urlsplit(viewer_url)
    own_port = public.port or (443 if public.scheme == "https" else 80)
    if port in (None, 80, 443, own_port) or is_loopback(host):
        return []
    url = f"http://{host}:{port}"
    try:
        answer = fetch(url, "/")
    except (OSError, http.client.HTTPException, ValueError):
        return []
    # A firewall does not keep this machine from its own ports.
    make = warning if any(map(_is_own, _resolve(host))) else problem
    text = f"{url} answers {answer.status}. If this is the app, everybody can reach it around the proxy."
    return [make(PART, text, _ANOTHER_WAY_FIX)]


def _resolve(host: str) -> list[str]:
    try:
        return [str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host.strip("[]"), None)]
    except (OSError, UnicodeError):
        return []


def _is_own(address: str) -> bool:
    """Return whether this machine has the address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as trial:
        try:
            trial.bind((address, 0))
        except OSError:
            return False
    return True


def _check_page(answer: Answer, upstream: str, viewer_url: str) -> Iterator[Finding]:
    if answer.status >= 500:
        text = f"The app's first page answers {answer.status}, without a viewer's identity."
        yield warning(PART, text, "See the app's log.")
    for location in answer.values("Location"):
        target = urljoin(viewer_url, location)
        inside = (urlsplit(upstream).netloc, urlsplit(viewer_url).netloc)
        if 300 <= answer.status < 400 and urlsplit(target).netloc not in inside:
            text = (
                f"Without an identity, the app leads to {short(urlsplit(target).netloc)}, perhaps to a login."
            )
            yield warning(PART, text, "Turn the app's login off, and let it read the proxy's headers.")
    for name in _cookies_without_path(answer):
        text = f"The app's cookie {short(name)} has no Path. nginx cannot make it partitioned."
        yield warning(PART, text, "Let the app set Path=/, or use Caddy.")


def _cookies_without_path(answer: Answer) -> Iterator[str]:
    for cookie in answer.values("Set-Cookie"):
        name, *attributes = (part.strip() for part in cookie.split(";"))
        if not any(each.lower().startswith("path=") for each in attributes):
            yield name.partition("=")[0]


# ---- The portal ----


def check_cookies_of(parents: Sequence[Parent], viewer_url: str) -> Iterator[Finding]:
    """Check the cookies of each page around the frame: those for its whole domain also reach the app.

    This sees only cookies that the page sets without a sign-in.
    """
    host = urlsplit(viewer_url).hostname or ""
    for parent in dict.fromkeys(parent.origin for parent in parents if parent.origin):
        if not parent.startswith("http"):
            continue
        try:
            answer = fetch(parent, "/", {"Accept": "text/html", "Sec-Fetch-Dest": "document"})
        except (OSError, http.client.HTTPException, ValueError):
            continue
        names = [name for name, domain in _domains(answer) if f".{host}".endswith(f".{domain}")]
        if names:
            yield warning(
                SAME_SITE,
                f"{parent} sets cookies that browsers also send to the app: {short(', '.join(names))}.",
                "Let the portal set them without Domain, best as __Host-… cookies.",
            )


def _domains(answer: Answer) -> Iterator[tuple[str, str]]:
    for cookie in answer.values("Set-Cookie"):
        name, *attributes = (part.strip() for part in cookie.split(";"))
        for each in attributes:
            key, _, value = each.partition("=")
            if key.strip().lower() == "domain" and (domain := value.strip().lower().lstrip(".")):
                yield name.partition("=")[0], domain
