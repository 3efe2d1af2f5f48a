"""Templated fields: what they change in a text, and what not."""

from datetime import datetime

import pytest
from airflow.sdk import DAG, task

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.operators import MLJobOperator

SETTINGS = {"compute_pool": "ML_POOL", "stage_name": "@ML_PAYLOADS"}
KEY = "-----BEGIN KEY-----\r\nabc\r\n-----END KEY-----\n"


def operator(**fields):
    """Build a task within a DAG."""
    with DAG("templates", schedule=None, start_date=datetime(2026, 1, 1)):
        return MLJobOperator(task_id="job", source="@ML_CODE/train.py", **SETTINGS, **fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (KEY, KEY),
        ("line\r\n\tx", "line\r\n\tx"),
        ("a\rb\nc\r\nd\n\n", "a\rb\nc\r\nd\n\n"),
        ("{ {x} %}", "{ {x} %}"),
        ("{{ name }}\r\nnext\n", "job\r\nnext\n"),
        ("first\r\n{% if name %}\r\nyes\r\n{% endif %}\r\n", "first\r\n\r\nyes\r\n\r\n"),
        ("{{\r\n name\r\n}}\r\n", "job\r\n"),
        ("{# a remark #}\ue000\r", "\ue000\r"),
    ],
    ids=repr,
)
def test_text_keeps_its_line_ends(text, expected):
    """Only templates are replaced: line ends, the last one included, stay as they are."""
    assert expected == operator().render_template(text, {"name": "job"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("args", ["--text", "{{ name"]),
        ("env_vars", {"TEXT": "{% if name"}),
        ("comment", "{# remark"),
    ],
)
def test_an_invalid_template_names_its_field(field, value):
    """A text with an open mark is refused by the name of its field, with the way to pass it as it is."""
    with pytest.raises(InvalidJobSpecError, match=rf"^{field} has an invalid template in line 1 .*\{{% raw %\}}"):
        operator(**{field: value}).render_template_fields({"name": "job"})


def test_text_reaches_the_job_as_it_is(airflow):
    """Arguments and variables of a function arrive byte for byte."""
    from datetime import datetime

    @task.mljob(**SETTINGS, env_vars={"KEY": KEY})
    def received(positional, *, named):
        import os

        return [positional, named, os.environ["KEY"]]

    with DAG("bytes", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
        received("line\r\n\tx", named=KEY)

    assert ["line\r\n\tx", KEY, KEY] == airflow.run(dag).xcom("received")
