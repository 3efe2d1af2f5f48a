"""The operator: builds a payload and a job spec, submits, waits, takes the result and cleans up."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from threading import Thread
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseOperator
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
)

from airflow_provider_mljobs import links
from airflow_provider_mljobs.exceptions import (
    JobAlreadyExistsError,
    MLJobCancelledError,
    MLJobFailedError,
    MLJobQueueTimeoutError,
    ServicesLimitError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.jobs.attempts import Step
from airflow_provider_mljobs.jobs.outcome.failures import Diagnosis, Failure
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.outcome.watch import Verdict, to_event
from airflow_provider_mljobs.jobs.payload.functions import called, pack, refuse_empty
from airflow_provider_mljobs.jobs.payload.git import GitSource
from airflow_provider_mljobs.jobs.payload.imports import plain as plain_imports
from airflow_provider_mljobs.jobs.spec.job import validate_instances
from airflow_provider_mljobs.jobs.values.arguments import Arguments, script_arguments
from airflow_provider_mljobs.task import fields
from airflow_provider_mljobs.task.fields import is_known, resolved
from airflow_provider_mljobs.task.query_tags import query_tag
from airflow_provider_mljobs.task.timeout_signals import disarm, held_back
from airflow_provider_mljobs.task.waiting import WorkerWait, defer, plan_wait
from airflow_provider_mljobs.task.xcoms import FACTS, facts_of, keep

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Mapping, Sequence

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_mljobs.hooks import MLJobHook
    from airflow_provider_mljobs.jobs.attempts import Record
    from airflow_provider_mljobs.jobs.comment import Origin
    from airflow_provider_mljobs.jobs.names import QualifiedName
    from airflow_provider_mljobs.jobs.outcome.wait_plan import WaitPlan
    from airflow_provider_mljobs.jobs.payload.archive import Payload
    from airflow_provider_mljobs.jobs.payload.functions import Serializer
    from airflow_provider_mljobs.jobs.spec.job import JobSpec
    from airflow_provider_mljobs.task.completion import Finishing
    from airflow_provider_mljobs.task.fields import OnFinish, OnKillAction
    from airflow_provider_mljobs.task.recovery import Attempts
    from airflow_provider_mljobs.task.xcoms import JobEnd

# For the upload of a payload that the first of several mapped tasks has begun.
_UPLOAD_PATIENCE_SECONDS = 5.0
# Airflow kills a process for good five seconds after it has asked it to end.
_KILL_SECONDS = 4.0
# How often the log says that the account is still full.
_TELL_AGAIN_SECONDS = 300.0


class MLJobOperator(BaseOperator):
    """Run code as a Snowflake ML Job and return what it returns.

    The code, packed into one archive, is uploaded to a stage and run in the ML runtime image on a compute pool; code
    that is on the stage already isn't uploaded again. While the job runs the task is deferred. At the end the log is in
    the task log, and XCom has ``return_value`` (a function's return value, a script's global ``__return__``),
    ``job_id``, ``status``, ``timeline`` (what the job was doing, and since when), ``logs`` (the tail), ``stage_path``
    (where the job saved files: ``$MLRS_STAGE_RESULT_PATH`` inside the job), ``artifacts`` (these files: path, bytes,
    md5), ``metrics`` (those that it has reported), for a git source ``git_commit``, and for several instances
    ``instances`` (exit code and value of each). Example::

        train = MLJobOperator(
            task_id="train",
            source="loan_default/",
            entrypoint="train.py",
            args=["--table", "{{ params.table }}", "--output-dir", "$MLRS_STAGE_RESULT_PATH"],
            compute_pool="ML_POOL",
            stage_name="@ml.payloads",
        )

    A return value that is no JSON (a DataFrame, an array, an object), or larger than ``[mljobs] max_xcom_bytes``, stays
    on the stage; XCom gets a reference, which another job takes as an argument and gets the value. A payload that
    raises fails the task with :class:`~airflow_provider_mljobs.exceptions.RemoteError`.

    With ``spec`` instead of ``source`` the task runs a service specification of your own, in any image::

        MLJobOperator(task_id="own_image", spec="specs/job.yaml", compute_pool="ML_POOL")

    :param source: what to run: a Python file, a directory, a callable, ``@stage/path`` or ``snow://…`` (copied by
        Snowflake, never to the worker), or a :class:`~airflow_provider_mljobs.types.GitSource`. Relative paths
        start at the folder of the DAG file. (templated)
    :param spec: instead of a source: a service specification as a dict, as YAML, in a file ``*.yaml``, ``*.yml`` or
        ``*.json`` beside the DAG file (templated as well), or in ``@stage/file``. (templated)
    :param using: values of a specification template's variables, which Snowflake fills in. (templated)
    :param entrypoint: what to start: a Python file of the source, or a command as a list, e.g.
        ``["torchrun", "train.py"]``. A source that is a file needs none. (templated)
    :param args: a script's or command's arguments, or a callable's positional ones. They arrive byte for byte; in a
        script's, ``$MLRS_…`` and ``$SNOWFLAKE_…`` variables of the job are expanded. (templated)
    :param imports: more code for the job: ``"utils/"``, ``("src/utils/", "utils")`` with the name to import it by, a
        file, a zip, a module, or ``("@stage/path/", "utils")``. (templated)
    :param serializer: how a callable travels: as ``source``, by ``cloudpickle``, or ``auto``: as source where it stands
        alone.
    :param compute_pool: the pool that runs the job. (templated)
    :param stage_name: stage for payload and result, ``[@][[db.]schema.]stage[/path]``. It has to exist, with
        ``ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')``. Not needed with ``spec``. (templated)
    :param env_vars: environment variables of the job, text to text. (templated)
    :param secrets: Snowflake secrets for the job: by the name of an environment variable, ``{"WANDB_API_KEY":
        "ml.secrets.wandb"}``, or by the directory in which its files lie, ``{"/secrets/feed": "ml.secrets.feed"}``; a
        value ``{"snowflakeSecret": …, "secretKeyRef": "password"}`` names the part. (templated)
    :param pip_requirements: requirements that pip installs when the job starts, after those of a ``requirements.txt``
        in the source. Needs an external access integration to a package index. (templated)
    :param artifact_repositories: Snowflake artifact repositories for pip; such a job is managed. (templated)
    :param runtime_environment: tag or image of the ML runtime; by default the one that Snowflake names for the pool and
        for the Python that runs this task. (templated)
    :param target_instances: number of instances, each on a node of its own.
    :param min_instances: how many of them are enough to begin with; all by default.
    :param parallel: whether every instance runs the entrypoint. Otherwise the first runs it, with the others in a Ray
        cluster that the job has started.
    :param volumes: more volumes, by mount path: ``"@stage/path"``, or a volume in the words of a service specification,
        e.g. ``{"source": "memory", "size": "2Gi"}``. (templated)
    :param endpoints: endpoints, in the words of a service specification. (templated)
    :param spec_overrides: what is merged into the job's specification, lists by their ``name``; ``None`` removes.
        (templated)
    :param enable_metrics: whether the platform collects metrics of the job.
    :param log_level: which streams an event table keeps: ``INFO`` both, ``ERROR`` stderr, ``NONE``.
    :param managed: whether SYSTEM$EXECUTE_ML_JOB starts the job instead of EXECUTE JOB SERVICE; by default if the pool
        is one of the system's, or artifact repositories are used.
    :param comment: a text for people, in the job's COMMENT. (templated)
    :param query_tag: QUERY_TAG of queries inside the job; by default DAG, run, task, map index and try as JSON.
        (templated)
    :param database: database of the job, and for an unqualified stage; the connection's by default. (templated)
    :param schema: schema of the job, and for an unqualified stage; the connection's by default. (templated)
    :param query_warehouse: warehouse for queries inside the job; the connection's by default. (templated)
    :param external_access_integrations: integrations by which the job reaches other hosts. (templated)
    :param snowflake_conn_id: the Airflow connection. (templated)
    :param wait_for_completion: whether to wait; otherwise the task returns the job's id, and the job, its log and its
        files are left to whoever waits for it.
    :param deferrable: whether to wait in the triggerer instead of holding a worker.
    :param poll_interval: most seconds between two looks at the job; a young job is looked at more often.
    :param log_interval: seconds between two looks at what the job prints, while it runs; 0 shows its log at the end.
    :param queue_timeout: seconds, or a timedelta, after which a job that is still PENDING is cancelled, and the task
        fails with :class:`~airflow_provider_mljobs.exceptions.MLJobQueueTimeoutError` and the reason; ``None`` waits
        for any time. Where the account has as many services as it may have, the task waits in the worker for a place.
    :param timeout: seconds, or a timedelta, that the job may run, from its start; then it is cancelled. Airflow's own
        ``execution_timeout`` bounds the whole task, and is kept while it is deferred, too.
    :param on_finish: what to do with the job service and its input at the end, once the log is safe: ``drop``,
        ``drop_on_success``, or ``keep``. What the job saved on the stage always stays.
    :param skip_on_exit_code: an exit code of the job's container, or several, by which the task is skipped.
    :param fail_on_exit_code: an exit code, or several, by which the task fails at once, whatever its ``retries``.
    :param cancel_on_kill: whether the job is ended when a user ends the task: marks it, clears it, ends its DAG run.
    :param on_kill_action: how: ``cancel`` stops the job, ``drop`` drops it and its input as well, ``none`` is
        ``cancel_on_kill=False``. By default ``drop`` if ``on_finish`` is ``drop``, else ``cancel``.
    :param durable: whether a retry goes on with the job of a try that was lost, instead of submitting another one: it
        waits for a job that runs, and takes the result of one that is DONE. A cleared task gets a new job, after its
        old one has ended. With ``False`` no try knows of another one's job.
    :raises InvalidJobSpecError: when the arguments can't make a job: while the DAG is parsed where that can be known.
    """

    template_fields: Sequence[str] = (
        "source",
        "spec",
        "using",
        "entrypoint",
        "args",
        "imports",
        "compute_pool",
        "stage_name",
        "env_vars",
        "secrets",
        "pip_requirements",
        "artifact_repositories",
        "runtime_environment",
        "volumes",
        "endpoints",
        "spec_overrides",
        "comment",
        "query_tag",
        "database",
        "schema",
        "query_warehouse",
        "external_access_integrations",
        "snowflake_conn_id",
    )
    template_fields_renderers = {  # noqa: RUF012 (Airflow's)
        "spec": "yaml",
        "args": "json",
        "env_vars": "json",
        "secrets": "json",
        "pip_requirements": "json",
        "volumes": "json",
        "endpoints": "json",
        "spec_overrides": "json",
    }
    operator_extra_links = (links.SnowsightLink(), links.RayDashboardLink(), links.MLJobLink())
    ui_color = "#d5f0fa"

    # How far the try in this process has come.
    job_id: str | None = None
    _has_job = False
    _is_killed = False
    _current: Attempts | None = None
    _wait_for_job: WorkerWait | None = None
    _event: Mapping[str, Any] | None = None
    # What is known of its job, and how that has ended, for lineage.
    facts: Mapping[str, Any] = MappingProxyType({})
    end: JobEnd | None = None

    def __init__(  # noqa: PLR0913 (the parameters of a job)
        self,
        *,
        compute_pool: str,
        source: str | os.PathLike[str] | GitSource | Callable[..., Any] | None = None,
        spec: str | Mapping[str, Any] | None = None,
        using: Mapping[str, Any] | None = None,
        entrypoint: str | Sequence[str] | None = None,
        args: Sequence[Any] = (),
        imports: Sequence[Any] = (),
        serializer: Serializer = "auto",
        stage_name: str | None = None,
        env_vars: Mapping[str, str] | None = None,
        secrets: Mapping[str, str | Mapping[str, str]] | None = None,
        pip_requirements: Sequence[str] = (),
        artifact_repositories: Sequence[str] = (),
        runtime_environment: str | None = None,
        target_instances: int = 1,
        min_instances: int | None = None,
        parallel: bool = False,
        volumes: Mapping[str, str | Mapping[str, Any]] | None = None,
        endpoints: Sequence[Mapping[str, Any]] = (),
        spec_overrides: Mapping[str, Any] | None = None,
        enable_metrics: bool = True,
        log_level: Literal["INFO", "ERROR", "NONE"] | None = None,
        managed: bool | None = None,
        comment: str | None = None,
        query_tag: str | None = None,
        database: str | None = None,
        schema: str | None = None,
        query_warehouse: str | None = None,
        external_access_integrations: Sequence[str] = (),
        snowflake_conn_id: str = "snowflake_default",
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 10.0,
        log_interval: float = 10.0,
        queue_timeout: float | timedelta | None = None,
        timeout: float | timedelta | None = None,
        on_finish: OnFinish = "drop",
        skip_on_exit_code: int | Collection[int] | None = None,
        fail_on_exit_code: int | Collection[int] | None = None,
        cancel_on_kill: bool = True,
        on_kill_action: OnKillAction | None = None,
        durable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # A callable must not stand in a template field: Airflow would call it as a template. Its name stands there.
        self.function = source if callable(source) else None
        self.source = _templatable(source)
        self.spec = spec
        self.using = using
        self.entrypoint = entrypoint
        self.args = args
        # Modules can't stand there either; the files that they are made of can.
        self.imports = plain_imports(imports) if is_known(imports) else imports
        self.serializer = serializer
        self.compute_pool = compute_pool
        self.stage_name = stage_name
        self.env_vars = env_vars
        self.secrets = secrets
        self.pip_requirements = pip_requirements
        self.artifact_repositories = artifact_repositories
        self.runtime_environment = runtime_environment
        self.target_instances = target_instances
        self.min_instances = min_instances
        self.parallel = parallel
        self.volumes = volumes
        self.endpoints = endpoints
        self.spec_overrides = spec_overrides
        self.enable_metrics = enable_metrics
        self.log_level = log_level
        self.managed = managed
        self.comment = comment
        self.query_tag = query_tag
        self.database = database
        self.schema = schema
        self.query_warehouse = query_warehouse
        self.external_access_integrations = external_access_integrations
        self.snowflake_conn_id = snowflake_conn_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.log_interval = log_interval
        self.queue_timeout = queue_timeout
        self.timeout = timeout
        self.on_finish = on_finish
        self.skip_on_exit_code = skip_on_exit_code
        self.fail_on_exit_code = fail_on_exit_code
        self.cancel_on_kill = cancel_on_kill
        self.on_kill_action = on_kill_action
        self.durable = durable
        self._validate()

    @cached_property
    def hook(self) -> MLJobHook:
        """The connection that the task uses."""
        # Imported here: it loads a database toolkit that no DAG file needs.
        from airflow_provider_mljobs.hooks import MLJobHook

        return MLJobHook(self.snowflake_conn_id, database=self.database, schema=self.schema)

    def prepare_template(self) -> None:
        """Read a specification's file, so that its text is rendered and shown like any other field."""
        if fields.is_specification_file(self.spec) and is_known(self.spec):
            self.spec = fields.read_specification(self)

    def execute(self, context: Context) -> Any:
        """Submit the job, or take over the one of an earlier try; then wait, defer or return its id."""
        try:
            return self._run(context)
        except AirflowTaskTimeout:
            if self.job_id is None and self._current is not None and self._current.open is not None:
                # In the middle of finding out what to do about it.
                self.job_id = self._current.open.job_id
            if self.job_id is None:
                raise
            # In the worker Airflow enforces execution_timeout itself, in the middle of anything: a new connection.
            self.hook.close()
            return self._finish(context, self._timed_out(context, self.job_id))
        except KeyboardInterrupt:
            # Ctrl-C of a process without a supervisor: ``airflow dags test``. No other try will come.
            self._end_interrupted(context)
            raise
        except (MLJobFailedError, SnowflakeUnavailableError, AirflowSkipException, AirflowFailException):
            # The job is over, or it may go on, for the next try or the collector to find.
            raise
        except Exception:
            self._end_with_the_last_try(context)
            raise
        finally:
            self.hook.close()

    def _run(self, context: Context) -> Any:
        self._current = attempts = self._attempts(context)
        start = attempts.begin()
        queue_deadline = self._queue_deadline()
        record = start.record
        if start.step is Step.RETURN:
            disarm()
            self._announce(context, record)
            return self._finishing(context).return_left(record)
        if start.step is Step.ATTACH:
            self.log.info("Job %s is there, %s: going on with it.", record.job_id, start.status)
            self._has_job = True
            self._announce(context, record, submitted_at=start.submitted_at)
            if self._is_ended(attempts):
                # The kill came before it was known that there is a job.
                self._cancel(self.hook, self.hook.job(record.job_id))
        else:
            record = self._submit_patiently(context, attempts, record, queue_deadline)
        if not self.wait_for_completion:
            # One text, also where the function's own value would have been a dict.
            self.multiple_outputs = False
            return record.job_id
        if start.status is not None and start.status.is_terminal:
            return self._finish(context, _ended(record.job_id, start.status, record.stage_path))
        plan = self._plan(context, record, queue_deadline)
        # After a kill there is nothing to wait for but the end, which is this process's to clean up.
        if self.deferrable and not self._is_killed:
            defer(self, plan, self.snowflake_conn_id)
        return self._finish(context, self._wait(context, plan))

    def _announce(self, context: Context, record: Record, *, submitted_at: str | None = None) -> None:
        """Tell where the job of this try is: whoever looks for it, alive or crashed, and this try's next phase."""
        self.job_id = record.job_id
        with held_back():
            context["ti"].xcom_push(key="job_id", value=record.job_id)
            if record.stage_path is not None:
                context["ti"].xcom_push(key="stage_path", value=record.stage_path)
        self._push_facts(context, record, submitted_at=submitted_at)

    def _push_facts(self, context: Context, record: Record, **submit: str | None) -> None:
        self.facts = facts_of(self, record, **submit)
        with held_back():
            keep(context["ti"], FACTS, self.facts)

    def dry_run(self) -> None:
        """Print the statement that would start the job, with its specification; nothing is asked or touched.

        What only Snowflake knows stands in angle brackets.
        """
        from airflow_provider_mljobs.task import build

        print(build.preview(self, self.hook.namespace))  # noqa: T201 (for whoever calls it)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Go on after the trigger has seen the end of the job."""
        if event is None or "job_id" not in event:
            raise MLJobFailedError(f"The trigger sent no job: {event!r}.", self.job_id or "?", JobStatus.UNKNOWN)
        try:
            return self._finish(context, event)
        finally:
            self.hook.close()

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the deferral; if its trigger has failed, with what has become of the job.

        One that has ended is taken. One that runs is the next try's; without one, or out of time, it is ended.
        """
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            finishing = self._finishing(context)
            job_id, stage_path = (self._pulled(context, key) for key in ("job_id", "stage_path"))
            if job_id is None:
                raise
            status = finishing.status(job_id)
            if status is None or not status.is_terminal:
                if isinstance(error, TaskDeferralTimeout) or not self._attempts(context).may_go_on:
                    finishing.give_up(job_id, stage_path)
                raise
            self.log.warning("Going on with job %s, which has ended %s: %s", job_id, status, error)
            return self.execute_complete(context, _ended(job_id, status, stage_path))
        finally:
            self.hook.close()

    def on_kill(self) -> None:
        """Cancel the job when a user ends the task while a worker holds it; ``execute`` goes on and cleans up."""
        if self.kill_action == "none" or self._event is not None:
            # Of a job that is over only the end is to be taken: by this process, or by the next try.
            return
        if not self._has_job:
            # Whoever is about to submit one, or to find one, looks at this.
            self._is_killed = True
            return
        # The signal may have come in the middle of a question to Airflow: another one has to wait until that is over,
        # so it must not be asked here.
        killing = Thread(target=self._kill, name="mljobs-kill", daemon=True)
        killing.start()
        killing.join(_KILL_SECONDS)

    def _kill(self) -> None:
        from airflow_provider_mljobs.hooks import MLJobHook

        if self._current is not None and self._current.is_for_another_try():
            self.log.info("This process is ended, not the task: job %s goes on, for the next try.", self.job_id)
            return
        self._is_killed = True
        self.log.info("The task was ended; cancelling job %s.", self.job_id)
        # Its own connection: the task's may be in the middle of a statement.
        with MLJobHook(self.snowflake_conn_id, query_tag=self.hook.query_tag) as hook:
            self._cancel(hook, hook.job(str(self.job_id)))

    def _cancel(self, hook: MLJobHook, job: QualifiedName) -> None:
        from airflow_provider_mljobs.task.ending import JobEnding

        JobEnding(client=hook.client, job=job, log=self.log).cancel()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return what OpenLineage is told of the job of a task that has ended."""
        from airflow_provider_mljobs.task.notify.lineage import lineage_of

        return lineage_of(self, task_instance)

    @property
    def kill_action(self) -> OnKillAction:
        """What becomes of the job when a user ends the task."""
        if not self.cancel_on_kill:
            return "none"
        # A user's kill is no success, so "drop_on_success" keeps the job.
        return self.on_kill_action or ("drop" if self.on_finish == "drop" else "cancel")

    def drops(self, *, is_success: bool) -> bool:
        """Tell whether a job that is over is dropped."""
        if self._is_killed:
            return self.kill_action == "drop"
        return self.on_finish == "drop" or (self.on_finish == "drop_on_success" and is_success)

    def _end_interrupted(self, context: Context) -> None:
        """End the job as a user's kill does: the one that was submitted, or that may have been in this moment."""
        if self.job_id is None or self.kill_action == "none" or self._event is not None:
            return
        self._is_killed = True
        self.hook.close()
        self.log.info("Interrupted; cancelling job %s. Interrupt again to leave it.", self.job_id)
        self._finishing(context).give_up(self.job_id, self._pulled(context, "stage_path"))

    def _end_with_the_last_try(self, context: Context) -> None:
        """End the job of a try that has failed for another reason, unless a later try will take it over."""
        if self._attempts(context).may_go_on:
            return
        if self._has_job and self.job_id is not None:
            self._finishing(context).give_up(self.job_id, self._pulled(context, "stage_path"))
        elif self._current is not None and (record := self._current.open) is not None:
            self._finishing(context).give_up(record.job_id, record.stage_path)

    def _is_ended(self, attempts: Attempts) -> bool:
        """Tell whether a user has ended the task, now that there is time to ask who has killed this process."""
        self._is_killed = self._is_killed and not attempts.is_for_another_try()
        return self._is_killed

    def _submit_patiently(self, context: Context, attempts: Attempts, record: Record, deadline: float | None) -> Record:
        """Submit a job; while the account has as many services as it may have, wait for one to go."""
        told = 0.0
        while True:
            try:
                return self._submit(context, attempts, record)
            except JobAlreadyExistsError:
                # A kill must not end what isn't ours.
                self.job_id = None
                other = attempts.renamed(record)
                if other is None:
                    raise
                record = other
            except ServicesLimitError as error:
                # There is no job that a timeout could end.
                self.job_id = None
                if deadline is not None and time.time() >= deadline:
                    timeout = MLJobQueueTimeoutError(
                        f"Job {record.job_id} could not be submitted within the task's queue_timeout. {error.message} "
                        "Drop jobs that are over, e.g. with: airflow mljobs gc",
                        record.job_id,
                        JobStatus.UNKNOWN,
                    )
                    raise Diagnosis(failure=Failure.CAPACITY).put_into(timeout) from error
                if time.time() - told >= _TELL_AGAIN_SECONDS:
                    self.log.info("Waiting to submit job %s: %s", record.job_id, error.message)
                    told = time.time()
                self.hook.close()
                time.sleep(self.poll_interval)

    def _submit(self, context: Context, attempts: Attempts, record: Record) -> Record:
        """Start the job. Its name is remembered before, in case that nobody is there to see it start."""
        from airflow_provider_mljobs.jobs.spec.rendering import result_directory
        from airflow_provider_mljobs.task import build
        from airflow_provider_mljobs.task.joblog import mask_environment

        spec = self._spec(context, attempts.origin, record)
        # What is secret by its name isn't shown, even if a statement or the job's log holds it.
        mask_environment(spec.env_vars)
        client = self.hook.client
        if self.spec is not None:
            if fields.is_specification_file(self.spec):
                # Airflow calls prepare_template for tasks that are not mapped, and before names are rendered.
                self.spec = self.render_template(fields.read_specification(self), context)
            source = build.specification_source(self, self.hook.namespace)
            start: Callable[[], object] = partial(client.submit_specification, spec, source)
        else:
            payload, given = self._payload(), self.packed_arguments(context)
            # The first of several mapped tasks uploads what all of them run.
            patience = _UPLOAD_PATIENCE_SECONDS if (context["ti"].map_index or 0) > 0 else 0.0
            place = client.upload(spec, payload, patience=patience)
            record = replace(record, stage_path=str(result_directory(spec, place)))
            start = partial(client.submit, spec, place, given, payload.copies)
        record = replace(record, intended_at=time.time())
        attempts.remember(record)
        self._announce(context, record)
        self._refuse_if_ended(attempts, record)
        start()
        self._has_job = True
        record = record.submitted()
        attempts.remember(record)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._push_facts(context, record, submitted_at=now, query_id=client.connection.query_id)
        self.log.info("Submitted job %s on compute pool %s.", record.job_id, spec.compute_pool)
        if self._is_ended(attempts):
            # The kill came before there was a job to be cancelled.
            self._cancel(self.hook, spec.name)
        return attempts.settle(record)

    def _refuse_if_ended(self, attempts: Attempts, record: Record) -> None:
        if self._is_ended(attempts):
            raise MLJobCancelledError(
                f"The task was ended before its job {record.job_id} was submitted.", record.job_id, JobStatus.UNKNOWN
            )

    def _payload(self) -> Payload:
        from airflow_provider_mljobs.task import build

        return build.payload_of(self, self.hook.namespace)

    def packed_arguments(self, context: Context | None) -> Arguments:  # noqa: ARG002 (the decorator needs the context)
        """Pack what the payload is given.

        :param context: the run's; ``None`` for a preview.
        """
        if self.function is not None:
            return Arguments.of_function(
                self.function,
                resolved(self.args),
                serializer=self.serializer,
                importable=fields.importable(self),
            )
        return Arguments.of_script(self.args, to_process=self._is_command)

    @property
    def _is_command(self) -> bool:
        return isinstance(self.entrypoint, list | tuple)

    def _spec(self, context: Context, origin: Origin, record: Record) -> JobSpec:
        from airflow_provider_mljobs.task import build

        return build.job_spec(
            self,
            self.hook.job(record.job_id).name,
            comment=origin.to_comment(),
            query_tag=query_tag(context["ti"]),
            environment=build.environment_of(context),
            namespace=self.hook.namespace,
            warehouse=self.hook.default_warehouse,
        )

    def _pulled(self, context: Context, key: str) -> str | None:
        """Return what an earlier phase of this try has left in XCom about its job."""
        ti = context["ti"]
        with held_back():
            value = ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)
        return str(value) if value else None

    def _deadline(self, context: Context) -> float | None:
        """Return when the job has to be over: Airflow itself doesn't enforce execution_timeout while deferred."""
        if self.execution_timeout is None:
            return None
        return context["ti"].start_date.timestamp() + self.execution_timeout.total_seconds()

    def _queue_deadline(self) -> float | None:
        queue_timeout = _seconds(self.queue_timeout)
        return None if queue_timeout is None else time.time() + queue_timeout

    def _plan(self, context: Context, record: Record, queue_deadline: float | None) -> WaitPlan:
        return plan_wait(
            record.job_id,
            poll_interval=self.poll_interval,
            log_interval=self.log_interval,
            deadline=self._deadline(context),
            queue_deadline=queue_deadline,
            timeout=_seconds(self.timeout),
            cancel_on_timeout=True,
            cancel_on_kill=self.kill_action != "none",
            drop_on_kill=self.kill_action == "drop",
            stage_path=record.stage_path,
        )

    def _wait(self, context: Context, plan: WaitPlan) -> dict[str, Any]:
        """Wait in the worker."""
        links.show(self, context["ti"])
        self._wait_for_job = WorkerWait(self.hook, plan, self.log, context["ti"])
        return self._wait_for_job.event()

    def _timed_out(self, context: Context, job_id: str) -> dict[str, Any]:
        """Build the event of a wait that Airflow has ended."""
        if self._wait_for_job is not None:
            return self._wait_for_job.timeout_event()
        return to_event(job_id, Verdict.TIMED_OUT, JobStatus.UNKNOWN, stage_path=self._pulled(context, "stage_path"))

    def _finish(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Take log and result, clean up, and return the value or raise what happened."""
        # The job is over, and there is a limit to the patience with which its end is taken.
        disarm()
        self._event = event
        self._has_job = False
        self.job_id = str(event["job_id"])
        return self._finishing(context).finish(event)

    def _finishing(self, context: Context) -> Finishing:
        from airflow_provider_mljobs.task.completion import Finishing

        return Finishing(self, context, self._attempts(context))

    def _attempts(self, context: Context) -> Attempts:
        from airflow_provider_mljobs.task.recovery import Attempts

        # Whatever a process does for the task begins with this.
        self.hook.query_tag = query_tag(context["ti"])
        return Attempts(self, context)

    def mask(self, job: QualifiedName) -> None:
        """Have masked what is secret in the job's environment; this may be another process than the one before."""
        from airflow_provider_mljobs.task.joblog import mask_environment, mask_job

        mask_environment(self.env_vars or {})
        if self.spec is not None or self.spec_overrides:
            mask_job(self.hook.client, job)

    def _validate(self) -> None:
        fields.validate(vars(self))
        validate_instances(self.target_instances, self.min_instances)
        fields.refuse_contradictions(self)
        if self._dag is not None and is_known(self.imports):
            fields.locate_imports(self)
        if self.function is not None:
            self._validate_function(self.function)
        elif self.spec is None and is_known(self.source) and is_known(self.entrypoint):
            self._validate_source()

    def _validate_function(self, function: Callable[..., Any]) -> None:
        refuse_empty(function)
        # What the function and its arguments may use is known with them.
        if not is_known(self.imports):
            return
        if self.serializer == "source":
            pack(function, "source", fields.importable(self))
        if is_known(self._given):
            self.packed_arguments(None)

    @property
    def _given(self) -> Any:
        """What the function is called with, as far as a DAG file can say."""
        return self.args

    def _validate_source(self) -> None:
        if is_known(self.args):
            script_arguments(self.args, to_process=self._is_command)
        # A DAG file is parsed where its folder is; a task without a DAG says nothing about where it will run.
        fields.locate_source(self, is_here=self._dag is not None)


def _templatable(source: Any) -> Any:
    if isinstance(source, GitSource):
        return dataclasses.asdict(source)
    return called(source) if callable(source) else source


def _ended(job_id: str, status: JobStatus, stage_path: str | None) -> dict[str, Any]:
    """Build the event of a job that was over before anybody waited for it."""
    return to_event(job_id, Verdict.FINISHED, status, stage_path=stage_path)


def _seconds(limit: float | timedelta | None) -> float | None:
    return limit.total_seconds() if isinstance(limit, timedelta) else limit
