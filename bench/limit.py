"""The limit: the same work in the fewest raw driver calls, without any checks.

It has the same tables, reads, writes and JWT. Each request counts one hit in the limiter's store and writes
one access log line.

Nothing here is secure: it compares no secret and checks no permission.
"""

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import sqlite3
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import jwt
import psycopg
from flask import Flask, Response, jsonify, request
from limits import parse
from limits.storage import storage_from_string
from limits.strategies import MovingWindowRateLimiter
from psycopg.rows import tuple_row

from pat_service.http.counters import WorkerStorage

KEY = b"k" * 32
#: A placeholder for the session's JWT in the page that answers an opening.
JWT_PLACE = "@session@"
MANY = parse("100000000 per minute")
_log = logging.getLogger("bench.limit")

_FACTS = """
  u.id, u.email, u.name, u.status, a.id, a.slug, a.name, a.template, a.moves, a.workspace_id, a.moved_from,
  a.allowed_origins, a.upstream, a.start, a.permissions, w.id, w.slug, w.name, w.allowed_origins, w.apps_url,
  m.role, g.user_id"""
_BINDS = """
  LEFT JOIN members m ON m.workspace_id = w.id AND m.user_id = u.id
  LEFT JOIN grants g ON g.app_id = a.id AND g.user_id = u.id"""
MINT_FACTS = f"""
  SELECT c.scopes, c.all_workspaces, c.mint_limit, c.highest_role, s.digest, s.key_id, s.last_used_at,
    {_FACTS}
  FROM clients c JOIN client_secrets s ON s.client_id = c.id
  LEFT JOIN users u ON u.email = :email
  LEFT JOIN apps a ON a.slug = :app
  LEFT JOIN workspaces w ON w.id = a.workspace_id {_BINDS}
  WHERE c.id = :client"""
TOKEN_FACTS = f"""
  SELECT {_FACTS}, t.id, t.client_id, t.app_id, t.workspace_id, t.key_id, t.moves, t.session_seconds,
    t.attributes, t.allowed_origins, t.single_use, t.first_used_at, t.expires_at, t.revoked_at
  FROM tokens t LEFT JOIN apps a ON a.id = t.app_id LEFT JOIN users u ON u.id = t.user_id
  LEFT JOIN workspaces w ON w.id = t.workspace_id {_BINDS}
  WHERE t.digest = :digest"""
SESSION_FACTS = f"""
  SELECT {_FACTS}, s.id, s.token_id, s.client_id, s.app_id, s.moves, s.attributes, s.allowed_origins,
    s.expires_at, s.ended_at
  FROM sessions s LEFT JOIN apps a ON a.id = :app LEFT JOIN users u ON u.id = s.user_id
  LEFT JOIN workspaces w ON w.id = s.workspace_id {_BINDS}
  WHERE s.id = :session"""
UPSERT = """
  INSERT INTO tokens (id, app_id, workspace_id, user_id, client_id, digest, key_id, last_four, moves,
    session_seconds, single_use, created_at, expires_at)
  VALUES (:id, :app_id, :workspace_id, :user_id, :client, :digest, :key_id, :last_four, :moves, :seconds, :no,
    :now, :ends)
  ON CONFLICT (app_id, user_id) DO UPDATE SET id = excluded.id, workspace_id = excluded.workspace_id,
    client_id = excluded.client_id, digest = excluded.digest, key_id = excluded.key_id,
    last_four = excluded.last_four, moves = excluded.moves, session_seconds = excluded.session_seconds,
    single_use = excluded.single_use, created_at = excluded.created_at, expires_at = excluded.expires_at,
    revoked_at = NULL, first_used_at = NULL, last_used_at = NULL, superseded_digest = tokens.digest"""
USE = """
  UPDATE tokens SET digest = :digest, key_id = :key_id, first_used_at = COALESCE(first_used_at, :now),
    last_used_at = :now WHERE digest = :digest AND revoked_at IS NULL"""
SESSION = """
  INSERT INTO sessions (id, token_id, client_id, app_id, workspace_id, user_id, key_id, moves, created_at,
    expires_at)
  VALUES (:session, :id, :client, :app_id, :workspace_id, :user_id, :key_id, :moves, :now, :ends)"""
EVENT = """
  INSERT INTO events (at, type, request_id, client_id, workspace_id, app_id, user_id, token_id, session_id)
  VALUES (:now, :type, :request, :client, :workspace_id, :app_id, :user_id, :id, :session)"""


class Sqlite:
    def __init__(self, path: str) -> None:
        self._path, self._local, self._writer = path, threading.local(), threading.Lock()

    def _connection(self) -> sqlite3.Connection:
        if not hasattr(self._local, "connection"):
            connection = self._local.connection = sqlite3.connect(self._path, isolation_level=None)
            for pragma in (
                "busy_timeout = 5000",
                "journal_mode = WAL",
                "synchronous = FULL",
                "foreign_keys = ON",
            ):
                connection.execute(f"PRAGMA {pragma}")
        found: sqlite3.Connection = self._local.connection
        return found

    def moment(self, at: datetime) -> Any:
        return at.strftime("%Y-%m-%d %H:%M:%S.%f")

    def one(self, statement: str, values: dict[str, Any]) -> Any:
        return self._connection().execute(statement, values).fetchone()

    def write(self, statements: tuple[str, ...], values: dict[str, Any]) -> None:
        connection = self._connection()
        with self._writer:
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements:
                connection.execute(statement, values)
            connection.execute("COMMIT")


class Postgres:
    def __init__(self, url: str) -> None:
        self._url, self._local = url, threading.local()
        self._texts: dict[Any, str] = {}

    def _connection(self) -> psycopg.Connection[Any]:
        if not hasattr(self._local, "connection"):
            self._local.connection = psycopg.connect(self._url, autocommit=True, row_factory=tuple_row)
        found: psycopg.Connection[Any] = self._local.connection
        return found

    def moment(self, at: datetime) -> Any:
        return at

    def _text(self, statements: tuple[str, ...]) -> Any:
        if statements not in self._texts:
            *first, last = (re.sub(r":([a-z_]+)", r"%(\1)s", statement) for statement in statements)
            parts = ", ".join(f"w{number} AS ({text})" for number, text in enumerate(first))
            self._texts[statements] = f"WITH {parts} {last}" if parts else last
        return self._texts[statements]

    def one(self, statement: str, values: dict[str, Any]) -> Any:
        return self._connection().execute(self._text((statement,)), values).fetchone()

    def write(self, statements: tuple[str, ...], values: dict[str, Any]) -> None:
        # One statement is one transaction.
        self._connection().execute(self._text(statements), values)


def create_app() -> Flask:
    app = Flask(__name__)
    url = os.environ["DATABASE_URL"]
    store: Sqlite | Postgres = Sqlite(urlsplit(url).path) if url.startswith("sqlite") else Postgres(url)
    counters = MovingWindowRateLimiter(
        storage_from_string(os.environ.get("REDIS_URL") or f"{WorkerStorage.STORAGE_SCHEME[0]}://")
    )
    page = Path(os.environ["BENCH_PAGE"]).read_text().partition(JWT_PLACE)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False

    def log(status: int, began: float) -> None:
        line = {
            "method": request.method,
            "path": request.path,
            "status": status,
            "ms": round((time.perf_counter() - began) * 1000, 1),
            "request_id": str(uuid4()),
        }
        _log.info(json.dumps(line))

    def digest(text: str) -> bytes:
        return hmac.digest(KEY, text.encode(), hashlib.sha256)

    @app.post("/api/ext/users/personal-access-token")
    def mint() -> tuple[Response, int]:
        began = time.perf_counter()
        client = request.authorization.username  # type: ignore[union-attr]
        body = request.get_json()
        counters.hit(MANY, "mint", client)  # type: ignore[arg-type]
        row = store.one(MINT_FACTS, {"client": client, "email": body["email"], "app": body["appSlug"]})
        token, now = f"pat_{secrets.token_hex(36)}", datetime.now(UTC)
        values = {
            "id": str(uuid4()),
            "app_id": row[11],
            "workspace_id": row[16],
            "user_id": row[7],
            "client": client,
            "digest": digest(token),
            "key_id": "bench",
            "last_four": token[-4:],
            "moves": row[15],
            "seconds": body["sessionExpiry"] * 60,
            "no": False,
            "now": store.moment(now),
            "ends": store.moment(now + timedelta(seconds=body["patExpiry"])),
            "type": "token:minted",
            "request": str(uuid4()),
            "session": None,
        }
        store.write((UPSERT, EVENT), values)
        answer = jsonify(
            personalAccessToken=token,
            redirectUrl=f"https://embed.example/embed-apps/{row[11]}?personal-access-token={token}",
            tokenId=values["id"],
            expiresIn=body["patExpiry"],
            sessionExpiresIn=body["sessionExpiry"] * 60,
        )
        log(201, began)
        return answer, 201

    @app.get("/embed-apps/<app_id>")
    def open_(app_id: str) -> Response:
        began = time.perf_counter()
        token = request.args["personal-access-token"]
        counters.hit(MANY, "open", hashlib.sha256(token.encode()).hexdigest())
        held = digest(token)
        row = store.one(TOKEN_FACTS, {"digest": held})
        now, session = datetime.now(UTC), str(uuid4())
        ends = now + timedelta(seconds=row[28])
        values = {
            "session": session,
            "id": row[22],
            "client": row[23],
            "app_id": row[24],
            "workspace_id": row[25],
            "user_id": row[0],
            "digest": held,
            "key_id": "bench",
            "moves": row[27],
            "now": store.moment(now),
            "ends": store.moment(ends),
            "type": "session:opened",
            "request": str(uuid4()),
        }
        store.write((USE, SESSION, EVENT), values)
        begins = int(now.timestamp())
        claims = {
            "iss": "pat-service",
            "aud": f"embed:{row[24]}",
            "sub": row[0],
            "jti": session,
            "wid": row[25],
            "iat": begins,
            "nbf": begins,
            "exp": int(ends.timestamp()),
        }
        signed = jwt.encode(claims, KEY, algorithm="HS256", headers={"typ": "embed+jwt", "kid": "bench"})
        answer = Response(page[0] + signed + page[2], mimetype="text/html")
        log(200, began)
        return answer

    @app.get("/embed-apps/<app_id>/session")
    def session(app_id: str) -> Response:
        began = time.perf_counter()
        text = request.headers["Authorization"][7:]
        claims = jwt.decode(text, KEY, algorithms=["HS256"], audience=f"embed:{app_id}", issuer="pat-service")
        row = store.one(SESSION_FACTS, {"session": claims["jti"], "app": app_id})
        answer = jsonify(
            sessionId=row[22],
            expiresIn=claims["exp"] - int(time.time()),
            user={"id": row[0], "email": row[1], "name": row[2]},
            app={"id": row[4], "slug": row[5], "name": row[6]},
            workspace={"id": row[15], "slug": row[16], "name": row[17]},
        )
        log(200, began)
        return answer

    return app
