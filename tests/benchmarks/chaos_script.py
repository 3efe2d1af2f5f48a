"""The script of one run: its accidents, their places, and their outcomes."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from tests.benchmarks.chaos_answers import (
    BLIND,
    CANCEL,
    ODD_ANSWERS,
    OF_JOBS,
    SUBMIT,
    OddAnswer,
    hidden,
    job_of,
    may_be,
    odd,
    spreads,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# The accidents of a statement. A kill is SIGKILL of its sender. A late statement takes effect some seconds after its
# sender has died or received an error; an unseen job exists, and no answer contains it yet.
Disturbance = Literal[
    "kill before",
    "kill after",
    "kill behind",
    "kill late",
    "kill unseen",
    "reset before",
    "reset after",
    "http 503",
    "session expired",
    "session lost",
    "error",
    "error after",
    "error late",
    "unseen",
    "services limit",
]
Accident = Disturbance | OddAnswer
DISTURBANCES: tuple[Disturbance, ...] = get_args(Disturbance)
ACCIDENTS: tuple[Accident, ...] = (*DISTURBANCES, *ODD_ANSWERS)
BEFORE, AFTER, BEHIND, LATE, UNSEEN = DISTURBANCES[:5]
KILLS: tuple[Accident, ...] = DISTURBANCES[:5]
# The accidents that need a session.
_OF_SESSIONS = frozenset({"session expired", "session lost", "error"})
# Only statements that create or end something can take effect late, or in spite of an error.
_LATE = frozenset({LATE, "error late", "error after"})
_LATE_AT = frozenset({SUBMIT, CANCEL, "DROP SERVICE", "REMOVE"})
_OF_SUBMITS = frozenset({UNSEEN, "unseen", "services limit"})
# The moments of a clear.
AFTER_A_CRASH, AFTER_EACH_CRASH, AT_THE_END = "after a crash", "after each crash", "at the end"
# The prefix of the kinds of messages to Airflow.
MESSAGE = "Airflow "
FOR_GOOD = math.inf
LOGIN, LOGOUT = "login", "logout"
_METHOD = re.compile(r"CALL \S+!(\w+)")
_FUNCTION = re.compile(r"SYSTEM\$\w+|GET_JOB_HISTORY|SPCS_GET_LOGS", re.IGNORECASE)
_WORDS = re.compile(r"EXECUTE JOB SERVICE|SHOW(?: [A-Z]+)+?(?= LIKE| IN |$)|(?:DESCRIBE|DROP) SERVICE|[A-Z]+")
# The poll of a wait asks for a page of jobs.
_POLL = re.compile(r"SHOW JOB SERVICES .* LIMIT ")


@dataclass(frozen=True, order=True)
class Boundary:
    """A statement of a run, or a message to Airflow.

    :param phase: the phase of the task in its sender.
    :param kind: the kind of statement.
    :param nth: its number among its kind in all processes of the phase, from 1.
    """

    phase: str
    kind: str
    nth: int

    @property
    def is_message(self) -> bool:
        """Whether it is a message to Airflow."""
        return self.kind.startswith(MESSAGE)

    def __str__(self) -> str:
        return f"{self.phase}: {self.kind}" + (f" #{self.nth}" if self.nth > 1 else "")


@dataclass(frozen=True)
class Plan:
    """A planned accident.

    :param at: where; ``None`` for the statement that comes ``later`` statements behind the accident before.
    :param delay: for a kill behind a statement: how many seconds behind its answer.
    :param seconds: how much later a late statement takes effect; otherwise for how long answers are odd, all that are
        given about jobs or about stages. 0 is one answer.
    """

    accident: Accident
    at: Boundary | None
    later: int = 0
    delay: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Hit:
    """An accident that has happened."""

    accident: str
    boundary: Boundary


@dataclass(frozen=True)
class _Spell:
    """A time in which answers are odd.

    :param struck: the kind of statement that was first.
    :param until: when it is over, counted.
    :param job: the only job that it is about.
    """

    accident: str
    struck: str
    until: float
    job: str = ""


@dataclass
class LateEffect:
    """A statement that takes effect late.

    :param job: the job that it makes, if it does.
    :param begun: when it began to, in seconds since the epoch; ``None`` if that is still to come.
    :param done: when it had; ``None`` if it was refused, too.
    """

    sql: str
    job: str
    begun: float | None = None
    done: float | None = None

    def has_made(self, job: str, created: float) -> bool:
        """Check whether it created a job."""
        return job == self.job and self.begun is not None and self.begun <= created <= (self.done or 0.0)


def accidents_at(boundary: Boundary) -> tuple[Accident, ...]:
    """Return the possible accidents of a boundary: kills for a message to Airflow, no session errors for a login."""
    if boundary.is_message:
        return BEFORE, AFTER
    return tuple(accident for accident in ACCIDENTS if _can_happen(accident, boundary.kind))


def _can_happen(accident: Accident, kind: str) -> bool:
    if accident in ODD_ANSWERS:
        return may_be(accident, kind)
    if accident in _OF_SESSIONS:
        return kind not in {LOGIN, LOGOUT}
    if accident in _OF_SUBMITS:
        return kind == SUBMIT
    return kind in _LATE_AT or accident not in _LATE


def kind_of(sql: str) -> str:
    """Name the kind of a statement: the words that it begins with, or the function that it calls."""
    method = _METHOD.match(sql)
    if method is not None:
        return method[1]
    if sql.startswith(("CALL", "SELECT")):
        function = _FUNCTION.search(sql)
        if function is not None:
            return function[0].upper()
    words = _WORDS.match(sql.lstrip().upper())
    return words[0] if words is not None else sql[:20]


class Script:
    """The planned accidents of one run, and those that happened.

    :param plans: the accidents, in order; each comes once.
    :param execute: runs a statement with a late effect; returns whether Snowflake accepted it.
    """

    def __init__(self, plans: tuple[Plan, ...] = (), execute: Callable[[str], bool] | None = None) -> None:
        self._plans = list(plans)
        self._execute = execute
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._since = 0
        self._spells: list[_Spell] = []
        self._answers: dict[str, dict[str, Any]] = {}
        self._threads: list[threading.Thread] = []
        self.phase = "execute"
        self.seen: list[Boundary] = []
        self.hits: list[Hit] = []
        # All statements and answers, for people.
        self.trace: list[str] = []
        # The number of odd answers, and the late effects.
        self.odd = 0
        self.late: list[LateEffect] = []
        # Begin and end of each time without jobs in the answers, in seconds since the epoch.
        self.blind: list[tuple[float, float]] = []
        # The times since which answers show each job and since which the process waits, in seconds since the epoch.
        self.seen_from: dict[str, float] = {}
        self.waits_since: float | None = None
        # The phase in which a process hung.
        self.hung = ""

    def meet(self, kind: str, sql: str = "") -> tuple[Boundary, Plan | None]:
        """Count a statement; returns where it is, and the accident that it meets, unless its answer is only odd."""
        with self._lock:
            self._counts[self.phase, kind] += 1
            self._since += 1
            boundary = Boundary(self.phase, kind, self._counts[self.phase, kind])
            self.seen.append(boundary)
            self.tell(f"{boundary}  {' '.join(sql.split())[:200]}")
            if self.waits_since is None and _POLL.match(sql):
                self.waits_since = time.time()
            plan = self._next(boundary)
            if plan is not None and (plan.accident not in ODD_ANSWERS or kind == CANCEL):
                return boundary, self._strike(plan, boundary)
            if kind == SUBMIT and self._spells_at("services limit", kind):
                return boundary, Plan("services limit", boundary)
            return boundary, None

    def answer(self, boundary: Boundary, sql: str, content: bytes) -> bytes:
        """Return the answer to a statement, which may be odd."""
        kind = boundary.kind
        with self._lock:
            plan = self._next(boundary)
            plan = None if plan is None or plan.accident not in ODD_ANSWERS else plan
            if plan is None and not self._spells and not may_be("stale", kind):
                return content
            document = answer = json.loads(content)
            before = self._answers.get(sql)
            self._answers[sql] = document
            now = time.monotonic()
            for spell in self._spells:
                if now < spell.until:
                    answer = self._under(spell, kind, sql, answer, before)
            changed = None if plan is None else odd(plan.accident, kind, sql, answer, before)
            if plan is not None and changed is not None:
                answer = changed
                self._strike(plan, boundary)
                self._begin_spell(plan.accident, kind, plan.seconds)
            if answer is document:
                return content
            self.odd += 1
            self.tell(f"    odd answer: {json.dumps(answer['data'].get('rowset', answer['message']))[:300]}")
            return json.dumps(answer).encode()

    def _under(
        self, spell: _Spell, kind: str, sql: str, answer: dict[str, Any], before: dict[str, Any] | None
    ) -> dict[str, Any]:
        if spell.job:
            return hidden(spell.job, kind, sql, answer) or answer
        if not spreads(spell.accident, spell.struck, kind):
            return answer
        return odd(spell.accident, kind, sql, answer, before) or answer

    def hide(self, plan: Plan, sql: str) -> None:
        """Have nothing known of a new job for some seconds."""
        name = job_of(sql)
        with self._lock:
            self._spells.append(_Spell(UNSEEN, SUBMIT, time.monotonic() + plan.seconds, name))
            self.seen_from[name] = time.time() + plan.seconds

    def spell(self, accident: str, kind: str, seconds: float = FOR_GOOD) -> None:
        """Have answers to a kind of statement be odd for some seconds, or let no job be made."""
        with self._lock:
            self._begin_spell(accident, kind, seconds)

    def _begin_spell(self, accident: str, kind: str, seconds: float) -> None:
        if seconds:
            self._spells.append(_Spell(accident, kind, time.monotonic() + seconds))
        if seconds and kind in OF_JOBS and accident in BLIND:
            self.blind.append((time.time(), time.time() + seconds))

    def later(self, plan: Plan, kind: str, sql: str) -> None:
        """Have a statement take effect some seconds later."""
        effect = LateEffect(sql, job_of(sql) if kind == SUBMIT else "")
        thread = threading.Thread(target=self._take_effect, args=(effect, plan.seconds), daemon=True)
        self.late.append(effect)
        self._threads.append(thread)
        thread.start()

    def _take_effect(self, effect: LateEffect, seconds: float) -> None:
        time.sleep(seconds)
        assert self._execute is not None
        effect.begun = time.time()
        if self._execute(effect.sql):
            effect.done = time.time()
        self.tell(f"    late, {'refused' if effect.done is None else 'done'}: {' '.join(effect.sql.split())[:120]}")

    def settle(self) -> None:
        """Wait until nothing is late any more."""
        for thread in self._threads:
            thread.join()

    def tell(self, what: str) -> None:
        """Take something down for people."""
        self.trace.append(f"{time.time() % 1000:7.3f} {what}")

    def _next(self, boundary: Boundary) -> Plan | None:
        plan = self._plans[0] if self._plans else None
        return plan if plan is not None and self._is_here(plan, boundary) else None

    def _is_here(self, plan: Plan, boundary: Boundary) -> bool:
        at = plan.at
        if at is None:
            return bool(self.hits) and self._since >= plan.later and plan.accident in accidents_at(boundary)
        if plan.accident in ODD_ANSWERS:
            # Where it would change nothing it is the next one's.
            return (at.phase, at.kind) == (boundary.phase, boundary.kind) and at.nth <= boundary.nth
        return at == boundary

    def _spells_at(self, accident: str, kind: str) -> bool:
        now = time.monotonic()
        return any((spell.accident, spell.struck) == (accident, kind) and now < spell.until for spell in self._spells)

    @property
    def next_message(self) -> Plan | None:
        """The next accident, if it happens at a message to Airflow in the running phase."""
        plan = self._plans[0] if self._plans else None
        at = None if plan is None else plan.at
        return plan if at is not None and at.is_message and at.phase == self.phase else None

    def strike(self, plan: Plan) -> None:
        """Take down an accident that has happened elsewhere than on the wire."""
        assert plan.at is not None
        with self._lock:
            self._strike(plan, plan.at)

    def note(self, boundary: Boundary) -> None:
        """Note a message that did not go over the wire."""
        with self._lock:
            self.seen.append(boundary)

    def _strike(self, plan: Plan, boundary: Boundary) -> Plan:
        self._plans.remove(plan)
        self.hits.append(Hit(plan.accident, boundary))
        self.tell(f"    {plan.accident}, {plan.seconds:.1f} s")
        self._since = 0
        return plan
