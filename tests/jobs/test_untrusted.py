"""Untrusted JSON and YAML: values of bounded size and depth, or one error."""

import contextlib
import json
import math

import pytest
import yaml
from hypothesis import given, strategies as st

from airflow_provider_mljobs.exceptions import MLJobError, UnreadableError
from airflow_provider_mljobs.jobs.untrusted import MAX_DEPTH, read_json, read_json_prefix, read_yaml, reading

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)
# A billion values within 400 bytes.
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{here}: &{here} [{', '.join([f'*{before}'] * 10)}]\n" for before, here in zip("abcdefgh", "bcdefghi", strict=True)
)


def refused(read, text, **bounds):
    """Return the error message of reading a text."""
    with pytest.raises(UnreadableError) as caught:
        read(text, "The COMMENT", **bounds)
    return str(caught.value)


@given(JSON)
def test_json_is_read(value):
    """A document within the bounds reads back unchanged."""
    assert value == read_json(json.dumps(value), "The COMMENT", depth=1000)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    """No text raises anything but UnreadableError."""
    for read in (read_json, read_json_prefix, read_yaml):
        with contextlib.suppress(UnreadableError):
            read(text, "The COMMENT")

    assert issubclass(UnreadableError, MLJobError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value: line 1 column 1 (char 0)"),
        ("{} {}", "Extra data: line 1 column 4 (char 3)"),
        ("[" * 1200, "nested too deep"),
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 1200, "nested too deep"),
        ("[" * 51 + "]" * 51, "it is more than 50 levels deep"),
        ('{"a":' * 51 + "1" + "}" * 51, "it is more than 50 levels deep"),
        ("9" * 5000, "4300 digits"),
        ("[" + "1," * 300_000 + "1]", "it has 600003 characters, more than 500000"),
        (None, "expected text, got NoneType"),
        (b"{}", "expected text, got bytes"),
        ({}, "expected text, got dict"),
    ],
    ids=lambda value: f"{str(value)[:20]} of {len(str(value))}",
)
def test_json_that_is_refused(text, message):
    """The error has the document and the reason."""
    error = refused(read_json, text)

    assert error.startswith("The COMMENT can't be read: ")
    assert message in error


def test_depth_is_counted_in_containers():
    """A document of exactly the maximum depth is read; brackets in strings don't count."""
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    many = json.dumps(["[{" * 100] * 100)

    assert json.loads(deep) == read_json(deep, "A result")
    assert json.loads(many) == read_json(many, "A result")
    assert "more than 2 levels" in refused(read_json, "[[[]]]", depth=2)


def test_bounds_can_be_narrower_or_wider():
    """Callers choose the bounds: a result may be larger than a COMMENT."""
    assert "more than 3" in refused(read_json, "[1, 2]", limit=3)
    assert [0] * 300_000 == read_json(json.dumps([0] * 300_000), "A result", limit=1_000_000)


def test_numbers_that_are_none():
    """NaN and infinities, which Python's json writes, are read as floats."""
    numbers = read_json("[NaN, Infinity, -Infinity, 1e999]", "A result")

    assert math.isnan(numbers[0])
    assert [math.inf, -math.inf, math.inf] == numbers[1:]


def test_halves_of_surrogate_pairs_are_replaced():
    """Halves of surrogate pairs are replaced, and whole pairs become their character."""
    document = read_json('{"\\ud800": ["a\\udfffb", "\\ud83d\\ude80", "\\\\ud800"]}', "A result")

    assert {"\ufffd": ["a\ufffdb", "🚀", "\\ud800"]} == document
    assert "\ufffd" == read_json('"\ud800"', "A result")


def test_of_a_key_that_occurs_twice_the_last_value_counts():
    """The last value of a repeated key counts, as in Python's own reader."""
    assert {"a": 2} == read_json('{"a": 1, "a": 2}', "A result")


def test_a_document_at_the_beginning_of_a_text():
    """The end of the document is returned with it, within the same bounds."""
    assert ({"a": 1}, 9) == read_json_prefix(' {"a": 1} and more', "A line")
    assert "nested too deep" in refused(read_json_prefix, "[" * 5000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The COMMENT is empty."),
        ("a: [", "line 1, column 5"),
        ("a: &a [*a]", "with aliases expanded"),
        (LAUGHS, "with aliases expanded"),
        ("[" * 100, "more than 50 levels deep"),
        ("- " * 100, "more than 50 levels deep"),
        ("[" * 400_000, "more than 50 levels deep"),
        ("!!python/object/apply:os.system [id]", "the tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("[a]: 1", "a key must be a text"),
        ("a: 1\na: 2", "the key 'a' appears twice"),
        ("a: \0", "'\\x00' is not allowed there"),
        ("x" * 500_001, "it has 500001 characters, more than 500000"),
        (None, "expected text, got NoneType"),
    ],
    ids=lambda value: f"{str(value)[:20]} of {len(str(value))}",
)
def test_yaml_that_is_refused(text, message):
    """Malformed, oversized, deep, recursive and alias-laden documents raise the same error."""
    assert message in refused(read_yaml, text)


def test_yaml_holds_plain_values_only():
    """A value with two readings in YAML stays text."""
    text = yaml.safe_dump({"spec": {"containers": [{"name": "main", "env": {"A": "1.10", "B": "on"}}]}})

    assert yaml.safe_load(text) == read_yaml(text, "The specification")
    assert {"version": "1.10", "day": "2026-01-01", "n": 3} == read_yaml("{version: 1.10, day: 2026-01-01, n: 3}", "It")


@pytest.mark.parametrize(
    "use",
    [
        lambda document: document["spec"],
        lambda document: document["list"]["name"],
        lambda document: document["list"][7],
        lambda document: document.spec,
        lambda document: int(document["infinite"]),
        lambda document: int(document["text"]),
        lambda document: float(document["huge"]),
        lambda document: {**document["list"]},
    ],
    ids=["key", "index of text", "index", "attribute", "infinity", "number", "huge number", "mapping"],
)
def test_documents_of_another_shape(use):
    """A document of an unexpected shape raises the same error as a malformed one."""
    document = {"list": [], "infinite": math.inf, "text": "x", "huge": 10**400}

    with (
        pytest.raises(UnreadableError, match=r"^The record of instance 1 can't be read: "),
        reading("The record of instance 1"),
    ):
        use(document)
