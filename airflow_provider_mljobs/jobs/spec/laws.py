"""Laws of documents: what several values of one mapping have to be together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_provider_mljobs.jobs.spec.rules import below, shown


class Law(Protocol):
    """What the fields of one mapping have to be together."""

    def broken(self, value: Mapping[str, Any], path: str) -> Iterator[str]:
        """Yield a sentence for each way in which the mapping breaks the law."""


@dataclass(frozen=True)
class Never:
    """A law about a few fields.

    :param when: whether a mapping breaks it; values can be of any type.
    :param text: what goes on after the mapping's path in the message.
    """

    when: Callable[[Mapping[str, Any]], bool]
    text: str

    def broken(self, value: Mapping[str, Any], path: str) -> Iterator[str]:
        """Say so, if the mapping breaks it."""
        if self.when(value):
            yield f"{path} {self.text}."


@dataclass(frozen=True)
class ExactlyOne:
    """A law: one of some keys, and no second."""

    keys: tuple[str, ...]

    def broken(self, value: Mapping[str, Any], path: str) -> Iterator[str]:
        """Name the keys that are there."""
        given = [key for key in self.keys if key in value]
        if len(given) != 1:
            found = "both" if given else "neither"
            yield f"{path} needs either {' or '.join(self.keys)}; it has {found}."


@dataclass(frozen=True)
class Different:
    """A law: no two values are the same.

    :param pattern: which values, for ``select``.
    """

    pattern: str

    def broken(self, value: Mapping[str, Any], path: str) -> Iterator[str]:
        """Name each value that has been there before, and where."""
        seen: dict[str, str] = {}
        for where, item in select(value, self.pattern, path):
            key = item.rstrip("/") if isinstance(item, str) else repr(item)
            if key in seen:
                yield f"{where} {shown(item)} stands in {seen[key]} already; choose another one."
            seen.setdefault(key, where)


@dataclass(frozen=True)
class Named:
    """A law: each name is that of something in the document.

    :param pattern: where the names are used, for ``select``.
    :param among: where they are given.
    """

    pattern: str
    among: str

    def broken(self, value: Mapping[str, Any], path: str) -> Iterator[str]:
        """Name each name that nothing has."""
        known = [name for _, name in select(value, self.among, path) if isinstance(name, str)]
        listed = below(path, self.among.partition("[")[0])
        for where, name in select(value, self.pattern, path):
            if isinstance(name, str) and name not in known:
                yield f"{where} {shown(name)} is not in {listed}, which has {', '.join(known) or 'nothing'}."


@dataclass(frozen=True)
class AtMost:
    """A law: no more than so many.

    :param most: how many there may be.
    :param pattern: what is counted, for ``select``.
    :param words: what that is called.
    :param counts: which of them count.
    """

    most: int
    pattern: str
    words: str
    counts: Callable[[Any], bool] = lambda _: True

    def broken(self, value: Mapping[str, Any], path: str) -> Iterator[str]:
        """Say how many there are, and how many there may be."""
        number = sum(self.counts(item) for _, item in select(value, self.pattern, path))
        if number > self.most:
            yield f"{path} has {number} {self.words}, more than the {self.most} that Snowflake takes."


def select(value: Any, pattern: str, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what a pattern leads to, each with its path; what is of another type is passed over.

    :param pattern: keys, with ``[]`` behind those of lists, e.g. ``containers[].volumeMounts[].name``.
    """
    key, _, rest = pattern.partition(".")
    name = key.removesuffix("[]")
    if not isinstance(value, Mapping) or name not in value:
        return
    found = [(below(path, name), value[name])]
    if name != key:
        items = value[name] if isinstance(value[name], list) else []
        found = [(f"{below(path, name)}[{index}]", item) for index, item in enumerate(items)]
    for where, item in found:
        if rest:
            yield from select(item, rest, where)
        else:
            yield where, item
