"""What came back: reads the wire format that the launcher and ``snowflake.ml.jobs`` write.

"The run failed" and "the result can't be read" are different answers. Nothing is unpickled here: a value that is no
JSON stays on the stage, and its place is the answer.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import RemoteError, ResultError
from airflow_provider_mljobs.jobs.spec import RESULT_PATH

if TYPE_CHECKING:
    from airflow_provider_mljobs.jobs.identifiers import StagePath

# Airflow keeps XComs in its database: a megabyte is written in 0.2 s, a hundred take a minute.
_MAX_INLINE = 1_000_000
# Unpaired surrogates and NUL break PostgreSQL's JSON, and with it whole Airflow components.
_UNSAFE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """The result of a job's run.

    :param success: whether the payload ended without an exception.
    :param value: its return value if that is JSON.
    :param reference: where the return value is and what it is, if it is no JSON.
    :param remote_type: class of the exception that ended the payload.
    :param message: its text.
    :param traceback: the formatted exception with what caused it, as it stands in the log.
    """

    success: bool
    value: Any = None
    reference: dict[str, Any] | None = None
    remote_type: str = ""
    message: str = ""
    traceback: str = ""

    @classmethod
    def parse(cls, text: str, directory: StagePath) -> JobResult:
        """Read the content of ``mljob_result``.

        :param directory: the stage directory in which the file lies, for the values that lie beside it.
        :raises ResultError: if the text isn't a result.
        """
        try:
            record = json.loads(text)
            if len(text) > _MAX_INLINE and record["protocol"] is None:
                # The value stays where it is: in the result file itself.
                record["protocol"] = {"name": "json", "manifest": {"path": PurePosixPath(RESULT_PATH).name}}
            return cls._of_record(record, directory)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            # Whatever the payload has written there: it runs with its submitter's rights, not with ours.
            raise ResultError(f"The result at {directory} is damaged: {type(error).__name__}: {error}.") from error

    @classmethod
    def _of_record(cls, record: dict[str, Any], directory: StagePath) -> JobResult:
        metadata, protocol = jsonb_safe(record.get("metadata") or {}), record.get("protocol")
        if not record["success"]:
            return cls._of_failure(metadata)
        if protocol is None and record.get("serialize_error"):
            raise ResultError(
                f"The job is DONE, but its return value of type {metadata.get('type')} could not be saved: "
                f"{record['serialize_error']}. Return JSON, a DataFrame or an array, or save it in the job."
            )
        if protocol is None:
            return cls(success=True, value=record.get("value"))
        return cls(success=True, reference=_reference(protocol, metadata, directory))

    @classmethod
    def _of_failure(cls, metadata: dict[str, Any]) -> JobResult:
        kind, message = str(metadata.get("type", "Exception")), str(metadata.get("message") or metadata.get("repr", ""))
        formatted = metadata.get("formatted")
        if formatted is None and metadata.get("traceback"):
            # Written by Snowflake's launcher, a result has the frames only.
            last = f"{kind.removeprefix('builtins.')}: {message}"
            formatted = f"Traceback (most recent call last):\n{metadata['traceback']}{last}"
        return cls(success=False, remote_type=kind, message=message, traceback=str(formatted or ""))

    @property
    def xcom(self) -> Any:
        """The value as XCom takes it, or the reference to it."""
        return jsonb_safe(self.value if self.reference is None else self.reference)

    def remote_error(self, job_id: str, status: str, log_tail: str) -> RemoteError:
        """Build the error that stands for the payload's own."""
        kind = self.remote_type.removeprefix("builtins.")
        message = f"Job {job_id} failed with {kind}: {self.message}"
        return RemoteError(message, job_id, status, log_tail, self.remote_type, self.traceback)


def _reference(protocol: dict[str, Any], metadata: dict[str, Any], directory: StagePath) -> dict[str, Any]:
    manifest = protocol.get("manifest") or {}
    # The manifest holds paths of the container; only the names are taken from it, never a place of its choice.
    names = [PurePosixPath(str(path)).name for path in manifest.get("paths") or [manifest.get("path", "")]]
    return {
        "stage_paths": [str(directory / name) for name in names if name],
        "protocol": protocol.get("name"),
        "version": protocol.get("version"),
        "type": metadata.get("type"),
        "repr": metadata.get("repr"),
    }


def jsonb_safe(value: Any) -> Any:
    """Return a value that Airflow's database takes: no NaN, no infinity, no NUL, no half surrogates, string keys."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _UNSAFE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {str(jsonb_safe(str(key))): jsonb_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonb_safe(item) for item in value]
    return value
