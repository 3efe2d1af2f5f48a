"""The Airflow hook for Snowflake ML Jobs."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from airflow.providers.snowflake.hooks.snowflake import SnowflakeHook
from airflow.sdk.configuration import conf

from airflow_provider_mljobs.gateway import inspection
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.downloads import download_reference, open_reference, read_result
from airflow_provider_mljobs.gateway.payloads import DEFAULT_GRACE_SECONDS
from airflow_provider_mljobs.gateway.watcher.status_loop import (
    DEFAULT_LOG_STATEMENTS_PER_MINUTE,
    Watcher,
    shared_watcher,
)
from airflow_provider_mljobs.jobs.names import ANYWHERE, Identifier, Namespace, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.values.arguments import Arguments
from airflow_provider_mljobs.jobs.values.references import StageRef, argument_reference
from airflow_provider_mljobs.task.query_tags import role_tag, shortened
from airflow_provider_mljobs.task.settings import deployment, result_retention
from airflow_provider_mljobs.task.task_states import of_api
from airflow_provider_mljobs.task.timeout_signals import held_back

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta
    from os import PathLike

    from airflow.sdk import Connection
    from snowflake.connector import SnowflakeConnection

    from airflow_provider_mljobs.gateway.collection import Collection
    from airflow_provider_mljobs.gateway.collector import TaskStates
    from airflow_provider_mljobs.gateway.watcher.follower import Follower, Report
    from airflow_provider_mljobs.jobs.checkup import Finding
    from airflow_provider_mljobs.jobs.outcome.results import JobResult
    from airflow_provider_mljobs.jobs.outcome.status import JobStatus
    from airflow_provider_mljobs.jobs.outcome.wait_plan import WaitPlan
    from airflow_provider_mljobs.jobs.payload.archive import Payload
    from airflow_provider_mljobs.jobs.spec.job import JobSpec

# Without a limit the connector retries for ever. The limit also cancels statements, and copies of large files may take
# minutes. A watcher runs short statements only, and should report an outage soon.
_LOGIN_TIMEOUT_SECONDS = 60
_NETWORK_TIMEOUT_SECONDS = 900
_WATCHING_TIMEOUT_SECONDS = 60
# A logout must not wait for a network that hangs.
_GOODBYE_SECONDS = 5.0
_HOOK_TAG = role_tag("hook")
# A watcher's session serves the jobs of many tasks.
_WATCHER_TAG = role_tag("watcher")


@dataclass(frozen=True)
class Wait:
    """A running wait for a job."""

    watcher: Watcher
    follower: Follower

    def stop(self) -> None:
        """End the wait without blocking."""
        self.watcher.stop(self.follower)

    def close(self) -> None:
        """End the wait, and log out unless other waits use the session."""
        self.stop()
        self.watcher.join(_GOODBYE_SECONDS)


class MLJobHook(SnowflakeHook):
    """A :class:`~airflow.providers.snowflake.hooks.snowflake.SnowflakeHook` that also submits and watches ML jobs.

    It uses connections of type ``snowflake``, and passes the extra ``protocol`` on to the connector, as the base class
    does with ``host`` and ``port``. One connection opens on first use and stays open; close it with :meth:`close`, or
    use the hook as a context manager::

        with MLJobHook("snowflake_default") as hook:
            hook.status(hook.job("MLJOB_TRAIN_1A2B3C4D5E6F_0_1"))

    :param snowflake_conn_id: the Airflow connection.
    :param database: database for unqualified names; the connection's by default.
    :param schema: schema for unqualified names; the connection's by default.
    :param visibility_lag: seconds to wait for a result after its job has ended.
    :param payload_grace: seconds during which a payload on a stage counts as in use; 0 shares none;
        ``[mljobs] payload_grace_seconds`` by default.
    :param query_tag: the session's QUERY_TAG, which identifies its statements in Snowflake's query history. A tag in
        ``session_parameters`` of the hook or the connection takes precedence.

    All other parameters are those of the base class (``role``, ``warehouse``, ``session_parameters`` …).
    """

    def __init__(
        self,
        snowflake_conn_id: str = "snowflake_default",
        *,
        visibility_lag: float = 10.0,
        payload_grace: float | None = None,
        query_tag: str = _HOOK_TAG,
        **kwargs: Any,
    ) -> None:
        super().__init__(snowflake_conn_id=snowflake_conn_id, **kwargs)
        self.query_tag = query_tag
        self._visibility_lag = visibility_lag
        self._payload_grace = payload_grace
        self._network_timeout = _NETWORK_TIMEOUT_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def client(self) -> MLJobClient:
        """The client for the jobs behind this connection."""
        grace = self._payload_grace
        if grace is None:
            grace = conf.getfloat("mljobs", "payload_grace_seconds", fallback=DEFAULT_GRACE_SECONDS)
        return MLJobClient(self.get_conn, visibility_lag=self._visibility_lag, payload_grace=grace)

    def close(self) -> None:
        """Close the connection if it is open."""
        self.client.close()

    @property
    def watcher(self) -> Watcher:
        """The watcher that all hooks of this process with the same login share."""
        return shared_watcher(self._identity(), self._make_watcher)

    def follow(self, plan: WaitPlan, report: Callable[[Report], None], **earlier: Any) -> Wait:
        """Begin to wait for a job; see :meth:`~airflow_provider_mljobs.gateway.watcher.status_loop.Watcher.follow`."""
        watcher = self.watcher
        return Wait(watcher, watcher.follow(plan, report, **earlier))

    def _make_watcher(self) -> Watcher:
        per_minute = conf.getfloat("mljobs", "log_statements_per_minute", fallback=DEFAULT_LOG_STATEMENTS_PER_MINUTE)
        return Watcher(self._reconnect, log_statements_per_minute=per_minute)

    def _reconnect(self) -> SnowflakeConnection:
        hook = copy.copy(self)
        # The base class caches the Airflow connection, which may have been corrected since.
        hook.__dict__.pop("_get_static_conn_params", None)
        hook.query_tag = _WATCHER_TAG
        hook._network_timeout = _WATCHING_TIMEOUT_SECONDS  # noqa: SLF001 (of its own class)
        return hook.get_conn()

    def _identity(self) -> str:
        """Return a digest that identifies the login of this hook; a digest, because the login has passwords."""
        try:
            connection = self.get_connection(self.get_conn_id())
        except Exception:  # noqa: BLE001 (Airflow is out of reach; opening the connection asks again, with patience)
            return f"connection {self.get_conn_id()}"
        parts = (
            connection.conn_type, connection.host, connection.port, connection.login, connection.password,
            connection.schema, connection.extra, self.account, self.warehouse, self.database, self.region, self.role,
            self.schema, self.authenticator, self.session_parameters,
        )  # fmt: skip
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def job(self, job_id: str) -> QualifiedName:
        """Read a job's name; missing parts come from the connection."""
        return QualifiedName.parse(job_id, "job", self.namespace)

    def stage(self, stage_name: str) -> StagePath:
        """Read a stage's name with its path; missing parts come from the connection."""
        return StagePath.parse(stage_name, "stage_name", self.namespace)

    def schema_of(self, name: str | None = None) -> Namespace:
        """Read the name of a schema to list jobs in.

        :param name: ``[db.]schema``, or ``account`` for the whole account; by default the connection's schema, and the
            whole account if the connection has none.
        """
        if name is None:
            return self.namespace.checked()
        return ANYWHERE if name.lower() == "account" else Namespace.parse(name, "schema", self.namespace.database)

    @cached_property
    def namespace(self) -> Namespace:
        """Database and schema of this hook, or of its connection."""
        static = self._get_static_conn_params
        database, schema = static.get("database"), static.get("schema")
        return Namespace(
            Identifier.parse(database, "database") if database else None,
            Identifier.parse(schema, "schema") if schema else None,
        )

    @property
    def account_name(self) -> str:
        """The account of this hook, or of its connection."""
        return str(self._get_static_conn_params.get("account") or "")

    @cached_property
    def default_warehouse(self) -> Identifier | None:
        """Warehouse of this hook, or of its connection."""
        warehouse = self._get_static_conn_params.get("warehouse")
        return Identifier.parse(warehouse, "warehouse") if warehouse else None

    def submit(self, spec: JobSpec, payload: Payload, arguments: Arguments | None = None) -> str:
        """Upload a payload unless it is on the stage, start a job that runs it, and return the job's id.

        See :meth:`~airflow_provider_mljobs.gateway.client.MLJobClient.upload` and
        :meth:`~airflow_provider_mljobs.gateway.client.MLJobClient.submit`.
        """
        arguments = arguments or Arguments.of_script(())
        place = self.client.upload(spec, payload, pickled=arguments.pickled)
        self.client.submit(spec, place, arguments, payload.copies)
        return str(spec.name)

    def status(self, job: QualifiedName) -> JobStatus:
        """Return the status of a job."""
        return self.client.status(job)

    def logs(self, job: QualifiedName, instance: int | None = 0) -> str:
        """Return the log of one instance of a job, or with ``None`` of all."""
        return inspection.log(self.client, job, instance)

    def result(self, job: QualifiedName, directory: StagePath | None = None) -> JobResult | None:
        """Return a job's result, also for a job of Snowflake's own client; ``None`` without one.

        :param directory: the job's directory on the stage; by default it comes from the job's specification.
        """
        place = directory or self.client.directory(job)
        return read_result(self.client.connection, place, patience=self.client.visibility_lag)

    def open(self, reference: StageRef | Mapping[str, Any], *, max_bytes: int | None = None) -> Any:
        """Download the value of a reference: a DataFrame, a table, an array, or a file's bytes.

        A pickle can run any code, so it is loaded only with ``[mljobs] allow_pickle = True``.

        :param reference: a :class:`.StageRef`, or its XCom.
        :param max_bytes: the limit for the download, and for the memory of the loaded value; ``None`` for no limit.
        :raises ResultError: if the value can't be loaded, with advice.
        """
        allowed = conf.getboolean("mljobs", "allow_pickle", fallback=False)
        value = argument_reference(reference)
        return open_reference(self.client.connection, value, allow_pickle=allowed, max_bytes=max_bytes)

    def download(
        self, reference: StageRef | Mapping[str, Any], directory: str | PathLike[str], *, overwrite: bool = False
    ) -> list[Path]:
        """Download the files of a reference into an existing directory; returns their local paths.

        :param overwrite: whether to replace files and links of the same names.
        :raises ResultError: if a file is missing, or would replace another one.
        """
        files = argument_reference(reference)
        return download_reference(self.client.connection, files, Path(directory), overwrite=overwrite)

    def cancel(self, job: QualifiedName) -> None:
        """Stop a job; its service and log stay until it is dropped."""
        self.client.cancel(job)

    def drop(self, job: QualifiedName) -> None:
        """Drop a job's service."""
        self.client.drop(job)

    def list(self, prefix: str = "MLJOB_", schema: Namespace = ANYWHERE) -> list[dict[str, Any]]:
        """Return the rows of SHOW JOB SERVICES by the beginning of the name.

        :param schema: see :meth:`schema_of`; the whole account by default.
        """
        return self.client.list(schema, prefix)

    def newest(self, name_pattern: str) -> QualifiedName | None:
        """Return the newest job whose name fits a pattern of LIKE; ``None`` if none does.

        The search covers the schema of the hook or its connection; without one, the whole account.
        """
        return self.client.newest(self.schema_of(), name_pattern)

    def describe(self, job: QualifiedName) -> dict[str, Any]:
        """Describe a job: one mapping, with a list of its containers."""
        row = self.client.described(job)
        columns = ("status", "compute_pool", "target_instances", "owner", "created_on", "query_warehouse", "comment")
        containers = [asdict(container) for container in inspection.containers(self.client, job)]
        return {"job_id": str(job), **{name: row.get(name) for name in columns}, "containers": containers}

    def collect(
        self,
        older_than: timedelta,
        *,
        stages: Sequence[str] = (),
        schema: Namespace = ANYWHERE,
        dry_run: bool = False,
        task_states: TaskStates = of_api,
    ) -> Collection:
        """Drop the jobs whose tasks are finished or gone, and remove leftover files from stages.

        Only jobs of this Airflow's tasks are dropped, see ``[mljobs] deployment``. Files that payloads saved stay.
        Without ``stages`` no file is removed.

        :param older_than: the minimum age of a job, or of a file without a job.
        :param stages: the stages whose files may be removed, as in ``stage_name``.
        :param schema: see :meth:`schema_of`; the whole account by default.
        :param dry_run: only report, and change nothing.
        :param task_states: returns the states of tasks. The default asks Airflow's API, which works inside a task.
        :raises InvalidJobSpecError: if this Airflow has no name, or ``older_than`` is negative.
        :raises GatewayError: if the jobs or the files can't be listed, with nothing removed. Errors with single jobs or
            files are in the report instead.
        """
        # Imported here: DAG files and triggers don't need it.
        from airflow_provider_mljobs.gateway.collector import Collector, Rules

        rules = Rules(
            airflow=deployment(),
            older_than=older_than,
            schema=schema,
            stages=tuple(dict.fromkeys(self.stage(stage) for stage in stages)),
            result_retention=result_retention(),
            dry_run=dry_run,
        )
        return Collector(self.client, rules).collect(task_states)

    def doctor(  # noqa: PLR0913 (the arguments of a task, and the probe)
        self,
        *,
        compute_pool: str | None = None,
        stage_name: str | None = None,
        external_access_integrations: Sequence[str] = (),
        image: str | None = None,
        run: bool = False,
        timeout: float = 900.0,
        report: Callable[[Finding], None] = lambda _: None,
    ) -> Sequence[Finding]:
        """Check what a job needs of the account and of this Airflow; ``airflow mljobs doctor`` prints the same.

        No check changes anything. A check that can't look is a finding, too, and never ends the others.

        :param compute_pool: the pool of the jobs.
        :param stage_name: the stage of the jobs, as in ``stage_name`` of a task.
        :param external_access_integrations: the integrations of the jobs.
        :param image: tag or image of the runtime, as in ``runtime_environment`` of a task.
        :param run: also run a probe job, which needs pool and stage; its service and files are removed afterwards.
        :param timeout: seconds for the probe job to get a node and to end.
        :param report: gets each finding as soon as it is there.
        :raises InvalidJobSpecError: if an argument is not a name.
        """
        from airflow_provider_mljobs.gateway.doctor.account import Subject
        from airflow_provider_mljobs.task.doctor import examine

        role = self._get_static_conn_params.get("role")
        subject = Subject(
            connection=self.get_conn_id(),
            user=str(self._get_static_conn_params.get("user") or ""),
            role=Identifier.parse(role, "role") if role else None,
            warehouse=self.default_warehouse,
            namespace=self.namespace,
            compute_pool=Identifier.parse(compute_pool, "compute_pool") if compute_pool else None,
            stage=self.stage(stage_name) if stage_name else None,
            external_access_integrations=tuple(
                Identifier.parse(name, "external_access_integrations") for name in external_access_integrations
            ),
            image=image,
        )
        client = MLJobClient(self.get_conn, visibility_lag=self._visibility_lag, payload_grace=0)
        with contextlib.closing(client):
            return examine(client, subject, probe_timeout=timeout if run else None, report=report)

    @classmethod
    def get_connection(cls, conn_id: str) -> Connection:
        """Return an Airflow connection."""
        with held_back():
            connection: Connection = super().get_connection(conn_id)
        return connection

    def _get_conn_params(self) -> dict[str, str | None]:
        params: dict[str, Any] = super()._get_conn_params()
        protocol = self.get_connection(self.get_conn_id()).extra_dejson.get("protocol")
        if protocol:
            params["protocol"] = protocol
        params["session_parameters"] = {
            "QUERY_TAG": shortened(self.query_tag),
            **{name.upper(): value for name, value in (params.get("session_parameters") or {}).items()},
        }
        return {"network_timeout": self._network_timeout, "login_timeout": _LOGIN_TIMEOUT_SECONDS, **params}
