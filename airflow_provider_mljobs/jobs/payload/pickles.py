"""Pickles by value, for what neither source nor JSON can say; the job needs the same Python to read them."""

from __future__ import annotations

import contextlib
import functools
import io
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
    """Say who pickles here: what the job needs to read it."""
    import cloudpickle

    return {"python": python_version(), "cloudpickle": cloudpickle.__version__}


def python_version() -> str:
    """Return the Python that pickles what can't travel as source, e.g. ``3.11``."""
    return ".".join(platform.python_version_tuple()[:2])


class Pickler:
    """Writes values one after the other, for one unpickler: what they share stays shared."""

    def __init__(self) -> None:
        import cloudpickle

        self._file = io.BytesIO()
        self._pickler = cloudpickle.Pickler(self._file)

    def dump(self, value: Any) -> None:
        """Add a value; whatever its ``__reduce__`` raises is raised."""
        self._pickler.dump(value)

    @property
    def size(self) -> int:
        """How many bytes have been written."""
        return self._file.tell()

    @property
    def content(self) -> bytes:
        """What has been written."""
        return self._file.getvalue()


@contextlib.contextmanager
def by_value(function: Callable[..., Any], importable: Collection[str] = ()) -> Iterator[None]:
    """Let what is defined in the function's module, and in others that only Airflow has, be pickled by value."""
    import cloudpickle

    while isinstance(function, functools.partial):
        function = function.func
    known = cloudpickle.list_registry_pickle_by_value()
    own = getattr(function, "__module__", None)
    modules = [
        module
        for name, module in list(sys.modules.items())
        if (name == own or not is_available(module, importable)) and name not in known and module.__name__ == name
    ]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def is_available(module: Any, importable: Collection[str] = ()) -> bool:
    """Tell whether the job may have a module: it came with Python or a distribution, or travels with the payload.

    Others lie in the DAG folder or in a source tree, which the job has not.

    :param importable: names of modules and packages that travel with the payload.
    """
    name = getattr(module, "__name__", "")
    if name in _INSIDE or any(name == given or name.startswith(f"{given}.") for given in importable):
        return True
    # A package without an __init__.py has a path but no file; a built-in module has neither.
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    place = next((str(place) for place in places if place), None)
    return (
        place is None
        or not {"site-packages", "dist-packages"}.isdisjoint(PurePath(place).parts)
        or place.startswith(sysconfig.get_path("stdlib"))
    )
