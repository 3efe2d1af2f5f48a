"""Fair turns at a bounded number of statements: who has waited longest is next, as soon as there is one to spend."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")
# What was not spent may be spent at once later, but not more than that of some seconds.
_SAVED_SECONDS = 10.0
# Moments since the epoch are less exact than differences of them: who waits as long as it was told is not early.
_INSTANT = 1e-6


class Turns(Generic[T]):
    """Who is to have a turn when. Not thread-safe.

    :param per_minute: how many statements a minute all turns may take together.
    :param now: the moment of its making; as all moments, in seconds.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self._rate = per_minute / 60.0
        self._most = max(1.0, self._rate * _SAVED_SECONDS)
        self._allowance = self._most
        self._counted = now
        self._due: dict[T, float] = {}

    def add(self, who: T, due: float) -> None:
        """Give somebody a turn, not before it is due; it takes the place of an earlier one."""
        self._due[who] = due

    def remove(self, who: T) -> None:
        """Take somebody's turn away, if there is one."""
        self._due.pop(who, None)

    def take(self, now: float) -> T | None:
        """Return who may act now, and forget that turn; ``None`` if nobody is due or nothing is left to spend."""
        self._count(now)
        if self._wait(now) != 0.0:
            return None
        who = min(self._due, key=self._due.__getitem__)
        del self._due[who]
        return who

    def spend(self, statements: int) -> None:
        """Take note of what a turn has cost; a dear one delays those that follow.

        :param statements: how many were sent, or are set aside; fewer than none if they were not needed after all.
        """
        self._allowance -= statements

    def has_allowance(self, now: float) -> bool:
        """Tell whether there is something to spend."""
        self._count(now)
        return self._allowance >= 1.0

    def wait(self, now: float) -> float | None:
        """Return for how many seconds nobody can act; ``None`` if nobody has a turn."""
        self._count(now)
        return self._wait(now)

    def _count(self, now: float) -> None:
        self._allowance = min(self._most, self._allowance + max(0.0, now - self._counted) * self._rate)
        self._counted = now

    def _wait(self, now: float) -> float | None:
        if not self._due:
            return None
        until_affordable = (1.0 - self._allowance) / self._rate
        wait = max(min(self._due.values()) - now, until_affordable)
        return wait if wait > _INSTANT else 0.0
