"""Beliefs about an answer: each is a function of an answer that returns the deviation from it, empty if there is none.

They read like the end of a sentence: *SHOW COMPUTE POOLS* ``has_columns("name", "max_nodes")``.
"""

import re

from airflow_provider_mljobs.gateway.connection import translate


def succeeds(answer):
    """Believe that Snowflake takes the statement."""
    if answer.refusal is None:
        return ""
    return f"refused with {answer.refusal.errno} ({answer.refusal.sqlstate}): {answer.refusal.text}"


def has_columns(*names):
    """Believe that the answer has these columns, in any order and among others."""

    def belief(answer):
        missing = [name for name in names if name not in answer.names]
        return succeeds(answer) or (f"lacks the columns {missing}; it has {answer.names}" if missing else "")

    return belief


def has_rows(count=None, *, least=1):
    """Believe that the answer has so many rows, or at least one."""

    def belief(answer):
        fits = answer.count == count if count is not None else answer.count >= least
        return succeeds(answer) or (
            "" if fits else f"has {answer.count} rows, not {count if count is not None else f'{least} or more'}"
        )

    return belief


def shows(**cells):
    """Believe that the first row has these values; a set stands for any of its members, a pattern for its matches."""

    def belief(answer):
        if answer.refusal is not None or not answer.rows:
            return succeeds(answer) or "has no row"
        record = answer.records[0]
        wrong = {name: record.get(name) for name, value in cells.items() if not _fits(value, record.get(name))}
        return f"shows {wrong}, not { ({name: _described(cells[name]) for name in wrong}) }" if wrong else ""

    return belief


def says(pattern):
    """Believe that the text of the answer, or of the refusal, has a match for a regular expression."""

    def belief(answer):
        text = (
            answer.refusal.text
            if answer.refusal is not None
            else " ".join(str(cell) for row in answer.rows for cell in row)
        )
        return "" if re.search(pattern, text, re.IGNORECASE | re.DOTALL) else f"has no {pattern!r} in: {text[:500]}"

    return belief


def is_(expected):
    """Believe that the first cell has this value; a set and a pattern as in :func:`shows`."""

    def belief(answer):
        fits = _fits(expected, answer.value)
        return succeeds(answer) or ("" if fits else f"is {answer.value!r}, not {_described(expected)}")

    return belief


def is_at_most(limit):
    """Believe that the first cell is a number up to a limit."""

    def belief(answer):
        fits = isinstance(answer.value, int | float) and answer.value <= limit
        return succeeds(answer) or ("" if fits else f"is {answer.value!r}, not at most {limit}")

    return belief


def is_at_least(limit):
    """Believe that the first cell is a number from a limit on."""

    def belief(answer):
        fits = isinstance(answer.value, int | float) and answer.value >= limit
        return succeeds(answer) or ("" if fits else f"is {answer.value!r}, not at least {limit}")

    return belief


def is_refused(*kinds, errno=None, text=None):
    """Believe that Snowflake refuses the statement, and that the provider recognises the refusal.

    :param kinds: the exceptions of the provider, one of which it raises.
    :param errno: the error number, or several.
    :param text: a regular expression that the message has a match for.
    """

    def belief(answer):
        if answer.refusal is None:
            return f"succeeds, but should be refused: {str(answer.rows[:1])[:200]}"
        error = translate(answer.refusal.as_vendor_error())
        if kinds and not isinstance(error, kinds):
            expected = " or ".join(kind.__name__ for kind in kinds)
            return f"reaches the user as {type(error).__name__}, not {expected}: {error.errno} {error.message}"
        numbers = {errno} if isinstance(errno, int) else set(errno or ())
        if numbers and answer.refusal.errno not in {*numbers, None}:
            return f"is refused with {answer.refusal.errno}, not {sorted(numbers)}: {answer.refusal.text}"
        return "" if text is None else says(text)(answer)

    return belief


def either(*beliefs):
    """Believe one of several; the deviation names all."""

    def belief(answer):
        deviations = [one(answer) for one in beliefs]
        return " and ".join(deviations) if all(deviations) else ""

    return belief


def _fits(expected, value):
    if isinstance(expected, re.Pattern):
        return value is not None and expected.search(str(value)) is not None
    if isinstance(expected, set | frozenset):
        return value in expected
    return type(value) is type(expected) and value == expected


def _described(expected):
    if isinstance(expected, re.Pattern):
        return f"like {expected.pattern!r}"
    return f"one of {sorted(expected, key=str)}" if isinstance(expected, set | frozenset) else repr(expected)
