"""The cost of a page with 10 000 jobs, next to Airflow's own list, and of the plugin in processes without pages."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests.benchmarks.apart import percentile
from tests.lab import served
from tests.system.real_airflow import postgres
from tests.ui.airflow import ShownAirflow
from tests.ui.chromium import launched

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

JOBS, SHOWN = 10_000, 50
RUNS, STARTS, REFRESHES = 7, 15, 10
OURS, THEIRS = "ML Jobs", "Airflow's task instances"
# The path of each list, and the selector of its rows.
PAGES = {OURS: ("plugin/mljobs", "[data-testid=job-row]"), THEIRS: ("task_instances", "table tbody tr")}
# The moment at which the rows exist, and the start of our page.
_ARE_THERE = "([row, count]) => document.querySelectorAll(row).length >= count && performance.now()"
_FRAME = """
bundle => performance.getEntriesByType("resource").find(({ name }) => name.includes(bundle))?.startTime ?? 0
"""
_BUNDLE = "/mljobs.js"
_LIST = "/mljobs/api/jobs"
_APIS = ("/mljobs/api/", "/api/v2/", "/ui/")
# Both variants hide something from Airflow, so the hiding itself makes no difference.
_HIDING = """
import importlib.metadata, runpy, sys, time
entry_points = importlib.metadata.Distribution.entry_points.fget
shown = lambda self: [each for each in entry_points(self) if not each.value.startswith({hidden!r})]
importlib.metadata.Distribution.entry_points = property(shown)
"""
_PLUGIN = "airflow_provider_mljobs.plugin:"
_VERSION = """
sys.argv = ["airflow", "version"]
runpy.run_module("airflow", run_name="__main__", alter_sys=True)
"""
# The start of a task's process.
_TASK = """
import airflow.sdk.execution_time.task_runner
from airflow.sdk.listener import get_listener_manager
from airflow.sdk.plugins_manager import integrate_macros_plugins
integrate_macros_plugins()
get_listener_manager()
"""
STARTED = {"airflow version": _VERSION, "a task": _TASK}
# The import of the plugin alone, too short to stand out in the start of a process.
_IMPORT = """
import airflow.sdk.execution_time.task_runner
started = time.perf_counter()
import airflow_provider_mljobs.plugin
print(time.perf_counter() - started)
"""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A list of jobs in the browser: medians of some visits.

    :param first_s: seconds from the navigation until the rows of the first page exist, with an empty cache.
    :param again_s: the same with a warm cache.
    :param api_calls: the number of API calls until then.
    :param own_api_calls: those that the other page does not send; calls of the shared frame are left out.
    """

    who: str
    first_s: float
    again_s: float
    api_calls: int
    own_api_calls: int


@dataclass(frozen=True, kw_only=True)
class Route:
    """The answers of a route.

    :param p50_ms: milliseconds of an answer.
    """

    path: str
    p50_ms: float
    p95_ms: float
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Start:
    """The processor time of a process's start with and without the plugin, in turn.

    :param with_ms: the median.
    :param more_ms: the extra time with the plugin, in the median of the pairs.
    :param noise_ms: the difference to ``more_ms`` that half of the pairs stay within.
    """

    what: str
    with_ms: float
    without_ms: float
    more_ms: float
    noise_ms: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """All measurements of the page.

    :param frame_s: seconds until Airflow's frame, which both pages share, begins to load our page, with a warm cache.
    :param plugin_ms: milliseconds of the import of the plugin in a task's process.
    :param refresh_statements: the number of statements to Snowflake during the refreshes of the list.
    """

    jobs: int
    pages: list[Page]
    frame_s: float
    routes: list[Route]
    refreshes: int
    refresh_statements: int
    starts: list[Start]
    plugin_ms: float


def measure() -> Result:
    """Fill an Airflow with jobs, look at them, and start processes."""
    with (
        served() as snowflake,
        postgres() as database,
        tempfile.TemporaryDirectory() as home,
        launched() as browser,
    ):
        airflow = ShownAirflow(Path(home), snowflake, database)
        try:
            airflow.serve()
            airflow.remember(JOBS)
            pages, frame_s = _pages(airflow, browser)
            statements = _refresh(airflow, browser)
            routes = [_route(airflow, path) for path in (f"{_LIST}?limit={SHOWN}", "/mljobs/api/filters")]
            # Without compiled files every start would measure the compiler.
            environment = {**airflow.environment, "PYTHONDONTWRITEBYTECODE": ""}
            starts = [_start(what, code, environment) for what, code in STARTED.items()]
            plugin_ms = _plugin_ms(environment)
        finally:
            airflow.stop()
    return Result(
        jobs=JOBS,
        pages=pages,
        frame_s=frame_s,
        routes=routes,
        refreshes=REFRESHES,
        refresh_statements=statements,
        starts=starts,
        plugin_ms=plugin_ms,
    )


def show(result: Result) -> None:
    """Print the measurements."""
    for page in result.pages:
        print(
            f"{result.jobs} jobs, {page.who}: {SHOWN} rows after {page.first_s} s, "
            f"after {page.again_s} s in a browser that was here before; {page.own_api_calls} API calls of its own, "
            f"{page.api_calls} with those of the frame"
        )
    print(f"Airflow's frame of both pages takes {result.frame_s} s of the latter")
    for route in result.routes:
        print(f"{route.path}: {route.p50_ms} ms (p95 {route.p95_ms} ms), {route.bytes} bytes")
    print(f"{result.refreshes} refreshes asked Snowflake {result.refresh_statements} times")
    for start in result.starts:
        print(
            f"{start.what}: {start.with_ms} ms of a core with the plugin, {start.without_ms} ms without: "
            f"{start.more_ms:+} ms (±{start.noise_ms} ms)"
        )
    print(f"the plugin's import in a task: {result.plugin_ms} ms")


def save(result: Result, directory: Path) -> None:
    """Write the measurements as JSON, to compare runs."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ui.json").write_text(json.dumps(asdict(result), indent=1) + "\n")


@dataclass(frozen=True)
class _Visit:
    seconds: float
    frame: float
    calls: tuple[str, ...]


def _pages(airflow: ShownAirflow, browser: Any) -> tuple[list[Page], float]:
    first: dict[str, list[_Visit]] = {who: [] for who in PAGES}
    again: dict[str, list[_Visit]] = {who: [] for who in PAGES}
    for _ in range(RUNS):
        for who in PAGES:
            with _window(airflow, browser) as page:
                first[who].append(_visit(airflow, page, who))
                again[who].append(_visit(airflow, page, who))
    asked = {who: {call for visit in first[who] for call in visit.calls} for who in PAGES}
    pages = [
        Page(
            who=who,
            first_s=round(statistics.median(visit.seconds for visit in first[who]), 2),
            again_s=round(statistics.median(visit.seconds for visit in again[who]), 2),
            api_calls=max(len(visit.calls) for visit in first[who]),
            own_api_calls=max(sum(call not in asked[other] for call in visit.calls) for visit in first[who]),
        )
        for who, other in ((OURS, THEIRS), (THEIRS, OURS))
    ]
    return pages, round(statistics.median(visit.frame for visit in again[OURS]), 2)


@contextmanager
def _window(airflow: ShownAirflow, browser: Any) -> Iterator[Any]:
    """Open a window with a logged-in user and an empty cache."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.add_cookies([{"name": "_token", "value": airflow.token(), "url": airflow.url}])
    try:
        yield context.new_page()
    finally:
        context.close()


def _visit(airflow: ShownAirflow, page: Any, who: str) -> _Visit:
    path, row = PAGES[who]
    calls: list[str] = []

    def note(request: Any) -> None:
        asked = request.url.removeprefix(airflow.url).partition("?")[0]
        if asked.startswith(_APIS):
            calls.append(asked)

    page.on("request", note)
    page.goto(f"{airflow.url}/{path}", wait_until="commit")
    seconds = page.wait_for_function(_ARE_THERE, arg=[row, SHOWN]).json_value() / 1000
    page.remove_listener("request", note)
    return _Visit(seconds, page.evaluate(_FRAME, _BUNDLE) / 1000, tuple(calls))


def _refresh(airflow: ShownAirflow, browser: Any) -> int:
    """Wait for refreshes of the list, and return the number of statements to Snowflake."""
    with _window(airflow, browser) as page:
        _visit(airflow, page, OURS)
        before = airflow.snowflake.statements.total
        for _ in range(REFRESHES):
            with page.expect_response(lambda answer: _LIST in answer.url, timeout=60_000):
                pass
        return airflow.snowflake.statements.total - before


def _route(airflow: ShownAirflow, path: str) -> Route:
    with httpx.Client(headers={"Authorization": f"Bearer {airflow.token()}"}) as client:
        times = []
        for _ in range(3 * RUNS):
            started = time.perf_counter()
            answer = client.get(f"{airflow.url}{path}").raise_for_status()
            times.append(1000 * (time.perf_counter() - started))
    return Route(
        path=path,
        p50_ms=round(statistics.median(times)),
        p95_ms=round(percentile(times, 95)),
        bytes=len(answer.content),
    )


def _start(what: str, code: str, environment: Mapping[str, str]) -> Start:
    pairs = [(_seconds(code, "", environment), _seconds(code, _PLUGIN, environment)) for _ in range(STARTS + 1)]
    # The first ones compile.
    have, have_not = zip(*pairs[1:], strict=True)
    differences = [one - other for one, other in zip(have, have_not, strict=True)]
    more = statistics.median(differences)
    numbers = {
        "with_ms": statistics.median(have),
        "without_ms": statistics.median(have_not),
        "more_ms": more,
        "noise_ms": statistics.median(abs(each - more) for each in differences),
    }
    return Start(what=what, **{name: round(1000 * seconds, 1) for name, seconds in numbers.items()})


def _seconds(code: str, hidden: str, environment: Mapping[str, str]) -> float:
    """Return the processor seconds of a fresh interpreter, which do not depend on the load of the machine.

    :param hidden: the prefix of the entry points to hide from Airflow; empty to hide none.
    """
    command = [sys.executable, "-c", _HIDING.format(hidden=hidden or "-") + code]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def _plugin_ms(environment: Mapping[str, str]) -> float:
    command = [sys.executable, "-c", _HIDING.format(hidden=_PLUGIN) + _IMPORT]
    seconds = [float(subprocess.check_output(command, env=environment, text=True)) for _ in range(RUNS)]
    return round(1000 * statistics.median(seconds), 1)
