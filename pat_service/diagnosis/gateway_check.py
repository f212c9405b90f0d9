"""Check the proxy in front of an app that runs elsewhere, by requests at a viewer's host.

The host belongs to no viewer. One request has no session, so the proxy must refuse it. Another one is the
doctor's probe (`http/probe.py`), which shows what an app would receive. Both have a forged identity.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pat_service.diagnosis.http_check import NO_HEADERS, Answer, request, short
from pat_service.findings import PROBLEM, Finding, ok, problem, warning
from pat_service.http import probe
from pat_service.http.headers import EMBEDDER_POLICY, POLICY_HEADER, REQUEST_ID_HEADER

PART: Final = "gateway"
#: A slower check delays each file of an app's page.
SLOW_SECONDS: Final = 0.25
_CODE_HEADER: Final = "X-Embed-Code"
#: The finding that the app is up.
REACHED: Final = "The proxy reaches the app."
_SUBREQUEST: Final = "/internal/embed-auth"
_FORGED: Final = "forged-by-doctor"
#: Spellings that apps may read as one. A WSGI server drops names with `_`, so the probe cannot show those.
_FORGED_NAMES: Final = (
    *probe.IDENTITY,
    *("X.Forwarded.Email", "X-Forwarded.User", "X-Embed-Upstream", "X-Embed-Policy", "X-Embed-Code"),
    *("Remote-User", "X-Remote-User", "X-Forwarded-Host", "X-Forwarded-Uri", "X-Forwarded-For", "Forwarded"),
)
_FORGED_HEADERS: Final = dict.fromkeys(_FORGED_NAMES, f"for={_FORGED}")
#: What a browser reports of a request that a page of the app sends.
_OWN_PAGE: Final = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
_UPGRADE: Final = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "ZG9jdG9yLWRvY3Rvci1kbw==",
    "Sec-Fetch-Mode": "websocket",
}
_DOCUMENTED: Final = "Compare the proxy with the documented files: see docs/operate/gateway.md."
_IDENTITY_FIX: Final = (
    "Let the proxy set these headers from the check's answer and remove a client's own, as the documented "
    "files do (nginx: `proxy_set_header X-Forwarded-Email $embed_email;`)."
)
_HOST_FIX: Final = (
    "Let the proxy pass Host unchanged, to the check and to the app "
    "(nginx: `proxy_set_header Host $http_host;`)."
)
#: What the check did not hear, by the code of its refusal.
_NOT_HEARD: Final = {
    "method_not_allowed": (
        "The check does not hear the method of a request, so every request is refused.",
        "Set TRUSTED_PROXIES to the number of proxies in front of the server, and let the proxy send "
        "X-Forwarded-Method and X-Forwarded-Uri with the check.",
    ),
    "not_found": (
        "The check does not hear the host or the path of a request, so every request is refused.",
        f"{_HOST_FIX} Let it send X-Forwarded-Uri with the check.",
    ),
    "cross_site": (
        "The check does not hear who sends a request, so every request is refused.",
        "Let the proxy pass Sec-Fetch-Site and Origin to the check.",
    ),
    "unavailable": (
        "The proxy gets no verdict from the service.",
        "Let the proxy ask /internal/embed-auth of the service. See the service's log and the proxy's.",
    ),
}


@dataclass(frozen=True, slots=True)
class ViewerSite:
    """A viewer's host as the doctor asks it. `proof`: the probe's. `setting` names the address."""

    url: str
    proof: str
    setting: str

    def ask(
        self, path: str, headers: Mapping[str, str] = NO_HEADERS, *, method: str = "GET"
    ) -> Answer | Finding:
        sent = {**_OWN_PAGE, **headers}
        return request(self.url, path, sent, own_host=True, setting=self.setting, method=method)

    def send_probe(self, headers: Mapping[str, str] = NO_HEADERS, *, method: str = "GET") -> Answer | Finding:
        cookies = f"{probe.COOKIE}={self.proof}; {probe.APP_COOKIE}=1"
        own = {"Cookie": cookies, probe.HEADER: self.proof, "Origin": self.url}
        return self.ask(probe.PATH, {**own, **_FORGED_HEADERS, **headers}, method=method)


def check_gateway(site: ViewerSite) -> Iterator[Finding]:
    """Check how the proxy treats requests for the app."""
    refusal = site.ask("/doctor", _FORGED_HEADERS)
    if isinstance(refusal, Finding):
        yield refusal
        return
    refused = _check_refusal(refusal)
    yield refused
    yield from _check_internal(site)
    if refused.level == PROBLEM:
        return
    answer = site.send_probe()
    if isinstance(answer, Finding):
        yield answer
        return
    received = _received(answer)
    if received is None:
        yield _explain_probe(answer)
        return
    yield from _all_or_ok(
        [*_check_identity(received), *_check_request(site, received)],
        "The app gets the service's headers and no forged one.",
    )
    yield from _all_or_ok(
        list(_check_changes(site, answer)), "The proxy changes the app's answers as frames need."
    )
    yield _check_sockets(site.send_probe(_UPGRADE))
    yield _check_app(site.send_probe(method="HEAD"))
    yield _check_speed(min(refusal.seconds, answer.seconds))


def _all_or_ok(found: list[Finding], text: str) -> list[Finding]:
    return found or [ok(PART, text)]


# ---- A request without a session ----


def _check_refusal(answer: Answer) -> Finding:
    code = answer.code
    if answer.status == 401 and code == "session_missing":
        return ok(PART, "The proxy refuses a request without a session.")
    if answer.status in (401, 403, 503) and code in _NOT_HEARD:
        return problem(PART, *_NOT_HEARD[code])
    if answer.status == 404 and answer.header(REQUEST_ID_HEADER) and code == "not_found":
        return problem(
            PART,
            "The proxy sends requests for the app to the service itself, without the check.",
            f"Add the part for hosts with two dashes. {_DOCUMENTED}",
        )
    if answer.status in (404, 421):
        text = f"The proxy answers {answer.status}: it has no site for hosts with two dashes."
        return problem(PART, text, f"Add it. {_DOCUMENTED}")
    if answer.status == 500:
        text = "The proxy answers 500, perhaps since its check is not answered by 200, 401 or 403."
        return problem(PART, text, f"Let it ask {_SUBREQUEST} of the service. {_DOCUMENTED}")
    if code or answer.status >= 500:
        text = (
            f"The proxy answers {answer.status} ({short(code or 'no code')}) to a request without a session."
        )
        return problem(PART, text, f"{_DOCUMENTED} See the logs of the service and of the proxy.")
    return problem(
        PART,
        f"A request without a session gets {answer.status} from another server, perhaps from the app: "
        "anybody may open it.",
        f"Let the proxy ask {_SUBREQUEST} before each request. {_DOCUMENTED}",
    )


def _check_internal(site: ViewerSite) -> list[Finding]:
    """Check that the address of the check is closed. Only the service's own answer has no body."""
    answer = site.ask(_SUBREQUEST)
    if isinstance(answer, Finding) or not answer.header(_CODE_HEADER) or answer.body:
        return []
    text = f"{_SUBREQUEST} answers from outside, so anybody can ask it with a stolen cookie, past the proxy."
    return [warning(PART, text, "Let the proxy answer 404 for /internal/ on every host.")]


# ---- The probe ----


def _received(answer: Answer) -> dict[str, str] | None:
    """Return the headers that arrived, by names in lower case, or None if the probe did not come back."""
    try:
        content: Any = json.loads(answer.body)
        found = content["received"]
        return {str(name).lower(): str(value) for name, value in found.items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None


def _explain_probe(answer: Answer) -> Finding:
    code = answer.code
    if code == "upstream_not_listed":
        return warning(
            PART,
            "The doctor cannot see what an app receives, since the proxy's list of upstreams has no "
            f"{probe.UPSTREAM}.",
            "Add that line as the documented files have it, and run this again.",
        )
    if code == "session_missing":
        return problem(
            PART,
            "The check does not get the session's cookie, so every request is refused; or the server has "
            "another SECRET_KEY than this command.",
            "Let the proxy pass cookies named __Host-pat-… to the check. "
            "Give the server the SECRET_KEY of this command.",
        )
    if code in _NOT_HEARD:
        return problem(PART, *_NOT_HEARD[code])
    return warning(
        PART,
        f"The doctor cannot see what an app receives: its probe gets {answer.status} "
        f"({short(code or 'no code')}).",
        f"Let {probe.UPSTREAM} in the proxy's list lead to the service. The server must have this release.",
    )


def _check_identity(received: Mapping[str, str]) -> Iterator[Finding]:
    forged = [name for name, value in received.items() if _FORGED in value]
    named = [name for name in forged if name.replace(".", "-") in {each.lower() for each in probe.IDENTITY}]
    if named:
        text = f"Anybody can be another person: the app gets {', '.join(named)} as the browser sends it."
        yield problem(PART, text, _IDENTITY_FIX)
    if others := [name for name in forged if name not in named]:
        text = f"The app gets these headers as the browser sends them: {', '.join(others)}."
        yield problem(PART, text, f"Let the proxy remove or replace them. {_DOCUMENTED}")
    missing = [
        name
        for name, value in probe.IDENTITY.items()
        if value not in received.get(name.lower(), "") and name.lower() not in forged
    ]
    if missing:
        text = f"The app does not learn who its viewer is: it does not get {', '.join(missing)}."
        yield problem(PART, text, _IDENTITY_FIX)


def _check_request(site: ViewerSite, received: Mapping[str, str]) -> Iterator[Finding]:
    scheme, _, host = site.url.partition("://")
    if (arrived := received.get("host", "")) != host:
        text = f"The app gets the host {short(arrived)} in place of the browser's, so it may refuse requests."
        yield problem(PART, text, _HOST_FIX)
    if (arrived := received.get("x-forwarded-proto", "")) != scheme:
        text = f"The app gets the scheme {short(arrived or '(none)')}, not {scheme}: its redirects may fail."
        yield warning(PART, text, "Let the proxy send X-Forwarded-Proto with the browser's scheme.")
    cookies = received.get("cookie", "")
    if "__Host-pat-" in cookies:
        text = "The app gets the cookies of sessions, and can act as its viewer later."
        yield problem(PART, text, f"Let the proxy remove cookies named __Host-pat-…. {_DOCUMENTED}")
    if f"{probe.APP_COOKIE}=" not in cookies:
        text = "The app gets none of its own cookies."
        yield problem(PART, text, "Let the proxy pass all cookies that are not named __Host-pat-…")


# ---- The answer to the probe ----


def _check_changes(site: ViewerSite, answer: Answer) -> Iterator[Finding]:
    yield from _check_cookie(answer)
    if answer.values("X-Frame-Options"):
        text = "X-Frame-Options of the app arrives, so its frame stays blank."
        yield problem(
            PART, text, "Let the proxy remove it from the app's answers (nginx: `proxy_hide_header`)."
        )
    policies = "; ".join(answer.header(POLICY_HEADER))
    if "frame-ancestors 'none'" in policies:
        text = "frame-ancestors of the app arrives, so its frame stays blank."
        yield problem(PART, text, f"Let the proxy remove this rule of the app's policy. {_DOCUMENTED}")
    if probe.FRAME_ANCESTORS not in policies:
        text = "The service's frame-ancestors does not arrive, so any page may frame the app."
        yield problem(PART, text, "Let the proxy add X-Embed-Policy of the check's answer as a policy.")
    if "default-src 'self'" not in policies:
        text = "The proxy drops the app's own Content-Security-Policy."
        yield warning(PART, text, "Let it remove only frame-ancestors.")
    if embedder := answer.values(EMBEDDER_POLICY):
        text = f"A proxy adds {EMBEDDER_POLICY}: {short(', '.join(embedder))}. It blocks the app's files."
        yield problem(PART, text, "Remove it from the proxy for these hosts.")
    if any(value.startswith(probe.UPSTREAM) for value in answer.values("Location")):
        text = "Redirects of the app to its own address lead browsers to that address."
        yield warning(PART, text, f"Let the proxy rewrite Location. {_DOCUMENTED}")


def _check_cookie(answer: Answer) -> Iterator[Finding]:
    cookies = [value for value in answer.values("Set-Cookie") if value.startswith(f"{probe.APP_COOKIE}=")]
    if not cookies:
        yield problem(PART, "Cookies of the app do not arrive.", "Let the proxy pass Set-Cookie.")
        return
    attributes = {part.strip().lower() for part in cookies[0].split(";")[1:]}
    missing = [each for each in ("Secure", "SameSite=None", "Partitioned") if each.lower() not in attributes]
    if missing:
        text = f"Cookies of the app arrive without {', '.join(missing)}, so frames lose them."
        yield problem(PART, text, f"Let the proxy rewrite them. {_DOCUMENTED}")
    if any(each.startswith("domain=") and each != "domain=" for each in attributes):
        text = "Cookies of the app keep their Domain, so other apps get them."
        yield problem(PART, text, f"Let the proxy remove it. {_DOCUMENTED}")


def _check_sockets(answer: Answer | Finding) -> Finding:
    """Check an upgrade to a WebSocket. The relay refuses the probe; without a relay it comes back."""
    if isinstance(answer, Finding):
        return answer
    received = _received(answer)
    if received is not None:
        if received.get("upgrade", "").lower() == "websocket":
            return ok(PART, "WebSockets pass, without the relay.")
        text = "WebSockets do not pass: the app does not get Upgrade."
        return problem(PART, text, "Let the proxy pass Upgrade and Connection for WebSockets.")
    if answer.status in (401, 403):
        return ok(PART, "WebSockets pass through the relay.")
    if answer.status == 503 and not answer.code:
        text = "The relay does not reach the service."
        return problem(PART, text, "Correct RELAY_SERVICE, and see the relay's log.")
    if answer.code == "upstream_unreachable":
        text = "WebSockets do not pass: the proxy does not reach the relay."
        return problem(PART, text, "Start the relay, and compare RELAY_LISTEN with the proxy's lines for it.")
    text = f"WebSockets do not pass: the proxy answers {answer.status}."
    return problem(PART, text, f"See the proxy's log. {_DOCUMENTED}")


def _check_app(answer: Answer | Finding) -> Finding:
    """Check that a HEAD without an identity reaches the app. Any answer of the app is good."""
    if isinstance(answer, Finding):
        return answer
    (code,) = answer.header(_CODE_HEADER)[:1] or [""]
    if code == "upstream_not_listed":
        text = "The proxy's list of upstreams lacks the app's address."
        return problem(PART, text, "Add it exactly as `flask --app app app show SLUG` prints it, and reload.")
    if code == "upstream_unreachable":
        text = "The proxy gets no answer from the app."
        change = "Start the app, or correct its upstream. With https, the proxy must trust its certificate."
        return problem(PART, text, change)
    if code:
        text = f"The proxy does not pass a request on to the app: {short(code)}."
        return problem(PART, text, f"See the proxy's log. {_DOCUMENTED}")
    return ok(PART, REACHED)


def _check_speed(seconds: float) -> Finding:
    text = f"The proxy and its check take {seconds * 1000:.0f} ms for a request"
    if seconds <= SLOW_SECONDS:
        return ok(PART, f"{text}.")
    change = "Run the proxy near the service, and see the service's load: docs/operate/capacity.md."
    return warning(PART, f"{text}, and every file of an app's page waits for it.", change)
