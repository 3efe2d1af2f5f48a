"""Payloads on a stage: uploaded once, shared by all jobs that run the same code, removed when no job can need them.

A payload's directory is ``payload_<digest>_<generation>/``. The digest is that of its content; the generation is the
number of the grace period of its upload. Tasks use payloads of the current and the previous period. A task removes
payloads that are three periods old if no job's COMMENT names them. So at least one whole period lies between the moment
when a task chooses a payload and the moment when another task may remove it; by then the first task's job exists and
names the payload. ARCHITECTURE.md has the full argument.
"""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    InvalidJobSpecError,
    NotFoundOrNotAuthorizedError,
    ResultError,
)
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.descriptions import directory_of
from airflow_provider_mljobs.gateway.locks import locked
from airflow_provider_mljobs.gateway.refusals import refused
from airflow_provider_mljobs.jobs.comment import TASKS_JOB, payload_of
from airflow_provider_mljobs.jobs.names import ANYWHERE, Identifier, QualifiedName
from airflow_provider_mljobs.jobs.payload.archive import ARCHIVE, PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Set as AbstractSet
    from typing import Any

    from airflow_provider_mljobs.gateway.connection import Connection
    from airflow_provider_mljobs.jobs.names import StagePath
    from airflow_provider_mljobs.jobs.payload.archive import Payload

logger = logging.getLogger(__name__)

KEPT_PREFIX = "definition_"
DEFAULT_GRACE_SECONDS = 86_400.0
# A payload of period n is used in periods n and n + 1, and may be removed from period n + 3 on.
_USABLE_PERIODS, _KEPT_PERIODS = 2, 3
_UPLOADED = re.compile(rf"(?P<directory>{PREFIX}[0-9a-f]+_(?P<generation>\d+))/{re.escape(ARCHIVE)}")
# An unshared payload has its job's name in place of a generation; names don't begin with digits.
_OWN = re.compile(rf"{PREFIX}[0-9a-f]+_\D.*")
_ARCHIVES = f".*/{ARCHIVE.replace('.', '[.]')}"
_LOOK_AGAIN_SECONDS = 0.5
# About as long as an upload takes; two at once do no harm.
LOCK_SECONDS = 120.0


class Payloads:
    """The payloads on stages.

    :param grace: the length of a period in seconds; 0 gives each job an unshared payload, which its clean-up removes.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        grace: float = DEFAULT_GRACE_SECONDS,
        clock: Callable[[], float] = time.time,
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        self._connection = connection
        self._grace = grace
        self._clock = clock
        self._lock_seconds = lock_seconds

    def upload(self, stage: StagePath, payload: Payload, job: Identifier, *, patience: float = 0.0) -> StagePath:
        """Upload a payload unless the stage has it; returns its directory.

        :param patience: seconds to leave the upload to another task with the same code.
        """
        with self._explaining(stage):
            if not self._grace:
                directory = stage / f"{PREFIX}{payload.digest}_{job.value}"
                put(self._connection, payload.archive, directory / ARCHIVE)
                return directory
            give_up = time.monotonic() + patience
            while (newest := self._newest(stage, payload)) is None and time.monotonic() < give_up:
                time.sleep(_LOOK_AGAIN_SECONDS)
            if newest is not None:
                return newest
            directory = stage / f"{PREFIX}{payload.digest}_{self._period}"
            # A task that starts at the same moment on this machine waits here, and then finds the upload.
            with locked(str(directory), f"the upload to {directory}", self._lock_seconds):
                newest = self._newest(stage, payload)
                if newest is not None:
                    return newest
                put(self._connection, payload.archive, directory / ARCHIVE)
            self.sweep(stage)
            return directory

    def keep(self, stage: StagePath, payload: Payload) -> StagePath:
        """Upload a payload that no sweep removes, unless the stage has it; returns its directory."""
        directory = stage / f"{KEPT_PREFIX}{payload.digest}"
        with self._explaining(stage):
            if not self._connection.rows(statements.list_files(directory, _ARCHIVES), most=1):
                put(self._connection, payload.archive, directory / ARCHIVE)
        return directory

    @contextlib.contextmanager
    def _explaining(self, path: StagePath) -> Iterator[None]:
        """Explain a refusal: how to create the stage, and the grants that may be missing."""
        try:
            yield
        except NotFoundOrNotAuthorizedError as error:
            stage, role = path.stage, self._connection.role
            happened = (
                f"Stage {stage} does not exist or is not authorized for role {role}. If it doesn't exist: "
                f"CREATE STAGE {stage} ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')."
            )
            raise refused(error, happened, role, (stage, stage.namespace, stage.namespace.database)) from error

    def remove_own(self, directory: StagePath) -> None:
        """Remove an unshared payload; a shared one stays until no job can need it."""
        if _OWN.fullmatch(directory.name) is not None:
            self.remove(directory)

    def sweep(self, stage: StagePath) -> list[StagePath]:
        """Remove the payloads that no job can need any more; returns their directories.

        After an error, the next sweep removes the rest.
        """
        try:
            unused = self.unused(stage)
            for directory in unused:
                self.remove(directory)
        except GatewayError as error:
            logger.warning("Could not remove old payloads from %s: %s", stage, error)
            return []
        return unused

    def unused(self, stage: StagePath, without: Collection[QualifiedName] = ()) -> list[StagePath]:
        """Return the directories of the payloads that no job can need any more.

        :param without: jobs that are about to be dropped, and so need none.
        """
        if not self._grace:
            # Payloads of other deployments may be shared, with a grace that is unknown here.
            return []
        old = [
            directory for directory, generation in self._list(stage, "") if generation <= self._period - _KEPT_PERIODS
        ]
        # Payloads are listed before jobs: a job that starts in between never uses one that old.
        named = self._named_by_jobs(without) if old else None
        return [] if named is None else [directory for directory in old if directory.name not in named]

    def remove(self, directory: StagePath) -> None:
        """Remove a payload; files that jobs saved beside it stay."""
        self._connection.rows(statements.remove(directory / ARCHIVE), most=0)

    @property
    def _period(self) -> int:
        return int(self._clock() // self._grace)

    def _newest(self, stage: StagePath, payload: Payload) -> StagePath | None:
        """Return the newest upload that jobs may still use."""
        newest = max(self._list(stage, f"{payload.digest}_"), key=lambda entry: entry[1], default=None)
        if newest is None or newest[1] <= self._period - _USABLE_PERIODS:
            return None
        return newest[0]

    def _list(self, stage: StagePath, digest: str) -> list[tuple[StagePath, int]]:
        archives = self._connection.fold(
            statements.list_files(stage / f"{PREFIX}{digest}", _ARCHIVES),
            lambda rows: [match for row in rows if (match := _UPLOADED.search(str(row["name"])))],
        )
        return [(stage / match["directory"], int(match["generation"])) for match in archives]

    def _named_by_jobs(self, without: Collection[QualifiedName]) -> set[str] | None:
        """Return the payloads that jobs name, running or not; ``None`` if the listing of jobs is incomplete."""
        # All jobs are listed, because a hook's job can have any name.
        jobs = self._connection.fold(
            statements.show_job_services(ANYWHERE, ""),
            lambda rows: [(payload_of(row["comment"]), job_of(row)) for row in rows],
        )
        if len(jobs) >= statements.MAX_ROWS:
            logger.warning("Skipped the removal of old payloads: the account has too many jobs to list them all.")
            return None
        if is_incomplete(self._connection, {job for _, job in jobs}):
            return None
        needed = [(payload, job) for payload, job in jobs if job not in without]
        return {payload for named, job in needed if (payload := self._mounted_by(job) if named is None else named)}

    def _mounted_by(self, job: QualifiedName) -> str | None:
        """Return the payload of a task's job whose COMMENT was changed, by its specification."""
        if TASKS_JOB.fullmatch(job.name.value) is None:
            return None
        try:
            rows = self._connection.rows(statements.describe_service(job))
            return directory_of(job, rows[0]).parent.name if rows else None
        except (NotFoundOrNotAuthorizedError, ResultError, InvalidJobSpecError) as error:
            logger.debug("Could not find the payload of job %s: %s", job, error)
            return None


def job_of(row: Mapping[str, Any]) -> QualifiedName:
    """Return the name of the job in a row of SHOW JOB SERVICES."""
    return QualifiedName(*(Identifier(row[part]) for part in ("database_name", "schema_name", "name")))


def is_incomplete(connection: Connection, listed: AbstractSet[QualifiedName], beginning: str = "") -> bool:
    """Check whether a listing of the account's jobs lacks one that the job history shows running or waiting.

    A listing may lack a job for a moment. If the history can't be read, the listing counts as complete.
    """
    living = map(job_of, connection.rows_or_refusal(statements.get_living_jobs())[0])
    unlisted = {job for job in living if job.name.value.startswith(beginning)} - listed
    for job in unlisted:
        logger.info(
            "Removed nothing from the stage: the listing lacks job %s, which the job history shows running.", job
        )
    return bool(unlisted)


def put(connection: Connection, content: bytes, file: StagePath) -> None:
    """Upload bytes as a file."""
    with tempfile.TemporaryDirectory(prefix="mljob-") as local:
        path = Path(local, file.name)
        path.write_bytes(content)
        connection.rows(statements.put(path, file.parent))
