"""Crash and disturb 500 runs of a short job at every statement, and count losses and leftovers: ``make bench-chaos``.

``python -m tests.benchmarks.chaos --runs 50 --seed 3`` takes less time, with other accidents.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.chaos_draw import boundaries_of, draw
from tests.benchmarks.chaos_script import ACCIDENTS, DISTURBANCES, ODD_ANSWERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from multiprocessing.connection import Connection

    from tests.benchmarks.chaos_judge import Chaos, Report
    from tests.benchmarks.chaos_lane import Left
    from tests.benchmarks.chaos_script import Accident, Boundary
    from tests.benchmarks.chaos_tries import Outcome

BUILD = Path(__file__).parents[2] / "build" / "bench"
# Twice as many as cores: half of the time lanes wait for late effects and sleeping jobs.
LANES = 4
_PROGRESS_AFTER = 50
_LAST_SECONDS = 30
KINDS = {"duplicate": "duplicates", "lost result": "lost_results", "wrong state": "wrong_states"}


def run_lane(pipe: Connection, environment: dict[str, str], log: Path) -> None:
    """Run the lane of a process: each run from the pipe, on an Airflow and a Snowflake of this process.

    :param pipe: brings runs, and ``None`` at the end; takes the reports.
    :param environment: for Airflow.
    :param log: the log of the tasks' processes.
    """
    os.environ |= environment
    # Output of Airflow and the interpreter goes to the log; a benchmark prints only its findings.
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
        """Give each free lane the next run; yields the reports as they come."""
        remaining, busy = iter(runs), set()
        for pipe in self._pipes:
            busy |= self._begin(pipe, remaining)
        while busy:
            for pipe in wait(busy):
                try:
                    yield pipe.recv()
                except EOFError:
                    sys.exit(f"A lane has failed; see {BUILD}/chaos_lane_*.log")
                busy.remove(pipe)
                busy |= self._begin(pipe, remaining)

    @staticmethod
    def _begin(pipe: Connection, remaining: Iterator[Chaos]) -> set[Connection]:
        chaos = next(remaining, None)
        if chaos is None:
            return set()
        pipe.send(chaos)
        return {pipe}

    def collect(self) -> list[Left]:
        """Collect the leftovers of each lane, and end it."""
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
    """Run and disturb; returns the reports, the leftovers, and the number of boundaries."""
    from tests.benchmarks.chaos_judge import Chaos
    from tests.benchmarks.chaos_tries import Case

    outcomes: tuple[Outcome, ...] = ("value", "fails once", "fails")
    cases = [Case(outcome, deferrable) for outcome in outcomes for deferrable in (False, True)]
    # Twice, because boundaries that depend on time differ from run to run.
    undisturbed = [Chaos(f"dry{number}", case) for number, case in enumerate((*cases, *cases))]
    common: dict[Case, set[Boundary]] = {}
    for report in lanes.run(undisturbed):
        assert not report.wrong, report
        case, boundaries = report.chaos.case, boundaries_of(report.seen)
        common[case] = common.get(case, boundaries) & boundaries
    places = sorted(((case, place) for case, boundaries in common.items() for place in boundaries), key=str)
    print(f"{len(places)} boundaries in {len(cases)} kinds of tasks; {runs} runs, seed {seed}", flush=True)
    reports, began = [], time.monotonic()
    for report in lanes.run(draw(places, runs, seed)):
        reports.append(report)
        for kind, what in report.wrong:
            print(f"run {report.chaos.run}: {kind}: {what}; {_describe(report)}", flush=True)
        if report.wrong:
            (BUILD / f"chaos_{seed}_{report.chaos.run}.txt").write_text(
                f"{_describe(report)}\n" + "\n".join(report.trace)
            )
        if len(reports) % _PROGRESS_AFTER == 0:
            print(f"{len(reports)} runs in {time.monotonic() - began:.0f} s", flush=True)
    return reports, lanes.collect(), len(places)


def _describe(report: Report) -> str:
    hits = ", ".join(f"{hit.accident} {hit.boundary}" for hit in report.hits)
    jobs = ", ".join(f"{job.name} {job.status}" for job in report.jobs)
    return f"{report.chaos.case.dag_id} {report.chaos.clear} [{hits}] [{jobs}]"


def show(reports: Sequence[Report], leftovers: Sequence[Left], boundaries: int) -> None:
    """Print the accidents at each boundary, and the outcomes."""
    hits = Counter((hit.boundary.phase, hit.boundary.kind, hit.accident) for report in reports for hit in report.hits)
    wrong = Counter(
        (hit.boundary.phase, hit.boundary.kind) for report in reports if report.wrong for hit in report.hits
    )
    for accidents in (DISTURBANCES, ODD_ANSWERS):
        heads = tuple(zip(*(f"{accident} ".split(" ")[:2] for accident in accidents), strict=True))
        print(f"\n{'where':44}" + "".join(f"{name:>9}" for name in heads[0]) + f"{'':>7}")
        print(f"{'':44}" + "".join(f"{name:>9}" for name in heads[1]) + f"{'wrong':>7}")
        for phase, kind in sorted({(phase, kind) for phase, kind, accident in hits if accident in accidents}):
            counts = "".join(f"{hits[phase, kind, accident] or '':>9}" for accident in accidents)
            print(f"{phase + ': ' + kind:44}{counts}{wrong[phase, kind]:>7}")
    print()
    for accident, count in kinds_of(reports).items():
        bad = sum(any(hit.accident == accident for hit in report.hits) for report in reports if report.wrong)
        print(f"{accident:16} struck {count:4} times; of these runs {bad} went wrong")
    late = [effect for report in reports for effect in report.late]
    print(
        f"{sum(effect.done is not None for effect in late)} statements took effect late, {len(late)} were to; "
        f"{sum(job.is_late for report in reports for job in report.jobs)} of these made a job; "
        f"{sum(report.odd for report in reports)} answers were odd"
    )
    cleared, again = (sum(len(report.course.clears) > most for report in reports) for most in (0, 1))
    once = sum(not report.chaos.case.has_retries for report in reports)
    unhurt = sum(not report.hits for report in reports)
    met = len({(report.chaos.case.dag_id, hit.boundary) for report in reports for hit in report.hits})
    print(
        f"{cleared} runs cleared by a person, {again} more than once, {once} without retries, "
        f"{unhurt} whose accident found nothing to hit; {met} boundaries hit; undisturbed tasks have {boundaries}"
    )
    for each in leftovers:
        first, later = each.summaries
        print(f"{each.before} services and files remained. The collection: {first} After the retention: {later}")
        for path in each.orphans + each.lost:
            print(f"  {path}")


def kinds_of(reports: Sequence[Report]) -> dict[Accident, int]:
    """Count how often each kind of accident has struck."""
    hits = Counter(hit.accident for report in reports for hit in report.hits)
    return {accident: hits[accident] for accident in ACCIDENTS}


def totals(reports: Sequence[Report], leftovers: Sequence[Left]) -> dict[str, int]:
    """Count the violations."""
    counts = {
        "runs": len(reports),
        "faults": sum(len(report.hits) for report in reports),
        "orphans_after_gc": sum(len(each.orphans) for each in leftovers),
        **{name: sum(wrong == kind for report in reports for wrong, _ in report.wrong) for kind, name in KINDS.items()},
    }
    counts["lost_results"] += sum(len(each.lost) for each in leftovers)
    return counts


def save(counts: dict[str, int], reports: Sequence[Report], seed: int) -> None:
    """Write the counts and the accidents as JSON, to compare runs."""
    hits = Counter((str(hit.boundary), hit.accident, bool(report.wrong)) for report in reports for hit in report.hits)
    listed = [
        {"where": where, "accident": accident, "wrong": wrong, "times": times}
        for (where, accident, wrong), times in sorted(hits.items())
    ]
    (BUILD / "chaos.json").write_text(
        json.dumps({**counts, "seed": seed, "kinds": kinds_of(reports), "hit": listed}, indent=1) + "\n"
    )


def main() -> None:
    """Measure, print, save; exits with 1 after a loss or a leftover."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, closing(Lanes(Path(home))) as lanes:
        reports, leftovers, boundaries = measure(asked.runs, asked.seed, lanes)
    show(reports, leftovers, boundaries)
    counts = totals(reports, leftovers)
    save(counts, reports, asked.seed)
    print(", ".join(f"{name}: {count}" for name, count in counts.items()))
    sys.exit(any(counts[name] for name in (*KINDS.values(), "orphans_after_gc")))


if __name__ == "__main__":
    main()
