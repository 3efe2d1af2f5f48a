"""A function as a payload: its source if it stands alone, else a pickle by value."""

from __future__ import annotations

import functools
import inspect
import types
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError
from airflow_provider_mljobs.jobs.payload.pickles import by_value, pickled_by
from airflow_provider_mljobs.jobs.payload.source_code import DependenceError, Packed, function_source, is_empty
from airflow_provider_mljobs.launcher.contract import SESSION, wants_session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

FILE = "mljob_function.py"
Serializer = Literal["auto", "source", "cloudpickle"]


def validate_serializer(serializer: object) -> None:
    """Refuse an unknown serializer."""
    if serializer not in get_args(Serializer):
        choices = ", ".join(map(repr, get_args(Serializer)))
        raise InvalidJobSpecError(f"serializer must be one of {choices}; got {serializer!r}.")


def pack(function: Callable[..., Any], serializer: Serializer = "auto", importable: Collection[str] = ()) -> Packed:
    """Pack a function.

    :param serializer: ``"source"`` or ``"cloudpickle"``; ``"auto"`` is source if the function stands alone, else a
        pickle.
    """
    validate_serializer(serializer)
    refuse_empty(function)
    if serializer != "cloudpickle":
        try:
            return function_source(function, importable)
        except DependenceError as error:
            if serializer == "source":
                raise PayloadError(
                    f"Function {called(function)!r} can't travel as source: it {error}. Or leave serializer at 'auto': "
                    "then the function is pickled, and the job needs the same Python."
                ) from error
    return Packed(name=called(function), file=FILE, pickle=_pickle(function, importable), pickled_by=pickled_by())


def stands_alone(function: Callable[..., Any], importable: Collection[str] = ()) -> bool:
    """Return whether a function can travel as source."""
    try:
        function_source(function, importable)
    except DependenceError:
        return False
    return True


def refuse_empty(function: Callable[..., Any]) -> None:
    """Refuse a function with an empty body."""
    if is_empty(function):
        raise PayloadError(f"Function {called(function)!r} has an empty body: the job would do nothing.")


def refuse_call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments that the function doesn't take."""
    try:
        session = {SESSION: None} if wants_session(function, args, kwargs) else {}
        inspect.signature(function).bind(*args, **{**kwargs, **session})
    except (TypeError, ValueError) as error:
        # A ValueError: not every built-in function has a signature.
        raise PayloadError(f"Function {called(function)!r} can't be called with these arguments: {error}.") from error


def called(function: Callable[..., Any]) -> str:
    """Return the name of a callable for messages and the UI.

    Not its ``repr``, in which an address would give every parse another version of the DAG.
    """
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def _pickle(function: Callable[..., Any], importable: Collection[str]) -> bytes:
    import cloudpickle

    try:
        with by_value(function, importable):
            return bytes(cloudpickle.dumps(_calling_itself(function)))
    except Exception as error:
        raise PayloadError(
            f"Could not pickle function {called(function)!r} for the job: {error}. It closes over something that "
            "can't be pickled; import or build that inside the function."
        ) from error


def _calling_itself(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose name refers to itself: in its module the name may refer to the task."""
    if not isinstance(function, types.FunctionType) or function.__globals__.get(function.__name__) is function:
        return function
    if function.__name__ not in function.__code__.co_names or function.__name__ not in function.__globals__:
        return function
    names = dict(function.__globals__)
    copy = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    names[function.__name__] = copy
    return functools.update_wrapper(copy, function)
