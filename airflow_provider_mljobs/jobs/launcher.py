"""Runs inside the container: unpacks the payload, runs it, writes its result where ``snowflake.ml.jobs`` looks for it.

This file is the ``__main__`` of the payload archive. It can't import the package: the container has another Python and
other packages, so it needs the standard library only, and Snowpark, pip or cloudpickle only where the payload does.
What it reads and writes is the contract of ML jobs (environment ``MLRS_*``, ``output/mljob_result``), so that
Snowflake's own client understands our jobs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import linecache
import os
import subprocess
import sys
import tempfile
import traceback
import types
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

# Held against the number in the payload by whoever changes what the two say to each other.
PROTOCOL = 1
BANNER = "-" * 32
# The ML runtime image keeps its packages here; its own start script puts them on PYTHONPATH.
RUNTIME_PACKAGES = "/opt/env/site-packages"
TOKEN = Path("/snowflake/session/token")


class LauncherError(Exception):
    """Raised when the payload can't be started in this container."""


def main() -> int:
    """Run the payload of the archive that this file is in; the exit code is the container's."""
    # A job's log is read while it runs: don't keep lines back until a block is full.
    for stream in (sys.stdout, sys.stderr):
        cast("Any", stream).reconfigure(line_buffering=True)
    os.environ.update(json.loads(os.environ.pop("MLJOBS_ENV", "{}")))
    owner = os.getpid()
    with tempfile.TemporaryDirectory(prefix="mljob-") as directory:
        value, code = attempt(Path(directory))
        if os.getpid() != owner:
            # A child that the payload has forked: directory and result are its parent's.
            flush()
            os._exit(code)
        write_result(value, success=not code)
    return code


def attempt(directory: Path) -> tuple[Any, int]:
    """Run the payload; return its value and 0, or what ended it and the exit code."""
    try:
        return run(directory), 0
    except SystemExit as end:
        code = exit_code(end)
        if isinstance(end.code, str):
            say(end.code, sys.stderr)
        return (end.with_traceback(payload_frames(end.__traceback__)) if code else None), code
    except BaseException as error:  # noqa: BLE001 (whatever the payload raises is the job's result)
        error = error.with_traceback(payload_frames(error.__traceback__))
        say("".join(traceback.format_exception(error)).rstrip("\n"), sys.stderr)
        return error, 1


def run(directory: Path) -> Any:
    """Unpack the archive into ``directory``, prepare the interpreter, run the entrypoint and return its value."""
    with zipfile.ZipFile(sys.path[0]) as archive:
        archive.extractall(directory)
    manifest = json.loads((directory / "mljob.json").read_text("utf-8"))
    if manifest["protocol"] != PROTOCOL:
        raise LauncherError(f"The payload speaks protocol {manifest['protocol']}, its launcher {PROTOCOL}.")
    check_versions(manifest)
    app = directory / "app"
    app.mkdir(exist_ok=True)
    os.environ["MLRS_PAYLOAD_DIR"] = str(app)
    os.chdir(app)
    find_packages(app)
    connect_by_default(directory)
    install(manifest["pip_requirements"])
    if manifest["pickled_by"] and importlib.util.find_spec("cloudpickle") is None:
        raise LauncherError(
            "The payload was pickled, but this container has no cloudpickle: add it to pip_requirements."
        )
    arguments = read_arguments(directory)
    if mentions_active_session(app):
        session()
    print_banner("started")
    is_function = manifest["kind"] == "function"
    value = call(manifest, directory, arguments) if is_function else execute(app / manifest["entrypoint"], arguments)
    # As Snowflake's own launcher: a run that raises has no such end, so that its traceback belongs to its output.
    print_banner("finished")
    return value


def print_banner(event: str) -> None:
    """Print what clients cut the log by, after all that was printed before."""
    flush()
    say(f"{BANNER}\nML job {event}\n{BANNER}", sys.stdout)


def say(text: str, stream: TextIO) -> None:
    """Print to a stream that the payload may have closed."""
    with contextlib.suppress(Exception):
        print(text, file=stream, flush=True)


def flush() -> None:
    """Write out what stdout and stderr still keep back."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def read_arguments(directory: Path) -> Any:
    """Return the job's arguments: from the specification, or from the archive where they are too large or no JSON."""
    if "MLJOBS_ARGS" in os.environ:
        return json.loads(os.environ.pop("MLJOBS_ARGS"))
    if (directory / "arguments.json").exists():
        return json.loads((directory / "arguments.json").read_text("utf-8"))
    return unpickle(directory / "arguments.pkl")


def check_versions(manifest: dict[str, Any]) -> None:
    """Refuse a pickled payload that this Python can't read, with the fix instead of an UnpicklingError."""
    wanted = manifest["pickled_by"]
    if wanted is None:
        return
    running = "{}.{}".format(*sys.version_info)
    if wanted["python"] != running:
        raise LauncherError(
            f"The payload was pickled by Python {wanted['python']}, this container runs Python {running}. Let the "
            "function stand alone (imports inside, JSON arguments), so that it travels as source, or choose a "
            f"runtime with Python {wanted['python']}."
        )


def find_packages(app: Path) -> None:
    """Make the payload, its zip files and the runtime image's packages importable, here and in child processes."""
    own = [str(app), *(str(path) for path in sorted(app.rglob("*.zip")) if zipfile.is_zipfile(path))]
    image = [RUNTIME_PACKAGES] if Path(RUNTIME_PACKAGES).is_dir() else []
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    added = [path for path in (*own, *image) if path not in inherited]
    # In place of the archive, which is sys.path[0].
    sys.path[:1] = [path for path in added if path not in sys.path]
    os.environ["PYTHONPATH"] = os.pathsep.join([*added, *inherited])


def connect_by_default(directory: Path) -> None:
    """Let ``Session.builder.getOrCreate()`` and ``connect()`` find the container's own login.

    The platform gives a host and a token file, but no connection file. The token is named by its path: the platform
    rewrites the file every few minutes.
    """
    home = Path(os.environ.get("SNOWFLAKE_HOME", "~/.snowflake")).expanduser()
    if (home / "connections.toml").exists() or "SNOWFLAKE_HOST" not in os.environ or not TOKEN.exists():
        return
    names = ("HOST", "ACCOUNT", "DATABASE", "SCHEMA", "PORT", "PROTOCOL")
    known = {name.lower(): os.environ[f"SNOWFLAKE_{name}"] for name in names if f"SNOWFLAKE_{name}" in os.environ}
    lines = [f"{name} = {json.dumps(value)}" for name, value in known.items()]
    file = directory / "snowflake" / "connections.toml"
    file.parent.mkdir(mode=0o700)
    file.touch(mode=0o600)
    lines = ["[default]", *lines, 'authenticator = "oauth"', f'token_file_path = "{TOKEN}"']
    file.write_text("\n".join(lines) + "\n", "utf-8")
    os.environ["SNOWFLAKE_HOME"] = str(file.parent)


def install(requirements: list[str]) -> None:
    """Install what the task asked for with the container's pip."""
    if not requirements:
        return
    print(f"Installing {', '.join(requirements)}", flush=True)
    # Beside the payload: "-r more.txt" in a requirements file means a file beside it.
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8", dir=Path.cwd()) as file:
        file.write("\n".join(requirements) + "\n")
        file.flush()
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-r", file.name]
        code = subprocess.run(command, check=False).returncode
    if code:
        raise LauncherError(
            f"pip ended with exit code {code} while installing {requirements}; its output is in the log above. A "
            "container reaches a package index only through an external access integration: pass it as "
            "external_access_integrations."
        )
    importlib.invalidate_caches()


def mentions_active_session(app: Path) -> bool:
    """Tell whether the payload expects the session that the ML runtime has open before any user code starts."""
    return any(b"get_active_session" in path.read_bytes() for path in app.rglob("*.py"))


def session() -> Any:
    """Return the job's Snowpark session."""
    from snowflake.snowpark import Session

    return Session.builder.getOrCreate()


def execute(path: Path, arguments: list[str]) -> Any:
    """Run a script as ``__main__`` and return its global ``__return__``, also if it ends with ``sys.exit(0)``."""
    sys.argv = [path.name, *arguments]
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


def compiled(source: str | bytes, file: str) -> types.CodeType:
    """Compile the payload's code as it stands: the ``from __future__`` of this file is not its own."""
    return compile(source, file, "exec", dont_inherit=True)


def call(manifest: dict[str, Any], directory: Path, arguments: dict[str, Any]) -> Any:
    """Call the payload's function, with the session in an argument of that name unless the caller gave one."""
    if manifest["pickled_function"]:
        function = unpickle(directory / "function.pkl")
    else:
        path = directory / "app" / manifest["entrypoint"]
        module = types.ModuleType(path.stem)
        # Classes that the function defines must be found by their module's name when they are pickled.
        sys.modules[path.stem] = module
        text = path.read_text("utf-8")
        # Tracebacks name the line of the file that the function was written in; this shows them that line.
        linecache.cache[manifest["file"]] = (len(text), None, text.splitlines(keepends=True), manifest["file"])
        exec(compiled(text, manifest["file"]), module.__dict__)  # noqa: S102 (what the job is for)
        function = getattr(module, manifest["function"])
    args, kwargs = list(arguments["args"]), dict(arguments["kwargs"])
    if manifest["wants_session"]:
        kwargs["session"] = session()
    value = function(*args, **kwargs)
    if inspect.iscoroutine(value):
        import asyncio

        value = asyncio.run(value)
    return value


def unpickle(path: Path) -> Any:
    """Load what the submitter of this very job pickled."""
    import cloudpickle

    return cloudpickle.loads(path.read_bytes())


def exit_code(end: SystemExit) -> int:
    """Return the exit code that the interpreter would give, of which the platform sees eight bits."""
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    return 1


def payload_frames(frames: TracebackType | None) -> TracebackType | None:
    """Skip the launcher's own frames, so that a traceback begins with the payload's first one."""
    # Frozen modules import a file, asyncio runs an async function.
    own = (__file__, "<frozen ", str(Path(os.__file__).with_name("asyncio")) + os.sep)
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(own):
        frames = frames.tb_next
    return frames


def write_result(value: Any, *, success: bool) -> None:
    """Write ``mljob_result`` and, for what is no JSON, the file beside it.

    The run is over: a value that can't be saved is reported in the result and doesn't turn success into failure.
    """
    root = os.environ.get("MLRS_STAGE_RESULT_PATH") or os.environ.get("MLRS_STAGE_MOUNT_PATH", "")
    path = Path(root, os.environ.get("MLRS_RESULT_PATH", "output/mljob_result"))
    result: dict[str, Any] = {
        "kind": "result",
        "success": success,
        "value": None,
        "protocol": None,
        "metadata": None,
        "serialize_error": None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    if not success:
        result["metadata"] = describe(value)
    else:
        try:
            result["value"] = json.loads(json.dumps(value, default=plain))
        except (TypeError, ValueError, RecursionError):
            result["metadata"] = describe(value)
            try:
                result["protocol"] = save(value, path.parent)
            except Exception as error:  # noqa: BLE001 (any pickle error; it is the result's to report)
                result["serialize_error"] = repr(error)
    # One write: a stage volume takes no appends, and a reader must not see half a result.
    path.write_text(json.dumps(result), "utf-8")


def plain(value: Any) -> Any:
    """Turn a scalar of numpy (or alike) into Python's; anything else is no JSON."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    raise TypeError(type(value).__name__)


def describe(value: Any) -> dict[str, str]:
    """Say what a value is, for readers that can't or won't load it."""
    kind = type(value)
    described = {"type": f"{kind.__module__}.{kind.__qualname__}", "repr": short(value)}
    if isinstance(value, BaseException):
        described["message"] = short(value, str)
        described["traceback"] = "".join(traceback.format_tb(value.__traceback__))
        # Snowflake's client makes do with the frames; this is what the log shows, with what caused the exception.
        described["formatted"] = "".join(traceback.format_exception(value))
    return described


def short(value: Any, write: Callable[[Any], str] = repr) -> str:
    """Return the value's repr, cut: a frame of a million rows has a long one."""
    try:
        text = write(value)
    except Exception as error:  # noqa: BLE001 (a user's __repr__ may raise anything)
        text = f"<{write.__name__} of {type(value).__name__} raised {type(error).__name__}>"
    return text if len(text) <= 10_000 else text[:10_000] + "…"  # noqa: PLR2004 (a page of text)


def save(value: Any, directory: Path) -> dict[str, Any]:
    """Write a value that is no JSON in the first format that fits: Parquet, npy, cloudpickle."""
    kind = type(value)
    package, name = kind.__module__.partition(".")[0], kind.__name__
    if (package, name) == ("pandas", "DataFrame") and importlib.util.find_spec("pyarrow"):
        # Mixed columns can't be Parquet; those go the general way.
        with contextlib.suppress(TypeError, ValueError):
            value.to_parquet(directory / "mljob_extra_0.parquet")
            return protocol("pandas", {"paths": [str(directory / "mljob_extra_0.parquet")]})
    if (package, name) == ("pyarrow", "Table"):
        import pyarrow.parquet

        pyarrow.parquet.write_table(value, directory / "mljob_extra_0.parquet")
        return protocol("pyarrow", {"paths": [str(directory / "mljob_extra_0.parquet")]})
    if (package, name) == ("numpy", "ndarray") and not value.dtype.hasobject:
        import numpy  # noqa: ICN001 (the value is one of its arrays)

        numpy.save(directory / "mljob_extra.npy", value, allow_pickle=False)
        return protocol("numpy", {"path": str(directory / "mljob_extra.npy")})
    import cloudpickle

    (directory / "mljob_extra.pkl").write_bytes(cloudpickle.dumps(value))
    return protocol("cloudpickle", {"path": str(directory / "mljob_extra.pkl")})


def protocol(name: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Describe how a value was saved."""
    metadata = {"python_version": "{}.{}".format(*sys.version_info)} if name == "cloudpickle" else None
    version = cast("Any", sys.modules[name]).__version__
    return {"name": name, "version": version, "metadata": metadata, "manifest": manifest}


if __name__ == "__main__":
    sys.exit(main())
