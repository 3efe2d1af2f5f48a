from __future__ import annotations

import os
import threading
from datetime import UTC, datetime

import pytest

from airflow_provider_mljobs.emulator.containers.joblog import JobLog, LogLine, nanoseconds

AT = nanoseconds("2026-01-02T03:04:05.678901234Z")


class Clock:
    """A clock that stands still until it is set."""

    now = AT

    def __call__(self):
        """Return the time."""
        return self.now


@pytest.fixture
def clock():
    """Create the clock of the log."""
    return Clock()


@pytest.fixture
def log(tmp_path, clock):
    """Create a log."""
    job_log = JobLog(tmp_path / "main.log", clock=clock)
    yield job_log
    job_log.close()


def test_records_carry_time_and_stream(log):
    """Appended output comes back line by line, each line with its own time."""
    log.append("a\nb\n", "stdout")
    log.append("c\n", "stderr")

    assert [
        LogLine(AT, "stdout", "a"),
        LogLine(AT + 1000, "stdout", "b"),
        LogLine(AT + 2000, "stderr", "c"),
    ] == list(log.records())


def test_times_never_go_back(log, clock, tmp_path):
    """After the clock is set back, times don't decrease, also for another object of the same log."""
    log.append("a\n")
    log.close()
    clock.now = AT - 5_000_000_000
    again = JobLog(tmp_path / "main.log", clock=clock)
    again.append("b\n")
    clock.now = AT + 5_000_000_001
    again.append("c\n")
    again.close()

    assert [AT, AT + 1000, AT + 5_000_000_001] == [line.at for line in again.records()]


def test_logs_of_earlier_versions(log, tmp_path):
    """Times in microseconds, several lines with the same one, and short parts of lines can be read."""
    at = "2026-01-02T03:04:05.678901Z"
    (tmp_path / "main.log").write_text(f"{at} stdout F a\n{at} stdout F b\n{at} stdout P 10%\n{at} stdout F 20%\n")

    assert ["a", "b", "10%20%"] == [line.line for line in log.records()]
    assert "2026-01-02T03:04:05.678901000Z 10%20%\n" == log.tail(1, timestamps=True)
    assert "a\nb\n10%20%\n" == log.tail(since=nanoseconds(at))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01 00:00:00.000000001", 1),
        ("1970-01-01T00:00:00.12345678Z", 123_456_780),
        ("1970-01-01T01:00:00.000000001+01:00", 1),
        ("1969-12-31T23:59:59.999999999Z", -1),
        (datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 1000),
        (datetime(1970, 1, 1, 0, 0, 1), 1_000_000_000),
    ],
)
def test_nanoseconds(text, expected):
    """Times are read to the nanosecond; without a zone they are UTC."""
    assert expected == nanoseconds(text)


def test_parts_of_lines_are_joined(log):
    """A line may arrive in parts, with another stream in the middle; carriage returns in it are the program's.

    One before the line feed is part of the line's end: containerd cuts it off.
    """
    log.append("10%\r", "stdout")
    log.append("warning\n", "stderr")
    log.append("20%\r\nrest", "stdout")

    assert ["warning", "10%\r20%", "rest"] == [line.line for line in log.records()]
    assert "warning\n10%\r20%\nrest" == log.tail()


def test_long_lines_are_kept_in_parts(log, tmp_path):
    """A record is at most 16 KiB long, as containerd's; readers see whole characters."""
    text = "é" * 20_000 + "\n"
    log.append("x" * 16_384 + "\n" + text)
    tags = [line.split(b" ", 3)[2] for line in (tmp_path / "main.log").read_bytes().splitlines()]

    assert [b"F", b"P", b"P", b"F"] == tags
    assert text == log.tail(1)


def test_since(log, clock):
    """A tail has the lines since a time, that time included, limited by lines and bytes."""
    for number in range(5):
        clock.now = AT + number * 1_000_000
        log.append(f"{number}\n")

    def tail(after, *limits):
        return log.tail(*limits, since=AT + after)

    assert "2\n3\n4\n" == tail(2_000_000)
    assert "3\n4\n" == tail(2_000_001)
    assert "4\n" == tail(2_000_000, 1)
    assert "4\n" == tail(2_000_000, None, 2)
    assert "" == tail(4_000_001)
    assert ["3", "4"] == [line.line for line in log.records(since=AT + 3_000_000)]


def test_since_reads_the_end_only(log, tmp_path):
    """Reading new lines doesn't depend on the length of the log: here most of it is a hole, too large to read."""
    with (tmp_path / "main.log").open("wb") as file:
        file.truncate(64 * 1024**3)
        file.write(b"\n")
        file.seek(0, os.SEEK_END)
        file.write(b"\n2026-01-02T03:04:05.678901234Z stdout F old\n2026-01-02T03:04:06.000000000Z stdout F new\n")

    assert "new\n" == log.tail(since=AT + 1)
    assert ["new"] == [line.line for line in log.records(since=AT + 1)]


@pytest.mark.parametrize("text", ["", "\n", "\n\n a \n", "naïve 🚀\n", "x", "a\x0bb\u2028c\x00d\n", " F \n"])
def test_text_is_kept(log, text):
    """Only line feeds end lines; the output comes back as it was."""
    log.append(text)

    assert text == log.tail()


def test_lone_surrogates_are_replaced(log):
    """Text that UTF-8 can't encode is replaced."""
    log.append("a\ud800b\n")

    assert "a?b\n" == log.tail()


@pytest.mark.parametrize(
    ("lines", "max_bytes", "expected"),
    [
        (None, None, "1\n2\n3é\n4"),
        (2, None, "3é\n4"),
        (0, None, ""),
        (9, None, "1\n2\n3é\n4"),
        (None, 2, "\n4"),
        (None, 3, "\n4"),
        (None, 4, "é\n4"),
        (1, 100, "4"),
        (3, 3, "\n4"),
    ],
)
def test_tail(log, lines, max_bytes, expected):
    """A tail is the end of the output, in lines or bytes; a character that is cut in half is dropped."""
    log.append("1\n2\n3é\n4")

    assert expected == log.tail(lines, max_bytes)


def test_tail_with_timestamps(log):
    """Each line can have its time before it."""
    log.append("a\nb\n")

    assert "2026-01-02T03:04:05.678902234Z b\n" == log.tail(1, timestamps=True)


def test_tail_of_a_long_log_reads_its_end(log):
    """Lines longer than a block, and many blocks, come out whole."""
    long = "x" * 700_000
    for number in range(3):
        log.append(f"{number}{long}\nshort {number}\n")

    assert f"short 1\n2{long}\nshort 2\n" == log.tail(3)
    assert [f"0{long}", "short 0"] == [line.line for line in log.records()][:2]


def test_survives_a_restart(tmp_path):
    """Another object continues a log after a kill; an incomplete record is ignored, then cut off."""
    path = tmp_path / "main.log"
    first = JobLog(path)
    first.append("before\n")
    first.close()
    with path.open("ab") as file:
        file.write(b"2026-01-02T03:04:05.678900Z stdout F tor")
    second = JobLog(path)

    assert "before\n" == second.tail()
    assert ["before"] == [line.line for line in second.records()]

    second.append("after\n")
    second.close()

    assert "before\nafter\n" == second.tail()


def test_oldest_lines_go_when_the_limit_is_reached(tmp_path):
    """The log of a chatty job has a limit; the end of its output stays."""
    log = JobLog(tmp_path / "main.log", limit=20_000)
    for number in range(2000):
        log.append(f"line {number}\n")
    log.close()
    lines = [line.line for line in log.records()]

    assert [f"line {number}" for number in range(2000 - len(lines), 2000)] == lines
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000
    assert "line 1998\nline 1999\n" == log.tail(2)


def test_a_full_disk_loses_output_only(tmp_path, caplog):
    """A write error is logged as a warning and raises nothing."""
    (tmp_path / "taken").write_text("a file where the directory should be")
    log = JobLog(tmp_path / "taken" / "main.log")
    log.append("lost\n")

    assert ["Could not write 5 bytes"] == [record.message.partition(" to ")[0] for record in caplog.records]


def test_reading_while_writing(log):
    """Concurrent readers see whole lines in order."""
    expected = [f"line {number}" for number in range(3000)]
    writer = threading.Thread(target=lambda: [log.append(line + "\n") for line in expected])
    writer.start()
    seen = []
    while writer.is_alive():
        seen.append([line.line for line in log.records()])
    writer.join()

    assert all(lines == expected[: len(lines)] for lines in seen)
    assert expected == [line.line for line in log.records()]
