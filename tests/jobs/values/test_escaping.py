import json

import pytest
import yaml

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.values.escaping import is_plain, to_ascii, validate_text

NASTY = [
    "",
    " ",
    "$$",
    "$(X)",
    "$(HOME)",
    "$$(HOME)",
    "${X}",
    "$X",
    "\\",
    "\\$",
    "\\u0024",
    "'",
    '"',
    'it\'s "quoted" \\n',
    "a\nb",
    "a\r\nb",
    "\t",
    "\x7f",
    "\x1b[0m",
    "\x85",
    "\u2028",
    "🚀 größe",
    "{{ x }}",
    "#",
    ": - !!python",
    "é" * 20_000,
]


@pytest.mark.parametrize("value", NASTY, ids=ascii)
def test_json_in_ascii_says_the_same_in_json_and_yaml(value):
    """Whatever the text, it is printable ASCII without a dollar on its way, and the same text at its end."""
    text = to_ascii([value])

    assert text.isascii()
    assert text.isprintable()
    assert "$" not in text
    assert [value] == json.loads(text)
    assert [text] == yaml.safe_load(to_ascii([text]))


@pytest.mark.parametrize(
    ("value", "expected"), [("", True), ("a b~!", True), ("$", False), ("\n", False), ("é", False)]
)
def test_plain_text_is_printable_ascii_without_dollar(value, expected):
    """Only that can be written into a specification as it is."""
    assert expected is is_plain(value)


@pytest.mark.parametrize("value", NASTY, ids=ascii)
def test_any_text_is_valid(value):
    """Nothing but NUL, broken text and enormous text is refused."""
    validate_text(value, "args[0]")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a\0b", "args[2] holds a NUL character, which no process can be given."),
        ("\ud800", "args[2] holds half a surrogate pair, which is no valid text."),
        ("ä" * 50_001, "args[2] has 100002 bytes, more than the 100000 that one can hold; put it into a file or on"),
    ],
)
def test_what_no_process_can_be_given_is_refused_by_name(value, message):
    """The message names the argument and says what is wrong with it."""
    with pytest.raises(InvalidJobSpecError) as caught:
        validate_text(value, "args[2]")

    assert str(caught.value).startswith(message)


def test_text_within_a_process_may_have_any_size():
    """Only the system's own calls are limited; what is no text is refused all the same."""
    validate_text("x" * 1_000_000, "args[0]", any_size=True)

    with pytest.raises(InvalidJobSpecError, match="NUL"):
        validate_text("a\0", "args[0]", any_size=True)
