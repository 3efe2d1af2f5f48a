"""What the page asks Snowflake, and does there.

Whoever may edit a task instance's XComs may have named another job, or another connection. So the connection has to be
the task's before the API server logs in by it, and the job's name and its COMMENT have to say that it is this task
instance's, before anything of it is shown or touched.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk._shared.secrets_masker import redact
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
from airflow_provider_mljobs.jobs.comment import Origin
from airflow_provider_mljobs.jobs.credentials import starred
from airflow_provider_mljobs.jobs.names import QualifiedName
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.spec.rendering import given_environment
from airflow_provider_mljobs.jobs.untrusted import read_yaml, reading
from airflow_provider_mljobs.jobs.values.portability import jsonb_safe
from airflow_provider_mljobs.launcher.contract import MLJOBS_ARGS, MLJOBS_ENV
from airflow_provider_mljobs.task.task_states import of_database
from airflow_provider_mljobs.ui import listing, presenters
from airflow_provider_mljobs.ui.connections import connection_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime, timedelta

    from airflow_provider_mljobs.jobs.comment import TaskKey
    from airflow_provider_mljobs.ui.hooks import PageHook

logger = logging.getLogger(__name__)
_ATTEMPT = re.compile(r".*_([0-9]{1,9})_([0-9]{1,9})")
_HIDDEN = "***"
_PACKED = frozenset({MLJOBS_ARGS, MLJOBS_ENV})


@dataclass(frozen=True, kw_only=True)
class Known:
    """The job of a task instance, as Airflow's database has it.

    :param state: where the task instance stands.
    :param submitted_at: when the job was submitted, if that is known.
    """

    task: TaskKey
    job: QualifiedName
    snowflake_conn_id: str
    state: str | None
    submitted_at: datetime | None


def cancel(task: TaskKey, job_id: str) -> dict[str, str]:
    """Stop the job of a task instance; one that is over stays as it is.

    :param job_id: the job that is meant: the task instance may have another one by now.
    """
    known = _known(task, job_id)
    with _asking(known.snowflake_conn_id) as hook:
        status = JobStatus(_described(hook, known)["status"])
        if not status.is_terminal:
            hook.cancel(known.job)
            # A look that doesn't show the job says nothing of the cancel.
            status = hook.client.look(known.job).status or JobStatus.CANCELLING
    return {"job_id": str(known.job), "status": status.value}


def drop(task: TaskKey, job_id: str) -> dict[str, str]:
    """Drop the job of a task instance, if both are over: a task that isn't has yet to take the job's result.

    :param job_id: as for :func:`cancel`.
    """
    known = _known(task, job_id)
    if known.state not in FINISHED:
        raise HTTPException(409, f"{task} is {known.state or 'waiting'}: it takes the result of job {job_id} first.")
    with _asking(known.snowflake_conn_id) as hook:
        status = JobStatus(_described(hook, known)["status"])
        if not status.is_terminal:
            raise HTTPException(409, f"Job {job_id} is {status}: cancel it, and drop it when it is over.")
        hook.drop(known.job)
    return {"job_id": str(known.job), "status": "DROPPED"}


def specification(task: TaskKey) -> dict[str, str]:
    """Return what the job of a task instance runs, as Snowflake has it, without what may be secret."""
    known = _known(task)
    with _asking(known.snowflake_conn_id) as hook:
        try:
            text = _described(hook, known)["spec"]
        except NotFoundOrNotAuthorizedError as error:
            told = f"Job {known.job} is no longer in Snowflake, or not for role {hook.client.connection.role}: "
            raise HTTPException(404, f"{told}its specification went with it.") from error
        if not text:
            role = hook.client.connection.role
            raise HTTPException(404, f"Snowflake doesn't show role {role} the specification of job {known.job}.")
    try:
        return {"job_id": str(known.job), "specification": _without_secrets(str(text))}
    except UnreadableError as error:
        raise HTTPException(502, _told(error)) from error


def usage(task: TaskKey) -> dict[str, Any]:
    """Return what the containers of a task instance's job use. Of a job that is gone, Snowflake may know it still."""
    known = _known(task)
    with _asking(known.snowflake_conn_id) as hook:
        # A job that is gone has no COMMENT any more; that its name is the task's has been seen.
        with suppress(NotFoundOrNotAuthorizedError):
            _described(hook, known)
        found: dict[str, Any] = jsonb_safe(hook.client.usage(known.job, known.submitted_at).to_json())
    return found


def clean_up(
    snowflake_conn_id: str, older_than: timedelta, stages: Iterable[str], schema: str | None, *, dry_run: bool
) -> dict[str, Any]:
    """Collect what jobs have left: see :meth:`~airflow_provider_mljobs.hooks.MLJobHook.collect`.

    :param schema: where to look for jobs; the connection's schema if ``None``, the whole account if ``"account"``.
    """
    with _asking(snowflake_conn_id) as hook:
        found = hook.collect(
            older_than,
            stages=tuple(stages),
            schema=hook.schema_of(schema),
            dry_run=dry_run,
            task_states=of_database,
        )
    items = [{**item.to_json(), "error": redact(item.error)} for item in found.items]
    return {"items": items, "summary": found.summary}


def _known(task: TaskKey, job_id: str | None = None) -> Known:
    """Return the job of a task instance, which has to be the one that is meant."""
    with create_session() as session:
        row = listing.one(session, task.dag_id, task.run_id, task.task_id, task.map_index)
        own_conn_id = connection_of(session, task)
    if row is None:
        raise HTTPException(404, f"{task} has no ML job.")
    facts = presenters.mapping(row["job"])
    found, snowflake_conn_id = presenters.text(facts.get("job_id")), presenters.text(facts.get("snowflake_conn_id"))
    if found is None or snowflake_conn_id is None:
        raise HTTPException(409, f"The XCom 'mljob' of {task} isn't what the task has pushed: its job is unknown.")
    if own_conn_id != snowflake_conn_id:
        own = "not known to Airflow any more" if own_conn_id is None else repr(own_conn_id)
        raise HTTPException(
            409,
            f"The XCom 'mljob' of {task} names the connection {snowflake_conn_id!r}; that of the task is {own}. Ask "
            "Snowflake for the job there.",
        )
    if job_id not in {None, found}:
        raise HTTPException(409, f"By now, the job of {task} is {found}.")
    return Known(
        task=task,
        job=_own_job(task, found),
        snowflake_conn_id=snowflake_conn_id,
        state=row["state"],
        submitted_at=presenters.moment(facts.get("submitted_at")),
    )


def _own_job(task: TaskKey, job_id: str) -> QualifiedName:
    """Read the id of a job, whose name has to be one that the task instance gives its jobs."""
    try:
        job = QualifiedName.parse(job_id, "job")
    except InvalidJobSpecError as error:
        raise HTTPException(409, _told(error)) from error
    attempt = _ATTEMPT.fullmatch(job.name.value)
    if attempt is None or job.name != task.job_name(int(attempt[1]), int(attempt[2])):
        raise _foreign(task, job)
    return job


def _described(hook: PageHook, known: Known) -> Mapping[str, Any]:
    """Return what Snowflake says of a job, whose COMMENT has to say that it is the task instance's.

    :raises NotFoundOrNotAuthorizedError: if there is no such job, or not any more.
    """
    row = hook.client.describe(known.job)
    origin = Origin.parse(row["comment"])
    if origin is None or origin.task != known.task or not origin.is_called(known.job.name.value):
        raise _foreign(known.task, known.job)
    return row


def _foreign(task: TaskKey, job: QualifiedName) -> HTTPException:
    return HTTPException(
        409,
        f"Job {job} is not known to be of {task} of the Airflow {task.airflow!r}. If it is, the workers call this "
        "Airflow otherwise: set [mljobs] deployment to the same everywhere.",
    )


@contextmanager
def _asking(snowflake_conn_id: str) -> Iterator[PageHook]:
    """Open a connection, and say in one sentence what goes wrong."""
    # Imported here: it takes two seconds, which the API server's event loop hasn't.
    from airflow_provider_mljobs.ui.hooks import PageHook

    try:
        with PageHook(snowflake_conn_id) as hook:
            if hook.get_connection(snowflake_conn_id).conn_type != hook.conn_type:
                raise HTTPException(409, f"Connection {snowflake_conn_id!r} is none to Snowflake.")
            # Whoever opens a connection tells in one way what may be wrong with it, from its parameters on.
            logger.debug("Asking Snowflake as role %s.", hook.client.connection.role)
            yield hook
    except NotFoundOrNotAuthorizedError as error:
        raise HTTPException(404, _told(error)) from error
    except InvalidJobSpecError as error:
        raise HTTPException(400, _told(error)) from error
    except (MLJobError, AirflowException) as error:
        raise HTTPException(502, f"Snowflake can't be asked: {_told(error)}") from error


def _told(error: Exception) -> str:
    """Return an error's message in one line. Passwords of connections are known to be secret."""
    message = error.message if isinstance(error, GatewayError) else str(error)
    return str(redact(" ".join(message.split())))


def _without_secrets(text: str) -> str:
    """Return a specification without what is secret by its name, or may be: arguments have none.

    Secrets of Snowflake's are references, and stay.
    """
    import yaml

    document = read_yaml(text, "The specification")
    with reading("The specification"):
        for container in document["spec"]["containers"]:
            if environment := container.get("env"):
                container["env"] = _shown_environment(environment)
            for words in ("command", "args"):
                if isinstance(container.get(words), list):
                    container[words] = list(_shown_words(container[words]))
    return starred(str(redact(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000))))


def _shown_environment(environment: Mapping[str, Any]) -> dict[str, Any]:
    found = given_environment({name: str(value) for name, value in environment.items()})
    # Arguments have no names; and what is left of the other can't be read.
    return {name: _HIDDEN if name in _PACKED else redact(value, name) for name, value in found.items()}


def _shown_words(words: Iterable[Any]) -> Iterator[Any]:
    """Hide the values of options that are secret by their names: ``--password=…``, ``--password …``."""
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
    """Tell whether Airflow takes what has this name for a secret."""
    return redact("value", name) != "value"
