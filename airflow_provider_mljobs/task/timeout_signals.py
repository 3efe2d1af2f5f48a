"""Timeouts that strike by a signal, in the middle of anything: Airflow's kept from where it would do harm, and ours."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SOON, _STRIKE_AGAIN_SECONDS = 0.001, 1.0


@contextmanager
def held_back() -> Iterator[None]:
    """Let the timeout strike behind a question to Airflow, not in it.

    Airflow's answers to a task are known by their order only (Airflow 3.3.2): one that nobody has waited for would be
    taken for that to the next question.
    """
    if current_thread() is not main_thread():
        # Signals strike the main thread.
        yield
        return
    strikes: list[tuple[Any, ...]] = []
    handler = signal.signal(signal.SIGALRM, lambda *strike: strikes.append(strike)) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        if strikes and callable(handler):
            handler(*strikes[0])


class _OutOfTimeError(BaseException):
    """Ends a block that is out of time; what catches errors lets it through."""


@contextmanager
def limited(seconds: float, error: Callable[[], Exception]) -> Iterator[None]:
    """Raise an error in a block that takes too long, whatever it waits for or computes.

    In other threads than the main one nothing is limited. An alarm that is set already strikes behind the block.

    :param seconds: how long the block may take.
    :param error: makes the error.
    """
    if current_thread() is not main_thread():
        yield
        return

    def strike(*_: Any) -> None:
        raise _OutOfTimeError

    handler = signal.signal(signal.SIGALRM, strike) or signal.SIG_DFL
    began = time.monotonic()
    # It strikes again, in case that a library catches everything.
    other, _ = signal.setitimer(signal.ITIMER_REAL, max(seconds, _SOON), _STRIKE_AGAIN_SECONDS)
    try:
        yield
    except _OutOfTimeError:
        raise error() from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if other:
            signal.setitimer(signal.ITIMER_REAL, max(other - (time.monotonic() - began), _SOON))


def disarm() -> None:
    """Let the timeout strike no more."""
    if current_thread() is main_thread():
        signal.setitimer(signal.ITIMER_REAL, 0)
