"""Results of jobs: reads the wire format of the launcher and of ``snowflake.ml.jobs``.

A run that failed and a result that can't be read are different errors. Nothing is unpickled here: a value that is no
JSON stays on the stage, and the result has a reference to it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import RemoteError, ResultError, UnreadableError
from airflow_provider_mljobs.jobs.untrusted import read_json, reading
from airflow_provider_mljobs.jobs.values.portability import jsonb_safe, misfit
from airflow_provider_mljobs.jobs.values.references import StageRef
from airflow_provider_mljobs.launcher.contract import (
    LARGE,
    MAX_TEXT,
    MAX_TRACEBACK,
    RESULT_FILE,
    STOPPED,
    shorten_traceback,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_mljobs.jobs.names import StagePath

# Airflow stores XComs in its database: writing a megabyte takes 0.2 s, writing a hundred a minute.
DEFAULT_MAX_XCOM_BYTES = 1_000_000
# The parts of a result beside its value: a repr, a traceback, the paths of a thousand files.
MAX_SUMMARY_BYTES = 4_000_000
# Snowflake's launcher writes one file for each part of a value.
MAX_FILES = 1_000
# The depth of Python's JSON. XCom takes less, and gets a reference.
MAX_VALUE_DEPTH = 1_000
# Older launchers write the JSON of a result to a file with a suffix.
_RESULT = PurePosixPath(RESULT_FILE).name
_MAX_EXIT_CODE = 2**31 - 1
# Snowflake's older launchers write this in place of a value that is no JSON.
_LOST_VALUE = "Unserializable object: "


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """The result of a job.

    :param value: its return value if that is JSON.
    :param reference: a reference to the return value if it is no JSON, or JSON that XCom doesn't take.
    :param misfit: why XCom doesn't take the JSON.
    :param traceback: the formatted exception with its causes, as in the log.
    :param exit_code: the container's exit code; ``None`` if it is unknown.
    :param instance: the instance of the result; ``None`` for a job of one.
    :param git_commit: the commit that ran, if the source is a git repository.
    :param artifacts: path, in the job's directory, and size of the payload's first 1000 files.
    """

    success: bool
    value: Any = None
    reference: StageRef | None = None
    misfit: str = ""
    remote_type: str = ""
    message: str = ""
    traceback: str = ""
    exit_code: int | None = None
    instance: int | None = None
    git_commit: str | None = None
    artifacts: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, text: str, directory: StagePath, *, max_xcom_bytes: int = DEFAULT_MAX_XCOM_BYTES) -> JobResult:
        """Read the content of ``mljob_result``, or of the ``mljob_result.json`` that older launchers write.

        A value that Airflow would not give back unchanged stays on the stage, and the result has a reference to it.
        """
        limit = max(max_xcom_bytes, MAX_SUMMARY_BYTES) + LARGE
        try:
            record = read_json(text, "its text", limit=limit, depth=MAX_VALUE_DEPTH)
            with reading("its record"):
                if "kind" not in record and ("result_type" in record or "exc_type" in record):
                    result, name = cls._of_old_record(record), f"{_RESULT}.json"
                else:
                    result, name = cls._of_record(record, directory), _RESULT
                reason = misfit(result.value) or _excess(text, result.value, max_xcom_bytes)
                if not reason or not result.success or result.reference is not None:
                    return result
                protocol = {"name": "json", "manifest": {"path": name}}
                reference = _reference(protocol, jsonb_safe(record.get("metadata") or {}), directory)
                return replace(result, value=None, reference=reference, misfit=reason)
        except UnreadableError as error:
            # The payload may write any text there.
            raise ResultError(f"The result at {directory} is damaged: {error}") from error

    @classmethod
    def _of_record(cls, record: dict[str, Any], directory: StagePath) -> JobResult:
        written, protocol = record.get("metadata") or {}, record.get("protocol")
        metadata = jsonb_safe(written)
        circumstances: dict[str, Any] = {
            "exit_code": _number(written.get("exit_code")),
            "instance": _number(written.get("instance")),
            "git_commit": _text(metadata.get("git_commit")),
            "artifacts": tuple((str(path), int(size)) for path, size in metadata.get("artifacts") or ()),
        }
        if not record["success"]:
            return replace(_failure(metadata), **circumstances)
        if protocol is None and record.get("serialize_error"):
            raise ResultError(
                f"The job succeeded, but its return value of type {metadata.get('type')} could not be saved: "
                f"{record['serialize_error']}. Return JSON, a DataFrame or an array, or save the value in the job."
            )
        if protocol is None:
            return cls(success=True, value=record.get("value"), **circumstances)
        return cls(success=True, reference=_reference(protocol, metadata, directory), **circumstances)

    @classmethod
    def _of_old_record(cls, record: dict[str, Any]) -> JobResult:
        if record["success"]:
            value = record.get("result")
            if isinstance(value, str) and value.startswith(_LOST_VALUE):
                raise ResultError(
                    f"The job succeeded, but its return value of type {record.get('result_type')} is in a pickle of an "
                    "older launcher, which this provider doesn't read. Return JSON, or run the job with a newer "
                    "runtime_environment."
                )
            return cls(success=True, value=value)
        safe = jsonb_safe(record)
        message = str(safe.get("exc_value", "")).removeprefix(_LOST_VALUE)
        return _failure({"type": safe["exc_type"], "message": message, "traceback": safe.get("exc_tb")})

    @property
    def xcom(self) -> Any:
        """The value for XCom, or the reference to it."""
        return jsonb_safe(self.value if self.reference is None else self.reference.to_xcom())

    def remote_error(self, job_id: str, status: str, log_tail: str) -> RemoteError:
        """Build the error for the payload's exception."""
        where = "" if self.instance is None else f" on instance {self.instance}"
        code = "" if self.exit_code in {None, 1} else f" (exit code {self.exit_code})"
        message = f"Job {job_id} failed{where} with {self.remote_type.removeprefix('builtins.')}: {self.message}{code}"
        return RemoteError(message, job_id, status, log_tail, self.remote_type, self.traceback)


@dataclass(frozen=True, kw_only=True)
class InstanceResult:
    """The end of one instance of a job of several.

    :param exit_code: ``None`` if it was killed before it wrote a record.
    :param ended_at: the time of its end by its clock, in seconds since the epoch.
    :param result: its result, if it succeeded and has recorded one.
    """

    instance: int
    exit_code: int | None = None
    ended_at: float | None = None
    failure: JobResult | None = None
    result: JobResult | None = None

    @classmethod
    def parse(
        cls,
        instance: int,
        text: str | None,
        directory: StagePath | None = None,
        *,
        max_xcom_bytes: int = DEFAULT_MAX_XCOM_BYTES,
    ) -> InstanceResult:
        """Read the content of ``instances/<i>.json``; ``None`` if there is no such file."""
        if text is None:
            return cls(instance=instance)
        limit = MAX_SUMMARY_BYTES + LARGE
        try:
            record = read_json(text, "its text", limit=limit, depth=MAX_VALUE_DEPTH)
            with reading("it"):
                exit_code = _number(record["exit_code"])
                exception = jsonb_safe(record.get("exc"))
                failure = exception and replace(_failure(exception), exit_code=exit_code, instance=instance)
                result = None
                # Records of Snowflake's launcher hold no values.
                if exit_code == 0 and directory is not None and "success" in record:
                    result = JobResult.parse(text, directory, max_xcom_bytes=max_xcom_bytes)
                return cls(
                    instance=instance,
                    exit_code=exit_code,
                    ended_at=_moment(record.get("ended_at")),
                    failure=failure,
                    result=result,
                )
        except UnreadableError as error:
            raise ResultError(f"The record of instance {instance} is damaged: {error}") from error

    @property
    def xcom(self) -> dict[str, Any]:
        """The record for XCom."""
        value = None if self.result is None else self.result.xcom
        return {"instance": self.instance, "exit_code": self.exit_code, "value": value}


def earliest_failure(instances: Iterable[InstanceResult]) -> InstanceResult | None:
    """Return the instance that failed first by itself, else one that was lost.

    Instances that were stopped because another failed come last, even if their clocks are early.
    """

    def order(each: InstanceResult) -> tuple[bool, bool, float, int]:
        ended_at = math.inf if each.ended_at is None else each.ended_at
        return each.exit_code == STOPPED, each.exit_code is None, ended_at, each.instance

    return min((each for each in instances if each.exit_code != 0), key=order, default=None)


def _failure(metadata: dict[str, Any]) -> JobResult:
    kind = _text(metadata.get("type", "Exception")) or ""
    message = _text(metadata.get("message") or metadata.get("repr", "")) or ""
    formatted = metadata.get("formatted")
    if formatted is None and metadata.get("traceback"):
        # A result of Snowflake's launcher has the frames only.
        last = f"{kind.removeprefix('builtins.')}: {message}"
        formatted = f"Traceback (most recent call last):\n{metadata['traceback']}{last}"
    traceback = str(formatted or "")
    # A traceback that our launcher has shortened stays as it is. Snowflake's launcher shortens none.
    if len(traceback) > 2 * MAX_TRACEBACK:
        traceback = shorten_traceback(traceback)
    return JobResult(success=False, remote_type=kind, message=message, traceback=traceback)


def _excess(text: str, value: Any, max_xcom_bytes: int) -> str:
    """Return that a value is too large for XCom, as part of a sentence; empty if it isn't."""
    size = len(text) if len(text) <= max_xcom_bytes else len(json.dumps(value))
    return f"it has {size} bytes, more than {max_xcom_bytes}" if size > max_xcom_bytes else ""


def _reference(protocol: dict[str, Any], metadata: dict[str, Any], directory: StagePath) -> StageRef:
    manifest, of_protocol = protocol.get("manifest") or {}, protocol.get("metadata") or {}
    # The manifest has paths of the container. Only their names count, so that it can't refer to other places.
    paths = manifest.get("paths") or [manifest.get("path", "")]
    if len(paths) > MAX_FILES:
        raise ValueError(f"it names {len(paths)} files, more than {MAX_FILES}.")
    names = [PurePosixPath(str(path)).name for path in paths]
    return StageRef(
        stage_paths=tuple(str(directory / name) for name in names if name),
        protocol=protocol["name"],
        version=_text(protocol.get("version")),
        python=_text(of_protocol.get("python_version")),
        type=_text(metadata.get("type")),
        repr=_text(metadata.get("repr")),
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)[:MAX_TEXT]


def _number(value: Any) -> int | None:
    """Read an exit code, or the number of an instance."""
    if value is not None and (not isinstance(value, int) or abs(value) > _MAX_EXIT_CODE):
        raise ValueError(f"{value!a:.100} is no exit code, and no number of an instance")
    return value


def _moment(value: Any) -> float | None:
    if isinstance(value, str):
        return datetime.fromisoformat(value).timestamp()
    return None if value is None else float(value)
