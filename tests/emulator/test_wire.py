from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import pytest

from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.server import encoding as wire

BERLIN = timezone(timedelta(hours=2))
NAIVE = datetime.fromisoformat("2024-05-06T07:08:09.000010")
TYPES = ("fixed", "real", "text", "boolean", "date", "time", "timestamp_ntz", "timestamp_ltz", "timestamp_tz", "binary")
ROW = (
    7,
    1.5,
    "ä",
    True,
    date(1969, 12, 31),
    time(1, 2, 3, 4),
    NAIVE,
    datetime(2024, 5, 6, 7, 8, 9, tzinfo=BERLIN),
    datetime(2024, 5, 6, 7, 8, 9, tzinfo=BERLIN),
    b"\x00\xff",
)


def everything(statement):
    """Return a result with a column of each type, one row of values and one of NULL."""
    columns = [Column(f"c_{kind}", kind) for kind in TYPES]
    return Result(columns, [ROW, (None,) * len(TYPES)], statement=statement)


def test_json_cells():
    """Every cell of a JSON result is a text that the connector's converters read, or null."""
    assert [
        ["7", "1.5", "ä", "1", "-1", "3723.000004000", "1714979289.000010000", "1714972089.000000000",
         "1714972089.000000000 1560", "00FF"],
        [None] * len(TYPES),
    ] == wire.encode(everything("show"))["rowset"]  # fmt: skip


def test_json_before_1970():
    """A timestamp before 1970 has one sign in front of seconds and fraction."""
    result = Result([Column("t", "timestamp_ntz")], [(datetime.fromisoformat("1969-12-31T23:59:59.250000"),)])

    assert wire.encode(result)["rowset"] == [["-0.750000000"]]


def test_decimals_have_no_exponent():
    """A DECIMAL keeps its digits and is never written with an exponent."""
    result = Result([Column("d", "fixed", scale=8)], [(Decimal("1E-8"),)])

    assert wire.encode(result)["rowset"] == [["0.00000001"]]


def test_semi_structured_values_are_json():
    """VARIANT, OBJECT and ARRAY travel as JSON text, and text stays as it is."""
    columns = [Column("o", "object"), Column("a", "array"), Column("v", "variant")]

    assert wire.encode(Result(columns, [({"k": "ü"}, [1, 2], "[3]")]))["rowset"] == [['{"k": "ü"}', "[1, 2]", "[3]"]]


def test_empty_select_has_no_arrow():
    """A SELECT without rows carries an empty text, which clients read as an empty result."""
    data = wire.encode(Result([Column("a")], statement="select"))

    assert (data["queryResultFormat"], data["rowsetBase64"], data["total"]) == ("arrow", "", 0)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [("select", 0x1000), ("insert", 0x3100), ("delete", 0x3300), ("ddl", 0x6000), ("show", 0x4400)],
)
def test_statement_types(statement, expected):
    """Clients recognise DML by its number and then read the row count."""
    assert expected == wire.encode(Result([Column("a")], statement=statement))["statementTypeId"]


def test_row_type_has_all_keys():
    """The connector reads these keys without a default."""
    (column,) = wire.row_type([Column("A", "fixed", precision=10, scale=2, nullable=False)])

    assert tuple(column[key] for key in ("name", "type", "nullable", "length", "precision", "scale")) == (
        "A",
        "fixed",
        False,
        None,
        10,
        2,
    )


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("FIXED", "-12", -12),
        ("FIXED", "1.50", Decimal("1.50")),
        ("REAL", "1e3", 1000.0),
        ("TEXT", "ä'", "ä'"),
        ("BOOLEAN", "true", True),
        ("DATE", "-86400000", date(1969, 12, 31)),
        ("TIME", "3723000004000", time(1, 2, 3, 4)),
        ("TIMESTAMP_NTZ", "1714979289000010000", NAIVE),
        ("TIMESTAMP_LTZ", "1714979289000000000", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        ("TIMESTAMP_TZ", "1714972089000000000 1560", datetime(2024, 5, 6, 7, 8, 9, tzinfo=BERLIN)),
        ("BINARY", "00ff", b"\x00\xff"),
        ("ANY", None, None),
        ("TEXT", ["a", None], ["a", None]),
    ],
)
def test_binds(kind, value, expected):
    """A bind becomes the client's Python value."""
    assert [expected] == wire.decode_binds({"1": {"type": kind, "value": value}})


def test_binds_are_ordered_by_number():
    """The tenth bind follows the ninth."""
    bindings = {str(n): {"type": "FIXED", "value": str(n)} for n in range(11, 0, -1)}

    assert list(range(1, 12)) == wire.decode_binds(bindings)


def test_bad_bind():
    """A value that isn't of its type is an error of the statement."""
    with pytest.raises(SnowflakeError) as caught:
        wire.decode_binds({"1": {"type": "FIXED", "value": "x"}})

    assert caught.value.errno == 100037


def test_named_binds_are_refused():
    """Names instead of numbers are unsupported, not ignored."""
    with pytest.raises(SnowflakeError) as caught:
        wire.decode_binds({"name": {"type": "FIXED", "value": "1"}})

    assert caught.value.errno == 2


def read(result):
    """Decode an Arrow answer with the connector's own reader, as its cursor does."""
    import base64

    from snowflake.connector.arrow_context import ArrowConverterContext
    from snowflake.connector.nanoarrow_arrow_iterator import PyArrowRowIterator

    stream = base64.b64decode(wire.encode(result)["rowsetBase64"])
    context = ArrowConverterContext({"TIMEZONE": "UTC"})
    return list(PyArrowRowIterator(None, stream, context, False, False, False, True))


def test_arrow_rows():
    """The connector reads every type back from Arrow: values, offsets and NULLs."""
    value, null = read(everything("select"))

    assert [ROW, (None,) * len(TYPES)] == [value, null]
    assert timedelta(hours=2) == value[8].utcoffset()


def test_arrow_tables_of_the_engine():
    """DuckDB's own types arrive: unsigned and huge integers, decimals, nested values, instants of a zone."""
    import pyarrow as pa

    moment = datetime(2024, 5, 6, 5, 8, 9, tzinfo=UTC)
    table = pa.table(
        {
            "u": pa.array([2**63, None], pa.uint64()),
            "d": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
            "l": pa.array([[1, 2], None], pa.list_(pa.int32())),
            "z": pa.array([moment, None], pa.timestamp("us", "Europe/Berlin")),
            "n": pa.array([None, None]),
        }
    )
    columns = [
        Column("u", "fixed"),
        Column("d", "fixed", precision=10, scale=2),
        Column("l", "array"),
        Column("z", "timestamp_tz"),
        Column("n"),
    ]
    value, null = read(Result(columns, arrow=table, statement="select"))

    assert (2**63, Decimal("1.50"), "[1, 2]", moment, None) == value
    assert timedelta(hours=2) == value[3].utcoffset()
    assert null == (None,) * 5


def test_many_arrow_batches():
    """Rows and their offsets stay together across record batches."""
    rows = [
        (number, datetime.fromtimestamp(number, timezone(timedelta(minutes=number % 60)))) for number in range(70_000)
    ]
    decoded = read(Result([Column("n", "fixed"), Column("t", "timestamp_tz")], rows, statement="select"))

    assert rows == decoded
    assert rows[69_999][1].utcoffset() == decoded[69_999][1].utcoffset()
