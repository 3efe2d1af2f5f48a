"""Job submission, in both of Snowflake's ways, with the same handling of errors and repeated calls."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    JobAlreadyExistsError,
    MLJobError,
    NotFoundOrNotAuthorizedError,
    SnowflakeUnavailableError,
)
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.descriptions import is_in
from airflow_provider_mljobs.gateway.downloads import copy_references
from airflow_provider_mljobs.gateway.payloads import put
from airflow_provider_mljobs.gateway.refusals import refused
from airflow_provider_mljobs.jobs.comment import Origin, is_same_job, with_payload
from airflow_provider_mljobs.jobs.outcome.sightings import pauses
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.spec.rendering import (
    SpecificationSource,
    ml_job_options,
    render,
    result_directory,
    specification,
    unsupported_overrides,
)
from airflow_provider_mljobs.launcher.contract import ARGUMENTS_FILE, INPUT_FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from airflow_provider_mljobs.gateway.connection import Connection
    from airflow_provider_mljobs.gateway.payloads import Payloads
    from airflow_provider_mljobs.gateway.runtimes import Runtimes
    from airflow_provider_mljobs.jobs.names import QualifiedName, StagePath
    from airflow_provider_mljobs.jobs.payload.sources import StageCopy
    from airflow_provider_mljobs.jobs.spec.job import JobSpec
    from airflow_provider_mljobs.jobs.values.arguments import Arguments

logger = logging.getLogger(__name__)
_START_ORDER = re.compile("resourceManagement|controlPolicy|startupOrder")
# Containers have 30 seconds to end.
_DELETING_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The submission of one job.

    :param describe: returns the row of DESCRIBE SERVICE of a job that is sure to exist, after several looks if needed.
    """

    connection: Connection
    payloads: Payloads
    runtimes: Runtimes
    spec: JobSpec
    describe: Callable[[QualifiedName], Mapping[str, Any] | None]

    def run_payload(self, payload: StagePath, arguments: Arguments, copies: Sequence[StageCopy]) -> StagePath:
        """Start a payload that lies on the stage; see :meth:`.MLJobClient.submit`."""
        directory = result_directory(self.spec, payload)
        has_files = bool(arguments.files or arguments.references or copies)
        if has_files and self._is_submitted(directory, self._describe()):
            return directory
        try:
            statement = self._statement(payload, arguments)
            if arguments.files:
                put(self.connection, arguments.archive, directory / ARGUMENTS_FILE)
            for copy in copies:
                self.connection.rows(statements.copy_files(copy.source, directory / copy.target), most=0)
            copy_references(self.connection, arguments.references, directory)
            self._start(statement, directory, lambda: self._statement(payload, arguments, has_start_order=False))
        except SnowflakeUnavailableError:
            # The job may have started and needs its files.
            raise
        except MLJobError as error:
            self.runtimes.forget()
            # The files of a job that exists already are not this one's to remove.
            if not isinstance(error, JobAlreadyExistsError):
                self._remove(payload, [directory / path for path in INPUT_FILES if has_files])
            raise
        return directory

    def run_specification(self, source: SpecificationSource) -> None:
        """Start a job from a user's service specification."""
        if source.document is not None:
            self.runtimes.check_fit(self.spec, source.document)
        self._execute(statements.execute_job_service(self.spec, source), None)

    def _statement(self, payload: StagePath, arguments: Arguments, *, has_start_order: bool = True) -> str:
        # The COMMENT names the payload, so that no other task removes it.
        spec = replace(self.spec, comment=with_payload(self.spec.comment, payload.name))
        if spec.managed:
            if unsupported := unsupported_overrides(spec.spec_overrides or {}):
                logger.warning(
                    "In the spec_overrides of a managed job Snowflake supports only secrets; these may have no effect "
                    "on job %s: %s. Set managed=False to have them in its specification.",
                    spec.name, ", ".join(unsupported),
                )  # fmt: skip
            options, job = ml_job_options(spec, payload, arguments, self.runtimes.image(spec).path)
            return statements.execute_ml_job(str(spec.name), spec.compute_pool, render(options), render(job))
        document = specification(spec, payload, arguments, self.runtimes.of(spec))
        if not has_start_order:
            document["spec"].pop("resourceManagement", None)
        return statements.execute_job_service(spec, SpecificationSource(text=render(document)))

    def _start(self, statement: str, directory: StagePath, without_start_order: Callable[[], str]) -> None:
        """Start the job; once more if Snowflake refuses the one key that isn't in its reference."""
        try:
            self._execute(statement, directory)
        except GatewayError as error:
            has_start_order = self.spec.target_instances > 1 and not self.spec.managed
            if not has_start_order or not _START_ORDER.search(error.message):
                raise
            logger.warning("Submitting job %s without a start order of its instances: %s", self.spec.name, error)
            self._execute(without_start_order(), directory)

    def _execute(self, statement: str, directory: StagePath | None) -> None:
        spec = self.spec
        try:
            self._run_when_free(statement)
        except JobAlreadyExistsError:
            if not self._is_submitted(directory, self.describe(spec.name)):
                raise
        except NotFoundOrNotAuthorizedError as error:
            happened = f"Could not submit job {spec.name}."
            raise refused(error, happened, self.connection.role, self._named_objects) from error
        except SnowflakeUnavailableError as error:
            files = f"; its files are in {directory}" if directory else ""
            raise refused(
                error,
                f"Lost the connection to Snowflake during the submit of job {spec.name}; the job may run{files}. "
                f"Check with: {statements.describe_service(spec.name)}; end it with: "
                f"{statements.drop_service(spec.name)}.",
                "",
            ) from error

    def _run_when_free(self, statement: str) -> None:
        """Start the job; wait for its name while an earlier job of that name is being deleted.

        :raises JobAlreadyExistsError: if another job has the name, or that one doesn't go.
        """
        was_deleting = False
        for pause in (*pauses(_DELETING_SECONDS), None):
            try:
                self.connection.rows(statement)
            except JobAlreadyExistsError:
                row = self._describe()
                is_free = row is None and was_deleting
                was_deleting = row is not None and JobStatus(row["status"]) is JobStatus.DELETING
                if pause is None or not (was_deleting or is_free):
                    raise
                logger.info("Job %s was dropped and is being deleted; waiting for its name.", self.spec.name)
                time.sleep(pause)
            else:
                return

    @property
    def _named_objects(self) -> tuple[object, ...]:
        """The full names of the objects that a submit names."""
        spec = self.spec
        secrets = (entry["snowflakeSecret"] for entry in spec.secrets)
        stages = () if spec.stage is None else (spec.stage.stage, spec.stage.stage.namespace)
        return (
            spec.name.namespace, spec.name.namespace.database, spec.compute_pool, *stages, spec.query_warehouse,
            *spec.external_access_integrations, *secrets,
        )  # fmt: skip

    def _describe(self) -> Mapping[str, Any] | None:
        try:
            rows = self.connection.rows(statements.describe_service(self.spec.name))
        except NotFoundOrNotAuthorizedError:
            return None
        return rows[0] if rows else None

    def _is_submitted(self, directory: StagePath | None, row: Mapping[str, Any] | None) -> bool:
        """Check whether an earlier call or try has submitted the job already.

        :param directory: the job's directory, which identifies the job even if its COMMENT was changed.
        :raises JobAlreadyExistsError: if another job has the name; its files must not be touched.
        """
        if row is None or JobStatus(row["status"]) is JobStatus.DELETING:
            return False
        comment = str(row["comment"] or "")
        if not is_same_job(self.spec.comment, comment) and not self._has_lost_comment(directory, row):
            raise JobAlreadyExistsError(
                f"Job {self.spec.name} exists and was not submitted by this task: it belongs to role {row['owner']}, "
                f"with COMMENT {comment!r}. Rename the task, or have the owner drop that job."
            )
        logger.info("Job %s was submitted by an earlier call; attaching to it.", self.spec.name)
        # The id of the statement that submitted it is unknown here.
        self.connection.query_id = None
        return True

    def _has_lost_comment(self, directory: StagePath | None, row: Mapping[str, Any]) -> bool:
        """Check whether a job has this task's directory, and a COMMENT that names no task."""
        is_of_task, names_none = Origin.parse(self.spec.comment) is not None, Origin.parse(row["comment"]) is None
        return directory is not None and is_of_task and names_none and is_in(directory, self.spec.name, row)

    def _remove(self, payload: StagePath, files: Sequence[StagePath]) -> None:
        """Remove the files of a refused submit. Only log a failure, so that the caller sees the refusal."""
        try:
            for path in files:
                self.connection.rows(statements.remove(path), most=0)
            self.payloads.remove_own(payload)
        except GatewayError as error:
            logger.warning(
                "Could not remove the files of job %s, whose submit was refused, from %s: %s",
                self.spec.name, payload, error,
            )  # fmt: skip
