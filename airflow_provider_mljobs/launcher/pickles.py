"""Pickles of the job's submitter: whether this container can read them is known before it tries."""

from __future__ import annotations

import importlib
import pickle
import sys
from typing import TYPE_CHECKING, Any

from .errors import LauncherError

if TYPE_CHECKING:
    from pathlib import Path


def check_python(pickled_by: dict[str, str], what: str, instead: str) -> None:
    """Refuse what another Python has pickled, with the fix instead of an error from within pickle.

    :param pickled_by: the versions of Python and cloudpickle that wrote it.
    :param what: what was pickled.
    :param instead: how to do without a pickle.
    """
    running = "{}.{}".format(*sys.version_info)
    if pickled_by["python"] != running:
        raise LauncherError(
            f"{what} was pickled by Python {pickled_by['python']}, this container runs Python {running}. {instead}, "
            f"or choose a runtime_environment with Python {pickled_by['python']}."
        )


def unpickle(path: Path, pickled_by: dict[str, str], what: list[str]) -> list[Any]:
    """Load what the submitter of this very job has pickled.

    :param what: what each of the values is, for messages.
    """
    check_cloudpickle(pickled_by["cloudpickle"])
    values = []
    with path.open("rb") as file:
        unpickler = pickle.Unpickler(file)  # noqa: S301 (as above)
        for name in what:
            try:
                values.append(unpickler.load())
            except (ImportError, AttributeError) as error:
                raise LauncherError(
                    f"{name} was pickled and needs what this container doesn't have: {error}. Add the package that "
                    "has it to pip_requirements, in the version that the Airflow worker has."
                ) from error
    return values


def check_cloudpickle(wanted: str) -> None:
    """Refuse pickles of a newer cloudpickle than this container's, or of any where there is none."""
    try:
        here = str(importlib.import_module("cloudpickle").__version__)
    except ImportError as error:
        raise LauncherError(
            f"The payload was pickled, but this container has no cloudpickle: add 'cloudpickle=={wanted}' to "
            "pip_requirements."
        ) from error
    if int(here.partition(".")[0]) < int(wanted.partition(".")[0]):
        raise LauncherError(
            f"The payload was pickled by cloudpickle {wanted}, this container has {here}: add 'cloudpickle=={wanted}' "
            "to pip_requirements."
        )
