"""Pickles of the worker, checked before they are loaded."""

from __future__ import annotations

import importlib
import pickle
import sys
from typing import TYPE_CHECKING, Any

from .errors import LauncherError

if TYPE_CHECKING:
    from pathlib import Path


def check_python(pickled_by: dict[str, str], subject: str, instead: str) -> None:
    """Refuse a pickle of another Python, with the fix instead of an error from within pickle."""
    running = "{}.{}".format(*sys.version_info)
    if pickled_by["python"] != running:
        raise LauncherError(
            f"{subject} was pickled by Python {pickled_by['python']}, this container runs Python {running}. {instead}, "
            f"or choose a runtime_environment with Python {pickled_by['python']}."
        )


def unpickle(path: Path, pickled_by: dict[str, str], subjects: list[str]) -> list[Any]:
    """Load the values that the worker pickled for this job."""
    check_cloudpickle(pickled_by["cloudpickle"])
    values = []
    with path.open("rb") as file:
        unpickler = pickle.Unpickler(file)  # noqa: S301 (written by this job's worker)
        for name in subjects:
            try:
                values.append(unpickler.load())
            except (ImportError, AttributeError) as error:
                raise LauncherError(
                    f"{name} was pickled and can't be loaded in this container: {error}. Add its package to "
                    "pip_requirements, in the version of the Airflow worker."
                ) from error
    return values


def check_cloudpickle(wanted: str) -> None:
    """Refuse pickles of a newer cloudpickle than this container's, or any pickle if the container has none."""
    try:
        installed = str(importlib.import_module("cloudpickle").__version__)
    except ImportError as error:
        raise LauncherError(
            f"The payload was pickled, but this container has no cloudpickle: add 'cloudpickle=={wanted}' to "
            "pip_requirements."
        ) from error
    if int(installed.partition(".")[0]) < int(wanted.partition(".")[0]):
        raise LauncherError(
            f"The payload was pickled by cloudpickle {wanted}, this container has {installed}: add "
            f"'cloudpickle=={wanted}' to pip_requirements."
        )
