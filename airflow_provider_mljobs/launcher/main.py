"""Unpacks the payload, prepares the interpreter, runs the entrypoint and writes its result."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .arguments import check_versions, read_arguments
from .contract import FUNCTION_PICKLE, IMPORTS, INSIDE, MANIFEST, MLJOBS_ENV, PROTOCOL, TITLES
from .entrypoints import CommandError, exit_code, payload_frames, start
from .environment import (
    connect_by_default,
    find_packages,
    find_programs,
    imports_ray,
    mentions_active_session,
    session,
)
from .errors import LauncherError
from .instances import Instance
from .requirements import install
from .sources import prepare, unpack
from .streams import flush, name_stdout, print_banner, print_end, say

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> int:
    """Run the payload of the archive that this file is in; the exit code is the container's."""
    # The log is read while the job runs, so each line is written at once.
    for stream in (sys.stdout, sys.stderr):
        cast("Any", stream).reconfigure(line_buffering=True)
    name_stdout()
    os.environ.update(json.loads(os.environ.pop(MLJOBS_ENV, "{}")))
    instance = Instance.of(os.environ)
    instance.listen()
    owner = os.getpid()
    with tempfile.TemporaryDirectory(prefix="mljob-") as directory:
        value, code = attempt(Path(directory), instance)
        if os.getpid() != owner:
            # A child that the payload forked: directory and result belong to its parent.
            flush()
            os._exit(code)
        code = instance.end(value, code)
    print_end()
    return code


def attempt(directory: Path, instance: Instance) -> tuple[Any, int]:
    """Run the payload; return its value and 0, or its exception and the exit code."""
    try:
        return run(directory, instance), 0
    except SystemExit as end:
        code = exit_code(end)
        if isinstance(end.code, str):
            say(end.code, sys.stderr)
        return (end.with_traceback(payload_frames(end.__traceback__)) if code else None), code
    except BaseException as error:  # noqa: BLE001 (any exception is the job's result)
        error = error.with_traceback(payload_frames(error.__traceback__))
        # Python 3.9 needs all three arguments.
        say("".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip("\n"), sys.stderr)
        return error, error.exit_code if isinstance(error, CommandError) else 1


def run(directory: Path, instance: Instance) -> Any:
    """Unpack the archive into ``directory``, prepare sources and interpreter, run the entrypoint, return its value."""
    unpack(directory)
    manifest = json.loads((directory / MANIFEST).read_text("utf-8"))
    if manifest["protocol"] != PROTOCOL:
        raise LauncherError(
            f"The payload has protocol {manifest['protocol']}, its launcher protocol {PROTOCOL}: submit the job again."
        )
    # Refuse an unfit container before anything is cloned or installed.
    check_versions(manifest)
    arguments = read_arguments(directory)
    app, imports = prepare(manifest, directory), directory / IMPORTS
    os.environ["MLRS_PAYLOAD_DIR"] = str(app)
    os.chdir(app)
    # The payload's packages come first.
    find_packages(app, imports, directory / INSIDE)
    find_programs()
    connect_by_default(directory)
    install(manifest["pip_requirements"], app)
    # The processes of a command open sessions of their own.
    if manifest["kind"] != "command" and mentions_active_session(app, imports):
        session()
    return instance.run(
        lambda: between_banners(lambda: start(manifest, directory, arguments)),
        imports_ray=imports_ray(app, imports, directory / FUNCTION_PICKLE),
    )


def between_banners(payload: Callable[[], Any]) -> Any:
    """Run the payload between the banners at which clients cut the log."""
    print_banner(TITLES[0])
    value = payload()
    # As with Snowflake's launcher, a run that raises has no end banner: its traceback is part of its output.
    print_banner(TITLES[1])
    return value
