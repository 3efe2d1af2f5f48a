# Tables and arrays as arguments: files that any version of their packages reads.
import io
from datetime import date
from decimal import Decimal
from uuid import UUID

import pytest

from airflow_provider_mljobs.exceptions import PayloadError
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.values import tables
from airflow_provider_mljobs.jobs.values.arguments import Arguments
from airflow_provider_mljobs.launcher.arguments import function_arguments, read_arguments
from airflow_provider_mljobs.launcher.contract import ARGUMENTS_FILE

np = pytest.importorskip("numpy", reason="numpy isn't installed")
pd = pytest.importorskip("pandas", reason="pandas isn't installed")
pa = pytest.importorskip("pyarrow", reason="pyarrow isn't installed")


def takes(value):
    """Return the argument."""
    return value


@pytest.fixture
def roundtrip(tmp_path):
    """Send a value as an argument without pickle, and read it as the launcher does."""

    def roundtrip(value):
        packed = Arguments.of_function(takes, [value], serializer="source")
        environ = {"MLRS_STAGE_RESULT_PATH": str(tmp_path), "MLJOBS_ARGS": packed.inline}
        (tmp_path / ARGUMENTS_FILE).parent.mkdir()
        (tmp_path / ARGUMENTS_FILE).write_bytes(packed.archive)
        (arrived,), _ = function_arguments(read_arguments(tmp_path, environ), tmp_path)
        return arrived

    return roundtrip


DAYS = pd.date_range("2026-01-01", periods=2, tz="Europe/Berlin")
FRAMES = {
    "numbers and text": pd.DataFrame({"a": [1, 2], "b": [0.5, None], "c": ["x", None]}),
    "no rows": pd.DataFrame({"a": pd.Series([], dtype="int32")}),
    "nothing": pd.DataFrame(),
    "numbered columns": pd.DataFrame([[1, 2]]),
    "columns in levels": pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
    "named columns": pd.DataFrame([[1]], columns=pd.Index(["a"], name="c")),
    "index in levels": pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([("a", 1)], names=["x", None])),
    "index like a column": pd.DataFrame({"a": [1]}, index=pd.Index([5], name="a")),
    "range index": pd.DataFrame({"a": [1, 2]}, index=pd.RangeIndex(3, 7, 2)),
    "categories": pd.DataFrame({"a": pd.Categorical(["x"], categories=["y", "x"], ordered=True)}),
    "days": pd.DataFrame({"a": list(DAYS)}),
    "periods": pd.DataFrame({"a": pd.period_range("2026-01", periods=2, freq="M")}),
    "nullable": pd.DataFrame({"a": pd.Series([1, None], dtype="Int64"), "b": pd.Series([True, None], dtype="boolean")}),
    "dates": pd.DataFrame({"a": [date(2026, 1, 1), None]}),
    "decimals": pd.DataFrame({"a": [Decimal("1.10"), None]}),
    "bytes": pd.DataFrame({"a": [b"\xff", None]}),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_frames_arrive_as_they_were(roundtrip, frame):
    """A DataFrame arrives with its types, index and names."""
    pd.testing.assert_frame_equal(frame, roundtrip(frame))


def test_series_keep_index_and_name(roundtrip):
    """A Series arrives with its index and any name."""
    series = pd.Series([1, 2], index=["x", "y"], name=("a", 1))

    pd.testing.assert_series_equal(series, roundtrip(series))


@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["a", "b"], name="n"),
        pd.RangeIndex(3, 9, 2),
        pd.MultiIndex.from_tuples([("a", 1)], names=["x", None]),
        pd.Index([], dtype="int8"),
    ],
    ids=["names", "range", "levels", "empty"],
)
def test_indexes_keep_their_class(roundtrip, index):
    """An index arrives with its class, also a range."""
    pd.testing.assert_index_equal(index, roundtrip(index), exact=True)


def test_indexes_of_dates_lose_their_frequency(roundtrip):
    """An index of dates arrives without its frequency, which Parquet doesn't have."""
    arrived = roundtrip(DAYS)

    assert (list(DAYS), DAYS.dtype, None) == (list(arrived), arrived.dtype, arrived.freq)


ARRAYS = {
    "numbers": np.array([[1, 2], [3, 4]], order="F"),
    "single": np.array(5.0),
    "none": np.zeros((0, 3), dtype="float16"),
    "text": np.array(["ä", "bc"]),
    "times": np.array(["2026-01-01", "NaT"], dtype="datetime64[s]"),
    "records": np.array([("a", 1)], dtype=[("n", "U3"), ("v", ">i4")]),
    "complex": np.array([1j]),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_arrays_arrive_as_they_were(roundtrip, array):
    """An array arrives with its type and shape."""
    arrived = roundtrip(array)

    assert (array.dtype, array.shape, array.flags.f_contiguous) == (
        arrived.dtype,
        arrived.shape,
        arrived.flags.f_contiguous,
    )
    np.testing.assert_array_equal(array, arrived)


@pytest.mark.parametrize(
    "scalar",
    [
        np.float32(1.1),
        np.float64("-inf"),
        np.uint64(2**64 - 1),
        np.bool_(True),
        np.str_(""),
        np.datetime64("2026-01-01"),
        np.complex64(1j),
        np.longdouble(1) / 3,
    ],
    ids=repr,
)
def test_scalars_keep_their_type(roundtrip, scalar):
    """Scalars of numpy arrive with their type: numbers as JSON, others as arrays."""
    arrived = roundtrip(scalar)

    assert (repr(scalar), scalar.dtype) == (repr(arrived), arrived.dtype)


def test_arrow_tables_keep_their_schema(roundtrip):
    """An Arrow table arrives with its schema, also types that pandas lacks."""
    table = pa.table(
        {
            "a": pa.array([1, None], pa.int8()),
            "b": pa.array([["x"], None]),
            "c": pa.array(["p", "p"]).dictionary_encode(),
        },
        metadata={"k": "v"},
    )
    arrived = roundtrip(table)

    assert table.schema.equals(arrived.schema, check_metadata=True)
    assert table.equals(arrived)


CHANGED = {
    "mixed types": (pd.DataFrame({"a": [1, "x"]}), "column 'a' holds Python objects (mixed-integer)"),
    "lists": (pd.DataFrame({"a": [[1]]}), "column 'a' holds Python objects (mixed)"),
    "ids": (pd.DataFrame({"a": [UUID(int=1)]}), "column 'a' holds Python objects (mixed)"),
    "numbers as objects": (pd.DataFrame({"a": pd.Series([1, None], dtype=object)}), "column 'a' holds Python objects"),
    "text as objects": (pd.DataFrame({"a": pd.Series(["x"], dtype=object)}), "Parquet would change it: Attributes of"),
    "seconds": (pd.DataFrame({"a": np.array(["2026-01-01"], "M8[s]")}), "Parquet would change it: Attributes of"),
    "two of a name": (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Parquet can't hold it: Duplicate column names"),
    "complex": (pd.DataFrame({"a": [1j]}), "Parquet can't hold it: "),
    "sparse": (pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])}), "Parquet can't hold it: Sparse pandas data"),
    "index of objects": (pd.DataFrame({"a": [1, 2]}, index=pd.Index([1, "x"])), "its index holds Python objects"),
    "no columns": (pd.DataFrame(index=[1]), "Parquet drops the rows of a DataFrame without columns"),
    "array of objects": (np.array([None]), "an array of Python objects must be pickled"),
    "seconds in Arrow": (
        pa.table({"a": pa.array([1], pa.timestamp("s"))}),
        "Parquet would make timestamp[ms] of the timestamp[s] in column 'a'",
    ),
    "unions": (
        pa.table({"a": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])}),
        "Parquet can't hold it: ",
    ),
}


@pytest.mark.parametrize(("value", "reason"), CHANGED.values(), ids=CHANGED)
def test_what_files_would_change_is_pickled_instead(value, reason):
    """A value that Parquet would change is pickled, or refused with the reason; no file remains."""
    packed = Arguments.of_function(takes, [value])

    assert ["values.pkl"] == [*packed.files]
    with pytest.raises(PayloadError) as caught:
        Arguments.of_function(takes, [value], serializer="source")
    assert f"Argument 'value' of 'takes' holds a value of type {type(value).__name__}: {reason}" in str(caught.value)


@pytest.mark.parametrize("value", [1, "a", pd.Timestamp("2026-01-01"), pd.NA, pd.DataFrame], ids=repr)
def test_other_values_are_no_tables(value):
    """A value of another type is no table."""
    assert tables.write(value, io.BytesIO()) is None


def describes(a, more):
    """Describe the arguments."""
    frame = more["frames"][0]
    return [a.sum().item(), frame["b"].tolist(), str(frame.index.name), type(more["n"]).__name__]


def test_a_job_gets_tables_however_deep(run):
    """A job gets several tables in one call, in lists and dicts."""
    frame = pd.DataFrame({"b": ["x", "y"]}, index=pd.Index([1, 2], name="id"))
    args = [np.arange(4), {"frames": [frame, pd.Series([1])], "n": np.float32(1)}]
    packed = Arguments.of_function(describes, args)
    ended = run(Payload.of_function(describes), packed)

    assert ["0.npy", "1.parquet", "2.parquet"] == [*packed.files]
    assert [6, ["x", "y"], "id", "float32"] == ended.record["value"]


@pytest.mark.parametrize(
    ("value", "missing"),
    [
        (pd.DataFrame({"a": [1]}), "pandas"),
        (pd.DataFrame({"a": [1]}), "pyarrow"),
        (pa.table({"a": [1]}), "pyarrow"),
        (np.array([1]), "numpy"),
        (np.int8(1), "numpy"),
    ],
    ids=["frame-pandas", "frame-pyarrow", "table-pyarrow", "array-numpy", "number-numpy"],
)
def test_packages_that_the_job_lacks_are_named(run, tmp_path, value, missing):
    """The message for a missing package names the argument and the requirement to add."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / f"{missing}.py").write_text(f"raise ImportError('no {missing} here')")
    packed = Arguments.of_function(takes, [[value]])
    ended = run(Payload.of_function(takes), packed, PYTHONPATH=str(tmp_path / "without"))

    assert 1 == ended.code
    assert (
        f"Argument 'value' needs {missing}, which this container doesn't have (no {missing} here): add '{missing}' to "
        "pip_requirements."
    ) == ended.record["metadata"]["message"]


def test_large_frames_are_held_twice_at_most():
    """A large frame is in memory as Parquet and in the archive, and no third time."""
    frame = pd.DataFrame({"a": np.random.default_rng(1).random(100_000)})
    packed = Arguments.of_function(takes, [frame])

    assert len(packed.archive) < 1_000 + sum(len(content) for content in packed.files.values()) < 1_100_000
