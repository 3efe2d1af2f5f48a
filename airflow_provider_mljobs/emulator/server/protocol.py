"""The connector's protocol without HTTP: the answer of each endpoint."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator import sessions as auth
from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.identity import HOST
from airflow_provider_mljobs.emulator.server import encoding as wire, parameters
from airflow_provider_mljobs.emulator.server.exchange import Reply
from airflow_provider_mljobs.emulator.server.executor import Executor
from airflow_provider_mljobs.emulator.server.faults import ConnectionCutError, Faults, UnavailableError
from airflow_provider_mljobs.emulator.server.logins import Logins
from airflow_provider_mljobs.emulator.server.recorder import Recorder
from airflow_provider_mljobs.emulator.server.rest.api import ROOT, Rest
from airflow_provider_mljobs.emulator.server.router import Router
from airflow_provider_mljobs.emulator.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_mljobs.emulator.account import Account
    from airflow_provider_mljobs.emulator.results import Result
    from airflow_provider_mljobs.emulator.server.exchange import Request
    from airflow_provider_mljobs.emulator.server.queries import Query
    from airflow_provider_mljobs.emulator.sessions import Session
    from airflow_provider_mljobs.emulator.settings import Fault, Settings

Answer = dict[str, Any]

SERVER_VERSION = "9.0.0"
_IN_PROGRESS = "333333"
_IN_PROGRESS_ASYNC = "333334"


def success(data: object = None, code: str | None = None) -> Answer:
    """Build the answer of a request that succeeded."""
    return {"data": data, "code": code, "message": None, "success": True}


def failure(error: SnowflakeError, query_id: str | None = None) -> Answer:
    """Build the answer for an error; it goes out with HTTP status 200."""
    code = f"{error.errno:06d}"
    data = {"internalError": error.sqlstate == "XX000", "errorCode": code, "sqlState": error.sqlstate}
    return {
        "data": data | ({"queryId": query_id} if query_id is not None else {}),
        "code": code,
        "message": error.message,
        "success": False,
    }


class Protocol:
    """The endpoints.

    :param settings: the settings of this start.
    :param account: the account.
    :param port: where the parts of long answers are fetched.
    :param password: the password of the account's user.
    """

    def __init__(self, settings: Settings, account: Account, port: int, password: str) -> None:
        self._settings = settings
        self._port = port
        self._logins = Logins(settings, account, password)
        self._stopped = threading.Event()
        self._revoked = False
        # Held while a session is opened, so that close() misses none.
        self._opening = threading.Lock()
        self.queries = account.queries
        extensions = itertools.chain.from_iterable(account.extensions.values())
        self._executor = Executor(account.queries, Router(extensions, account.of_engine, account.engine))
        self.sessions = Sessions(account.tokens, settings.session_lifetime, settings.clock)
        self.faults = Faults(settings.faults)
        self.statements = Recorder()
        self._rest_api = Rest(self.sessions.authenticate, self._run, self.queries.find)
        self._endpoints: Mapping[tuple[str, str], Callable[[Request], Answer]] = {
            ("POST", "/session/v1/login-request"): self._login,
            ("POST", "/session/token-request"): self._renew,
            ("POST", "/session/heartbeat"): self._heartbeat,
            ("POST", "/session/authenticator-request"): self._authenticator,
            ("POST", "/session"): self._end_session,
            ("POST", "/queries/v1/query-request"): self._query,
            ("POST", "/queries/v1/abort-request"): self._abort_request,
            ("POST", "/telemetry/send"): lambda _: success("Log Received"),
        }
        self._by_query_id: Mapping[tuple[str, str, str], Callable[[Request, str], Answer]] = {
            ("GET", "queries", "result"): self._result,
            ("POST", "queries", "abort-request"): self._abort,
        }

    def reply(self, request: Request) -> Reply | None:
        """Reply to a request; ``None`` for an endpoint that doesn't exist."""
        if request.path.startswith(ROOT):
            return self._rest_api.answer(request)
        answer = self._answer(request)
        return answer if answer is None or isinstance(answer, Reply) else Reply.of(answer)

    def _answer(self, request: Request) -> Answer | Reply | None:
        endpoint = self._endpoints.get((request.method, request.path))
        if endpoint is not None:
            return endpoint(request)
        parts = request.path.strip("/").split("/")
        if request.method == "GET" and parts[:-1] == ["monitoring", "queries"]:
            return self._monitoring(request, parts[-1])
        if request.method == "GET" and parts[0] == "results" and len(parts) == 3:  # noqa: PLR2004
            return self._part(*parts[1:])
        if len(parts) == 3:  # noqa: PLR2004  # queries/<id>/<action>
            handler = self._by_query_id.get((request.method, parts[0], parts[2]))
            return handler(request, parts[1]) if handler else None
        return None

    def close(self) -> None:
        """Cancel all statements and end all sessions."""
        with self._opening:
            self._stopped.set()
        for session in self.sessions.all():
            self.sessions.remove(session)
            self._executor.end(session)
        self._executor.close()

    # Sessions

    def revoke_credentials(self) -> None:
        """Refuse the user's password, and let the sessions that were opened with it expire."""
        with self._opening:
            self._revoked = True
            self.sessions.expire_master(*(session for session in self.sessions.all() if session.job_token is None))

    def restore_credentials(self) -> None:
        """Accept the user's password again."""
        self._revoked = False

    def _login(self, request: Request) -> Answer:
        data = _object(request.body.get("data"))
        fault = self.faults.decide(str(data.get("LOGIN_NAME") or ""), "login")
        self._meet_fault(fault)
        answer = self._open_session(request, data)
        self._follow_up(fault)
        return answer

    def _open_session(self, request: Request, data: Mapping[str, Any]) -> Answer:
        identity, job_token = self._logins.identify(data)
        for dead in self.sessions.remove_expired():
            self._executor.end(dead)
        with self._opening:
            if self._stopped.is_set():
                raise UnavailableError
            if self._revoked and job_token is None:
                raise auth.wrong_password()
            session = self._logins.open(self.sessions.next_id(), request.query, identity, job_token)
            session.parameters.update(parameters.at_login(_object(data.get("SESSION_PARAMETERS"))))
            grant = self.sessions.add(session)
        self.statements.add_login()
        return success(
            {
                "token": grant.token,
                "masterToken": grant.master,
                "validityInSeconds": grant.lifetime,
                "masterValidityInSeconds": grant.master_lifetime,
                "sessionId": session.id,
                "displayUserName": session.user,
                "serverVersion": SERVER_VERSION,
                "firstLogin": False,
                "parameters": parameters.for_login(session.parameters),
                "sessionInfo": {
                    "databaseName": session.database,
                    "schemaName": session.schema,
                    "warehouseName": session.warehouse,
                    "roleName": session.role,
                },
            }
        )

    def _renew(self, request: Request) -> Answer:
        session, grant = self.sessions.renew(request.token)
        return success(
            {
                "sessionToken": grant.token,
                "validityInSecondsST": grant.lifetime,
                "masterToken": grant.master,
                "validityInSecondsMT": grant.master_lifetime,
                "masterValidityInSeconds": grant.master_lifetime,
                "sessionId": session.id,
            }
        )

    def _heartbeat(self, request: Request) -> Answer:
        self.sessions.extend(self.sessions.authenticate(request.token))
        return success()

    def _authenticator(self, request: Request) -> Answer:
        del request
        raise SnowflakeError(390190, "08001", "Single sign-on is not supported by the embedded Snowflake.")

    def _end_session(self, request: Request) -> Answer:
        session = self.sessions.authenticate(request.token)
        if request.query.get("delete") == "true":
            self.sessions.remove(session)
            self._executor.end(session)
        return success()

    # Statements

    def _query(self, request: Request) -> Answer:
        session = self.sessions.authenticate(request.token)
        request_id = request.query.get("requestId") or secrets.token_hex(16)
        fault: Fault | None = None
        query = self.queries.requested(session, request_id)
        if query is None:
            fault = self.faults.decide(str(request.body.get("sqlText", "")))
            self._meet_fault(fault, session)
            query = self._begin(session, request_id, request.body, fault)
        asynchronous = bool(request.body.get("asyncExec"))
        answer = _in_progress(query, _IN_PROGRESS_ASYNC) if asynchronous else self._await(query)
        self._follow_up(fault)
        return answer

    def _run(self, session: Session, sql: str) -> Query:
        """Run a statement of the REST API, and wait for its end as long as other requests do."""
        fault = self.faults.decide(sql)
        self._meet_fault(fault, session)
        query = self._begin(session, secrets.token_hex(16), {"sqlText": sql}, fault)
        query.done.wait(self._settings.long_statement)
        self._follow_up(fault)
        return query

    def _meet_fault(self, fault: Fault | None, session: Session | None = None) -> None:
        """Raise the error of a fault that replaces the request."""
        if fault is None:
            return
        if fault.effect == "reset":
            raise ConnectionCutError
        if fault.effect == "http_503":
            raise UnavailableError
        if session is None:
            if fault.effect == "error":
                raise SnowflakeError(fault.errno, fault.sqlstate, fault.message)
            return
        if fault.effect == "master_expired":
            self.sessions.expire_master(session)
        if fault.effect in {"session_expired", "master_expired"}:
            raise auth.session_expired()

    def _follow_up(self, fault: Fault | None) -> None:
        """Apply a fault that delays or cuts off the answer."""
        if fault is not None and fault.effect == "delay":
            self._stopped.wait(fault.seconds)
        if fault is not None and fault.effect == "reset_after":
            raise ConnectionCutError

    def _begin(self, session: Session, request_id: str, body: Mapping[str, Any], fault: Fault | None) -> Query:
        binds = wire.decode_binds(body.get("bindings"))
        sql = str(body.get("sqlText") or "")
        describe_only = bool(body.get("describeOnly"))
        of_statement = body.get("parameters") or {}
        tag = of_statement.get("QUERY_TAG")
        query, is_new = self.queries.begin(session, sql, request_id, describe_only=describe_only, tag=tag)
        if is_new:
            if not describe_only:
                self.statements.add(sql)
            requested = of_statement.get("MULTI_STATEMENT_COUNT")
            count = int(
                requested if requested is not None else parameters.value_of(session.parameters, "MULTI_STATEMENT_COUNT")
            )
            self._executor.start(query, binds, count, fault)
        return query

    def _await(self, query: Query) -> Answer:
        if not query.done.wait(self._settings.long_statement):
            return _in_progress(query, _IN_PROGRESS)
        if query.error is not None:
            return failure(query.error, query.id)
        session, result = query.session, query.outcome()
        first, *others = wire.parts(result)
        return success(
            {
                "parameters": parameters.for_answer(session.parameters),
                "queryId": query.id,
                "databaseProvider": None,
                "finalDatabaseName": session.database,
                "finalSchemaName": session.schema,
                "finalWarehouseName": session.warehouse,
                "finalRoleName": session.role,
                "arrayBindSupported": result.statement == "insert",
                "sendResultTime": int(time.time() * 1000),
                "version": 1,
                **wire.encode(first),
                **self._rest(query, others),
                **result.extra,
            }
        )

    def _rest(self, query: Query, others: Sequence[Result]) -> Answer:
        """Return the addresses of the parts of a long answer that it doesn't contain."""
        if not others:
            return {}
        total = wire.row_count(query.outcome())
        place = f"http://{HOST}:{self._port}/results/{query.id}/{query.key}"
        chunks = [
            {
                "url": f"{place}-{number}",
                "rowCount": wire.row_count(part),
                "uncompressedSize": len(wire.encode_part(part)),
                "compressedSize": 0,
            }
            for number, part in enumerate(others, 1)
        ]
        return {"total": total, "returned": total, "chunks": chunks}

    def _part(self, query_id: str, name: str) -> Reply | None:
        """Return a part of a long answer. Its address contains a secret and is the only credential."""
        query = self.queries.find(query_id)
        key, _, number = name.partition("-")
        parts = wire.parts(query.outcome())
        if not secrets.compare_digest(key.encode(), query.key.encode()) or not number.isdecimal():
            return None
        return Reply(wire.encode_part(parts[int(number)])) if int(number) < len(parts) else None

    def _result(self, request: Request, query_id: str) -> Answer:
        self.sessions.authenticate(request.token)
        return self._await(self.queries.find(query_id))

    def _monitoring(self, request: Request, query_id: str) -> Answer:
        self.sessions.authenticate(request.token)
        try:
            query = self.queries.find(query_id)
        except SnowflakeError:
            return success({"queries": []})
        error = query.error
        return success(
            {
                "queries": [
                    {
                        "id": query.id,
                        "status": query.status,
                        "sqlText": query.sql,
                        "sessionId": query.session.id,
                        "startTime": int(query.started * 1000),
                        "endTime": int(query.ended * 1000) if query.ended is not None else 0,
                        "errorCode": f"{error.errno:06d}" if error is not None else None,
                        "errorMessage": error.message if error is not None else None,
                    }
                ],
                "sqlState": error.sqlstate if error is not None else None,
            }
        )

    def _abort_request(self, request: Request) -> Answer:
        session = self.sessions.authenticate(request.token)
        return self._cancel(self.queries.requested(session, str(request.body.get("requestId"))))

    def _abort(self, request: Request, query_id: str) -> Answer:
        self.sessions.authenticate(request.token)
        return self._cancel(self.queries.find(query_id))

    def _cancel(self, query: Query | None) -> Answer:
        if query is None or query.done.is_set():
            raise SnowflakeError(605, "57014", "Identified SQL statement is not currently executing.")
        self.queries.cancel(query)
        return success()


def _in_progress(query: Query, code: str) -> Answer:
    data = {"queryId": query.id, "getResultUrl": f"/queries/{query.id}/result", "queryAbortsAfterSecs": 300}
    return success(data, code) | {"message": "Query execution in progress."}


def _object(value: object) -> Mapping[str, Any]:
    """Return a JSON object as it was sent, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}
