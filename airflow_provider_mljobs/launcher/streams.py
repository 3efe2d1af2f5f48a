"""The container's log: output of the launcher, and banners around the output of the payload."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
from typing import TextIO

from .contract import BANNER, END, MLJOBS_STDOUT


def print_banner(title: str) -> None:
    """Print a banner, behind all earlier output."""
    flush()
    say(f"{BANNER}\n{title}\n{BANNER}", sys.stdout)


def print_end() -> None:
    """Print the line by which a reader of the log knows that nothing is missing."""
    flush()
    # The payload may have left half a line.
    say(f"\n{END}", sys.stdout)


def name_stdout() -> None:
    """Name the container's stdout in the environment, so that ``report`` finds it in any process of the job."""
    with contextlib.suppress(OSError):
        # A copy, because the payload may redirect file descriptor 1.
        stdout = os.dup(1)
        if stat.S_ISREG(os.fstat(stdout).st_mode):
            # Each open file has a position of its own; without O_APPEND processes overwrite each other's lines.
            fcntl.fcntl(stdout, fcntl.F_SETFL, fcntl.fcntl(stdout, fcntl.F_GETFL) | os.O_APPEND)
        os.environ[MLJOBS_STDOUT] = f"/proc/{os.getpid()}/fd/{stdout}"


def say(text: str, stream: TextIO) -> None:
    """Print to a stream that the payload may have closed."""
    with contextlib.suppress(Exception):
        print(text, file=stream, flush=True)


def flush() -> None:
    """Flush stdout and stderr."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
