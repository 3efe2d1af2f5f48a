"""SQL, an ML job and Snowpark in one DAG, with one connection: a query prepares, a job fits, Snowpark records.

The first and the last task are Airflow's own, as they are in any DAG; the job runs between them. On the embedded
Snowflake all three run offline.
"""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import dag, task


@dag(schedule=None, start_date=datetime(2026, 1, 1), params={"days": 100}, tags=["example", "mljobs"])
def sql_and_jobs():
    prepare = SQLExecuteQueryOperator(
        task_id="prepare",
        conn_id="snowflake_default",
        sql="CREATE OR REPLACE TABLE SALES AS SELECT SEQ4() AS DAY, 3 * SEQ4() + 7 AS AMOUNT "
        "FROM TABLE(GENERATOR(ROWCOUNT => {{ params.days }}))",
    )

    @task.mljob(compute_pool="ML_POOL", stage_name="@ML_PAYLOADS", deferrable=True)
    def fit(session) -> dict[str, float]:
        """Runs inside Snowflake; the job passes its Snowpark session."""
        import numpy as np

        sales = session.table("SALES").to_pandas()
        slope, base = np.polyfit(sales["DAY"], sales["AMOUNT"], 1)
        return {"slope": round(float(slope), 3), "base": round(float(base), 3)}

    @task.snowpark
    def record(line: dict[str, float]) -> int:
        """Runs in the worker, with a Snowpark session of Airflow's own."""
        # Not as a parameter: `airflow dags test` logs an error when it prints a session that is closed.
        from snowflake.snowpark.context import get_active_session

        session = get_active_session()
        session.create_dataframe([line]).write.save_as_table("SALES_TRENDS", mode="append")
        return session.table("SALES_TRENDS").count()

    line = fit()
    prepare >> line
    record(line)


sql_and_jobs()
