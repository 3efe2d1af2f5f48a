"""The checks of an account before its first job: their findings, and the order in which they depend on each other."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.jobs.credentials import starred

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

logger = logging.getLogger(__name__)


class State(StrEnum):
    """The states of a checked need."""

    OK = "ok"
    MISSING = "missing"
    UNSEEN = "can't be seen"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer of one check.

    :param check: the name of the check.
    :param detail: the values that the check saw, or the reason why it saw none.
    :param sql: the statements that mend it, each with a semicolon; a role that may grant or alter runs them.
    :param setting: a setting outside of Snowflake that mends it: of the connection, of Airflow, or a shell command.
    :param seconds: the duration of a step of the probe job.
    """

    state: State
    detail: str
    check: str = ""
    sql: tuple[str, ...] = ()
    setting: str = ""
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON."""
        row = {
            "check": self.check,
            "state": self.state.value,
            "detail": self.detail,
            "sql": list(self.sql),
            "setting": self.setting,
        }
        return row if self.seconds is None else {**row, "seconds": round(self.seconds, 1)}


def ok(detail: str) -> Finding:
    """Return the finding of a need that is met."""
    return Finding(state=State.OK, detail=detail)


def missing(detail: str, *sql: str, setting: str = "") -> Finding:
    """Return the finding of a need that is not met, with the change that meets it."""
    return Finding(state=State.MISSING, detail=detail, sql=tuple(f"{statement};" for statement in sql), setting=setting)


def unseen(detail: str) -> Finding:
    """Return the finding of a need of which neither is proven."""
    return Finding(state=State.UNSEEN, detail=detail)


@dataclass(frozen=True)
class Check:
    """One check.

    :param look: looks without changing anything.
    :param needs: the checks without which this one can't look: it is skipped if one of them is missing.
    :param is_timed: whether the finding has the seconds of the look.
    """

    name: str
    look: Callable[[], Finding]
    needs: tuple[str, ...] = ()
    is_timed: bool = False


def run(checks: Iterable[Check]) -> Iterator[Finding]:
    """Run checks in their order. A check that fails to look is a finding, too, and never ends the others."""
    blocked: set[str] = set()
    for check in checks:
        causes = [need for need in check.needs if need in blocked]
        began = time.monotonic()
        finding = unseen(f"Not checked without: {', '.join(causes)}.") if causes else _looked(check)
        if causes or finding.state is State.MISSING:
            blocked.add(check.name)
        seconds = time.monotonic() - began if check.is_timed and not causes else None
        # Snowflake's messages may have addresses with credentials.
        yield replace(finding, check=check.name, detail=starred(finding.detail), seconds=seconds)


def _looked(check: Check) -> Finding:
    try:
        return check.look()
    except Exception as error:
        # An account may answer anything, and the other checks help its user all the same.
        logger.debug("The check %r failed.", check.name, exc_info=True)
        return unseen(f"{type(error).__name__}: {error}")


def script(findings: Iterable[Finding]) -> list[str]:
    """Return the lines that mend what is missing: an SQL script, with the settings outside of Snowflake as comments."""
    absent = [finding for finding in findings if finding.state is State.MISSING]
    sql = dict.fromkeys(statement for finding in absent for statement in finding.sql)
    settings = [f"-- {finding.check}: {finding.setting}" for finding in absent if finding.setting]
    return [*(("-- Run as a role that may grant and alter these, e.g. ACCOUNTADMIN:",) if sql else ()), *sql, *settings]
