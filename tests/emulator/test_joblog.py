from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from airflow_provider_mljobs.emulator.runner.joblog import JobLog, LogLine

AT = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)


@pytest.fixture
def log(tmp_path):
    """Make a log."""
    job_log = JobLog(tmp_path / "main.log")
    yield job_log
    job_log.close()


def test_records_carry_time_and_stream(log):
    """What was appended comes back line by line."""
    log.append("a\nb\n", "stdout", AT)
    log.append("c\n", "stderr", AT)

    assert [
        LogLine(AT, "stdout", "a"),
        LogLine(AT, "stdout", "b"),
        LogLine(AT, "stderr", "c"),
    ] == list(log.records())


def test_parts_of_lines_are_joined(log):
    """A line may arrive in parts, with another stream in the middle; carriage returns are the program's."""
    log.append("10%\r", "stdout", AT)
    log.append("warning\n", "stderr", AT)
    log.append("20%\r\nrest", "stdout", AT)

    assert ["warning", "10%\r20%\r", "rest"] == [line.line for line in log.records()]
    assert "warning\n10%\r20%\r\nrest" == log.tail()


@pytest.mark.parametrize("text", ["", "\n", "\n\n a \n", "naïve 🚀\n", "x", "a\x0bb\u2028c\x00d\n", " F \n"])
def test_text_is_kept(log, text):
    """Only line feeds end lines; the output comes back as it was."""
    log.append(text)

    assert text == log.tail()


def test_lone_surrogates_are_replaced(log):
    """What UTF-8 can't express doesn't stop the log."""
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
    """The end of the output, in lines or bytes; a character that is cut in half is left out."""
    log.append("1\n2\n3é\n4")

    assert expected == log.tail(lines, max_bytes)


def test_tail_with_timestamps(log):
    """Each line can have its time before it."""
    log.append("a\nb\n", at=AT)

    assert "2026-01-02T03:04:05.678900000Z b\n" == log.tail(1, timestamps=True)


def test_tail_of_a_long_log_reads_its_end(log):
    """Lines longer than a block, and many blocks, come out whole."""
    long = "x" * 700_000
    for number in range(3):
        log.append(f"{number}{long}\nshort {number}\n")

    assert f"short 1\n2{long}\nshort 2\n" == log.tail(3)
    assert [f"0{long}", "short 0"] == [line.line for line in log.records()][:2]


def test_survives_a_restart(tmp_path):
    """Another object goes on where the first one was killed; a torn record is ignored, then cut."""
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
    """The disk is safe from a chatty job; the end of its output stays."""
    log = JobLog(tmp_path / "main.log", limit=20_000)
    for number in range(2000):
        log.append(f"line {number}\n")
    log.close()
    lines = [line.line for line in log.records()]

    assert [f"line {number}" for number in range(2000 - len(lines), 2000)] == lines
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000
    assert "line 1998\nline 1999\n" == log.tail(2)


def test_a_full_disk_loses_output_only(tmp_path, caplog):
    """A log that can't be written says so and raises nothing."""
    (tmp_path / "taken").write_text("a file where the directory should be")
    log = JobLog(tmp_path / "taken" / "main.log")
    log.append("lost\n")

    assert ["Lost"] == [record.message.split()[0] for record in caplog.records]


def test_reading_while_writing(log):
    """Readers see whole lines in order, up to some moment."""
    expected = [f"line {number}" for number in range(3000)]
    writer = threading.Thread(target=lambda: [log.append(line + "\n") for line in expected])
    writer.start()
    seen = []
    while writer.is_alive():
        seen.append([line.line for line in log.records()])
    writer.join()

    assert all(lines == expected[: len(lines)] for lines in seen)
    assert expected == [line.line for line in log.records()]
