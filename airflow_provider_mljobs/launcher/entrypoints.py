"""Starts the payload: a script, a command or a function, in its working directory."""

from __future__ import annotations

import ast
import inspect
import linecache
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
from .contract import APP, FUNCTION_PICKLE, SESSION, wants_session
from .environment import session
from .errors import LauncherError
from .pickles import unpickle

if TYPE_CHECKING:
    from collections.abc import AsyncIterable
    from types import TracebackType


# The documented variables of a job; nothing else is expanded.
VARIABLE = re.compile(r"\$(?:\{((?:MLRS|SNOWFLAKE)_\w+)\}|((?:MLRS|SNOWFLAKE)_\w+))", re.ASCII)


class CommandError(LauncherError):
    """Raised when a command fails."""

    def __init__(self, command: list[str], code: int) -> None:
        # As in shells: 128 and the number of the signal.
        self.exit_code = code if code > 0 else 128 - code
        end = f"failed with exit code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
        super().__init__(f"Command {command} {end}; its output is in the log above.")


def start(manifest: dict[str, Any], directory: Path, arguments: Any) -> Any:
    """Run the payload's entrypoint and return its value."""
    if manifest["kind"] == "function":
        return call(manifest, directory, arguments)
    first, *rest = manifest["command"]
    command = [first, *(expanded(argument) for argument in (*rest, *arguments))]
    return {"script": execute, "command": run_command}[manifest["kind"]](command)


def expanded(argument: str) -> str:
    """Fill in the job's own variables that are set."""
    return VARIABLE.sub(lambda match: os.environ.get(match[1] or match[2], match[0]), argument)


def execute(command: list[str]) -> Any:
    """Run a script as ``__main__`` and return its global ``__return__``, also if it ends with ``sys.exit(0)``."""
    path = Path.cwd() / command[0]
    sys.argv = [path.name, *command[1:]]
    module = types.ModuleType("__main__")
    module.__file__ = str(path)
    # pickle and child processes find the script's definitions by the name of their module.
    sys.modules["__main__"] = module
    try:
        # Not with the "from __future__" of this file.
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102 (the user's)
    except SystemExit as end:
        if exit_code(end):
            raise
    return module.__dict__.get("__return__")


def run_command(command: list[str]) -> None:
    """Run a program of the payload or of the container, and stop it when the job is stopped."""
    program = find_program(command[0])
    try:
        process = subprocess.Popen([program, *command[1:]])
    except OSError as error:
        raise LauncherError(
            f"Could not start command {command[0]!r}: {error.strerror}. A script needs a first line such as "
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
    """Return the path of a program: a file of the payload, this Python, or a program on PATH."""
    path = Path.cwd() / name
    if path.is_file():
        if not os.access(path, os.X_OK):
            raise LauncherError(
                f"{name!r} is not executable. Name its interpreter, e.g. ['bash', {name!r}], or set its mode: chmod +x "
                "(files on a stage have none)."
            )
        return str(path)
    program = sys.executable if name in {"python", "python3"} else shutil.which(name)
    if program is None:
        raise LauncherError(
            f"Command {name!r} is neither a file of the payload nor a program of this container. If it comes with a "
            "package, add that to pip_requirements."
        )
    return program


def call(manifest: dict[str, Any], directory: Path, arguments: dict[str, Any]) -> Any:
    """Call the payload's function, with the session unless the caller passes one.

    An async function is awaited. The values of a generator, which can't leave the job, are returned as a list.
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


def load_function(manifest: dict[str, Any], directory: Path) -> Any:
    """Return the payload's function."""
    if manifest["pickled_by"]:
        subjects = [f"Function {manifest['function']!r}"]
        (function,) = unpickle(directory / FUNCTION_PICKLE, manifest["pickled_by"], subjects)
        return function
    path, file = directory / APP / manifest["entrypoint"], manifest["file"]
    module = types.ModuleType(path.stem)
    # pickle finds the function's classes by the name of their module.
    sys.modules[path.stem] = module
    text = path.read_text("utf-8")
    # Tracebacks name lines of the function's original file, which the container doesn't have.
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    exec(compile(_without_annotations(text), file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 (the job)
    return getattr(module, manifest["function"])


def _without_annotations(text: str) -> ast.Module:
    """Return the module's tree without the function's annotations, whose names need not exist in the job."""
    tree = ast.parse(text)
    block: Any = tree.body[-1]
    function: Any = block.body[0] if isinstance(block, ast.If) else block
    function.returns = None
    for node in ast.walk(function.args):
        if isinstance(node, ast.arg):
            node.annotation = None
    return tree


async def collected(values: AsyncIterable[Any]) -> list[Any]:
    """Return the values of an async generator."""
    return [value async for value in values]


def exit_code(end: SystemExit) -> int:
    """Return the exit code that the interpreter would end with; the platform sees eight bits of it."""
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    return 1


def payload_frames(frames: TracebackType | None) -> TracebackType | None:
    """Skip the launcher's frames, so that a traceback begins with the payload's code."""
    # Importing a file adds frames of frozen modules, running an async function those of asyncio.
    own = (str(Path(__file__).parent) + os.sep, "<frozen ", str(Path(os.__file__).with_name("asyncio")) + os.sep)
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(own):
        frames = frames.tb_next
    return frames
