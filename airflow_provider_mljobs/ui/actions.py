"""The page's requests to Snowflake.

XComs can be forged by users who may edit them. Therefore the API server logs in only by the task's own connection, and
shows or changes a job only if its name and its COMMENT belong to the task instance.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException
from airflow.utils.session import create_session
from fastapi import HTTPException

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    InvalidJobSpecError,
    MLJobError,
    NotFoundOrNotAuthorizedError,
    UnreadableError,
)
from airflow_provider_mljobs.gateway.collector import FINISHED
from airflow_provider_mljobs.gateway.usage import read_usage
from airflow_provider_mljobs.jobs.comment import Origin, TaskKey
from airflow_provider_mljobs.jobs.credentials import starred
from airflow_provider_mljobs.jobs.names import QualifiedName
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.spec.rendering import given_environment
from airflow_provider_mljobs.jobs.untrusted import read_yaml, reading
from airflow_provider_mljobs.jobs.values.portability import jsonb_safe
from airflow_provider_mljobs.launcher.contract import MLJOBS_ARGS, MLJOBS_ENV
from airflow_provider_mljobs.task.airflow_internals import redact
from airflow_provider_mljobs.task.task_states import of_database
from airflow_provider_mljobs.ui import listing, presenters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime, timedelta

    from airflow_provider_mljobs.ui.hooks import PageHook

logger = logging.getLogger(__name__)
_ATTEMPT = re.compile(r".*_([0-9]{1,9})_([0-9]{1,9})")
_HIDDEN = "***"
_PACKED = frozenset({MLJOBS_ARGS, MLJOBS_ENV})


@dataclass(frozen=True, kw_only=True)
class TaskJob:
    """The job of a task instance, from Airflow's database."""

    task: TaskKey
    job: QualifiedName
    snowflake_conn_id: str
    state: str | None
    submitted_at: datetime | None


def cancel(task: TaskKey, job_id: str) -> dict[str, str]:
    """Cancel the job of a task instance, unless it has ended.

    :param job_id: the job that the user saw; the task instance may have a newer one.
    """
    own = _job_of(task, job_id)
    with _connected(own.snowflake_conn_id) as hook:
        status = JobStatus(_described(hook, own)["status"])
        if not status.is_terminal:
            hook.cancel(own.job)
            # Without an answer about the job the cancel is assumed to be under way.
            status = hook.client.look(own.job).status or JobStatus.CANCELLING
    return {"job_id": str(own.job), "status": status.value}


def drop(task: TaskKey, job_id: str) -> dict[str, str]:
    """Drop the job of a task instance once both have ended: a task reads the result of its job first."""
    own = _job_of(task, job_id)
    if own.state not in FINISHED:
        raise HTTPException(
            409, f"{task} is {own.state or 'waiting'} and still needs the result of job {job_id}. Drop the job later."
        )
    with _connected(own.snowflake_conn_id) as hook:
        status = JobStatus(_described(hook, own)["status"])
        if not status.is_terminal:
            raise HTTPException(409, f"Job {job_id} is {status}. Cancel it before you drop it.")
        hook.drop(own.job)
    return {"job_id": str(own.job), "status": "DROPPED"}


def specification(task: TaskKey) -> dict[str, str]:
    """Return the specification of a task instance's job in Snowflake, without secrets."""
    own = _job_of(task)
    with _connected(own.snowflake_conn_id) as hook:
        role = hook.client.connection.role
        try:
            text = _described(hook, own).get("spec")
        except NotFoundOrNotAuthorizedError as error:
            message = f"Job {own.job} was dropped, or role {role} has no access. Its specification is not available."
            raise HTTPException(404, message) from error
        if not text:
            raise HTTPException(404, f"Snowflake doesn't show the specification of job {own.job} to role {role}.")
    try:
        return {"job_id": str(own.job), "specification": _without_secrets(str(text))}
    except UnreadableError as error:
        raise HTTPException(502, _message(error)) from error


def usage(task: TaskKey) -> dict[str, Any]:
    """Return CPU, memory and GPU of a job's containers; Snowflake may still have them after a drop."""
    own = _job_of(task)
    with _connected(own.snowflake_conn_id) as hook:
        # A dropped job has no COMMENT left to check; its name has been checked.
        with suppress(NotFoundOrNotAuthorizedError):
            _described(hook, own)
        measured: dict[str, Any] = jsonb_safe(read_usage(hook.client, own.job, own.submitted_at).to_json())
    return measured


def clean_up(
    snowflake_conn_id: str, older_than: timedelta, stages: Iterable[str], schema: str | None, *, dry_run: bool
) -> dict[str, Any]:
    """Remove orphaned jobs and files: see :meth:`~airflow_provider_mljobs.hooks.MLJobHook.collect`.

    :param schema: the schema of the jobs; the connection's schema if ``None``, the whole account if ``"account"``.
    """
    with _connected(snowflake_conn_id) as hook:
        collection = hook.collect(
            older_than,
            stages=tuple(stages),
            schema=hook.schema_of(schema),
            dry_run=dry_run,
            task_states=of_database,
        )
    items = [{**item.to_json(), "error": redact(item.error)} for item in collection.items]
    return {"items": items, "summary": collection.summary}


def _job_of(task: TaskKey, job_id: str | None = None) -> TaskJob:
    """Return the job of a task instance."""
    with create_session() as session:
        row = listing.one(session, task)
        own_conn_id = listing.connection_of(session, task)
    if row is None:
        raise HTTPException(404, f"{task} has no ML job.")
    facts = presenters.mapping(row["job"])
    own_id, snowflake_conn_id = presenters.text(facts.get("job_id")), presenters.text(facts.get("snowflake_conn_id"))
    if own_id is None or snowflake_conn_id is None:
        raise HTTPException(409, f"The XCom 'mljob' of {task} is invalid; its job is unknown.")
    if own_conn_id != snowflake_conn_id:
        actual = "no longer recorded in Airflow" if own_conn_id is None else repr(own_conn_id)
        raise HTTPException(
            409,
            f"The XCom 'mljob' of {task} names connection {snowflake_conn_id!r}, but the task's connection is {actual}."
            " Look for the job in Snowflake.",
        )
    if job_id not in {None, own_id}:
        raise HTTPException(409, f"{task} has a newer job by now: {own_id}. Reload the page.")
    return TaskJob(
        task=task,
        job=_parsed(task, own_id),
        snowflake_conn_id=snowflake_conn_id,
        state=row["state"],
        submitted_at=presenters.moment(facts.get("submitted_at")),
    )


def _parsed(task: TaskKey, job_id: str) -> QualifiedName:
    """Parse the id of a job; its name must be one that the task instance gives to its jobs."""
    try:
        job = QualifiedName.parse(job_id, "job")
    except InvalidJobSpecError as error:
        raise HTTPException(409, _message(error)) from error
    attempt = _ATTEMPT.fullmatch(job.name.value)
    if attempt is None or job.name != task.job_name(int(attempt[1]), int(attempt[2])):
        raise _foreign(task, job)
    return job


def _described(hook: PageHook, own: TaskJob) -> Mapping[str, Any]:
    """Return DESCRIBE SERVICE of a job; its COMMENT must name the task instance."""
    row = hook.client.described(own.job)
    origin = Origin.parse(row["comment"])
    if origin is None or origin.task != own.task or not origin.is_called(own.job.name.value):
        raise _foreign(own.task, own.job)
    return row


def _foreign(task: TaskKey, job: QualifiedName) -> HTTPException:
    return HTTPException(
        409,
        f"Job {job} doesn't belong to {task} of the Airflow named {task.airflow!r}. If it should, the workers use "
        "another name: set [mljobs] deployment to the same value everywhere.",
    )


@contextmanager
def _connected(snowflake_conn_id: str) -> Iterator[PageHook]:
    """Open a connection; its errors become HTTP errors of one sentence."""
    # Imported here: it takes two seconds, and would block the API server's event loop.
    from airflow_provider_mljobs.ui.hooks import PageHook

    try:
        with PageHook(snowflake_conn_id) as hook:
            if hook.get_connection(snowflake_conn_id).conn_type != hook.conn_type:
                raise HTTPException(409, f"Connection {snowflake_conn_id!r} is not a Snowflake connection.")
            # Log in here, so that a bad connection fails with the errors below.
            logger.debug("Logged in to Snowflake with role %s.", hook.client.connection.role)
            yield hook
    except NotFoundOrNotAuthorizedError as error:
        raise HTTPException(404, _message(error)) from error
    except InvalidJobSpecError as error:
        raise HTTPException(400, _message(error)) from error
    except (MLJobError, AirflowException) as error:
        raise HTTPException(502, f"Snowflake request failed: {_message(error)}") from error


def _message(error: Exception) -> str:
    """Return an error's message in one line, with the passwords of connections masked."""
    message = error.message if isinstance(error, GatewayError) else str(error)
    return str(redact(" ".join(message.split())))


def _without_secrets(text: str) -> str:
    """Mask values with a sensitive name, and the arguments of functions, which have no names.

    Snowflake secrets are references, and stay.
    """
    import yaml

    document = read_yaml(text, "The specification")
    with reading("The specification"):
        for container in document["spec"]["containers"]:
            if environment := container.get("env"):
                container["env"] = _masked_environment(environment)
            for words in ("command", "args"):
                if isinstance(container.get(words), list):
                    container[words] = list(_masked_words(container[words]))
    return starred(str(redact(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000))))


def _masked_environment(environment: Mapping[str, Any]) -> dict[str, Any]:
    variables = given_environment({name: str(value) for name, value in environment.items()})
    # Function arguments have no names. MLJOBS_ENV is only left if it could not be unpacked.
    return {name: _HIDDEN if name in _PACKED else redact(value, name) for name, value in variables.items()}


def _masked_words(words: Iterable[Any]) -> Iterator[Any]:
    """Mask the values of options with a sensitive name: ``--password=…``, ``--password …``."""
    follows = False
    for word in words:
        name, equals, _ = str(word).partition("=")
        is_secret = _is_secret(name)
        if follows:
            yield _HIDDEN
        else:
            yield f"{name}={_HIDDEN}" if equals and is_secret else redact(word)
        follows = is_secret and not equals and name.startswith("-")


def _is_secret(name: str) -> bool:
    """Whether Airflow masks values of this name."""
    return redact("value", name) != "value"
