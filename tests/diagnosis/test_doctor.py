"""`flask --app app doctor` checks settings and the database when a frame stays blank."""

import json
import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from flask import Flask
from sqlalchemy import update

from pat_service.cli import upgrade_schema
from pat_service.diagnosis import installation
from pat_service.diagnosis.installation import check_clock
from pat_service.diagnosis.origins import explain_mismatch, parse_parent
from pat_service.storage.database import db
from pat_service.storage.models import App, Token
from tests.support.people import (
    ACCESS_LOSSES,
    KEY,
    ORDERS,
    PORTAL,
    SECRETS,
    WORLD,
    Service,
    changed,
    database_folder,
    lose_the_database,
    provision,
)
from tests.support.servers import fresh_database, postgres

Findings = list[dict[str, Any]]
Setting = Callable[[str, Any], None]
ANA: Final = ("--app", "orders", "--email", "ana@acme.test")
WWW: Final = "http://www.portal.example"


def examine(app: Flask, *args: str) -> Findings:
    """Run the doctor without HTTP, check its exit code and form, and return its findings."""
    done = app.test_cli_runner().invoke(args=["doctor", "--offline", "--json", *args])
    output = json.loads(done.output)
    levels = {finding["level"] for finding in output["findings"]}
    assert output["ok"] == ("problem" not in levels)
    assert done.exit_code == (0 if output["ok"] else 1)
    for finding in output["findings"]:
        assert set(finding) == {"level", "about", "text", "change"}
        assert (finding["change"] is None) == (finding["level"] == "ok")
        assert "\n" not in finding["text"] + (finding["change"] or "")
    found: Findings = output["findings"]
    return found


def bad(findings: Findings) -> list[tuple[str, str, str]]:
    """Return the findings that are not ok: level, part, and text with change."""
    return [(f["level"], f["about"], f"{f['text']} {f['change']}") for f in findings if f["level"] != "ok"]


def only_one(findings: Findings, level: str, part: str) -> str:
    """Return the text and change of the only finding that is not ok. It must have this level and part."""
    ((its_level, its_part, text),) = bad(findings)
    assert (its_level, its_part) == (level, part)
    return text


@pytest.fixture(autouse=True)
def behind_a_proxy(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """PUBLIC_URL is https, so the doctor expects a proxy."""
    monkeypatch.setitem(app.config, "TRUSTED_PROXIES", 1)


@pytest.fixture
def setting(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Setting:
    return lambda name, value: monkeypatch.setitem(app.config, name, value)


# ---- A healthy installation ----


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--app", "orders"],
        ["--workspace", "acme", "--parent", PORTAL],
        ["--app", "orders", "--workspace", "acme"],
        [*ANA, "--parent", PORTAL],
        ["--email", "ana@acme.test"],
    ],
)
def test_a_healthy_installation_has_no_problem(service: Service, args: list[str]) -> None:
    service.frame()
    assert bad(examine(service.app, *args)) == []


@pytest.mark.parametrize("target", [["--app", "orders"], ["--workspace", "acme"]])
def test_no_finding_is_repeated(app: Flask, target: list[str]) -> None:
    texts = [finding["text"] for finding in examine(app, *target, "--parent", PORTAL, "--parent", PORTAL)]
    assert f"{PORTAL} may frame {target[0].strip('-')} {target[1]}." in texts
    assert len(texts) == len(set(texts))


def test_the_doctor_only_reads_and_prints_no_secret(service: Service) -> None:
    token = service.token()
    jwt = service.frame().jwt
    with service.statements() as statements:
        output = json.dumps(examine(service.app, *ANA, "--workspace", "acme"))
    assert statements
    assert all(statement.startswith(("SELECT", "WITH")) for statement in statements)
    for secret in (token, token[-8:], jwt, KEY, "pat_", SECRETS["portal"]):
        assert secret not in output


def test_each_finding_has_a_line_and_its_change_has_the_next(app: Flask) -> None:
    done = app.test_cli_runner().invoke(args=["doctor", "--offline", "--app", "orders", "--parent", WWW])
    lines = done.output.splitlines()
    assert done.exit_code == 1
    (place,) = (number for number, line in enumerate(lines) if line.startswith("problem  origins"))
    assert "may not frame app orders" in lines[place]
    assert lines[place + 1].strip().startswith(f"→ flask --app app app allow orders {WWW}; or")
    assert f"PATCH /api/ext/apps/{ORDERS}" in lines[place + 1]
    assert place == 0
    assert lines[-1] == "1 problem(s), 0 warning(s)."
    assert "\x1b" not in done.output
    coloured = app.test_cli_runner().invoke(args=["doctor", "--offline"], color=True)
    assert "\x1b[32mok" in coloured.output
    plain = app.test_cli_runner(env={"NO_COLOR": "1"}).invoke(args=["doctor", "--offline"], color=True)
    assert "\x1b" not in plain.output


# ---- Arguments ----


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--app", "nothing"], "There is no app 'nothing'."),
        (["--workspace", "nothing"], "There is no workspace 'nothing'."),
        (["--app", "Orders/"], "--app Orders/: Must be a slug"),
        (["--app", "a\x1b[31m"], r"--app a\x1b[31m: Must be a slug"),
        (["--email", "ana"], "--email ana: Must be one plain email address"),
        (["--parent", "portal.example"], "--parent portal.example: Must be the origin of one page"),
        (["--parent", ""], "Must be the origin of one page"),
        (["--parent", "*"], "Must be the origin of one page"),
        (["--parent", "https://*.example"], "Must be the origin of one page"),
        (["--parent", "ftp://portal.example"], "Must be an exact origin"),
        (["--parent", "https://portal.example:99999"], "Must have a port"),
        (["--parent", "http://[::1]:8000/"], "cannot name an IPv6 address"),
        (["--parent", "capacitor://portal"], "Must be capacitor://localhost"),
        (["--parent", PORTAL, "--parent", "https://a\r\nb"], "Must be an exact origin"),
    ],
)
def test_a_wrong_argument_prints_one_line_and_exits_with_2(app: Flask, args: list[str], text: str) -> None:
    done = app.test_cli_runner().invoke(args=["doctor", "--offline", *args])
    assert done.exit_code == 2
    assert text in done.output
    assert len(done.output.splitlines()) == 1
    assert "\x1b" not in done.output


# ---- Origins ----


@pytest.mark.parametrize(
    ("allowed", "parent", "why"),
    [
        ([PORTAL], "https://portal.example", "http://portal.example is allowed, but https and http are diff"),
        ([PORTAL], WWW, "with and without www. are different origins"),
        ([PORTAL], "http://portal.example:8080", "a different port is a different origin"),
        (["http://www.portal.example:80"], PORTAL, "with and without www."),
        ([PORTAL], "http://shop.portal.example", "does not include its subdomains"),
        ([PORTAL], "https://mallory.example", "only http://portal.example is allowed."),
        (["*"], "capacitor://localhost", "* allows every web page, but shells"),
        ([PORTAL], "chrome-extension://" + "ap" * 16, "only http://portal.example is allowed."),
        ([PORTAL], "null", "Browsers send null for a file"),
        (["*"], "file:///home/ana/portal.html", "Browsers send null for a file"),
        (["*"], "data:text/html,<p>", "for data:"),
        (["*"], "blob:null/5f0c2f4e", "not even by *"),
        ([PORTAL], "blob:https://mallory.example/5f0c2f4e", "only http://portal.example is allowed."),
        ([], PORTAL, "nothing is allowed"),
    ],
)
def test_the_doctor_explains_why_a_parent_may_not_frame(
    app: Flask, allowed: list[str], parent: str, why: str
) -> None:
    provision(app, changed("apps", "orders", allowed_origins=allowed))
    problems = [
        text
        for level, about, text in bad(examine(app, "--app", "orders", "--parent", parent))
        if (level, about) == ("problem", "origins")
    ]
    assert why in " ".join(problems)


def test_the_proposed_request_sets_the_complete_list(service: Service) -> None:
    around = ["--parent", WWW, "--parent", "http://top.example/a/page"]
    found = bad(examine(service.app, "--app", "orders", *around))
    assert [about for _, about, _ in found] == ["origins", "origins"]
    body = found[0][2].partition(f"PATCH /api/ext/apps/{ORDERS} ")[2].partition(";")[0]
    change = json.loads(body)
    assert change == {"allowedOrigins": [PORTAL, WWW, "http://top.example"]}
    provision(service.app, changed("apps", "orders", allowed_origins=change["allowedOrigins"]))
    assert bad(examine(service.app, "--app", "orders", *around)) == []


@pytest.mark.parametrize("kind", ["app", "workspace"])
@pytest.mark.parametrize("allowed", [[PORTAL], ["*"], []])
def test_the_proposed_commands_fix_the_origins(app: Flask, kind: str, allowed: list[str]) -> None:
    slug = {"app": "orders", "workspace": "acme"}[kind]
    provision(app, changed(f"{kind}s", slug, allowed_origins=allowed))
    args = [f"--{kind}", slug, "--parent", WWW]
    commands = bad(examine(app, *args))[0][2].partition("flask --app app ")[2].partition(";")[0]
    for command in commands.split(" && flask --app app "):
        assert app.test_cli_runner().invoke(args=shlex.split(command)).exit_code == 0
    assert not [text for _, _, text in bad(examine(app, *args)) if f"frame {kind} {slug}" in text]


def test_only_the_origin_of_a_parents_address_matters(app: Flask) -> None:
    found = examine(app, "--app", "orders", "--parent", "HTTP://ana@Portal.Example:80/orders/?a#b")
    assert bad(found) == []
    assert any("is http://portal.example; only that counts" in finding["text"] for finding in found)


@pytest.mark.parametrize(
    ("parent", "text"),
    [
        ("about:srcdoc", "has the origin of the page that created it"),
        ("about:blank", "has the origin of the page that created it"),
        (f"blob:{PORTAL}/5f0c2f4e", f"is {PORTAL}; only that counts"),
    ],
)
def test_a_page_without_an_address_has_the_origin_of_its_creator(app: Flask, parent: str, text: str) -> None:
    found = examine(app, "--app", "orders", "--parent", parent, "--parent", PORTAL)
    assert bad(found) == []
    assert any(text in finding["text"] for finding in found)


@pytest.mark.parametrize(
    ("parents", "level"),
    [
        (["http://inner.example", "https://top.example"], "problem"),
        (["http://inner.example", "http://middle.example", "https://top.example"], "problem"),
        (["http://localhost:3000", "https://top.example"], "warning"),
        (["https://inner.example", "http://top.example"], None),
        (["http://inner.example", "http://top.example"], None),
    ],
)
def test_a_page_on_http_inside_one_on_https_is_mixed_content(
    app: Flask, setting: Setting, parents: list[str], level: str | None
) -> None:
    setting("PUBLIC_URL", "https://embed.example")
    found = bad(examine(app, *(part for parent in parents for part in ("--parent", parent))))
    mixed = [finding for finding in found if "mixed content" in finding[2]]
    assert {finding[0] for finding in mixed} == ({level} if level else set())


@pytest.mark.parametrize("origin", ["https://mallory.example", "capacitor://localhost"])
def test_every_mismatch_has_a_text(origin: str) -> None:
    for allowed in ([], ["*"], [PORTAL], ["garbage"], ["http://[::1"], ["https://portal.example:x"]):
        assert explain_mismatch(origin, allowed)
    assert parse_parent(origin).origin == origin


# ---- Faults ----

Changes = list[dict[str, Any]]
ORDERS_APP: Final = ("--app", "orders")
BOTH: Final = [PORTAL, WWW]


def orders(**changes: Any) -> Changes:
    return [changed("apps", "orders", **changes)]


def fault(finding: str, text: str, *args: str, changes: Changes | None = None, **settings: Any) -> Any:
    """A row of FAULTS; `finding` is its level and part."""
    return pytest.param(changes or [], settings, args, finding.split(), text, id=text)


#: The only finding that is not ok, and the arguments, changes and settings that cause it.
FAULTS: Final = [
    fault("problem origins", "No page may frame app orders", *ORDERS_APP, changes=orders(allowed_origins=[])),
    fault("warning origins", "Every web page", *ORDERS_APP, changes=orders(allowed_origins=["*"])),
    fault(
        "warning origins",
        "stay blank in its frame: support. Their own allowed origins lack a parent. For each app: "
        f"flask --app app app allow SLUG {WWW}",
        *("--workspace", "acme", "--parent", WWW),
        changes=[changed("workspaces", "acme", allowed_origins=BOTH), *orders(allowed_origins=BOTH)],
    ),
    fault(
        "problem PUBLIC_URL",
        "or_ders cannot be the first part of the app's host",
        *("--app", "or_ders"),
        changes=orders(slug="or_ders"),
        PUBLIC_URL="https://{app}.embed.example",
    ),
    fault("warning proxies", "TRUSTED_PROXIES=0", TRUSTED_PROXIES=0),
    fault("warning frames", "Set EMBED_FRAMED_ONLY=on", EMBED_FRAMED_ONLY=False),
    fault("problem limits", "SESSION_RATE_LIMIT is 3 per m", SESSION_RATE_LIMIT="3 per minute"),
    fault("problem limits", "SESSION_RATE_LIMIT is 100 per h", SESSION_RATE_LIMIT="100 per hour"),
    fault("warning limits", "SESSION_RATE_LIMIT is 10 per m", SESSION_RATE_LIMIT="10 per minute"),
    fault("warning limits", "OPEN_RATE_LIMIT is 10 per m", OPEN_RATE_LIMIT="10 per minute"),
    fault("warning limits", "USER_MINT_RATE_LIMIT is 3 per m", USER_MINT_RATE_LIMIT="3 per minute"),
    fault("warning limits", "FAILURE_RATE_LIMIT is 1 per m", FAILURE_RATE_LIMIT="1 per minute"),
    fault("problem access", "There is no user x@acme.test.", "--email", "x@acme.test"),
    fault("problem access", "There is no user y@acme.test.", *ORDERS_APP, "--email", "y@acme.test"),
    fault(
        "problem template",
        "apps/nothing/templates/index.html",
        *ORDERS_APP,
        changes=orders(template="nothing"),
    ),
]


@pytest.mark.parametrize(("changes", "settings", "args", "finding", "text"), FAULTS)
def test_a_fault_is_the_only_finding(
    app: Flask,
    setting: Setting,
    changes: Changes,
    settings: dict[str, Any],
    args: tuple[str, ...],
    finding: tuple[str, str],
    text: str,
) -> None:
    for change in changes:
        provision(app, change)
    for name, value in settings.items():
        setting(name, value)
    assert text in only_one(examine(app, *args), *finding)


@pytest.mark.parametrize(
    ("changes", "settings", "args"),
    [
        (orders(slug="or_ders"), {}, ["--app", "or_ders"]),
        ([], {"TRUSTED_PROXIES": 0, "PUBLIC_URL": "http://127.0.0.1:8000"}, []),
        ([], {"SESSION_RATE_LIMIT": "1 per second"}, []),
        ([], {"OPEN_RATE_LIMIT": "60 per minute"}, []),
        ([], {"FAILURE_RATE_LIMIT": "30 per minute"}, []),
        ([], {"PUBLIC_URL": "http://127.0.0.1:8000"}, ["--parent", "http://localhost:3000"]),
        ([], {"PUBLIC_URL": "http://127.0.0.1:8000"}, ["--parent", "capacitor://localhost"]),
        ([], {"PUBLIC_URL": "https://embed.example"}, ["--parent", "http://portal.example"]),
    ],
)
def test_settings_without_a_fault_have_no_finding(
    app: Flask, setting: Setting, changes: Changes, settings: dict[str, Any], args: list[str]
) -> None:
    for change in changes:
        provision(app, change)
    for name, value in settings.items():
        setting(name, value)
    assert bad(examine(app, *args)) == []


def test_a_stored_origin_that_no_browser_writes_is_a_problem(service: Service) -> None:
    service.change(update(App).where(App.id == ORDERS).values(allowed_origins=["https://Portal.example/"]))
    found = examine(service.app, *ORDERS_APP, "--parent", "https://portal.example")
    assert "browsers write it in lower case" in only_one(found, "problem", "origins")


# ---- Its address ----


@pytest.mark.parametrize(
    ("public_url", "parent", "level", "text"),
    [
        ("http://127.0.0.1:8000", "https://portal.example", "problem", "each viewer's own machine"),
        ("http://localhost:8000", "https://localhost:3000", "warning", "which Safari blocks even on loopba"),
        ("http://embed.example", "https://portal.example", "problem", "mixed content, which browsers block"),
        (None, "https://portal.example", "problem", "PUBLIC_URL is unset"),
        (None, "http://localhost:3000", "warning", "PUBLIC_URL is unset"),
    ],
)
def test_the_doctor_reports_an_address_that_the_parent_cannot_frame(
    app: Flask, setting: Setting, public_url: str | None, parent: str, level: str, text: str
) -> None:
    setting("PUBLIC_URL", public_url)
    found = [f for f in bad(examine(app, "--parent", parent)) if text in f[2]]
    assert [(f[0], f[1]) for f in found] == [(level, "PUBLIC_URL")]


def test_the_doctor_says_why_it_sent_no_request(app: Flask, setting: Setting) -> None:
    def address(*args: str) -> str:
        output = json.loads(app.test_cli_runner().invoke(args=["doctor", "--json", *args]).output)
        (found,) = (f for f in output["findings"] if f["about"] == "address")
        return str(found["text"])

    assert address("--offline") == "No HTTP request was sent to PUBLIC_URL, because of --offline."
    setting("PUBLIC_URL", None)
    assert address() == "No HTTP request was sent, because PUBLIC_URL is unset."


# ---- Limits, clients, keys, clocks ----


def test_the_doctor_warns_of_a_client_with_a_low_limit(app: Flask) -> None:
    provision(app, changed("clients", "portal", mint_limit=None))
    text = only_one(examine(app, "--app", "orders"), "warning", "clients")
    assert "Client portal may mint 10 per minute" in text
    command = text.partition("flask --app app ")[2].partition(";")[0]
    assert app.test_cli_runner().invoke(args=shlex.split(command)).exit_code == 0
    assert bad(examine(app, "--app", "orders")) == []


def test_the_doctor_reports_a_workspace_in_which_no_client_can_mint(app: Flask) -> None:
    commands = app.test_cli_runner()
    for client in ("rival", "everywhere"):
        assert commands.invoke(args=["client", "revoke", client]).exit_code == 0
    text = only_one(examine(app, "--app", "ledger"), "problem", "clients")
    command = text.partition("flask --app app ")[2].split()
    assert commands.invoke(args=command).exit_code == 0
    provision(
        app, {"clients": [{"id": "my-portal", "workspaces": ["globex"], "mint_limit": "60 per minute"}]}
    )
    assert bad(examine(app, "--app", "ledger")) == []


def test_the_doctor_reports_a_token_of_an_unknown_key(service: Service) -> None:
    service.token()
    service.change(update(Token).values(key_id="gone"))
    found = bad(examine(service.app, *ANA))
    assert [(level, about) for level, about, _ in found] == [("problem", "token"), ("warning", "SECRET_KEY")]
    assert "1 token(s), 0 client secret(s) and 0 session(s) use the key gone" in found[1][2]


@pytest.mark.parametrize(("seconds", "text"), [(6, "6 s ahead of this"), (-3600, "3600 s behind this")])
def test_the_doctor_reports_a_database_with_a_wrong_clock(
    app: Flask, monkeypatch: pytest.MonkeyPatch, seconds: int, text: str
) -> None:
    monkeypatch.setattr(installation, "database_clock", lambda: timedelta(seconds=seconds))
    found = only_one(examine(app), "problem", "clock")
    assert text in found


@pytest.mark.parametrize("seconds", [0, 4.9, -4.9])
def test_a_clock_that_is_close_enough_is_ok(seconds: float) -> None:
    assert [finding.level for finding in check_clock(timedelta(seconds=seconds), "the database")] == ["ok"]


# ---- A user and their token ----


@pytest.mark.parametrize(
    ("loss", "texts"),
    [
        ("she is archived", ["ana@acme.test is archived"]),
        ("she loses her grant", ["ana@acme.test has no grant of app orders"]),
        ("she leaves the workspace", ["ana@acme.test is not a member of workspace acme"]),
    ],
)
def test_the_proposed_commands_give_ana_access(service: Service, loss: str, texts: list[str]) -> None:
    provision(service.app, ACCESS_LOSSES[loss])
    runner = service.app.test_cli_runner()
    found = [text for _, about, text in bad(examine(service.app, *ANA)) if about == "access"]
    for line, text in zip(found, texts, strict=True):
        assert text in line
        command = line.partition("flask --app app ")[2]
        assert runner.invoke(args=command.split()).exit_code == 0
    service.token()
    assert bad(examine(service.app, *ANA)) == []


def test_the_doctor_names_the_workspace_that_archived_ana(app: Flask) -> None:
    runner = app.test_cli_runner()
    runner.invoke(args=["user", "archive", "ana@acme.test", "--workspace", "acme"])
    found = next(text for _, about, text in bad(examine(app, *ANA)) if about == "access")
    assert found.startswith("ana@acme.test is archived in workspace acme. ")
    command = found.partition("flask --app app ")[2]
    assert runner.invoke(args=command.split()).exit_code == 0
    assert not [text for _, about, text in bad(examine(app, *ANA)) if about == "access"]


@pytest.mark.parametrize("loss", ACCESS_LOSSES)
def test_sessions_of_a_user_without_access_are_not_listed_as_open(service: Service, loss: str) -> None:
    def sessions() -> str:
        (found,) = (f for f in examine(service.app, *ANA) if f["about"] == "sessions")
        return str(found["text"])

    assert sessions() == "The user has 0 open frame(s) here."
    service.frame()
    assert sessions() == "The user has 1 open frame(s) here."
    provision(service.app, ACCESS_LOSSES[loss])
    assert sessions() == "The user has 1 session(s) here, which are refused until access is back."


def test_mallory_lacks_a_membership_and_a_grant(app: Flask) -> None:
    found = bad(examine(app, "--app", "orders", "--email", "mallory@globex.test"))
    assert [about for level, about, _ in found if level == "problem"] == ["access", "access"]
    found = bad(examine(app, "--workspace", "acme", "--email", "mallory@globex.test"))
    assert [about for level, about, _ in found if level == "problem"] == ["access"]


def test_the_doctor_reports_an_app_that_has_moved(service: Service) -> None:
    service.token()
    provision(service.app, changed("apps", "orders", workspace="globex", users=[]))
    found = [
        text
        for _, about, text in bad(examine(service.app, *ANA, "--workspace", "acme"))
        if about in ("access", "token")
    ]
    assert "is in workspace globex, not in acme" in found[0]
    assert "not a member of workspace globex" in found[1]
    assert "a move of the app drops its grants" in found[2]
    provision(service.app, changed("apps", "orders"))
    found = [text for _, about, text in bad(examine(service.app, *ANA)) if about == "token"]
    assert "ended for good when the app moved" in found[0]


def test_the_doctor_explains_each_state_of_anas_token(service: Service) -> None:
    def token() -> tuple[str, str]:
        (found,) = (f for f in examine(service.app, *ANA) if f["about"] == "token")
        return found["level"], found["text"]

    assert token() == ("warning", "There is no token for app orders: none was minted, or it was purged.")
    secret = service.token(singleUse=True)
    assert token()[0] == "ok"
    assert "client portal minted at" in token()[1]
    assert "not used yet" in token()[1]
    service.open(secret)
    assert "last used" in token()[1]
    long_ago = datetime.now(UTC) - timedelta(minutes=1)
    service.change(update(Token).values(first_used_at=long_ago))
    assert token()[0] == "warning"
    assert f"was for single use, and was used at {long_ago:%Y-%m-%dT%H:%M:%SZ}" in token()[1]
    service.change(update(Token).values(expires_at=long_ago))
    assert token() == ("ok", token()[1])
    assert token()[1].endswith(f"expired at {long_ago:%Y-%m-%dT%H:%M:%SZ}; the next mint replaces it.")
    service.change(update(Token).values(key_id="gone"))
    assert token()[0] == "ok"
    service.app.test_cli_runner().invoke(args=["token", "revoke", "--app", "orders"])
    assert token()[0] == "problem"
    assert "was revoked at" in token()[1]


@pytest.mark.parametrize("change", [{}, *({loss: True} for loss in ACCESS_LOSSES)], ids=str)
def test_the_doctor_judges_a_token_as_an_opening_does(service: Service, change: dict[str, bool]) -> None:
    secret = service.token()
    for loss in change:
        provision(service.app, ACCESS_LOSSES[loss])
    opens = service.open(secret).status_code == 200
    tokens = {f["level"] for f in examine(service.app, *ANA) if f["about"] == "token"}
    assert tokens == {"ok" if opens else "problem"}


def test_a_workspace_token_is_valid_at_its_launcher_and_at_each_app(service: Service) -> None:
    service.mint(client="manager", appSlug=None, workspaceSlug="acme")
    for place in (["--workspace", "acme"], ["--app", "orders"], ["--app", "support"]):
        (token,) = (
            f for f in examine(service.app, *place, "--email", "ana@acme.test") if f["about"] == "token"
        )
        assert token["level"] == "ok"
        assert "The workspace token that client manager minted" in token["text"]


def test_a_bad_workspace_token_is_only_a_warning_at_an_app(service: Service) -> None:
    service.mint(client="manager", appSlug=None, workspaceSlug="acme", allowedOrigins=[PORTAL])
    provision(service.app, changed("apps", "orders", allowed_origins=[PORTAL, WWW]))
    only_one(examine(service.app, *ANA, "--parent", WWW), "warning", "token")
    service.app.test_cli_runner().invoke(args=["token", "revoke", "--user", "ana@acme.test"])
    text = only_one(examine(service.app, *ANA), "warning", "token")
    assert "The workspace token that client manager minted" in text
    assert "was revoked at" in text
    launcher = ["--workspace", "acme", "--email", "ana@acme.test"]
    assert [level for level, about, _ in bad(examine(service.app, *launcher))] == ["problem"]


def test_the_doctor_reports_a_token_for_fewer_origins_than_the_app_has(service: Service) -> None:
    provision(service.app, changed("apps", "orders", allowed_origins=[PORTAL, WWW]))
    service.token(allowedOrigins=[PORTAL])
    around = ["--parent", PORTAL, "--parent", WWW]
    text = only_one(examine(service.app, *ANA, *around), "problem", "token")
    assert "minted for fewer origins, without http://www.portal.example" in text


def test_the_doctor_reports_a_token_with_its_maximum_of_sessions(service: Service, setting: Setting) -> None:
    setting("MAX_SESSIONS_PER_TOKEN", 2)
    token = service.token()
    service.open(token)
    assert bad(examine(service.app, *ANA)) == []
    service.open(token)
    text = only_one(examine(service.app, *ANA), "problem", "sessions")
    assert "2 sessions of this token are open" in text
    assert service.open(token).status_code != 200


# ---- Stores that fail ----


def test_without_a_database_the_other_checks_still_run(app: Flask) -> None:
    lose_the_database(app, database_folder(app))
    text = only_one(examine(app, *ANA, "--parent", PORTAL), "problem", "database")
    assert "DATABASE_URL" in text


def test_the_doctor_reports_a_database_that_fails_during_the_checks(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_the_database(app, database_folder(app))
    monkeypatch.setitem(app.extensions, "pat_service.findings", lambda: [])
    found = bad(examine(app, *ANA))
    assert ("problem", "database") in [found[:2] for found in found]


def test_the_doctor_reports_a_schema_that_is_behind(app: Flask) -> None:
    for file in database_folder(app).glob("pat-service.db*"):
        file.unlink()
    text = only_one(examine(app, *ANA), "problem", "database")
    assert "flask --app app db upgrade" in text
    assert not list(database_folder(app).glob("pat-service.db"))


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}, "REDIS_URL names a store that does not answer"),
        ({"WEB_CONCURRENCY": "2"}, "REDIS_URL must be set for 2 worker processes"),
    ],
)
def test_the_doctor_reports_an_unavailable_or_missing_store_of_the_limits(
    make_app: Callable[..., Flask], environ: dict[str, str], text: str
) -> None:
    found = only_one(examine(make_app(TRUSTED_PROXIES="1", **environ)), "problem", "limits")
    assert text in found
    assert "hunter2" not in found


# ---- On PostgreSQL ----


@pytest.mark.postgres
@pytest.mark.slow
def test_the_doctor_on_postgresql_checks_its_clock(make_app: Callable[..., Flask]) -> None:
    with postgres() as server, fresh_database(server) as url:
        app = make_app(DATABASE_URL=url, TRUSTED_PROXIES="1")
        only_one(examine(app, *ANA), "problem", "database")
        with app.app_context():
            upgrade_schema()
        provision(app, WORLD)
        service = Service(app.test_client())
        service.frame()
        for args in ([*ANA, "--parent", PORTAL], ["--workspace", "acme", "--email", "ana@acme.test"]):
            found = examine(app, *args)
            assert {about for level, about, _ in bad(found)} <= {"token"}
            (clock,) = (finding["text"] for finding in found if finding["about"] == "clock")
            assert clock == "The clocks of the database and of this machine differ by 0 s."
        with app.app_context():
            db.engine.dispose()
