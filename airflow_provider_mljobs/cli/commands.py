"""The commands of `airflow mljobs`. An error is one line on stderr and an exit code."""

# ruff: noqa: T201 (a command line program prints)

from __future__ import annotations

import json
import os
import re
import sys
import threading
from datetime import UTC, datetime, timedelta
from functools import wraps
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from airflow.cli.simple_table import AirflowConsole
from airflow.sdk.exceptions import AirflowException
from airflow.utils.cli import suppress_logs_and_warning
from rich.markup import escape

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, MLJobError, UnreadableError
from airflow_provider_mljobs.gateway import inspection
from airflow_provider_mljobs.gateway.joblogs import Printed, read_logs
from airflow_provider_mljobs.gateway.watcher.follower import LogOutput, Message, Report, WaitEnded
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.jobs.checkup import State, script
from airflow_provider_mljobs.jobs.credentials import starred
from airflow_provider_mljobs.jobs.logs.text import printable
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.outcome.watch import Verdict
from airflow_provider_mljobs.jobs.untrusted import read_json, reading
from airflow_provider_mljobs.task.airflow_internals import as_server
from airflow_provider_mljobs.task.query_tags import role_tag
from airflow_provider_mljobs.task.task_states import of_database
from airflow_provider_mljobs.task.waiting import plan_wait

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable, Mapping
    from typing import NoReturn, TextIO

    from airflow_provider_mljobs.gateway.collection import Item
    from airflow_provider_mljobs.jobs.checkup import Finding
    from airflow_provider_mljobs.jobs.names import QualifiedName

_FAILURE, _USAGE, _INTERRUPTED = 1, 2, 130
_FOLLOW_SECONDS = 2.0
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(rf"([0-9]+)([{''.join(_UNITS)}])")


def _command(function: Callable[[Namespace, MLJobHook], None]) -> Callable[[Namespace], None]:
    """Pass a hook to a command, and print its errors as one line."""

    @suppress_logs_and_warning
    @wraps(function)
    def command(args: Namespace) -> None:
        try:
            with as_server(), MLJobHook(args.conn_id, query_tag=role_tag("cli")) as hook:
                function(args, hook)
                sys.stdout.flush()
        except KeyboardInterrupt:
            _cancel_timers()
            raise SystemExit(_INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of the pipe has closed it; the flush at exit would print a traceback.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except InvalidJobSpecError as error:
            _exit(str(error), _USAGE)
        except (MLJobError, AirflowException) as error:
            _exit(str(error))

    return command


def _cancel_timers() -> None:
    """End the timers of interrupted statements.

    An interrupt between the start of the connector's timer and its ``try`` leaves the timer, and the end of the process
    would wait for it, up to the network timeout.
    """
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()


def _exit(message: str, code: int = _FAILURE) -> NoReturn:
    _print(starred(" ".join(message.split())), sys.stderr)
    raise SystemExit(code)


@_command
def list_jobs(args: Namespace, hook: MLJobHook) -> None:
    """List jobs, newest last."""
    rows = sorted(hook.list(args.prefix, hook.schema_of(args.schema)), key=lambda row: row["created_on"])
    jobs = (
        {
            "job_id": f"{row['database_name']}.{row['schema_name']}.{row['name']}",
            "status": row["status"],
            "compute_pool": row["compute_pool"],
            "created_on": row["created_on"].isoformat(timespec="seconds"),
            "task": _task(row["comment"]),
        }
        for row in rows
        if args.state in {None, row["status"]}
    )
    _print_rows(jobs, args.output)


@_command
def describe_job(args: Namespace, hook: MLJobHook) -> None:
    """Show a job and its containers."""
    job = hook.describe(hook.job(args.job))
    job["created_on"] = job["created_on"].isoformat(timespec="seconds")
    for container in job["containers"]:
        if (started := container["started"]) is not None:
            container["started"] = datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds")
    if args.output in {"json", "yaml"}:
        _print_value(job, args.output)
        return
    containers = job.pop("containers")
    _print_rows(({"property": name, "value": value} for name, value in job.items()), args.output)
    columns = ("instance_id", "name", "status", "message", "last_exit_code", "started")
    _print_rows(({name: container[name] for name in columns} for container in containers), args.output)


@_command
def logs_job(args: Namespace, hook: MLJobHook) -> None:
    """Print a job's log; with ``--follow``, until the job ends."""
    job = hook.job(args.job)
    hook.status(job)
    sources = inspection.sources(hook.client, job, args.instance, args.container)
    if not sources:
        _exit(f"Job {job} has no such instance or container. Show them with: airflow mljobs describe {job}")
    if not args.follow:
        if text := read_logs(hook.client.log_store, sources):
            _print(starred(text))
        return
    labels = tuple(source.label for source in sources)
    event = _follow(hook, job, lambda line: _print_line(line, labels))
    verdict, status = Verdict(event["verdict"]), JobStatus(event["status"])
    if verdict is not Verdict.FINISHED:
        _exit(f"Job {job}: {event['message']}")
    for line in inspection.rest_of_log(hook.client, job, Printed.from_json(event["printed"])).unseen:
        _print_line(line, labels)
    if status is not JobStatus.DONE:
        raise SystemExit(_FAILURE)


@_command
def result_job(args: Namespace, hook: MLJobHook) -> None:
    """Print the result of a job."""
    job = hook.job(args.job)
    status = hook.status(job)
    if not status.is_terminal:
        _exit(f"Job {job} is {status}; its result is available once it ends.")
    result = hook.result(job)
    if result is None:
        _exit(f"Job {job} ended {status} without a result. Its log may say why: airflow mljobs logs {job}")
    if not result.success:
        _exit(result.remote_error(str(job), status, "").message)
    _print_value(result.xcom, args.output)


@_command
def gc_jobs(args: Namespace, hook: MLJobHook) -> None:
    """Drop orphaned jobs, and remove their files from stages."""
    collection = hook.collect(
        _duration(args.older_than),
        stages=args.stage_name or (),
        schema=hook.schema_of(args.schema),
        dry_run=args.dry_run,
        task_states=of_database,
    )
    _print_rows(map(_collected, collection.items), args.output)
    sys.stdout.flush()
    _print(collection.summary, sys.stderr)
    for item in collection.errors:
        _print(" ".join(str(item).split()), sys.stderr)
    if collection.errors:
        raise SystemExit(_FAILURE)


@_command
def cancel_job(args: Namespace, hook: MLJobHook) -> None:
    """Cancel a job."""
    job = hook.job(args.job)
    status = hook.status(job)
    if status.is_terminal:
        _print(f"Job {job} has already ended: {status}.")
        return
    sighting = hook.client.cancel(job)
    if sighting.is_unseen:
        _exit(f"Job {job} may still be running, Snowflake did not confirm the cancel: {sighting.why}")
    _print(f"Cancelled job {job}.")


@_command
def drop_job(args: Namespace, hook: MLJobHook) -> None:
    """Drop a job."""
    job = hook.job(args.job)
    status = JobStatus(hook.client.described(job)["status"])
    if not (status.is_terminal or status is JobStatus.DELETING or args.force):
        _exit(f"Job {job} is {status}: cancel it first, or pass --force.")
    hook.drop(job)
    _print(f"Dropped job {job}.")


@_command
def doctor(args: Namespace, hook: MLJobHook) -> None:
    """Print what jobs need, whether it is there, and the changes that mend it."""
    findings = hook.doctor(
        compute_pool=args.compute_pool,
        stage_name=args.stage,
        external_access_integrations=args.external_access_integration or (),
        image=args.image,
        run=args.run,
        timeout=args.timeout,
        report=_print_progress,
    )
    if args.output in {"json", "yaml"}:
        _print_value([finding.to_json() for finding in findings], args.output)
    else:
        columns = ("check", "state", "detail", *(("seconds",) if args.run else ()))
        rows = ({"seconds": "", **finding.to_json()} for finding in findings)
        _print_rows(({column: row[column] for column in columns} for row in rows), args.output)
        # A table breaks lines, and these are for pasting.
        for line in script(findings):
            _print(line)
    if any(finding.state is State.MISSING for finding in findings):
        raise SystemExit(_FAILURE)


def _print_progress(finding: Finding) -> None:
    """Print each step of the probe job, which may take minutes."""
    if finding.check.startswith("probe"):
        seconds = "" if finding.seconds is None else f" after {finding.seconds:.1f} s"
        _print(f"{finding.check}: {finding.state}{seconds}. {finding.detail}", sys.stderr)


def _duration(text: str) -> timedelta:
    """Parse a duration: a number and a unit."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidJobSpecError(f"--older-than {text!r} is not a duration; use e.g. 90m, 12h or 7d.")
    try:
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError as error:
        raise InvalidJobSpecError(f"--older-than {text!r} is too long; use e.g. 52w.") from error


def _collected(item: Item) -> dict[str, Any]:
    row = item.to_json()
    cost = "unknown" if item.credits_per_hour is None else item.credits_per_hour or ""
    return {**row, "created": row["created"] or "", "credits_per_hour": cost}


def _follow(hook: MLJobHook, job: QualifiedName, show: Callable[[str], None]) -> dict[str, Any]:
    """Print a job's log until its watch ends, and return the event of the end."""
    plan = plan_wait(str(job), poll_interval=_FOLLOW_SECONDS, log_interval=_FOLLOW_SECONDS)
    reports: SimpleQueue[Report] = SimpleQueue()
    wait = hook.follow(plan, reports.put)
    try:
        while True:
            match reports.get():
                case Message(text):
                    _print(text, sys.stderr)
                case LogOutput(lines):
                    for line in lines:
                        show(line)
                    sys.stdout.flush()
                case WaitEnded(event):
                    return event
    except KeyboardInterrupt:
        _exit(f"Stopped following; job {job} keeps running.", _INTERRUPTED)
    finally:
        wait.close()


def _print_line(line: str, labels: tuple[str, ...]) -> None:
    """Print a line if it is from one of the selected containers."""
    if line.startswith(labels):
        _print(starred(line))


def _print(text: str, file: TextIO | None = None) -> None:
    """Print a text, with its control characters escaped: jobs must not send commands to the terminal."""
    print(printable(text), file=file)


def _print_value(value: Any, output: str) -> None:
    if output != "yaml":
        _print(json.dumps(value, indent=2, ensure_ascii=False))
        return
    import yaml

    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    # YAML prints some characters that no terminal should get; as ASCII it escapes them.
    print(text if text == printable(text) else yaml.safe_dump(value, sort_keys=False), end="")


def _print_rows(rows: Iterable[Mapping[str, Any]], output: str) -> None:
    """Print rows with Airflow's console, whose JSON and YAML are ASCII."""
    cells = [{name: _cell(value, output) for name, value in row.items()} for row in rows]
    AirflowConsole(emoji=False).print_as(cells, output)


def _cell(value: Any, output: str) -> Any:
    """Format a value as a cell of a table: one line, with markup escaped."""
    if output not in {"table", "plain"} or value is None:
        return value
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    text = printable(text).replace("\n", "\\n")
    return escape(text) if output == "table" else text


def _task(comment: str | None) -> str:
    """Return the task that its COMMENT names, or the comment of a user."""
    try:
        origin = read_json(comment or "", "The COMMENT")
        with reading("The COMMENT"):
            return str(origin["comment"]) if "dag_id" not in origin else f"{origin['dag_id']}.{origin['task_id']}"
    except UnreadableError:
        return comment or ""
