"""A timeout that strikes by a signal."""

import signal
import threading
import time

import pytest

from airflow_provider_mljobs.alarms import disarm, held_back


class StruckError(Exception):
    """What the timeout raises."""


@pytest.fixture
def armed():
    """Arm a timeout of 20 ms."""

    def strike(*_):
        raise StruckError

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("armed")
def test_it_strikes_behind_what_must_not_be_torn():
    """The block comes to its end first."""
    began = time.monotonic()

    with pytest.raises(StruckError), held_back():
        time.sleep(0.1)

    assert 0.1 <= time.monotonic() - began


@pytest.mark.usefixtures("armed")
def test_it_strikes_later():
    """A timeout that isn't due in the block is none of its business."""
    with held_back():
        pass

    with pytest.raises(StruckError):
        time.sleep(1)


@pytest.mark.usefixtures("armed")
def test_it_strikes_no_more():
    """Nor does one that is disarmed."""
    disarm()
    time.sleep(0.1)


def test_in_other_threads():
    """Signals strike the main thread; in another one there is nothing to hold back."""
    done = []

    def work():
        with held_back():
            disarm()
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert [True] == done
