"""The wire between a task and Snowflake, on which accidents happen: a proxy that knows where one statement ends."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

# What happens to a statement. A kill is SIGKILL of the process that has sent it.
Accident = Literal[
    "kill before",
    "kill after",
    "kill behind",
    "reset before",
    "reset after",
    "http 503",
    "session expired",
    "session lost",
    "error",
]
ACCIDENTS: tuple[Accident, ...] = get_args(Accident)
BEFORE, AFTER = ACCIDENTS[:2]
KILLS: tuple[Accident, ...] = ("kill before", "kill after", "kill behind")
# When a person clears the task.
AFTER_A_CRASH, AT_THE_END = "after a crash", "at the end"
# How the kinds of messages to Airflow begin.
MESSAGE = "Airflow "
_HOST = "127.0.0.1"
_LOGIN, _LOGOUT = "login", "logout"
_METHOD = re.compile(r"CALL \S+!(\w+)")
_FUNCTION = re.compile(r"SYSTEM\$\w+|GET_JOB_HISTORY|SPCS_GET_LOGS", re.IGNORECASE)
_WORDS = re.compile(r"EXECUTE JOB SERVICE|SHOW(?: [A-Z]+)+?(?= LIKE| IN |$)|(?:DESCRIBE|DROP) SERVICE|[A-Z]+")
_CODES = {"session expired": 390112, "session lost": 390114, "error": 603}


@dataclass(frozen=True, order=True)
class Boundary:
    """A statement of a run, or a message to Airflow.

    :param phase: what the process does that sends it.
    :param kind: which statement.
    :param nth: which one of its kind in all processes of the phase, from 1.
    """

    phase: str
    kind: str
    nth: int

    @property
    def is_message(self) -> bool:
        """Whether it is a message to Airflow."""
        return self.kind.startswith(MESSAGE)

    def __str__(self) -> str:
        return f"{self.phase}: {self.kind}" + (f" #{self.nth}" if self.nth > 1 else "")


@dataclass(frozen=True)
class Plan:
    """An accident that is to happen.

    :param at: where; ``None`` for the statement that comes ``later`` statements behind the accident before.
    :param delay: for a kill behind a statement: how many seconds behind its answer.
    """

    accident: Accident
    at: Boundary | None
    later: int = 0
    delay: float = 0.0


@dataclass(frozen=True)
class Hit:
    """An accident that has happened."""

    accident: str
    boundary: Boundary


def accidents_at(boundary: Boundary) -> tuple[Accident, ...]:
    """Return what can happen there: a message to Airflow meets kills only, and sessions don't expire at a login."""
    if boundary.is_message:
        return BEFORE, AFTER
    return ACCIDENTS[:-3] if boundary.kind in {_LOGIN, _LOGOUT} else ACCIDENTS


def kind_of(sql: str) -> str:
    """Name the kind of a statement: the words that it begins with, or the function that it calls."""
    method = _METHOD.match(sql)
    if method is not None:
        return method[1]
    if sql.startswith(("CALL", "SELECT")):
        function = _FUNCTION.search(sql)
        if function is not None:
            return function[0].upper()
    words = _WORDS.match(sql.lstrip().upper())
    return words[0] if words is not None else sql[:20]


class Script:
    """What is to happen in one run, and what has happened.

    :param plans: the accidents, in order; each comes once.
    """

    def __init__(self, plans: tuple[Plan, ...] = ()) -> None:
        self._plans = list(plans)
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._since = 0
        self.phase = "execute"
        self.seen: list[Boundary] = []
        self.hits: list[Hit] = []
        # Where a process did not end.
        self.hung = ""

    def meet(self, kind: str) -> Plan | None:
        """Count a statement, and return the accident that it meets."""
        with self._lock:
            self._counts[self.phase, kind] += 1
            self._since += 1
            boundary = Boundary(self.phase, kind, self._counts[self.phase, kind])
            self.seen.append(boundary)
            plan = self._plans[0] if self._plans else None
            if plan is None or not self._is_here(plan, boundary):
                return None
            return self._strike(plan, boundary)

    def _is_here(self, plan: Plan, boundary: Boundary) -> bool:
        if plan.at is not None:
            return plan.at == boundary
        return bool(self.hits) and self._since >= plan.later and plan.accident in accidents_at(boundary)

    @property
    def next_message(self) -> Plan | None:
        """The next accident, if it happens at a message to Airflow in the running phase."""
        plan = self._plans[0] if self._plans else None
        at = None if plan is None else plan.at
        return plan if at is not None and at.is_message and at.phase == self.phase else None

    def strike(self, plan: Plan) -> None:
        """Take down an accident that has happened elsewhere than on the wire."""
        assert plan.at is not None
        with self._lock:
            self._strike(plan, plan.at)

    def note(self, boundary: Boundary) -> None:
        """Take down what went elsewhere than over the wire."""
        with self._lock:
            self.seen.append(boundary)

    def _strike(self, plan: Plan, boundary: Boundary) -> Plan:
        self._plans.remove(plan)
        self.hits.append(Hit(plan.accident, boundary))
        self._since = 0
        return plan


class Wire:
    """A proxy before an embedded Snowflake.

    :param upstream: the port of the embedded Snowflake.
    :param kill: ends the process that has sent a statement, at once; returns when it is dead.
    """

    def __init__(self, upstream: int, kill: Callable[[], None]) -> None:
        self._server = _Proxy(upstream, kill)
        self.port = int(self._server.server_port)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def play(self, script: Script) -> None:
        """Begin a run."""
        self._server.script = script
        self._server.met.clear()

    def close(self) -> None:
        """Let nothing through any more."""
        self._server.shutdown()
        self._server.server_close()


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, upstream: int, kill: Callable[[], None]) -> None:
        super().__init__((_HOST, 0), _Handler)
        self.upstream = upstream
        self.kill = kill
        self.script = Script()
        # A client repeats a request that wasn't answered: that is still the same statement.
        self.met: set[str] = set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients are killed here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Proxy

    def setup(self) -> None:
        super().setup()
        self.upstream = http.client.HTTPConnection(_HOST, self.server.upstream, timeout=120)

    def finish(self) -> None:
        self.upstream.close()
        super().finish()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._pass()

    def do_POST(self) -> None:
        self._pass()

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self._kind(body)
        plan = None if kind is None else self.server.script.meet(kind)
        if plan is None:
            self._relay(*self._ask(body))
        else:
            self._disturb(plan, body)

    def _disturb(self, plan: Plan, body: bytes) -> None:
        if plan.accident in {"kill after", "reset after", "kill behind"}:
            answer = self._ask(body)
            if plan.accident == "kill behind":
                self._relay(*answer)
                time.sleep(plan.delay)
        if plan.accident in KILLS:
            self.server.kill()
            self.close_connection = True
        elif plan.accident in {"reset before", "reset after"}:
            self._reset()
        elif plan.accident == "http 503":
            self._relay(503, b"{}")
        else:
            code = _CODES[plan.accident]
            document = {"data": {"sqlState": "08001"}, "code": str(code), "message": "an accident", "success": False}
            self._relay(200, json.dumps(document).encode())

    def _kind(self, body: bytes) -> str | None:
        """Name the kind of a statement or login that is seen for the first time; ``None`` for all else."""
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if url.path == "/session/v1/login-request":
            kind = _LOGIN
        elif url.path == "/session" and query.get("delete") == ["true"]:
            kind = _LOGOUT
        elif url.path == "/queries/v1/query-request":
            text = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            kind = kind_of(json.loads(text)["sqlText"])
        else:
            return None
        request = query.get("request_id", query.get("requestId", [""]))[0]
        if request and request in self.server.met:
            return None
        self.server.met.add(request)
        return kind

    def _ask(self, body: bytes) -> tuple[int, bytes]:
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in {"host", "accept-encoding"}
        }
        self.upstream.request(self.command, self.path, body, headers)
        answer = self.upstream.getresponse()
        return answer.status, answer.read()

    def _relay(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
