"""Injected faults: decides which statement or login gets which fault."""

from __future__ import annotations

import random
import re
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_mljobs.emulator.results import Result
    from airflow_provider_mljobs.emulator.settings import Fault, RequestKind


class InjectedError(Exception):
    """Raised when a fault replaces an answer."""


class ConnectionCutError(InjectedError):
    """Raised when a fault cuts the connection."""


class UnavailableError(InjectedError):
    """Raised when a fault answers HTTP 503."""


@dataclass(eq=False)
class _Armed:
    """A fault with its pattern, its count of matching requests and its dice."""

    fault: Fault
    pattern: re.Pattern[str] = field(init=False)
    dice: random.Random = field(init=False)
    seen: int = 0

    def __post_init__(self) -> None:
        self.pattern = re.compile(self.fault.matching, re.IGNORECASE)
        self.dice = random.Random(self.fault.seed)  # noqa: S311  # repeatable on purpose

    def strikes(self, text: str, request: RequestKind) -> bool:
        """Count the request if it matches; return whether the fault hits it."""
        if self.fault.request != request or self.pattern.search(text) is None:
            return False
        self.seen += 1
        fault = self.fault
        if fault.share is not None:
            return self.dice.random() < fault.share
        if fault.nth is None:
            return True
        return fault.nth <= self.seen < fault.nth + fault.times


class Faults:
    """The faults of a server; they can be changed while it runs.

    :param faults: those to start with.
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._armed = [_Armed(fault) for fault in faults]

    def add(self, *faults: Fault) -> None:
        """Add faults; each counts the requests from now on."""
        armed = [_Armed(fault) for fault in faults]
        with self._lock:
            self._armed.extend(armed)

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._armed.clear()

    def decide(self, text: str, request: RequestKind = "statement") -> Fault | None:
        """Return the first fault that hits this statement or login; every fault that matches counts it.

        A request that a client repeats is counted again only if it had not been executed.

        :param text: the statement, or the user who logs in.
        """
        if not self._armed:
            return None
        with self._lock:
            struck = [armed.fault for armed in self._armed if armed.strikes(text, request)]
        return struck[0] if struck else None


def altered(result: Result, fault: Fault) -> Result:
    """Return the answer with its rows changed by a fault."""
    if fault.effect not in {"empty", "reversed", "rewrite"}:
        return result
    rows = list(result.rows) if result.arrow is None else list(zip(*result.arrow.to_pydict().values(), strict=True))
    columns, extra = list(result.columns), result.extra
    names = [column.name.upper() for column in columns]
    match fault.effect:
        case "empty":
            rows = []
            if extra.get("command") == "DOWNLOAD":
                extra = {**extra, "src_locations": []}
        case "reversed":
            rows.reverse()
        case "rewrite" if fault.column.upper() in names:
            place = names.index(fault.column.upper())
            rows = [(*row[:place], fault.value, *row[place + 1 :]) for row in rows]
            columns[place] = replace(columns[place], type="text")
    # Sent as JSON, which doesn't check the types of the rows.
    return replace(result, columns=columns, rows=rows, arrow=None, statement="other", extra=extra)
