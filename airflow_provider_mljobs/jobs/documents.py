"""Documents of mappings, lists and scalars: read from YAML, and copied from whatever Python holds them in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.specification_rules import below, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    import yaml

_MOST_BYTES = 500_000
_MOST_NODES = 50_000
_MOST_LEVELS = 50
_TAG = "tag:yaml.org,2002:"


def plain(value: Any, path: str, above: tuple[int, ...] = ()) -> Any:
    """Copy a document into dicts, lists and scalars of its own.

    :param path: where the value stands; empty for a whole specification.
    :param above: the ids of what the value is in.
    :raises InvalidJobSpecError: for what is none of these, keys that are no text, or documents without an end.
    """
    where = path or "The specification"
    if id(value) in above:
        raise InvalidJobSpecError(f"{where} holds itself.")
    if len(above) > _MOST_LEVELS:
        raise InvalidJobSpecError(f"{where} is more than {_MOST_LEVELS} levels deep.")
    within = (*above, id(value))
    if isinstance(value, Mapping):
        if others := [key for key in value if not isinstance(key, str)]:
            raise InvalidJobSpecError(f"{where} has the key {shown(others[0])}; keys are texts.")
        return {key: plain(item, below(path, key), within) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{path}[{index}]", within) for index, item in enumerate(value)]
    if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidJobSpecError(
            f"{where} is {shown(value)}, of type {type(value).__name__}, which no specification can hold; "
            "write it as text."
        )
    return value


def load_yaml(text: str, what: str) -> Any:
    """Read YAML, or JSON, as plain values: what isn't certainly a number, true, false or null stays as it is written.

    A version ``1.10`` isn't the number 1.1, ``2026-01-01`` no date, ``on`` not true, and ``0600`` not 384.

    :param what: names the text in the message.
    :raises InvalidJobSpecError: with line and column.
    """
    import yaml

    if len(text.encode(errors="replace")) > _MOST_BYTES:
        raise InvalidJobSpecError(f"{what} has more than {_MOST_BYTES} bytes; Snowflake takes it within one statement.")
    try:
        # JSON may be indented by tabs, which YAML doesn't take; a text in JSON can't hold any.
        loader = _loader()(text.replace("\t", " ") if text.lstrip().startswith("{") else text)
        node = loader.get_single_node()
        if node is None:
            raise InvalidJobSpecError(f"{what} is empty.")
        _measure(node, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        problem = ", ".join(filter(None, (error.context, error.problem)))
        raise InvalidJobSpecError(f"{what} can't be read as YAML: {place}{problem}.") from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise InvalidJobSpecError(
            f"{what} can't be read as YAML: line {line}, column {column}: {text[error.position]!r} can't stand there."
        ) from error


@cache
def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML's safe loader, less what makes other types than JSON has, and with limits."""

        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (add_implicit_resolver fills it)
        yaml_constructors = {  # noqa: RUF012 (PyYAML's own way)
            f"{_TAG}{kind}": yaml.SafeLoader.yaml_constructors[f"{_TAG}{kind}"]
            for kind in ("map", "seq", "str", "bool", "null")
        }
        level = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            _check_event(self.peek_event(), self.level)  # type: ignore[no-untyped-call]
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


def _check_event(event: Any, level: int) -> None:
    if getattr(event, "tag", None) not in {None, "!"}:
        raise _problem(f"the tag {event.tag} is not taken; a text in quotes needs none", event.start_mark)
    if level > _MOST_LEVELS:
        raise _problem(f"more than {_MOST_LEVELS} levels deep", event.start_mark)


def _check_keys(keys: Iterable[yaml.Node]) -> None:
    seen = set()
    for key in keys:
        if key.tag not in {f"{_TAG}str", f"{_TAG}merge"}:
            raise _problem("a key must be a text; put it in quotes", key.start_mark)
        if key.value in seen:
            raise _problem(f"the key {key.value!r} stands there already", key.start_mark)
        seen.add(key.value)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float | str:
    text = loader.construct_scalar(node)
    value = float(text) if "." in text else int(text)
    return value if str(value) == text else text


def _measure(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Count nodes and levels with all aliases written out, without writing them out."""
    if id(node) not in known:
        # What is found in here again while it is being measured refers to itself.
        known[id(node)] = (_MOST_NODES + 1, 0)
        children = node.value if isinstance(node.value, list) else []
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        measured = [_measure(part, known) for part in parts]
        size = 1 + sum(nodes for nodes, _ in measured)
        height = 1 + max((levels for _, levels in measured), default=0)
        known[id(node)] = (size, height)
        if size > _MOST_NODES or height > _MOST_LEVELS:
            raise _problem(
                f"more than {_MOST_NODES} values or {_MOST_LEVELS} levels, with all aliases written out",
                node.start_mark,
            )
    return known[id(node)]


def _problem(text: str, mark: Any) -> Exception:
    import yaml

    return yaml.MarkedYAMLError(problem=text, problem_mark=mark)
