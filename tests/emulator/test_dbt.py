"""The statements of dbt-snowflake 1.12: debug, seed, run, test and snapshot of a project, in the order of its log."""

import uuid

import pytest

STATEMENTS = """
    show terse schemas in database MLJOBS_DB limit 10000;
    create schema if not exists MLJOBS_DB.{schema};
    show objects in MLJOBS_DB.{schema} limit 10000;
    show user functions in MLJOBS_DB.{schema};
    create transient table MLJOBS_DB.{schema}.raw (id integer, name text, amount float8, day date);
    BEGIN;
    insert overwrite into MLJOBS_DB.{schema}.raw (id, name, amount, day)
        values ('1', 'a', '1.5', '2026-01-01'), ('2', 'b', '2.5', '2026-01-02');
    COMMIT;
    create or replace view MLJOBS_DB.{schema}.stg as
        (select id, name, amount * 2 as doubled from MLJOBS_DB.{schema}.raw);
    create or replace transient table MLJOBS_DB.{schema}.mart as
        (select name, sum(doubled) as total from MLJOBS_DB.{schema}.stg group by name);
    comment on table MLJOBS_DB.{schema}.mart IS $$totals$$;
    drop view if exists MLJOBS_DB.{schema}.inc__dbt_tmp cascade;
    create or replace transient table MLJOBS_DB.{schema}.inc as
        (select id, day from MLJOBS_DB.{schema}.raw where id = 1);
    create or replace temporary view MLJOBS_DB.{schema}.inc__dbt_tmp as
        (select id, day from MLJOBS_DB.{schema}.raw where id > (select max(id) from MLJOBS_DB.{schema}.inc));
    describe table MLJOBS_DB.{schema}.inc__dbt_tmp;
    describe table "MLJOBS_DB"."{schema}"."INC";
    merge into MLJOBS_DB.{schema}.inc as DBT_INTERNAL_DEST using MLJOBS_DB.{schema}.inc__dbt_tmp as DBT_INTERNAL_SOURCE
        on ((DBT_INTERNAL_SOURCE.id = DBT_INTERNAL_DEST.id))
        when matched then update set "ID" = DBT_INTERNAL_SOURCE."ID", "DAY" = DBT_INTERNAL_SOURCE."DAY"
        when not matched then insert ("ID", "DAY") values ("ID", "DAY");
    select to_timestamp_ntz(convert_timezone('UTC', current_timestamp())) as dbt_snapshot_time
"""


@pytest.fixture
def project(connection):
    """Run the statements in a schema of their own; return a function that runs another one there."""
    name = f"DBT_{uuid.uuid4().hex[:8]}".upper()
    connection.execute_string(STATEMENTS.format(schema=name))
    yield lambda sql: connection.cursor().execute(sql.format(schema=f"MLJOBS_DB.{name}")).fetchall()
    connection.cursor().execute(f"DROP SCHEMA MLJOBS_DB.{name}")


def test_models(project):
    """A seed, a view, a table and an incremental model have the rows that dbt expects."""
    assert [("a", 3.0), ("b", 5.0)] == project("select name, total from {schema}.mart order by name")
    assert [(1,), (2,)] == project("select id from {schema}.inc order by id")


def test_data_tests(project):
    """A data test counts its failures."""
    counted = project("""
        select count(*) as failures, count(*) != 0 as should_warn from (
            select name as unique_field, count(*) as n_records from {schema}.mart
            where name is not null group by name having count(*) > 1
        ) dbt_internal_test
    """)

    assert [(0, False)] == counted
