"""Pickles by value, for functions and values that need one; the job needs the same Python to read them."""

from __future__ import annotations

import contextlib
import functools
import platform
import sys
import sysconfig
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

# Each payload brings them, wherever they are installed here.
_INSIDE = {"airflow_provider_mljobs", "airflow_provider_mljobs.report"}


def pickled_by() -> dict[str, str]:
    """Return the versions of Python and cloudpickle here, which the job compares with its own."""
    import cloudpickle

    return {"python": python_version(), "cloudpickle": cloudpickle.__version__}


def python_version() -> str:
    """Return the worker's Python, e.g. ``3.11``: pickles need the same in the job."""
    return ".".join(platform.python_version_tuple()[:2])


@contextlib.contextmanager
def by_value(function: Callable[..., Any], importable: Collection[str] = ()) -> Iterator[None]:
    """Pickle definitions of the function's module, and of others that only Airflow has, by value."""
    import cloudpickle

    while isinstance(function, functools.partial):
        function = function.func
    registered = cloudpickle.list_registry_pickle_by_value()
    own = getattr(function, "__module__", None)
    modules = [
        module
        for name, module in list(sys.modules.items())
        if (name == own or not is_available(module, importable)) and name not in registered and module.__name__ == name
    ]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def is_available(module: Any, importable: Collection[str] = ()) -> bool:
    """Return whether the job has a module: it comes with Python or a distribution, or travels with the payload.

    Other modules are in the DAG folder or in a source tree, which the job doesn't have.
    """
    name = getattr(module, "__name__", "")
    if name in _INSIDE or any(name == other or name.startswith(f"{other}.") for other in importable):
        return True
    # A package without an __init__.py has a path but no file; a built-in module has neither.
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    place = next((str(place) for place in places if place), None)
    return (
        place is None
        or not {"site-packages", "dist-packages"}.isdisjoint(PurePath(place).parts)
        or place.startswith(sysconfig.get_path("stdlib"))
    )
