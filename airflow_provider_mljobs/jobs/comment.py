"""The COMMENT of a job, which identifies its task. COMMENTs are untrusted: each value is checked on the way in."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_mljobs import __version__
from airflow_provider_mljobs.exceptions import InvalidJobSpecError, UnreadableError
from airflow_provider_mljobs.jobs.names import JOB_NAME_PREFIX, job_name
from airflow_provider_mljobs.jobs.payload.archive import PREFIX
from airflow_provider_mljobs.jobs.untrusted import read_json, reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_mljobs.jobs.names import Identifier

# The variables with a job's task, under the names that Airflow's own operators use.
VARIABLES = {
    "dag_id": "AIRFLOW_CTX_DAG_ID",
    "run_id": "AIRFLOW_CTX_DAG_RUN_ID",
    "task_id": "AIRFLOW_CTX_TASK_ID",
    "map_index": "AIRFLOW_CTX_MAP_INDEX",
    "try_number": "AIRFLOW_CTX_TRY_NUMBER",
}
# The name of a task's job: digest of the task instance, epoch, attempt.
TASKS_JOB = re.compile(rf"{JOB_NAME_PREFIX}[A-Z0-9_]*_[0-9A-F]{{12}}_[0-9]+_[0-9]+")


@dataclass(frozen=True, kw_only=True)
class TaskKey:
    """A task instance, with all its tries.

    :param airflow: the Airflow's name: several may have DAGs of the same names, and share a schema.
    """

    airflow: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    def job_name(self, epoch: int, attempt: int) -> Identifier:
        """Choose the name of a job of the task instance: see :class:`Origin`."""
        return job_name(**asdict(self), attempt=f"{epoch}_{attempt}")

    def __str__(self) -> str:
        index = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.dag_id}.{self.task_id}{index} of run {self.run_id}"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The try of a task that submitted a job.

    :param run_started: the start of its DAG run, which a run that is deleted and repeated changes.
    :param epoch: the task instance's ``max_tries``, which Airflow raises on each clear, and only then.
    :param waits: whether the task waits for the job; if so, the job is abandoned once the task is over.
    """

    task: TaskKey
    run_started: str
    epoch: int
    try_number: int
    waits: bool = True
    payload: str = ""
    comment: str = ""

    def is_same_attempt(self, other: Origin | None) -> bool:
        """Check whether a job of the same name belongs to the same attempt, perhaps submitted by an earlier try."""
        return other is not None and (self.task, self.run_started, self.epoch) == (
            other.task,
            other.run_started,
            other.epoch,
        )

    def is_called(self, name: str) -> bool:
        """Check whether a job's name confirms its COMMENT, and its payload may belong to it."""
        attempt = name.rpartition("_")[2]
        try:
            # Airflow's database can't store NUL or half a surrogate pair, so no task has them in its name.
            str(self.task).encode()
            expected = self.task.job_name(self.epoch, int(attempt)).value
        except (InvalidJobSpecError, ValueError):
            return False
        own = re.fullmatch(rf"{PREFIX}[0-9a-f]+_(?:[0-9]+|{re.escape(name)})", self.payload)
        return name == expected and "\0" not in str(self.task) and (own is not None or not self.payload)

    def to_comment(self) -> str:
        """Write it as the COMMENT of a job, readable for people too."""
        job = {name: value for name, value in asdict(self).items() if name != "task" and value != ""}
        return json.dumps({"provider": __version__, **asdict(self.task), **job})

    @classmethod
    def parse(cls, comment: str | None) -> Self | None:
        """Read a COMMENT; ``None`` if it names no task. One whose end is missing has no payload."""
        try:
            document = _document(comment)
            if document is None or "provider" not in document:
                return None
            with reading("The COMMENT"):
                return cls(task=TaskKey(**_arguments(TaskKey, document)), **_arguments(cls, document))
        except UnreadableError:
            # Some field is missing or invalid: a hook, a definition or another tool submitted the job.
            return None

    @classmethod
    def from_environment(cls, environment: Mapping[str, Any], airflow: str, name: str, payload: str) -> Self | None:
        """Read the environment of a job whose COMMENT is lost; ``None`` unless the job's name confirms it.

        ``run_started`` and ``waits`` are lost with the COMMENT.
        """
        if TASKS_JOB.fullmatch(name) is None:
            return None
        try:
            names = {part: str(environment[VARIABLES[part]]) for part in ("dag_id", "run_id", "task_id")}
            map_index, try_number = (int(environment[VARIABLES[part]]) for part in ("map_index", "try_number"))
        except (LookupError, TypeError, ValueError):
            return None
        origin = cls(
            task=TaskKey(airflow=airflow, map_index=map_index, **names),
            run_started="",
            epoch=int(name.rsplit("_", 2)[1]),
            try_number=try_number,
            waits=False,
            payload=payload,
        )
        return origin if origin.is_called(name) else None


def payload_of(comment: str | None) -> str | None:
    """Return the payload in a job's COMMENT, empty if its task has none; ``None`` if it doesn't say."""
    payload = (_document(comment) or {}).get("payload")
    if isinstance(payload, str) and payload:
        return payload
    return None if _object(comment) is None or Origin.parse(comment) is None else ""


def with_payload(comment: str, payload: str) -> str:
    """Add the name of its payload to a job's COMMENT: to a JSON object, or to any other text."""
    document = _document(comment)
    return json.dumps({**({"comment": comment} if document is None else document), "payload": payload})


def is_same_job(ours: str, theirs: str) -> bool:
    """Check whether two COMMENTs belong to the same job, perhaps submitted by an earlier try."""
    origin = Origin.parse(ours)
    if origin is None:
        return with_payload(ours, "") == with_payload(theirs, "")
    return origin.is_same_attempt(Origin.parse(theirs))


def _document(comment: str | None) -> dict[str, Any] | None:
    """Read a COMMENT that is a JSON object, or the beginning of one of ours; ``None`` for any other.

    How long a COMMENT may be is documented nowhere: an account may cut it. Within values quotes are escaped, so that a
    comma with a quote always separates two fields. Those that identify the task come first.
    """
    document = _object(comment)
    if document is None and comment and comment.startswith('{"provider": '):
        beginning = _object(comment.rpartition(', "')[0] + "}") or {}
        # Without the last of these fields a job that no task waits for would count as abandoned.
        return beginning if "waits" in beginning else None
    return document


def _object(comment: str | None) -> dict[str, Any] | None:
    try:
        document = read_json(comment, "The COMMENT")
    except UnreadableError:
        return None
    return document if isinstance(document, dict) else None


def _arguments(kind: type, document: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a dataclass in a document; fields of later versions are ignored."""
    typed = {field.name: (field.type, document[field.name]) for field in fields(kind) if field.name in document}
    if any(type(value).__name__ != expected for expected, value in typed.values()):
        raise TypeError(document)
    return {name: value for name, (_, value) in typed.items()}
