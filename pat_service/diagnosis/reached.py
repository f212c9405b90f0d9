"""What a browser would get: the address of a frame asked over HTTP, and the headers that arrive."""

import http.client
import json
import socket
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from pat_service.diagnosis.findings import Finding, ok, problem, warning
from pat_service.diagnosis.installation import clock
from pat_service.diagnosis.origins import Target
from pat_service.errors import NotServedHere
from pat_service.http.headers import FOR_ANY_SITE, ISOLATED, POLICY_HEADER, REQUEST_ID_HEADER

ABOUT: Final = "address"
HEADERS: Final = "headers"
#: For the name, the connection and the answer together, in seconds.
PATIENCE: Final = 5.0
#: So much of an answer is read, in bytes: a problem is shorter.
MOST_READ: Final = 64 * 1024
#: So much of a header is repeated, in characters.
MOST_SHOWN: Final = 200

#: A browser's navigation of a frame; JSON, so that a refusal has its code.
_ASKED: Final = {
    "Accept": "application/json",
    "Sec-Fetch-Dest": "iframe",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "cross-site",
    "User-Agent": "pat-service doctor",
    "Connection": "close",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What arrived, and by how much the clock of who sent it is before this machine's, if it says."""

    status: int
    headers: list[tuple[str, str]]
    problem: dict[str, object]
    apart: timedelta | None

    def header(self, name: str) -> list[str]:
        """Return the values of a header, with those apart that a proxy has joined by a comma."""
        values = [value for given, value in self.headers if given.lower() == name.lower()]
        return [part.strip() for value in values for part in value.split(",") if part.strip()]


def check(url: str, path: str, target: Target | None, *, apart: bool) -> list[Finding]:
    """Ask for the frame at `path` below `url`, and return what is wrong with what arrives, or with the way.

    `apart`: each app has a host of its own.
    """
    answer = _within_patience(url, path, apart=apart)
    if isinstance(answer, Finding):
        return [answer]
    strange = _strange(url, answer)
    if strange is not None:
        return [strange]
    return [
        ok(ABOUT, f"{url} answers, as this service does."),
        *_policies(answer, target),
        *_frame_options(answer),
        *_isolation(answer),
        *clock(answer.apart, f"{url}"),
    ]


# ---- The way there ----


def _within_patience(url: str, path: str, *, apart: bool) -> Answer | Finding:
    """Ask in a thread: neither a look-up of a name nor a server that drips has an end of its own."""
    got: list[Answer | Finding] = []
    thread = threading.Thread(target=lambda: got.append(_asked(url, path, apart=apart)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return got[0] if got else _silent(url)


def _asked(url: str, path: str, *, apart: bool) -> Answer | Finding:
    host = urlsplit(url).hostname or ""
    try:
        return _ask(url, path)
    except socket.gaierror:
        wildcard = f", as a wildcard (*.{host.partition('.')[2]}) for all apps" if apart else ""
        return problem(
            ABOUT,
            f"No address is known for {host}: the name does not resolve, here at least.",
            f"Add a DNS record for {host}{wildcard}, or correct PUBLIC_URL.",
        )
    except ssl.SSLCertVerificationError as error:
        wildcard = " With {app} in PUBLIC_URL it has to be a wildcard certificate." if apart else ""
        return problem(
            ABOUT,
            f"Browsers do not trust the certificate of {host}: {_short(error.verify_message)}.",
            f"Renew the certificate, with its whole chain and this name.{wildcard}",
        )
    except ssl.SSLError as error:
        text = f"{url} speaks no TLS that is understood: {_short(error.reason or 'it broke off')}."
        return problem(ABOUT, text, "Let the proxy end TLS at the host and port of PUBLIC_URL.")
    except TimeoutError:
        return _silent(url)
    except OSError as error:
        return problem(
            ABOUT,
            f"{url} takes no connection: {_short(error.strerror or 'it broke off')}.",
            "Start the service and its proxy, or correct PUBLIC_URL; --offline leaves this out.",
        )
    except (http.client.HTTPException, ValueError):
        return problem(ABOUT, f"What answers at {url} speaks no HTTP.", "Correct PUBLIC_URL, or the proxy.")


def _silent(url: str) -> Finding:
    return problem(
        ABOUT,
        f"{url} did not answer within {PATIENCE:.0f} s.",
        "See whether service and proxy run, and whether a firewall is between; --offline leaves this out.",
    )


def _ask(url: str, path: str) -> Answer:
    parts = urlsplit(url)
    host = parts.hostname or ""
    # What browsers know by themselves and resolvers often do not (RFC 6761).
    reached = "localhost" if host.endswith(".localhost") else host
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(reached, parts.port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers=_ASKED | {"Host": parts.netloc})
        sent = datetime.now(UTC)
        answer = connection.getresponse()
        given = answer.getheaders()
        body = answer.read(MOST_READ)
    finally:
        connection.close()
    return Answer(answer.status, given, _problem(body), _apart(answer.getheader("Date"), sent))


def _problem(body: bytes) -> dict[str, object]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _apart(date: str | None, sent: datetime) -> timedelta | None:
    try:
        told = parsedate_to_datetime(date or "")
        # A moment without a zone is no HTTP date.
        ahead, behind = told - datetime.now(UTC), sent - told
    except (ValueError, TypeError, OverflowError):
        return None
    # It has whole seconds, rounded down, and was written between the two.
    if ahead > timedelta(0):
        return ahead
    return -max(timedelta(0), behind - timedelta(seconds=1))


# ---- What arrives ----


def _strange(url: str, answer: Answer) -> Finding | None:
    """Return why what answers is not this service, or not at this address."""
    if 300 <= answer.status < 400:
        (to,) = answer.header("Location")[:1] or ["nowhere"]
        return problem(
            ABOUT,
            f"{url} redirects to {_short(to)}: the answer of another address is shown, or none.",
            "Set PUBLIC_URL to the address that answers itself, or take the redirect out of the proxy.",
        )
    if answer.problem.get("title") == NotServedHere.title:
        return problem(
            ABOUT,
            f"The service does not know {urlsplit(url).hostname} as one of its hosts.",
            "Let the proxy pass the Host header on as it came (nginx: `proxy_set_header Host $http_host;`), "
            "and give the server the same PUBLIC_URL as this command.",
        )
    if not answer.header(REQUEST_ID_HEADER) and not any(map(_ancestors, answer.header(POLICY_HEADER))):
        return problem(
            ABOUT,
            f"{answer.status} comes from something before the service, which says nothing of it.",
            "Let the proxy pass /embed-apps/, /embed-workspaces/, /static/ and /api/ on to the service.",
        )
    if answer.status >= 500 or (answer.status >= 400 and answer.problem.get("code") != "not_found"):
        code = _short(str(answer.problem.get("code", "no code")))
        text = (
            f"The service answers {answer.status} ({code}): {_short(str(answer.problem.get('detail', '')))}"
        )
        return problem(ABOUT, text, "See its log, by the request id; and `flask --app app check`.")
    return None


def _policies(answer: Answer, target: Target | None) -> list[Finding]:
    """Return whether the policy that arrives is the one that was sent, and no other beside it."""
    policies, framing = answer.header(POLICY_HEADER), _framing(answer)
    if not framing:
        return [
            problem(
                HEADERS,
                "No policy with frame-ancestors arrives: any page may frame this.",
                f"Let the proxy pass {POLICY_HEADER} on.",
            )
        ]
    if len(policies) > 1:
        return [
            problem(
                HEADERS,
                f"{len(policies)} policies arrive, and browsers keep to all of them at once: "
                f"{_short('; '.join(policies[1:]))}",
                f"Let the proxy add no {POLICY_HEADER} of its own to this host.",
            )
        ]
    if target is not None and set(framing[0]) != set(target.origins or ["'none'"]):
        return [
            problem(
                HEADERS,
                f"The policy that arrives lets {_short(' '.join(framing[0]))} frame {target}, and this "
                "database says otherwise.",
                "Wait a minute where they have just changed; else give the server the same DATABASE_URL.",
            )
        ]
    return [ok(HEADERS, "The policy arrives as it was sent.")]


def _frame_options(answer: Answer) -> list[Finding]:
    """Return what a proxy forbids beside the policy."""
    refusals = answer.header("X-Frame-Options")
    if not refusals:
        return []
    make = warning if _framing(answer) else problem
    return [
        make(
            HEADERS,
            f"X-Frame-Options: {_short(', '.join(refusals))} arrives, which the service never sends. "
            "Beside frame-ancestors current browsers leave it aside; others show nothing.",
            "Take it out of the proxy, for this host.",
        )
    ]


def _framing(answer: Answer) -> list[list[str]]:
    """Return the sources of each `frame-ancestors` that arrives."""
    return [sources for sources in map(_ancestors, answer.header(POLICY_HEADER)) if sources]


def _ancestors(policy: str) -> list[str] | None:
    for directive in policy.split(";"):
        name, *sources = directive.split() or [""]
        if name.lower() == "frame-ancestors":
            return sources
    return None


def _isolation(answer: Answer) -> list[Finding]:
    lost = [f"{name}: {value}" for name, value in (FOR_ANY_SITE, ISOLATED) if answer.header(name) != [value]]
    if not lost:
        return [ok(HEADERS, "Hosts that are isolated (Cross-Origin-Embedder-Policy) can show frames.")]
    return [
        warning(
            HEADERS,
            f"Hosts that are isolated (Cross-Origin-Embedder-Policy) stay blank: "
            f"{' and '.join(lost)} is missing.",
            "Let the proxy pass both headers on as they are.",
        )
    ]


def _short(text: str) -> str:
    """Return a text that came from elsewhere, cut short."""
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
