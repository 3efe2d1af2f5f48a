"""Results, artifacts and referenced values on a stage.

Stage volumes upload in the background, so a file may reach the stage some seconds after its job has ended. Functions
with a ``patience`` look for it once a second for about that many seconds.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_mljobs.exceptions import (
    GatewayError,
    MissingFileError,
    NotFoundOrNotAuthorizedError,
    ResultError,
)
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.unpacked import unpacked_bytes
from airflow_provider_mljobs.jobs.outcome.results import (
    DEFAULT_MAX_XCOM_BYTES,
    MAX_SUMMARY_BYTES,
    InstanceResult,
    JobResult,
)
from airflow_provider_mljobs.jobs.values.references import StageRef
from airflow_provider_mljobs.launcher.contract import LARGE, OWN_FILES, REFERENCES_DIRECTORY, RESULT_FILE, SUMMARY_NAME
from airflow_provider_mljobs.launcher.references import load, version_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from airflow_provider_mljobs.gateway.connection import Connection
    from airflow_provider_mljobs.jobs.names import StagePath

logger = logging.getLogger(__name__)
Listing = TypeVar("Listing")

_FILE_NOT_FOUND = 253006
# A job may leave a million files; longer listings are cut.
MAX_LISTED = 10_000
_RECORDS, _MORE_RECORDS = ".*/instances/[0-9]+[.]json", 100
_OUTPUT, _, _RESULT = RESULT_FILE.rpartition("/")
# Older launchers write a result's JSON here, beside a pickle without a suffix.
_OLD_RESULT = f"{_RESULT}.json"


@dataclass(frozen=True)
class StageFile:
    """A file as LIST shows it: its path below the listed directory, its size and checksum."""

    path: str
    bytes: int
    md5: str | None


def read_result(
    connection: Connection,
    directory: StagePath,
    *,
    max_bytes: int = DEFAULT_MAX_XCOM_BYTES,
    patience: float = 0.0,
    pause: Callable[[float], None] = time.sleep,
) -> JobResult | None:
    """Return the result that the launcher wrote; ``None`` without one.

    :param max_bytes: a larger value is not downloaded; the result has a reference to it.
    :raises ResultError: if the file is no result.
    """
    output = directory / _OUTPUT

    def look() -> tuple[JobResult | None, bool]:
        # An empty file is still being uploaded.
        files = {file.path: file for file in list_directory(connection, output, "mljob_") if file.bytes}
        return _read(connection, output, files, max_bytes)

    (result, complete) = _until(look, lambda reading: reading[1], patience, pause)
    if result is not None and not complete:
        logger.warning("Some files of the result in %s are not on the stage yet.", output)
    return result


def _read(
    connection: Connection, output: StagePath, files: dict[str, StageFile], max_bytes: int
) -> tuple[JobResult | None, bool]:
    """Return the result in the listed files, and whether it is complete."""
    name = _OLD_RESULT if _OLD_RESULT in files else _RESULT
    if name not in files:
        return None, False
    # A result holds more than its value: a repr, the paths of artifacts.
    large = files[name].bytes > max_bytes + LARGE
    if large and SUMMARY_NAME not in files:
        # Snowflake's own launcher writes no summary. Errors are never this large, so this is a value.
        itself = StageRef(stage_paths=(str(output / name),), protocol="json", bytes=files[name].bytes)
        return JobResult(success=True, reference=itself), False
    file = files[SUMMARY_NAME if large else name]
    most = MAX_SUMMARY_BYTES if large else max_bytes + LARGE
    _refuse_large(output / file.path, file.bytes, most)
    with _downloaded(connection, output / file.path) as path:
        text = _decoded(path, output / file.path, most)
    result = JobResult.parse(text, output, max_xcom_bytes=max_bytes)
    if result.reference is None:
        return result, True
    sizes = [files[name].bytes for name in result.reference.names if name in files]
    if len(sizes) < len(result.reference.names):
        return result, False
    return replace(result, reference=replace(result.reference, bytes=sum(sizes))), True


def read_instances(
    connection: Connection,
    directory: StagePath,
    count: int,
    *,
    max_bytes: int = DEFAULT_MAX_XCOM_BYTES,
    patience: float = 0.0,
    pause: Callable[[float], None] = time.sleep,
) -> tuple[InstanceResult, ...]:
    """Return how each instance of a job ended; one without a record was lost.

    :raises ResultError: if a record is damaged.
    """
    place = directory / _OUTPUT / "instances"
    wanted = {f"{instance}.json" for instance in range(count)}

    def look() -> dict[str, int]:
        # Other files of the instances lie beside their records.
        listed = list_directory(connection, place, pattern=_RECORDS, most=count + _MORE_RECORDS)
        return {file.path: file.bytes for file in listed if file.bytes and file.path in wanted}

    sizes = _until(look, lambda sizes: sizes.keys() == wanted, patience, pause)
    for name, size in sizes.items():
        _refuse_large(place / name, size, MAX_SUMMARY_BYTES)
    with tempfile.TemporaryDirectory(prefix="mljob-") as local:
        if sizes:
            numbers = "|".join(sorted(name.removesuffix(".json") for name in sizes))
            connection.rows(statements.get_matching(place / "", Path(local), f".*/instances/({numbers})[.]json"))

        def record(instance: int) -> InstanceResult:
            file = Path(local, f"{instance}.json")
            text = _decoded(file, place / file.name, MAX_SUMMARY_BYTES) if file.exists() else None
            # The first instance's own files are the job's.
            own = place / str(instance) if instance else directory / _OUTPUT
            return InstanceResult.parse(instance, text, own, max_xcom_bytes=max_bytes)

        return tuple(map(record, range(count)))


def artifacts(  # noqa: PLR0913 (the wait, and the limits)
    connection: Connection,
    directory: StagePath,
    expected: Collection[tuple[str, int]] = (),
    *,
    patience: float = 0.0,
    pause: Callable[[float], None] = time.sleep,
    most: int = 1_000,
    most_listed: int = MAX_LISTED,
) -> list[dict[str, Any]]:
    """Return path, size and md5 of the files that a job saved, with paths relative to the job's directory.

    If there are more than ``most``, the first are returned, and a warning has the total.

    :param expected: path and size of the files that the launcher listed there.
    """
    is_cut = False

    def look() -> list[StageFile]:
        nonlocal is_cut
        listed = list_directory(connection, directory, most=most_listed)
        is_cut = len(listed) >= most_listed
        return [file for file in listed if not file.path.startswith(OWN_FILES)]

    def missing(files: list[StageFile]) -> set[tuple[str, int]]:
        # In a listing that is cut, a missing file may come later.
        return set() if is_cut else set(expected) - {(file.path, file.bytes) for file in files}

    files = _until(look, lambda files: not missing(files), patience, pause)
    if missing(files):
        logger.warning("%d files that the job saved in %s are not on the stage yet.", len(missing(files)), directory)
    if len(files) > most:
        saved = f"more than {len(files)}" if is_cut else str(len(files))
        logger.warning("The job has saved %s files in %s; XCom has the first %d.", saved, directory, most)
    return [{"path": file.path, "bytes": file.bytes, "md5": file.md5} for file in files[:most]]


def copy_references(connection: Connection, references: Sequence[StageRef], directory: StagePath) -> None:
    """Have Snowflake copy the files of a job's references into the job's directory on the stage.

    :raises ResultError: if a file isn't there.
    """
    for number, reference in enumerate(references):
        target = directory / REFERENCES_DIRECTORY / str(number)
        for source, names in reference.names_by_directory.items():
            rows = connection.rows(statements.copy_named_files(source, names, target))
            copied = {str(row["file"]).rpartition("/")[2] for row in rows}
            for name in names:
                if name not in copied:
                    raise _gone(source / name)


def download_reference(
    connection: Connection,
    reference: StageRef,
    directory: Path,
    *,
    max_bytes: int | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Download the files of a reference; returns their local paths. A file appears there only when it is complete.

    :raises ResultError: if a file is missing, the files exceed the limit, or one would replace another file.
    """
    for name in reference.names:
        _refuse_to_replace(directory / name, overwrite=overwrite)
    sizes = [_size(connection, file) for file in reference.paths]
    if max_bytes is not None and sum(sizes) > max_bytes:
        raise _too_large(reference, f"{sum(sizes)} bytes to download, and the limit is {max_bytes}")
    paths = []
    for file in reference.paths:
        with _downloaded(connection, file) as path:
            paths.append(_put(path, directory / file.name, overwrite=overwrite))
    return paths


def open_reference(
    connection: Connection, reference: StageRef, *, allow_pickle: bool = False, max_bytes: int | None = None
) -> Any:
    """Download the value of a reference, and load it.

    :param max_bytes: the limit for the download, and for the memory of the loaded value; ``None`` for no limit.
    :raises ResultError: if the value can't be loaded, with advice.
    """
    named = f"The value of type {reference.type} at {', '.join(reference.stage_paths)}"
    try:
        if reference.protocol == "cloudpickle":
            _refuse_pickle(reference, named, allow_pickle=allow_pickle)
        with tempfile.TemporaryDirectory(prefix="mljob-") as local:
            files = download_reference(connection, reference, Path(local), max_bytes=max_bytes)
            if max_bytes is not None:
                _refuse_larger(reference, files, max_bytes)
            if reference.protocol == "file":
                contents = [file.read_bytes() for file in files]
                return contents[0] if len(contents) == 1 else contents
            return load(reference.protocol, files, kind=reference.type or "")
    except (GatewayError, ResultError):
        raise
    except ImportError as error:
        raise ResultError(
            f"{named} needs {error.name}, which is not installed here. Install it on the workers, or pass the "
            "reference to a @task.mljob."
        ) from error
    except Exception as error:
        # Readers of these formats raise errors of any type for a damaged file.
        raise ResultError(f"{named} can't be loaded: {type(error).__name__}: {error}") from error


def list_directory(
    connection: Connection,
    directory: StagePath,
    prefix: str = "",
    *,
    pattern: str | None = None,
    most: int = MAX_LISTED,
) -> list[StageFile]:
    """Return the files in a directory of a stage whose relative path begins with a prefix, and fits a pattern."""
    rows = connection.rows(statements.list_files(directory / prefix, pattern), most=most)
    # The part before the directory's path depends on the kind of stage.
    paths = [f"/{row['name']}".partition(f"/{directory.path}/")[2] for row in rows]
    return [
        StageFile(path, int(row["size"]), None if row["md5"] is None else str(row["md5"]))
        for path, row in zip(paths, rows, strict=True)
        # Some cloud storages list directories, too.
        if not path.endswith("/")
    ]


def _until(
    look: Callable[[], Listing], is_complete: Callable[[Listing], bool], patience: float, pause: Callable[[float], None]
) -> Listing:
    """Look once a second until the files are complete or patience ends, though a look may outlast it.

    :raises MissingFileError: if the last look misses a file that the stage lists.
    :raises NotFoundOrNotAuthorizedError: if the last look is denied the stage: a single denial may be wrong.
    """
    give_up = time.monotonic() + patience
    for _ in range(math.ceil(patience)):
        with contextlib.suppress(MissingFileError, NotFoundOrNotAuthorizedError):
            files = look()
            if is_complete(files) or time.monotonic() >= give_up:
                return files
        logger.info("Some of the job's files are not on the stage yet; looking again in a second.")
        pause(1.0)
    return look()


def _refuse_pickle(reference: StageRef, named: str, *, allow_pickle: bool) -> None:
    if not allow_pickle:
        raise ResultError(
            f"{named} is a pickle. Loading it runs code from the job on this worker, with the worker's rights. Pass "
            "the reference to a @task.mljob, which loads it inside a job, or return JSON, a DataFrame or an array. If "
            "you trust every job whose values this task reads, set [mljobs] allow_pickle = True."
        )
    problem = version_problem(reference.python, reference.version)
    if problem:
        raise ResultError(
            f"{named} {problem} Run the job with the worker's Python, or return JSON, a DataFrame or an array."
        )


def _size(connection: Connection, file: StagePath) -> int:
    # LIST takes the path as a prefix and returns longer names, too.
    size = connection.fold(
        statements.list_files(file),
        lambda rows: next((int(row["size"]) for row in rows if f"/{row['name']}".endswith(f"/{file.path}")), None),
    )
    if size is None:
        raise _gone(file)
    return size


@contextlib.contextmanager
def _downloaded(connection: Connection, file: StagePath) -> Iterator[Path]:
    """Download one file to a temporary directory."""
    # The connector confuses paths and URLs; a temporary directory's name reads alike as both.
    with tempfile.TemporaryDirectory(prefix="mljob-") as local:
        try:
            # GET takes the path as a prefix; the pattern excludes longer names, in any dialect of regular expressions.
            connection.rows(statements.get_matching(file, Path(local), ".*" + re.sub(r"\W", ".", file.name)))
        except GatewayError as error:
            if error.errno != _FILE_NOT_FOUND:
                raise
            raise _gone(file) from error
        yield Path(local, file.name)


def _put(path: Path, target: Path, *, overwrite: bool) -> Path:
    """Move a file to its place atomically, also from another file system."""
    handle, part = tempfile.mkstemp(prefix=".mljob-", dir=target.parent)
    os.close(handle)
    try:
        shutil.move(path, part)
        _refuse_to_replace(target, overwrite=overwrite)
        Path(part).replace(target)
    finally:
        Path(part).unlink(missing_ok=True)
    return target


def _refuse_to_replace(target: Path, *, overwrite: bool) -> None:
    if target.is_dir() and not target.is_symlink():
        raise ResultError(f"{target} is a directory, and no file replaces a directory. Download to another directory.")
    if os.path.lexists(target) and not overwrite:
        raise ResultError(f"{target} exists already. Download to another directory, or pass overwrite=True.")


def _refuse_larger(reference: StageRef, files: Sequence[Path], max_bytes: int) -> None:
    size = unpacked_bytes(reference.protocol, files, max_bytes)
    if size > max_bytes:
        raise _too_large(reference, f"at least {size} bytes in memory, and the limit is {max_bytes}")


def _too_large(reference: StageRef, reason: str) -> ResultError:
    return ResultError(
        f"{', '.join(reference.stage_paths)}: {reason}. Pass the reference to a @task.mljob, which reads the value "
        "inside a job, or raise max_bytes."
    )


def _refuse_large(file: StagePath, size: int, most: int) -> None:
    if size > most:
        raise ResultError(
            f"{file} has {size} bytes, and the limit is {most}. The launcher writes less: the payload may have "
            "overwritten this file."
        )


def _decoded(path: Path, file: StagePath, most: int) -> str:
    # A file may have grown since it was listed.
    _refuse_large(file, path.stat().st_size, most)
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ResultError(
            f"The result at {file} is not UTF-8 text: it was not written by this provider's launcher."
        ) from error


def _gone(file: StagePath) -> MissingFileError:
    return MissingFileError(
        f"{file} is not on the stage. It was removed, or its job has just ended and is still uploading; in that case "
        "a retry finds it."
    )
