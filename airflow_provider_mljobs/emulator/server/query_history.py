"""QUERY_HISTORY and its family: the latest statements of all sessions, those of jobs included."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.moments import to_nanoseconds, window
from airflow_provider_mljobs.emulator.parsing import leading_words, parse_name
from airflow_provider_mljobs.emulator.registry import TableFunction
from airflow_provider_mljobs.emulator.results import Column, Result, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_mljobs.emulator.parsing import QualifiedName
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.server.queries import Queries, Record

# In Snowflake's order; columns without a meaning here are NULL.
_NAMES = (
    "QUERY_ID", "QUERY_TEXT", "DATABASE_NAME", "SCHEMA_NAME", "QUERY_TYPE", "SESSION_ID", "AUTHN_EVENT_ID",
    "USER_NAME", "USER_TYPE", "USER_DATABASE_NAME", "USER_SCHEMA_NAME", "ROLE_NAME", "WAREHOUSE_NAME",
    "WAREHOUSE_SIZE", "WAREHOUSE_TYPE", "CLUSTER_NUMBER", "QUERY_TAG", "EXECUTION_STATUS", "ERROR_CODE",
    "ERROR_MESSAGE", "START_TIME", "END_TIME", "TOTAL_ELAPSED_TIME", "BYTES_SCANNED", "ROWS_PRODUCED",
    "COMPILATION_TIME", "EXECUTION_TIME", "QUEUED_PROVISIONING_TIME", "QUEUED_REPAIR_TIME", "QUEUED_OVERLOAD_TIME",
    "TRANSACTION_BLOCKED_TIME", "CREDITS_USED_CLOUD_SERVICES", "RELEASE_VERSION", "IS_CLIENT_GENERATED_STATEMENT",
    "QUERY_HASH", "QUERY_PARAMETERIZED_HASH", "TRANSACTION_ID", "BYTES_WRITTEN_TO_RESULT", "ROWS_WRITTEN_TO_RESULT",
    "ROWS_INSERTED", "QUERY_RETRY_TIME", "QUERY_RETRY_CAUSE", "FAULT_HANDLING_TIME", "BIND_VALUES", "AGENT_TYPE",
)  # fmt: skip
_NUMBERS = ("_ID", "_NUMBER", "_CODE", "_TIME", "_SERVICES", "_SCANNED", "_PRODUCED", "_RESULT", "_INSERTED")
_SPECIAL: Mapping[str, Type] = {
    "QUERY_ID": "text",
    "START_TIME": "timestamp_ltz",
    "END_TIME": "timestamp_ltz",
    "IS_CLIENT_GENERATED_STATEMENT": "boolean",
    "BIND_VALUES": "array",
}
_COLUMNS = tuple(Column(name, _SPECIAL.get(name, "fixed" if name.endswith(_NUMBERS) else "text")) for name in _NAMES)
_RANGE = ("END_TIME_RANGE_START", "END_TIME_RANGE_END")
_DAYS = 7
_DEFAULT_LIMIT, _MOST = 100, 10_000
_MOST_WORDS = 6
# By first words; any other type is the first word.
_TYPES = {
    "WITH": "SELECT",
    "DESC": "DESCRIBE",
    "PUT": "PUT_FILES",
    "GET": "GET_FILES",
    "LIST": "LIST_FILES",
    "LS": "LIST_FILES",
    "REMOVE": "REMOVE_FILES",
    "RM": "REMOVE_FILES",
    "BEGIN": "BEGIN_TRANSACTION",
    "START": "BEGIN_TRANSACTION",
    "TRUNCATE": "TRUNCATE_TABLE",
    "ALTER SESSION": "ALTER_SESSION",
    "CREATE TABLE": "CREATE_TABLE",
    "EXECUTE JOB": "EXECUTE_JOB_SERVICE",
}
_QUALIFIERS = {"OR", "REPLACE", "TEMPORARY", "TEMP", "TRANSIENT"}


@dataclass(frozen=True)
class _Function:
    """A function of the QUERY_HISTORY family.

    :param argument: the argument that selects queries.
    :param chooses: whether a record matches the argument.
    :param current: the default of the argument.
    """

    name: str
    argument: str | None
    chooses: Callable[[Record, Any], bool]
    current: Callable[[Context], Any]

    @property
    def syntax(self) -> str:
        """The supported form."""
        names = [*([self.argument] if self.argument else []), *_RANGE, "RESULT_LIMIT"]
        arguments = " [, ".join(f"{name} => …" for name in names)
        return f"TABLE(INFORMATION_SCHEMA.{self.name}([{arguments}{']' * len(names)}))"


_FAMILY = (
    _Function("QUERY_HISTORY", None, lambda *_: True, lambda _: None),
    _Function(
        "QUERY_HISTORY_BY_SESSION",
        "SESSION_ID",
        lambda record, wanted: record.origin.session == int(wanted),
        lambda context: context.session.id,
    ),
    _Function(
        "QUERY_HISTORY_BY_USER",
        "USER_NAME",
        lambda record, wanted: record.origin.user == parse_name(str(wanted)).name,
        lambda context: context.session.user,
    ),
    _Function(
        "QUERY_HISTORY_BY_WAREHOUSE",
        "WAREHOUSE_NAME",
        lambda record, wanted: record.origin.warehouse == parse_name(str(wanted)).name,
        lambda context: context.session.warehouse or "",
    ),
)


def table_functions(queries: Queries) -> list[TableFunction]:
    """Return the functions of the family.

    :param queries: the queries of the server, with their history.
    """

    def answer(function: _Function) -> TableFunction:
        def handler(context: Context, _: QualifiedName | None, args: Sequence[Any], named: Mapping[str, Any]) -> Result:
            return Result(_COLUMNS, _rows(function, context, queries.history, args, named), statement="select")

        return TableFunction(function.name, handler, _COLUMNS, function.syntax)

    return [answer(function) for function in _FAMILY]


def _rows(
    function: _Function, context: Context, history: Sequence[Record], args: Sequence[Any], named: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    names = (*((function.argument,) if function.argument else ()), *_RANGE, "RESULT_LIMIT")
    values = dict(zip(names, args, strict=False)) | dict(named)
    if len(args) > len(names) or values.keys() - {*names, "INCLUDE_CLIENT_GENERATED_STATEMENT"}:
        raise _wrong_arguments(function)
    limit = int(values.get("RESULT_LIMIT", _DEFAULT_LIMIT))
    if not 1 <= limit <= _MOST:
        raise _wrong_arguments(function)
    wanted = values.get(function.argument or "", function.current(context))
    begin, end = window(time.time(), values, _RANGE, _DAYS)
    chosen = [
        record
        for record in history
        if function.chooses(record, wanted) and _is_between(record, begin, end, running=_RANGE[1] not in values)
    ]
    # Running queries sort as the latest to end.
    latest = sorted(chosen, key=lambda record: (record.ended is None, record.ended or record.started), reverse=True)
    return [_row(record, time.time()) for record in latest[:limit]]


def _is_between(record: Record, begin: int, end: int, *, running: bool) -> bool:
    return running if record.ended is None else begin <= to_nanoseconds(record.ended) <= end


def _wrong_arguments(function: _Function) -> SnowflakeError:
    text = f"SQL compilation error:\ninvalid number or type of arguments for {function.name}"
    return SnowflakeError(939, "22023", text)


def _row(record: Record, now: float) -> tuple[Any, ...]:
    origin, error = record.origin, record.error
    database, schema = origin.service or (None, None)
    values = {
        "QUERY_ID": record.id,
        "QUERY_TEXT": record.text,
        "DATABASE_NAME": origin.database,
        "SCHEMA_NAME": origin.schema,
        "QUERY_TYPE": query_type(record.text),
        "SESSION_ID": origin.session,
        "USER_NAME": origin.user,
        "USER_TYPE": None if origin.service is None else "SNOWFLAKE_SERVICE",
        "USER_DATABASE_NAME": database,
        "USER_SCHEMA_NAME": schema,
        "ROLE_NAME": origin.role,
        "WAREHOUSE_NAME": origin.warehouse,
        "QUERY_TAG": origin.tag,
        "EXECUTION_STATUS": "RUNNING" if record.ended is None else "SUCCESS" if error is None else "FAILED_WITH_ERROR",
        "ERROR_CODE": None if error is None else error.errno,
        "ERROR_MESSAGE": None if error is None else error.message,
        "START_TIME": _moment(record.started),
        "END_TIME": _moment(record.ended or 0.0),
        "TOTAL_ELAPSED_TIME": round(((record.ended or now) - record.started) * 1000),
        "ROWS_PRODUCED": record.rows,
        "IS_CLIENT_GENERATED_STATEMENT": False,
    }
    return tuple(values.get(name) for name in _NAMES)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def query_type(text: str) -> str:
    """Return the QUERY_TYPE of a statement."""
    words = [word for word in leading_words(text, _MOST_WORDS) if word not in _QUALIFIERS]
    first = words[0] if words else "UNKNOWN"
    return _TYPES.get(" ".join(words[:2])) or _TYPES.get(first) or first
