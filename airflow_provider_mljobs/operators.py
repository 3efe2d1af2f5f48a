"""The operator: builds a payload and a job spec, submits, waits, takes the result and cleans up."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args

from airflow.sdk import BaseOperator
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowTaskTimeout, TaskDeferralError
from airflow.sdk.log import mask_secret

from airflow_provider_mljobs import __version__, arguments
from airflow_provider_mljobs.arguments import (
    identifier,
    integrations,
    is_known,
    optional_identifier,
    resolved,
    text,
)
from airflow_provider_mljobs.exceptions import GatewayError, InvalidJobSpecError, MLJobFailedError
from airflow_provider_mljobs.gateway.completion import abandon, complete
from airflow_provider_mljobs.gateway.watching import look, tell
from airflow_provider_mljobs.jobs import logs
from airflow_provider_mljobs.jobs.functions import called, pickle_arguments, refuse_call, refuse_empty
from airflow_provider_mljobs.jobs.identifiers import QualifiedName, StagePath, job_name
from airflow_provider_mljobs.jobs.payload import Payload, locate, script_arguments, validate_arguments
from airflow_provider_mljobs.jobs.results import jsonb_safe
from airflow_provider_mljobs.jobs.spec import JobSpec
from airflow_provider_mljobs.jobs.status import JobStatus
from airflow_provider_mljobs.jobs.watch import JobWatch, Verdict, pause, to_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.sdk import Context

    from airflow_provider_mljobs.gateway.completion import Outcome
    from airflow_provider_mljobs.hooks import MLJobHook

OnFinish = Literal["drop", "drop_on_success", "keep"]
# The trigger reports a deadline itself; Airflow's own timeout is for the case that no trigger does.
_DEFER_GRACE = timedelta(seconds=60)


class MLJobOperator(BaseOperator):
    """Run code as a Snowflake ML Job and return what it returns.

    The code, packed into one archive, is uploaded to a stage and run in the ML runtime image on a compute pool. While
    it runs the task is deferred. At the end the log is in the task log, and XCom has ``return_value`` (a function's
    return value, a script's global ``__return__``), ``job_id``, ``status``, ``logs`` (the tail) and ``stage_path``
    (where the job saved files: ``$MLRS_STAGE_RESULT_PATH`` inside the job).
    Example::

        train = MLJobOperator(
            task_id="train",
            source="loan_default/",
            entrypoint="train.py",
            args=["--table", "{{ params.table }}"],
            compute_pool="ML_POOL",
            stage_name="@ml.payloads",
        )

    A return value that is no JSON (a DataFrame, an array, an object) stays on the stage; XCom gets its place. A payload
    that raises fails the task with :class:`~airflow_provider_mljobs.exceptions.RemoteError`.

    :param source: what to run: a Python file, a directory, or a callable. Relative paths start at the folder of the DAG
        file. (templated)
    :param entrypoint: the Python file to start, for a directory; relative to it. (templated)
    :param args: a script's arguments, or a callable's positional ones. They arrive byte for byte; nothing in them is
        expanded. (templated)
    :param compute_pool: the pool that runs the job. (templated)
    :param stage_name: stage for payload and result, ``[@][[db.]schema.]stage[/path]``. It has to exist, with
        ``ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')``. (templated)
    :param env_vars: environment variables of the job, text to text. (templated)
    :param pip_requirements: requirements that pip installs when the job starts, after those of a ``requirements.txt``
        in the source. Needs an external access integration to a package index. (templated)
    :param target_instances: number of instances; more than one is not supported yet.
    :param database: database of the job, and for an unqualified stage; the connection's by default. (templated)
    :param schema: schema of the job, and for an unqualified stage; the connection's by default. (templated)
    :param query_warehouse: warehouse for queries inside the job; the connection's by default. (templated)
    :param external_access_integrations: integrations by which the job reaches other hosts. (templated)
    :param snowflake_conn_id: the Airflow connection. (templated)
    :param wait_for_completion: whether to wait; otherwise the task returns the job's id, and the job, its log and its
        payload are left to whoever waits for it.
    :param deferrable: whether to wait in the triggerer instead of holding a worker.
    :param poll_interval: most seconds between two looks at the job; a young job is looked at more often.
    :param on_finish: what to do with the job service and its payload at the end, once the log is safe: ``drop``,
        ``drop_on_success``, or ``keep``. What the job saved on the stage always stays.
    :param cancel_on_kill: whether the job is cancelled when a user ends the task.
    :raises InvalidJobSpecError: when the arguments can't make a job: while the DAG is parsed where that can be known.
    """

    template_fields: Sequence[str] = (
        "source",
        "entrypoint",
        "args",
        "compute_pool",
        "stage_name",
        "env_vars",
        "pip_requirements",
        "database",
        "schema",
        "query_warehouse",
        "external_access_integrations",
        "snowflake_conn_id",
    )
    template_fields_renderers = {"args": "json", "env_vars": "json", "pip_requirements": "json"}  # noqa: RUF012 (Airflow's)
    ui_color = "#d5f0fa"

    def __init__(  # noqa: PLR0913 (the parameters of a job)
        self,
        *,
        source: str | os.PathLike[str] | Callable[..., Any],
        compute_pool: str,
        stage_name: str,
        entrypoint: str | None = None,
        args: Sequence[Any] = (),
        env_vars: Mapping[str, str] | None = None,
        pip_requirements: Sequence[str] = (),
        target_instances: int = 1,
        database: str | None = None,
        schema: str | None = None,
        query_warehouse: str | None = None,
        external_access_integrations: Sequence[str] = (),
        snowflake_conn_id: str = "snowflake_default",
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 10.0,
        on_finish: OnFinish = "drop",
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # A callable must not stand in a template field: Airflow would call it as a template. Its name stands there.
        self.function = source if callable(source) else None
        self.source = called(source) if callable(source) else source
        self.entrypoint = entrypoint
        self.args = args
        self.compute_pool = compute_pool
        self.stage_name = stage_name
        self.env_vars = env_vars
        self.pip_requirements = pip_requirements
        self.target_instances = target_instances
        self.database = database
        self.schema = schema
        self.query_warehouse = query_warehouse
        self.external_access_integrations = external_access_integrations
        self.snowflake_conn_id = snowflake_conn_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.on_finish = on_finish
        self.cancel_on_kill = cancel_on_kill
        self.job_id: str | None = None
        self._is_killed = False
        self._validate()

    @cached_property
    def hook(self) -> MLJobHook:
        """The connection that the task uses."""
        # Imported here: it loads a database toolkit that no DAG file needs.
        from airflow_provider_mljobs.hooks import MLJobHook

        return MLJobHook(self.snowflake_conn_id, database=self.database, schema=self.schema)

    def execute(self, context: Context) -> Any:
        """Submit the job; then wait, defer or return its id."""
        try:
            spec = self._spec(context)
            # What is secret by its name isn't shown, even if a statement or the job's log holds it.
            mask_secret(dict(spec.env_vars))
            payload = self._payload(context)
            self.job_id = str(spec.name)
            # Before the submit: whoever looks for the job of this try, alive or crashed, finds its name here.
            context["ti"].xcom_push(key="job_id", value=self.job_id)
            self.hook.submit(spec, payload)
            if self._is_killed:
                # The kill came before there was a job.
                self.hook.cancel(spec.name)
            self.log.info("Submitted job %s on compute pool %s.", self.job_id, spec.compute_pool)
            if not self.wait_for_completion:
                return self.job_id
            watch = JobWatch(deadline=self._deadline(context), patience=_patience())
            if self.deferrable:
                self._defer(watch, spec.directory)
            return self._finish(context, self._wait(spec.name, watch))
        except AirflowTaskTimeout:
            if self.job_id is None:
                raise
            # In the worker Airflow enforces execution_timeout itself, in the middle of anything: a new connection.
            self.hook.close()
            return self._finish(context, to_event(self.job_id, Verdict.TIMED_OUT, JobStatus.UNKNOWN))
        finally:
            self.hook.close()

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Go on after the trigger has seen the end of the job."""
        if event is None or "job_id" not in event:
            raise MLJobFailedError(f"The trigger sent no job: {event!r}.", self.job_id or "?", JobStatus.UNKNOWN)
        try:
            return self._finish(context, event)
        finally:
            self.hook.close()

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the deferral; end the job if its trigger has failed, because nobody else will."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralError:
            self._abandon(self._spec(context))
            raise

    def on_kill(self) -> None:
        """Cancel the job when a user ends the task while a worker holds it; ``execute`` goes on and cleans up."""
        self._is_killed = self.cancel_on_kill
        if self.job_id is None or not self.cancel_on_kill:
            return
        self.log.info("The task was ended; cancelling job %s.", self.job_id)
        # Its own connection: the task's may be in the middle of a statement.
        from airflow_provider_mljobs.hooks import MLJobHook

        with MLJobHook(self.snowflake_conn_id) as hook:
            hook.cancel(hook.job(self.job_id))

    def _abandon(self, spec: JobSpec) -> None:
        try:
            abandon(self.hook.client, spec.name, spec.directory if self.on_finish == "drop" else None, self.log)
        except GatewayError as error:
            self.log.warning("Job %s may still run, with files in %s. Reason: %s", spec.name, spec.directory, error)
        finally:
            self.hook.close()

    def _payload(self, context: Context) -> Payload:  # noqa: ARG002 (the decorator needs the context)
        if self.function is not None:
            return Payload.of_function(self.function, resolved(self.args), pip_requirements=self.pip_requirements)
        return Payload.of_source(
            self._source_path(), self.entrypoint, self.args, pip_requirements=self.pip_requirements
        )

    def _spec(self, context: Context) -> JobSpec:
        database, schema = self.hook.default_schema
        ti = context["ti"]
        name = job_name(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            attempt=f"{ti.max_tries}_{ti.try_number}",
        )
        job = QualifiedName.parse(str(name), "job", database, schema)
        origin = {
            "provider": __version__,
            "dag_id": ti.dag_id,
            "run_id": ti.run_id,
            "task_id": ti.task_id,
            "map_index": ti.map_index,
            "try_number": ti.try_number,
            # A deleted and repeated DAG run has all the rest in common.
            "id": str(ti.id),
        }
        return JobSpec(
            name=job,
            compute_pool=identifier(self.compute_pool, "compute_pool"),
            directory=StagePath.parse(self.stage_name, "stage_name", database, schema) / str(name),
            # A container's session has no warehouse of its own, not even its user's.
            query_warehouse=optional_identifier(self.query_warehouse, "query_warehouse") or self.hook.default_warehouse,
            external_access_integrations=integrations(self.external_access_integrations),
            env_vars=self.env_vars or {},
            target_instances=self.target_instances,
            comment=json.dumps(origin),
        )

    def _source_path(self) -> Path:
        path = Path(os.fspath(self.source))
        folder = Path(self._dag.fileloc).parent if self._dag is not None and self._dag.fileloc else Path()
        return path if path.is_absolute() else folder / path

    def _deadline(self, context: Context) -> float | None:
        """Return when the job has to be over: Airflow itself doesn't enforce execution_timeout while deferred."""
        if self.execution_timeout is None:
            return None
        return context["ti"].start_date.timestamp() + self.execution_timeout.total_seconds()

    def _defer(self, watch: JobWatch, directory: StagePath) -> NoReturn:
        from airflow_provider_mljobs.triggers import MLJobTrigger

        timeout = None
        if watch.deadline is not None:
            timeout = timedelta(seconds=watch.deadline - time.time() + self.poll_interval) + _DEFER_GRACE
        self.defer(
            trigger=MLJobTrigger(
                job_id=self.job_id or "",
                snowflake_conn_id=self.snowflake_conn_id,
                poll_interval=self.poll_interval,
                deadline=watch.deadline,
                patience=watch.patience,
                cancel_on_kill=self.cancel_on_kill,
                # A user's kill is no success, so "drop_on_success" keeps the job.
                stage_path=str(directory) if self.on_finish == "drop" else None,
            ),
            method_name="execute_complete",
            timeout=timeout,
        )
        raise AssertionError  # defer never returns; this tells the type checker

    def _wait(self, job: QualifiedName, watch: JobWatch) -> dict[str, Any]:
        """Wait in the worker: the same look and the same decision as the trigger's."""
        started, status = time.time(), JobStatus.UNKNOWN
        while True:
            watch, seen = look(self.hook.client, job, watch, time.time())
            tell(self.log, job, status, seen)
            status = seen.status
            if seen.verdict.is_final:
                return to_event(str(job), seen.verdict, seen.status, seen.message)
            time.sleep(pause(time.time() - started, self.poll_interval))

    def _finish(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Take log and result, clean up, and return the value or raise what happened."""
        # As in execute(), which may have run in another process.
        mask_secret(dict(self.env_vars or {}))
        self.job_id = str(event["job_id"])
        job = self.hook.job(self.job_id)
        directory = self.hook.stage(self.stage_name) / job.name.value
        verdict, status = Verdict(event["verdict"]), JobStatus(event["status"])
        try:
            outcome = complete(self.hook.client, job, directory, verdict=verdict, status=status)
        except GatewayError:
            self.log.warning("Left as they are: job %s, and its files in %s.", job, directory)
            raise
        self._show(context, job, directory, outcome)
        drop = self.on_finish == "drop" or (self.on_finish == "drop_on_success" and outcome.error is None)
        # A log that could not be read is not safe: what has it stays.
        if drop and outcome.log is not None:
            self._clean_up(job, directory, outcome)
        else:
            self.log.info("Kept job %s, and its payload in %s.", job, directory)
        if outcome.error is not None:
            raise outcome.error
        if outcome.result is None:
            return None
        if outcome.result.reference is not None:
            # A reference is one value, also where a dict would become several.
            self.multiple_outputs = False
        return outcome.result.xcom

    def _show(self, context: Context, job: QualifiedName, directory: StagePath, outcome: Outcome) -> None:
        """Write the job's log to the task log, and push what XCom gets besides the return value."""
        log = outcome.log or ""
        for block in logs.blocks(logs.without_banners(log)):
            self.log.info("Log of job %s:\n%s", job.name, block)
        if outcome.log is not None and not logs.without_banners(log):
            self.log.info("Job %s has printed nothing, or its log is gone.", job.name)
        self.log.info("Job %s ended %s.", job, outcome.status)
        if self.do_xcom_push:
            tail = logs.tail(logs.between_banners(log))
            for key, value in (("status", outcome.status.value), ("logs", tail), ("stage_path", str(directory))):
                context["ti"].xcom_push(key=key, value=jsonb_safe(value))

    def _clean_up(self, job: QualifiedName, directory: StagePath, outcome: Outcome) -> None:
        """Drop the service, remove the payload. What can't be removed is named; it turns no success into failure."""
        try:
            self.hook.client.clean_up(job, directory, result=outcome.is_taken)
        except GatewayError as error:
            self.log.warning("Could not clean up. Left: job %s, or files in %s. Reason: %s", job, directory, error)
        else:
            self.log.info("Dropped job %s and removed its payload.", job)

    def _validate(self) -> None:
        if self.on_finish not in get_args(OnFinish):
            known = ", ".join(get_args(OnFinish))
            raise InvalidJobSpecError(f"on_finish must be one of {known}; got {self.on_finish!r}.")
        arguments.validate(vars(self))
        if self.function is not None:
            self._validate_function(self.function)
        elif is_known(self.source) and is_known(self.entrypoint):
            self._validate_source()

    def _validate_function(self, function: Callable[..., Any]) -> None:
        if self.entrypoint is not None:
            raise InvalidJobSpecError(f"entrypoint {self.entrypoint!r} is for a directory; source is a callable.")
        refuse_empty(function)
        if is_known(self.args):
            validate_arguments(self.args)
            refuse_call(function, self.args, {})
            pickle_arguments(function, self.args, {})

    def _validate_source(self) -> None:
        text(self.source, "source")
        if is_known(self.args):
            script_arguments(self.args)
        # A DAG file is parsed where its folder is; a task without a DAG says nothing about where it will run.
        if self._dag is not None:
            locate(self._source_path(), self.entrypoint)


def _patience() -> float:
    return float(conf.getfloat("mljobs", "max_unreachable_seconds", fallback=600.0))
