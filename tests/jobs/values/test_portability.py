import json
import math

import msgspec
import pytest
from hypothesis import given, strategies as st
from pydantic import JsonValue, TypeAdapter

from airflow_provider_mljobs.jobs.values.portability import MAX_LEVELS, jsonb_safe, misfit, misfit_outputs, shielded

READER = TypeAdapter(JsonValue)


def nested(levels, wrap):
    """Return a value of the given depth."""
    value = 1
    for _ in range(levels):
        value = wrap(value)
    return value


def through_airflow(value):
    """Return a value as the next task gets it, with the serialisers of Airflow's processes."""
    from airflow.sdk.serde import deserialize, serialize

    written = serialize(value)
    text = json.dumps(msgspec.msgpack.decode(msgspec.msgpack.encode(written)), allow_nan=False, ensure_ascii=False)
    return deserialize(READER.validate_json(text.encode()))


OBJECT = {"__classname__": "airflow.sdk.io.path.ObjectStoragePath", "__version__": 1, "__data__": {"path": "/etc"}}
OLD_OBJECT = {"__type": "airflow.sdk.io.path.ObjectStoragePath", "__var": {"path": "/etc/passwd"}}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (OBJECT, "its key '__classname__' is reserved"),
        (OLD_OBJECT, "its key '__type' is reserved"),
        ({"a": [1, {"b": OBJECT}]}, "its key '__classname__' is reserved"),
        ({"__id__": 1}, "its key '__id__' is reserved"),
        ({"__mljob_ref__": 1, "stage_paths": ["@a.b.c/d"]}, "its key '__mljob_ref__' is reserved"),
        (json.dumps(OLD_OBJECT), "it is a text that Airflow would read as an object"),
        (" \n" + json.dumps([OBJECT]).replace("_", "\\u005f"), "it is a text that Airflow would read as an object"),
        ("[" * 100_000, "it is a text that Airflow would read as an object"),
        (nested(101, lambda value: [value]), "it is more than 100 levels deep"),
        (nested(101, lambda value: {"a": value}), "it is more than 100 levels deep"),
        (nested(900, lambda value: [value]), "it is more than 100 levels deep"),
        (2**64, "it holds a number of more than 64 bits"),
        ([-(2**63) - 1], "it holds a number of more than 64 bits"),
        ({"n": 10**4000}, "it holds a number of more than 64 bits"),
        (1e20, "it holds a number of more than 64 bits"),
        ({"a\0": 1}, "its key 'a\\x00' is no valid text"),
        ({"\ud800": 1}, "its key '\\ud800' is no valid text"),
        ({1: 1}, "it has a key that is no text"),
    ],
    ids=range(18),
)
def test_what_airflow_would_not_give_back(value, reason):
    """A value that Airflow would change or lose is recognised before it is pushed."""
    assert misfit(value).startswith(reason)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"auc": 0.5, "n": [1, 2, {"name": "é😀"}]},
        nested(MAX_LEVELS, lambda value: [value]),
        nested(MAX_LEVELS, lambda value: {"a": value}),
        [2**64 - 1, -(2**63), 1e19, -9e18],
        {"__mljob__": 1, "type": "x", "__doc": 1},
        '{"a": [1]}',
        "[no json",
        {"x" * 100_000: 1},
    ],
    ids=range(9),
)
def test_what_airflow_gives_back(value):
    """Other JSON comes back from Airflow's serialisers unchanged."""
    assert not misfit(value)
    assert value == through_airflow(value)


KEYS = st.text(max_size=5) | st.sampled_from(["__classname__", "__version__", "__data__", "__type", "__var", "__id__"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)


@given(JSON)
def test_any_value(value):
    """Airflow restores any JSON that counts as fit."""
    safe = jsonb_safe(value)

    if not misfit(value):
        assert safe == through_airflow(safe)


def test_the_reserved_keys_are_airflows():
    """The reserved keys are those that Airflow refuses in XComs of its API's users."""
    from airflow.sdk._shared.serialization import FORBIDDEN_XCOM_KEYS

    assert all(misfit({key: 1}) for key in FORBIDDEN_XCOM_KEYS)


@pytest.mark.parametrize("text", [json.dumps(OBJECT), "  " + json.dumps([OLD_OBJECT]), "[" * 5000], ids=range(3))
def test_what_is_shielded_is_only_text(text):
    """Airflow's API reads a shielded text as text, even if it is JSON with reserved keys."""
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(shielded(text))


def test_other_text_is_left_as_it_is():
    """Text that is no JSON, or has no reserved keys, is not shielded."""
    texts = ["epoch 1", '{"a": 1}', "[INFO] done", ""]

    assert texts == list(map(shielded, texts))


@pytest.mark.parametrize(
    "key",
    ["", "x" * 513, "a?b", "a#b", "50%", "a\nb", "a\\b", "..", "../other/return_value", "a/../../b", ".", "\ud800"],
)
def test_keys_that_no_xcom_can_have(key):
    """A key that would end a URL, or change it to that of another task's XCom, is refused."""
    assert f"{key[:100]!a} can't be the key of an XCom" == misfit_outputs({"a": 1, key: 2})


@pytest.mark.parametrize("key", ["mljob", "mljob_watched"])
def test_outputs_replace_no_xcoms_of_ours(key):
    """A return value can't replace the XComs that this provider's pages read."""
    assert f"XCom {key!r} is reserved by this provider" == misfit_outputs({key: {"snowflake_conn_id": "other"}})


def test_other_outputs():
    """Names of metrics, paths and sentences may be keys; a value that is no dict has none."""
    assert not misfit_outputs({"auc": 1, "models/best.bin": 2, "two words": 3, "métrique": 4, "a.b": 5, "x..y": 6})
    assert "it is of type list, not a dict" == misfit_outputs([1])


def test_infinities_are_replaced():
    """Infinities, NaN and broken text are replaced, and so are no reason against XCom."""
    assert not misfit([math.nan, math.inf, "a\0b", "\ud800"])
    assert [None, None, "a\ufffdb", "\ufffd"] == jsonb_safe([math.nan, math.inf, "a\0b", "\ud800"])
