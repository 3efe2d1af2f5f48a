"""Airflow's execution_timeout strikes by a signal, in the middle of anything: kept from where it would do harm."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


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


def disarm() -> None:
    """Let the timeout strike no more."""
    if current_thread() is main_thread():
        signal.setitimer(signal.ITIMER_REAL, 0)
