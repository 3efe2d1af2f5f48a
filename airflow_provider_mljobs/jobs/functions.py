"""A function as a payload: its source where it stands alone, else a pickle by value."""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import inspect
import math
import sys
import sysconfig
import types
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

FILE = "mljob_function.py"
# Injected inside the job, unless the caller passes something.
SESSION = "session"


@dataclass(frozen=True, kw_only=True)
class PackedFunction:
    """A function on its way: exactly one of ``source`` and ``pickle`` is given.

    :param name: its name in the source.
    :param file: the file that it was written in, for tracebacks.
    :param source: the text of a module that defines it, on the very lines of that file.
    :param pickle: the function, pickled by value.
    """

    name: str
    file: str
    source: str | None = None
    pickle: bytes | None = None


def pack(function: Callable[..., Any]) -> PackedFunction:
    """Pack a function as source if it can stand alone, else as a pickle.

    :raises PayloadError: if the function has an empty body, or can be packed in neither way.
    """
    refuse_empty(function)
    definition = _definition(function)
    if definition is not None:
        text, node, line = definition
        header = _imports(function)
        if header is not None and _stands_alone(node):
            file = PurePath(function.__code__.co_filename).name
            return PackedFunction(name=node.name, file=file, source=_module(header, text, node, line))
    return PackedFunction(name=called(function), file=FILE, pickle=_pickle(function))


def refuse_empty(function: Callable[..., Any]) -> None:
    """Refuse a function without a body.

    :raises PayloadError: if there is nothing to run.
    """
    definition = _definition(function)
    if definition is not None and _is_empty(definition[1]):
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


def wants_session(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether the job has to pass its Snowpark session: an argument of that name that the caller left out."""
    parameters = inspect.signature(function).parameters
    if SESSION not in parameters or kwargs.get(SESSION) is not None:
        return False
    by_name_only = parameters[SESSION].kind is inspect.Parameter.KEYWORD_ONLY
    return by_name_only or list(parameters).index(SESSION) >= len(args)


def pickle_arguments(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> bytes | None:
    """Return the pickled arguments, or ``None`` where all of them mean the same as JSON.

    :raises PayloadError: naming the argument that can't be pickled either.
    """
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind in by_position]
    names += [f"args[{index}]" for index in range(len(names), len(args))]
    named = [*zip(names, args, strict=False), *kwargs.items()]
    if all(_is_json(value) for _, value in named):
        return None
    import cloudpickle

    with _by_value(function):
        for name, value in named:
            try:
                cloudpickle.dumps(value)
            except Exception as error:
                raise PayloadError(
                    f"Argument {name!r} of {called(function)!r}, of type {type(value).__name__}, can't be sent to "
                    f"the job: {error}. Pass what it is made of: a table name, a stage path, numbers and text."
                ) from error
        return bytes(cloudpickle.dumps({"args": tuple(args), "kwargs": kwargs}))


def _is_json(value: Any) -> bool:
    """Tell whether JSON gives back the very same value: no tuple that becomes a list, no key that becomes text."""
    if value is None or type(value) in {bool, int, str}:
        return True
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is list:
        return all(_is_json(item) for item in value)
    if type(value) is dict:
        return all(type(key) is str and _is_json(item) for key, item in value.items())
    return False


def _definition(function: Callable[..., Any]) -> tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, int] | None:
    """Return the function's source as an own block, its node in it, and the line of its ``def`` in its file.

    ``None`` if there is no source to be had.
    """
    if not isinstance(function, types.FunctionType) or hasattr(function, "__wrapped__"):
        # What inspect would show is a method without its object, or the function below another decorator.
        return None
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError):
        return None
    text = "".join(lines)
    # An indented function is put under an "if", so that no text within its strings moves.
    is_indented = text[:1].isspace()
    text = f"if True:\n{text}" if is_indented else text
    try:
        tree = ast.parse(text)
    except SyntaxError:
        # A lambda in the middle of an expression, for one.
        return None
    block = tree.body[0].body if isinstance(tree.body[0], ast.If) else tree.body
    node = block[0]
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name != function.__code__.co_name:
        # A lambda among the defaults of another function, for one.
        return None
    return text, node, first + node.lineno - 1 - is_indented


def _is_empty(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return all(
        isinstance(statement, ast.Pass)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in node.body
    )


def _imports(function: Callable[..., Any]) -> list[str] | None:
    """Return the import statements that the function needs from its module; ``None`` if it needs more than that."""
    code = function.__code__
    if code.co_freevars:
        return None
    statements: list[str] = []
    used = set(_attribute_names(code))
    for name in sorted(set(_global_names(code))):
        # Every module has a __name__; a class that is defined inside looks it up.
        if name in {function.__name__, "__name__"} or (hasattr(builtins, name) and name not in function.__globals__):
            continue
        value = function.__globals__.get(name)
        statement = _import_of(name, value, function.__module__)
        if statement is None:
            return None
        statements += [*_imports_below(value, used), statement]
    return statements


def _import_of(name: str, value: Any, own_module: str) -> str | None:
    """Return the statement that gives the job the same object under the same name, if there is one."""
    if isinstance(value, types.ModuleType):
        is_there = sys.modules.get(value.__name__) is value and _is_installed(value)
        return f"import {value.__name__} as {name}" if is_there else None
    module, attribute = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if (
        module in {None, own_module, "__main__"}
        or getattr(sys.modules.get(str(module)), str(attribute), None) is not value
        or not _is_installed(sys.modules[str(module)])
    ):
        return None
    return f"from {module} import {attribute} as {name}"


def _global_names(code: types.CodeType) -> Iterator[str]:
    """Yield the global names that a function and what it defines inside look up."""
    import dis

    for instruction in dis.get_instructions(code):
        if instruction.opname in {"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"}:
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _imports_below(value: Any, used: set[str]) -> list[str]:
    """Return the imports of the modules in a package that the function reaches as its attributes."""
    if not isinstance(value, types.ModuleType):
        return []
    prefix = f"{value.__name__}."
    below = sorted(module for module in sys.modules if module.startswith(prefix))
    return [f"import {module}" for module in below if used.issuperset(module.removeprefix(prefix).split("."))]


def _attribute_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _attribute_names(constant)


def _stands_alone(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether the defaults, which are evaluated where the function is defined, are plain values."""
    defaults = [*node.args.defaults, *(default for default in node.args.kw_defaults if default is not None)]
    try:
        for default in defaults:
            ast.literal_eval(default)
    except ValueError:
        return False
    return True


def _module(header: list[str], text: str, node: ast.FunctionDef | ast.AsyncFunctionDef, line: int) -> str:
    """Write a module that defines the function on its own line, without its decorators and with its comments."""
    # Not splitlines(): only a line feed ends a line of Python.
    body = "\n".join(text.split("\n")[node.lineno - 1 : node.end_lineno])
    # Annotations stay text: what they name need not exist in the job.
    top = ["; ".join(["from __future__ import annotations", *header])]
    if node.col_offset:
        top.append("if True:")
    top += [""] * (line - 1 - len(top))
    return "\n".join([*top, body.rstrip("\n"), ""])


def _pickle(function: Callable[..., Any]) -> bytes:
    import cloudpickle

    with _by_value(function):
        try:
            return bytes(cloudpickle.dumps(function))
        except Exception as error:
            raise PayloadError(
                f"Function {called(function)!r} can't be sent to the job: {error}. It closes over something that "
                "can't be pickled; import or build that inside the function."
            ) from error


@contextlib.contextmanager
def _by_value(function: Callable[..., Any]) -> Iterator[None]:
    """Let what is defined in the function's module, and in others that only Airflow has, be pickled by value."""
    import cloudpickle

    while isinstance(function, functools.partial):
        function = function.func
    known = cloudpickle.list_registry_pickle_by_value()
    own = getattr(function, "__module__", None)
    modules = [
        module
        for name, module in list(sys.modules.items())
        if (name == own or not _is_installed(module)) and name not in known and module.__name__ == name
    ]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _is_installed(module: Any) -> bool:
    """Tell whether a module came with Python or a distribution, which the job may have, too.

    Others lie in the DAG folder or in a source tree, which the job has not.
    """
    # A package without an __init__.py has a path but no file; a built-in module has neither.
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    place = next((str(place) for place in places if place), None)
    return (
        place is None
        or not {"site-packages", "dist-packages"}.isdisjoint(PurePath(place).parts)
        or place.startswith(sysconfig.get_path("stdlib"))
    )


def called(function: Callable[..., Any]) -> str:
    """Return what a callable is called in messages and in the UI.

    Not its ``repr``: an address in it would make another version of the DAG of every parse.
    """
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)
