"""Loads the values that earlier jobs saved on a stage.

The container loads those among its arguments, the provider those of a task that opens a reference.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .contract import MLRS_STAGE_RESULT_PATH, REFERENCES_DIRECTORY
from .errors import LauncherError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def load_reference(entry: dict[str, Any], argument: str) -> Any:
    """Return the value of a reference among the arguments.

    :param entry: its JSON: ``n``, ``protocol``, ``names`` and, if recorded, ``type``, ``version`` and ``python``.
    :param argument: the name of the argument, for messages.
    """
    place = Path(os.environ[MLRS_STAGE_RESULT_PATH], REFERENCES_DIRECTORY, str(entry["n"]))
    files = [place / name for name in entry["names"]]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise LauncherError(
            f"{argument}: {', '.join(missing)} is missing in {place}. The files it refers to were removed from their "
            "stage; run the task that returned it again."
        )
    try:
        if entry["protocol"] == "cloudpickle":
            problem = version_problem(entry.get("python"), entry.get("version"))
            if problem:
                raise LauncherError(
                    f"{argument} {problem} Run both jobs with the same runtime_environment, or return "
                    "JSON, a DataFrame or an array from the first."
                )
        return load(entry["protocol"], files, kind=entry.get("type") or "")
    except ImportError as error:
        raise LauncherError(
            f"{argument} is a value of type {entry.get('type')}, which this container can't load ({error}): add its "
            "package to pip_requirements."
        ) from error


def load(protocol: str, files: Sequence[Path], *, kind: str = "") -> Any:
    """Read a value from its files."""
    if protocol not in READERS:
        raise ValueError(f"protocol {protocol!r} is unknown; choose from {', '.join(sorted(READERS))}")
    value = READERS[protocol](files)
    if protocol == "pandas" and kind.endswith("Series"):
        series = value.iloc[:, 0]
        return series.rename(None) if series.name == 0 else series
    return value


def version_problem(python: str | None, cloudpickle_version: str | None) -> str:
    """Return why this interpreter can't load a pickle, without loading it; an empty text if it can."""
    running = "{}.{}".format(*sys.version_info)
    if python is not None and python != running:
        return f"was pickled by Python {python}; this is Python {running}."
    import cloudpickle

    installed = str(cloudpickle.__version__)
    if cloudpickle_version is not None and installed.partition(".")[0] != cloudpickle_version.partition(".")[0]:
        return f"was pickled by cloudpickle {cloudpickle_version}; here is {installed}."
    return ""


def read_frame(files: Sequence[Path]) -> Any:
    """Read a DataFrame."""
    import pandas  # noqa: ICN001 (the protocol's name)

    frames = [pandas.read_parquet(file, engine="pyarrow") for file in files]
    return pandas.concat(frames) if len(frames) > 1 else frames[0]


def read_table(files: Sequence[Path]) -> Any:
    """Read an Arrow table."""
    import pyarrow.parquet

    return pyarrow.concat_tables([pyarrow.parquet.read_table(file) for file in files])


def read_array(files: Sequence[Path]) -> Any:
    """Read an array, but no pickled one."""
    import numpy  # noqa: ICN001 (the protocol's name)

    return numpy.load(files[0], allow_pickle=False)


def read_json(files: Sequence[Path]) -> Any:
    """Read a value from its result file, also from one of an older launcher."""
    document = json.loads(files[0].read_text("utf-8"))
    return document["value"] if "value" in document else document["result"]


def read_pickle(files: Sequence[Path]) -> Any:
    """Unpickle."""
    import cloudpickle

    return unpacked(cloudpickle.loads(files[0].read_bytes()))


def unpacked(value: Any) -> Any:
    """Undo the form in which Snowflake's launcher pickles lists and tuples: ``{"type@": list, "#0": …}``."""
    if type(value) is not dict:
        return value
    items = {key: unpacked(item) for key, item in value.items() if key != "type@"}
    if value.get("type@") in (list, tuple):
        return value["type@"](items[f"#{index}"] for index in range(len(items)))
    return items


def read_file(files: Sequence[Path]) -> Any:
    """Return the path of the file, or the paths of the files."""
    return files[0] if len(files) == 1 else list(files)


READERS: dict[str, Callable[[Sequence[Path]], Any]] = {
    "pandas": read_frame,
    "pyarrow": read_table,
    "numpy": read_array,
    "json": read_json,
    "cloudpickle": read_pickle,
    "file": read_file,
}
