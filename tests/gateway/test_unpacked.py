import numpy as np
import pandas as pd  # noqa: TID253 (a test)
import pyarrow as pa  # noqa: TID253 (a test)
import pyarrow.parquet  # noqa: TID253 (a test)
import pytest

from airflow_provider_mljobs.gateway.unpacked import unpacked_bytes

LARGE = "x" * 100_000
LIMIT = 1_000_000


ROWS = 200
# Each is some kilobytes in a file, and ten megabytes or more in memory.
BOMBS = {
    "texts": lambda: pa.array([LARGE] * ROWS),
    "bytes": lambda: pa.array([LARGE.encode()] * ROWS),
    "lists of texts": lambda: pa.array([[LARGE, LARGE]] * ROWS),
    "structs of texts": lambda: pa.array([{"b": {"c": LARGE}}] * ROWS),
    "maps of texts": lambda: pa.array([[("k", LARGE)]] * ROWS, pa.map_(pa.string(), pa.string())),
    "numbers": lambda: pa.array(np.full(2_000_000, 7)),
    "lists of numbers": lambda: pa.array([np.full(2_000_000, 7)]),
    "decimals": lambda: pa.array([1] * 1_000_000).cast(pa.decimal128(38, 0)),
}


def written(path, table):
    """Write a table; returns its file."""
    pa.parquet.write_table(table, path, compression="zstd")
    return path


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("protocol", ["pandas", "pyarrow"])
def test_small_files_of_large_values(tmp_path, kind, protocol):
    """Small files of repetitive, compressed values are measured by their size in memory."""
    file = written(tmp_path / "0.parquet", pa.table({"a": BOMBS[kind]()}))

    assert LIMIT > file.stat().st_size
    assert LIMIT < unpacked_bytes(protocol, [file], LIMIT)


def test_parts_count_together(tmp_path):
    """The sizes of a value's files add up."""
    table = pa.table({"a": np.arange(100_000)})
    files = [written(tmp_path / f"{number}.parquet", table) for number in range(2)]

    assert LIMIT > unpacked_bytes("pandas", files[:1], LIMIT)
    assert LIMIT < unpacked_bytes("pandas", files, LIMIT)


@pytest.mark.parametrize(
    "table",
    [
        pa.table({}),
        pa.table({"a": pa.array([], pa.string())}),
        pa.table({"a": [1, None], "b": ["x", None], "c": [[1], None], "d": [{"e": "f"}, None], "g": [b"h", None]}),
        pa.Table.from_pandas(pd.DataFrame({"a": pd.Categorical([LARGE[:1000], "b"] * 10_000)})),
        pa.table({"a": pa.array([[("k", "v")], None], pa.map_(pa.string(), pa.string()))}),
        pa.table({"when": pd.to_datetime(["2026-01-01"] * 10), "flag": [True] * 10}),
    ],
    ids=["nothing", "no rows", "nulls", "categories", "maps", "times"],
)
def test_ordinary_tables(tmp_path, table):
    """The size of an ordinary table within the limit is measured closely."""
    size = unpacked_bytes("pyarrow", [written(tmp_path / "0.parquet", table)], LIMIT)

    assert table.nbytes / 10 <= size < LIMIT


def test_archives_of_arrays(tmp_path):
    """The size of an npz comes from its directory, which numpy never exceeds; an npy is as large as its file."""
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(1_000_000))
    np.save(tmp_path / "a.npy", np.zeros(1_000))

    assert LIMIT > (tmp_path / "a.npz").stat().st_size
    assert LIMIT < unpacked_bytes("numpy", [tmp_path / "a.npz"], LIMIT)
    assert (tmp_path / "a.npy").stat().st_size == unpacked_bytes("numpy", [tmp_path / "a.npy"], LIMIT)
