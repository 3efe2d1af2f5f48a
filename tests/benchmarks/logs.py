"""The lines of a log longer than its nodes keep: logged once, announced as missing, or lost silently."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tests.benchmarks.apart import Load, Meter, Snowflake, loop_aside

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

INSTANCES = 3
LINES = 33_334
SECONDS = 60.0
LATENCY = 0.05
_JOB = "MLJOB_PRINTS"
_PRINT = """
import time
began = time.monotonic()
for number in range({lines}):
    if number % 10 == 0:
        time.sleep(max(0.0, began + number * {seconds} / {lines} - time.monotonic()))
    print(f"epoch 7 step {{number:06d}} loss={{1 / (number + 1):.6f}} lr=0.000100", flush=True)
"""
_START = """EXECUTE JOB SERVICE IN COMPUTE POOL ML_POOL NAME = {name} ASYNC = TRUE REPLICAS = 3
FROM SPECIFICATION $${specification}$$"""
_TIMES = "SELECT CREATED_TIME, COMPLETED_TIME FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY())"
_LINE = re.compile(r"\[instance (\d)\] (?:epoch 7 step (\d{6}) loss=\d\.\d{6} lr=0\.000100|(\[… |\[The log of ).*)")


@dataclass(frozen=True, kw_only=True)
class Row:
    """The fate of the lines that a job printed.

    :param logged: the number of those in the task's log.
    :param twice: the number of those that are there a second time.
    :param announced_missing: the number of missing lines that the log announces.
    :param silently_missing: the number of other missing lines.
    """

    printed: int
    logged: int
    twice: int
    announced_missing: int
    silently_missing: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measurement.

    :param case: the condition of the measurement.
    :param took: seconds for which the job printed.
    :param statements: the number of statements to watch the job and to read the rest.
    :param bytes_per_s: bytes that the trigger wrote to the log per second.
    :param late: the number of lines that came only when the task resumed.
    """

    case: str
    row: Row
    load: Load
    took: float
    statements: int
    bytes_per_s: float
    late: int


def measure() -> list[Measured]:
    """Measure with an event table, and for a shorter time without one."""
    return [
        _measure("with an event table", LINES, SECONDS),
        _measure("without one", LINES // 3, SECONDS / 3, event_table=False),
    ]


def show(measurements: Sequence[Measured]) -> None:
    """Print the measurements as a table."""
    titles = ("printed", "logged", "twice", "announced", "silent", "late", "KB/s", "statements", "CPU %", "lag p99 ms")
    print(f"{'logs of 3 instances':20} " + " ".join(f"{title:>10}" for title in titles) + "   took s")
    for each in measurements:
        values = (
            *asdict(each.row).values(), each.late, round(each.bytes_per_s / 1000, 1), each.statements,
            each.load.cpu_percent, each.load.loop_lag_p99_ms,
        )  # fmt: skip
        print(f"{each.case:20} " + " ".join(f"{value:>10}" for value in values) + f"   {each.took:6.1f}")


def save(measurements: Sequence[Measured], directory: Path) -> None:
    """Write the first measurement as JSON, to compare runs."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "logs.json").write_text(json.dumps(asdict(measurements[0].row), indent=1) + "\n")


def count(texts: Iterable[str], lines: int) -> Row:
    """Count the lines in a task's log.

    :param lines: the number of lines that each instance printed.
    """
    seen: dict[int, list[int | None]] = {instance: [] for instance in range(INSTANCES)}
    for text in texts:
        for line in text.split("\n"):
            match = _LINE.fullmatch(line)
            if match is not None:
                instance, number, gap = match.groups()
                seen[int(instance)].append(None if gap else int(number))
    logged = twice = announced = 0
    for numbers in seen.values():
        times = Counter(number for number in numbers if number is not None)
        logged += len(times)
        twice += times.total() - len(times)
        announced += len(_announced(numbers, lines) - times.keys())
    printed = lines * INSTANCES
    return Row(
        printed=printed,
        logged=logged,
        twice=twice,
        announced_missing=announced,
        silently_missing=printed - logged - announced,
    )


def _announced(numbers: Sequence[int | None], lines: int) -> set[int]:
    """Return the missing lines that the log announces."""
    missing: set[int] = set()
    for index, number in enumerate(numbers):
        if number is None:
            before = next((other for other in reversed(numbers[:index]) if other is not None), -1)
            behind = next((other for other in numbers[index:] if other is not None), lines)
            missing |= set(range(before + 1, behind))
    return missing


def _measure(case: str, lines: int, seconds: float, *, event_table: bool = True) -> Measured:
    command = ["python3", "-c", _PRINT.format(lines=lines, seconds=seconds)]
    container = {"name": "main", "image": "/snowflake/images/snowflake_images/x:1", "command": command}
    specification = json.dumps({"spec": {"containers": [container]}})
    with Snowflake(event_table=event_table) as snowflake:
        loop = loop_aside(_follow, snowflake, seconds)
        loop.hear()
        snowflake.start(_START.replace("{specification}", specification), [_JOB])
        snowflake.delay(LATENCY)
        before, _ = snowflake.counts()
        loop.tell("go")
        live, rest, load = loop.hear()
        after, _ = snowflake.counts()
        loop.end()
        ((created, completed),) = snowflake.rows(_TIMES)
        took = (completed - created).total_seconds()
    return Measured(
        case=case,
        row=count([*live, *rest], lines),
        load=load,
        took=took,
        statements=after - before,
        bytes_per_s=sum(len(text.encode()) for text in live) / took,
        late=count(rest, lines).logged,
    )


# The functions below run in the process of the loop.


def _follow(pipe: Connection, seconds: float) -> None:
    import structlog

    from airflow_provider_mljobs.hooks import MLJobHook

    texts: list[str] = []

    def collect(_: Any, __: str, event: Any) -> Any:
        texts.append(event["event"])
        raise structlog.DropEvent

    structlog.configure(processors=[collect], wrapper_class=structlog.make_filtering_bound_logger("info"))
    MLJobHook().get_conn().close()
    pipe.send("ready")
    pipe.recv()
    event, load = asyncio.run(_observe(seconds))
    # As Airflow brings it from the trigger to the task.
    live, event = texts.copy(), json.loads(json.dumps(event))
    _finish(event)
    pipe.send((live, texts[len(live) :], load))


async def _observe(seconds: float) -> tuple[dict[str, Any], Load]:
    from airflow_provider_mljobs.triggers import MLJobTrigger

    meter = Meter()
    measuring = asyncio.create_task(meter.measure(seconds))
    trigger = MLJobTrigger(f"MLJOBS_DB.PUBLIC.{_JOB}", "snowflake_default")
    event = await anext(aiter(trigger.run()))
    return event.payload, await measuring


def _finish(event: dict[str, Any]) -> None:
    """Write the rest of the log, as the resumed task does."""
    import structlog

    from airflow_provider_mljobs.gateway.joblogs import Printed
    from airflow_provider_mljobs.gateway.outcome import Outcome, complete
    from airflow_provider_mljobs.hooks import MLJobHook
    from airflow_provider_mljobs.task.joblog import write_output

    with MLJobHook() as hook:
        job = hook.job(event["job_id"])
        outcome = Outcome.of_event(event, job, None, Printed.from_json(event["printed"]))
        outcome = complete(hook.client, outcome, instances=INSTANCES)
    write_output(structlog.get_logger(), job, outcome.unseen)
