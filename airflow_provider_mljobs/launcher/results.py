"""Writes the result where ``snowflake.ml.jobs`` looks for it, in its wire format.

Keys beyond that format stand in ``metadata``, where its readers pass over them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .contract import (
    LARGE,
    MAX_TEXT,
    MLRS_RESULT_PATH,
    MLRS_STAGE_MOUNT_PATH,
    MLRS_STAGE_RESULT_PATH,
    OWN_FILES,
    RESULT_FILE,
    SUMMARY_NAME,
    shorten_traceback,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_ARTIFACTS = 1_000


def result_path() -> Path:
    """Return where the job's result goes."""
    root = os.environ.get(MLRS_STAGE_RESULT_PATH) or os.environ.get(MLRS_STAGE_MOUNT_PATH, "")
    return Path(root, os.environ.get(MLRS_RESULT_PATH, RESULT_FILE))


def write_result(
    value: Any, *, success: bool, exit_code: int | None = None, path: Path | None = None
) -> dict[str, Any]:
    """Write ``mljob_result`` and, for what is no JSON, the file beside it; return what it says, without a large value.

    The run is over: a value that can't be saved is reported in the result and doesn't turn success into failure.

    :param value: what the payload returned, or the exception that ended it.
    :param exit_code: what the container ends with; 0 or 1 by default, as it succeeded or not.
    :param path: where to; the job's result by default.
    """
    path = path or result_path()
    result: dict[str, Any] = {
        "kind": "result",
        "success": success,
        "value": None,
        "protocol": None,
        "metadata": {**describe(value), **circumstances(int(not success) if exit_code is None else exit_code)},
        "serialize_error": None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    if success:
        try:
            result["value"] = json.loads(json.dumps(value, default=plain))
        except (TypeError, ValueError, RecursionError):
            try:
                result["protocol"] = save(value, path.parent)
            except Exception as error:  # noqa: BLE001 (any pickle error; it is the result's to report)
                result["serialize_error"] = repr(error)
    text, summary = json.dumps(result), result
    if len(text) > LARGE:
        elsewhere = {"name": "json", "version": None, "metadata": None, "manifest": {"path": str(path)}}
        summary = {**result, "value": None, "protocol": result["protocol"] or elsewhere}
        path.with_name(SUMMARY_NAME).write_text(json.dumps(summary), "utf-8")
    # One write: a stage volume takes no appends, and a reader must not see half a result.
    path.write_text(text, "utf-8")
    return summary


def plain(value: Any) -> Any:
    """Turn a scalar of numpy (or alike) into Python's; anything else is no JSON."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    raise TypeError(type(value).__name__)


def describe(value: Any) -> dict[str, Any]:
    """Say what a value is, for readers that can't or won't load it."""
    kind = type(value)
    described = {"type": f"{kind.__module__}.{kind.__qualname__}", "repr": short(value)}
    if isinstance(value, BaseException):
        described["message"] = short(value, str)
        described["traceback"] = shorten_traceback("".join(traceback.format_tb(value.__traceback__)))
        # Snowflake's client makes do with the frames; this is what the log shows: causes, groups and notes, too.
        described["formatted"] = shorten_traceback(
            "".join(traceback.format_exception(kind, value, value.__traceback__))
        )
    return described


def circumstances(exit_code: int) -> dict[str, Any]:
    """Say how and where the run ended, what code it ran, and what it has saved."""
    known: dict[str, Any] = {"exit_code": exit_code}
    # Only the instances of a job of several are numbered.
    index = os.environ.get("SNOWFLAKE_JOB_INDEX", "")
    if index.isdecimal():
        known["instance"] = int(index)
    if os.environ.get("MLJOBS_GIT_COMMIT"):
        known["git_commit"] = os.environ["MLJOBS_GIT_COMMIT"]
    if os.environ.get(MLRS_STAGE_RESULT_PATH):
        saved = list(artifacts(Path(os.environ[MLRS_STAGE_RESULT_PATH])))
        known["artifacts"] = saved[:MAX_ARTIFACTS]
        known["artifacts_total"] = len(saved)
    return known


def artifacts(root: Path) -> Iterator[tuple[str, int]]:
    """Yield path and size of each file that the payload has saved in the job's directory."""
    for directory, subdirectories, names in os.walk(root):
        subdirectories.sort()
        for file in (Path(directory, name) for name in sorted(names)):
            path = file.relative_to(root).as_posix()
            # A process that the payload has left behind may still remove its files.
            if not path.startswith(OWN_FILES) and file.is_file() and not file.is_symlink():
                with contextlib.suppress(FileNotFoundError):
                    yield path, file.stat().st_size


def short(value: Any, write: Callable[[Any], str] = repr) -> str:
    """Return the value's repr, cut: a frame of a million rows has a long one."""
    try:
        text = write(value)
    except Exception as error:  # noqa: BLE001 (a user's __repr__ may raise anything)
        text = f"<{write.__name__} of {type(value).__name__} raised {type(error).__name__}>"
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def save(value: Any, directory: Path) -> dict[str, Any]:
    """Write a value that is no JSON in the first format that fits: Parquet, npy, cloudpickle."""
    kind = type(value)
    writer = WRITERS.get((kind.__module__.partition(".")[0], kind.__name__))
    if writer is not None:
        # Not every value of these types fits its format, e.g. columns of mixed types; those go the general way.
        with contextlib.suppress(ImportError, TypeError, ValueError, NotImplementedError):
            return writer(value, directory)
    import cloudpickle

    with created(directory / "mljob_extra.pkl") as file:
        cloudpickle.dump(value, file)
    return protocol("cloudpickle", {"path": str(directory / "mljob_extra.pkl")})


def save_frame(value: Any, directory: Path) -> dict[str, Any]:
    """Write a DataFrame."""
    importlib.import_module("pyarrow")
    with created(directory / "mljob_extra_0.parquet") as file:
        value.to_parquet(file, engine="pyarrow")
    return protocol("pandas", {"paths": [str(directory / "mljob_extra_0.parquet")]})


def save_series(value: Any, directory: Path) -> dict[str, Any]:
    """Write a Series as a frame of one column, which other readers take for a frame; ours go by the result's type."""
    if value.name is not None and not isinstance(value.name, str):
        raise TypeError(value.name)
    return save_frame(value.to_frame(), directory)


def save_table(value: Any, directory: Path) -> dict[str, Any]:
    """Write an Arrow table."""
    import pyarrow.parquet

    with created(directory / "mljob_extra_0.parquet") as file:
        pyarrow.parquet.write_table(value, file)
    return protocol("pyarrow", {"paths": [str(directory / "mljob_extra_0.parquet")]})


def save_array(value: Any, directory: Path) -> dict[str, Any]:
    """Write an array; one of objects would be a pickle."""
    import numpy  # noqa: ICN001 (the value is one of its arrays)

    if value.dtype.hasobject:
        raise TypeError(value.dtype)
    with created(directory / "mljob_extra.npy") as file:
        numpy.save(file, value, allow_pickle=False)
    return protocol("numpy", {"path": str(directory / "mljob_extra.npy")})


WRITERS: dict[tuple[str, str], Callable[[Any, Path], dict[str, Any]]] = {
    ("pandas", "DataFrame"): save_frame,
    ("pandas", "Series"): save_series,
    ("pyarrow", "Table"): save_table,
    ("numpy", "ndarray"): save_array,
}


@contextlib.contextmanager
def created(path: Path) -> Iterator[Any]:
    """Open a new file of a stage volume; nothing of it is left if it can't be written."""
    # A stage volume may leave a file empty that is created and written in one go; so does Snowflake's client.
    path.touch()
    try:
        with path.open("wb") as file:
            yield file
    except BaseException:
        path.unlink()
        raise


def protocol(name: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Describe how a value was saved."""
    metadata = {"python_version": "{}.{}".format(*sys.version_info)} if name == "cloudpickle" else None
    version = cast("Any", sys.modules[name]).__version__
    return {"name": name, "version": version, "metadata": metadata, "manifest": manifest}
