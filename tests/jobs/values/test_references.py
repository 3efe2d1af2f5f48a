import json
import pickle
import re
import sys

import numpy as np
import pandas as pd  # noqa: TID253 (a test)
import pyarrow as pa  # noqa: TID253 (a test)
import pyarrow.parquet  # noqa: TID253 (a test)
import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.names import Identifier, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.values.references import (
    MARKER,
    StageRef,
    argument_reference,
    is_reference,
    references_in,
)
from airflow_provider_mljobs.launcher.errors import LauncherError
from airflow_provider_mljobs.launcher.references import load, load_reference, unpacked, version_problem

FRAME = StageRef(
    stage_paths=("@DB.ML.PAYLOADS/payload_1/JOB/output/mljob_extra_0.parquet",),
    protocol="pandas",
    version="2.3.3",
    type="pandas.core.frame.DataFrame",
    repr="   a\n0  1",
    bytes=1234,
)
MODEL = StageRef(stage_paths=("@ml.data.models/v 1/model.bin",))
STAGE = QualifiedName(Identifier("DB"), Identifier("ML"), Identifier("PAYLOADS"))
PYTHON = "{}.{}".format(*sys.version_info)


def test_xcom_has_a_reference_as_plain_json():
    """A reference in XCom is a JSON object with a marker, readable for templates, the UI and other providers."""
    value = json.loads(json.dumps(FRAME.to_xcom()))

    assert {
        "__mljob_ref__": 1,
        "stage_paths": ["@DB.ML.PAYLOADS/payload_1/JOB/output/mljob_extra_0.parquet"],
        "protocol": "pandas",
        "version": "2.3.3",
        "python": None,
        "type": "pandas.core.frame.DataFrame",
        "repr": "   a\n0  1",
        "bytes": 1234,
    } == value
    assert FRAME == StageRef.from_xcom(value)
    assert FRAME == StageRef.from_xcom(FRAME)


def test_a_file_on_a_stage_is_a_reference_of_its_own():
    """A reference to a file on a stage needs no job."""
    assert ("file", ("model.bin",)) == (MODEL.protocol, MODEL.names)
    assert MODEL == StageRef.from_xcom({MARKER: 1, "stage_paths": ["@ml.data.models/v 1/model.bin"]})


def no_files(text):
    """Return the message for a path that is no file."""
    return (
        f"stage_paths has {text}, which is no file on a stage. Write '@db.schema.stage/path/file'; to use a whole "
        "directory, mount the stage with volumes."
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stage_paths": "@a.b.c/d"}, "stage_paths must be a list of files, got the text '@a.b.c/d'."),
        ({"stage_paths": ()}, "stage_paths is empty; name at least one file, e.g. '@db.ml.data/model.bin'."),
        ({"stage_paths": ("@a.b.c/d/",)}, no_files("'@a.b.c/d/'")),
        ({"stage_paths": ("@a.b.c",)}, no_files("'@a.b.c'")),
        ({"stage_paths": ("a/b",)}, no_files("'a/b'")),
        ({"stage_paths": (3,)}, no_files("3")),
        ({"stage_paths": ("@c/d",)}, "stage_paths 'c' has no database and schema."),
        ({"stage_paths": ("@a.b.c/../d",)}, "'../d' can't be a path on a stage"),
        ({"stage_paths": ("@a.b.c/x'",)}, "\"x'\" can't be a path on a stage"),
        (
            {"stage_paths": ("@a.b.c/1/d", "@a.b.c/2/d")},
            "stage_paths names 'd' twice; in a job both would be one file.",
        ),
        ({"protocol": ""}, "protocol must be a name such as 'pandas' or 'file', got ''."),
        ({"protocol": None}, "protocol must be a name such as 'pandas' or 'file', got None."),
    ],
    ids=str,
)
def test_what_can_not_be_a_reference_is_refused(fields, message):
    """The message for an invalid reference has the value and the expected form."""
    with pytest.raises(InvalidJobSpecError, match=re.escape(message)):
        StageRef(**{"stage_paths": ("@a.b.c/d",)} | fields)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"auc": 1}, "{'auc': 1} is no reference to a value on a stage: it has no key '__mljob_ref__'."),
        (None, "None is no reference to a value on a stage"),
        ({MARKER: 2}, "The reference has form 2, but this provider reads form 1. Update the provider"),
        ({MARKER: 1}, "is damaged: stage_paths is of another type."),
        ({MARKER: 1, "stage_paths": ["@a.b.c/d"], "type": 1}, "is damaged: type is of another type."),
        ({MARKER: 1, "stage_paths": ["@a.b.c/d"], "protocol": 1}, "protocol must be a name"),
    ],
    ids=str,
)
def test_values_that_are_no_references(value, message):
    """Values of XCom that are no references are refused."""
    with pytest.raises(InvalidJobSpecError, match=re.escape(message)):
        StageRef.from_xcom(value)


def test_references_are_found_however_deep():
    """References in arguments are found at any depth, each once, in order."""
    arguments = [1, {"a": (MODEL, "text"), "b": [[FRAME.to_xcom()], MODEL]}]

    assert (MODEL, FRAME) == references_in(arguments)
    assert (FRAME, MODEL) == references_in({"first": FRAME, "then": [MODEL, FRAME]})
    assert () == references_in({"stage_paths": ["@a.b.c/d"]})


@pytest.mark.parametrize(
    "path",
    [
        "payload_0a1b_19000/MLJOB_TRAIN_0_1/output/mljob_result",
        "jobs/payload_0a1b_MLJOB_TRAIN_0_1/MLJOB_TRAIN_0_1/models/best.bin",
        "payload_0a1b_19000/MLJOB_TRAIN_0_1/output/instances/3/mljob_extra_0.parquet",
        "definition_0a1b/NIGHTLY/output/mljob_extra.npy",
        "somebody/NIGHTLY_1/output/mljob_result.json",
        "output/mljob_result",
    ],
)
def test_an_object_leads_to_files_of_jobs(path):
    """An object of XCom may refer to results of jobs, ours and those of Snowflake's client."""
    reference = StageRef(stage_paths=(f"@DB.ML.PAYLOADS/{path}",))

    assert reference == argument_reference(reference.to_xcom())


@pytest.mark.parametrize(
    "path",
    [
        "secret.pkl",
        "models/v 1/model.bin",
        "payload_0a1b_19000/payload.pyz",
        "payload_0a1b_19000/MLJOB_TRAIN_0_1",
        "my_payload_x/y/z",
        "output/a/b.pkl",
        "no_output/b.pkl",
    ],
)
def test_an_object_leads_nowhere_else(path):
    """An object of XCom, which may come from any data, can't refer to other files; a StageRef can."""
    reference = StageRef(stage_paths=("@DB.ML.PAYLOADS/output/a", f"@OTHER.ML.PRIVATE/{path}"), protocol="cloudpickle")
    message = f"The reference leads to @OTHER.ML.PRIVATE/{path}, which is no file of a job"

    assert reference == argument_reference(reference)
    with pytest.raises(InvalidJobSpecError, match=re.escape(message)):
        argument_reference(reference.to_xcom())
    with pytest.raises(InvalidJobSpecError, match=re.escape(message)):
        references_in([{"deep": [reference.to_xcom()]}])


def test_arguments_may_contain_themselves():
    """Searching arguments that contain themselves for references ends."""
    arguments = [MODEL]
    arguments.append(arguments)

    assert (MODEL,) == references_in(arguments)


@pytest.mark.parametrize(("value", "expected"), [(FRAME, True), ({MARKER: 7}, True), ({}, False), ([MARKER], False)])
def test_references_are_told_from_other_values(value, expected):
    """A reference is recognised by its type or marker, even a damaged one."""
    assert expected is is_reference(value)


def test_files_are_copied_from_each_directory():
    """The files of one directory are copied together."""
    parts = StageRef(stage_paths=("@db.ml.payloads/a/1.parquet", "@db.ml.payloads/a/2.parquet", "@db.ml.payloads/3"))

    assert {
        StagePath(STAGE, "a"): ["1.parquet", "2.parquet"],
        StagePath(STAGE, ""): ["3"],
    } == parts.names_by_directory
    assert {StagePath(STAGE, "payload_1/JOB/output"): ["mljob_extra_0.parquet"]} == FRAME.names_by_directory


def test_what_stands_for_a_reference_in_a_jobs_arguments():
    """The JSON of a reference in a job's arguments has the names of its files and their format."""
    assert {
        "__mljob__": "ref",
        "n": 2,
        "protocol": "pandas",
        "names": ["mljob_extra_0.parquet"],
        "version": "2.3.3",
        "type": "pandas.core.frame.DataFrame",
    } == FRAME.entry(2)
    assert {"__mljob__": "ref", "n": 0, "protocol": "file", "names": ["model.bin"]} == MODEL.entry(0)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Write files to the directory of a job's first reference, as Snowflake's copy would."""
    monkeypatch.setenv("MLRS_STAGE_RESULT_PATH", str(tmp_path))
    directory = tmp_path / "input" / "references" / "0"
    directory.mkdir(parents=True)
    return directory


def entry(protocol, *names, **details):
    """Return the JSON of a reference in a job's arguments."""
    return StageRef(stage_paths=tuple(f"@a.b.c/{name}" for name in names), protocol=protocol, **details).entry(0)


def test_frames(copied):
    """A DataFrame in several files is one value."""
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    frame.to_parquet(copied / "0.parquet")
    frame.to_parquet(copied / "1.parquet")

    assert pd.concat([frame, frame]).equals(load_reference(entry("pandas", "0.parquet", "1.parquet"), "'a'"))
    assert frame.equals(load_reference(entry("pandas", "1.parquet"), "'a'"))


@pytest.mark.parametrize("name", ["price", None])
def test_series(copied, name):
    """A Series is restored from a frame of one column by its type."""
    series = pd.Series([1.5, None], index=["x", "y"], name=name)
    series.to_frame().to_parquet(copied / "0.parquet")
    loaded = load_reference(entry("pandas", "0.parquet", type="pandas.Series"), "'a'")

    pd.testing.assert_series_equal(series, loaded)


def test_tables(copied):
    """An Arrow table is restored from Parquet."""
    table = pa.table({"a": [[1], [2, 3]]})
    pyarrow.parquet.write_table(table, copied / "0.parquet")

    assert table.equals(load_reference(entry("pyarrow", "0.parquet"), "'a'"))


def test_arrays(copied):
    """An array is restored from npy, and an array of objects is refused as a pickle."""
    np.save(copied / "a.npy", np.arange(3))
    np.save(copied / "b.npy", np.array([object()]), allow_pickle=True)

    assert [0, 1, 2] == load_reference(entry("numpy", "a.npy"), "'a'").tolist()
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_reference(entry("numpy", "b.npy"), "'a'")


def test_large_values(copied):
    """A value that is too large for XCom is read from the result file."""
    (copied / "mljob_result").write_text('{"success": true, "value": [1, {"a": null}]}')

    assert [1, {"a": None}] == load_reference(entry("json", "mljob_result"), "'a'")


def test_files(copied):
    """A reference to files has their paths as its value."""
    (copied / "a.bin").write_text("a")
    (copied / "b.bin").write_text("b")

    assert copied / "a.bin" == load_reference(entry("file", "a.bin"), "'a'")
    assert [copied / "a.bin", copied / "b.bin"] == load_reference(entry("file", "a.bin", "b.bin"), "'a'")


def test_pickles(copied):
    """A job loads the pickle of another job."""
    (copied / "mljob_extra.pkl").write_bytes(pickle.dumps({1, 2}))

    assert {1, 2} == load_reference(entry("cloudpickle", "mljob_extra.pkl", python=PYTHON, version="3.0"), "'a'")


@pytest.mark.parametrize(
    ("details", "message"),
    [
        ({"python": "3.1"}, f"'model' was pickled by Python 3.1; this is Python {PYTHON}. Run both"),
        ({"python": PYTHON, "version": "0.8"}, "'model' was pickled by cloudpickle 0.8; here is 3."),
    ],
    ids=["python", "cloudpickle"],
)
def test_pickles_of_other_versions_are_not_loaded(copied, details, message):
    """A pickle of another version is refused before it is loaded, with advice."""
    (copied / "mljob_extra.pkl").write_bytes(b"no pickle at all")
    with pytest.raises(LauncherError, match=re.escape(message)):
        load_reference(entry("cloudpickle", "mljob_extra.pkl", **details), "'model'")

    assert not version_problem(PYTHON, None)
    assert not version_problem(None, "3.0.0")


def test_files_that_were_not_copied(copied):
    """The message for missing files has their names and directory."""
    with pytest.raises(
        LauncherError, match=re.escape(f"'a': y is missing in {copied}. The files it refers to were removed")
    ):
        load_reference(entry("file", "x", "y") | {"names": ["y"]}, "'a'")


def test_packages_that_the_container_lacks(copied, monkeypatch):
    """The message for a missing package names the argument and the fix."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    (copied / "a.parquet").touch()

    with pytest.raises(
        LauncherError,
        match=re.escape("'a' is a value of type pandas.DataFrame, which this container can't load (import of pandas"),
    ):
        load_reference(entry("pandas", "a.parquet", type="pandas.DataFrame"), "'a'")


def test_protocols_that_nobody_knows(tmp_path):
    """An unknown protocol, as of another launcher, is refused."""
    with pytest.raises(ValueError, match=re.escape("protocol 'polars' is unknown; choose from cloudpickle, file,")):
        load("polars", [tmp_path])


class Named(dict):
    """A subclass of dict."""


@pytest.mark.parametrize(
    ("packed", "expected"),
    [
        ({"type@": list, "#0": 1, "#1": {"type@": tuple, "#0": {"x": {1}}}}, [1, ({"x": {1}},)]),
        ({"type@": tuple}, ()),
        ({"a": {"type@": list}}, {"a": []}),
        ({"a": (1, [2])}, {"a": (1, [2])}),
        (3, 3),
    ],
    ids=str,
)
def test_containers_of_snowflakes_launcher_are_unpacked(packed, expected):
    """Lists and tuples in pickles of Snowflake's launcher, which has them as dicts, are restored."""
    assert expected == unpacked(packed)


def test_own_classes_stay_what_they_are():
    """Only plain dicts of a pickle are converted."""
    value = Named(a=1)

    assert value is unpacked(value)
