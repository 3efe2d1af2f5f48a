"""Crash and disturb 500 runs of a short job at every statement, and count what is lost or left: ``make bench-chaos``.

``python -m tests.benchmarks.chaos --runs 50 --seed 3`` takes less time, and other accidents.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.chaos_wire import (
    ACCIDENTS,
    AFTER_A_CRASH,
    AT_THE_END,
    KILLS,
    MESSAGE,
    Boundary,
    Plan,
    accidents_at,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from multiprocessing.connection import Connection

    from tests.benchmarks.chaos_lane import Chaos, Left, Report
    from tests.benchmarks.chaos_tries import Case, Outcome

BUILD = Path(__file__).parents[2] / "build" / "bench"
LANES = 2
# Shares of runs: with a second accident, with a person who clears the task, without retries (of those that it is
# possible for), with a value for the stage (likewise), with a slow job.
_AGAIN, _CLEARED, _ONCE, _LARGE, _SLOW = 0.3, 0.15, 0.25, 0.25, 0.3
# A second accident comes within so many statements.
_LATER = 25
_SLOW_SECONDS = 1.5
# Within so many seconds behind an answer a process does what it does of it.
_BEHIND_SECONDS = 0.05
# How often these come depends on the time that things take.
_POLLED = frozenset({"SHOW JOB SERVICES", "SYSTEM$GET_SERVICE_LOGS", "DESCRIBE SERVICE", "login", "logout"})
_MOST_POLLED = 2
_CHANGES = frozenset({"EXECUTE JOB SERVICE", "PUT", "REMOVE", "DROP SERVICE"})
# Says nothing, as far as a crash is concerned.
_PASSED_OVER = frozenset({f"{MESSAGE}MaskSecret"})
_HEADS = tuple(zip(*(f"{accident} ".split(" ")[:2] for accident in ACCIDENTS), strict=True))
_TOLD_AFTER = 50
_LAST_SECONDS = 30
KINDS = {"duplicate": "duplicates", "lost result": "lost_results", "wrong state": "wrong_states"}


def boundaries_of(report: Report) -> set[Boundary]:
    """Return where a run like this one can be disturbed."""
    return {
        boundary
        for boundary in report.seen
        if boundary.kind not in _PASSED_OVER and (boundary.kind not in _POLLED or boundary.nth <= _MOST_POLLED)
    }


def draw(boundaries: Sequence[tuple[Case, Boundary]], runs: int, seed: int) -> list[Chaos]:
    """Draw the runs: each boundary once, then each kind of kill at what changes something, then all else.

    :param boundaries: those of each case.
    """
    from tests.benchmarks.chaos_lane import Chaos

    dice = random.Random(seed)  # noqa: S311 (repeatable on purpose)
    everything = [(*place, accident) for place in boundaries for accident in accidents_at(place[1])]
    dice.shuffle(everything)
    first: dict[tuple[Case, Boundary], Any] = {}
    for case, boundary, accident in everything:
        first.setdefault((case, boundary), (case, boundary, accident))
    chosen = list(first.values())
    dice.shuffle(chosen)
    done = set(chosen)
    rest = [each for each in everything if each not in done]
    rest.sort(key=lambda each: each[1].kind not in _CHANGES or each[2] not in KILLS)
    chosen = (chosen + rest)[:runs]
    while len(chosen) < runs:
        chosen.append(dice.choice(everything))
    return [_chaos(Chaos, dice, number, *each) for number, each in enumerate(chosen)]


def _chaos(make: type[Chaos], dice: random.Random, number: int, case: Case, boundary: Boundary, accident: str) -> Chaos:
    is_kill = accident in KILLS
    plans = [Plan(accident, boundary, delay=dice.uniform(0, _BEHIND_SECONDS))]
    seconds = _SLOW_SECONDS if dice.random() < _SLOW else 0.0
    clear = ""
    if is_kill and case.outcome == "value" and dice.random() < _ONCE:
        return make(f"{number:04}", replace(case, has_retries=False), seconds, tuple(plans))
    if dice.random() < _CLEARED:
        clear = dice.choice((AFTER_A_CRASH, AT_THE_END)) if is_kill else AT_THE_END
    if dice.random() < _AGAIN:
        again = dice.choice(ACCIDENTS)
        plans.append(Plan(again, None, later=dice.randint(1, _LATER), delay=dice.uniform(0, _BEHIND_SECONDS)))
    if case.outcome == "value" and dice.random() < _LARGE:
        case = replace(case, outcome="reference")
    return make(f"{number:04}", case, seconds, tuple(plans), clear)


def run_lane(pipe: Connection, environment: dict[str, str], log: Path) -> None:
    """Do what is sent through a pipe, in a process with an Airflow and a Snowflake of its own; answer each.

    :param pipe: brings runs, and ``None`` at the end.
    :param environment: for Airflow.
    :param log: where the processes of tasks write to.
    """
    os.environ |= environment
    # What Airflow and the interpreter have to say; a benchmark prints what it has found.
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    from tests import lab
    from tests.benchmarks.chaos_lane import Lane

    with lab.served() as snowflake, closing(Lane(snowflake, log)) as lane:
        while (chaos := pipe.recv()) is not None:
            pipe.send(lane.run(chaos))
        pipe.send(lane.collect())


class Lanes:
    """Some lanes at work, each in a process of its own.

    :param home: a directory for all that they write.
    """

    def __init__(self, home: Path) -> None:
        BUILD.mkdir(parents=True, exist_ok=True)
        context = get_context("spawn")
        self._pipes, self._processes = [], []
        for number in range(LANES):
            ours, theirs = context.Pipe()
            log = BUILD / f"chaos_lane_{number}.log"
            log.unlink(missing_ok=True)
            arguments = (theirs, _environment(home / str(number)), log)
            process = context.Process(target=run_lane, args=arguments)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, runs: Iterable[Chaos]) -> Iterator[Report]:
        """Give each lane the next run as soon as it is free; the reports come as they are made."""
        left, busy = iter(runs), set()
        for pipe in self._pipes:
            busy |= self._begin(pipe, left)
        while busy:
            for pipe in wait(busy):
                try:
                    yield pipe.recv()
                except EOFError:
                    sys.exit(f"A lane has failed; see {BUILD}/chaos_lane_*.log")
                busy.remove(pipe)
                busy |= self._begin(pipe, left)

    @staticmethod
    def _begin(pipe: Connection, left: Iterator[Chaos]) -> set[Connection]:
        chaos = next(left, None)
        if chaos is None:
            return set()
        pipe.send(chaos)
        return {pipe}

    def collect(self) -> list[Left]:
        """Collect what is left in each lane, and end it."""
        for pipe in self._pipes:
            pipe.send(None)
        return [pipe.recv() for pipe in self._pipes]

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.join(_LAST_SECONDS)
            process.kill()


def _environment(home: Path) -> dict[str, str]:
    home.mkdir()
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "airflow_provider_mljobs=INFO,airflow.task.operators=INFO",
        "SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true",
    }


def measure(runs: int, seed: int, lanes: Lanes) -> tuple[list[Report], list[Left], int]:
    """Run and disturb; returns the reports, what is left, and how many boundaries there are."""
    from tests.benchmarks.chaos_lane import Chaos
    from tests.benchmarks.chaos_tries import Case

    outcomes: tuple[Outcome, ...] = ("value", "fails once", "fails")
    cases = [Case(outcome, deferrable) for outcome in outcomes for deferrable in (False, True)]
    # Twice, because what depends on time may not be there in all runs.
    undisturbed = [Chaos(f"dry{number}", case) for number, case in enumerate((*cases, *cases))]
    common: dict[Case, set[Boundary]] = {}
    for report in lanes.run(undisturbed):
        assert not report.wrong, report
        case, found = report.chaos.case, boundaries_of(report)
        common[case] = common.get(case, found) & found
    places = sorted(((case, place) for case, found in common.items() for place in found), key=str)
    print(f"{len(places)} boundaries in {len(cases)} kinds of tasks; {runs} runs, seed {seed}", flush=True)
    reports, began = [], time.monotonic()
    for report in lanes.run(draw(places, runs, seed)):
        reports.append(report)
        for kind, what in report.wrong:
            print(f"run {report.chaos.run}: {kind}: {what}; {_told(report)}", flush=True)
        if len(reports) % _TOLD_AFTER == 0:
            print(f"{len(reports)} runs in {time.monotonic() - began:.0f} s", flush=True)
    return reports, lanes.collect(), len(places)


def _told(report: Report) -> str:
    hits = ", ".join(f"{hit.accident} {hit.boundary}" for hit in report.hits)
    jobs = ", ".join(f"{job.name} {job.status}" for job in report.jobs)
    return f"{report.chaos.case.dag_id} {report.chaos.clear} [{hits}] [{jobs}]"


def show(reports: Sequence[Report], left: Sequence[Left], boundaries: int) -> None:
    """Print what was hit by what, and what came of it."""
    hits = Counter((hit.boundary.phase, hit.boundary.kind, hit.accident) for report in reports for hit in report.hits)
    wrong = Counter(
        (hit.boundary.phase, hit.boundary.kind) for report in reports if report.wrong for hit in report.hits
    )
    print(f"\n{'where':44}" + "".join(f"{name:>9}" for name in _HEADS[0]) + f"{'':>7}")
    print(f"{'':44}" + "".join(f"{name:>9}" for name in _HEADS[1]) + f"{'wrong':>7}")
    for phase, kind in sorted({(phase, kind) for phase, kind, _ in hits}):
        counts = "".join(f"{hits[phase, kind, accident] or '':>9}" for accident in ACCIDENTS)
        print(f"{phase + ': ' + kind:44}{counts}{wrong[phase, kind]:>7}")
    cleared = sum(bool(report.cleared) for report in reports)
    once = sum(not report.chaos.case.has_retries for report in reports)
    unhurt = sum(not report.hits for report in reports)
    met = len({(report.chaos.case.dag_id, hit.boundary) for report in reports for hit in report.hits})
    print(
        f"{cleared} runs cleared by a person, {once} without retries, {unhurt} whose accident found nothing to hit; "
        f"{met} boundaries hit; undisturbed tasks have {boundaries}"
    )
    for each in left:
        first, later = each.summaries
        print(f"{each.before} services and files were left. The collection: {first} After the retention: {later}")
        for path in each.orphans + each.lost:
            print(f"  {path}")


def totals(reports: Sequence[Report], left: Sequence[Left]) -> dict[str, int]:
    """Count what must not be."""
    found = {
        "runs": len(reports),
        "faults": sum(len(report.hits) for report in reports),
        "orphans_after_gc": sum(len(each.orphans) for each in left),
        **{name: sum(wrong == kind for report in reports for wrong, _ in report.wrong) for kind, name in KINDS.items()},
    }
    found["lost_results"] += sum(len(each.lost) for each in left)
    return found


def save(found: dict[str, int], reports: Sequence[Report], seed: int) -> None:
    """Write the counts and what was hit for whoever compares runs."""
    hits = Counter((str(hit.boundary), hit.accident, bool(report.wrong)) for report in reports for hit in report.hits)
    listed = [
        {"where": where, "accident": accident, "wrong": wrong, "times": times}
        for (where, accident, wrong), times in sorted(hits.items())
    ]
    (BUILD / "chaos.json").write_text(json.dumps({**found, "seed": seed, "hit": listed}, indent=1) + "\n")


def main() -> None:
    """Measure, print, save; ends with 1 if anything was lost or left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, closing(Lanes(Path(home))) as lanes:
        reports, left, boundaries = measure(asked.runs, asked.seed, lanes)
    show(reports, left, boundaries)
    found = totals(reports, left)
    save(found, reports, asked.seed)
    print(", ".join(f"{name}: {count}" for name, count in found.items()))
    sys.exit(any(found[name] for name in (*KINDS.values(), "orphans_after_gc")))


if __name__ == "__main__":
    main()
