"""The operator that runs code as a Snowflake ML Job."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout

from airflow_provider_mljobs import links
from airflow_provider_mljobs.task.fields import JobFields, is_known, templatable, templatable_imports
from airflow_provider_mljobs.task.templates import TextKeepingOperator

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import timedelta

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_mljobs.hooks import MLJobHook
    from airflow_provider_mljobs.jobs.payload.functions import Serializer
    from airflow_provider_mljobs.jobs.payload.git import GitSource
    from airflow_provider_mljobs.task.completion import ReturnValue
    from airflow_provider_mljobs.task.fields import OnFinish, OnKillAction
    from airflow_provider_mljobs.task.run import Try


class MLJobOperator(TextKeepingOperator):
    """Run code as a Snowflake ML Job and return its value.

    The code is packed into one archive, uploaded to a stage unless the stage has it, and run in the ML runtime image on
    a compute pool. While the job runs the task is deferred. At the end the task log contains the job's log, and XCom
    has ``return_value`` (a function's return value, a script's global ``__return__``), ``job_id``, ``status``,
    ``timeline`` (the phases of the job with their times), ``logs`` (the tail), ``stage_path`` (the directory of saved
    files: ``$MLRS_STAGE_RESULT_PATH`` inside the job), ``artifacts`` (path, bytes and md5 of these files), ``metrics``
    (reported by the job), ``git_commit`` for a git source, and for several instances ``instances`` (exit code and value
    of each). Example::

        train = MLJobOperator(
            task_id="train",
            source="loan_default/",
            entrypoint="train.py",
            args=["--table", "{{ params.table }}", "--output-dir", "$MLRS_STAGE_RESULT_PATH"],
            compute_pool="ML_POOL",
            stage_name="@ml.payloads",
        )

    A return value that is not JSON (a DataFrame, an array, an object), or larger than ``[mljobs] max_xcom_bytes``,
    stays on the stage; XCom has a reference, and another job that takes it as an argument gets the value. A payload
    that raises fails the task with :class:`~airflow_provider_mljobs.exceptions.RemoteError`.

    With ``spec`` instead of ``source`` the task runs a service specification of your own, in any image::

        MLJobOperator(task_id="own_image", spec="specs/job.yaml", compute_pool="ML_POOL")

    :param source: the code: a Python file, a directory, a callable, ``@stage/path`` or ``snow://…`` (copied by
        Snowflake, never to the worker), or a :class:`~airflow_provider_mljobs.types.GitSource`. Relative paths start in
        the folder of the DAG file. (templated)
    :param spec: instead of a source: a service specification as a dict, as YAML, in a file ``*.yaml``, ``*.yml`` or
        ``*.json`` beside the DAG file (templated as well), or in ``@stage/file``. (templated)
    :param using: values of a specification template's variables, which Snowflake fills in. (templated)
    :param entrypoint: a Python file of the source to start, or a command as a list, e.g. ``["torchrun", "train.py"]``.
        A source that is a file needs none. (templated)
    :param args: arguments of a script or command, or positional ones of a callable. They arrive byte for byte; in those
        of a script, ``$MLRS_…`` and ``$SNOWFLAKE_…`` variables of the job are expanded. (templated)
    :param imports: more code for the job: ``"utils/"``, ``("src/utils/", "utils")`` with the name to import it by, a
        file, a zip, a module, or ``("@stage/path/", "utils")``. (templated)
    :param serializer: how a callable travels: as ``source``, by ``cloudpickle``, or ``auto``: as source if possible.
    :param compute_pool: the pool that runs the job. (templated)
    :param stage_name: existing stage for payload and result, ``[@][[db.]schema.]stage[/path]``, with ``ENCRYPTION =
        (TYPE = 'SNOWFLAKE_SSE')``. Not needed with ``spec``. (templated)
    :param env_vars: environment variables of the job, text to text. (templated)
    :param secrets: Snowflake secrets by the name of an environment variable, ``{"WANDB_API_KEY": "ml.secrets.wandb"}``,
        or by the directory of their files, ``{"/secrets/feed": "ml.secrets.feed"}``; a value ``{"snowflakeSecret": …,
        "secretKeyRef": "password"}`` names the part. (templated)
    :param pip_requirements: requirements that pip or uv installs when the job starts, after those of a
        ``requirements.txt`` in the source. Needs an external access integration to a package index. (templated)
    :param artifact_repositories: Snowflake artifact repositories for pip; such a job is managed. (templated)
    :param runtime_environment: the ML runtime: a version, ``2.9.0`` or ``2.9.0-py311``, an image,
        ``/db/schema/repository/image:tag``, or ``cre@name``; by default Snowflake's latest. Without a suffix it has the
        Python of this task, if Snowflake has such an image; otherwise only source code runs there. (templated)
    :param target_instances: number of instances, each on its own node.
    :param min_instances: number of instances that the job needs to begin; all by default.
    :param parallel: run the entrypoint on every instance. Otherwise the first runs it, with the others in a Ray cluster
        that the job has started.
    :param ray: start Ray on the only instance; by default if the payload imports ``ray`` or a part of ``snowflake.ml``
        that needs it. Several instances have Ray, except with ``parallel``.
    :param volumes: more volumes, by mount path: ``"@stage/path"``, or a volume as in a service specification, e.g.
        ``{"source": "memory", "size": "2Gi"}``. (templated)
    :param endpoints: endpoints, as in a service specification. (templated)
    :param spec_overrides: a document to merge into the job's specification, lists by their ``name``; ``None`` removes a
        value. (templated)
    :param enable_metrics: collect the platform's metrics of the job.
    :param log_level: the streams that an event table stores: ``INFO`` both, ``ERROR`` stderr, ``NONE``.
    :param managed: start the job with SYSTEM$EXECUTE_ML_JOB instead of EXECUTE JOB SERVICE; by default for a system
        pool, with artifact repositories and with a ``cre@`` runtime.
    :param comment: a text for people, in the job's COMMENT. (templated)
    :param query_tag: QUERY_TAG of queries inside the job; by default DAG, run, task and try as JSON. (templated)
    :param database: database of the job, and for an unqualified stage; the connection's by default. (templated)
    :param schema: schema of the job, and for an unqualified stage; the connection's by default. (templated)
    :param query_warehouse: warehouse for queries inside the job; the connection's by default. (templated)
    :param external_access_integrations: integrations through which the job reaches other hosts. (templated)
    :param snowflake_conn_id: the Airflow connection. (templated)
    :param wait_for_completion: wait for the job; otherwise the task returns its id, and leaves job, log and files.
    :param deferrable: wait in the triggerer instead of holding a worker.
    :param poll_interval: maximum seconds between two looks at the job; a young job is looked at more often.
    :param log_interval: seconds between two looks at the log of a running job; 0 shows the log at the end.
    :param queue_timeout: seconds, or a timedelta, after which a job that is still PENDING is cancelled, and the task
        fails with :class:`~airflow_provider_mljobs.exceptions.MLJobQueueTimeoutError` and the reason; ``None`` for no
        limit. While the account has its maximum of services, the task waits in the worker.
    :param timeout: seconds, or a timedelta, that the job may run, from its start; then it is cancelled. Airflow's own
        ``execution_timeout`` limits the whole task, also while it is deferred.
    :param on_finish: the fate of the job service and its input at the end, once the log is safe: ``drop``,
        ``drop_on_success``, or ``keep``. The job's saved files always stay on the stage.
    :param skip_on_exit_code: an exit code of the job's container, or several, that skip the task.
    :param fail_on_exit_code: an exit code, or several, that fail the task at once, regardless of ``retries``.
    :param cancel_on_kill: end the job when a user ends the task: marks it, clears it, ends its DAG run.
    :param on_kill_action: ``cancel`` stops the job, ``drop`` also drops it with its input, ``none`` is
        ``cancel_on_kill=False``; by default ``drop`` if ``on_finish`` is ``drop``, else ``cancel``.
    :param durable: let a retry attach to the job of a lost try instead of submitting another one: it waits for a job
        that runs, and reads the result of one that is DONE. A cleared task gets a new job, after its old one has ended.
        With ``False`` each try has a job of its own.
    :raises InvalidJobSpecError: when the arguments can't make a job; while the DAG is parsed, where possible.
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

    _try: Try | None = None
    _is_killed = False  # whether a user ended the task before its try began

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
        ray: bool | None = None,
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
        self.source = templatable(source)
        self.spec = spec
        self.using = using
        self.entrypoint = entrypoint
        self.args = args
        # Modules can't stand there either; the files that they are made of can.
        self.imports = templatable_imports(imports)
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
        self.ray = ray
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
        self.job_fields().validate()

    @cached_property
    def hook(self) -> MLJobHook:
        """The connection that the task uses."""
        # Imported here: it loads a database toolkit that no DAG file needs.
        from airflow_provider_mljobs.hooks import MLJobHook

        return MLJobHook(self.snowflake_conn_id, database=self.database, schema=self.schema)

    @property
    def snowsight(self) -> str:
        """The address of the job's page in Snowsight, for the link; empty while this process has no job."""
        return str(self._try.completion.facts.get("snowsight") or "") if self._try is not None else ""

    def job_fields(self, context: Context | None = None) -> JobFields:  # noqa: ARG002 (the decorator needs the context)
        """Return the fields of the task.

        :param context: the context of the run; ``None`` outside of one.
        """
        return JobFields.of(self)

    def prepare_template(self) -> None:
        """Read a specification's file, so that Airflow renders and shows its text like any other field."""
        if is_known(self.spec):
            self.spec = self.job_fields().with_specification().spec

    def execute(self, context: Context) -> Any:
        """Submit a job, or attach to that of an earlier try; then wait, defer or return the job's id."""
        return self._returned(self._begin(context, self.job_fields(context)).run())

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Complete the task after its trigger has seen the end of the job."""
        return self._returned(self._begin(context, self.job_fields()).complete(event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after the deferral; if its trigger has failed, complete a job that has ended."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            event = self._begin(context, self.job_fields()).event_after(error)
        return self.execute_complete(context, event)

    def on_kill(self) -> None:
        """Cancel the job when a user ends the task while a worker holds it; ``execute`` then cleans up."""
        self._is_killed = True
        if self._try is not None:
            self._try.kill()

    def dry_run(self) -> None:
        """Print the statement that would start the job, with ``<…>`` for values that only Snowflake knows."""
        from airflow_provider_mljobs.task import build

        print(build.preview(self.job_fields(), self.hook.namespace))  # noqa: T201 (its purpose)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the lineage of the job, which Airflow's OpenLineage provider asks for at the end of the task."""
        from airflow_provider_mljobs.task.notify.lineage import lineage_of

        return lineage_of(self, task_instance, None if self._try is None else self._try.completion.outcome)

    @property
    def _try_type(self) -> type[Try]:
        from airflow_provider_mljobs.task.run import Try

        return Try

    def _begin(self, context: Context, fields: JobFields) -> Try:
        self._try = self._try_type(
            fields,
            context,
            self.hook,
            self.log,
            render=partial(self.render_template, context=context),
            show_links=partial(links.show, self, context["ti"]),
            is_killed=self._is_killed and fields.kill_action != "none",
        )
        return self._try

    def _returned(self, value: ReturnValue) -> Any:
        if value.is_single:
            # Airflow would make one XCom of each key of a dict.
            self.multiple_outputs = False
        return value.value
