"""``python -m airflow_provider_mljobs.emulator``: an embedded Snowflake in the foreground, or around a command."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator import serve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_mljobs.emulator.server.server import Server

_COMMAND_NOT_FOUND = 127
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_KILLED = 128
_DESCRIPTION = """Run an embedded Snowflake on 127.0.0.1.

Without a command it prints how to connect and serves until Ctrl-C.
With a command it runs that command with the connection in its environment, stops, and exits with the command's code:

    python -m airflow_provider_mljobs.emulator --sql setup.sql -- airflow dags test my_dag
"""
_WARNING = "Not a sandbox: submitted jobs run as you, with your files and your network."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    own, command = _split(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(own)
    settings: dict[str, Any] = {"port": options.port, "realistic": options.realistic, "speed": options.speed}
    if options.python is not None:
        settings["python"] = options.python
    root = options.root
    if root is None and not command:
        root = _default_root()
    # A SIGTERM must leave through the context manager below, which stops the jobs and removes a temporary root.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(_KILLED + number))
    try:
        server = serve(root, **settings)
    except (ModuleNotFoundError, OSError, RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    with server:
        if options.sql is not None and (refused := _execute(server, options.sql)):
            print(refused, file=sys.stderr)
            return 1
        return _run(server, command) if command else _wait(server)


def _split(argv: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    if "--" not in argv:
        return argv, ()
    border = list(argv).index("--")
    return argv[:border], argv[border + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_mljobs.emulator",
        usage="%(prog)s [--root DIR] [--port N] [--python PATH] [--sql FILE] [--realistic] [-- COMMAND ...]",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--root",
        type=Path,
        help=f"directory for tables, stages and jobs (default: {_default_root()}; with a command: a temporary one)",
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port (default: a free one)")
    parser.add_argument("--python", type=Path, help="interpreter that runs the jobs (default: this one)")
    parser.add_argument("--sql", type=Path, help="SQL file to run at the start, e.g. to create a compute pool")
    parser.add_argument(
        "--realistic",
        action="store_true",
        help="take an account's time: two minutes to start, late logs, …",
    )
    parser.add_argument("--speed", type=float, default=1.0, help="divide the times of --realistic by this (default: 1)")
    return parser


def _execute(server: Server, file: Path) -> str:
    """Run the statements of a file; return the error, or an empty text."""
    from snowflake.connector import connect
    from snowflake.connector.errors import Error

    try:
        with connect(**server.connection_kwargs) as connection:
            connection.execute_string(file.read_text("utf-8"), return_cursors=False)
    except (Error, OSError, UnicodeDecodeError) as error:
        return f"{file}: {error}"
    return ""


def _default_root() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "airflow-provider-mljobs" / "emulator"


def _wait(server: Server) -> int:
    stop = threading.Event()
    for number in _SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    print(f"Embedded Snowflake on http://127.0.0.1:{server.port}, data in {server.root}")
    print(_WARNING)
    print("Set these where Airflow or your program runs; Airflow uses them as the connection snowflake_default:\n")
    for name, value in server.environment.items():
        print(f"export {name}={shlex.quote(value)}")
    print("\nPress Ctrl-C to stop.", flush=True)
    stop.wait()
    return 0


def _run(server: Server, command: Sequence[str]) -> int:
    # Signals that arrive before the command runs are passed on later; handled now, they would end only this process.
    early: list[int] = []
    for name in _SIGNALS:
        signal.signal(name, lambda number, _: early.append(number))
    try:
        process = subprocess.Popen(command, env=os.environ | server.environment)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return _COMMAND_NOT_FOUND

    def forward(number: int, _: object) -> None:
        # A terminal sends Ctrl-C to the command as well.
        if number != signal.SIGINT or not _at_terminal():
            process.send_signal(number)

    for name in _SIGNALS:
        signal.signal(name, forward)
    for number in early:
        forward(number, None)
    code = process.wait()
    return _KILLED - code if code < 0 else code


def _at_terminal() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
