import pytest

from airflow_provider_mljobs.jobs.logs.text import between_banners, blocks, printable, readable, tail, without_banners

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
    """Together the blocks are the log, empty lines at the end included."""
    lines = ["é" * 1000, "", "z", ""] * 100
    texts = list(blocks(lines))

    assert lines == "\n".join(texts).split("\n")
    assert 4 == len(texts)
    assert all(len(text.encode()) <= 65_536 for text in texts)


@pytest.mark.parametrize("character", ["x", "é", "🚀"])
def test_a_long_line_is_cut_into_several_blocks(character):
    """No block is longer than a log store takes, and no character is torn."""
    long = character * 100_000

    texts = list(blocks(["a", long, "b", "c"]))

    assert f"a{long}bc" == "".join(texts).replace("\n", "")
    assert all(len(text.encode()) <= 65_536 for text in texts)


def test_an_empty_log_has_no_blocks():
    """There is nothing to write then."""
    assert [] == list(blocks([]))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", ""),
        ("plain ü 🚀", "plain ü 🚀"),
        ("  a\tb \t", "  a\tb"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[1;38;5;208mbold\x1b[m and \x1b[38:2::1:2:3mmore\x1b[0K", "bold and more"),
        ("\x1b[2J\x1b[H\x1b[?25lcleared\x1b[?25h", "cleared"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]2;a title\x1b\\text", "text"),
        ("a \x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\ b", "a link b"),
        ("text\x1b]0;a title without an end", "text"),
        ("\x1bPq#0\x1b\\a\x1b(B\x1b7b\x1b=", "ab"),
        ("cut off\x1b", "cut off"),
        ("cut off\x1b[31", "cut off"),
        ("a\0b\x08\x0b\x0c\x7f\x85\x9bc", "abc"),
        ("[31m is no colour", "[31m is no colour"),
        ("Windows\r", "Windows"),
        ("10%\r20%\r100%", "100%"),
        ("10%\r20%\r", "20%"),
        ("\r", ""),
        ("\x1b[32m10%\x1b[0m\r\x1b[K\x1b[32m100%\x1b[0m\r\x1b[K", "100%"),
    ],
)
def test_a_readable_line_is_what_a_terminal_shows_at_last(line, expected):
    """A line loses colours, titles and controls, and keeps tabs and the last state of a progress bar."""
    assert expected == readable(line)


def test_a_progress_bar_is_its_last_state():
    """As tqdm draws it: each state after a carriage return; one that doesn't stay is wiped with blanks."""
    bars = [
        f"epoch 1: {done * 10:3d}%|{'█' * done:10}| {done}/10 [00:0{done // 2}<00:01,  9.99it/s]" for done in range(11)
    ]
    drawn = "\r" + "\r".join(bars)

    assert bars[-1] == readable(drawn)
    assert bars[-1] == readable(f"{drawn}\r{' ' * len(bars[-1])}\r")
    assert bars[-1] == readable(drawn + "\x1b[A")


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", ""),
        ("no banner\n", "no banner"),
        (f"pip\n{START}hello\n{END}bye\n", "pip\nhello\nbye"),
        (f"{START}hello\nTraceback\n", "hello\nTraceback"),
        (f"{LINE}\nmy own\n{LINE}\n", f"{LINE}\nmy own\n{LINE}"),
    ],
)
def test_people_read_a_log_without_banners(log, expected):
    """A log keeps all output, without the launcher's banners."""
    assert expected == without_banners(log)


def test_the_last_banner_of_a_log_needs_no_line_feed():
    """A log may come without its last one."""
    assert "hello" == without_banners(f"{START}hello\n{END}".rstrip("\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain\ttext\nof two lines, with ünïcödé ✓", "plain\ttext\nof two lines, with ünïcödé ✓"),
        ("\x1b[31mred", r"\u001b[31mred"),
        ("\x9b31m\x7f\x00", r"\u009b31m\u007f\u0000"),
        ("user\u202etxt.exe\u2066", r"user\u202etxt.exe\u2066"),
        ("half \ud800", r"half \ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text, expected):
    """Commands to a terminal are written as JSON escapes, so that JSON keeps its meaning."""
    assert expected == printable(text)
