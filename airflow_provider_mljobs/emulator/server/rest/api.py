"""The REST API: matches a request with its route, runs the statement on the request's session, answers in JSON."""

from __future__ import annotations

import uuid
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_provider_mljobs.emulator.errors import SnowflakeError, not_supported
from airflow_provider_mljobs.emulator.parsing import quote_identifier
from airflow_provider_mljobs.emulator.results import Result
from airflow_provider_mljobs.emulator.server.exchange import Reply
from airflow_provider_mljobs.emulator.server.executor import attempt
from airflow_provider_mljobs.emulator.server.rest.answers import rows
from airflow_provider_mljobs.emulator.server.rest.routes import ROUTES, is_of_snowflake
from airflow_provider_mljobs.emulator.server.rest.statements import PARAMETERS, Call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_mljobs.emulator.server.exchange import Request
    from airflow_provider_mljobs.emulator.server.queries import Query
    from airflow_provider_mljobs.emulator.server.rest.routes import Route
    from airflow_provider_mljobs.emulator.sessions import Session

ROOT = "/api/v2/"
_RESULTS = "results/"
_MISSING = 2003
_NO_ENDPOINT = 390404
_STATUSES = {
    2: HTTPStatus.NOT_IMPLEMENTED,
    603: HTTPStatus.INTERNAL_SERVER_ERROR,
    709: HTTPStatus.NOT_FOUND,
    2002: HTTPStatus.CONFLICT,
    _MISSING: HTTPStatus.NOT_FOUND,
    2043: HTTPStatus.NOT_FOUND,
    3001: HTTPStatus.FORBIDDEN,
    _NO_ENDPOINT: HTTPStatus.NOT_FOUND,
}
_OF_LOGINS = 390


class Rest:
    """Answers the requests below ``/api/v2/``.

    :param authenticate: returns the session of a token.
    :param run: runs a statement on a session, and waits a moment for its end.
    :param find: returns a statement by its id.
    """

    def __init__(
        self,
        authenticate: Callable[[str], Session],
        run: Callable[[Session, str], Query],
        find: Callable[[str], Query],
    ) -> None:
        self._authenticate = authenticate
        self._run = run
        self._find = find
        # The requests whose statements still ran when they were answered.
        self._unfinished: WeakKeyDictionary[Query, tuple[Route, Call]] = WeakKeyDictionary()

    def answer(self, request: Request) -> Reply:
        """Answer a request."""
        reply = attempt(lambda: self._answer(request), f"{request.method} {request.path}")
        return _failure(reply) if isinstance(reply, SnowflakeError) else reply

    def _answer(self, request: Request) -> Reply:
        path = request.path.removeprefix(ROOT).rstrip("/")
        if request.method == "GET" and path.startswith(_RESULTS):
            return self._result(self._authenticate(request.token), path.removeprefix(_RESULTS))
        for route in ROUTES:
            parameters = route.match(request.method, path)
            if parameters is not None:
                _check(request.query)
                session = self._authenticate(request.token)
                return self._follow(session, route, Call(parameters, request.query, request.body, route.properties))
        if not is_of_snowflake(path):
            raise SnowflakeError(_NO_ENDPOINT, "02000", f"There is no endpoint {request.method} {request.path}.")
        raise not_supported(f"{request.method} {request.path}")

    def _follow(self, session: Session, route: Route, call: Call) -> Reply:
        if route.method == "POST":
            # CREATE would move the session into the new object, and the client's SQL with it.
            session = replace(session)
        return self._reply(self._run(session, call.statement(route.statement)), route, call)

    def _result(self, session: Session, query_id: str) -> Reply:
        query = self._find(query_id)
        if query.session.id != session.id or query not in self._unfinished:
            raise SnowflakeError(709, "02000", f"Statement {query_id} not found")
        return self._reply(query, *self._unfinished[query])

    def _reply(self, query: Query, route: Route, call: Call) -> Reply:
        if not query.done.is_set():
            self._unfinished[query] = route, call
            answer = {
                "code": "392604",
                "message": "Request execution in progress. Use the provided location header or result handler ID to "
                "perform query monitoring and management.",
                "resultHandler": query.id,
            }
            return Reply.of(answer, HTTPStatus.ACCEPTED, {"Location": f"{ROOT}{_RESULTS}{query.id}"})
        result = query.outcome()
        if route.each is not None:
            result = self._each(query.session, result, route.each, call)
        return Reply.of(route.answer(call, result))

    def _each(self, session: Session, result: Result, statement: str, call: Call) -> Result:
        """Run a statement for the name in each row, and return the rows of all."""
        results = []
        for row in rows(result):
            named = replace(call, path={**call.path, "name": quote_identifier(row["name"])})
            query = self._run(session, named.statement(statement))
            # An object may be dropped after it was listed.
            if query.error is None or query.error.errno != _MISSING:
                results.append(query.outcome())
        columns = results[0].columns if results else ()
        return Result(columns, [row for result in results for row in result.rows])


def _check(query: Mapping[str, str]) -> None:
    for key, value in query.items():
        if key not in PARAMETERS and value.lower() != "false":
            raise not_supported(f"The parameter {key}={value}")


def _failure(error: SnowflakeError) -> Reply:
    otherwise = HTTPStatus.UNAUTHORIZED if error.errno // 1000 == _OF_LOGINS else HTTPStatus.BAD_REQUEST
    status = _STATUSES.get(error.errno, otherwise)
    code, request_id = f"{error.errno:06d}", str(uuid.uuid4())
    return Reply.of(
        {"message": error.message, "code": code, "error_code": code, "request_id": request_id},
        status,
        {"X-Snowflake-Request-ID": request_id},
    )
