"""Code that stands alone: the source of a function or a class, complete without its module."""

from __future__ import annotations
import __future__

import ast
import dis
import inspect
import sys
import types
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.jobs.payload.pickles import is_available

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

_FUTURE = "from __future__ import annotations"
# Every module and every class body has these.
_BUILT_IN = {"__name__", "__module__", "__qualname__"}
_LOOKS_UP = {"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}


class DependenceError(Exception):
    """Raised when code doesn't stand alone. The text continues "it": the dependence, and the fix."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A packed function or class: exactly one of ``source`` and ``pickle`` is set.

    :param file: the name of its original file, for tracebacks.
    :param source: a module that defines it, on the same lines as that file.
    """

    name: str
    file: str
    source: str | None = None
    pickle: bytes | None = None
    pickled_by: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class _Definition:
    """A definition in its file.

    :param text: its lines; below an ``if`` if they are indented.
    :param line: the line of ``def`` or ``class`` in the file.
    """

    text: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    line: int


def is_empty(function: Callable[..., Any]) -> bool:
    """Return whether the body of a function is empty; without its source it counts as not empty."""
    try:
        body = _function_definition(function).node.body
    except DependenceError:
        return False
    return all(
        isinstance(statement, ast.Pass)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in body
    )


def function_source(function: Callable[..., Any], importable: Collection[str] = ()) -> Packed:
    """Return a function's source without its decorators, and with the imports of its module that it uses."""
    definition = _function_definition(function)
    code = function.__code__
    if code.co_freevars:
        closed = ", ".join(repr(name) for name in code.co_freevars)
        raise DependenceError(f"closes over {closed}: pass that as an argument, or build it inside")
    _refuse_defaults(definition.node)
    names = {name for name in _global_names(code) if name != function.__name__}
    header = _imports(names, function.__globals__, set(_attribute_names(code)), importable)
    if code.co_flags & __future__.annotations.compiler_flag:
        header = [_FUTURE, *header]
    text = _module(header, definition, definition.node.lineno)
    if not _same(code, _code_of(text, definition.node.name)):
        raise DependenceError(
            "differs from the text in its file: the file has changed, a tool has rewritten the code, or it is a method "
            "with private names"
        )
    return Packed(name=definition.node.name, file=PurePath(code.co_filename).name, source=text)


def class_source(kind: type, importable: Collection[str] = ()) -> Packed:
    """Return a class's source with its decorators, and with the imports of its module that it uses."""
    namespace = getattr(sys.modules.get(kind.__module__), "__dict__", {})
    if namespace.get(kind.__qualname__) is not kind:
        raise DependenceError("is not defined at the top level of a module")
    definition = _definition(kind, kind.__name__)
    # Annotations stay text, but dataclasses look up ClassVar and InitVar by name.
    code = compile(f"{_FUTURE}\n{definition.text}", "<class>", "exec", dont_inherit=True)
    names = {name for name in _global_names(code) if name not in {kind.__name__, "__annotations__"}}
    header = [_FUTURE, *_imports(names, namespace, set(_attribute_names(code)), importable)]
    annotations = sorted(_annotation_names(definition.node) - names)
    statements = [_import_of(name, namespace.get(name), kind.__module__, importable) for name in annotations]
    header += [statement for statement in statements if statement is not None]
    first = min([definition.node.lineno, *(decorator.lineno for decorator in definition.node.decorator_list)])
    file = PurePath(inspect.getsourcefile(kind) or "").name
    return Packed(name=kind.__name__, file=file, source=_module(header, definition, first))


def _function_definition(function: Callable[..., Any]) -> _Definition:
    if not isinstance(function, types.FunctionType):
        raise DependenceError(f"is of type {type(function).__name__}, not a function written with def")
    if hasattr(function, "__wrapped__"):
        # inspect would return the source of the wrapped function.
        raise DependenceError("is wrapped by another decorator: do its work inside the function")
    if function.__name__ == "<lambda>":
        raise DependenceError("is a lambda: write it with def")
    return _definition(function, function.__code__.co_name)


def _definition(target: types.FunctionType | type, name: str) -> _Definition:
    try:
        lines, first = inspect.getsourcelines(target)
    except (OSError, TypeError):
        raise DependenceError("has no source in a file") from None
    text = "".join(lines)
    # An "if" above an indented definition keeps the text within its strings as it is.
    is_indented = text[:1].isspace()
    text = f"if True:\n{text}" if is_indented else text
    try:
        tree = ast.parse(text)
    except SyntaxError:
        raise DependenceError("can't be separated from the rest of its file") from None
    block = tree.body[0].body if isinstance(tree.body[0], ast.If) else tree.body
    node = block[0]
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name != name:
        raise DependenceError("can't be separated from the rest of its file")
    return _Definition(text=text, node=node, line=first + node.lineno - 1 - is_indented)


def _refuse_defaults(node: ast.AST) -> None:
    """Refuse defaults that are no plain values: Python evaluates defaults in the function's module."""
    arguments = node.args  # type: ignore[attr-defined]
    by_position = [*arguments.posonlyargs, *arguments.args]
    defaults = [*zip(reversed(by_position), reversed(arguments.defaults), strict=False)]
    defaults += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    for argument, default in defaults:
        try:
            ast.literal_eval(default if default is not None else "None")
        except ValueError:
            raise DependenceError(
                f"has a default for {argument.arg!r} that is no plain value: use None and choose the value inside"
            ) from None


def _imports(
    names: Iterable[str], namespace: Mapping[str, Any], attributes: set[str], importable: Collection[str]
) -> list[str]:
    """Return the import statements that define names as their module does."""
    statements: list[str] = []
    for name in sorted(names):
        if name not in namespace or name in _BUILT_IN:
            # A built-in name, one of every module, or one that the code sets itself.
            continue
        value = namespace[name]
        statement = _import_of(name, value, namespace.get("__name__"), importable)
        if statement is None:
            raise DependenceError(_dependence(name, value))
        statements += [*_imports_below(value, attributes), statement]
    return statements


def _dependence(name: str, value: Any) -> str:
    if isinstance(value, types.ModuleType):
        return f"uses the module {name!r}, which is not installed: pass it in imports"
    return (
        f"uses {name!r} of its module, which isn't imported from an installed one: pass it as an argument, or import "
        "or define it inside"
    )


def _import_of(name: str, value: Any, own_module: str | None, importable: Collection[str]) -> str | None:
    """Return the statement that imports the same object under the same name; ``None`` if none does."""
    if isinstance(value, types.ModuleType):
        is_importable = sys.modules.get(value.__name__) is value and is_available(value, importable)
        return f"import {value.__name__} as {name}" if is_importable else None
    module, attribute = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    # Special forms of typing have no __qualname__.
    attribute = attribute or getattr(value, "_name", None)
    if (
        module in {None, own_module, "__main__"}
        or getattr(sys.modules.get(str(module)), str(attribute), None) is not value
        or not is_available(sys.modules[str(module)], importable)
    ):
        return None
    return f"from {module} import {attribute} as {name}"


def _global_names(code: types.CodeType) -> Iterator[str]:
    """Yield the global names that code looks up, with the functions and classes inside it."""
    own: set[str] = set()
    if not code.co_flags & inspect.CO_NEWLOCALS:
        # The body of a module or class finds its own definitions.
        own = {str(step.argval) for step in dis.get_instructions(code) if step.opname == "STORE_NAME"}
    for step in dis.get_instructions(code):
        if step.opname in _LOOKS_UP and step.argval not in own:
            yield str(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _imports_below(value: Any, attributes: set[str]) -> list[str]:
    """Return the imports of the modules in a package that the code reaches as its attributes."""
    if not isinstance(value, types.ModuleType):
        return []
    prefix = f"{value.__name__}."
    below = sorted(module for module in sys.modules if module.startswith(prefix))
    return [f"import {module}" for module in below if attributes.issuperset(module.removeprefix(prefix).split("."))]


def _attribute_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _attribute_names(constant)


def _annotation_names(node: ast.AST) -> set[str]:
    annotations = [child.annotation for child in ast.walk(node) if isinstance(child, ast.AnnAssign)]
    return {name.id for annotation in annotations for name in ast.walk(annotation) if isinstance(name, ast.Name)}


def _module(header: list[str], definition: _Definition, first: int) -> str:
    """Write a module that has the definition, from a line of its text on, on its own lines and with its comments."""
    # Not splitlines(): only a line feed ends a line of Python.
    body = "\n".join(definition.text.split("\n")[first - 1 : definition.node.end_lineno])
    top = ["; ".join(header)]
    if definition.node.col_offset:
        top.append("if True:")
    top += [""] * (definition.line - (definition.node.lineno - first) - 1 - len(top))
    return "\n".join([*top, body.rstrip("\n"), ""])


def _code_of(text: str, name: str) -> types.CodeType | None:
    """Return the code of the function that a module defines."""
    code = compile(text, "<function>", "exec", dont_inherit=True)
    definitions = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return next((definition for definition in definitions if definition.co_name == name), None)


def _same(one: types.CodeType, other: types.CodeType | None) -> bool:
    """Return whether two pieces of code do the same, wherever they are."""
    if other is None or (one.co_code, one.co_names, one.co_varnames, one.co_freevars) != (
        other.co_code,
        other.co_names,
        other.co_varnames,
        other.co_freevars,
    ):
        return False
    return len(one.co_consts) == len(other.co_consts) and all(
        _same(a, b)
        if isinstance(a, types.CodeType) and isinstance(b, types.CodeType)
        # Not a == b, which holds for 1 and True; but equal sets may be written in another order.
        else repr(a) == repr(b) or (isinstance(a, frozenset) and a == b)
        for a, b in zip(one.co_consts, other.co_consts, strict=True)
    )
