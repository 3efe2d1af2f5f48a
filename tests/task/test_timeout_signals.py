"""A timeout that strikes by a signal."""

import contextlib
import signal
import threading
import time

import pytest

from airflow_provider_mljobs.task.timeout_signals import disarm, held_back, limited


class StruckError(Exception):
    """The error of the timeout."""


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
    """A timeout that was cancelled does not strike."""
    disarm()
    time.sleep(0.1)


def out_of_time():
    """Make the error of a limit."""
    return TimeoutError("It took too long.")


@pytest.mark.parametrize("catches", [contextlib.nullcontext, lambda: contextlib.suppress(Exception)])
def test_a_block_that_takes_too_long(catches):
    """The caller's error ends the block at any line; a handler of all errors doesn't stop it."""
    with pytest.raises(TimeoutError, match="It took too long"), limited(0.02, out_of_time), catches():
        time.sleep(60)


def test_a_block_that_catches_everything():
    """A limit strikes again until the block ends."""

    def work():
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001 (as some libraries do)
            time.sleep(60)

    with pytest.raises(TimeoutError), limited(0.02, out_of_time):
        work()


def test_a_block_in_time():
    """Nothing strikes behind it."""
    with limited(0.02, out_of_time):
        pass
    time.sleep(0.1)


@pytest.mark.usefixtures("armed")
def test_a_limit_holds_another_alarm_back():
    """An alarm that comes due within the block strikes behind it."""

    def work():
        with limited(60, out_of_time):
            time.sleep(0.1)
        time.sleep(60)

    began = time.monotonic()
    with pytest.raises(StruckError):
        work()

    assert 0.1 <= time.monotonic() - began


def test_in_other_threads():
    """Signals strike the main thread; in another one there is nothing to hold back."""
    done = []

    def work():
        with held_back(), limited(0.001, out_of_time):
            disarm()
            time.sleep(0.05)
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert [True] == done
