import pytest

from airflow_provider_mljobs.jobs.logs import between_banners, blocks, tail

LINE = "-" * 32
START, END = f"{LINE}\nML job started\n{LINE}\n", f"{LINE}\nML job finished\n{LINE}\n"


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", ""),
        ("no banner\n", "no banner"),
        (f"pip\n{START}hello\n{END}", "hello"),
        (f"pip\n{START}hello\nTraceback\n", "hello\nTraceback"),
        (f"cut off\nhello\n{END}", "cut off\nhello"),
        (f"{START}a\n{START}b\n{END}c\n{END}bye\n", f"a\n{START}b\n{END}c"),
        (f"{START}{END}", ""),
    ],
)
def test_the_payload_printed_what_is_between_the_banners(log, expected):
    """From the first start banner to the last end banner; a job that failed has no end."""
    assert expected == between_banners(log)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", ""),
        ("a\nb\n", "a\nb\n"),
        ("first\n" + "x" * 8190 + "\n", "x" * 8190 + "\n"),
        ("x" * 10_000, "x" * 8192),
        ("first\n" + "🚀" * 3000, "🚀" * 2048),
    ],
)
def test_a_tail_is_whole_lines_of_at_most_8_kb(log, expected):
    """A line that is longer by itself is cut, between two characters."""
    assert expected == tail(log)


def test_blocks_are_whole_lines_of_at_most_64_kb():
    """Together the blocks are the log."""
    lines = ["é" * 1000, "", "z"] * 100
    texts = list(blocks("\n".join(lines)))

    assert lines == "\n".join(texts).split("\n")
    assert 4 == len(texts)
    assert all(len(text.encode()) <= 65_536 for text in texts)


def test_a_long_line_is_a_block_of_its_own():
    """No line is cut."""
    long = "x" * 100_000

    assert ["a", long, "b\nc"] == list(blocks(f"a\n{long}\nb\nc\n"))


def test_an_empty_log_has_no_blocks():
    """There is nothing to write then."""
    assert [] == list(blocks(""))
