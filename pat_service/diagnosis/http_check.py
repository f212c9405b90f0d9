"""Request a frame over HTTP as a browser does, and check the answer and its headers."""

import http.client
import itertools
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from pat_service.diagnosis.installation import check_clock
from pat_service.diagnosis.origins import Target
from pat_service.errors import NotServedHere
from pat_service.findings import Finding, ok, problem, warning
from pat_service.http.headers import (
    DIGEST_HEADER,
    FOR_ANY_SITE,
    ISOLATED,
    NOT_CHANGED,
    POLICY_HEADER,
    PROBE_EMAIL,
    PROBE_PARAMETER,
    REQUEST_ID_HEADER,
    page_digest,
)

PART: Final = "address"
HEADERS: Final = "headers"
PAGE: Final = "page"
UPLOADS: Final = "uploads"
#: For name resolution, connection and answer together.
TIMEOUT_SECONDS: Final = 5.0
UPLOAD_TIMEOUT_SECONDS: Final = 60.0
#: Bytes to read of an answer, more than a problem of the service has.
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_SHOWN_CHARACTERS: Final = 200
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

#: Headers of a browser that opens a frame. `Accept` asks for JSON, so that a refusal has its code.
_REQUEST_HEADERS: Final = {
    "Accept": "application/json",
    "Sec-Fetch-Dest": "iframe",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "cross-site",
    "User-Agent": "pat-service doctor",
    "Connection": "close",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. `clock_ahead`: how far the server's clock is ahead of this machine's, if known.

    `seconds`: the time from the request to the answer, without the connection.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    problem: dict[str, object]
    clock_ahead: timedelta | None
    seconds: float

    def header(self, name: str) -> list[str]:
        """Return the values of a header. Values that a proxy joined by commas count separately."""
        return [part.strip() for value in self.values(name) for part in value.split(",") if part.strip()]

    def values(self, name: str) -> list[str]:
        """Return the values of a header as they arrived."""
        return [value for given, value in self.headers if given.lower() == name.lower()]

    @property
    def code(self) -> str:
        """The code of the problem, or an empty text."""
        return str(self.problem.get("code", ""))


def check_answer(
    url: str,
    path: str,
    target: Target | None,
    *,
    own_host: bool,
    is_isolated: bool,
    setting: str = "PUBLIC_URL",
) -> list[Finding]:
    """Request the frame at `path` below `url`, and check the connection, the answer and its headers.

    `own_host`: each app has its own host. `is_isolated`: isolated hosts can show the frame. `setting` names
    the address, for the findings.
    """
    answer = request(url, f"{path}?{PROBE_PARAMETER}=1", own_host=own_host, setting=setting)
    if isinstance(answer, Finding):
        return [answer]
    foreign = _check_sender(url, answer)
    if foreign is not None:
        return [foreign]
    return [
        ok(PART, f"This service answers at {url}."),
        *_check_policies(answer, target),
        *_check_frame_options(answer),
        *_check_isolation(answer, is_isolated=is_isolated),
        *_check_caching(answer),
        *_check_page(answer),
        *check_clock(answer.clock_ahead, url),
    ]


def check_upload(url: str, path: str, size_bytes: int) -> list[Finding]:
    """Send a body of this size without a session, and check that the service refuses it, and no proxy."""
    size = f"{size_bytes // 1024**2} MB"
    connection, headers = _connect(url, UPLOAD_TIMEOUT_SECONDS)
    try:
        # A server may answer and close before it has the whole body.
        with suppress(BrokenPipeError, ConnectionResetError):
            body = itertools.repeat(bytes(64 * 1024), size_bytes // (64 * 1024))
            connection.request("POST", path, body, headers | {"Content-Length": str(size_bytes)})
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException):
        text = f"An upload of {size} broke off, or took over {UPLOAD_TIMEOUT_SECONDS:.0f} s."
        return [warning(UPLOADS, text, "Try it from a machine near the proxy, and see the proxy's log.")]
    finally:
        connection.close()
    if answer.getheader(REQUEST_ID_HEADER):
        return [ok(UPLOADS, f"Uploads of {size} reach the service.")]
    text = f"A proxy answers {answer.status} to an upload of {size}, which the app takes."
    return [problem(UPLOADS, text, 'Raise its limits: see "Uploads" in docs/operate/proxy.md.')]


# ---- The connection ----


def fetch(url: str, path: str, headers: Mapping[str, str] = NO_HEADERS, *, method: str = "GET") -> Answer:
    """Request in a thread, since name resolution and a slow server have no timeout of their own.

    Raise OSError, ValueError or HTTPException without an answer, and TimeoutError after TIMEOUT_SECONDS.
    """
    results: list[Answer | Exception] = []

    def run() -> None:
        try:
            results.append(_request(method, url, path, headers))
        except (OSError, http.client.HTTPException, ValueError) as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    (result,) = results or [TimeoutError()]
    if isinstance(result, Exception):
        raise result
    return result


def request(
    url: str,
    path: str,
    headers: Mapping[str, str] = NO_HEADERS,
    *,
    own_host: bool,
    setting: str = "PUBLIC_URL",
    method: str = "GET",
) -> Answer | Finding:
    """Return the answer, or a problem that says why there is none."""
    host = urlsplit(url).hostname or ""
    try:
        return fetch(url, path, headers, method=method)
    except socket.gaierror:
        wildcard = f", as a wildcard (*.{host.partition('.')[2]}) for all apps" if own_host else ""
        return problem(
            PART,
            f"The name {host} does not resolve on this machine.",
            f"Add a DNS record for {host}{wildcard}, or correct {setting}.",
        )
    except ssl.SSLCertVerificationError as error:
        reason = short(error.verify_message.rstrip("."))
        wildcard = f" With {{app}} in {setting} it must be a wildcard certificate." if own_host else ""
        return problem(
            PART,
            f"Browsers do not trust the certificate of {host}: {reason}.",
            f"Renew the certificate with this name and the whole chain.{wildcard}",
        )
    except ssl.SSLError as error:
        text = f"The TLS handshake with {url} fails: {short(error.reason or 'it broke off')}."
        return problem(PART, text, f"Let the proxy terminate TLS at the host and port of {setting}.")
    except TimeoutError:
        return _timed_out(url)
    except OSError as error:
        return problem(
            PART,
            f"{url} accepts no connection: {short(error.strerror or 'it broke off')}.",
            f"Start the service and its proxy, or correct {setting}. --offline skips this check.",
        )
    except (http.client.HTTPException, ValueError):
        return problem(PART, f"The server at {url} does not speak HTTP.", f"Correct {setting}, or the proxy.")


def _timed_out(url: str) -> Finding:
    return problem(
        PART,
        f"{url} did not answer within {TIMEOUT_SECONDS:.0f} s.",
        "Check that the service and the proxy run, and the firewall. --offline skips this check.",
    )


class _LoopbackHTTPSConnection(http.client.HTTPSConnection):
    """Connects to this machine, and verifies the certificate for the name below `localhost`."""

    def connect(self) -> None:
        self.sock = ssl.create_default_context().wrap_socket(
            socket.create_connection(("localhost", self.port), self.timeout), server_hostname=self.host
        )


def _connect(url: str, timeout: float) -> tuple[http.client.HTTPConnection, dict[str, str]]:
    """Return a connection to the URL, and the headers to send."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    headers = _REQUEST_HEADERS | {"Host": parts.netloc}
    # Browsers resolve these names themselves (RFC 6761); resolvers often do not.
    loopback = host.endswith(".localhost")
    if parts.scheme == "https":
        kind = _LoopbackHTTPSConnection if loopback else http.client.HTTPSConnection
        return kind(host, parts.port, timeout=timeout), headers
    return http.client.HTTPConnection("localhost" if loopback else host, parts.port, timeout=timeout), headers


def _request(method: str, url: str, path: str, more: Mapping[str, str]) -> Answer:
    connection, headers = _connect(url, TIMEOUT_SECONDS)
    try:
        connection.request(method, path, headers={**headers, **more})
        sent, started = datetime.now(UTC), time.monotonic()
        answer = connection.getresponse()
        seconds = time.monotonic() - started
        arrived = answer.getheaders()
        body = answer.read(MAX_ANSWER_BYTES)
    finally:
        connection.close()
    clock_ahead = _clock_ahead(answer.getheader("Date"), sent)
    return Answer(answer.status, arrived, body, _parse_problem(body), clock_ahead, seconds)


def _parse_problem(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _clock_ahead(date: str | None, sent: datetime) -> timedelta | None:
    try:
        its_time = parsedate_to_datetime(date or "")
        # This raises for a time without a zone, which HTTP dates cannot be.
        ahead, behind = its_time - datetime.now(UTC), sent - its_time
    except (ValueError, TypeError, OverflowError):
        return None
    # The server wrote the date after `sent`, and rounded it down to whole seconds.
    if ahead > timedelta(0):
        return ahead
    return -max(timedelta(0), behind - timedelta(seconds=1))


# ---- The answer ----


def _check_sender(url: str, answer: Answer) -> Finding | None:
    """Return a problem if another server answered, or if the service refused this address or failed."""
    if 300 <= answer.status < 400:
        (location,) = answer.header("Location")[:1] or ["nowhere"]
        return problem(
            PART,
            f"{url} redirects to {short(location)}, so frames show another address or stay blank.",
            "Set PUBLIC_URL to the final address, or remove the redirect from the proxy.",
        )
    if answer.problem.get("title") == NotServedHere.title:
        return problem(
            PART,
            f"The service does not know {urlsplit(url).hostname} as one of its hosts.",
            "Let the proxy pass the Host header unchanged (nginx: `proxy_set_header Host $http_host;`), "
            "and give the server the same PUBLIC_URL as this command.",
        )
    if not answer.header(REQUEST_ID_HEADER) and not any(map(_ancestors, answer.header(POLICY_HEADER))):
        return problem(
            PART,
            f"A server in front of the service answers {answer.status} itself.",
            "Let the proxy pass every path that begins with /embed or /api/ to the service.",
        )
    if answer.status >= 500 or (answer.status >= 400 and answer.problem.get("code") != "not_found"):
        code = short(str(answer.problem.get("code", "no code")))
        text = f"The service answers {answer.status} ({code}): {short(str(answer.problem.get('detail', '')))}"
        return problem(PART, text, "Search its log for the request id, and run `flask --app app check`.")
    return None


def _check_policies(answer: Answer, target: Target | None) -> list[Finding]:
    """Check that the service's policy arrives unchanged, and is the only one."""
    policies, framing = answer.header(POLICY_HEADER), _framing(answer)
    if not framing:
        return [
            problem(
                HEADERS,
                "No policy with frame-ancestors arrives, so any page may frame this.",
                f"Let the proxy pass {POLICY_HEADER}.",
            )
        ]
    if len(policies) > 1:
        return [
            problem(
                HEADERS,
                f"{len(policies)} policies arrive, and browsers enforce all of them: "
                f"{short('; '.join(policies[1:]))}",
                f"Let the proxy add no {POLICY_HEADER} to this host.",
            )
        ]
    if target is not None and set(framing[0]) != set(target.origins or ["'none'"]):
        return [
            problem(
                HEADERS,
                f"The policy that arrives lets {short(' '.join(framing[0]))} frame {target}, but this "
                "database has other allowed origins.",
                "If they have just changed, wait a minute. If not, give the server the same DATABASE_URL.",
            )
        ]
    return [ok(HEADERS, "The policy arrives unchanged.")]


def _check_frame_options(answer: Answer) -> list[Finding]:
    """Check that no proxy adds X-Frame-Options."""
    refusals = answer.header("X-Frame-Options")
    if not refusals:
        return []
    make = warning if _framing(answer) else problem
    return [
        make(
            HEADERS,
            f"X-Frame-Options: {short(', '.join(refusals))} arrives, which the service never sends. "
            "Browsers that know frame-ancestors ignore it; others stay blank.",
            "Remove it from the proxy for this host.",
        )
    ]


def _framing(answer: Answer) -> list[list[str]]:
    """Return the sources of each `frame-ancestors` in the answer."""
    return [sources for sources in map(_ancestors, answer.header(POLICY_HEADER)) if sources]


def _ancestors(policy: str) -> list[str] | None:
    for directive in policy.split(";"):
        name, *sources = directive.split() or [""]
        if name.lower() == "frame-ancestors":
            return sources
    return None


def _check_isolation(answer: Answer, *, is_isolated: bool) -> list[Finding]:
    if not is_isolated:
        if embedder := answer.header(ISOLATED[0]):
            text = (
                f"A proxy adds {ISOLATED[0]}: {short(', '.join(embedder))}. Pages in this frame stay blank."
            )
            return [problem(HEADERS, text, "Remove it from the proxy for this host.")]
        text = (
            "Isolated hosts (Cross-Origin-Embedder-Policy) cannot show this: its content lacks that policy."
        )
        return [ok(HEADERS, text)]
    missing = [
        f"{name}: {value}" for name, value in (FOR_ANY_SITE, ISOLATED) if answer.header(name) != [value]
    ]
    if not missing:
        return [ok(HEADERS, "Isolated hosts (Cross-Origin-Embedder-Policy) can show frames.")]
    return [
        warning(
            HEADERS,
            f"Frames stay blank in isolated hosts (Cross-Origin-Embedder-Policy): "
            f"{' and '.join(missing)} is missing.",
            "Let the proxy pass both headers unchanged.",
        )
    ]


def _check_caching(answer: Answer) -> list[Finding]:
    """Check that the answer forbids caches to store it, and proxies to change it."""
    name, value = NOT_CHANGED
    wanted, arrived = [part.strip() for part in value.split(",")], [v.lower() for v in answer.header(name)]
    missing = [directive for directive in wanted if directive not in arrived]
    if not missing:
        return []
    # Without no-store, a cache can give one viewer's page to another.
    make = problem if "no-store" in missing else warning
    text = f"{name}: {short(', '.join(arrived)) or '(nothing)'} arrives, without {' and '.join(missing)}."
    return [make(HEADERS, text, f"Let the proxy or CDN pass {name} unchanged for this host.")]


# ---- The page ----


class _Scripts(HTMLParser):
    """The start tags of a page's scripts, and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.found.append((self.get_starttag_text() or "", dict(attrs)))


def _check_page(answer: Answer) -> list[Finding]:
    """Check that the page arrives as the service rendered it. Some CDNs rewrite HTML."""
    if not any(value.startswith("text/html") for value in answer.header("Content-Type")):
        return []
    if answer.header(DIGEST_HEADER) == [page_digest(answer.body)]:
        return [ok(PAGE, "The page arrives unchanged.")]
    page, found = answer.body.decode("utf-8", "replace"), []
    policy = " ".join(answer.header(POLICY_HEADER))
    foreign = [tag for tag, attributes in _Scripts(page).found if not _is_ours(attributes, policy)]
    if foreign:
        text = f"A proxy or CDN changes or adds scripts, so frames stay blank: {short(foreign[0])}"
        found.append(problem(PAGE, text, f"Switch off script deferral and injected scripts: {_SWITCH_OFF}"))
    if PROBE_EMAIL not in page:
        text = "A proxy or CDN hides emails in pages, so viewers read another text in their place."
        found.append(warning(PAGE, text, f"Switch off email obfuscation: {_SWITCH_OFF}"))
    if not found:
        text = "A proxy or CDN changes the HTML of pages. Frames may break, now or later."
        found.append(warning(PAGE, text, f"Switch off minification and other changes: {_SWITCH_OFF}"))
    return found


_SWITCH_OFF: Final = 'see "A CDN in front" in docs/operate/proxy.md.'


def _is_ours(attributes: dict[str, str | None], policy: str) -> bool:
    nonce, kind = attributes.get("nonce"), attributes.get("type")
    return bool(nonce) and f"'nonce-{nonce}'" in policy and kind in (None, "application/json")


def short(text: str) -> str:
    """Return a text from outside, cut short."""
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
