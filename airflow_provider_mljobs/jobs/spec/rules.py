"""Rules for documents of mappings, lists and scalars: each says what is wrong with a value, and where that is."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.values.escaping import validate_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_mljobs.jobs.spec.laws import Law

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_./-]+")
_MOST_SHOWN = 80
_MOST_PROBLEMS = 20


class Rule(Protocol):
    """What a value has to be."""

    def problems(self, value: Any, path: str) -> Iterator[str]:
        """Yield a sentence for each thing that is wrong with a value.

        :param path: where the value stands, e.g. ``spec.containers[0].name``; empty for the whole document.
        """


@dataclass(frozen=True)
class Text:
    """A text of some form.

    :param form: the form in words, as the message has it.
    :param pattern: the form as a regular expression.
    """

    form: str = "a text"
    pattern: str = r"(?s:.*)"

    def problems(self, value: Any, path: str) -> Iterator[str]:
        """Refuse other types, other forms, and what can't be written into a specification."""
        if isinstance(value, bool | int | float):
            yield f"{path} must be {self.form}, got {value!r}; put it in quotes."
        elif not isinstance(value, str):
            yield f"{path} must be {self.form}, got {shown(value)}."
        elif problem := _unwritable(value, path):
            yield problem
        elif not re.fullmatch(self.pattern, value):
            yield f"{path} must be {self.form}, got {shown(value)}."


@dataclass(frozen=True)
class Scalar:
    """What arrives as text: a text, a number, or true or false."""

    def problems(self, value: Any, path: str) -> Iterator[str]:
        """Refuse everything else."""
        if isinstance(value, str):
            yield from Text().problems(value, path)
        elif not isinstance(value, bool | int | float) or not math.isfinite(value):
            yield f"{path} must be a text, a number, true or false; got {shown(value)}."


@dataclass(frozen=True)
class Choice:
    """One of some texts."""

    values: tuple[str, ...]

    def problems(self, value: Any, path: str) -> Iterator[str]:
        """Refuse everything else."""
        if value not in self.values:
            yield f"{path} must be one of {', '.join(self.values)}; got {shown(value)}."


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def problems(self, value: Any, path: str) -> Iterator[str]:
        """Refuse everything else."""
        if not isinstance(value, bool):
            yield f"{path} must be true or false, got {shown(value)}."


@dataclass(frozen=True)
class Whole:
    """A whole number between two."""

    least: int
    most: int

    def problems(self, value: Any, path: str) -> Iterator[str]:
        """Refuse everything else."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.least <= value <= self.most:
            yield f"{path} must be a whole number from {self.least} to {self.most}, got {shown(value)}."


@dataclass(frozen=True)
class Amount:
    """An amount, with or without a unit.

    :param form: the form in words.
    :param pattern: the form as a regular expression, whose first group is the number.
    :param is_number: whether a number may stand for a text.
    :param most: the largest number.
    """

    form: str
    pattern: str
    is_number: bool = False
    most: float = math.inf

    def problems(self, value: Any, path: str) -> Iterator[str]:
        """Refuse other forms, and more than the most."""
        is_number = self.is_number and isinstance(value, int | float) and not isinstance(value, bool)
        match = re.fullmatch(self.pattern, str(value)) if isinstance(value, str) or is_number else None
        if match is None or float(match[1]) > self.most:
            yield f"{path} must be {self.form}, got {shown(value)}."


@dataclass(frozen=True)
class Span:
    """Two whole numbers in one text, e.g. ``8000-8010``."""

    least: int
    most: int

    def problems(self, value: Any, path: str) -> Iterator[str]:
        """Refuse other texts, and spans that end before they begin."""
        match = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", value) if isinstance(value, str) else None
        if match is None or not self.least <= int(match[1]) <= int(match[2]) <= self.most:
            yield (
                f"{path} must be two numbers from {self.least} to {self.most}, the smaller one first, e.g. "
                f"'8000-8010'; got {shown(value)}."
            )


@dataclass(frozen=True)
class Items:
    """A list.

    :param rule: what each item has to be.
    :param least: how few items it may have.
    :param most: how many items it may have.
    """

    rule: Rule
    least: int = 0
    most: float = math.inf

    def problems(self, value: Any, path: str) -> Iterator[str]:
        """Refuse what is no list, a wrong number of items, and wrong items."""
        if not isinstance(value, list):
            yield f"{path} must be a list, got {shown(value)}."
            return
        if len(value) < self.least:
            yield f"{path} is empty; it takes at least {self.least}."
        if len(value) > self.most:
            yield f"{path} has {len(value)} items, more than the {self.most} that Snowflake takes."
        for index, item in enumerate(value):
            yield from self.rule.problems(item, f"{path}[{index}]")


@dataclass(frozen=True)
class Entries:
    """A mapping with any keys of some form.

    :param key: what each key has to be.
    :param value: what each value has to be.
    """

    key: Rule
    value: Rule

    def problems(self, value: Any, path: str) -> Iterator[str]:
        """Refuse what is no mapping, wrong keys, and wrong values."""
        if not isinstance(value, Mapping):
            yield f"{path} must be a mapping, got {shown(value)}."
            return
        for key, item in value.items():
            yield from self.key.problems(key, f"{path}: the key")
            yield from self.value.problems(item, below(path, key))


@dataclass(frozen=True)
class Fields:
    """A mapping with known keys.

    :param required: the keys that it has to have.
    :param optional: the keys that it may have.
    :param refused: keys that stand elsewhere or not in jobs, and why.
    :param laws: what the fields have to be together.
    """

    required: Mapping[str, Rule] = field(default_factory=lambda: _NOTHING)
    optional: Mapping[str, Rule] = field(default_factory=lambda: _NOTHING)
    refused: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    laws: tuple[Law, ...] = ()

    def problems(self, value: Any, path: str) -> Iterator[str]:
        """Refuse what is no mapping, missing and unknown keys, wrong values, and broken laws."""
        if not isinstance(value, Mapping):
            yield f"{path or 'The specification'} must be a mapping, got {shown(value)}."
            return
        rules = {**self.required, **self.optional}
        for key in self.required:
            if key not in value:
                yield f"{below(path, key)} is missing."
        for key, item in value.items():
            if key in rules:
                yield from rules[key].problems(item, below(path, key))
            else:
                yield self._unknown(key, path)
        for law in self.laws:
            yield from law.broken(value, path)

    def _unknown(self, key: Any, path: str) -> str:
        where = below(path, key)
        if key in self.refused:
            return f"{where} can't stand here: {self.refused[key]}."
        known = [*self.required, *self.optional]
        if similar := difflib.get_close_matches(str(key), known, n=1):
            return f"{where} is unknown; did you mean {similar[0]}?"
        return f"{where} is unknown; what can stand here: {', '.join(known)}."


@dataclass(frozen=True)
class Cases:
    """A mapping whose other keys depend on one.

    :param key: the key that tells.
    :param rules: the rules by its values.
    :param beginnings: the rules by what its value begins with.
    """

    key: str
    rules: Mapping[str, Rule]
    beginnings: Mapping[str, Rule]

    def problems(self, value: Any, path: str) -> Iterator[str]:
        """Refuse what is no mapping, or none of the cases, and what breaks the rule of its case."""
        if not isinstance(value, Mapping):
            yield f"{path} must be a mapping, got {shown(value)}."
        elif self.key not in value:
            yield f"{below(path, self.key)} is missing; {self._allowed()}."
        elif (rule := self._rule(value[self.key])) is None:
            yield f"{below(path, self.key)} must be {self._allowed()}; got {shown(value[self.key])}."
        else:
            yield from rule.problems(value, path)

    def _rule(self, case: Any) -> Rule | None:
        if not isinstance(case, str):
            return None
        begun = (rule for beginning, rule in self.beginnings.items() if case.startswith(beginning))
        return self.rules.get(case) or next(begun, None)

    def _allowed(self) -> str:
        return f"one of {', '.join(self.rules)}, or begin with {', '.join(self.beginnings)}"


@dataclass(frozen=True)
class TextOr:
    """A text, or a mapping that says more."""

    text: Rule
    mapping: Rule

    def problems(self, value: Any, path: str) -> Iterator[str]:
        """Refuse what the rule of its type refuses."""
        yield from (self.mapping if isinstance(value, Mapping) else self.text).problems(value, path)


def refuse(problems: Iterator[str], what: str) -> None:
    """Raise one error for all problems, if there are any.

    :param what: names the argument in the message.
    :raises InvalidJobSpecError: with the first problems, and how many more there are.
    """
    found = list(problems)
    if not found:
        return
    if len(found) == 1:
        raise InvalidJobSpecError(f"{what} is not valid: {found[0]}")
    listed = [f"- {problem}" for problem in found[:_MOST_PROBLEMS]]
    if more := len(found) - len(listed):
        listed.append(f"- … and {more} more")
    raise InvalidJobSpecError("\n".join((f"{what} is not valid:", *listed)))


def below(path: str, key: Any) -> str:
    """Return the path of a key."""
    if not isinstance(key, str) or not _PLAIN_KEY.fullmatch(key):
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else key


def shown(value: Any) -> str:
    """Return a value as a message has it: short, whatever it is."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing (null)"
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _unwritable(value: str, path: str) -> str | None:
    try:
        validate_text(value, path)
    except InvalidJobSpecError as error:
        return str(error)
    if max(value, default="") > "\uffff":
        return f"{path} holds {max(value)!r}, which can't be written into a specification; leave it out or encode it."
    return None
