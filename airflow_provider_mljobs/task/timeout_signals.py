"""Timeouts by signal, which may interrupt any line: Airflow's, held back where it would do harm, and the provider's."""

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
    """Delay Airflow's timeout until a request to Airflow is complete.

    Airflow's responses to a task are identified by their order only (Airflow 3.3.2): an interrupted request would leave
    its response to the next one.
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
    """Ends a block that is out of time; a BaseException, so that handlers of errors let it through."""


@contextmanager
def limited(seconds: float, error: Callable[[], Exception]) -> Iterator[None]:
    """Raise an error in a block that takes too long, whether it waits or computes.

    Only the main thread is limited. An alarm that is already set strikes after the block.
    """
    if current_thread() is not main_thread():
        yield
        return

    def strike(*_: Any) -> None:
        raise _OutOfTimeError

    handler = signal.signal(signal.SIGALRM, strike) or signal.SIG_DFL
    began = time.monotonic()
    # Repeated, in case a library catches everything.
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
    """Cancel the timeout."""
    if current_thread() is main_thread():
        signal.setitimer(signal.ITIMER_REAL, 0)
