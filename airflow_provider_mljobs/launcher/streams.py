"""The container's log: what the launcher prints, and the banners that clients cut the log by."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
from typing import TextIO

from .contract import BANNER, MLJOBS_STDOUT


def print_banner(title: str) -> None:
    """Print what clients cut the log by, after all that was printed before."""
    flush()
    say(f"{BANNER}\n{title}\n{BANNER}", sys.stdout)


def name_stdout() -> None:
    """Let every process of the job find the container's stdout, for ``airflow_provider_mljobs.report``."""
    with contextlib.suppress(OSError):
        # Not 1 itself, which the payload may redirect.
        stdout = os.dup(1)
        if stat.S_ISREG(os.fstat(stdout).st_mode):
            # Whoever opens a file has a place of their own in it, and would write over what others have written.
            fcntl.fcntl(stdout, fcntl.F_SETFL, fcntl.fcntl(stdout, fcntl.F_GETFL) | os.O_APPEND)
        os.environ[MLJOBS_STDOUT] = f"/proc/{os.getpid()}/fd/{stdout}"


def say(text: str, stream: TextIO) -> None:
    """Print to a stream that the payload may have closed."""
    with contextlib.suppress(Exception):
        print(text, file=stream, flush=True)


def flush() -> None:
    """Write out what stdout and stderr still keep back."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
