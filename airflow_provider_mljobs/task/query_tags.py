"""The QUERY_TAG that names a statement's task, and the variables that name a job's task."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_mljobs.exceptions import UnreadableError
from airflow_provider_mljobs.jobs.comment import VARIABLES
from airflow_provider_mljobs.jobs.untrusted import read_json

# Snowflake's limit.
_MAX_CHARACTERS = 2000
_TEXT_LIMITS = (200, 100, 50, 20)
_PROVIDER = "airflow-provider-mljobs"


def query_tag(ti: Any) -> str:
    """Return the QUERY_TAG of a try's statements in Snowflake, inside and outside of its job."""
    # Unescaped, names of any script fit: Airflow's have at most 250 characters.
    return json.dumps(_names(ti), ensure_ascii=False)


def role_tag(role: str) -> str:
    """Return the QUERY_TAG of statements for no task, or for many."""
    return json.dumps({"provider": _PROVIDER, "role": role})


def shortened(tag: str) -> str:
    """Shorten a QUERY_TAG to Snowflake's limit; in JSON the texts are cut, so that it stays JSON."""
    if len(tag) <= _MAX_CHARACTERS:
        return tag
    try:
        document = read_json(tag, "The QUERY_TAG")
    except UnreadableError:
        document = None
    if isinstance(document, dict):
        for most in _TEXT_LIMITS:
            texts = {key: _cut(value, most) if isinstance(value, str) else value for key, value in document.items()}
            text = json.dumps(texts, ensure_ascii=False)
            if len(text) <= _MAX_CHARACTERS:
                return text
    return _cut(tag, _MAX_CHARACTERS)


def environment(ti: Any) -> dict[str, str]:
    """Return the variables that name the task to its job, under the names of Airflow's own operators."""
    values = _names(ti)
    return {variable: str(values[name]) for name, variable in VARIABLES.items()}


def _names(ti: Any) -> dict[str, str | int]:
    map_index = -1 if ti.map_index is None else ti.map_index
    place = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id}
    return {**place, "map_index": map_index, "try_number": ti.try_number}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
