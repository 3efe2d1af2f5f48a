"""The commands of `airflow mljobs`, as data that Airflow reads at each start; `cli/commands.py` runs them."""

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

_JOB = Arg(("job",), help="NAME, SCHEMA.NAME or DATABASE.SCHEMA.NAME; what is missing comes from the connection")
_CONNECTION = Arg(
    ("-c", "--conn-id"), help="Airflow connection (default: snowflake_default)", default="snowflake_default"
)
_SCHEMA = Arg(
    ("--schema",),
    help="SCHEMA, DATABASE.SCHEMA, or 'account' for all that the role may see (default: the connection's)",
)
_ALWAYS = (_CONNECTION, ARG_VERBOSE)


def get_mljobs_cli_commands() -> list[CLICommand]:
    """Return the commands for Airflow's parser."""
    commands = (
        _command(
            "list",
            "List jobs",
            _SCHEMA,
            Arg(("--prefix",), help="Beginning of the jobs' names (default: MLJOB_); '' for all", default="MLJOB_"),
            Arg(
                ("--state",),
                help=f"Only jobs in this state: {', '.join(JobStatus)}",
                type=str.upper,
                choices=tuple(status.value for status in JobStatus),
                metavar="STATE",
            ),
            ARG_OUTPUT,
        ),
        _command("describe", "Show what is known of a job and its containers", _JOB, ARG_OUTPUT),
        _command(
            "logs",
            "Show what a job prints",
            _JOB,
            Arg(
                ("-f", "--follow"),
                help="Go on until the job ends; the exit code is 0 if it ends DONE. Ctrl-C leaves the job alone",
                action="store_true",
            ),
            Arg(("--instance",), help="Only this instance", type=positive_int(allow_zero=True)),
            Arg(("--container",), help="Only containers of this name"),
        ),
        _command("result", "Show what a job has returned; as JSON unless the output is yaml", _JOB, ARG_OUTPUT),
        _command("cancel", "Stop a job; its log and result stay", _JOB),
        _command(
            "drop",
            "Drop a job that has ended, and its log; its files on the stage stay",
            _JOB,
            Arg(("--force",), help="Drop it even if it hasn't ended", action="store_true"),
        ),
        _command(
            "gc",
            "Drop jobs whose tasks are finished or gone, and remove what is left of jobs on stages",
            Arg(("--older-than",), help="Only what is older, e.g. 90m, 12h, 7d (default: 7d)", default="7d"),
            Arg(("--dry-run",), help="Only show what would be done", action="store_true"),
            _SCHEMA,
            Arg(
                ("--stage-name",),
                help="Remove files on this stage, e.g. @DATABASE.SCHEMA.STAGE/path; may be given several times. "
                "Without it only job services are dropped",
                action="append",
            ),
            ARG_OUTPUT,
        ),
    )
    return [GroupCommand(name="mljobs", help="Look after Snowflake ML Jobs", subcommands=commands)]


def _command(name: str, help_text: str, *args: Arg) -> ActionCommand:
    function = lazy_load_command(
        f"airflow_provider_mljobs.cli.commands.{name}_job{'s' if name in {'list', 'gc'} else ''}"
    )
    return ActionCommand(name=name, help=help_text, func=function, args=(*args, *_ALWAYS))
