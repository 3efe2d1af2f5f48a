"""What jobs leave on a stage: their results, their files, and the values that references stand for.

Stage volumes upload in the background, so what a job has written may be missing for some seconds after its end. What
waits for it takes a patience: for about so many seconds it looks once a second.
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
from airflow_provider_mljobs.jobs.values.references import StageRef, collect
from airflow_provider_mljobs.launcher.contract import LARGE, OWN_FILES, RESULT_FILE, SUMMARY_NAME
from airflow_provider_mljobs.launcher.references import load, version_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from airflow_provider_mljobs.gateway.connection import Connection
    from airflow_provider_mljobs.jobs.names import StagePath

logger = logging.getLogger(__name__)
Seen = TypeVar("Seen")

_FILE_NOT_FOUND = 253006
# What is read of a directory's list: a job may leave a million files.
MAX_LISTED = 10_000
_RECORDS, _MORE_RECORDS = ".*/instances/[0-9]+[.]json", 100
_OUTPUT, _, _RESULT = RESULT_FILE.rpartition("/")
# Where older launchers write what of the result is JSON; the file without suffix is a pickle then.
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
    """Return what the launcher wrote about a run, or ``None`` if it wrote nothing.

    Example: ``read_result(connection, stage / "payload_1/MLJOB_TRAIN", patience=10)``

    :param directory: the job's own directory on the stage.
    :param max_bytes: a larger value is not downloaded; the result has a reference to it.
    :param patience: for how many seconds to wait for files that may still be on their way to the stage.
    :raises ResultError: if the file is no result.
    """
    output = directory / _OUTPUT

    def look() -> tuple[JobResult | None, bool]:
        # A file without content is one that is just being made.
        found = {file.path: file for file in list_directory(connection, output, "mljob_") if file.bytes}
        return _read(connection, output, found, max_bytes)

    (result, complete) = _until(look, lambda seen: seen[1], patience, pause)
    if result is not None and not complete:
        logger.warning("Not all files of the result in %s are on the stage yet.", output)
    return result


def _read(
    connection: Connection, output: StagePath, found: dict[str, StageFile], max_bytes: int
) -> tuple[JobResult | None, bool]:
    """Return the result that the listed files hold, and whether nothing of it is missing."""
    name = _OLD_RESULT if _OLD_RESULT in found else _RESULT
    if name not in found:
        return None, False
    # A result holds more than its value: a repr, the paths of artifacts.
    large = found[name].bytes > max_bytes + LARGE
    if large and SUMMARY_NAME not in found:
        # Snowflake's launcher writes none. A payload's error is not that large, so this is a value.
        itself = StageRef(stage_paths=(str(output / name),), protocol="json", bytes=found[name].bytes)
        return JobResult(success=True, reference=itself), False
    file = found[SUMMARY_NAME if large else name]
    most = MAX_SUMMARY_BYTES if large else max_bytes + LARGE
    _refuse_large(output / file.path, file.bytes, most)
    result = JobResult.parse(_text(connection, output / file.path, most), output, max_xcom_bytes=max_bytes)
    if result.reference is None:
        return result, True
    sizes = [found[name].bytes for name in result.reference.names if name in found]
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
    """Return how each instance of a job of several ended; one that left no record was lost.

    Example: ``earliest_failure(read_instances(connection, directory, 3, patience=10))``

    :param count: how many instances the job has.
    :param max_bytes: a larger value is a reference.
    :raises ResultError: if a record is damaged.
    """
    place = directory / _OUTPUT / "instances"
    wanted = {f"{instance}.json" for instance in range(count)}

    def look() -> dict[str, int]:
        # What the instances themselves have left lies beside their records.
        listed = list_directory(connection, place, pattern=_RECORDS, most=count + _MORE_RECORDS)
        return {file.path: file.bytes for file in listed if file.bytes and file.path in wanted}

    sizes = _until(look, lambda found: found.keys() == wanted, patience, pause)
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


def artifacts(  # noqa: PLR0913 (what to wait for, and what to read)
    connection: Connection,
    directory: StagePath,
    expected: Collection[tuple[str, int]] = (),
    *,
    patience: float = 0.0,
    pause: Callable[[float], None] = time.sleep,
    most: int = 1_000,
    most_listed: int = MAX_LISTED,
) -> list[dict[str, Any]]:
    """Return path, size and md5 of what a job has saved, the path relative to the job's directory.

    Of very many files the first are returned, and the log says how many there are.

    Example: ``artifacts(connection, directory, result.artifacts, patience=10)``

    :param directory: the job's own directory on the stage.
    :param expected: what the launcher has seen there: path and size.
    :param patience: for how many seconds to wait for these.
    :param most: the most files to return.
    :param most_listed: the most files to read of the directory's list.
    """
    is_cut = False

    def look() -> list[StageFile]:
        nonlocal is_cut
        listed = list_directory(connection, directory, most=most_listed)
        is_cut = len(listed) >= most_listed
        return [file for file in listed if not file.path.startswith(OWN_FILES)]

    def missing(found: list[StageFile]) -> set[tuple[str, int]]:
        # Of a list that is cut nothing is missing: it may stand further behind.
        return set() if is_cut else set(expected) - {(file.path, file.bytes) for file in found}

    found = _until(look, lambda found: not missing(found), patience, pause)
    if missing(found):
        logger.warning("%d files that the job saved in %s are not on the stage yet.", len(missing(found)), directory)
    if len(found) > most:
        saved = f"more than {len(found)}" if is_cut else str(len(found))
        logger.warning("The job has saved %s files in %s; XCom has the first %d.", saved, directory, most)
    return [{"path": file.path, "bytes": file.bytes, "md5": file.md5} for file in found[:most]]


def copy_references(connection: Connection, references: Sequence[StageRef], directory: StagePath) -> None:
    """Have Snowflake copy the files of a job's references into the job's own directory.

    Example: ``copy_references(connection, references_in([args, kwargs]), directory)``

    :param directory: the job's own directory on the stage.
    :raises ResultError: if a file isn't there.
    """
    for copy in collect(references):
        rows = connection.rows(statements.copy_named_files(copy.source, copy.names, directory / copy.target))
        copied = {str(row["file"]).rpartition("/")[2] for row in rows}
        for name in copy.names:
            if name not in copied:
                raise _gone(copy.source / name)


def download_reference(
    connection: Connection,
    reference: StageRef,
    directory: Path,
    *,
    max_bytes: int | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Download the files of a reference and return where they are now. A file is there when all of it is.

    Example: ``download_reference(connection, StageRef.from_xcom(ti.xcom_pull("train")), Path("/data"))``

    :param directory: an existing directory.
    :param max_bytes: the most to download; ``None`` for no limit.
    :param overwrite: whether files and links of the same names are replaced.
    :raises ResultError: if a file isn't there, all of them are larger than that, or one would replace another.
    """
    for name in reference.names:
        _refuse_to_replace(directory / name, overwrite=overwrite)
    sizes = [_size(connection, file) for file in reference.paths]
    if max_bytes is not None and sum(sizes) > max_bytes:
        raise _too_large(reference, f"{sum(sizes)} bytes, of which at most {max_bytes} may be downloaded")
    paths = []
    for file in reference.paths:
        with tempfile.TemporaryDirectory(prefix="mljob-") as local:
            path = _download(connection, file, Path(local))
            paths.append(_put(path, directory / file.name, overwrite=overwrite))
    return paths


def open_reference(
    connection: Connection, reference: StageRef, *, allow_pickle: bool = False, max_bytes: int | None = None
) -> Any:
    """Download the value that a reference stands for, and load it.

    Example: ``open_reference(connection, StageRef.from_xcom(ti.xcom_pull("train")))``

    :param allow_pickle: whether the value may be a pickle, which can run any code when it is loaded.
    :param max_bytes: the most to download, and the most that the value may take when it is read; ``None`` for no limit.
    :raises ResultError: if the value can't be loaded; the message says what to do.
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
        # The readers of these formats raise whatever they like about a damaged file.
        raise ResultError(f"{named} can't be loaded: {type(error).__name__}: {error}") from error


def list_directory(
    connection: Connection,
    directory: StagePath,
    prefix: str = "",
    *,
    pattern: str | None = None,
    most: int = MAX_LISTED,
) -> list[StageFile]:
    """Return the files below a directory of a stage whose path in it begins with a prefix.

    Example: ``[file.path for file in list_directory(connection, stage / "payload_1/MLJOB_TRAIN")]``

    :param pattern: only files whose whole path fits it.
    :param most: how many files to read of a longer list.
    """
    rows = connection.rows(statements.list_files(directory / prefix, pattern), most=most)
    # What stands before the path depends on the kind of stage.
    paths = [f"/{row['name']}".partition(f"/{directory.path}/")[2] for row in rows]
    return [
        StageFile(path, int(row["size"]), None if row["md5"] is None else str(row["md5"]))
        for path, row in zip(paths, rows, strict=True)
        # Some stores list directories, too.
        if not path.endswith("/")
    ]


def _until(
    look: Callable[[], Seen], is_complete: Callable[[Seen], bool], patience: float, pause: Callable[[float], None]
) -> Seen:
    """Look once a second until all is there, or patience has ended; a look may take longer than that.

    :raises MissingFileError: if the last look misses a file that the stage lists.
    :raises NotFoundOrNotAuthorizedError: if the last look is denied the stage: one denial doesn't say that it is gone.
    """
    give_up = time.monotonic() + patience
    for _ in range(math.ceil(patience)):
        with contextlib.suppress(MissingFileError, NotFoundOrNotAuthorizedError):
            seen = look()
            if is_complete(seen) or time.monotonic() >= give_up:
                return seen
        logger.info("Some of a job's files are not on the stage yet; looking again.")
        pause(1.0)
    return look()


def _refuse_pickle(reference: StageRef, named: str, *, allow_pickle: bool) -> None:
    if not allow_pickle:
        raise ResultError(
            f"{named} is a pickle: to load it is to run code that the job has written, on this worker and with its "
            "rights. Pass the reference to a @task.mljob, which loads it inside a job, or return JSON, a DataFrame or "
            "an array. If every job that this task gets a value from may be trusted so far, set [mljobs] "
            "allow_pickle = True."
        )
    problem = version_problem(reference.python, reference.version)
    if problem:
        raise ResultError(
            f"{named} {problem} Run the job with the worker's Python, or return JSON, a DataFrame or an array."
        )


def _size(connection: Connection, file: StagePath) -> int:
    # The path is a prefix: it finds longer names, too.
    size = connection.fold(
        statements.list_files(file),
        lambda rows: next((int(row["size"]) for row in rows if f"/{row['name']}".endswith(f"/{file.path}")), None),
    )
    if size is None:
        raise _gone(file)
    return size


def _download(connection: Connection, file: StagePath, directory: Path) -> Path:
    # By way of a directory whose name means the same as a path and as a URL: the connector takes one for the other.
    with tempfile.TemporaryDirectory(prefix="mljob-") as local:
        try:
            # The path is a prefix: the pattern keeps longer names out. What is in it means the same in every dialect.
            connection.rows(statements.get_matching(file, Path(local), ".*" + re.sub(r"\W", ".", file.name)))
        except GatewayError as error:
            if error.errno != _FILE_NOT_FOUND:
                raise
            raise _gone(file) from error
        return Path(shutil.move(Path(local, file.name), directory / file.name))


def _put(path: Path, target: Path, *, overwrite: bool) -> Path:
    """Move a file to its place in one step, from another file system, too."""
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
        raise ResultError(f"{target} is a directory, which no file replaces. Download to another one.")
    if os.path.lexists(target) and not overwrite:
        raise ResultError(f"{target} exists already. Download to another directory, or pass overwrite=True.")


def _refuse_larger(reference: StageRef, files: Sequence[Path], max_bytes: int) -> None:
    size = unpacked_bytes(reference.protocol, files, max_bytes)
    if size > max_bytes:
        raise _too_large(reference, f"at least {size} bytes once it is read, of which at most {max_bytes} are allowed")


def _too_large(reference: StageRef, reason: str) -> ResultError:
    return ResultError(
        f"{', '.join(reference.stage_paths)}: {reason}. Pass the reference to a @task.mljob, which gets the value "
        "without the worker, or raise max_bytes."
    )


def _text(connection: Connection, file: StagePath, most: int) -> str:
    with tempfile.TemporaryDirectory(prefix="mljob-") as local:
        return _decoded(_download(connection, file, Path(local)), file, most)


def _refuse_large(file: StagePath, size: int, most: int) -> None:
    if size > most:
        raise ResultError(
            f"{file} has {size} bytes, of which at most {most} are read. The job itself writes less; something in it "
            "has written there."
        )


def _decoded(path: Path, file: StagePath, most: int) -> str:
    # A file may have grown since it was listed.
    _refuse_large(file, path.stat().st_size, most)
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ResultError(f"The result at {file} is no text; was it written by another launcher?") from error


def _gone(file: StagePath) -> MissingFileError:
    return MissingFileError(
        f"{file} is not on the stage. Somebody has removed it, or the job that wrote it ended a moment ago and its "
        "volume is still uploading: then a retry finds it."
    )
