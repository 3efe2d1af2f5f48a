"""Writes the result where ``snowflake.ml.jobs`` looks for it, in its wire format.

Additional keys are in ``metadata``, where its readers ignore them.
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
    """Return the path of the job's result."""
    root = os.environ.get(MLRS_STAGE_RESULT_PATH) or os.environ.get(MLRS_STAGE_MOUNT_PATH, "")
    return Path(root, os.environ.get(MLRS_RESULT_PATH, RESULT_FILE))


def write_result(
    value: Any, *, success: bool, exit_code: int | None = None, path: Path | None = None
) -> dict[str, Any]:
    """Write ``mljob_result``, and a file beside it for a value that is no JSON; return the result, but no large value.

    The run is over: a value that can't be saved is reported in the result and doesn't turn success into failure.
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
            except Exception as error:  # noqa: BLE001 (pickle raises any error; the result reports it)
                result["serialize_error"] = repr(error)
    text, summary = json.dumps(result), result
    if len(text) > LARGE:
        in_result = {"name": "json", "version": None, "metadata": None, "manifest": {"path": str(path)}}
        summary = {**result, "value": None, "protocol": result["protocol"] or in_result}
        path.with_name(SUMMARY_NAME).write_text(json.dumps(summary), "utf-8")
    # One write: a stage volume takes no appends, and a reader must not see half a result.
    path.write_text(text, "utf-8")
    return summary


def plain(value: Any) -> Any:
    """Return a scalar of numpy or torch as a Python number; anything else is no JSON."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    raise TypeError(type(value).__name__)


def describe(value: Any) -> dict[str, Any]:
    """Describe a value for readers that don't load it."""
    kind = type(value)
    described = {"type": f"{kind.__module__}.{kind.__qualname__}", "repr": short(value)}
    if isinstance(value, BaseException):
        described["message"] = short(value, str)
        described["traceback"] = shorten_traceback("".join(traceback.format_tb(value.__traceback__)))
        # Snowflake's client reads the frames only; the log also shows causes, groups and notes.
        described["formatted"] = shorten_traceback(
            "".join(traceback.format_exception(kind, value, value.__traceback__))
        )
    return described


def circumstances(exit_code: int) -> dict[str, Any]:
    """Describe the end of the run: exit code, instance, commit, saved files."""
    facts: dict[str, Any] = {"exit_code": exit_code}
    # The platform numbers only the instances of a job of several.
    index = os.environ.get("SNOWFLAKE_JOB_INDEX", "")
    if index.isdecimal():
        facts["instance"] = int(index)
    if os.environ.get("MLJOBS_GIT_COMMIT"):
        facts["git_commit"] = os.environ["MLJOBS_GIT_COMMIT"]
    if os.environ.get(MLRS_STAGE_RESULT_PATH):
        saved = list(artifacts(Path(os.environ[MLRS_STAGE_RESULT_PATH])))
        facts["artifacts"] = saved[:MAX_ARTIFACTS]
        facts["artifacts_total"] = len(saved)
    return facts


def artifacts(root: Path) -> Iterator[tuple[str, int]]:
    """Yield path and size of each file that the payload saved in the job's directory."""
    for directory, subdirectories, names in os.walk(root):
        subdirectories.sort()
        for file in (Path(directory, name) for name in sorted(names)):
            path = file.relative_to(root).as_posix()
            # A process that outlives the payload may remove its files meanwhile.
            if not path.startswith(OWN_FILES) and file.is_file() and not file.is_symlink():
                with contextlib.suppress(FileNotFoundError):
                    yield path, file.stat().st_size


def short(value: Any, write: Callable[[Any], str] = repr) -> str:
    """Return the value's repr, cut after 10 000 characters."""
    try:
        text = write(value)
    except Exception as error:  # noqa: BLE001 (a user's __repr__ may raise anything)
        text = f"<{write.__name__} of {type(value).__name__} raised {type(error).__name__}>"
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def save(value: Any, directory: Path) -> dict[str, Any]:
    """Write a value that is no JSON in the first format that holds it: Parquet, npy, cloudpickle."""
    kind = type(value)
    writer = WRITERS.get((kind.__module__.partition(".")[0], kind.__name__))
    if writer is not None:
        # A format doesn't hold every value of its type, e.g. columns of mixed types; those are pickled.
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
    """Write a Series as a frame of one column. Our readers restore it by the result's type, others read a frame."""
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
    """Write an array, but none of Python objects, which would be a pickle."""
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
    """Open a new file of a stage volume, and remove it if it can't be written."""
    # A stage volume may keep a file empty that is created and written at once; Snowflake's client does the same.
    path.touch()
    try:
        with path.open("wb") as file:
            yield file
    except BaseException:
        path.unlink()
        raise


def protocol(name: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Describe the files of a value."""
    metadata = {"python_version": "{}.{}".format(*sys.version_info)} if name == "cloudpickle" else None
    version = cast("Any", sys.modules[name]).__version__
    return {"name": name, "version": version, "metadata": metadata, "manifest": manifest}
