import pytest

from airflow_provider_mljobs.emulator.parsing import leading_words, without_comments
from tests.emulator.test_engine import failure


@pytest.mark.parametrize(
    "sql",
    [
        "-- features\nSELECT 1",
        "// features\nSELECT 1",
        "/* features */ SELECT 1",
        "/* one */ -- two\n/* three\n */ SELECT 1",
        "SELECT /*+ hint */ 1",
        "SELECT -- one\n 1 -- two",
        "SELECT /* not /* nested */ 1",
        "/* ; */ SELECT 1; -- the end",
        "/* a */ (/* b */ SELECT 1)",
        "WITH /* a */ t AS (SELECT 1) /* b */ SELECT * FROM t",
        "-- a\nWITH t AS (SELECT 1) SELECT * FROM t",
        "/* a */ VALUES /* b */ (1)",
        "/* a */ SELECT /* b */ LENGTH(SYSTEM$WAIT(/* c */ 0)) - 15",
        "/* SYSTEM$WAIT( */ SELECT 1",
    ],
)
def test_a_query_with_comments_returns_its_rows(cursor, sql):
    """A query returns its rows wherever comments stand, and the session's next query runs as well."""
    assert cursor.execute(sql).fetchall() == [(1,)]
    assert cursor.execute("SELECT 2").fetchall() == [(2,)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT '-- a', $$/* b */$$, '// c'", ("-- a", "/* b */", "// c")),
        ("SELECT 'it''s -- one' /* ' */, 'x'", ("it's -- one", "x")),
        (r"SELECT 'a\'/* b */' -- '", ("a'/* b */",)),
    ],
)
def test_comment_marks_in_strings_are_text(cursor, sql, expected):
    """The marks of comments inside of literals belong to the value."""
    assert cursor.execute(sql).fetchone() == expected


def test_comments_in_quoted_names(cursor):
    """The marks of comments inside of a quoted name belong to the name."""
    cursor.execute('/* a */ SELECT /* b */ 1 AS "-- c", 1 + 1 /* d */')

    assert [column.name for column in cursor.description] == ["-- c", "1 + 1"]


@pytest.mark.parametrize(
    ("sql", "position"), [("/* open", 0), ("SELECT 1 /* open", 9), ("SELECT 1 /* a */ + /* open -- b", 19)]
)
def test_an_unterminated_comment_is_a_syntax_error(cursor, sql, position):
    """A comment without an end is a syntax error at its beginning."""
    errno, sqlstate, text = failure(cursor, sql)

    assert (errno, sqlstate) == (1003, "42000")
    assert f"position {position} unexpected '/*'" in text


@pytest.mark.parametrize("sql", ["-- nothing", "/* nothing */", "// nothing", "(/* nothing */"])
def test_nothing_but_comments(cursor, sql):
    """A text with comments only is not a statement."""
    assert failure(cursor, sql)[0] in {900, 1003}


def test_statements_of_every_kind_take_comments(cursor):
    """Statements about data, objects, the session and its transactions do the same with comments as without."""
    statements = [
        "-- a\nCREATE /* b */ OR /* c */ REPLACE SCHEMA mljobs_db.comments",
        "/* a */ USE /* b */ SCHEMA mljobs_db.comments",
        "/* a */ CREATE /* b */ TEMPORARY TABLE t (a INT /* c */, b TEXT)",
        "// a\nINSERT /* b */ INTO t VALUES (1, '/* c */')",
        "-- a\nUPDATE /* b */ t SET a = 2",
        "/* a */ SET /* b */ v = 3 -- c",
        "/* a */ ALTER /* b */ SESSION SET /* c */ QUERY_TAG = 'x' -- d",
        "/* a */ BEGIN",
        "-- a\nDELETE /* b */ FROM t",
        "/* a */ ROLLBACK /* b */",
    ]
    for sql in statements:
        cursor.execute(sql)
    session = cursor.execute("/* a */ SELECT /* b */ $v, CURRENT_SCHEMA(/* c */)").fetchone()

    assert cursor.execute("SELECT * FROM t").fetchall() == [(2, "/* c */")]
    assert cursor.execute("/* a */ SHOW /* b */ PARAMETERS LIKE 'QUERY_TAG'").fetchone()[1] == "x"
    assert [row[0] for row in cursor.execute("-- a\nDESC /* b */ TABLE t").fetchall()] == ["A", "B"]
    assert session == (3, "COMMENTS")
    assert cursor.execute("/* a */ CALL /* b */ SYSTEM$WAIT(/* c */ 0)").fetchone() == ("waited 0 seconds",)
    assert cursor.execute("/* a */ DROP /* b */ SCHEMA comments").fetchone() == ("COMMENTS successfully dropped.",)


def test_a_script_with_comments(cursor):
    """Each statement of a script counts once, also with semicolons in its comments."""
    script = "-- a; b\nSELECT 1; /* c; */ SELECT 2; // d;\nSELECT ';' -- e\n;"
    cursor.execute(script, num_statements=3)
    rows = [cursor.fetchall()]
    while cursor.nextset():
        rows.append(cursor.fetchall())

    assert rows == [[(1,)], [(2,)], [(";",)]]


def test_binds_are_counted_outside_of_comments(cursor):
    """A question mark in a comment or a string takes no bind."""
    assert cursor.execute("/* ? */ SELECT ?, '?' -- ?", (7,)).fetchone() == (7, "?")


def test_a_description_with_comments(cursor):
    """A client that asks for the columns of a query with comments gets them."""
    assert [column.name for column in cursor.describe("-- a\nSELECT /* b */ 1 AS x")] == ["X"]


def test_files_with_comments(cursor, tmp_path):
    """PUT, LIST, GET and REMOVE take comments; the slashes and stars of a file's URL begin none."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    (tmp_path / "out").mkdir()
    put = f"-- a\nPUT /* b */ file://{tmp_path}/in/*.txt /* c */ @~/comments AUTO_COMPRESS = FALSE -- d"

    assert cursor.execute(put).fetchone()[6] == "UPLOADED"
    assert cursor.execute("/* a */ LIST /* b */ @~/comments").fetchone()[0] == "comments/a.txt"
    cursor.execute(f"/* a */ GET /* b */ @~/comments file://{tmp_path}/out/")
    assert (tmp_path / "out" / "a.txt").read_text() == "a"
    assert cursor.execute("-- a\nREMOVE /* b */ @~/comments").rowcount == 1


def test_snowpark_with_comments(snowflake):
    """Snowpark wraps a query with comments in another query."""
    from snowflake.snowpark import Session

    with Session.builder.configs(snowflake.connection_kwargs).create() as session:
        frame = session.sql("-- features\nSELECT /*+ hint */ 1 AS a /* one */")

        assert [tuple(row) for row in frame.collect()] == [(1,)]
        assert [tuple(row) for row in frame.select("A").filter("a = 1 -- yes\n").collect()] == [(1,)]
        assert frame.schema.names == ["A"]


def test_comments_in_the_history(cursor):
    """QUERY_HISTORY shows a statement as it was sent, with its kind."""
    cursor.execute("/* kind */ -- of\n SELECT /* it */ 1")
    row = cursor.execute(
        "SELECT query_text, query_type FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY_BY_SESSION()) "
        "WHERE query_id = ?", (cursor.sfqid,)
    ).fetchone()  # fmt: skip

    assert row == ("/* kind */ -- of\n SELECT /* it */ 1", "SELECT")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT a--b\n/c", "SELECT a   \n/c"),
        ("a /* b\nc */ d // e", "a     \n     d     "),
        ("'--' \"//\" $$/*$$ -- x", "'--' \"//\" $$/*$$     "),
        ("PUT file:///a/*.txt @s/* -- x", "PUT file:///a/*.txt @s/*     "),
        ("a /* open -- b", "a /* open -- b"),
    ],
)
def test_blanked_comments(text, expected):
    """Comments become blanks; line ends and everything else keep their places."""
    assert expected == without_comments(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-- a\n((SELECT /* b */ DISTINCT x", ["SELECT", "DISTINCT", "X"]),
        ('create "T"', ["CREATE"]),
        ("'text'", []),
        ("/* open", []),
        ("\x01 SELECT", []),
        ("", []),
    ],
)
def test_leading_words(text, expected):
    """The first words of a statement stand behind comments and parentheses; a text that isn't SQL has none."""
    assert expected == leading_words(text, 3)
