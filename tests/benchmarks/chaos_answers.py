"""Odd answers of an account under strain: negative, empty, stale, in another order or wording."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Document = dict[str, Any]

# The lies of an answer. Both negative ones are 2003; with "negative all" the history is empty, too. "stale" is the
# earlier answer to the same question: two answers have changed places.
OddAnswer = Literal["negative", "negative all", "empty", "reversed", "stale", "comment null", "comment edited"]
ODD_ANSWERS: tuple[OddAnswer, ...] = get_args(OddAnswer)
# The odd answers that hide jobs.
BLIND = frozenset({"negative", "negative all", "empty", "stale"})
SUBMIT, CANCEL, HISTORY = "EXECUTE JOB SERVICE", "SPCS_CANCEL_JOB", "GET_JOB_HISTORY"
_JOBS, _JOB = "SHOW JOB SERVICES", "DESCRIBE SERVICE"
# The statements about jobs, and about stages. One of a family is never odd alone for long.
OF_JOBS = frozenset({_JOBS, _JOB, "SHOW SERVICE CONTAINERS", "SYSTEM$GET_SERVICE_LOGS", HISTORY})
OF_STAGES = frozenset({"LIST", "GET"})
_COUNTED = frozenset({_JOBS, "LIST", "SHOW SERVICE CONTAINERS", "SHOW COMPUTE POOL INSTANCE FAMILIES"})
_PLACES: Mapping[OddAnswer, frozenset[str]] = {
    "negative": (OF_JOBS | OF_STAGES | {CANCEL}) - {HISTORY},
    "negative all": OF_JOBS,
    "empty": (OF_JOBS | OF_STAGES) - {_JOB, "SYSTEM$GET_SERVICE_LOGS"},
    "reversed": _COUNTED,
    "stale": OF_JOBS | OF_STAGES,
    "comment null": frozenset({_JOBS, _JOB}),
    "comment edited": frozenset({_JOBS, _JOB}),
}
_NAME = re.compile(r"\bNAME = (\S+)")


def may_be(accident: str, kind: str) -> bool:
    """Check whether the answer to a kind of statement can be odd in this way."""
    return any(accident == odd and kind in kinds for odd, kinds in _PLACES.items())


def spreads(accident: str, struck: str, kind: str) -> bool:
    """Check whether the answer to one kind of statement is odd while that to another is."""
    family = next((family for family in (OF_JOBS, OF_STAGES) if struck in family), frozenset({struck}))
    return kind in family and may_be(accident, kind)


def job_of(sql: str) -> str:
    """Return the name of the job that a statement makes."""
    match = _NAME.search(sql)
    return "" if match is None else match[1].rpartition(".")[2].strip('"')


def negative(sql: str) -> Document:
    """Say that there is no such thing, or that the role may not see it."""
    what = sql.split("\n", 1)[0][:80]
    text = f"SQL compilation error:\nService or stage of '{what}' does not exist or not authorized."
    return failure(2003, "02000", text)


def services_limit() -> Document:
    """Say that the account has as many services as it may have."""
    return failure(395093, "54000", "Number of services limit exceeded for the account")


def failure(errno: int, sqlstate: str, message: str) -> Document:
    """Build the answer for an error."""
    code = f"{errno:06d}"
    data = {"internalError": False, "errorCode": code, "sqlState": sqlstate, "queryId": ""}
    return {"data": data, "code": code, "message": message, "success": False}


def odd(accident: str, kind: str, sql: str, answer: Document, before: Document | None) -> Document | None:
    """Return the odd answer; ``None`` if it equals the true one.

    :param before: the earlier answer to the same question.
    """
    if not answer.get("success"):
        # A stale account gives its earlier answer even to a statement that fails now.
        return before if accident == "stale" and before is not None and before.get("success") else None
    change = _CHANGES[accident]
    changed = change(kind, sql, answer, before)
    return None if changed is None or _content(changed) == _content(answer) else changed


def hidden(name: str, kind: str, sql: str, answer: Document) -> Document | None:
    """Return the answer of a part of the account that lacks a new job; ``None`` if it equals the true one."""
    if not answer.get("success") or kind not in OF_JOBS:
        return None
    if kind == _JOBS:
        place = _place(answer, "name")
        rows = [row for row in answer["data"]["rowset"] if row[place] != name]
        return None if len(rows) == len(answer["data"]["rowset"]) else _with_rows(answer, rows)
    if not re.search(rf"\b{re.escape(name)}\b", sql):
        return None
    return _empty(kind, sql, answer, None) if kind == HISTORY else negative(sql)


def _negative(kind: str, sql: str, answer: Document, before: Document | None) -> Document | None:
    return _empty(kind, sql, answer, before) if kind == HISTORY else negative(sql)


def _empty(kind: str, sql: str, answer: Document, before: Document | None) -> Document | None:
    del kind, sql, before
    data = answer["data"]
    if data.get("command") == "DOWNLOAD":
        return {**answer, "data": {**data, "src_locations": [], "encryptionMaterial": []}}
    if "rowsetBase64" in data:
        return {**answer, "data": {**data, "rowsetBase64": "", "total": 0, "returned": 0}}
    return _with_rows(answer, [])


def _reversed(kind: str, sql: str, answer: Document, before: Document | None) -> Document | None:
    del kind, sql, before
    return _with_rows(answer, answer["data"].get("rowset", [])[::-1])


def _stale(kind: str, sql: str, answer: Document, before: Document | None) -> Document | None:
    del kind, sql, answer
    return before


def _commented(comment: str | None) -> Callable[[str, str, Document, Document | None], Document | None]:
    def change(kind: str, sql: str, answer: Document, before: Document | None) -> Document | None:
        del kind, sql, before
        place = _place(answer, "comment")
        rows = [[*row[:place], comment, *row[place + 1 :]] for row in answer["data"].get("rowset", [])]
        return _with_rows(answer, rows)

    return change


_CHANGES: Mapping[str, Callable[[str, str, Document, Document | None], Document | None]] = {
    "negative": _negative,
    "negative all": _negative,
    "empty": _empty,
    "reversed": _reversed,
    "stale": _stale,
    "comment null": _commented(None),
    "comment edited": _commented("looked at by operations, 2026-11-30"),
}


def _place(answer: Document, column: str) -> int:
    return next(place for place, each in enumerate(answer["data"]["rowtype"]) if each["name"].lower() == column)


def _with_rows(answer: Document, rows: list[list[str | None]]) -> Document:
    return {**answer, "data": {**answer["data"], "rowset": rows, "total": len(rows), "returned": len(rows)}}


def _content(answer: Document) -> tuple[object, ...]:
    data = answer["data"]
    return (answer["code"], *(data.get(key) for key in ("rowset", "rowsetBase64", "src_locations")))
