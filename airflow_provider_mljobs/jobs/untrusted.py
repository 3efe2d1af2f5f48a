"""Parsing of untrusted text: the one place that reads JSON and YAML from outside this process.

Results, logs, COMMENTs, specifications and XComs come from jobs and people that the provider doesn't trust. Reading
returns values of bounded size and depth, or raises :class:`~airflow_provider_mljobs.exceptions.UnreadableError` and
nothing else. If a JSON object repeats a key, its last value counts. NaN and infinities are floats. Halves of surrogate
pairs, which can't be written, become U+FFFD.
"""

from __future__ import annotations

import contextlib
import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import yaml

MAX_CHARACTERS = 500_000
MAX_DEPTH = 50
# PyYAML needs about 10 seconds for a megabyte, and aliases multiply values.
MAX_YAML_NODES = 50_000
MAX_REASON = 500
_DECODER = json.JSONDecoder()
_BLANKS = " \t\n\r"
_HALF = re.compile("[\ud800-\udfff]")
_MAY_HAVE_HALVES = re.compile(rf"\\u[dD][89a-fA-F]|{_HALF.pattern}")
_TAG = "tag:yaml.org,2002:"


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Convert all errors of reading an untrusted document to one.

    Example: ``with reading("The record of instance 1"): return int(document["exit_code"])``

    :raises UnreadableError: in place of any error that Python raises for a value of another type.
    """
    try:
        yield
    except UnreadableError:
        raise
    except RecursionError as error:
        raise UnreadableError(f"{what} can't be read: it is nested too deep.") from error
    except MemoryError as error:
        raise UnreadableError(f"{what} can't be read: it needs more memory than there is.") from error
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise UnreadableError(f"{what} can't be read: {kind}{error!s:.{MAX_REASON}}") from error


def read_json(text: object, what: str, *, limit: int = MAX_CHARACTERS, depth: int = MAX_DEPTH) -> Any:
    """Read one JSON document.

    Example: ``read_json(row["comment"], f"The COMMENT of job {job}")``

    :raises UnreadableError: with the reason.
    """
    value, end = read_json_prefix(text, what, limit=limit, depth=depth)
    with reading(what):
        if (more := _behind_blanks(str(text), end)) < len(str(text)):
            raise json.JSONDecodeError("Extra data", str(text), more)
    return value


def read_json_prefix(
    text: object, what: str, *, limit: int = MAX_CHARACTERS, depth: int = MAX_DEPTH
) -> tuple[Any, int]:
    """Read the JSON document at the beginning of a text; returns it, and the position of its end.

    Parameters and error are those of :func:`read_json`.
    """
    with reading(what):
        document = _checked(text, limit)
        value, end = _DECODER.raw_decode(document, _behind_blanks(document, 0))
        if document.count("[") + document.count("{") > depth:
            _refuse_deep(value, depth)
        return _whole(value) if _MAY_HAVE_HALVES.search(document) else value, end


def read_yaml(text: object, what: str, *, limit: int = MAX_CHARACTERS) -> Any:
    """Read YAML, or JSON, as plain values. Anything but a clear number, true, false or null stays text.

    So the version ``1.10`` doesn't become 1.1, nor ``2026-01-01`` a date, ``on`` true, or ``0600`` 384. Tags, keys that
    are no text, and documents of more than 50 levels or 50 000 values, with aliases expanded, are refused.
    """
    import yaml

    with reading(what):
        document = _checked(text, limit)
        try:
            # YAML refuses tabs as indentation, and JSON allows them; JSON strings can't hold any.
            is_json = document.lstrip().startswith("{")
            loader = _loader()(document.replace("\t", " ") if is_json else document)
            node = loader.get_single_node()
            if node is None:
                raise UnreadableError(f"{what} is empty.")
            _measure(node, {})
            return loader.construct_document(node)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
            problem = ", ".join(filter(None, (error.context, error.problem)))
            raise UnreadableError(f"{what} can't be read as YAML: {place}{problem:.{MAX_REASON}}.") from error
        except yaml.reader.ReaderError as error:
            before, character = document[: error.position], document[error.position]
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
            raise UnreadableError(
                f"{what} can't be read as YAML: line {line}, column {column}: {character!r} is not allowed there."
            ) from error


def _checked(text: object, limit: int) -> str:
    if not isinstance(text, str):
        raise TypeError(f"expected text, got {type(text).__name__}.")
    if len(text) > limit:
        msg = f"it has {len(text)} characters, more than {limit}."
        raise ValueError(msg)
    return text


def _behind_blanks(text: str, start: int) -> int:
    return len(text) - len(text[start:].lstrip(_BLANKS))


def _refuse_deep(value: Any, depth: int) -> None:
    """Check one level after the other, because recursion would be as deep as the value."""
    level = [value]
    for _ in range(depth):
        level = [
            item
            for each in level
            if isinstance(each, dict | list)
            for item in (each.values() if isinstance(each, dict) else each)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    msg = f"it is more than {depth} levels deep."
    raise ValueError(msg)


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


@cache
def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML's safe loader, restricted to the types of JSON, and with limits."""

        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (add_implicit_resolver fills it)
        yaml_constructors = {  # noqa: RUF012 (PyYAML's own way)
            f"{_TAG}{kind}": yaml.SafeLoader.yaml_constructors[f"{_TAG}{kind}"]
            for kind in ("map", "seq", "str", "bool", "null")
        }
        level = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            if getattr(event, "tag", None) not in {None, "!"}:
                raise _problem(f"the tag {event.tag} is not allowed; put the text in quotes instead", event.start_mark)
            if self.level > MAX_DEPTH:
                raise _problem(f"more than {MAX_DEPTH} levels deep", event.start_mark)
            self.level += 1
            node = super().compose_node(parent, index)
            self.level -= 1
            return node

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            _check_keys(key for key, _ in node.value)
            return node

    Loader.add_constructor(f"{_TAG}float", _number)
    for kind, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("float", r"-?[0-9]{1,18}(\.[0-9]{1,17})?", "-0123456789"),
        ("merge", r"<<", "<"),
    ):
        Loader.add_implicit_resolver(f"{_TAG}{kind}", re.compile(f"(?:{pattern})\\Z"), list(first))
    return Loader


def _check_keys(keys: Iterable[yaml.Node]) -> None:
    seen = set()
    for key in keys:
        if key.tag not in {f"{_TAG}str", f"{_TAG}merge"}:
            raise _problem("a key must be a text; put it in quotes", key.start_mark)
        if key.value in seen:
            raise _problem(f"the key {key.value!r} appears twice", key.start_mark)
        seen.add(key.value)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float | str:
    text = loader.construct_scalar(node)
    value = float(text) if "." in text else int(text)
    return value if str(value) == text else text


def _measure(node: yaml.Node, sizes: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Count nodes and levels as if all aliases were expanded."""
    if id(node) not in sizes:
        # A node that refers to itself meets this value.
        sizes[id(node)] = (MAX_YAML_NODES + 1, 0)
        children = node.value if isinstance(node.value, list) else []
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        measured = [_measure(part, sizes) for part in parts]
        size = 1 + sum(nodes for nodes, _ in measured)
        height = 1 + max((levels for _, levels in measured), default=0)
        sizes[id(node)] = (size, height)
        if size > MAX_YAML_NODES or height > MAX_DEPTH:
            raise _problem(
                f"more than {MAX_YAML_NODES} values or {MAX_DEPTH} levels, with aliases expanded",
                node.start_mark,
            )
    return sizes[id(node)]


def _problem(text: str, mark: Any) -> Exception:
    import yaml

    return yaml.MarkedYAMLError(problem=text, problem_mark=mark)
