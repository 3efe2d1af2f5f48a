import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from airflow_provider_mljobs.jobs.logs.cursor import (
    Gap,
    LogCursor,
    Tail,
    behind,
    cursors_from_json,
    cursors_to_json,
    digest,
    goes_back,
    news,
    without_stamps,
)
from airflow_provider_mljobs.launcher.contract import BANNER, TITLES

BEGIN = 1_790_000_000 * 10**9
# The simulated node keeps this many bytes; a text that is nearly as long may be cut.
LIMIT, FULL = 200, 195
SECOND = 10**9


def stamped(nanoseconds):
    """Write a time as Go does: without zeros at the end of the fraction."""
    seconds, fraction = divmod(nanoseconds, SECOND)
    point = f".{fraction:09}".rstrip("0").rstrip(".")
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{point}Z"


def parsed(stamp):
    """Read a time of a request."""
    seconds, _, fraction = stamp.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(seconds + "+00:00").timestamp()) * SECOND + int(fraction.ljust(9, "0") or 0)


def kept(lines):
    """Return lines as an event table has them: with times to the microsecond."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return [(epoch + timedelta(microseconds=at // 1000), text) for at, text in lines]


def tail_of(lines, since="", begun="", *, is_stamped=True):
    """Return the last bytes of the lines since a time, with the beginning of the next line, as Snowflake does."""
    chosen = [(at, text) for at, text in lines if not since or at >= parsed(since)]
    texts = [f"{stamped(at)} {text}\n" if is_stamped else f"{text}\n" for at, text in chosen]
    data = ("".join(texts) + begun).encode()
    return Tail(data[-LIMIT:].decode(errors="ignore"), is_stamped, is_cut=len(data) >= FULL)


@dataclass(frozen=True)
class Write:
    """A line that a container writes.

    :param text: its text.
    :param at: how much later than all lines before, in nanoseconds; 0 for the time of the line just before; below 0
        for a line that waited while the other stream's went by.
    """

    text: str
    at: int


@dataclass(frozen=True)
class Look:
    """A look at the log.

    :param is_early: whether the next line has been begun.
    """

    is_early: bool


@dataclass(frozen=True)
class Seen:
    """The lines of one look.

    :param begin: how many lines had been read before.
    :param end: how many have been now.
    """

    gap: Gap | None
    lines: tuple[str, ...]
    begin: int
    end: int
    cursor: LogCursor
    tail: Tail


COMMON = ["", "tick", "ü 🚀", BANNER, "2026-01-01T00:00:00Z user's own"]
# Titles of banners would be some, behind dashes; these have a test of their own.
ANY = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=40)
TEXTS = st.sampled_from(COMMON) | ANY.filter(lambda text: text not in TITLES)
LONG = st.builds(lambda text, times: text * times, TEXTS, st.integers(10, 60))
# Whole milliseconds, microseconds and nanoseconds have fractions of different lengths.
STEPS = st.sampled_from([1, 1000, 10**6, 300 * 10**6, SECOND, 61 * SECOND])
LOOKS = st.builds(Look, st.booleans())


def histories(texts, steps):
    """Logs that grow and are looked at now and then."""
    bursts = st.tuples(st.lists(st.builds(Write, texts, steps), max_size=12), LOOKS)
    return st.lists(bursts, max_size=8).map(
        lambda parts: [event for writes, look in parts for event in (*writes, look)]
    )


def written(history):
    """Return all lines with their times, and after how many of them each look comes."""
    lines, looks = [], []
    used, latest, last = {BEGIN}, BEGIN, BEGIN
    for event in history:
        if isinstance(event, Look):
            looks.append((len(lines), event.is_early))
            continue
        at = latest + event.at
        if event.at == 0 or (event.at < 0 and at in used):
            at = last
        used.add(at)
        last, latest = at, max(at, latest)
        lines.append((at, event.text))
    return lines, looks


def follow(history, *, is_stamped=True):
    """Read a growing log to its end, each time from the cursor's JSON, and check the lines."""
    lines, looks = written(history)
    cursor, begin, seen = LogCursor(), 0, []
    for count, is_early in [*looks, (len(lines), None)]:
        is_final = is_early is None
        begun = ""
        if is_early and count < len(lines):
            at, text = lines[count]
            begun = f"{stamped(at)} {text}" if is_stamped else text
        tail = tail_of(lines[:count], cursor.since(), begun, is_stamped=is_stamped)
        result = news(cursor, tail, is_final=is_final)
        # The only line that is held back may be the first one of a banner.
        end = count - (not is_final and count > 0 and lines[count - 1][1] == BANNER)
        if result.lines or result.gap:
            seen.append(Seen(result.gap, result.lines, begin, end, cursor, tail))
            begin = end
        cursor = LogCursor.from_json(json.loads(json.dumps(result.cursor.to_json())))
        assert cursor == result.cursor
    assert begin == len(lines)
    return lines, seen


def check(lines, seen):
    """Assert that each line of the log was shown once, except those in gaps."""
    for each in seen:
        expected = tuple(text for _, text in lines[each.begin : each.end])
        first = len(expected) - len(each.lines)
        assert first == 0 or (first > 0 and each.gap is not None)
        assert expected[first:] == each.lines
        if each.gap is not None and each.tail.is_stamped:
            after = stamped(lines[each.begin - 1][0]) if each.begin else ""
            before = stamped(lines[each.begin + first][0]) if each.lines else ""
            assert (after, before) == (each.gap.after, each.gap.before)
            assert each.tail.is_cut or not each.cursor.count


@given(histories(TEXTS | LONG, st.just(0) | STEPS | st.integers(-SECOND, -1)))
def test_each_line_is_shown_once_or_lies_in_an_announced_gap(history):
    """For any log and any looks: lines are in order, none comes twice, and none is lost without an announced gap."""
    check(*follow(history))


@given(histories(st.sampled_from(COMMON), st.just(0) | STEPS | st.integers(-SECOND, -1)))
def test_a_log_of_lines_that_are_alike_is_read_as_exactly(history):
    """Equal lines are read as exactly as different ones."""
    check(*follow(history))


@st.composite
def alike_and_numbered(draw):
    """Logs with repeated lines, but without repeated runs of several different ones."""
    numbered = ["{}: " + "x" * length for length in (0, 10, 30, 500)]
    history = draw(histories(st.sampled_from(["", "tick", *numbered]), STEPS))
    return [
        Write(event.text.format(number), event.at) if isinstance(event, Write) else event
        for number, event in enumerate(history)
    ]


@given(alike_and_numbered())
def test_without_times_lines_are_compared(history):
    """Exact until Snowflake cuts the log; then exact or announced."""
    check(*follow(history, is_stamped=False))


@given(histories(TEXTS | LONG, st.just(0) | STEPS))
def test_an_event_table_fills_a_gap_exactly_or_not_at_all(history):
    """Although its times are less exact."""
    lines, seen = follow(history)
    table = kept(lines)
    for each in seen:
        missing = None if each.gap is None else each.gap.filled(table)
        if missing is not None:
            first = each.end - len(each.lines)
            assert [text for _, text in lines[each.begin : first]] == missing


@given(histories(TEXTS | LONG, st.just(0) | st.sampled_from([1000, 10**6, SECOND])), st.booleans())
def test_an_event_table_goes_on_where_a_cursor_stands(history, is_stamped):
    """When the node is gone, with or without times before the lines."""
    lines, looks = written(history)
    cursor, begin = LogCursor(), 0
    for count, _ in looks:
        tail = tail_of(lines[:count], cursor.since(), is_stamped=is_stamped)
        result = news(cursor, tail)
        if result.gap is not None or tail.is_cut:
            break
        cursor, begin = result.cursor, begin + len(result.lines)

    assert [text for _, text in lines[begin:]] == behind(cursor, kept(lines))


def lines_of(*texts):
    """Return lines a second apart."""
    return [(BEGIN + number * SECOND, text) for number, text in enumerate(texts)]


STARTED, FINISHED = (BANNER, "ML job started", BANNER), (BANNER, "ML job finished", BANNER)
PRINTED = ("pip", BANNER, "my own title", BANNER, BANNER, "hello", BANNER)
WHOLE = (*PRINTED[:2], *STARTED, *PRINTED[2:5], *FINISHED, *PRINTED[5:])


@pytest.mark.parametrize("is_stamped", [True, False], ids=["stamped", "plain"])
@pytest.mark.parametrize("first", range(len(WHOLE) + 1))
def test_banners_never_show_wherever_a_look_cuts_them(first, is_stamped):
    """Banners are never shown; a payload's own dashes are, once the next line shows that they are no banner."""
    for second in range(first, len(WHOLE) + 1):
        cursor, printed = LogCursor(), []
        for count in (first, second, len(WHOLE)):
            lines = lines_of(*WHOLE)[:count]
            text = "".join(f"{stamped(at)} {text}\n" if is_stamped else f"{text}\n" for at, text in lines)
            result = news(cursor, Tail(text, is_stamped), is_final=count == len(WHOLE))
            cursor, printed = result.cursor, [*printed, *result.lines]

        assert list(PRINTED) == printed


def test_dashes_at_the_end_wait_for_what_comes():
    """Dashes that may begin a banner are shown with the next line, or at the end."""
    lines = lines_of("a", BANNER)
    first = news(LogCursor(), tail_of(lines))

    assert ("a",) == first.lines
    assert (BANNER, "b") == news(first.cursor, tail_of([*lines, *lines_of("", "", "b")[2:]])).lines
    assert (BANNER,) == news(first.cursor, tail_of(lines), is_final=True).lines


@pytest.mark.parametrize("late", [0, 1, SECOND // 2, SECOND])
def test_late_lines_are_not_lost(late):
    """One stream's lines may wait for up to a second while the other's go by."""
    lines = lines_of("a", "b", "c")
    first = news(LogCursor(), tail_of(lines))
    more = [*lines, (lines[-1][0] - late, "late"), (BEGIN + 9 * SECOND, "d")]

    assert ("late", "d") == news(first.cursor, tail_of(more, first.cursor.since())).lines


def test_since_leaves_a_minute_for_late_lines():
    """A fresh cursor asks for everything."""
    cursor = news(LogCursor(), tail_of([(BEGIN + 5 * SECOND + 1, "a")])).cursor

    assert "" == LogCursor().since()
    assert "2026-09-21T14:12:25.000000000Z" == cursor.since()
    assert "2026-09-21T14:11:25.000000000Z" == cursor.since(timedelta(seconds=120))


def test_a_line_without_its_end_waits():
    """Until the end of the log."""
    lines = lines_of("a")
    tail = tail_of(lines, begun=f"{stamped(BEGIN + SECOND)} half")
    first = news(LogCursor(), tail)

    assert ("a",) == first.lines
    assert ((), first.cursor) == (news(first.cursor, tail).lines, news(first.cursor, tail).cursor)
    assert ("half",) == news(first.cursor, tail, is_final=True).lines


def test_an_empty_log_is_no_news():
    """At the end as in between."""
    for is_final in (False, True):
        result = news(LogCursor(), Tail(""), is_final=is_final)

        assert (LogCursor(), (), None) == (result.cursor, result.lines, result.gap)


def test_a_log_that_the_node_has_begun_anew():
    """A node keeps a log of many megabytes in several files, and shows the last one."""
    first = news(LogCursor(), tail_of(lines_of("a", "b")))
    result = news(first.cursor, tail_of(lines_of("", "", "", "c", "d")[3:]))

    assert ("c", "d") == result.lines
    assert (2, digest("b")) == (result.gap.seconds, result.gap.last)


def test_a_users_own_times_stay():
    """Only the node's are taken off, where it gives any."""
    own = "2026-01-01T00:00:00.5Z user's own"
    without_space = news(LogCursor(), Tail("2026-01-01T00:00:00Z\n"))

    assert (own,) == news(LogCursor(), tail_of(lines_of(own))).lines
    assert (own,) == news(LogCursor(), Tail(f"{own}\n", is_stamped=False)).lines
    assert ("",) == without_space.lines


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (Tail(""), ""),
        (Tail("2026-01-01T00:00:00Z a\n2026-01-01T00:00:00.5Z  b\n"), "a\n b\n"),
        (Tail("2026-01-01T00:00:00Z a"), "a\n"),
        (Tail("2026-01-01T00:00:00Z a\n", is_stamped=False), "2026-01-01T00:00:00Z a\n"),
        (Tail("00:00Z a\n2026-01-01T00:00:00Z b\n", is_cut=True), "b\n"),
        (Tail("t of\nb\n", is_stamped=False, is_cut=True), "b\n"),
        (Tail("the end of one line", is_cut=True), "the end of one line"),
    ],
)
def test_a_log_without_its_times(tail, expected):
    """The rest of the first line of a cut log is shown only if the log has no other line."""
    assert expected == without_stamps(tail)


GAP = Gap(stamped(BEGIN), digest("a"), stamped(BEGIN + 3 * SECOND), digest("d"))
KEPT = kept(lines_of("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("gap", "rows", "expected"),
    [
        (GAP, KEPT, ["b", "c"]),
        (GAP, [*kept([(BEGIN - SECOND, "x")]), *KEPT, *kept([(BEGIN + 9 * SECOND, "y")])], ["b", "c"]),
        (Gap("", "", GAP.before, GAP.next), KEPT, ["a", "b", "c"]),
        (GAP, [KEPT[0], KEPT[3]], []),
        (GAP, KEPT[1:], None),
        (GAP, KEPT[:-1], None),
        (GAP, [*KEPT, KEPT[-1]], None),
        (GAP, [], None),
        (Gap(GAP.after, GAP.last), KEPT, None),
        (Gap("", digest("a"), "", digest("d")), KEPT, None),
        (Gap("", "", GAP.before, GAP.next), kept(lines_of("a", "b", "c", "x")), None),
        (Gap("", "", GAP.before, GAP.next), kept(lines_of(*STARTED, "d")), []),
    ],
    ids=[
        "exact",
        "more around",
        "the beginning",
        "nothing missing",
        "too late",
        "too early",
        "twice",
        "nothing",
        "the end",
        "no times",
        "another line",
        "banners",
    ],
)
def test_a_gap_is_filled_from_an_event_table(gap, rows, expected):
    """If both lines around it are found there, each once."""
    assert expected == gap.filled(rows)


def test_how_long_a_gap_is():
    """Not known at the beginning, or without times."""
    assert 0.25 == Gap("2026-01-01T00:00:00Z", "", "2026-01-01T00:00:00.25Z").seconds
    assert [None] * 3 == [gap.seconds for gap in (Gap(), Gap("", "", GAP.before), Gap(GAP.after))]


def test_behind_a_place_that_an_event_table_does_not_have():
    """Without the last line that was read, an event table's later lines follow; without times, all of its lines do."""
    cursor = LogCursor(stamped(BEGIN + SECOND + 1), 1, (digest("x"),))

    assert ["c", "d"] == behind(cursor, KEPT)
    assert ["a", "b", "c", "d"] == behind(LogCursor("", 1, (digest("x"),)), KEPT)
    assert [] == behind(cursor, [])


def test_cursors_survive_json():
    """Cursors of any instance and container name survive JSON."""
    cursors = {(0, "main"): LogCursor(), (12, "a/b"): LogCursor("2026-01-01T00:00:00Z", 2, ("x", "y"))}

    assert cursors == cursors_from_json(json.loads(json.dumps(cursors_to_json(cursors))))


def test_a_cursor_is_small():
    """Airflow stores those of all instances."""
    cursor = news(LogCursor(), Tail("".join(f"{number}\n" for number in range(10_000)), is_stamped=False)).cursor

    assert len(json.dumps(cursor.to_json())) < 150


def test_times_that_go_back():
    """Two streams may be a second out of order; more than that is a clock that was set back."""
    together, back = [(BEGIN, "a"), (BEGIN - SECOND // 2, "b")], [(BEGIN, "a"), (BEGIN - 30 * SECOND, "b")]

    assert [False, True] == [goes_back(tail_of(lines)) for lines in (together, back)]
    assert not goes_back(Tail("a\nb\n", is_stamped=False))


def test_a_gap_with_a_clock_that_was_set_back():
    """How long it is can't be said."""
    gap = Gap(stamped(BEGIN), "", stamped(BEGIN - SECOND))

    assert (True, None) == (gap.is_set_back, gap.seconds)


@pytest.mark.parametrize(
    "value", [["", -1], ["", True], ["", 1.5], ["x", 1], [None, 1], ["", 1, 7], ["", 1, *"abcdefghi"]]
)
def test_what_is_no_cursor(value):
    """Another version's, or people's."""
    with pytest.raises(ValueError, match="place"):
        LogCursor.from_json(value)


@pytest.mark.parametrize("value", [["a", "", "", ""], ["", 1, "", ""], ["", "", "2026-99-99T00:00:00Z", ""], ["", ""]])
def test_what_is_no_gap(value):
    """Another version's, or people's."""
    with pytest.raises(ValueError, match=r"."):
        Gap.from_json(value)
