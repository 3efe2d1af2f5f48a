"""The session parameters of the emulator, with Snowflake's defaults unless a comment says otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.errors import SnowflakeError

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = bool | int | str


@dataclass(frozen=True, slots=True)
class Parameter:
    """A session parameter: its default, which also sets its type, and its description."""

    default: Value
    description: str

    @property
    def kind(self) -> str:
        """The type as SHOW PARAMETERS names it."""
        if isinstance(self.default, bool):
            return "BOOLEAN"
        return "NUMBER" if isinstance(self.default, int) else "STRING"


PARAMETERS: Mapping[str, Parameter] = {
    "ABORT_DETACHED_QUERY": Parameter(False, "Stored only"),  # noqa: FBT003
    "AUTOCOMMIT": Parameter(True, "Whether each statement is a transaction of its own"),  # noqa: FBT003
    "BINARY_INPUT_FORMAT": Parameter("HEX", "Stored only"),
    "BINARY_OUTPUT_FORMAT": Parameter("HEX", "Stored only"),
    "CLIENT_PREFETCH_THREADS": Parameter(4, "For clients"),
    "CLIENT_RESULT_CHUNK_SIZE": Parameter(160, "For clients"),
    "CLIENT_SESSION_KEEP_ALIVE": Parameter(False, "For clients"),  # noqa: FBT003
    "CLIENT_SESSION_KEEP_ALIVE_HEARTBEAT_FREQUENCY": Parameter(3600, "For clients"),
    # 0 keeps clients from uploading array binds to a stage of theirs; Snowflake's default is 65280.
    "CLIENT_STAGE_ARRAY_BINDING_THRESHOLD": Parameter(0, "For clients"),
    # On a real account TRUE; here the telemetry would be discarded.
    "CLIENT_TELEMETRY_ENABLED": Parameter(False, "For clients"),  # noqa: FBT003
    "DATE_INPUT_FORMAT": Parameter("AUTO", "Stored only"),
    "DATE_OUTPUT_FORMAT": Parameter("YYYY-MM-DD", "For clients"),
    "ERROR_ON_NONDETERMINISTIC_MERGE": Parameter(True, "Stored only"),  # noqa: FBT003
    "GEOGRAPHY_OUTPUT_FORMAT": Parameter("GeoJSON", "Stored only"),
    "JSON_INDENT": Parameter(2, "Stored only"),
    "LOCK_TIMEOUT": Parameter(43200, "Stored only"),
    "LOG_LEVEL": Parameter("OFF", "Stored only"),
    "METRIC_LEVEL": Parameter("NONE", "Stored only"),
    "MULTI_STATEMENT_COUNT": Parameter(1, "How many statements one request may hold, 0 for any number"),
    "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT": Parameter("ARROW", "For clients"),
    # On a real account TRUE: without it, the threads of a Snowpark session share one cursor and read each other's rows.
    "PYTHON_SNOWPARK_ENABLE_THREAD_SAFE_SESSION": Parameter(True, "For clients"),  # noqa: FBT003
    "QUERY_CONTEXT_CACHE_SIZE": Parameter(5, "For clients"),
    "QUERY_TAG": Parameter("", "The tag of each statement in QUERY_HISTORY, at most 2000 characters"),
    "QUOTED_IDENTIFIERS_IGNORE_CASE": Parameter(False, "Stored only"),  # noqa: FBT003
    "ROWS_PER_RESULTSET": Parameter(0, "Stored only"),
    "STATEMENT_QUEUED_TIMEOUT_IN_SECONDS": Parameter(0, "Stored only"),
    "STATEMENT_TIMEOUT_IN_SECONDS": Parameter(172800, "Stored only"),
    "STRICT_JSON_OUTPUT": Parameter(False, "Stored only"),  # noqa: FBT003
    "TIMESTAMP_DAY_IS_ALWAYS_24H": Parameter(False, "Stored only"),  # noqa: FBT003
    "TIMESTAMP_INPUT_FORMAT": Parameter("AUTO", "Stored only"),
    "TIMESTAMP_LTZ_OUTPUT_FORMAT": Parameter("", "For clients"),
    "TIMESTAMP_NTZ_OUTPUT_FORMAT": Parameter("YYYY-MM-DD HH24:MI:SS.FF3", "For clients"),
    "TIMESTAMP_OUTPUT_FORMAT": Parameter("YYYY-MM-DD HH24:MI:SS.FF3 TZHTZM", "For clients"),
    "TIMESTAMP_TYPE_MAPPING": Parameter("TIMESTAMP_NTZ", "Stored only"),
    "TIMESTAMP_TZ_OUTPUT_FORMAT": Parameter("", "For clients"),
    # On a real account America/Los_Angeles.
    "TIMEZONE": Parameter("UTC", "Time zone in which clients show TIMESTAMP_LTZ"),
    "TIME_INPUT_FORMAT": Parameter("AUTO", "Stored only"),
    "TIME_OUTPUT_FORMAT": Parameter("HH24:MI:SS", "For clients"),
    "TRACE_LEVEL": Parameter("OFF", "Stored only"),
    "TRANSACTION_ABORT_ON_ERROR": Parameter(False, "Stored only"),  # noqa: FBT003
    "TRANSACTION_DEFAULT_ISOLATION_LEVEL": Parameter("READ COMMITTED", "Stored only"),
    "TWO_DIGIT_CENTURY_START": Parameter(1970, "Stored only"),
    "USE_CACHED_RESULT": Parameter(True, "Stored only"),  # noqa: FBT003
    "WEEK_OF_YEAR_POLICY": Parameter(0, "Stored only"),
    "WEEK_START": Parameter(0, "Stored only"),
}
_LONGEST_TAG = 2000
# Clients have parameters of their own, with these prefixes.
_CLIENT_PREFIXES = ("CLIENT_", "ENABLE_", "FEATURE_", "PYTHON_", "SNOWPARK_", "USE_")
# Repeated with each answer; the other parameters that clients store don't change during a session.
_REPEATED = (
    "AUTOCOMMIT",
    "BINARY_OUTPUT_FORMAT",
    "CLIENT_STAGE_ARRAY_BINDING_THRESHOLD",
    "CLIENT_TELEMETRY_ENABLED",
    "DATE_OUTPUT_FORMAT",
    "TIMESTAMP_LTZ_OUTPUT_FORMAT",
    "TIMESTAMP_NTZ_OUTPUT_FORMAT",
    "TIMESTAMP_OUTPUT_FORMAT",
    "TIMESTAMP_TZ_OUTPUT_FORMAT",
    "TIMEZONE",
    "TIME_OUTPUT_FORMAT",
)


def value_of(values: Mapping[str, Any], name: str) -> Value:
    """Return a parameter's value in a session, or its default."""
    value: Value = values.get(name, PARAMETERS[name].default)
    return value


def parse_value(name: str, value: object) -> Value:
    """Return a value in the parameter's type; raises 1006 for a parameter that doesn't exist, 1008 for a bad value."""
    parameter = PARAMETERS.get(name)
    if parameter is None:
        if name.startswith(_CLIENT_PREFIXES):
            return value if isinstance(value, bool | int) else str(value)
        raise SnowflakeError(1006, "22023", f"SQL compilation error:\ninvalid parameter '{name}'")
    text = str(value)
    if parameter.kind == "BOOLEAN" and text.upper() in {"TRUE", "FALSE", "1", "0"}:
        return text.upper() in {"TRUE", "1"}
    if parameter.kind == "NUMBER" and text.lstrip("-").isdigit():
        return int(text)
    if parameter.kind == "STRING" and (name != "QUERY_TAG" or len(text) <= _LONGEST_TAG):
        return text
    raise SnowflakeError(1008, "22023", f"SQL compilation error:\ninvalid value [{text}] for parameter '{name}'")


def at_login(requested: Mapping[str, Any]) -> dict[str, Value]:
    """Return the parameters that a login sets; unknown ones are stored for the client."""
    return {
        name.upper(): parse_value(name.upper(), value) if name.upper() in PARAMETERS else value
        for name, value in requested.items()
        if value is not None
    }


def for_login(values: Mapping[str, Any]) -> list[dict[str, Value]]:
    """Write all parameters for the answer to a login."""
    merged = {name: parameter.default for name, parameter in PARAMETERS.items()} | dict(values)
    return [{"name": name, "value": value} for name, value in merged.items()]


def for_answer(values: Mapping[str, Any]) -> list[dict[str, Value]]:
    """Write the parameters that every answer to a statement carries."""
    return [{"name": name, "value": value_of(values, name)} for name in _REPEATED]
