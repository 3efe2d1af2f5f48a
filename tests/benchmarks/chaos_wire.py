"""The wire between a task and Snowflake, on which accidents happen: a proxy that knows where one statement ends."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import struct
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.benchmarks.chaos_answers import ODD_ANSWERS, failure, negative, services_limit
from tests.benchmarks.chaos_script import (
    AFTER,
    BEHIND,
    KILLS,
    LATE,
    LOGIN,
    LOGOUT,
    UNSEEN,
    Script,
    kind_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.chaos_script import Boundary, Plan

_HOST = "127.0.0.1"
_CODES = {"session expired": 390112, "session lost": 390114}
_INTERNAL_ERROR = failure(603, "XX000", "SQL execution internal error: an accident")
# An effect or an answer, and then the kill, or the error.
_TAKEN_FIRST = frozenset({AFTER, BEHIND, UNSEEN, "reset after", "error after", "unseen"})


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
        # A dead client cannot receive the rest.
        with self.rfile, suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._pass()

    def do_POST(self) -> None:
        self._pass()

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind, sql = self._statement(body)
        if kind is None:
            self._relay(*self._ask(body))
            return
        boundary, plan = self.server.script.meet(kind, sql)
        if plan is not None:
            self._disturb(plan, boundary, sql, body)
            return
        status, content = self._ask(body)
        is_answer = sql and status == HTTPStatus.OK
        self._relay(status, self.server.script.answer(boundary, sql, content) if is_answer else content)

    def _disturb(self, plan: Plan, boundary: Boundary, sql: str, body: bytes) -> None:
        self._take(plan, boundary, sql, body)
        if plan.accident in KILLS:
            self.server.kill()
            self.close_connection = True
        elif plan.accident in {"reset before", "reset after"}:
            self._reset()
        elif plan.accident == "http 503":
            self._relay(503, b"{}")
        elif plan.accident != "unseen":
            self._relay(200, json.dumps(_refusal(plan.accident, sql)).encode())

    def _take(self, plan: Plan, boundary: Boundary, sql: str, body: bytes) -> None:
        """Let a statement have the effect that it has though it is disturbed."""
        script, accident = self.server.script, plan.accident
        if accident in _TAKEN_FIRST:
            answer = self._ask(body)
            if accident in {UNSEEN, "unseen"}:
                script.hide(plan, sql)
            if accident in {BEHIND, "unseen"}:
                self._relay(*answer)
                time.sleep(plan.delay)
        elif accident in {LATE, "error late"}:
            script.later(plan, boundary.kind, sql)
        elif accident == "services limit":
            script.spell(accident, boundary.kind, plan.seconds)

    def _statement(self, body: bytes) -> tuple[str | None, str]:
        """Name the kind of a statement or login that is seen for the first time; ``None`` for all else."""
        url, sql = urlsplit(self.path), ""
        query = parse_qs(url.query)
        if url.path == "/session/v1/login-request":
            kind = LOGIN
        elif url.path == "/session" and query.get("delete") == ["true"]:
            kind = LOGOUT
        elif url.path == "/queries/v1/query-request":
            text = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            sql = json.loads(text)["sqlText"]
            kind = kind_of(sql)
        else:
            return None, sql
        request = query.get("request_id", query.get("requestId", [""]))[0]
        if request and request in self.server.met:
            return None, sql
        self.server.met.add(request)
        return kind, sql

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


def _refusal(accident: str, sql: str) -> dict[str, Any]:
    """Build the answer that refuses a statement."""
    if accident == "services limit":
        return services_limit()
    if accident in ODD_ANSWERS:
        return negative(sql)
    return failure(_CODES[accident], "08001", "an accident") if accident in _CODES else _INTERNAL_ERROR
