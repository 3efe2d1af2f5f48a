import cProfile
import json
import math
import pickle
import pstats
import re
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd  # noqa: TID253 (a test)
import pyarrow as pa  # noqa: TID253 (a test)
import pytest

from airflow_provider_mljobs.exceptions import ResultError
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, StagePath
from airflow_provider_mljobs.jobs.outcome.results import InstanceResult, JobResult, earliest_failure
from airflow_provider_mljobs.jobs.values.portability import jsonb_safe
from airflow_provider_mljobs.jobs.values.references import StageRef
from airflow_provider_mljobs.launcher import results as launcher
from airflow_provider_mljobs.launcher.contract import SUMMARY_NAME

DIRECTORY = StagePath.parse("payloads/JOB/output", "stage_name", Namespace(Identifier("DB"), Identifier("ML")))
METADATA = {"type": "pandas.DataFrame", "repr": "…"}


def text(**fields):
    """Return a result in the launcher's format."""
    return json.dumps({"kind": "result", "success": True, "value": None, "protocol": None, "metadata": None} | fields)


@pytest.mark.parametrize("value", [None, 0, "", "x", [1, {"a": None}], {"auc": 0.9}])
def test_json_is_the_value(value):
    """A payload's JSON is the task's return value."""
    assert JobResult(success=True, value=value) == JobResult.parse(text(value=value), DIRECTORY)
    assert value == JobResult.parse(text(value=value), DIRECTORY).xcom


@pytest.mark.parametrize(
    ("manifest", "places"),
    [
        ({"path": "/mnt/job_stage/output/mljob_extra.pkl"}, ("@DB.ML.PAYLOADS/JOB/output/mljob_extra.pkl",)),
        (
            {"paths": ["/x/a.parquet", "/x/b.parquet"]},
            ("@DB.ML.PAYLOADS/JOB/output/a.parquet", "@DB.ML.PAYLOADS/JOB/output/b.parquet"),
        ),
        ({"path": "../../../others/secret.pkl"}, ("@DB.ML.PAYLOADS/JOB/output/secret.pkl",)),
    ],
)  # fmt: skip
def test_what_is_no_json_is_a_reference(manifest, places):
    """XCom gets a reference to a value that is no JSON: a file in the job's directory, not the result's path."""
    protocol = {"name": "pandas", "version": "2.3", "metadata": None, "manifest": manifest}
    result = JobResult.parse(text(protocol=protocol, metadata=METADATA), DIRECTORY)

    assert StageRef(stage_paths=places, protocol="pandas", version="2.3", **METADATA) == result.reference
    assert result.reference.to_xcom() == result.xcom


def test_a_pickle_says_which_python_can_load_it():
    """A reference to a pickle has the versions that can load it."""
    protocol = {
        "name": "cloudpickle",
        "version": "3.1",
        "metadata": {"python_version": "3.10"},
        "manifest": {"path": "x"},
    }
    reference = JobResult.parse(text(protocol=protocol), DIRECTORY).reference

    assert ("3.10", "3.1", None) == (reference.python, reference.version, reference.type)


@pytest.mark.parametrize(
    ("value", "most", "is_reference"),
    [("x" * 98, 100, False), ("x" * 99, 100, True), ([], 0, True), ("x" * 999_999, None, True), ("é" * 20, 100, True)],
    ids=["at the limit", "above", "none allowed", "above the default", "as XCom stores it"],
)
def test_a_value_that_is_too_large_for_xcom_is_a_reference(value, most, is_reference):
    """A value that is too large for XCom is a reference to the result file."""
    limit = {} if most is None else {"max_xcom_bytes": most}
    result = JobResult.parse(text(value=value, metadata={"type": "builtins.str", "repr": "…"}), DIRECTORY, **limit)

    if is_reference:
        assert (("@DB.ML.PAYLOADS/JOB/output/mljob_result",), "json", "builtins.str") == (
            result.reference.stage_paths,
            result.reference.protocol,
            result.reference.type,
        )
    else:
        assert (value, None) == (result.value, result.reference)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"__type": "x", "__var": 1}, "its key '__type' is reserved"),
        ({"a": [{"__mljob_ref__": 1}]}, "its key '__mljob_ref__' is reserved"),
        ([2**64], "it holds a number of more than 64 bits"),
    ],
)
def test_a_value_that_airflow_would_change_is_a_reference(value, reason):
    """A value that Airflow would change is a reference to the result file, of older launchers as well."""
    result = JobResult.parse(text(value=value), DIRECTORY)
    old = JobResult.parse(json.dumps({"success": True, "result_type": "dict", "result": value}), DIRECTORY)

    assert (None, None) == (result.value, old.value)
    assert reason == result.misfit == old.misfit
    assert ("@DB.ML.PAYLOADS/JOB/output/mljob_result",) == result.reference.stage_paths
    assert ("@DB.ML.PAYLOADS/JOB/output/mljob_result.json",) == old.reference.stage_paths


@pytest.mark.parametrize("exit_code", ["1e999", "-1e999", "NaN", "0.5", "9" * 30, '"0"'])
def test_an_exit_code_is_a_whole_number(exit_code):
    """An impossible exit code makes a damaged record, not the success to which it may be rounded."""
    with pytest.raises(ResultError, match="The record of instance 1 is damaged"):
        InstanceResult.parse(1, f'{{"exit_code": {exit_code}, "exc": null}}')


def test_a_failure_is_an_answer():
    """The payload's exception makes the task's error, with type, text and frames."""
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
    """A failure in the shorter form of other launchers is read."""
    assert JobResult(success=False, remote_type="Exception") == JobResult.parse(text(success=False), DIRECTORY)


def test_a_value_that_could_not_be_saved_is_an_error():
    """The message for a value that could not be saved has the type, the reason and the fix."""
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
        text(protocol={"name": "x", "manifest": {"path": "a'b"}}),
        text(protocol={"name": "x", "manifest": {"path": ".."}}),
        text(protocol={"manifest": "x"}),
        text(protocol={"name": "pandas", "manifest": {}}),
        text(protocol={"name": "pandas", "manifest": None}),
        text(protocol={"name": None, "manifest": {"path": "x"}}),
        text(metadata={"artifacts": [1]}),
        text(metadata={"exit_code": "x"}),
        '{"success": false, "result_type": "x"}',
        text(value=1) + " " * 6_000_000,
        text(protocol={"name": "pandas", "manifest": {"paths": [f"{number}.parquet" for number in range(1_001)]}}),
    ],
    ids=range(22),
)
def test_damaged_results_are_errors_of_the_result(damaged):
    """The message for a damaged result names its directory."""
    with pytest.raises(ResultError, match=re.escape("The result at @DB.ML.PAYLOADS/JOB/output is damaged: ")):
        JobResult.parse(damaged, DIRECTORY)


def test_a_long_manifest_costs_as_much_as_its_names():
    """Reading a manifest takes time linear in its names."""
    calls = []
    for count in (100, 1_000):
        manifest = {"paths": [f"{number}.parquet" for number in range(count)]}
        with cProfile.Profile() as profile:
            result = JobResult.parse(text(protocol={"name": "pandas", "manifest": manifest}), DIRECTORY)
        calls.append(pstats.Stats(profile).total_calls / len(result.reference.names))

    assert calls[1] < 1.5 * calls[0]


def test_long_errors_are_cut():
    """Long tracebacks are cut in their middle, messages at 10 000 characters."""
    result = JobResult.parse(
        text(success=False, metadata={"message": "x" * 1_000_000, "formatted": f"a{'-' * 1_000_000}z"}), DIRECTORY
    )

    assert 10_000 == len(result.message)
    assert ("a", "z", True) == (result.traceback[0], result.traceback[-1], len(result.traceback) < 60_000)


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
    """NaN, NUL and half characters, which break components on PostgreSQL, are replaced."""
    assert expected == jsonb_safe(value)


def test_xcom_is_safe():
    """The result has the value as written, and its XCom the value for the database."""
    result = JobResult.parse('{"success": true, "value": [NaN, "\\u0000"]}', DIRECTORY)

    assert math.isnan(result.value[0])
    assert [None, "\ufffd"] == result.xcom


def test_circumstances_of_a_run():
    """A result has the exit code, the instance, the commit and the saved files."""
    metadata = {"exit_code": 0, "instance": 2, "git_commit": "abc", "artifacts": [["model.bin", 3]]}
    result = JobResult.parse(text(metadata=metadata), DIRECTORY)

    assert (0, 2, "abc", (("model.bin", 3),)) == (
        result.exit_code,
        result.instance,
        result.git_commit,
        result.artifacts,
    )


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"exit_code": 1}, "Job J failed with ValueError: no rows"),
        ({"exit_code": 3}, "Job J failed with ValueError: no rows (exit code 3)"),
        ({"exit_code": 3, "instance": 2}, "Job J failed on instance 2 with ValueError: no rows (exit code 3)"),
    ],
    ids=str,
)
def test_an_error_says_where_it_happened(metadata, message):
    """The message of an error has the instance, and an exit code other than 1."""
    metadata |= {"type": "builtins.ValueError", "message": "no rows"}

    assert message == str(
        JobResult.parse(text(success=False, metadata=metadata), DIRECTORY).remote_error("J", "FAILED", "")
    )


def test_results_of_older_launchers():
    """The JSON file of older launchers is read; a value that it can't hold is refused with advice."""
    failed = {
        "success": False,
        "exc_type": "builtins.ValueError",
        "exc_value": "Unserializable object: no",
        "exc_tb": "  F\n",
    }
    pickled = {"success": True, "result_type": "DataFrame", "result": "Unserializable object:   a\n0 1"}

    assert JobResult(success=True, value=[1]) == JobResult.parse(
        json.dumps({"success": True, "result_type": "list", "result": [1]}), DIRECTORY
    )
    assert (
        JobResult(
            success=False,
            remote_type="builtins.ValueError",
            message="no",
            traceback="Traceback (most recent call last):\n  F\nValueError: no",
        )
    ) == JobResult.parse(json.dumps(failed), DIRECTORY)
    with pytest.raises(ResultError, match=re.escape("its return value of type DataFrame is in a pickle of an older")):
        JobResult.parse(json.dumps(pickled), DIRECTORY)


def record(exit_code, **fields):
    """Return the record of an instance."""
    return json.dumps({"exit_code": exit_code} | fields)


def test_the_record_of_an_instance():
    """The record of an instance has its exit code, its end, and its exception."""
    exception = {"type": "builtins.ValueError", "message": "no", "traceback": "", "repr": "ValueError('no')"}
    instance = InstanceResult.parse(1, record(3, ended_at=5.5, exc=exception))

    assert (1, 3, 5.5) == (instance.instance, instance.exit_code, instance.ended_at)
    assert "Job J failed on instance 1 with ValueError: no (exit code 3)" == str(
        instance.failure.remote_error("J", "FAILED", "")
    )
    assert InstanceResult(instance=2) == InstanceResult.parse(2, None)
    assert 1.0 == InstanceResult.parse(0, record(0, ended_at="1970-01-01T00:00:01+00:00")).ended_at


@pytest.mark.parametrize(
    "damaged", ["", "1", "{}", "[]", record("x"), record(1, exc="x"), record(1, ended_at="soon"), record(1e999)]
)
def test_damaged_records_of_instances(damaged):
    """The message for a damaged record names the instance."""
    with pytest.raises(ResultError, match=re.escape("The record of instance 4 is damaged: ")):
        InstanceResult.parse(4, damaged)


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([record(0), record(0)], None),
        ([record(1, ended_at=9.0), record(2, ended_at=8.0)], 1),
        ([record(1), record(2)], 0),
        ([record(143, ended_at=1.0), record(2, ended_at=2.0), None], 1),
        ([record(143, ended_at=1.0), None, record(0)], 1),
        ([None, None], 0),
        ([record(0), record(143)], 1),
    ],
    ids=["none", "the clock", "no clock", "stopped ones", "lost ones", "all lost", "only stopped"],
)
def test_the_failure_that_a_job_failed_by(records, expected):
    """The first instance that failed by itself is the reason, then a killed one, then a stopped one."""
    failed = earliest_failure(InstanceResult.parse(number, text) for number, text in enumerate(records))

    assert expected == (None if failed is None else failed.instance)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a result as the launcher does, and return its record and the provider's reading of it."""
    monkeypatch.setenv("MLRS_STAGE_RESULT_PATH", str(tmp_path))

    def write(value, *, success=True, **fields):
        launcher.write_result(value, success=success, **fields)
        content = (tmp_path / "output" / "mljob_result").read_text()
        return json.loads(content), JobResult.parse(content, DIRECTORY)

    return write


def test_what_the_launcher_says_of_a_value(write, tmp_path, monkeypatch):
    """A result has the value's type and the circumstances of the run."""
    monkeypatch.setenv("MLJOBS_GIT_COMMIT", "abc")
    monkeypatch.setenv("SNOWFLAKE_JOB_INDEX", "1")
    for name in ("model.bin", "checkpoints/1.ckpt", "output/metrics.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for name in ("input/arguments.zip", "output/mljob_extra.pkl", "output/instances/0.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("the launcher's own")
    (tmp_path / "link").symlink_to("/etc/hostname")
    record, result = write({"auc": 0.9})

    assert {
        "kind": "result",
        "success": True,
        "value": {"auc": 0.9},
        "protocol": None,
        "metadata": {
            "type": "builtins.dict",
            "repr": "{'auc': 0.9}",
            "exit_code": 0,
            "instance": 1,
            "git_commit": "abc",
            "artifacts": [["model.bin", 9], ["checkpoints/1.ckpt", 18], ["output/metrics.json", 19]],
            "artifacts_total": 3,
        },
        "serialize_error": None,
    } == record
    assert ({"auc": 0.9}, "abc", 1) == (result.value, result.git_commit, result.instance)


def test_many_artifacts_are_counted(write, tmp_path):
    """A result names the first thousand artifacts and counts all."""
    for number in range(1_005):
        (tmp_path / f"{number:04}").touch()
    record, result = write(None)

    assert (1_000, 1_005) == (len(record["metadata"]["artifacts"]), record["metadata"]["artifacts_total"])
    assert ("0999", 0) == result.artifacts[-1]


def test_without_a_directory_of_its_own_a_job_has_no_artifacts(tmp_path, monkeypatch):
    """A job of an older contract, with one directory for payload and result, has no artifacts."""
    monkeypatch.delenv("MLRS_STAGE_RESULT_PATH", raising=False)
    monkeypatch.setenv("MLRS_STAGE_MOUNT_PATH", str(tmp_path))
    launcher.write_result(1, success=True)

    assert "artifacts" not in json.loads((tmp_path / "output/mljob_result").read_text())["metadata"]


FRAME = pd.DataFrame({"a": [1.5, None], "when": pd.to_datetime(["2026-01-01", None])}, index=["x", "y"])


@pytest.mark.parametrize(
    ("value", "protocol", "names"),
    [
        (FRAME, "pandas", ("mljob_extra_0.parquet",)),
        (FRAME["a"], "pandas", ("mljob_extra_0.parquet",)),
        (pd.Series([1, 2]), "pandas", ("mljob_extra_0.parquet",)),
        (pd.Series([1, 2], name=3), "cloudpickle", ("mljob_extra.pkl",)),
        (pd.DataFrame({"a": [1, "x", object]}), "cloudpickle", ("mljob_extra.pkl",)),
        (pd.DataFrame({"a": [1j]}), "cloudpickle", ("mljob_extra.pkl",)),
        (pd.Index([1, 2]), "cloudpickle", ("mljob_extra.pkl",)),
        (pa.table({"a": [[1]]}), "pyarrow", ("mljob_extra_0.parquet",)),
        (np.arange(3), "numpy", ("mljob_extra.npy",)),
        (np.array(["2026-01-01"], "datetime64[D]"), "numpy", ("mljob_extra.npy",)),
        (np.array([date]), "cloudpickle", ("mljob_extra.pkl",)),
        ({1, 2}, "cloudpickle", ("mljob_extra.pkl",)),
        (date(2026, 1, 1), "cloudpickle", ("mljob_extra.pkl",)),
    ],
    ids=[
        "frame",
        "column",
        "series",
        "numbered series",
        "mixed frame",
        "complex frame",
        "index",
        "table",
        "array",
        "dates",
        "objects",
        "set",
        "date",
    ],
)
def test_values_that_are_no_json(write, tmp_path, value, protocol, names):
    """Frames, tables and arrays are saved without pickle if they can; a failed attempt leaves no file."""
    record, result = write(value)

    assert (protocol, names) == (result.reference.protocol, result.reference.names)
    assert {"mljob_result", *names} == {path.name for path in (tmp_path / "output").iterdir()}
    assert record["value"] is None
    assert type(value).__name__ == result.reference.type.rpartition(".")[2]


@pytest.mark.parametrize(
    ("value", "expected"),
    [((1, 2), [1, 2]), (np.int64(3), 3), (np.float32(0.5), 0.5), ({1: [np.bool_(True)]}, {"1": [True]})],
    ids=["tuple", "integer", "float", "nested"],
)
def test_values_that_mean_the_same_in_json(write, value, expected):
    """Tuples become lists, as in Snowflake's launcher; numbers of numpy become numbers."""
    assert expected == write(value)[1].value


def test_a_value_that_can_not_be_saved(write):
    """A run whose value can't be saved succeeds; the task fails with the reason."""
    with pytest.raises(ResultError, match=re.escape("of type _thread.lock could not be saved: TypeError(")):
        write(__import__("threading").Lock())


def test_a_large_value_has_a_summary_beside_it(write, tmp_path):
    """The summary of a large result has type, artifacts and success without the value."""
    _, result = write(["x" * 300_000])
    summary = (tmp_path / "output" / SUMMARY_NAME).read_text()
    reference = JobResult.parse(summary, DIRECTORY).reference

    assert len(summary) < 20_000
    assert ["x" * 300_000] == result.value
    assert ("json", ("mljob_result",), "builtins.list") == (
        reference.protocol,
        reference.names,
        reference.type,
    )


def raised(function):
    """Return the exception of a function."""
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


def with_a_cause():
    """Raise an exception with a cause."""
    try:
        {}["x"]
    except KeyError as error:
        raise ValueError("no rows") from error


def with_a_note():
    """Raise an exception with a note."""
    error = ValueError("no rows")
    error.add_note("while reading loans.csv")
    raise error


def as_a_group():
    """Raise a group of exceptions."""
    raise ExceptionGroup("two", [ValueError("first"), TypeError("second")])


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (with_a_cause, ["KeyError: 'x'", "The above exception was the direct cause", "ValueError: no rows"]),
        (with_a_note, ["ValueError: no rows", "while reading loans.csv"]),
        (as_a_group, ["ExceptionGroup: two (2 sub-exceptions)", "ValueError: first", "TypeError: second"]),
    ],
    ids=["cause", "note", "group"],
)
def test_exceptions_keep_what_belongs_to_them(write, function, expected):
    """The remote traceback has causes, notes and the exceptions of a group."""
    _, result = write(raised(function), success=False, exit_code=7)

    assert 7 == result.exit_code
    assert expected == [line for line in expected if line in result.traceback]
    assert function.__name__ in result.traceback


def test_long_tracebacks_are_cut_in_the_middle(write):
    """A long traceback is cut in its middle, so that the result stays readable."""
    _, result = write(ValueError("x" * 200_000), success=False)

    assert 1 == result.exit_code
    assert len(result.message) <= 10_001
    assert "ValueError: xxx" in result.traceback
    assert f"xxx\n… {200_000 + len('ValueError: ') + 1 - 50_000} characters …\nxxx" in result.traceback


class Odd:
    """A value that is no JSON and whose repr fails."""

    def __repr__(self):
        raise RuntimeError("no")


def test_a_value_whose_repr_fails(write):
    """A value whose repr fails is saved."""
    record, _ = write({"a": Odd()})

    assert "<repr of dict raised RuntimeError>" == record["metadata"]["repr"]
    assert ("cloudpickle", "{}.{}".format(*sys.version_info)) == (
        record["protocol"]["name"],
        record["protocol"]["metadata"]["python_version"],
    )
    assert ["a"] == list(pickle.loads(Path(record["protocol"]["manifest"]["path"]).read_bytes()))  # noqa: S301 (our own)
