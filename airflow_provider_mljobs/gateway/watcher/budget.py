"""A bounded number of statements, shared fairly: the longest wait is next, as soon as a statement is available."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")
# Unspent statements may be spent later at once, but no more than those of some seconds.
_SAVED_SECONDS = 10.0
# Moments since the epoch are less exact than their differences: a caller that has waited as long as asked isn't early.
_INSTANT = 1e-6


class StatementBudget(Generic[T]):
    """A token bucket of so many statements a minute, and turns to spend them. Not thread-safe."""

    def __init__(self, per_minute: float, now: float) -> None:
        self._rate = per_minute / 60.0
        self._maximum = max(1.0, self._rate * _SAVED_SECONDS)
        self._allowance = self._maximum
        self._counted = now
        self._due: dict[T, float] = {}

    def add(self, key: T, due: float) -> None:
        """Plan a turn, at the earliest when it is due; it replaces an earlier one."""
        self._due[key] = due

    def remove(self, key: T) -> None:
        """Cancel a turn, if one is planned."""
        self._due.pop(key, None)

    def take(self, now: float) -> T | None:
        """Return the next turn and forget it; ``None`` if no turn is due, or no statement is available."""
        if self.wait(now) != 0.0:
            return None
        key = min(self._due, key=self._due.__getitem__)
        del self._due[key]
        return key

    def spend(self, statements: int) -> None:
        """Charge statements that were sent or are set aside; an expensive turn delays the next ones."""
        self._allowance -= statements

    def refund(self, statements: int) -> None:
        """Return statements that were set aside and not sent."""
        self._allowance += statements

    def has_allowance(self, now: float) -> bool:
        """Return whether a statement is available."""
        self._count(now)
        return self._allowance >= 1.0

    def wait(self, now: float) -> float | None:
        """Return the seconds until the next turn; ``None`` if none is planned."""
        self._count(now)
        if not self._due:
            return None
        until_affordable = (1.0 - self._allowance) / self._rate
        wait = max(min(self._due.values()) - now, until_affordable)
        return wait if wait > _INSTANT else 0.0

    def _count(self, now: float) -> None:
        self._allowance = min(self._maximum, self._allowance + max(0.0, now - self._counted) * self._rate)
        self._counted = now
