"""The parser of `airflow mljobs`, which Airflow imports at each start; `cli/commands.py` has the functions."""

from __future__ import annotations

from airflow.cli.cli_config import (
    ARG_OUTPUT,
    ARG_VERBOSE,
    ActionCommand,
    Arg,
    CLICommand,
    GroupCommand,
    lazy_load_command,
    positive_int,
)

from airflow_provider_mljobs.jobs.outcome.status import JobStatus

_JOB = Arg(("job",), help="NAME, SCHEMA.NAME or DATABASE.SCHEMA.NAME; missing parts come from the connection")
_CONNECTION = Arg(
    ("-c", "--conn-id"), help="Airflow connection (default: snowflake_default)", default="snowflake_default"
)
_SCHEMA = Arg(
    ("--schema",),
    help="SCHEMA, DATABASE.SCHEMA, or 'account' for every schema that the role can see (default: the connection's)",
)
_ALWAYS = (_CONNECTION, ARG_VERBOSE)


def get_mljobs_cli_commands() -> list[CLICommand]:
    """Return the commands for Airflow's parser."""
    commands = (
        _command(
            "list",
            "List jobs",
            _SCHEMA,
            Arg(("--prefix",), help="Prefix of the jobs' names (default: MLJOB_); '' for all", default="MLJOB_"),
            Arg(
                ("--state",),
                help=f"Only jobs in this state: {', '.join(JobStatus)}",
                type=str.upper,
                choices=tuple(status.value for status in JobStatus),
                metavar="STATE",
            ),
            ARG_OUTPUT,
        ),
        _command("describe", "Show a job and its containers", _JOB, ARG_OUTPUT),
        _command(
            "logs",
            "Show the log of a job",
            _JOB,
            Arg(
                ("-f", "--follow"),
                help="Follow the log until the job ends; exit with 0 if it ends DONE. Ctrl-C leaves the job running",
                action="store_true",
            ),
            Arg(("--instance",), help="Only this instance", type=positive_int(allow_zero=True)),
            Arg(("--container",), help="Only containers of this name"),
        ),
        _command("result", "Show the result of a job, as JSON or YAML", _JOB, ARG_OUTPUT),
        _command("cancel", "Cancel a job; its log and result are kept", _JOB),
        _command(
            "drop",
            "Drop an ended job and its log; its files on the stage are kept",
            _JOB,
            Arg(("--force",), help="Drop the job even if it is still running", action="store_true"),
        ),
        _command(
            "gc",
            "Drop jobs whose tasks have finished or were deleted, and remove leftover files of jobs from stages",
            Arg(("--older-than",), help="Minimum age, e.g. 90m, 12h, 7d (default: 7d)", default="7d"),
            Arg(("--dry-run",), help="Show what would be removed, and remove nothing", action="store_true"),
            _SCHEMA,
            Arg(
                ("--stage-name",),
                help="Also remove files from this stage, e.g. @DATABASE.SCHEMA.STAGE/path; can be repeated. "
                "Without it only job services are dropped",
                action="append",
            ),
            ARG_OUTPUT,
        ),
        _command(
            "doctor",
            "Check what jobs need of the Snowflake account and of this Airflow, and print the SQL that mends it",
            Arg(("--compute-pool",), help="Compute pool of the jobs"),
            Arg(("--stage",), help="Stage of the jobs, e.g. @DATABASE.SCHEMA.STAGE"),
            Arg(
                ("--external-access-integration",),
                help="External access integration of the jobs; can be repeated",
                action="append",
            ),
            Arg(("--image",), help="Tag or image of the runtime, as in runtime_environment"),
            Arg(
                ("--run",),
                help="Also run a tiny job on the pool, which costs credits, and remove it with its files",
                action="store_true",
            ),
            Arg(
                ("--timeout",),
                help="Seconds for the tiny job to get a node and to end (default: 900)",
                type=positive_int(allow_zero=False),
                default=900,
            ),
            ARG_OUTPUT,
        ),
    )
    return [GroupCommand(name="mljobs", help="Manage Snowflake ML Jobs", subcommands=commands)]


def _command(name: str, help_text: str, *args: Arg) -> ActionCommand:
    function = {"list": "list_jobs", "gc": "gc_jobs", "doctor": "doctor"}.get(name, f"{name}_job")
    command = lazy_load_command(f"airflow_provider_mljobs.cli.commands.{function}")
    return ActionCommand(name=name, help=help_text, func=command, args=(*args, *_ALWAYS))
