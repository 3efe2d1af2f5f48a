"""Results, artifacts and referenced values, read through the connector from an embedded Snowflake."""

import hashlib
import io
import json
import pickle
import re
import sys
import uuid

import numpy as np
import pandas as pd  # noqa: TID253 (a test)
import pyarrow as pa  # noqa: TID253 (a test)
import pyarrow.parquet  # noqa: TID253 (a test)
import pytest

from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.exceptions import MLJobError, NotFoundOrNotAuthorizedError, ResultError
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.connection import Connection
from airflow_provider_mljobs.gateway.downloads import (
    artifacts,
    copy_references,
    download_reference,
    list_directory,
    open_reference,
    read_instances,
    read_result,
)
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, StagePath
from airflow_provider_mljobs.jobs.outcome.results import MAX_SUMMARY_BYTES, InstanceResult
from airflow_provider_mljobs.jobs.values.references import StageRef
from airflow_provider_mljobs.launcher.contract import SUMMARY_NAME
from airflow_provider_mljobs.launcher.results import write_result

DATABASE, SCHEMA = Identifier("MLJOBS_DB"), Identifier("PUBLIC")
PYTHON = "{}.{}".format(*sys.version_info)


@pytest.fixture(scope="module")
def connection(snowflake):
    """A connection to an account with a stage."""
    from snowflake import connector

    connection = Connection(lambda: connector.connect(**snowflake.connection_kwargs))
    connection.rows("CREATE STAGE IF NOT EXISTS MLJOBS_DB.PUBLIC.LEFT_BY_JOBS")
    yield connection
    connection.close()


@pytest.fixture
def directory():
    """A job's directory on the stage."""
    stage = StagePath.parse("LEFT_BY_JOBS", "stage_name", Namespace(DATABASE, SCHEMA))
    return stage / f"payload_{uuid.uuid4().hex}_1/MLJOB A"


@pytest.fixture
def leave(connection, directory, tmp_path_factory):
    """Put files into the job's directory, by their relative path."""

    def leave(files):
        for path, content in files.items():
            local = tmp_path_factory.mktemp("leave") / path.rpartition("/")[2]
            local.write_bytes(content if isinstance(content, bytes) else content.encode())
            target = f"{directory}/{path.rpartition('/')[0]}"
            connection.rows(f"PUT 'file://{local}' '{target}' AUTO_COMPRESS = FALSE OVERWRITE = TRUE")

    return leave


@pytest.fixture
def run(leave, tmp_path, monkeypatch):
    """Write a result as the launcher does, and upload the job's directory as a stage volume does."""

    def run(value, saved=(), **fields):
        monkeypatch.setenv("MLRS_STAGE_RESULT_PATH", str(tmp_path))
        for name in saved:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"content of {name}")
        write_result(value, **{"success": True} | fields)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        leave({path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in files})

    return run


def result(value=None, **fields):
    """Write a result of Snowflake's launcher."""
    return json.dumps({"kind": "result", "success": True, "value": value, "protocol": None} | fields)


def place(path):
    """Return a path in the form of references."""
    return str(path)


def test_a_result_takes_two_statements(connection, directory, run, snowflake):
    """A result takes one LIST and one GET."""
    run({"auc": 0.9}, saved=["model.bin"])
    snowflake.statements.clear()
    read = read_result(connection, directory, patience=10)

    assert ({"auc": 0.9}, 0, (("model.bin", 20),)) == (read.value, read.exit_code, read.artifacts)
    assert ["LIST", "GET"] == [text.split()[0] for text in snowflake.statements.texts]


def test_no_result(connection, directory, leave):
    """A killed launcher leaves no result, and an empty file is still uploading."""
    assert read_result(connection, directory) is None
    leave({"output/mljob_result": ""})
    assert read_result(connection, directory) is None


def test_a_stage_that_is_gone(connection):
    """A missing stage raises Snowflake's own error."""
    gone = StagePath.parse("NO_SUCH_STAGE/x", "stage_name", Namespace(DATABASE, SCHEMA))
    with pytest.raises(NotFoundOrNotAuthorizedError):
        read_result(connection, gone)


def test_a_result_that_comes_late(connection, directory, leave):
    """A late result is looked for once a second."""
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            leave({"output/mljob_result": result(5)})

    assert 5 == read_result(connection, directory, patience=10, pause=pause).value
    assert [1.0, 1.0, 1.0] == pauses


@pytest.mark.parametrize(
    "denial",
    [
        {"matching": "^LIST", "effect": "error", "errno": 2003, "sqlstate": "02000"},
        {"matching": "^GET", "effect": "error", "errno": 2003, "sqlstate": "02000"},
        {"matching": "^GET", "effect": "error", "errno": 253006},
    ],
    ids=["list", "get", "no file"],
)
def test_a_result_that_is_denied_for_a_while(snowflake, connection, directory, leave, denial):
    """A denied stage or file is asked for again while patience lasts; then the denial is raised."""
    leave({"output/mljob_result": result(5)})
    snowflake.faults.add(Fault(nth=1, times=2, **denial))

    assert 5 == read_result(connection, directory, patience=3, pause=lambda _: None).value

    snowflake.faults.clear()
    snowflake.faults.add(Fault(**denial))
    with pytest.raises(MLJobError):
        read_result(connection, directory, patience=3, pause=lambda _: None)
    snowflake.faults.clear()


def test_patience_ends(connection, directory):
    """Without a result after all the patience, there is none."""
    pauses = []

    assert read_result(connection, directory, patience=2.5, pause=pauses.append) is None
    assert 3 == len(pauses)


def test_the_files_of_a_value_are_waited_for(connection, directory, run, leave, caplog):
    """A large file may arrive after the small one that names it; the reference has its size."""
    run(np.arange(100))
    (file,) = [file for file in list_directory(connection, directory / "output") if file.path.endswith(".npy")]
    connection.rows(f"REMOVE '{directory}/output/mljob_extra.npy'")
    late = read_result(connection, directory, patience=1, pause=lambda _: leave({"output/mljob_extra.npy": "x" * 9}))
    connection.rows(f"REMOVE '{directory}/output/mljob_extra.npy'")
    missing = read_result(connection, directory)

    assert 100 * 8 < file.bytes
    assert ("numpy", 9) == (late.reference.protocol, late.reference.bytes)
    assert ("numpy", None) == (missing.reference.protocol, missing.reference.bytes)
    assert f"Some files of the result in {directory}/output are not on the stage yet." in caplog.text


def test_a_large_value_is_not_downloaded(connection, directory, run, snowflake):
    """A large value stays on the stage; the summary beside it has its type."""
    run(["x" * 600_000], saved=["model.bin"])
    snowflake.statements.clear()
    read = read_result(connection, directory, max_bytes=1_000, patience=10)

    assert (
        StageRef(
            stage_paths=(place(directory / "output/mljob_result"),),
            protocol="json",
            type="builtins.list",
            repr=read.reference.repr,
            bytes=read.reference.bytes,
        )
        == read.reference
    )
    assert (("model.bin", 20),) == read.artifacts
    assert read.reference.bytes > 600_000
    assert SUMMARY_NAME in snowflake.statements.texts[-1]
    assert ["x" * 600_000] == open_reference(connection, read.reference)


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("output/mljob_summary", read_result),
        ("output/instances/0.json", lambda connection, directory: read_instances(connection, directory, 1)),
    ],
    ids=["summary", "record of an instance"],
)
def test_files_that_no_launcher_writes_are_not_fetched(connection, directory, leave, snowflake, path, read):
    """A file far larger than the launcher writes is refused by its size in the listing."""
    leave({"output/mljob_result": result("x" * 2_000_000), path: " " * (MAX_SUMMARY_BYTES + 1)})
    snowflake.statements.clear()
    with pytest.raises(ResultError, match=re.escape(f"{directory}/{path} has 4000001 bytes, and the limit is 4000000")):
        read(connection, directory)

    assert ["LIST"] == [text.split()[0] for text in snowflake.statements.texts]


def test_a_large_value_of_snowflakes_launcher(connection, directory, leave):
    """A large value of Snowflake's launcher, which writes no summary, becomes a reference."""
    leave({"output/mljob_result": result("x" * 600_000)})
    read = read_result(connection, directory, max_bytes=1_000, patience=1, pause=lambda _: None)

    assert ("json", None) == (read.reference.protocol, read.reference.type)
    assert "x" * 600_000 == open_reference(connection, read.reference)


def test_a_value_that_is_just_too_large(connection, directory, run):
    """A value may be small enough to download and too large for XCom."""
    run(["x" * 2_000])

    assert "json" == read_result(connection, directory, max_bytes=2_000).reference.protocol
    assert ["x" * 2_000] == read_result(connection, directory, max_bytes=3_000).value


def test_the_result_of_an_older_launcher(connection, directory, leave):
    """An older launcher's result is read from the JSON beside its pickle."""
    leave(
        {
            "output/mljob_result": b"\x80\x05}.",
            "output/mljob_result.json": '{"success": true, "result_type": "int", "result": 7}',
        }
    )

    assert 7 == read_result(connection, directory).value


def test_a_result_that_is_no_text(connection, directory, leave):
    """A binary result raises an error with its place."""
    leave({"output/mljob_result": b"\x80\x05}."})
    with pytest.raises(ResultError, match=re.escape(f"The result at {directory}/output/mljob_result is not UTF-8")):
        read_result(connection, directory)


def test_records_of_instances(connection, directory, leave):
    """A lost instance has no record, and a late record is waited for."""
    leave({"output/instances/0.json": '{"exit_code": 0}', "output/instances/10.json": '{"exit_code": 9}'})

    def pause(_):
        leave({"output/instances/1.json": '{"exit_code": 3, "ended_at": 5}'})

    instances = read_instances(connection, directory, 3, patience=1, pause=pause)

    assert (
        InstanceResult(instance=0, exit_code=0),
        InstanceResult(instance=1, exit_code=3, ended_at=5.0),
        InstanceResult(instance=2),
    ) == instances


def test_files_beside_the_records_are_no_records(connection, directory, leave):
    """An instance's own files that are named like records aren't read as records."""
    leave(
        {
            "output/instances/0.json": '{"exit_code": 0}',
            "output/instances/1/0.json": '{"exit_code": 7}',
            "output/instances/1/1.json": " " * (MAX_SUMMARY_BYTES + 1),
            "output/instances/77.json": " " * (MAX_SUMMARY_BYTES + 1),
        }
    )

    assert (InstanceResult(instance=0, exit_code=0), InstanceResult(instance=1)) == read_instances(
        connection, directory, 2
    )


def test_no_instance_has_left_a_record(connection, directory):
    """Without any record, all instances count as lost."""
    assert (InstanceResult(instance=0), InstanceResult(instance=1)) == read_instances(connection, directory, 2)


def test_a_large_value_of_an_instance_stays_on_the_stage(snowflake, directory, leave, tmp_path):
    """An instance's value above max_bytes becomes a reference to its file."""
    from snowflake import connector

    large, small = ["x" * 2_000], [5]
    for instance, value in enumerate((small, large)):
        record = write_result(value, success=True, path=tmp_path / f"{instance}" / "mljob_result")
        leave({f"output/instances/{instance}.json": json.dumps({**record, "exit_code": 0})})
    leave({"output/instances/1/mljob_result": (tmp_path / "1" / "mljob_result").read_bytes()})
    client = MLJobClient(lambda: connector.connect(**snowflake.connection_kwargs))
    first, second = read_instances(client.connection, directory, 2, max_bytes=1_000)
    opened = open_reference(client.connection, second.result.reference)
    (_, whole) = read_instances(client.connection, directory, 2, max_bytes=3_000)
    client.close()

    assert (small, None) == (first.result.value, first.result.reference)
    assert (f"{directory}/output/instances/1/mljob_result",) == second.result.reference.stage_paths
    assert large == opened == whole.result.value


def test_what_a_job_has_saved(connection, directory, run):
    """Artifacts have path, size and checksum; the launcher's own files are left out."""
    run(np.arange(3), saved=["model.bin", "plots/a b.png", "input/x", "output/metrics.json", "output/instances/0.json"])
    content = b"content of plots/a b.png"
    saved = artifacts(connection, directory)

    assert ["model.bin", "output/metrics.json", "plots/a b.png"] == [each["path"] for each in saved]
    assert {
        "path": "plots/a b.png",
        "bytes": len(content),
        "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
    } == saved[2]


def test_what_a_job_has_saved_may_come_late(connection, directory, leave, caplog):
    """A file that the launcher listed is waited for until it has its full size."""
    leave({"model.bin": ""})
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        leave({"model.bin": "12345"})

    assert [5] == [
        each["bytes"] for each in artifacts(connection, directory, [("model.bin", 5)], patience=9, pause=pause)
    ]
    assert [1.0] == pauses
    assert 1 == len(artifacts(connection, directory, [("other", 1)]))
    assert f"1 files that the job saved in {directory} are not on the stage yet." in caplog.text


def test_many_files_are_cut(connection, directory, leave, caplog):
    """A long list of artifacts is cut, and the log has the total."""
    leave({"a": "", "b": "", "c": ""})

    assert ["a", "b"] == [each["path"] for each in artifacts(connection, directory, most=2)]
    assert f"The job has saved 3 files in {directory}; XCom has the first 2." in caplog.text


def test_of_a_list_without_end_the_beginning_is_read(connection, directory, leave, caplog):
    """Only the beginning of a huge listing is read; the rest isn't waited for, and the log says so."""
    leave({"a": "", "b": "", "c": "", "d": ""})
    pauses = []
    saved = artifacts(connection, directory, [("d", 0)], patience=9, pause=pauses.append, most=2, most_listed=3)

    assert (["a", "b"], []) == ([each["path"] for each in saved], pauses)
    assert f"The job has saved more than 3 files in {directory}; XCom has the first 2." in caplog.text


def parquet(table):
    """Return a table as a file."""
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


FRAME = pd.DataFrame({"a": [1.5, None], "when": pd.to_datetime(["2026-01-01", None])}, index=["x", "y"])


@pytest.mark.parametrize(
    ("value", "same"),
    [
        (FRAME, FRAME.equals),
        (FRAME["a"], lambda read: pd.testing.assert_series_equal(FRAME["a"], read) is None),
        (pd.Series([1, 2]), lambda read: pd.testing.assert_series_equal(pd.Series([1, 2]), read) is None),
        (pa.table({"a": [[1], None]}), pa.table({"a": [[1], None]}).equals),
        (np.arange(6).reshape(2, 3), lambda read: np.array_equal(np.arange(6).reshape(2, 3), read)),
    ],
    ids=["frame", "series", "series without a name", "table", "array"],
)
def test_values_come_back_as_they_were(connection, directory, run, value, same):
    """A plain task opens a job's value unchanged."""
    run(value)
    reference = StageRef.from_xcom(json.loads(json.dumps(read_result(connection, directory).xcom)))

    assert same(open_reference(connection, reference))


def test_pickles_are_opened_where_that_is_allowed(connection, directory, run):
    """Pickles are refused by default, with the reason and the alternatives."""
    run({1, 2})
    reference = read_result(connection, directory).reference
    with pytest.raises(ResultError) as caught:
        open_reference(connection, reference)

    assert (
        f"The value of type builtins.set at {directory}/output/mljob_extra.pkl is a pickle. Loading it runs code from "
        "the job on this worker, with the worker's rights. Pass the reference to a @task.mljob, which loads it inside "
        "a job, or return JSON, a DataFrame or an array. If you trust every job whose values this task reads, set "
        "[mljobs] allow_pickle = True."
    ) == str(caught.value)
    assert {1, 2} == open_reference(connection, reference, allow_pickle=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"python": "3.1"},
            f"was pickled by Python 3.1; this is Python {PYTHON}. Run the job with the worker's Python",
        ),
        ({"version": "0.1"}, "was pickled by cloudpickle 0.1; here is "),
    ],
    ids=str,
)
def test_pickles_of_other_versions(connection, fields, message):
    """A pickle of another version is refused before the download."""
    reference = StageRef(stage_paths=("@a.b.c/d",), protocol="cloudpickle", **fields)
    with pytest.raises(ResultError, match=re.escape(message)):
        open_reference(connection, reference, allow_pickle=True)


def reference_to(*paths, **fields):
    """Refer to files of the stage."""
    return StageRef(stage_paths=tuple(map(place, paths)), **fields)


def test_files_are_their_bytes(connection, directory, leave):
    """A file's value is its bytes; a file with a longer name beside it isn't read."""
    leave({"model.bin": "1", "model.bin.json": "2", "model-bin": "3"})
    one, two = directory / "model.bin", directory / "model.bin.json"

    assert b"1" == open_reference(connection, reference_to(one))
    assert [b"1", b"2"] == open_reference(connection, reference_to(one, two))


def test_files_can_be_kept(connection, directory, leave, tmp_path):
    """Files are downloaded into a directory under their names."""
    leave({"a (1)+é.bin": "1", "b.bin": "2"})
    reference = reference_to(directory / "a (1)+é.bin", directory / "b.bin")
    target = tmp_path / "it's 100 %"
    target.mkdir()

    assert [target / "a (1)+é.bin", target / "b.bin"] == download_reference(connection, reference, target)
    assert ["1", "2"] == [path.read_text() for path in sorted(target.iterdir())]
    assert [target] == list(tmp_path.iterdir())


def test_a_value_in_several_files_of_snowflakes_launcher(connection, directory, leave):
    """The manifest of Snowflake's launcher may name several files."""
    leave({"1.parquet": parquet(pa.table({"a": [1]})), "2.parquet": parquet(pa.table({"a": [2]}))})
    parts = (directory / "1.parquet", directory / "2.parquet")

    assert [1, 2] == open_reference(connection, reference_to(*parts, protocol="pandas"))["a"].tolist()
    assert [1, 2] == open_reference(connection, reference_to(*parts, protocol="pyarrow"))["a"].to_pylist()


def test_containers_that_snowflakes_launcher_has_pickled(connection, directory, leave):
    """Lists and tuples, which Snowflake's launcher splits, come back whole."""
    leave({"output/mljob_extra.pkl": pickle.dumps({"type@": tuple, "#0": {1}, "#1": {"type@": list, "#0": 2}})})
    reference = reference_to(directory / "output/mljob_extra.pkl", protocol="cloudpickle", python=PYTHON)

    assert ({1}, [2]) == open_reference(connection, reference, allow_pickle=True)


def test_large_files_are_not_downloaded(connection, directory, leave, tmp_path):
    """Files above max_bytes are refused before the download."""
    leave({"a": "12345", "b": "12345"})
    reference = reference_to(directory / "a", directory / "b")

    assert 2 == len(download_reference(connection, reference, tmp_path, max_bytes=10))
    with pytest.raises(
        ResultError,
        match=re.escape(
            f"{directory}/a, {directory}/b: 10 bytes to download, and the limit is 9. Pass the reference to a "
            "@task.mljob, which reads the value inside a job, or raise max_bytes."
        ),
    ):
        open_reference(connection, reference, max_bytes=9)


def test_values_that_grow_when_they_are_read(connection, directory, leave):
    """The limit also holds for the value in memory, which compression can make far larger than its file."""
    leave(
        {
            "bomb.parquet": parquet(pa.table({"a": ["x" * 100_000] * 1_000})),
            "one.parquet": parquet(pa.table({"a": [1]})),
        }
    )
    bomb = reference_to(directory / "bomb.parquet", protocol="pandas")
    one = reference_to(directory / "one.parquet", protocol="pandas")

    assert [1] == open_reference(connection, one, max_bytes=1_000_000)["a"].tolist()
    with pytest.raises(ResultError, match=r"at least \d+ bytes in memory, and the limit is 1000000"):
        open_reference(connection, bomb, max_bytes=1_000_000)


@pytest.mark.parametrize("other", ["file", "link", "broken link"])
def test_files_are_replaced_on_request(connection, directory, leave, tmp_path, other):
    """Files and links stay unless overwrite is set, and the target of a link is never written to."""
    leave({"model.bin": "new"})
    reference, target, elsewhere = reference_to(directory / "model.bin"), tmp_path / "model.bin", tmp_path / "elsewhere"
    if other == "file":
        target.write_text("old")
    else:
        target.symlink_to(elsewhere)
    if other == "link":
        elsewhere.write_text("precious")
    with pytest.raises(ResultError, match=re.escape(f"{target} exists already.")):
        download_reference(connection, reference, tmp_path)

    assert other != "file" or target.read_text() == "old"
    assert [target] == download_reference(connection, reference, tmp_path, overwrite=True)
    assert ("new", False) == (target.read_text(), target.is_symlink())
    assert ["precious"] * (other == "link") == [path.read_text() for path in tmp_path.iterdir() if path != target]


def test_directories_are_not_replaced(connection, directory, leave, tmp_path):
    """A directory of the same name is an error, and nothing is written into it."""
    leave({"model.bin": "new"})
    (tmp_path / "model.bin").mkdir()
    for overwrite in (False, True):
        with pytest.raises(ResultError, match="is a directory, and no file replaces"):
            download_reference(connection, reference_to(directory / "model.bin"), tmp_path, overwrite=overwrite)

    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]


def test_files_that_are_gone(connection, directory, leave):
    """A missing file is an error, even if a file with a longer name exists."""
    leave({"model.bin.json": "2"})
    with pytest.raises(
        ResultError,
        match=re.escape(f"{directory}/model.bin is not on the stage. It was removed, or its job has just ended"),
    ):
        open_reference(connection, reference_to(directory / "model.bin"))


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("pandas", "can't be loaded: ArrowInvalid: "),
        ("numpy", "can't be loaded: "),
        ("json", "can't be loaded: JSONDecodeError: "),
        ("polars", "can't be loaded: ValueError: protocol 'polars' is unknown; choose from cloudpickle, file, json,"),
    ],
)
def test_damaged_files(connection, directory, leave, protocol, message):
    """An error of any reader becomes a ResultError with the file."""
    leave({"x": "damaged"})
    with pytest.raises(ResultError, match=re.escape(f"The value of type T at {directory}/x {message}")):
        open_reference(connection, reference_to(directory / "x", protocol=protocol, type="T"))


def test_packages_that_the_worker_lacks(connection, directory, leave, monkeypatch):
    """A missing package is an error with the package to install."""
    leave({"x": "1"})
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        ResultError,
        match=re.escape("needs pandas, which is not installed here. Install it on the workers, or pass the reference"),
    ):
        open_reference(connection, reference_to(directory / "x", protocol="pandas"))


def test_references_are_copied_by_snowflake(connection, directory, leave, snowflake):
    """Snowflake copies referenced files into the next job's directory, without GET or PUT."""
    leave({"output/mljob_extra_0.parquet": "1", "output/mljob_extra_0.parquet.old": "2", "model.bin": "3"})
    references = [reference_to(directory / "output/mljob_extra_0.parquet"), reference_to(directory / "model.bin")]
    following = directory / "next"
    snowflake.statements.clear()
    copy_references(connection, references, following)

    assert ["COPY", "COPY"] == [text.split()[0] for text in snowflake.statements.texts]
    assert ["input/references/0/mljob_extra_0.parquet", "input/references/1/model.bin"] == [
        file.path for file in list_directory(connection, following)
    ]


def test_references_to_files_that_are_gone_are_not_copied(connection, directory, leave):
    """A job that refers to a missing file isn't submitted."""
    leave({"model.bin.json": "2"})
    with pytest.raises(MLJobError, match=re.escape("model.bin")):
        copy_references(connection, [reference_to(directory / "model.bin")], directory / "next")
