"""A function as a payload: its source where it stands alone, else a pickle by value."""

from __future__ import annotations

import functools
import inspect
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError
from airflow_provider_mljobs.jobs.payload.pickles import Pickler, by_value, pickled_by
from airflow_provider_mljobs.jobs.payload.source_code import DependenceError, function_source, is_empty
from airflow_provider_mljobs.launcher.contract import SESSION, wants_session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

FILE = "mljob_function.py"
Serializer = Literal["auto", "source", "cloudpickle"]


@dataclass(frozen=True, kw_only=True)
class PackedFunction:
    """A function on its way: exactly one of ``source`` and ``pickle`` is given.

    :param name: its name in the source.
    :param file: the file that it was written in, for tracebacks.
    :param source: the text of a module that defines it, on the very lines of that file.
    :param pickle: the function, pickled by value.
    :param pickled_by: who pickled it, for the job to compare itself with.
    """

    name: str
    file: str
    source: str | None = None
    pickle: bytes | None = None
    pickled_by: Mapping[str, str] | None = None


def validate_serializer(serializer: object) -> None:
    """Refuse what is no way to send a function.

    :raises InvalidJobSpecError: naming those that are.
    """
    if serializer not in get_args(Serializer):
        known = ", ".join(repr(choice) for choice in get_args(Serializer))
        raise InvalidJobSpecError(f"serializer must be one of {known}; got {serializer!r}.")


def pack(
    function: Callable[..., Any], serializer: Serializer = "auto", importable: Collection[str] = ()
) -> PackedFunction:
    """Pack a function.

    Example::

        pack(evaluate, "source").source

    :param serializer: ``"source"`` or ``"cloudpickle"``; ``"auto"`` is source if the function stands alone, else a
        pickle.
    :param importable: names of modules that travel with the payload.
    :raises PayloadError: if the function has an empty body, or can't be packed in that way.
    :raises InvalidJobSpecError: if the serializer is none.
    """
    validate_serializer(serializer)
    refuse_empty(function)
    if serializer != "cloudpickle":
        try:
            source = function_source(function, importable)
        except DependenceError as error:
            if serializer == "source":
                raise PayloadError(
                    f"Function {called(function)!r} can't travel as source: it {error}. Or leave serializer at "
                    "'auto': then the function is pickled, and the job must run the same Python."
                ) from error
        else:
            return PackedFunction(name=source.name, file=source.file, source=source.text)
    return PackedFunction(
        name=called(function), file=FILE, pickle=_pickle(function, importable), pickled_by=pickled_by()
    )


def stands_alone(function: Callable[..., Any], importable: Collection[str] = ()) -> bool:
    """Tell whether a function can travel as source.

    :param importable: names of modules that travel with the payload.
    """
    try:
        function_source(function, importable)
    except DependenceError:
        return False
    return True


def refuse_empty(function: Callable[..., Any]) -> None:
    """Refuse a function without a body.

    :raises PayloadError: if there is nothing to run.
    """
    if is_empty(function):
        raise PayloadError(f"Function {called(function)!r} has nothing to run: its body is empty.")


def refuse_call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments that the function doesn't take.

    :raises PayloadError: if the call must fail in the job.
    """
    try:
        session = {SESSION: None} if wants_session(function, args, kwargs) else {}
        inspect.signature(function).bind(*args, **{**kwargs, **session})
    except (TypeError, ValueError) as error:
        # A ValueError: not everything built in has a signature.
        raise PayloadError(f"Function {called(function)!r} can't be called with these arguments: {error}.") from error


def called(function: Callable[..., Any]) -> str:
    """Return what a callable is called in messages and in the UI.

    Not its ``repr``: an address in it would make another version of the DAG of every parse.
    """
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def _pickle(function: Callable[..., Any], importable: Collection[str]) -> bytes:
    pickler = Pickler()
    try:
        with by_value(function, importable):
            pickler.dump(_calling_itself(function))
    except Exception as error:
        raise PayloadError(
            f"Function {called(function)!r} can't be sent to the job: {error}. It closes over something that "
            "can't be pickled; import or build that inside the function."
        ) from error
    return pickler.content


def _calling_itself(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that finds itself under its name, where its module has the task that was made of it."""
    if not isinstance(function, types.FunctionType) or function.__globals__.get(function.__name__) is function:
        return function
    if function.__name__ not in function.__code__.co_names or function.__name__ not in function.__globals__:
        return function
    known = dict(function.__globals__)
    copy = types.FunctionType(function.__code__, known, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    known[function.__name__] = copy
    return functools.update_wrapper(copy, function)
