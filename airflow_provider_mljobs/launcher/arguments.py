"""The arguments of the job's payload."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .codec import Decoder
from .contract import ARGUMENTS_FILE, ARGUMENTS_JSON, ARGUMENTS_PICKLE, MLJOBS_ARGS, MLRS_STAGE_RESULT_PATH
from .errors import LauncherError
from .pickles import check_python, unpickle

if TYPE_CHECKING:
    from collections.abc import MutableMapping


def read_arguments(directory: Path, environ: MutableMapping[str, str] = os.environ) -> Any:
    """Return the job's arguments as JSON: a script's texts, or the document for :func:`function_arguments`.

    No package is needed, so that pickles of another Python are refused before pip installs anything.
    """
    file = Path(environ.get(MLRS_STAGE_RESULT_PATH, ""), ARGUMENTS_FILE)
    if file.exists():
        with zipfile.ZipFile(file) as archive:
            archive.extractall(directory / "arguments")
    text = environ.pop(MLJOBS_ARGS, None)
    if text is None:
        beside = directory / "arguments" / ARGUMENTS_JSON
        if not beside.exists():
            raise LauncherError(
                f"The job's arguments are missing: neither its environment nor {file} has them. Was the file removed "
                "from the stage? Run the task again."
            )
        text = beside.read_text("utf-8")
    document = json.loads(text)
    if isinstance(document, dict) and "pickled" in document:
        names = ", ".join(repr(name) for name in dict.fromkeys(document["pickled"]["arguments"]))
        check_python(
            document["pickled"]["by"],
            f"The value of {names}",
            "Pass JSON, dates, paths, dataclasses, DataFrames or arrays, which need no pickle",
        )
    return document


def function_arguments(document: dict[str, Any], directory: Path) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a function's call."""
    if not document:
        # No arguments at all: an empty list.
        return [], {}
    args, kwargs = document["args"], document["kwargs"]
    if "names" not in document:
        return args, kwargs
    place, values = directory / "arguments", []
    if "pickled" in document:
        pickled = document["pickled"]
        values = unpickle(
            place / ARGUMENTS_PICKLE, pickled["by"], [f"Argument {name!r}" for name in pickled["arguments"]]
        )
    decoder = Decoder(place, document.get("classes", []), values)
    return (
        [decoder.read(value, name) for name, value in zip(document["names"], args)],  # noqa: B905 (Python 3.9 has no strict)
        {name: decoder.read(value, name) for name, value in kwargs.items()},
    )


def check_versions(manifest: dict[str, Any]) -> None:
    """Refuse a function that another Python pickled, before anything is installed."""
    if manifest["pickled_by"] is not None:
        check_python(
            manifest["pickled_by"],
            "The payload",
            "Let the function stand alone (imports inside, nothing of its module), so that it travels as source",
        )
