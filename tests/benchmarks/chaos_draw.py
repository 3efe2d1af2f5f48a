"""Which accidents happen to which runs: drawn with a seed, so that a run can be repeated."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING

from tests.benchmarks.chaos_answers import HISTORY, ODD_ANSWERS, OF_JOBS, OF_STAGES, SUBMIT
from tests.benchmarks.chaos_judge import Chaos
from tests.benchmarks.chaos_script import (
    ACCIDENTS,
    AFTER_A_CRASH,
    AFTER_EACH_CRASH,
    AT_THE_END,
    FOR_GOOD,
    KILLS,
    LATE,
    MESSAGE,
    Boundary,
    Plan,
    accidents_at,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.chaos_script import Accident
    from tests.benchmarks.chaos_tries import Case

    Place = tuple[Case, Boundary]
    Strike = tuple[Case, Boundary, Accident]

# Shares of runs: with odd answers of an account, and with retries and clears while a submit or a job is under way.
_ODD, _UNDER_WAY = 0.3, 0.2
# Shares of the latter: with clears, and with an odd answer within so many next statements.
_EPOCHS, _ASKED, _NEXT = 0.7, 0.6, 6
# Shares of all: with a second accident, with a clear, without retries and with a value for the stage (where possible),
# with a slow job.
_AGAIN, _CLEARED, _ONCE, _LARGE, _SLOW = 0.3, 0.15, 0.4, 0.25, 0.3
# A second accident comes within so many statements.
_LATER = 25
_SLOW_SECONDS = (1.5, 1.5, 4.0)
# A process reacts to an answer within so many seconds.
_BEHIND_SECONDS = 0.05
# The longest delay of an effect, and the longest time for which an account is odd.
_LATE_SECONDS, _ODD_SECONDS = 6.0, 3.0
_POLLED = frozenset({"SHOW JOB SERVICES", "SYSTEM$GET_SERVICE_LOGS", "DESCRIBE SERVICE", "login", "logout"})
_MOST_POLLED = 2
_CHANGES = frozenset({SUBMIT, "PUT", "REMOVE", "DROP SERVICE"})
# A crash at these messages proves nothing.
_PASSED_OVER = frozenset({f"{MESSAGE}MaskSecret"})
# The accidents of an odd account.
NEW: tuple[Accident, ...] = (
    *(accident for accident in ACCIDENTS if accident.endswith((" late", "unseen", " limit"))),
    "error after",
    *ODD_ANSWERS,
)


# The odd answers that also apply to the answer about one job.
_OF_ONE_JOB: tuple[Accident, ...] = tuple(accident for accident in ODD_ANSWERS if accident != "reversed")


def boundaries_of(seen: Sequence[Boundary]) -> set[Boundary]:
    """Return the boundaries for accidents of such a run; polls count only a few times."""
    return {
        boundary
        for boundary in seen
        if boundary.kind not in _PASSED_OVER and (boundary.kind not in _POLLED or boundary.nth <= _MOST_POLLED)
    }


def draw(places: Sequence[Place], runs: int, seed: int) -> list[Chaos]:
    """Draw the runs: each place once, each kind of kill at each change, and shares of all else.

    :param places: the boundaries of each case.
    """
    dice = random.Random(seed)  # noqa: S311 (repeatable on purpose)
    everything = [(*place, accident) for place in places for accident in accidents_at(place[1])]
    dice.shuffle(everything)
    submits = [strike for strike in everything if strike[1].kind == SUBMIT and strike[0].outcome == "value"]
    under_way = [dice.choice(submits) for _ in range(int(runs * _UNDER_WAY))] if submits else []
    odd = _in_turn([strike for strike in everything if strike[2] in NEW])[: int(runs * _ODD)]
    covered = {strike[:2] for strike in odd}
    first = {strike[:2]: strike for strike in everything if strike[:2] not in covered}
    done = {*odd, *first.values()}
    rest = [strike for strike in everything if strike not in done]
    rest.sort(key=lambda strike: strike[1].kind not in _CHANGES or strike[2] not in KILLS)
    others = [*first.values(), *rest][: runs - len(odd) - len(under_way)]
    while len(others) < runs - len(odd) - len(under_way):
        others.append(dice.choice(everything))
    drawn = [_under_way(dice, *strike) for strike in under_way]
    drawn += [_struck(dice, *strike) for strike in (*odd, *others)]
    dice.shuffle(drawn)
    return [replace(chaos, run=f"{number:04}") for number, chaos in enumerate(drawn)]


def _in_turn(strikes: Sequence[Strike]) -> list[Strike]:
    """Put accidents in an order in which each kind has its turn, and has it at each kind of place."""
    by_accident: dict[Accident, dict[str, list[Strike]]] = defaultdict(lambda: defaultdict(list))
    for strike in strikes:
        by_accident[strike[2]][strike[1].kind].append(strike)
    turns = [_flat(*by_kind.values()) for by_kind in by_accident.values()]
    return _flat(*turns)


def _flat(*turns: Sequence[Strike]) -> list[Strike]:
    return [strike for turn in zip_longest(*turns) for strike in turn if strike is not None]


def _struck(dice: random.Random, case: Case, boundary: Boundary, accident: Accident) -> Chaos:
    """Draw a run whose task meets an accident at a boundary, and maybe another one later."""
    is_kill = accident in KILLS
    plans = [_plan(dice, accident, boundary)]
    seconds = dice.choice(_SLOW_SECONDS) if dice.random() < _SLOW * (2 if accident in NEW else 1) else 0.0
    clear = ""
    if case.outcome == "value" and (is_kill or _is_bearable(boundary, accident)) and dice.random() < _ONCE:
        return Chaos("", replace(case, has_retries=False), seconds, tuple(plans))
    if dice.random() < _CLEARED:
        clear = dice.choice((AFTER_A_CRASH, AT_THE_END)) if is_kill else AT_THE_END
    if dice.random() < _AGAIN:
        plans.append(_plan(dice, dice.choice(ACCIDENTS), None, dice.randint(1, _LATER)))
    if case.outcome == "value" and dice.random() < _LARGE:
        case = replace(case, outcome="reference")
    return Chaos("", case, seconds, tuple(plans), clear)


def _under_way(dice: random.Random, case: Case, boundary: Boundary, _: Accident) -> Chaos:
    """Draw a run whose task is tried again, or cleared once or more, while an older submit or job is under way."""
    plans = [_plan(dice, dice.choice((LATE, LATE, *KILLS[1:])), boundary)]
    if dice.random() < _ASKED:
        plans.append(_plan(dice, dice.choice(_OF_ONE_JOB), None, dice.randint(1, _NEXT)))
    later = [replace(boundary, nth=nth) for nth in range(2, dice.randint(1, 3) + 1)]
    plans += [_plan(dice, dice.choice((LATE, *KILLS[1:])), again) for again in later]
    if dice.random() < _AGAIN:
        plans.append(_plan(dice, dice.choice(ACCIDENTS), None, dice.randint(1, _LATER)))
    clear = AFTER_EACH_CRASH if dice.random() < _EPOCHS else ""
    return Chaos("", case, dice.choice((0.0, *_SLOW_SECONDS)), tuple(plans), clear)


def _plan(dice: random.Random, accident: Accident, at: Boundary | None, later: int = 0) -> Plan:
    delay, seconds = dice.uniform(0, _BEHIND_SECONDS), 0.0
    if accident.endswith(" late"):
        seconds = dice.uniform(0.2, _LATE_SECONDS)
    elif accident.startswith("comment"):
        seconds = dice.choice((0.0, FOR_GOOD))
    elif accident.endswith("unseen"):
        seconds = dice.uniform(0.5, _ODD_SECONDS)
    elif accident in NEW:
        seconds = dice.choice((0.0, dice.uniform(0.5, _ODD_SECONDS)))
    return Plan(accident, at, later, delay, seconds)


def _is_bearable(boundary: Boundary, accident: Accident) -> bool:
    """Check whether a task without retries must survive an answer: it has a job, and the answer is incomplete."""
    is_of_job = boundary.kind in OF_JOBS | OF_STAGES | {HISTORY}
    return accident in ODD_ANSWERS and is_of_job and (boundary.phase != "execute" or boundary.kind != "LIST")
