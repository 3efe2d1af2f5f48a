"""The garbage collector: drops jobs whose task is over, and removes their files and unused payloads.

COMMENTs are untrusted. A job counts as a task's only if its name is the one that this task would have chosen. A COMMENT
names a directory but never its stage: only the caller names stages.
"""

from __future__ import annotations

import logging
import re
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import GatewayError, InvalidJobSpecError, SnowflakeUnavailableError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.collection import Collection, Item, Kind
from airflow_provider_mljobs.gateway.descriptions import origin_of
from airflow_provider_mljobs.gateway.payloads import is_incomplete, job_of
from airflow_provider_mljobs.jobs.comment import TASKS_JOB, Origin
from airflow_provider_mljobs.jobs.names import ANYWHERE, JOB_NAME_PREFIX, Identifier, Namespace
from airflow_provider_mljobs.jobs.outcome.credits import credits_per_hour
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.payload.archive import ARCHIVE, PREFIX
from airflow_provider_mljobs.launcher.contract import INPUT_FILES, OWN_FILES, RESULT_FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set as AbstractSet
    from typing import Any

    from airflow_provider_mljobs.gateway.client import MLJobClient
    from airflow_provider_mljobs.jobs.comment import TaskKey
    from airflow_provider_mljobs.jobs.names import QualifiedName, StagePath

    TaskStates = Callable[[AbstractSet[TaskKey]], Mapping[TaskKey, str | None]]

logger = logging.getLogger(__name__)

SUCCESS, GONE = "success", "gone"
FINISHED = frozenset({SUCCESS, GONE, "failed", "skipped", "upstream_failed", "removed"})
_COSTLY = frozenset({JobStatus.PENDING, JobStatus.RUNNING})
_COLUMNS = (
    "database_name", "schema_name", "name", "status", "comment", "created_on", "compute_pool", "target_instances",
)  # fmt: skip
# The characters in the names of tasks' jobs.
_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
_ARCHIVE = re.escape(ARCHIVE)
_OWN_FILE = f"(?:{'|'.join(re.escape(path) for path in OWN_FILES)}).*"
# Accounts differ in whether a pattern is matched with the stage's name or without.
_LISTED = f".*{PREFIX}[0-9a-f]+_[^/]+/(?:{_ARCHIVE}|[^/]+/{_OWN_FILE})"
_FILE = re.compile(
    rf"(?P<payload>{PREFIX}[0-9a-f]+_[^/]+)/(?:{_ARCHIVE}|(?P<job>[^/]+)/(?P<path>{_OWN_FILE}))", re.DOTALL
)
_DONE = {"drop": "dropped", "remove": "removed"}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The limits of a collection: see :meth:`.MLJobHook.collect`.

    :param result_retention: the minimum age of a dropped job's result; 0 keeps it for ever.
    """

    airflow: str
    older_than: timedelta
    schema: Namespace = ANYWHERE
    stages: tuple[StagePath, ...] = ()
    result_retention: timedelta = timedelta(0)
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Refuse rules that would collect too much."""
        if not self.airflow:
            raise InvalidJobSpecError(
                "This Airflow has no name that tells its jobs from those of another one. Set [mljobs] deployment (or "
                "[api] base_url). Jobs submitted before that are never collected."
            )
        for name in ("older_than", "result_retention"):
            if getattr(self, name) < timedelta(0):
                raise InvalidJobSpecError(f"{name} must not be negative; got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A job of a task of this Airflow."""

    name: QualifiedName
    origin: Origin
    status: JobStatus
    created: datetime
    pool: str
    nodes: int


@dataclass(frozen=True, kw_only=True)
class _File:
    """The newest of the provider's files of one kind in a directory of a stage.

    :param job: empty for a payload.
    :param path: the beginning of the paths of this kind of file; empty for a payload.
    """

    stage: StagePath
    payload: str
    job: str
    path: str
    changed: datetime

    @property
    def job_name(self) -> str:
        """The job that owns the file. The name of an unshared payload has it."""
        return self.job or self.payload.split("_", 2)[2]

    @property
    def directory(self) -> StagePath:
        """The job's directory, or the payload's."""
        payload = self.stage / self.payload
        return payload / self.job if self.job else payload


class Collector:
    """Collects the leftovers of crashes and outages."""

    def __init__(
        self,
        client: MLJobClient,
        rules: Rules,
        *,
        clock: Callable[[], float] = time.time,
        most: int = statements.MAX_ROWS,
    ) -> None:
        self._client = client
        self._rules = rules
        self._now = datetime.fromtimestamp(clock(), UTC)
        self._most = most
        self._families: dict[str, tuple[str, ...]] = {}
        self._lost: SnowflakeUnavailableError | None = None

    def collect(self, task_states: TaskStates) -> Collection:
        """Find leftovers and remove them; one failure doesn't stop the rest.

        :param task_states: returns the states of tasks; a missing task is gone. Its errors are passed on, with nothing
            removed.
        :raises GatewayError: if the jobs or the files can't be listed, with nothing removed.
        """
        # Files come before jobs, so that this list has no files of a job that starts later.
        files = [file for stage in self._rules.stages for file in self._files(stage)]
        rows, is_complete = self._rows(JOB_NAME_PREFIX)
        schema = self._rules.schema
        looked_at = [row for row in rows if schema.schema is None or job_of(row).namespace == schema]
        jobs = [
            job for row in looked_at if (job := self._job(row)) is not None and job.status is not JobStatus.DELETING
        ]
        old = [job for job in jobs if self._now - job.created > self._rules.older_than]
        states = task_states({job.origin.task for job in old}) if old else {}
        over = [
            (job, state)
            for job in old
            if (state := states.get(job.origin.task, GONE)) in FINISHED
            # A job that no task waits for outlives its task on purpose.
            and (job.origin.waits or job.status.is_terminal)
        ]
        ended = [self._end(job, str(state), files) for job, state in over]
        if files and is_complete:
            listed = {job_of(row) for row in rows}
            is_complete = not is_incomplete(self._client.connection, listed, JOB_NAME_PREFIX)
        orphans = list(self._orphans(files, {row["name"] for row in rows})) if is_complete else []
        gone = {job.name for (job, _), item in zip(over, ended, strict=True) if not item.error}
        payloads = [item for stage in self._rules.stages for item in self._payloads(stage, gone)]
        return Collection(
            items=(*ended, *orphans, *payloads),
            kept_jobs=len(jobs) - len(over),
            not_ours=len(looked_at) - len(jobs),
            is_complete=is_complete,
        )

    def _rows(self, beginning: str) -> tuple[list[dict[str, Any]], bool]:
        """List the jobs whose names begin with a text; returns their rows, and whether the list is complete.

        If one answer can't hold them all, longer beginnings are listed one by one. LIMIT … FROM continues after a name,
        so in a whole account it could skip jobs of the same name in other schemas.
        """
        # The files of a schema's jobs may lie on stages of any other schema.
        scope = ANYWHERE if self._rules.stages else self._rules.schema
        statement = statements.show_jobs_called(scope, beginning, self._most)
        page = self._client.connection.fold(
            statement, lambda rows: [{column: row[column] for column in _COLUMNS} for row in rows]
        )
        if len(page) < self._most:
            return page, True
        if all(row["name"] == beginning for row in page):
            return page, False
        # First the jobs with exactly this name, then those with longer ones.
        jobs, is_complete = [row for row in page if row["name"] == beginning], True
        for character in _CHARACTERS:
            rows, are_all = self._rows(beginning + character)
            jobs += rows
            is_complete = is_complete and are_all
        return jobs, is_complete

    def _job(self, row: Mapping[str, Any]) -> _Job | None:
        """Read a row of SHOW JOB SERVICES; ``None`` if it isn't the job of a task of this Airflow."""
        origin = Origin.parse(row["comment"]) or self._origin_without_comment(row)
        if origin is None or origin.task.airflow != self._rules.airflow or not origin.is_called(row["name"]):
            return None
        return _Job(
            name=job_of(row),
            origin=origin,
            status=JobStatus(row["status"]),
            created=row["created_on"],
            pool=str(row["compute_pool"]),
            nodes=int(row["target_instances"] or 1),
        )

    def _origin_without_comment(self, row: Mapping[str, Any]) -> Origin | None:
        """Return a job's task instance although its COMMENT was changed, if name and specification agree on one."""
        if TASKS_JOB.fullmatch(row["name"]) is None:
            return None
        job = job_of(row)
        try:
            return origin_of(self._client.describe(job), job, self._rules.airflow)
        except SnowflakeUnavailableError:
            raise
        except GatewayError as error:
            logger.warning(
                "Skipped job %s: its COMMENT names no task, and its description could not be read: %s", job, error
            )
            return None

    def _files(self, stage: StagePath) -> list[_File]:
        """List the newest of the provider's files on a stage, for each directory and kind."""
        inside = f"{stage.path}/" if stage.path else ""

        def newest(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, str], datetime]:
            changes: dict[tuple[str, str, str], datetime] = {}
            for row in rows:
                # The part before the first slash is the stage.
                path = str(row["name"]).partition("/")[2]
                match = _FILE.fullmatch(path.removeprefix(inside)) if path.startswith(inside) else None
                if match is not None:
                    kind = next((kind for kind in OWN_FILES if (match["path"] or "").startswith(kind)), "")
                    key = (match["payload"], match["job"] or "", kind)
                    changed = parsedate_to_datetime(row["last_modified"])
                    changes[key] = max(changed, changes.get(key, changed))
            return changes

        files = self._client.connection.fold(statements.list_files(stage / PREFIX, _LISTED), newest)
        return [
            _File(stage=stage, payload=payload, job=job, path=kind, changed=changed)
            for (payload, job, kind), changed in files.items()
        ]

    def _end(self, job: _Job, state: str, files: Sequence[_File]) -> Item:
        """Drop a job, and remove its files from the stages that the rules allow."""
        payload, name = job.origin.payload, job.name.name.value
        stages = {file.stage for file in files if payload and file.payload == payload and file.job in {"", name}}

        def drop() -> None:
            # A running job is dropped first: if that is refused, it keeps its input. A job that has ended is dropped
            # last, because its COMMENT leads the next collection to any files that remain.
            if not stages or not job.status.is_terminal:
                self._client.drop(job.name)
            for stage in stages:
                # The XCom of a successful task may refer to the result.
                self._client.clean_up(job.name, stage / payload / name, result=state != SUCCESS)

        item = Item(
            kind=Kind.JOB,
            name=str(job.name),
            action="drop",
            task=str(job.origin.task),
            task_state=state,
            job_status=job.status,
            created=job.created,
            credits_per_hour=self._credits(job),
        )
        return self._attempt(item, drop)

    def _orphans(self, files: Sequence[_File], existing: AbstractSet[str]) -> Iterator[Item]:
        """Remove the files of jobs that no longer exist."""
        by_directory: dict[StagePath, list[_File]] = defaultdict(list)
        for file in files:
            if TASKS_JOB.fullmatch(file.job_name) and file.job_name not in existing:
                by_directory[file.directory].append(file)
        age, retention = self._rules.older_than, self._rules.result_retention
        for directory, group in by_directory.items():
            inputs = [file for file in group if file.path.startswith(INPUT_FILES)]
            results = [file for file in group if file.path.startswith(RESULT_FILES)]
            yield from self._orphan(Kind.PAYLOAD, [file for file in group if not file.job], age, directory, [ARCHIVE])
            yield from self._orphan(Kind.INPUT, inputs, age, directory, INPUT_FILES)
            if retention:
                yield from self._orphan(Kind.RESULT, results, retention, directory, RESULT_FILES)

    def _orphan(
        self, kind: Kind, files: Sequence[_File], age: timedelta, directory: StagePath, paths: Sequence[str]
    ) -> Iterator[Item]:
        newest = max((file.changed for file in files), default=self._now)
        if self._now - newest <= age:
            return

        def remove() -> None:
            for path in paths:
                self._client.connection.rows(statements.remove(directory / path), most=0)

        yield self._attempt(Item(kind=kind, name=str(directory), action="remove", created=newest), remove)

    def _payloads(self, stage: StagePath, gone: AbstractSet[QualifiedName]) -> Iterator[Item]:
        """Remove the shared payloads that no job needs any more."""
        payloads = self._client.payloads
        try:
            unused = payloads.unused(stage, gone)
        except GatewayError as error:
            yield Item(kind=Kind.PAYLOAD, name=str(stage), action="left", error=error.message)
            return
        for directory in unused:
            item = Item(kind=Kind.PAYLOAD, name=str(directory), action="remove")
            yield self._attempt(item, partial(payloads.remove, directory))

    def _attempt(self, item: Item, work: Callable[[], None]) -> Item:
        """Do the work unless this is a dry run; returns the item with its fate."""
        if self._rules.dry_run:
            return replace(item, action=f"would {item.action}")
        try:
            if self._lost is not None:
                # Snowflake is out of reach: each statement would wait for a timeout.
                raise self._lost
            work()
        except SnowflakeUnavailableError as error:
            self._lost = error
            return replace(item, action="left", error=error.message)
        except GatewayError as error:
            return replace(item, action="left", error=error.message)
        return replace(item, action=_DONE[item.action])

    def _credits(self, job: _Job) -> float | None:
        """Return the price of a job's nodes, in credits an hour."""
        if job.status not in _COSTLY:
            return 0.0
        if job.pool not in self._families:
            try:
                self._families[job.pool] = self._families_of(Identifier(job.pool))
            except GatewayError as error:
                logger.warning("Could not find the price of compute pool %s: %s", job.pool, error)
                self._families[job.pool] = ()
        # Nothing shows on which node a job runs: the highest price counts, so that the estimate isn't too low.
        prices = [credits_per_hour(family, job.nodes) for family in self._families[job.pool]]
        listed = [price for price in prices if price is not None]
        return max(listed) if listed and len(listed) == len(prices) else None

    def _families_of(self, pool: Identifier) -> tuple[str, ...]:
        """Return the instance families of a pool's nodes."""
        rows = self._client.connection.rows(statements.show_compute_pools(pool))
        row = next((row for row in rows if row["name"] == pool.value), None)
        if row is None:
            return ()
        nodes: list[dict[str, Any]] = []
        if row.get("backup_instance_families"):
            nodes, _ = self._client.connection.rows_or_refusal(statements.show_nodes(pool))
        return tuple({str(node["instance_family"]) for node in nodes}) or (str(row["instance_family"]),)
