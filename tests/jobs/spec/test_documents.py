from datetime import UTC, datetime
from types import MappingProxyType

import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.spec.specification import parse


def of(**fields):
    """Return a specification with a container of these fields."""
    return {"spec": {"containers": [fields]}}


def raised(call, *args, **kwargs):
    """Return the message of the error that a call raises."""
    with pytest.raises(InvalidJobSpecError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize(
    "source",
    ["spec: {a: [1]}", '{"spec": {"a": [1]}}', '{\n\t"spec": {"a": [1]}\n}', "---\nspec:\n  a:\n  - 1\n"],
    ids=["yaml", "json", "json with tabs", "block style"],
)
def test_texts_are_read(source):
    """YAML and JSON of the same document read alike."""
    assert {"spec": {"a": [1]}} == parse(source)


def test_mappings_are_copied():
    """A mapping is copied into JSON's types, and the caller's document isn't changed."""
    source = MappingProxyType({"spec": {"containers": ({"name": "main"},)}})
    document = parse(source)
    document["spec"]["containers"][0]["name"] = "other"

    assert {"spec": {"containers": [{"name": "other"}]}} == document
    assert "main" == source["spec"]["containers"][0]["name"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z"),
        ("1.10", "1.10"),
        ("1.5", 1.5),
        ("1.0", 1.0),
        ("3", 3),
        ("-3", -3),
        ("0600", "0600"),
        ("+1", "+1"),
        ("-0", "-0"),
        ("1_000", "1_000"),
        ("0x1F", "0x1F"),
        ("12:30", "12:30"),
        ("1e3", "1e3"),
        ("12345678901234567890", "12345678901234567890"),
        ("on", "on"),
        ("no", "no"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("=", "="),
        ("'3'", "3"),
    ],
)
def test_scalars_stay_as_they_are_written(written, read):
    """An ambiguous scalar stays a string, so that the job gets the text that the author sees."""
    value = parse(f"a: {written}")["a"]

    assert read == value
    assert type(read) is type(value)


def test_anchors_and_merge_keys():
    """Anchors, aliases and merge keys are resolved."""
    text = "base: &base {a: 1, b: 2}\none: {<<: *base, b: 3}\ntwo: {<<: [*base, {c: 4}], d: *base}"

    assert {
        "base": {"a": 1, "b": 2},
        "one": {"a": 1, "b": 3},
        "two": {"a": 1, "b": 2, "c": 4, "d": {"a": 1, "b": 2}},
    } == parse(text)


def bomb(reference):
    """Return a YAML text of twelve lines that would be 10^11 values."""
    aliases = (", ".join(["*a{0}"] * 10).format(level) for level in range(11))
    return "a0: &a0 {x: 1}\n" + "".join(
        f"a{level}: &a{level} {reference % text}\n" for level, text in enumerate(aliases, 1)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty."),
        ("# nothing\n", "is empty."),
        ("spec:\n  a: 1\n  a: 2", "line 3, column 3: the key 'a' appears twice."),
        ("spec:\n  a: [1, }", "line 2, column 10: while parsing a flow node, expected the node content"),
        ("spec:\n\ta: 1", "line 2, column 1: while scanning for the next token, found character '\\t'"),
        ("a: 'b", "line 1, column 6: while scanning a quoted scalar, found unexpected end of stream."),
        ("a: b\n---\nc: d", "line 2, column 1: expected a single document in the stream, but found another document."),
        ("8080: x", "line 1, column 1: a key must be a text; put it in quotes."),
        ("true: x", "line 1, column 1: a key must be a text; put it in quotes."),
        ("? [a]\n: x", "line 1, column 3: a key must be a text; put it in quotes."),
        (
            "a: !!str 1",
            "line 1, column 4: the tag tag:yaml.org,2002:str is not allowed; put the text in quotes instead.",
        ),
        ("a: !!python/object/apply:os.system [id]", "the tag tag:yaml.org,2002:python/object/apply:os.system is not"),
        ("a: *b", "line 1, column 4: found undefined alias 'b'."),
        ("a: &a [*a]", "line 1, column 4: more than 50000 values or 50 levels, with aliases expanded."),
        (bomb("[%s]"), "more than 50000 values or 50 levels, with aliases expanded."),
        (bomb("{<<: [%s]}"), "more than 50000 values or 50 levels, with aliases expanded."),
        ("a: " + "[" * 60 + "]" * 60, "line 1, column 54: more than 50 levels deep."),
        ("a: b\nc: d\0", "line 2, column 5: '\\x00' is not allowed there."),
        ("a: \ud800", "line 1, column 4: '\\ud800' is not allowed there."),
        ("a: " + "x" * 500_000, "spec can't be read: it has 500003 characters, more than 500000."),
        ("- a", "spec must be a mapping with the key 'spec', got a list."),
        ("a", "spec must be a mapping with the key 'spec', got 'a'."),
    ],
    ids=lambda value: value[:24] or "nothing",
)
def test_texts_that_can_not_be_read(text, message):
    """The message about an unreadable text has line and column."""
    assert message in raised(parse, text)


def test_the_message_names_the_argument():
    """The message names the task's argument."""
    assert "spec is empty." == raised(parse, "")


ENDLESS = {"spec": {}}
ENDLESS["spec"]["spec"] = ENDLESS
DEEP = {}
for _ in range(60):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "spec must be a dict or a text in YAML, got nothing (null)."),
        ([{"spec": {}}], "spec must be a dict or a text in YAML, got a list."),
        (b"spec: {}", "spec must be a dict or a text in YAML, got b'spec: {}'."),
        ({1: 2}, "The specification has the key 1; keys must be strings."),
        ({"spec": {"containers": [{"env": {1: "x"}}]}}, "spec.containers[0].env has the key 1; keys must be strings."),
        (of(env={"A": datetime(2026, 1, 1, tzinfo=UTC)}), "spec.containers[0].env.A is datetime.datetime(2026, 1, 1"),
        (of(args={"a", "b"}), "of type set, and a specification can't hold that; write it as a string."),
        (of(env={"A": float("inf")}), "spec.containers[0].env.A is inf, of type float, and a specification can't"),
        (ENDLESS, "spec.spec contains itself."),
        (DEEP, "is more than 50 levels deep."),
    ],
    ids=["none", "list", "bytes", "key", "deep key", "date", "set", "infinity", "endless", "deep"],
)
def test_values_that_are_no_specification(source, message):
    """The message about a value of another type has its path."""
    assert message in raised(parse, source)
