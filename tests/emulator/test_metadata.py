"""SHOW of keys, sequences, functions and regions, by SQL and by the reflection of snowflake-sqlalchemy."""

import uuid

import pytest

PARENT = """
    CREATE TABLE PARENT (ID INT AUTOINCREMENT START 10 INCREMENT 5 PRIMARY KEY, A INT, B INT UNIQUE,
                         C TIMESTAMP_NTZ DEFAULT CURRENT_TIMESTAMP(), D BOOLEAN DEFAULT TRUE, UNIQUE (A, B))
"""
CHILD = "CREATE TABLE CHILD (ID INT, PARENT_ID INT, FOREIGN KEY (PARENT_ID) REFERENCES PARENT (ID))"


@pytest.fixture(scope="module")
def schema(snowflake):
    """Create two tables in a schema of their own; return its name."""
    from snowflake import connector

    name = f"M_{uuid.uuid4().hex[:8]}".upper()
    with connector.connect(**snowflake.connection_kwargs) as connection:
        connection.execute_string(f"CREATE SCHEMA {name}; USE SCHEMA {name}; {PARENT}; {CHILD}; CREATE SEQUENCE S")
        yield name
        connection.cursor().execute(f"DROP SCHEMA {name}")


@pytest.fixture
def sql(connection, schema):
    """Run a statement in the schema; return its rows by column."""
    from snowflake.connector import DictCursor

    connection.cursor().execute(f"USE SCHEMA {schema}")
    return lambda text: connection.cursor(DictCursor).execute(text).fetchall()


def test_primary_and_unique_keys(sql):
    """Each column of a key is a row, in the key's order."""
    (primary,) = sql("SHOW PRIMARY KEYS IN TABLE PARENT")
    unique = sql("SHOW UNIQUE KEYS")

    assert ("PARENT", "ID", 1) == (primary["table_name"], primary["column_name"], primary["key_sequence"])
    assert {("A", 1), ("B", 2), ("B", 1)} == {(row["column_name"], row["key_sequence"]) for row in unique}
    assert 2 == len({row["constraint_name"] for row in unique})
    assert [] == sql("SHOW PRIMARY KEYS IN CHILD")


def test_foreign_keys(sql, schema):
    """Imported keys are those of the referencing table, exported ones those of the referenced table."""
    (imported,) = sql("SHOW IMPORTED KEYS IN TABLE CHILD")
    (primary,) = sql(f"SHOW PRIMARY KEYS IN SCHEMA {schema}")

    assert ("PARENT", "ID", "CHILD", "PARENT_ID") == tuple(
        imported[column] for column in ("pk_table_name", "pk_column_name", "fk_table_name", "fk_column_name")
    )
    assert primary["constraint_name"] == imported["pk_name"]
    assert [imported] == sql("SHOW EXPORTED KEYS IN TABLE PARENT")
    assert ([], []) == (sql("SHOW IMPORTED KEYS IN TABLE PARENT"), sql("SHOW EXPORTED KEYS IN TABLE CHILD"))


def test_keys_of_a_missing_table(sql):
    """A table that doesn't exist is an error, not an empty answer."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError, match=r"Table '.*\.MISSING' does not exist or not authorized"):
        sql("SHOW PRIMARY KEYS IN TABLE MISSING")


def test_keys_of_a_temporary_table(sql):
    """The keys of a temporary table belong to the schema in which it was created."""
    sql("CREATE TEMPORARY TABLE T (X INT PRIMARY KEY)")

    assert ["X"] == [row["column_name"] for row in sql("SHOW PRIMARY KEYS IN TABLE T")]


def test_defaults(sql):
    """DESCRIBE and SHOW COLUMNS write an AUTOINCREMENT and a default as Snowflake does."""
    described = {row["name"]: row["default"] for row in sql("DESCRIBE TABLE PARENT")}
    columns = {row["column_name"]: (row["default"], row["autoincrement"]) for row in sql("SHOW COLUMNS IN PARENT")}

    identity = "IDENTITY START 10 INCREMENT 5 NOORDER"
    assert {"ID": identity, "A": None, "B": None, "C": "CURRENT_TIMESTAMP()", "D": "TRUE"} == described
    assert (("", identity), ("CURRENT_TIMESTAMP()", "")) == (columns["ID"], columns["C"])


def test_information_schema(sql, schema):
    """INFORMATION_SCHEMA.COLUMNS has the identity of an AUTOINCREMENT, and no default for it."""
    rows = sql(f"""
        SELECT column_name AS C, column_default AS D, is_identity AS I, identity_start AS S, identity_increment AS N
        FROM information_schema.columns WHERE table_schema = '{schema}' AND table_name = 'PARENT'
        ORDER BY ordinal_position LIMIT 2
    """)

    assert [("ID", None, "YES", "10", "5"), ("A", None, "NO", None, None)] == [tuple(row.values()) for row in rows]


def test_sequences(sql):
    """Only sequences that a statement created are shown, not those of AUTOINCREMENT columns."""
    assert [("S", 1, 1)] == [(row["name"], row["next_value"], row["interval"]) for row in sql("SHOW SEQUENCES")]


def test_functions_and_regions(sql):
    """No user functions exist; the only region is the current one, in a cloud that clients know."""
    (region,) = sql("SHOW REGIONS LIKE 'aws%'")

    assert ([], []) == (sql("SHOW USER FUNCTIONS IN SCHEMA"), sql("SHOW REGIONS LIKE 'azure%'"))
    assert "aws" == region["cloud"]
    assert sql("SELECT CURRENT_REGION() AS R") == [{"R": region["snowflake_region"]}]


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("CALL SYSTEM$UNKNOWN_THING('a', 1)", "CALL SYSTEM$UNKNOWN_THING"),
        ('CALL db."Schema".proc()', 'CALL db."Schema".proc'),
        ("SHOW EXTERNAL FUNCTIONS IN ACCOUNT", "SHOW EXTERNAL FUNCTIONS"),
        ("CREATE OR REPLACE STREAM S ON TABLE PARENT", "CREATE STREAM"),
        ("EXECUTE TASK T", "EXECUTE TASK"),
    ],
)
def test_refusals_name_the_statement(sql, statement, name):
    """A refusal names a statement by verb and object, and a call by the name of the procedure."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError) as caught:
        sql(statement)

    assert f"Unsupported feature: {name}" in caught.value.msg


def test_reflection(snowflake, schema, connect):
    """SQLAlchemy reads tables with their keys, and no key that a table doesn't have."""
    import sqlalchemy

    connection = connect(snowflake, schema=schema, paramstyle="pyformat")
    inspector = sqlalchemy.inspect(sqlalchemy.create_engine("snowflake://", creator=lambda: connection))
    (foreign,) = inspector.get_foreign_keys("child")

    assert (["parent_id"], "parent", ["id"]) == (
        foreign["constrained_columns"], foreign["referred_table"], foreign["referred_columns"],
    )  # fmt: skip
    assert [] == inspector.get_foreign_keys("parent")
    assert ["id"] == inspector.get_pk_constraint("parent")["constrained_columns"]
    assert [["a", "b"], ["b"]] == sorted(
        constraint["column_names"] for constraint in inspector.get_unique_constraints("parent")
    )
    assert [True, False] == [column["autoincrement"] for column in inspector.get_columns("parent")[:2]]
    assert ["s"] == inspector.get_sequence_names()
    metadata = sqlalchemy.MetaData()
    metadata.reflect(sqlalchemy.create_engine("snowflake://", creator=lambda: connection))
    identity = metadata.tables["parent"].columns["id"].identity
    assert ("10", "5") == (identity.start, identity.increment)


@pytest.mark.parametrize("scope", ["SCHEMA NONE", "DATABASE NONE", "NONE.NONE"])
def test_a_place_that_does_not_exist(sql, scope):
    """SHOW in a missing database or schema is the error by which dbt knows that it must create it."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError, match="Object does not exist, or operation cannot be performed") as caught:
        sql(f"SHOW OBJECTS IN {scope}")

    assert 2043 == caught.value.errno
