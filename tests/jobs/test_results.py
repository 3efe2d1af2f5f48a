import json
import math
import re

import pytest

from airflow_provider_mljobs.exceptions import ResultError
from airflow_provider_mljobs.jobs.identifiers import Identifier, StagePath
from airflow_provider_mljobs.jobs.results import JobResult, jsonb_safe

DIRECTORY = StagePath.parse("payloads/JOB/output", "stage_name", Identifier("DB"), Identifier("ML"))
METADATA = {"type": "pandas.DataFrame", "repr": "…"}


def text(**fields):
    """Write a result as the launcher does."""
    return json.dumps({"kind": "result", "success": True, "value": None, "protocol": None, "metadata": None} | fields)


@pytest.mark.parametrize("value", [None, 0, "", "x", [1, {"a": None}], {"auc": 0.9}])
def test_json_is_the_value(value):
    """What the payload returned is what the task returns."""
    assert JobResult(success=True, value=value) == JobResult.parse(text(value=value), DIRECTORY)
    assert value == JobResult.parse(text(value=value), DIRECTORY).xcom


@pytest.mark.parametrize(
    ("manifest", "places"),
    [
        ({"path": "/mnt/job_stage/output/mljob_extra.pkl"}, ["@DB.ML.PAYLOADS/JOB/output/mljob_extra.pkl"]),
        (
            {"paths": ["/x/a.parquet", "/x/b.parquet"]},
            ["@DB.ML.PAYLOADS/JOB/output/a.parquet", "@DB.ML.PAYLOADS/JOB/output/b.parquet"],
        ),
        ({"path": "../../../others/secret.pkl"}, ["@DB.ML.PAYLOADS/JOB/output/secret.pkl"]),
        ({}, []),
        (None, []),
    ],
)  # fmt: skip
def test_what_is_no_json_is_a_reference(manifest, places):
    """It stays on the stage, in the job's own directory whatever the result says; XCom gets its place."""
    protocol = {"name": "pandas", "version": "2.3", "metadata": None, "manifest": manifest}
    result = JobResult.parse(text(protocol=protocol, metadata=METADATA), DIRECTORY)

    assert {"stage_paths": places, "protocol": "pandas", "version": "2.3", **METADATA} == result.reference
    assert result.reference == result.xcom


def test_a_failure_is_an_answer():
    """The payload raised: type, text and frames are known, and make the error that the task fails with."""
    metadata = {"type": "builtins.ValueError", "message": "no rows", "traceback": '  File "job.py", line 1\n'}
    result = JobResult.parse(text(success=False, metadata=metadata), DIRECTORY)
    error = result.remote_error("DB.ML.JOB", "FAILED", "last line")

    assert not result.success
    assert (
        "Job DB.ML.JOB failed with ValueError: no rows\n"
        "--- last log lines ---\n"
        "last line\n"
        "--- remote traceback ---\n"
        "Traceback (most recent call last):\n"
        '  File "job.py", line 1\n'
        "ValueError: no rows"
    ) == str(error)
    assert ("builtins.ValueError", "DB.ML.JOB", "FAILED") == (error.remote_type, error.job_id, error.status)


def test_a_failure_without_details_is_still_a_failure():
    """Other launchers write less."""
    assert JobResult(success=False, remote_type="Exception") == JobResult.parse(text(success=False), DIRECTORY)


def test_a_value_that_could_not_be_saved_is_an_error():
    """The job is DONE, but the task can't return what isn't there; the message says what to return."""
    with pytest.raises(ResultError) as caught:
        JobResult.parse(text(serialize_error="TypeError('lock')", metadata={"type": "_thread.lock"}), DIRECTORY)

    assert "return value of type _thread.lock could not be saved: TypeError('lock')." in str(caught.value)


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "{",
        "null",
        "[]",
        "1",
        '"x"',
        "{}",
        "[" * 100_000,
        text(success=False, metadata="x"),
        text(protocol="pandas"),
        text(protocol={"manifest": {"paths": 1}}),
        text(protocol={"manifest": {"path": "a'b"}}),
        text(protocol={"manifest": {"path": ".."}}),
        text(protocol={"manifest": "x"}),
    ],
    ids=range(14),
)
def test_damaged_results_are_errors_of_the_result(damaged):
    """Whatever lies there, the answer names the place."""
    with pytest.raises(ResultError, match=re.escape("The result at @DB.ML.PAYLOADS/JOB/output is damaged: ")):
        JobResult.parse(damaged, DIRECTORY)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, None),
        ([math.inf, -math.inf, 1.5], [None, None, 1.5]),
        ("a\0b\ud800c🚀", "a\ufffdb\ufffdc🚀"),
        ({"a\0": {"b": (1, math.nan)}}, {"a\ufffd": {"b": [1, None]}}),
        ({1: "a", None: "b", 2.5: "c"}, {"1": "a", "None": "b", "2.5": "c"}),
        ([True, None, 3], [True, None, 3]),
    ],
    ids=ascii,
)
def test_values_are_made_safe_for_airflows_database(value, expected):
    """PostgreSQL's JSON takes no NaN, no NUL and no half characters; one of them would break whole components."""
    assert expected == jsonb_safe(value)


def test_xcom_is_safe():
    """The result is read as it was written, and passed on as the database takes it."""
    result = JobResult.parse('{"success": true, "value": [NaN, "\\u0000"]}', DIRECTORY)

    assert math.isnan(result.value[0])
    assert [None, "\ufffd"] == result.xcom
