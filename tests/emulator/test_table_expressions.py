import pytest

from tests.emulator.test_engine import failure, fresh, session  # noqa: F401 the fixtures of the SQL engine's tests

GENERATOR = "TABLE(GENERATOR(ROWCOUNT => 3))"


def rows(frame):
    """Return the rows of a Snowpark frame as tuples."""
    return [tuple(row) for row in frame.collect()]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [((3,), [0, 1, 2]), ((1, 10, 2), [1, 3, 5, 7, 9]), ((10, 1, -3), [10, 7, 4]), ((0,), []), ((2, 2), [])],
)
def test_snowpark_range(session, bounds, expected):  # noqa: F811
    """`session.range()` counts from start to end by a step."""
    assert rows(session.range(*bounds)) == [(number,) for number in expected]


def test_snowpark_ranges_are_tables(session):  # noqa: F811
    """A range can be joined, united, numbered, saved and described."""
    from snowflake.snowpark import Window
    from snowflake.snowpark.functions import col, row_number

    numbers = session.range(4)
    numbers.write.save_as_table("numbers", mode="overwrite")
    numbered = numbers.select("id", row_number().over(Window.order_by(col("id").desc())).as_("n"))

    assert sorted(rows(numbers.join(session.range(2, 6), "id"))) == [(2,), (3,)]
    assert rows(numbers.union_all(session.range(1)).agg({"id": "sum"})) == [(6,)]
    assert sorted(rows(numbered)) == [(0, 4), (1, 3), (2, 2), (3, 1)]
    assert rows(session.table("numbers").agg({"id": "count"})) == [(4,)]
    assert numbers.schema.names == ["ID"]


def test_snowpark_generator(session):  # noqa: F811
    """`session.generator()` returns the requested number of rows, none without a limit."""
    from snowflake.snowpark import functions

    columns = [functions.seq4().as_("n"), functions.uniform(1, 1, functions.random()).as_("one")]

    assert rows(session.generator(*columns, rowcount=3)) == [(0, 1), (1, 1), (2, 1)]
    assert session.generator(*columns, rowcount=3, timelimit=60).count() == 3
    assert session.generator(*columns, timelimit=1).count() == 100_000
    assert session.generator(*columns).count() == 0


def test_snowpark_table_functions(session):  # noqa: F811
    """Table functions stand alone, and beside the rows of a frame."""
    from snowflake.snowpark import functions

    words = session.create_dataframe([("a b", 1), ("c", 2)], schema=["s", "n"])
    split = functions.call_table_function("split_to_table", functions.col("s"), functions.lit(" "))
    history = session.table_function("information_schema.query_history_by_session")
    array = functions.parse_json(functions.lit("[7, 8]"))

    assert rows(session.table_function("split_to_table", functions.lit("a b"), functions.lit(" ")).select("value")) == [
        ("a",),
        ("b",),
    ]
    assert rows(session.table_function("flatten", input=array).select("index", "value")) == [(0, "7"), (1, "8")]
    assert rows(words.join_table_function(split).select("n", "index", "value").sort("n", "index")) == [
        (1, 1, "a"),
        (1, 2, "b"),
        (2, 1, "c"),
    ]
    assert rows(words.join_table_function(split.over(partition_by="n")).sort("n", "index").select("value")) == [
        ("a",),
        ("b",),
        ("c",),
    ]
    assert history.count() > 0


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (f"({GENERATOR})", 3),
        (f"((({GENERATOR}))) AS g", 3),
        (f"({GENERATOR} g)", 3),
        (f"({GENERATOR}) a, ({GENERATOR}) b", 9),
        (f"(t JOIN {GENERATOR} g)", 6),
        (f"(t CROSS JOIN ({GENERATOR}))", 6),
        (f"(SELECT * FROM t, ({GENERATOR}))", 6),
        ("(t)", 2),
        ("((t)) x JOIN (t) y USING (a)", 2),
        ("(t x JOIN t y ON x.a = y.a)", 2),
        ("((VALUES (1), (2)))", 2),
        ("(TABLE('t'))", 2),
        ("(TABLE(?))", 2),
        ("(TABLE(RESULT_SCAN(LAST_QUERY_ID())))", 1),
        ("(TABLE(FLATTEN(INPUT => PARSE_JSON('[1, 2]'))))", 2),
        ("t, (TABLE(FLATTEN(PARSE_JSON('[1, 2]')))) f", 4),
        ("t, LATERAL SPLIT_TO_TABLE('a,b,c', ',') s", 6),
        ("(TABLE(SPLIT_TO_TABLE('a,b,c', ',')) s)", 3),
    ],
)
def test_parentheses_in_from(fresh, source, expected):  # noqa: F811
    """Parentheses around a table, a table function or a join change nothing."""
    fresh.execute("CREATE TABLE t AS SELECT 1 AS a UNION ALL SELECT 2")
    binds = ("t",) if "?" in source else ()

    assert fresh.execute(f"SELECT COUNT(*) FROM {source}", binds).fetchone() == (expected,)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("ROWCOUNT => 5", 5),
        ("5", 5),
        ("ROWCOUNT => 5, TIMELIMIT => 60", 5),
        ("TIMELIMIT => 60, ROWCOUNT => 5", 5),
        ("TIMELIMIT => 2", 200_000),
        ("TIMELIMIT => 0", 0),
        ("ROWCOUNT => 0", 0),
        ("ROWCOUNT => NULL", 0),
        ("", 0),
    ],
)
def test_generator_limits(cursor, arguments, expected):
    """GENERATOR stops at the first of its limits, and makes no rows without one."""
    assert cursor.execute(f"SELECT COUNT(*) FROM TABLE(GENERATOR({arguments}))").fetchone() == (expected,)


def test_a_negative_generator(cursor):
    """A negative number of rows is an error."""
    assert failure(cursor, "SELECT COUNT(*) FROM TABLE(GENERATOR(ROWCOUNT => -1))")[0] == 1008


def test_generators_have_no_columns(cursor):
    """A star beside a GENERATOR selects the columns of the other tables only."""
    cursor.execute(f"SELECT * FROM (SELECT 7 AS a) t, {GENERATOR} g")

    assert [column.name for column in cursor.description] == ["A"]
    assert cursor.fetchall() == [(7,)] * 3


def test_sequences_wrap(cursor):
    """A sequence starts again behind the largest number of its bytes: at 0, or with a sign at the smallest number."""
    query = (
        "SELECT * FROM (SELECT SEQ2(0) a, SEQ1(1) b, SEQ1() c FROM TABLE(GENERATOR(ROWCOUNT => 132))) "
        "ORDER BY a LIMIT 4 OFFSET 126"
    )

    assert cursor.execute(query).fetchall() == [(126, 126, 126), (127, 127, 127), (128, -128, 0), (129, -127, 1)]


def test_sequences_in_windows(cursor):
    """A sequence may be the ascending order of a window; where DuckDB could only give wrong rows, it is refused."""
    numbered = f"SELECT ROW_NUMBER() OVER (ORDER BY SEQ4()) FROM ({GENERATOR})"

    assert cursor.execute(numbered).fetchall() == [(1,), (2,), (3,)]
    assert failure(cursor, f"SELECT ROW_NUMBER() OVER (ORDER BY SEQ4() DESC) FROM {GENERATOR}")[0] == 2
    assert failure(cursor, f"SELECT SUM(SEQ4()) OVER () FROM {GENERATOR}")[0] == 2


def test_the_generator_of_uniform_decides(cursor):
    """UNIFORM and NORMAL repeat for a constant, follow a sequence, and differ by row for RANDOM."""
    counts = cursor.execute(
        "SELECT COUNT(DISTINCT a), COUNT(DISTINCT b), COUNT(DISTINCT c), COUNT(DISTINCT d) FROM ("
        "SELECT UNIFORM(1, 1000000, 42) a, UNIFORM(1, 1000000, SEQ4()) b, NORMAL(0, 1, RANDOM(1)) c, "
        "NORMAL(0, 1, 7) d FROM TABLE(GENERATOR(ROWCOUNT => 50)))"
    ).fetchone()

    assert (counts[0], counts[3]) == (1, 1)
    assert min(counts[1:3]) > 45


@pytest.mark.parametrize(
    ("text", "delimiter", "expected"),
    [
        ("a.b", ".", [(1, "a"), (2, "b")]),
        ("", ".", [(1, "")]),
        (None, ".", []),
        ("a.b", "", [(1, "a.b")]),
        ("a", "|", [(1, "a")]),
    ],
)
def test_split_to_table(cursor, text, delimiter, expected):
    """SPLIT_TO_TABLE makes a row of each part, and none of NULL."""
    query = "SELECT index, value FROM TABLE(SPLIT_TO_TABLE(?, ?)) ORDER BY index"

    assert cursor.execute(query, (text, delimiter)).fetchall() == expected


def test_split_to_table_beside_a_table(fresh):  # noqa: F811
    """Each row stands beside the parts of its own text, in their order."""
    fresh.execute("CREATE TABLE t AS SELECT 'a b c' AS x, 1 AS n UNION ALL SELECT 'd', 2 UNION ALL SELECT NULL, 3")
    rows = fresh.execute("SELECT n, index, value FROM t, LATERAL SPLIT_TO_TABLE(x, ' ') ORDER BY n, seq, index")

    assert rows.fetchall() == [(1, 1, "a"), (1, 2, "b"), (1, 3, "c"), (2, 1, "d")]
    assert fresh.execute("SELECT DISTINCT seq FROM TABLE(SPLIT_TO_TABLE('a b', ' '))").fetchall() == [(1,)]


def test_table_functions_without_a_database(snowflake, connect):
    """Table functions need no current database."""
    cursor = connect(snowflake, database="NOWHERE").cursor()

    assert cursor.execute("SELECT CURRENT_DATABASE()").fetchone() == (None,)
    assert cursor.execute(f"SELECT COUNT(*) FROM ({GENERATOR})").fetchone() == (3,)
    assert cursor.execute("SELECT value FROM TABLE(SPLIT_TO_TABLE('a', '.'))").fetchone() == ("a",)


def test_tables_made_of_table_functions(fresh):  # noqa: F811
    """CREATE TABLE with columns casts the rows of a table function; a view may select from one."""
    fresh.execute("CREATE TABLE n (a VARCHAR) AS SELECT SEQ4() FROM (TABLE(GENERATOR(ROWCOUNT => 2)))")
    fresh.execute("CREATE VIEW v AS SELECT value FROM (TABLE(SPLIT_TO_TABLE('x y', ' ')))")

    assert fresh.execute("SELECT * FROM n ORDER BY a").fetchall() == [("0",), ("1",)]
    assert sorted(fresh.execute("SELECT * FROM v").fetchall()) == [("x",), ("y",)]
