"""Starts what the payload is: a script, a command or a function. The working directory is the payload's."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import function_arguments
from .contract import SESSION, wants_session
from .environment import session
from .errors import LauncherError
from .functions import load_function

if TYPE_CHECKING:
    from collections.abc import AsyncIterable
    from types import TracebackType


# The documented variables of a job; nothing else is expanded.
VARIABLE = re.compile(r"\$(?:\{((?:MLRS|SNOWFLAKE)_\w+)\}|((?:MLRS|SNOWFLAKE)_\w+))", re.ASCII)


class CommandError(LauncherError):
    """Raised when a command failed."""

    def __init__(self, command: list[str], code: int) -> None:
        # As shells count: 128 and the signal's number.
        self.exit_code = code if code > 0 else 128 - code
        end = f"ended with exit code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
        super().__init__(f"Command {command} {end}; its output is in the log above.")


def start(manifest: dict[str, Any], directory: Path, arguments: Any) -> Any:
    """Run the payload's entrypoint and return its value."""
    if manifest["kind"] == "function":
        return call(manifest, directory, arguments)
    first, *rest = manifest["command"]
    command = [first, *(expanded(argument) for argument in (*rest, *arguments))]
    return {"script": execute, "command": run_command}[manifest["kind"]](command)


def expanded(argument: str) -> str:
    """Fill in the job's own variables, where they are set."""
    return VARIABLE.sub(lambda found: os.environ.get(found[1] or found[2], found[0]), argument)


def execute(command: list[str]) -> Any:
    """Run a script as ``__main__`` and return its global ``__return__``, also if it ends with ``sys.exit(0)``."""
    path = Path.cwd() / command[0]
    sys.argv = [path.name, *command[1:]]
    module = types.ModuleType("__main__")
    module.__file__ = str(path)
    # What the script defines must be found by its module's name when it is pickled, or looked up by a child process.
    sys.modules["__main__"] = module
    try:
        exec(compiled(path.read_bytes(), str(path)), module.__dict__)  # noqa: S102 (what the job is for)
    except SystemExit as end:
        if exit_code(end):
            raise
    return module.__dict__.get("__return__")


def run_command(command: list[str]) -> None:
    """Run a program of the payload or of the container; what stops the job stops the program."""
    program = find_program(command[0])
    try:
        process = subprocess.Popen([program, *command[1:]])
    except OSError as error:
        raise LauncherError(
            f"Command {command[0]!r} can't be started: {error.strerror}. A script needs a first line such as "
            "#!/bin/sh, or its interpreter in the command."
        ) from None
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        code = process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    if code:
        raise CommandError(command, code)


def find_program(name: str) -> str:
    """Return the path of a program: a file of the payload, this Python, or what PATH knows."""
    path = Path.cwd() / name
    if path.is_file():
        if not os.access(path, os.X_OK):
            raise LauncherError(
                f"{name!r} is not executable. Name its interpreter, e.g. ['bash', {name!r}], or set its mode: chmod +x "
                "(files on a stage have none)."
            )
        return str(path)
    found = sys.executable if name in {"python", "python3"} else shutil.which(name)
    if found is None:
        raise LauncherError(
            f"Command {name!r} is neither a file of the payload nor a program of this container. If a package brings "
            "it, add that to pip_requirements."
        )
    return found


def compiled(source: str | bytes, file: str) -> types.CodeType:
    """Compile the payload's code as it stands: the ``from __future__`` of this file is not its own."""
    return compile(source, file, "exec", dont_inherit=True)


def call(manifest: dict[str, Any], directory: Path, arguments: dict[str, Any]) -> Any:
    """Call the payload's function, with the session in an argument of that name unless the caller gave one.

    An async function is awaited; what a generator yields is returned as a list, because it can't leave the job.
    """
    function = load_function(manifest, directory)
    args, kwargs = function_arguments(arguments, directory)
    if wants_session(function, args, kwargs):
        kwargs[SESSION] = session()
    value = function(*args, **kwargs)
    if inspect.isgenerator(value):
        return list(value)
    if inspect.isasyncgen(value):
        value = collected(value)
    if inspect.iscoroutine(value):
        import asyncio

        return asyncio.run(value)
    return value


async def collected(values: AsyncIterable[Any]) -> list[Any]:
    """Return what an async generator yields."""
    return [value async for value in values]


def exit_code(end: SystemExit) -> int:
    """Return the exit code that the interpreter would give, of which the platform sees eight bits."""
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    return 1


def payload_frames(frames: TracebackType | None) -> TracebackType | None:
    """Skip the launcher's own frames, so that a traceback begins with the payload's first one."""
    # Frozen modules import a file, asyncio runs an async function.
    own = (str(Path(__file__).parent) + os.sep, "<frozen ", str(Path(os.__file__).with_name("asyncio")) + os.sep)
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(own):
        frames = frames.tb_next
    return frames
