"""The reading side of the provider's codec: values from JSON with tags for their types."""

from __future__ import annotations

import base64
import importlib
import pathlib
import sys
import types
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .contract import TAG
from .errors import LauncherError
from .references import load_reference, read_array, read_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Decoder:
    """Reads the values of one document."""

    def __init__(self, directory: Path, classes: list[dict[str, str]], pickled: list[Any]) -> None:
        self.directory = directory
        self.pickled = pickled
        self.argument = ""
        self._entries = classes
        self._classes: dict[int, Any] = {}

    def read(self, value: Any, argument: str) -> Any:
        """Return the value of an argument."""
        self.argument = argument
        return self.decode(value)

    def decode(self, value: Any) -> Any:
        """Return the value of its JSON."""
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        if TAG not in value:
            return {key: self.decode(item) for key, item in value.items()}
        return _READERS[value[TAG]](self, value)

    def items(self, entry: dict[str, Any]) -> list[Any]:
        """Return the items of a collection."""
        return [self.decode(item) for item in entry["items"]]

    def content(self, entry: dict[str, Any]) -> bytes:
        """Return bytes, from the JSON or from their file."""
        if "file" in entry:
            return self.directory.joinpath(entry["file"]).read_bytes()
        return base64.b64decode(entry["value"])

    def zoned(self, entry: dict[str, Any], read: Callable[[str], Any]) -> Any:
        """Return a date or time with its zone."""
        return read(entry["value"]).replace(tzinfo=self.decode(entry["zone"]), fold=entry["fold"])

    def zone(self, entry: dict[str, Any]) -> Any:
        """Return a time zone by its name."""
        try:
            return ZoneInfo(entry["value"])
        except ZoneInfoNotFoundError as error:
            raise LauncherError(
                f"Argument {self.argument!r} has the time zone {entry['value']!r}, which this container doesn't have: "
                "add 'tzdata' to pip_requirements, or pass a UTC time."
            ) from error

    def offset(self, entry: dict[str, Any]) -> timezone:
        """Return a time zone that is an offset."""
        offset = self.decode(entry["value"])
        return timezone(offset) if entry["name"] is None else timezone(offset, entry["name"])

    def enum(self, entry: dict[str, Any]) -> Any:
        """Return a member of an enumeration."""
        kind = self.kind(entry)
        return kind[entry["name"]] if "name" in entry else kind(self.decode(entry["value"]))

    def instance(self, entry: dict[str, Any]) -> Any:
        """Return an instance with its attributes, as unpickling does: without ``__init__``."""
        kind = self.kind(entry)
        instance = kind.__new__(kind)
        for name, value in self.decode(entry["state"]).items():
            # Also if its class is frozen.
            object.__setattr__(instance, name, value)
        return instance

    def kind(self, entry: dict[str, Any]) -> Any:
        """Return the class of an entry: imported, or defined by its source if this container doesn't have it."""
        number = entry["class"]
        if number not in self._classes:
            self._classes[number] = self._class(self._entries[number])
        return self._classes[number]

    def parquet(self, entry: dict[str, Any]) -> Any:
        """Return a DataFrame, from Parquet."""
        self._need("pandas")
        return self.table(entry).to_pandas()

    def table(self, entry: dict[str, Any]) -> Any:
        """Return an Arrow table, from Parquet."""
        self._need("pyarrow")
        return read_table([self.directory / entry["file"]])

    def array(self, entry: dict[str, Any]) -> Any:
        """Return an array, from npy."""
        self._need("numpy")
        return read_array([self.directory / entry["file"]])

    def number(self, entry: dict[str, Any]) -> Any:
        """Return a number of numpy."""
        return self._need("numpy").dtype(entry["dtype"]).type(self.decode(entry["value"]))

    def _need(self, package: str) -> Any:
        try:
            return importlib.import_module(package)
        except ImportError as error:
            raise LauncherError(
                f"Argument {self.argument!r} needs {package}, which this container doesn't have ({error}): add "
                f"{package!r} to pip_requirements."
            ) from error

    def _class(self, entry: dict[str, str]) -> Any:
        name, module = entry["name"], entry["module"]
        try:
            return attrgetter(name)(importlib.import_module(module))
        except (ImportError, AttributeError) as error:
            if "source" not in entry:
                raise LauncherError(
                    f"Argument {self.argument!r} holds a {module}.{name}, which this container doesn't have ({error}): "
                    "add its package to pip_requirements, or pass plain values."
                ) from error
        namespace = sys.modules.setdefault(module, types.ModuleType(module)).__dict__
        try:
            exec(compile(entry["source"], entry["file"], "exec", dont_inherit=True), namespace)  # noqa: S102 (the user's)
        except ImportError as error:
            raise LauncherError(
                f"Argument {self.argument!r} holds a {name}, whose class can't be imported in this container: "
                f"{error}. Add the package to pip_requirements."
            ) from error
        return namespace[name]


def _path(name: str) -> Callable[[Decoder, dict[str, Any]], Any]:
    return lambda decoder, entry: getattr(pathlib, name)(decoder.decode(entry["value"]))


_READERS: dict[str, Callable[[Decoder, dict[str, Any]], Any]] = {
    "str": lambda _, entry: "".join(entry["value"]),
    "int": lambda _, entry: int(entry["value"], 16),
    "float": lambda _, entry: float(entry["value"]),
    "complex": lambda decoder, entry: complex(*decoder.decode(entry["value"])),
    "dict": lambda decoder, entry: {decoder.decode(key): decoder.decode(item) for key, item in entry["items"]},
    "tuple": lambda decoder, entry: tuple(decoder.items(entry)),
    "set": lambda decoder, entry: set(decoder.items(entry)),
    "frozenset": lambda decoder, entry: frozenset(decoder.items(entry)),
    "bytes": Decoder.content,
    "bytearray": lambda decoder, entry: bytearray(decoder.content(entry)),
    "datetime": lambda decoder, entry: decoder.zoned(entry, datetime.fromisoformat),
    "time": lambda decoder, entry: decoder.zoned(entry, time.fromisoformat),
    "date": lambda _, entry: date.fromisoformat(entry["value"]),
    "timedelta": lambda _, entry: timedelta(*entry["value"]),
    "zone": Decoder.zone,
    "offset": Decoder.offset,
    "Decimal": lambda _, entry: Decimal(entry["value"]),
    "UUID": lambda _, entry: UUID(entry["value"]),
    "Path": _path("Path"),
    "PurePosixPath": _path("PurePosixPath"),
    "PureWindowsPath": _path("PureWindowsPath"),
    "enum": Decoder.enum,
    "namedtuple": lambda decoder, entry: decoder.kind(entry)._make(decoder.items(entry)),
    "object": Decoder.instance,
    "frame": Decoder.parquet,
    "series": lambda decoder, entry: decoder.parquet(entry)["0"].rename(decoder.decode(entry["name"])),
    "index": lambda decoder, entry: decoder.parquet(entry).index,
    "table": Decoder.table,
    "array": Decoder.array,
    "item": lambda decoder, entry: decoder.array(entry)[()],
    "number": Decoder.number,
    "pickle": lambda decoder, entry: decoder.pickled[entry["n"]],
    "ref": lambda decoder, entry: load_reference(entry, f"Argument {decoder.argument!r}"),
}
