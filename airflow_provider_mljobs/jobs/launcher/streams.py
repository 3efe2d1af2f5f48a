"""The container's log: what the launcher prints, and the banners that clients cut the log by."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO

BANNER = "-" * 32


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
