"""The contract of worker and container: versions, variables, files, marks in the log, ports.

The worker imports this module from the provider. The container finds it in the archive, as part of the launcher. So it
lies here and needs the standard library only.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# The version of the manifest: the launcher refuses any other.
PROTOCOL = 2

# The archive: its manifest, the source, the imports, the package airflow_provider_mljobs, a pickled function.
MANIFEST = "mljob.json"
APP = "app"
IMPORTS = "imports"
INSIDE = "inside"
FUNCTION_PICKLE = "function.pkl"

# Files of a source.
REQUIREMENTS_FILE = "requirements.txt"
CONDA_FILE = "environment.yml"

# Environment variables. Those of Snowflake's ML runtime begin with MLRS_.
MLRS_STAGE_MOUNT_PATH = "MLRS_STAGE_MOUNT_PATH"
MLRS_STAGE_RESULT_PATH = "MLRS_STAGE_RESULT_PATH"
MLRS_RESULT_PATH = "MLRS_RESULT_PATH"
MLRS_MIN_INSTANCES = "MLRS_MIN_INSTANCES"
MLJOBS_ARGS = "MLJOBS_ARGS"
MLJOBS_ENV = "MLJOBS_ENV"
MLJOBS_PARALLEL = "MLJOBS_PARALLEL"
MLJOBS_QUERY_TAG = "MLJOBS_QUERY_TAG"
# "1" starts Ray on the only instance, "0" doesn't; without it the payload's imports decide.
MLJOBS_RAY = "MLJOBS_RAY"
# The container's stdout, for all processes of the job.
MLJOBS_STDOUT = "MLJOBS_STDOUT"

# The job's own directory on the stage: its input and its result. All other files in it are the payload's.
INPUT_FILES, RESULT_FILES = ("input/",), ("output/mljob_", "output/instances/")
OWN_FILES = INPUT_FILES + RESULT_FILES
ARGUMENTS_FILE = "input/arguments.zip"
# In it: arguments that are too large for the specification, and those that are pickled.
ARGUMENTS_JSON, ARGUMENTS_PICKLE = "arguments.json", "values.pkl"
# One numbered directory for each reference among the arguments.
REFERENCES_DIRECTORY = "input/references"
RESULT_FILE = "output/mljob_result"
# Beside a result of more than LARGE characters: the same without the value.
SUMMARY_NAME = "mljob_summary"
LARGE = 256 * 1024
# The longest repr and the longest traceback of a result.
MAX_TEXT, MAX_TRACEBACK = 10_000, 50_000

# The key of a JSON object that stands for a value of another type.
TAG = "__mljob__"

# The log: the lines around the payload's own output, the beginning of a report, and the launcher's last line.
BANNER = "-" * 32
TITLES = ("ML job started", "ML job finished")
MARK = "::mljobs::"
END = f'{MARK}{{"end":true}}'

# The exit code of a container that was stopped from outside: 128 and SIGTERM.
STOPPED = 143

# The ports of a Ray cluster, by the variables that name them in Snowflake's ML runtime: of its head, of each instance.
HEAD_PORTS = {
    "HEAD_CLIENT_SERVER_PORT": 10001,
    "HEAD_GCS_PORT": 12001,
    "HEAD_DASHBOARD_GRPC_PORT": 12002,
    "HEAD_DASHBOARD_PORT": 12003,
}
INSTANCE_PORTS = {
    "OBJECT_MANAGER_PORT": 12011,
    "NODE_MANAGER_PORT": 12012,
    "RUNTIME_ENV_AGENT_PORT": 12013,
    "DASHBOARD_AGENT_GRPC_PORT": 12014,
    "DASHBOARD_AGENT_LISTEN_PORT": 12015,
    "MIN_WORKER_PORT": 12031,
    "MAX_WORKER_PORT": 13000,
}
PORTS = {**HEAD_PORTS, **INSTANCE_PORTS}

# The argument of a function that the job fills in with its Snowpark session.
SESSION = "session"


def wants_session(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether the job passes its session: the function has that argument, and the call leaves it out."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        # Not every built-in function has a signature.
        return False
    if SESSION not in parameters or kwargs.get(SESSION) is not None:
        return False
    is_keyword_only = parameters[SESSION].kind is inspect.Parameter.KEYWORD_ONLY
    return is_keyword_only or list(parameters).index(SESSION) >= len(args)


def shorten_traceback(text: str) -> str:
    """Cut a long traceback in its middle: its origin and its error are at the ends."""
    if len(text) <= MAX_TRACEBACK:
        return text
    half = MAX_TRACEBACK // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters …\n{text[-half:]}"
