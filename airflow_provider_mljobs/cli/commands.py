"""What `airflow mljobs` does: the hook's verbs for people. Errors are one line on stderr, and an exit code."""

# ruff: noqa: T201 (a command line program prints)

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from airflow.cli.simple_table import AirflowConsole
from airflow.sdk.exceptions import AirflowException
from airflow.utils.cli import suppress_logs_and_warning
from rich.markup import escape

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, MLJobError, UnreadableError
from airflow_provider_mljobs.gateway.joblogs import Printed
from airflow_provider_mljobs.gateway.watcher.follower import Ended, Note, Output
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.jobs.credentials import starred
from airflow_provider_mljobs.jobs.logs.text import printable
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.outcome.watch import Verdict
from airflow_provider_mljobs.jobs.untrusted import read_json, reading
from airflow_provider_mljobs.task.query_tags import role_tag
from airflow_provider_mljobs.task.task_states import of_database
from airflow_provider_mljobs.task.waiting import plan_wait

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import NoReturn, TextIO

    from airflow_provider_mljobs.gateway.collector import Item
    from airflow_provider_mljobs.gateway.watcher.follower import Report
    from airflow_provider_mljobs.jobs.names import QualifiedName

_FAILURE, _USAGE, _INTERRUPTED = 1, 2, 130
_FOLLOW_SECONDS = 2.0
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(rf"([0-9]+)([{''.join(_UNITS)}])")


def _command(function: Callable[[Namespace, MLJobHook], None]) -> Callable[[Namespace], None]:
    """Give a command its hook, and say in one line what goes wrong."""

    @suppress_logs_and_warning
    @wraps(function)
    def command(args: Namespace) -> None:
        try:
            with _as_server(), MLJobHook(args.conn_id, query_tag=role_tag("cli")) as hook:
                function(args, hook)
                sys.stdout.flush()
        except KeyboardInterrupt:
            raise SystemExit(_INTERRUPTED) from None
        except BrokenPipeError:
            # Who reads has read enough; Python would complain when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except InvalidJobSpecError as error:
            _exit(str(error), _USAGE)
        except (MLJobError, AirflowException) as error:
            _exit(str(error))

    return command


@contextmanager
def _as_server() -> Iterator[None]:
    """Let connections come from Airflow's database, too, as its own commands do."""
    name = "_AIRFLOW_PROCESS_CONTEXT"
    before = os.environ.get(name)
    os.environ[name] = "server"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _exit(message: str, code: int = _FAILURE) -> NoReturn:
    _print(starred(" ".join(message.split())), sys.stderr)
    raise SystemExit(code)


@_command
def list_jobs(args: Namespace, hook: MLJobHook) -> None:
    """List jobs, the newest last."""
    rows = [row for row in hook.list(args.prefix, hook.schema_of(args.schema)) if args.state in {None, row["status"]}]
    listed = (
        {
            "job_id": f"{row['database_name']}.{row['schema_name']}.{row['name']}",
            "status": row["status"],
            "compute_pool": row["compute_pool"],
            "created_on": row["created_on"].isoformat(timespec="seconds"),
            "task": _task(row["comment"]),
        }
        for row in sorted(rows, key=lambda row: row["created_on"])
    )
    _print_rows(listed, args.output)


@_command
def describe_job(args: Namespace, hook: MLJobHook) -> None:
    """Show what is known of a job."""
    found = hook.describe(hook.job(args.job))
    found["created_on"] = found["created_on"].isoformat(timespec="seconds")
    for container in found["containers"]:
        if (started := container["started"]) is not None:
            container["started"] = datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds")
    if args.output in {"json", "yaml"}:
        _print_value(found, args.output)
        return
    containers = found.pop("containers")
    _print_rows(({"property": name, "value": value} for name, value in found.items()), args.output)
    shown = ("instance_id", "name", "status", "message", "last_exit_code", "started")
    _print_rows(({name: container[name] for name in shown} for container in containers), args.output)


@_command
def logs_job(args: Namespace, hook: MLJobHook) -> None:
    """Show what a job has printed; or, with ``--follow``, what it prints until its end."""
    job = hook.job(args.job)
    status = hook.status(job)
    chosen = hook.client.sources(job, args.instance, args.container)
    if not chosen:
        _exit(f"Job {job} has no such container.")
    if not args.follow:
        if text := hook.client.read(chosen):
            _print(starred(text))
        return
    labels = tuple(source.label for source in chosen)
    event = _follow(hook, job, lambda line: _print_line(line, labels))
    verdict, status = Verdict(event["verdict"]), JobStatus(event["status"])
    if verdict is not Verdict.FINISHED:
        _exit(f"Job {job}: {event['message']}")
    for line in hook.client.rest_of_log(job, Printed.from_json(event["printed"])).unseen:
        _print_line(line, labels)
    if status is not JobStatus.DONE:
        raise SystemExit(_FAILURE)


@_command
def result_job(args: Namespace, hook: MLJobHook) -> None:
    """Show what a job has returned."""
    job = hook.job(args.job)
    status = hook.status(job)
    if not status.is_terminal:
        _exit(f"Job {job} is {status}: it has no result yet.")
    result = hook.result(job)
    if result is None:
        _exit(f"Job {job} ended {status} and has left no result.")
    if not result.success:
        _exit(result.remote_error(str(job), status, "").message)
    _print_value(result.xcom, args.output)


@_command
def gc_jobs(args: Namespace, hook: MLJobHook) -> None:
    """Drop jobs whose tasks are finished or gone, and remove what is left of jobs on stages."""
    found = hook.collect(
        _duration(args.older_than),
        stages=args.stage_name or (),
        schema=hook.schema_of(args.schema),
        dry_run=args.dry_run,
        task_states=of_database,
    )
    _print_rows(map(_collected, found.items), args.output)
    sys.stdout.flush()
    _print(found.summary, sys.stderr)
    for item in found.errors:
        _print(" ".join(str(item).split()), sys.stderr)
    if found.errors:
        raise SystemExit(_FAILURE)


@_command
def cancel_job(args: Namespace, hook: MLJobHook) -> None:
    """Stop a job."""
    job = hook.job(args.job)
    status = hook.status(job)
    if status.is_terminal:
        _print(f"Job {job} ended {status} already.")
        return
    sighting = hook.client.cancel(job)
    if sighting.is_unseen:
        _exit(f"Job {job} may still run: {sighting.why}")
    _print(f"Cancelled job {job}.")


@_command
def drop_job(args: Namespace, hook: MLJobHook) -> None:
    """Drop a job."""
    job = hook.job(args.job)
    status = JobStatus(hook.client.describe(job)["status"])
    if not status.is_terminal and not args.force:
        _exit(f"Job {job} is {status}: cancel it first, or pass --force.")
    hook.drop(job)
    _print(f"Dropped job {job}.")


def _duration(text: str) -> timedelta:
    """Read how long something is: a number and a unit."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidJobSpecError(f"--older-than {text!r} is no duration: write e.g. 90m, 12h or 7d.")
    try:
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError as error:
        raise InvalidJobSpecError(f"--older-than {text!r} is more than anything can be old.") from error


def _collected(item: Item) -> dict[str, Any]:
    credits_per_hour = "unknown" if item.credits_per_hour is None else item.credits_per_hour or ""
    found = item.to_json()
    return {**found, "created": found["created"] or "", "credits_per_hour": credits_per_hour}


def _follow(hook: MLJobHook, job: QualifiedName, show: Callable[[str], None]) -> dict[str, Any]:
    """Show what a job prints until the watch is over, and return the event of its end."""
    plan = plan_wait(str(job), poll_interval=_FOLLOW_SECONDS, log_interval=_FOLLOW_SECONDS)
    reports: SimpleQueue[Report] = SimpleQueue()
    wait = hook.follow(plan, reports.put)
    try:
        while True:
            match reports.get():
                case Note(text):
                    _print(text, sys.stderr)
                case Output(lines):
                    for line in lines:
                        show(line)
                    sys.stdout.flush()
                case Ended(event):
                    return event
    except KeyboardInterrupt:
        _exit(f"Job {job} goes on.", _INTERRUPTED)
    finally:
        wait.close()


def _print_line(line: str, labels: tuple[str, ...]) -> None:
    """Print a line of one of the containers that were asked for."""
    if line.startswith(labels):
        _print(starred(line))


def _print(text: str, file: TextIO | None = None) -> None:
    """Print a text; what jobs and strangers have written in it gives the terminal no commands."""
    print(printable(text), file=file)


def _print_value(value: Any, output: str) -> None:
    if output != "yaml":
        _print(json.dumps(value, indent=2, ensure_ascii=False))
        return
    import yaml

    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    # YAML calls some characters printable that no terminal should get, and has escapes of its own for these.
    print(text if text == printable(text) else yaml.safe_dump(value, sort_keys=False), end="")


def _print_rows(rows: Iterable[Mapping[str, Any]], output: str) -> None:
    """Print rows by Airflow's console; its JSON and YAML are ASCII."""
    cells = [{name: _cell(value, output) for name, value in row.items()} for row in rows]
    AirflowConsole(emoji=False).print_as(cells, output)


def _cell(value: Any, output: str) -> Any:
    """Return a value as a cell of a table has it: one line, in which Airflow's console finds no markup."""
    if output not in {"table", "plain"} or value is None:
        return value
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    text = printable(text).replace("\n", "\\n")
    return escape(text) if output == "table" else text


def _task(comment: str | None) -> str:
    """Return the task that has submitted a job, as its COMMENT says; else what people have written there."""
    try:
        origin = read_json(comment or "", "The COMMENT")
        with reading("The COMMENT"):
            return str(origin["comment"]) if "dag_id" not in origin else f"{origin['dag_id']}.{origin['task_id']}"
    except UnreadableError:
        return comment or ""
