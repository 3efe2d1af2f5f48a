"""A dry run of Airflow's own serialisers over the XComs of a job, before anything of the job is removed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.jobs.values.portability import misfit_outputs

if TYPE_CHECKING:
    from airflow_provider_mljobs.jobs.attempts import Left

# What Airflow calls the XCom of what a task returns.
RETURN_VALUE = "return_value"


def refused(left: Left, *, multiple_outputs: bool) -> tuple[str, str] | None:
    """Return the key of an XCom that can't be pushed, or that a later task would get as another value, and why.

    :param left: what is pushed.
    :param multiple_outputs: whether the return value is one XCom for each of its keys, too.
    """
    for key, value in {**left.xcoms, RETURN_VALUE: left.return_value}.items():
        try:
            is_same = _given_back(value) == value
        except Exception as error:  # noqa: BLE001 (each serialiser has errors of its own)
            return key, f"{type(error).__name__}: {error}"
        if not is_same:
            return key, "a later task would get another value"
    if not multiple_outputs or left.is_reference or left.return_value is None:
        return None
    reason = misfit_outputs(left.return_value)
    return (RETURN_VALUE, f"with multiple_outputs=True {reason}") if reason else None


def _given_back(value: Any) -> Any:
    """Return a value as a later task gets it: what Airflow's worker, supervisor and API do with it, one by one."""
    import msgspec
    from airflow.sdk.serde import deserialize, serialize
    from pydantic import JsonValue, TypeAdapter

    message = msgspec.msgpack.encode(serialize(value))
    text = json.dumps(msgspec.msgpack.decode(message), ensure_ascii=False, allow_nan=False)
    reader: TypeAdapter[Any] = TypeAdapter(JsonValue)
    return deserialize(reader.validate_json(text.encode()))
