"""The two JSON arguments of SYSTEM$EXECUTE_ML_JOB, checked key by key."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.errors import SnowflakeError, not_supported
from airflow_provider_mljobs.emulator.parsing import parse_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FUNCTION = "SYSTEM$EXECUTE_ML_JOB"


def invalid_argument(function: str, detail: str) -> SnowflakeError:
    """Build the error for an invalid argument of a function."""
    return SnowflakeError(939, "22023", f"Invalid argument for {function}: {detail}")


def read_object(function: str, text: Any) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        value = json.loads(str(text))
    except ValueError as error:
        raise invalid_argument(function, f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise invalid_argument(function, "expected a JSON object")
    return value


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_environment(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_scalar, value.values()))


def _is_arguments(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_scalar, value))


_Check = tuple["Callable[[Any], bool]", str]
_TEXT: _Check = (_is_text, "a string")
_FLAG: _Check = (_is_flag, "true or false")
_COUNT: _Check = (_is_count, "a whole number from 1")
_NAMES: _Check = (_is_names, "a list of names")
_SPECIFICATION: Mapping[str, _Check] = {
    "STAGE_PATH": _TEXT,
    "ARGS": (_is_arguments, "a list of strings"),
    "ENV_VARS": (_is_environment, "an object of strings"),
    "ENABLE_METRICS": _FLAG,
    "SPEC_OVERRIDES": (_is_object, "an object"),
    "RUNTIME": _TEXT,
    "ENABLE_STAGE_MOUNT_V2": _FLAG,
    "ARTIFACT_REPOSITORIES": _NAMES,
}
_JOB: Mapping[str, _Check] = {
    "EXTERNAL_ACCESS_INTEGRATIONS": _NAMES,
    "QUERY_WAREHOUSE": _TEXT,
    "TARGET_INSTANCES": _COUNT,
    "MIN_INSTANCES": _COUNT,
    "GENERATE_SUFFIX": _FLAG,
    "COMMENT": _TEXT,
    "ASYNC": _FLAG,
}


@dataclass(frozen=True)
class MLJobOptions:
    """The arguments of a call of SYSTEM$EXECUTE_ML_JOB.

    :param spec: the specification, without the keys that are null.
    :param job: the options, also without those keys.
    """

    spec: Mapping[str, Any]
    job: Mapping[str, Any]

    @classmethod
    def read(cls, specification: Any, options: Any) -> MLJobOptions:
        """Read the two arguments; raises 939 for values of wrong types and refuses unknown keys."""
        arguments = cls(_checked(specification, _SPECIFICATION), _checked(options, _JOB))
        if not arguments.spec.get("STAGE_PATH"):
            raise invalid_argument(FUNCTION, "STAGE_PATH is missing")
        if arguments.min_instances > arguments.instances:
            raise invalid_argument(FUNCTION, "MIN_INSTANCES must not be greater than TARGET_INSTANCES")
        return arguments

    @property
    def instances(self) -> int:
        """The number of instances."""
        return int(self.job.get("TARGET_INSTANCES", 1))

    @property
    def min_instances(self) -> int:
        """The number of instances that the job needs to start."""
        return int(self.job.get("MIN_INSTANCES", self.instances))

    @property
    def integrations(self) -> tuple[str, ...]:
        """The external access integrations, case-sensitive with and without quotes."""
        names = self.job.get("EXTERNAL_ACCESS_INTEGRATIONS", ())
        return tuple(parse_name(name).name if name.startswith('"') else name for name in names)

    @property
    def query_warehouse(self) -> str | None:
        """The warehouse, in its stored spelling."""
        name = self.job.get("QUERY_WAREHOUSE")
        return None if name is None else str(parse_name(name))


def _checked(text: Any, checks: Mapping[str, _Check]) -> dict[str, Any]:
    values = {key: value for key, value in read_object(FUNCTION, text).items() if value is not None}
    for key, value in values.items():
        if key not in checks:
            raise not_supported(f"Option {key} of {FUNCTION}")
        is_valid, expected = checks[key]
        if not is_valid(value):
            raise invalid_argument(FUNCTION, f"{key} must be {expected}, got {json.dumps(value)}")
    return values
