"""Budgets for waits: generous on a quiet machine, longer on a busy one, so that only a hang fails a test."""

import os
import subprocess
import sys
import time
from functools import cache

# A quiet core starts a bare Python in this time.
_QUIET_START = 0.02
_STARTS = 5
_VARIABLE = "MLJOBS_TESTS_SLOWNESS"


@cache
def slowness():
    """Measure how many times slower than a quiet machine this one is: at least 1, once per session.

    Workers and other processes of the session inherit the measurement.
    """
    if _VARIABLE not in os.environ:
        began = time.monotonic()
        for _ in range(_STARTS):
            subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)
        os.environ[_VARIABLE] = f"{max(1.0, (time.monotonic() - began) / _STARTS / _QUIET_START):.1f}"
    return float(os.environ[_VARIABLE])


def budget(seconds=120):
    """Return the longest that a wait may take here.

    :param seconds: the budget on a quiet machine: at least ten times as long as the wait takes there, because the
        machine may become busier during the session.
    """
    return seconds * slowness()


def wait_until(condition, seconds=120, pause=0.05):
    """Wait until a condition holds, and return its value.

    :param seconds: as for :func:`budget`.
    """
    patience = budget(seconds)
    give_up = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < give_up, f"Not true within {patience:.0f} s: {condition.__qualname__}"
        time.sleep(pause)
    return value
