from functools import cache

import pytest

from tests.voice import FOLDERS, LIMITS, measure, participles, python_files, unclear_beginnings


@cache
def voice_of(folder):
    """Measure a folder once for all habits."""
    return measure(python_files(folder))


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("habit", LIMITS)
def test_comments_and_docstrings_keep_to_plain_english(folder, habit):
    """Each habit stays below its limit in 1 000 words; ``python -m tests.voice`` prints the places."""
    voice = voice_of(folder)

    assert voice.per_thousand(habit) <= LIMITS[habit][1], "\n".join(voice.places[habit])


def test_docstrings_of_tests_stand_alone():
    """A docstring of a test names its subject, because reports show it without its neighbours."""
    assert [] == unclear_beginnings(python_files("tests"))


def test_names_say_what_they_hold():
    """No variable, parameter or field is named by a bare participle."""
    assert [] == participles(python_files())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("# It returns what was found.", {"what": 1}),
        ('"""Somebody goes on."""', {"somebody": 1, "goes on": 1}),
        ("x = 1  # noqa: E501 (a URL) tells", {"tell": 1}),
        ('"""The statement ``what`` and "nobody" are quotations."""', {}),
    ],
)
def test_habits_are_counted(tmp_path, line, expected):
    """Comments and docstrings count, code and quotations don't."""
    file = tmp_path / "module.py"
    file.write_text(f"{line}\n")

    assert expected == dict(measure([file], tmp_path).habits)


@pytest.mark.parametrize("beginning", ["It is", "So is", "Neither does", "One is", "Both of them are", "This is"])
def test_unclear_beginnings_are_seen(tmp_path, beginning):
    """A pronoun at the beginning refers to another docstring."""
    file = tmp_path / "test_module.py"
    file.write_text(f'def test_x():\n    """{beginning} refused."""\n')

    assert [f"test_module.py:2: {beginning} refused."] == unclear_beginnings([file], tmp_path)
