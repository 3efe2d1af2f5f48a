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
    """JSON and YAML restore any text from printable ASCII without a dollar."""
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
    """Only printable ASCII without a dollar is written to a specification unchanged."""
    assert expected is is_plain(value)


@pytest.mark.parametrize("value", NASTY, ids=ascii)
def test_any_text_is_valid(value):
    """Only NUL, halves of surrogate pairs and very long text are refused."""
    validate_text(value, "args[0]")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a\0b", "args[2] holds a NUL character, which no process accepts. Remove it."),
        ("\ud800", "args[2] holds half a surrogate pair, which is no valid text. Remove it."),
        ("ä" * 50_001, "args[2] has 100002 bytes, more than the limit of 100000. Pass it in a file or on a stage."),
    ],
)
def test_what_no_process_can_be_given_is_refused_by_name(value, message):
    """The message for invalid text names the argument and the reason."""
    with pytest.raises(InvalidJobSpecError) as caught:
        validate_text(value, "args[2]")

    assert str(caught.value).startswith(message)


def test_text_within_a_process_may_have_any_size():
    """Text within a process has no limit of its size, but must be valid."""
    validate_text("x" * 1_000_000, "args[0]", any_size=True)

    with pytest.raises(InvalidJobSpecError, match="NUL"):
        validate_text("a\0", "args[0]", any_size=True)
