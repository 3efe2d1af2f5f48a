"""Values as JSON with tags for their types, as ``launcher/codec.py`` reads it.

Values of JSON are written as they are. Any other value is an object whose key ``__mljob__`` has its type. Binary data
is in files beside the JSON.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import math
import pathlib
import re
import sys
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from airflow_provider_mljobs.jobs.payload.pickles import is_available
from airflow_provider_mljobs.jobs.payload.source_code import DependenceError, class_source
from airflow_provider_mljobs.jobs.values import tables
from airflow_provider_mljobs.jobs.values.references import StageRef, argument_reference, is_reference
from airflow_provider_mljobs.launcher.contract import TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

# JSON writes a character beyond 16 bits as two halves, so two adjacent halves would come back as one character.
_BETWEEN_HALVES = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")
# Python refuses to write or read longer numbers as decimals.
_MAX_DECIMAL_BITS = 10_000
# Longer bytes are written to a file.
_MAX_BYTES_AS_TEXT = 10_000


class RefusedError(Exception):
    """Raised when only a pickle could hold a value; the text has its type and the reason."""


class TooLargeError(Exception):
    """Raised when values have too many bytes for a job."""


@dataclass(kw_only=True)
class Encoder:
    """Writes the values of one document.

    :param may_define: whether classes may travel as source, which defines new classes in the job.
    :param limit: the bytes of all files.
    """

    may_pickle: bool
    may_define: bool
    importable: Collection[str] = ()
    limit: int = 2**30
    files: dict[str, bytes] = field(default_factory=dict)
    classes: list[dict[str, Any]] = field(default_factory=list)
    references: list[StageRef] = field(default_factory=list)
    pickled: list[Any] = field(default_factory=list)
    _numbers: dict[type, int] = field(default_factory=dict)
    _size: int = 0

    def encode(self, value: Any) -> Any:
        """Return a value as JSON."""
        if is_reference(value):
            return self._reference(argument_reference(value))
        write = _WRITERS.get(type(value))
        if write is not None:
            return write(self, value)
        if isinstance(value, Enum):
            return self._enum(value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self._instance(value, "namedtuple", items=[*value])
        if dataclasses.is_dataclass(value) and not isinstance(value, type) and _has_plain_state(type(value)):
            return self._instance(value, "object", state=_state(value))
        return self._table(value)

    def pickle(self, value: Any, reason: str = "") -> Any:
        """Keep a value for the pickle."""
        if not self.may_pickle:
            raise RefusedError(f"of type {type(value).__name__}{reason and f': {reason}'}")
        self.pickled.append(value)
        return {TAG: "pickle", "n": len(self.pickled) - 1}

    def add_file(self, suffix: str, content: bytes) -> str:
        """Add a file, and return its name."""
        name = f"{len(self.files)}.{suffix}"
        self.files[name] = content
        self._size += len(content)
        if self._size > self.limit:
            raise TooLargeError
        return name

    def _reference(self, reference: StageRef) -> dict[str, Any]:
        if reference not in self.references:
            self.references.append(reference)
        return reference.entry(self.references.index(reference))

    def _enum(self, value: Enum) -> Any:
        # A combination of flags has no name, or one that is no member's.
        if type(value).__members__.get(value.name or "") is value:
            return self._instance(value, "enum", name=value.name)
        return self._instance(value, "enum", value=value.value)

    def _instance(self, value: Any, tag: str, /, **parts: Any) -> Any:
        try:
            number = self._class(type(value))
        except DependenceError as error:
            return self.pickle(value, f"its class {error}")
        return {TAG: tag, "class": number, **{key: self.encode(part) for key, part in parts.items()}}

    def _class(self, kind: type) -> int:
        """Return the number of a class, which the job imports or defines."""
        if kind not in self._numbers:
            self.classes.append(self._class_entry(kind))
            self._numbers[kind] = len(self.classes) - 1
        return self._numbers[kind]

    def _class_entry(self, kind: type) -> dict[str, Any]:
        entry = {"module": kind.__module__, "name": kind.__qualname__}
        module = sys.modules.get(kind.__module__)
        if kind.__module__ != "__main__" and is_available(module, self.importable):
            with contextlib.suppress(AttributeError):
                if attrgetter(kind.__qualname__)(module) is kind:
                    return entry
        if not self.may_define:
            raise DependenceError("is defined in the DAG file")
        packed = class_source(kind, self.importable)
        return {**entry, "file": packed.file, "source": packed.source}

    def _table(self, value: Any) -> Any:
        # A value that is refused half-way leaves no file.
        file = _Bounded(self.limit - self._size)
        try:
            written = tables.write(value, file)
        except tables.UnfitError as error:
            return self.pickle(value, str(error))
        if written is None:
            return self.pickle(value)
        entry = {TAG: written.kind, **{key: self.encode(part) for key, part in written.details.items()}}
        if written.suffix is not None:
            entry["file"] = self.add_file(written.suffix, file.getvalue())
        return entry


class _Bounded(io.BytesIO):
    """A file in memory with a limit for its size."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > self._limit:
            raise TooLargeError
        return super().write(data)


def is_json(value: Any) -> bool:
    """Return whether JSON restores the same value, and no reader takes it for a tagged one."""
    check = _IS_JSON.get(type(value))
    return check is not None and check(value)


def _is_json_object(value: dict[Any, Any]) -> bool:
    return (
        TAG not in value
        and not is_reference(value)
        and all(type(key) is str and is_json(key) and is_json(item) for key, item in value.items())
    )


_IS_JSON: Mapping[type, Callable[[Any], bool]] = {
    type(None): lambda _: True,
    bool: lambda _: True,
    str: lambda value: _BETWEEN_HALVES.search(value) is None,
    int: lambda value: value.bit_length() <= _MAX_DECIMAL_BITS,
    float: math.isfinite,
    list: lambda value: all(map(is_json, value)),
    dict: _is_json_object,
}


def _has_plain_state(kind: type) -> bool:
    """Return whether attributes are all of an instance: its class doesn't customise creation or pickling."""
    own: Any = kind
    hooks = (own.__getstate__, getattr(own, "__setstate__", None))
    return all(getattr(own, name) is getattr(object, name) for name in ("__new__", "__reduce__", "__reduce_ex__")) and (
        all(hook in {None, object.__getstate__} or hook.__module__ == "dataclasses" for hook in hooks)
    )


def _state(value: Any) -> dict[str, Any]:
    names = [attribute.name for attribute in dataclasses.fields(value)]
    names += [name for name in getattr(value, "__dict__", {}) if name not in names]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _value(tag: str, write: Callable[[Any], Any]) -> Callable[[Encoder, Any], Any]:
    return lambda _, value: {TAG: tag, "value": write(value)}


def _or_json(tag: str, write: Callable[[Any], Any]) -> Callable[[Encoder, Any], Any]:
    return lambda _, value: value if is_json(value) else {TAG: tag, "value": write(value)}


def _complex(encoder: Encoder, value: complex) -> Any:
    return {TAG: "complex", "value": [encoder.encode(value.real), encoder.encode(value.imag)]}


def _list(encoder: Encoder, value: list[Any]) -> Any:
    return [encoder.encode(item) for item in value]


def _dict(encoder: Encoder, value: dict[Any, Any]) -> Any:
    if TAG not in value and all(type(key) is str and is_json(key) for key in value):
        return {key: encoder.encode(item) for key, item in value.items()}
    return {TAG: "dict", "items": [[encoder.encode(key), encoder.encode(item)] for key, item in value.items()]}


def _items(encoder: Encoder, value: tuple[Any, ...] | set[Any] | frozenset[Any]) -> Any:
    items = [encoder.encode(item) for item in value]
    if not isinstance(value, tuple):
        # The order of a set differs between processes.
        items.sort(key=json.dumps)
    return {TAG: type(value).__name__, "items": items}


def _bytes(encoder: Encoder, value: bytes | bytearray) -> Any:
    if len(value) > _MAX_BYTES_AS_TEXT:
        return {TAG: type(value).__name__, "file": encoder.add_file("bin", bytes(value))}
    return {TAG: type(value).__name__, "value": base64.b64encode(value).decode()}


def _datetime(encoder: Encoder, value: datetime | time) -> Any:
    text = value.replace(tzinfo=None).isoformat()
    return {TAG: type(value).__name__, "value": text, "fold": value.fold, "zone": encoder.encode(value.tzinfo)}


def _zone(encoder: Encoder, value: ZoneInfo) -> Any:
    # A zone that was read from a file has no name.
    return {TAG: "zone", "value": value.key} if value.key else encoder.pickle(value)


def _offset(encoder: Encoder, value: timezone) -> Any:
    offset, name = value.utcoffset(None), value.tzname(None)
    return {
        TAG: "offset",
        "value": encoder.encode(offset),
        "name": None if name == timezone(offset).tzname(None) else name,
    }


def _path(encoder: Encoder, value: pathlib.PurePath) -> Any:
    return {TAG: type(value).__name__.removeprefix("Posix"), "value": encoder.encode(str(value))}


_WRITERS: Mapping[type, Callable[[Encoder, Any], Any]] = {
    type(None): lambda _, value: value,
    bool: lambda _, value: value,
    str: _or_json("str", _BETWEEN_HALVES.split),
    int: _or_json("int", hex),
    float: _or_json("float", str),
    complex: _complex,
    list: _list,
    dict: _dict,
    tuple: _items,
    set: _items,
    frozenset: _items,
    bytes: _bytes,
    bytearray: _bytes,
    datetime: _datetime,
    time: _datetime,
    date: _value("date", date.isoformat),
    timedelta: _value("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    timezone: _offset,
    ZoneInfo: _zone,
    Decimal: _value("Decimal", str),
    UUID: _value("UUID", str),
    **dict.fromkeys((pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path())), _path),
}
