"""Twenty processes mint concurrently: every mint is answered, and one token of each user and app opens."""

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import cycle, islice
from multiprocessing import get_context
from typing import Final

import pytest

from tests.e2e.faults.installation import PAIRS, PLACES, Installation
from tests.support.http_calls import HttpConnection
from tests.support.servers import WebServer

pytestmark = pytest.mark.slow

PROCESSES: Final = 20
#: Mints of each process. `make soak` uses fifty.
MINTS: Final = int(os.environ.get("FAULT_MINTS", "5"))


def mint_in_turn(server_port: int, pairs: list[tuple[str, str]], end_sessions: bool) -> list[tuple[int, str]]:
    """Mint for each user and app in turn, and return statuses and tokens."""
    with HttpConnection(server_port) as caller:
        seen = []
        for email, slug in pairs:
            answer = caller.mint(email=email, appSlug=slug, endSessions=end_sessions)
            seen.append((answer.status, answer.json.get("personalAccessToken", "")))
        return seen


def race(server: WebServer, orders_of_mints: list[list[tuple[str, str]]]) -> dict[tuple[str, str], list[str]]:
    """Start processes that mint, and return the tokens for each user and app."""
    ends = [number % 2 == 1 for number in range(len(orders_of_mints))]
    with ProcessPoolExecutor(len(orders_of_mints), get_context("fork")) as processes:
        ports = [server.port] * len(orders_of_mints)
        answers = list(processes.map(mint_in_turn, ports, orders_of_mints, ends))
    seen = [answer for mine in answers for answer in mine]
    assert Counter(status for status, _ in seen) == {201: sum(map(len, orders_of_mints))}
    tokens: dict[tuple[str, str], list[str]] = {}
    for pairs, mine in zip(orders_of_mints, answers, strict=True):
        for pair, (_, token) in zip(pairs, mine, strict=True):
            tokens.setdefault(pair, []).append(token)
    return tokens


def one_opens(server: WebServer, pair: tuple[str, str], tokens: list[str]) -> None:
    with HttpConnection(server.port) as caller:
        codes = Counter(caller.exchange(token, PLACES[pair[1]]).code for token in tokens)
    assert codes == {"served": 1, "token_superseded": 1, "token_invalid": len(tokens) - 2}


def test_twenty_processes_mint_for_one_user_and_only_one_token_opens(
    server: WebServer, installation: Installation
) -> None:
    pair = PAIRS[0]
    (tokens,) = race(server, [[pair] * MINTS] * PROCESSES).values()
    assert len(set(tokens)) == PROCESSES * MINTS
    one_opens(server, pair, tokens)
    assert installation.rows("SELECT count(*) FROM tokens") == [(1,)]


def test_crosswise_mints_for_twenty_users_leave_one_token_each(
    server: WebServer, installation: Installation
) -> None:
    """Each process visits all users, from a different start and in either direction."""
    turns = [PAIRS[n:] + PAIRS[:n] for n in range(PROCESSES)]
    turns[1::2] = [turn[::-1] for turn in turns[1::2]]
    orders_of_mints = [list(islice(cycle(turn), 2 * MINTS)) for turn in turns]
    tokens = race(server, orders_of_mints)
    assert set(tokens) == set(PAIRS)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda pair: one_opens(server, pair, tokens[pair]), PAIRS))
    assert installation.rows("SELECT count(*) FROM tokens") == [(len(PAIRS),)]
