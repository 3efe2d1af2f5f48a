from pathlib import Path

import pytest

from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.jobs.identifiers import Identifier, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.payload import Payload
from airflow_provider_mljobs.jobs.spec import JobSpec, Resources, Runtime, render

DB, ML = Identifier("DB"), Identifier("ML")
POOL = Identifier("ML_POOL")
JOB = QualifiedName(DB, ML, Identifier("MLJOB_A"))
STAGE = QualifiedName(DB, ML, Identifier("payloads"))
# Quotes, backslashes, line feeds, dollars and emoji, wherever a name can hold them.
ODD = QualifiedName(Identifier('d"b'), Identifier("m'l"), Identifier("a\\b\n$$ 🚀"))
DIRECTORY = StagePath(STAGE, "A b/MLJOB_A")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (statements.show_compute_pools(POOL), "SHOW COMPUTE POOLS LIKE 'ML_POOL'"),
        (statements.show_instance_families(), "SHOW COMPUTE POOL INSTANCE FAMILIES"),
        (
            statements.get_ml_job_runtime(POOL, "3.11"),
            """CALL SYSTEM$GET_ML_JOB_RUNTIME('ML_POOL', '{"pythonVersion": "3.11"}')""",
        ),
        (statements.describe_stage(STAGE), 'DESCRIBE STAGE DB.ML."payloads"'),
        (statements.describe_stage(ODD), 'DESCRIBE STAGE "d""b"."m\'l"."a\\b\n$$ 🚀"'),
        (
            statements.put(Path("/tmp/it's/payload.pyz"), DIRECTORY),
            (
                "PUT 'file:///tmp/it%27s/payload.pyz' '@DB.ML.\"payloads\"/A b/MLJOB_A' "
                "AUTO_COMPRESS = FALSE SOURCE_COMPRESSION = NONE OVERWRITE = TRUE"
            ),
        ),
        (
            statements.get(DIRECTORY / "output/mljob_result", Path("/tmp/x")),
            "GET '@DB.ML.\"payloads\"/A b/MLJOB_A/output/mljob_result' 'file:///tmp/x/'",
        ),
        (statements.remove(DIRECTORY / ""), "REMOVE '@DB.ML.\"payloads\"/A b/MLJOB_A/'"),
        (statements.remove(StagePath(ODD)), 'REMOVE \'@"d""b"."m\'\'l"."a\\\\b\\n$$ 🚀"\''),
        (statements.describe_service(JOB), "DESCRIBE SERVICE DB.ML.MLJOB_A"),
        (statements.show_job_services(None, "MLJOB_"), "SHOW JOB SERVICES LIKE 'MLJOB_%' IN ACCOUNT"),
        (statements.show_job_services(JOB, "it's"), "SHOW JOB SERVICES LIKE 'it''s%' IN SCHEMA DB.ML"),
        (statements.show_service_containers(JOB), "SHOW SERVICE CONTAINERS IN SERVICE DB.ML.MLJOB_A"),
        (
            statements.get_job_history(JOB),
            (
                "SELECT STATUS, MESSAGE FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 10000)) "
                "WHERE NAME = 'MLJOB_A' AND SCHEMA_NAME = 'ML' AND DATABASE_NAME = 'DB' "
                "ORDER BY CREATED_TIME DESC LIMIT 1"
            ),
        ),
        (
            statements.get_service_logs(JOB, 0, "main"),
            "SELECT SYSTEM$GET_SERVICE_LOGS('DB.ML.MLJOB_A', 0, 'main')",
        ),
        (
            statements.spcs_get_logs(JOB, 1, "it's"),
            (
                "SELECT LOG FROM TABLE(DB.ML.MLJOB_A!SPCS_GET_LOGS()) "
                "WHERE INSTANCE_ID = 1 AND CONTAINER_NAME = 'it''s' ORDER BY TIMESTAMP ASC"
            ),
        ),
        (statements.cancel_job(JOB), "CALL DB.ML.MLJOB_A!SPCS_CANCEL_JOB()"),
        (statements.drop_service(JOB), "DROP SERVICE IF EXISTS DB.ML.MLJOB_A FORCE"),
        (
            statements.drop_service(ODD),
            'DROP SERVICE IF EXISTS "d""b"."m\'l"."a\\b\n$$ 🚀" FORCE',
        ),
    ],
)
def test_statements(statement, expected):
    """Each statement is exactly this text."""
    assert expected == statement


def test_starting_a_job_with_what_is_needed():
    """The specification is the last clause."""
    spec = JobSpec(name=JOB, compute_pool=POOL, directory=DIRECTORY)

    assert (
        "EXECUTE JOB SERVICE\n"
        "IN COMPUTE POOL ML_POOL\n"
        "NAME = DB.ML.MLJOB_A\n"
        "ASYNC = TRUE\n"
        "FROM SPECIFICATION $${}$$"
    ) == statements.execute_job_service(spec, "{}")  # fmt: skip


def test_starting_a_job_with_everything():
    """Each name is quoted where it has to be, each text is a literal."""
    spec = JobSpec(
        name=JOB,
        compute_pool=POOL,
        directory=DIRECTORY,
        query_warehouse=Identifier('w"h'),
        external_access_integrations=(Identifier("PYPI"), Identifier("my own")),
        comment='{"dag_id": "it\'s \\ $$\n🚀"}',
    )

    assert (
        "EXECUTE JOB SERVICE\n"
        "IN COMPUTE POOL ML_POOL\n"
        "NAME = DB.ML.MLJOB_A\n"
        "ASYNC = TRUE\n"
        'QUERY_WAREHOUSE = "w""h"\n'
        "COMMENT = '{\"dag_id\": \"it''s \\\\ $$\\n🚀\"}'\n"
        'EXTERNAL_ACCESS_INTEGRATIONS = (PYPI, "my own")\n'
        "FROM SPECIFICATION $${}$$"
    ) == statements.execute_job_service(spec, "{}")


@pytest.mark.parametrize("text", ["$$", "$", "a$$b", "$(X)", "\\$$", "$$; DROP DATABASE DB; --"])
def test_no_specification_ends_its_own_quotes(text):
    """Between the two $$ of the statement is no other, whatever a job is given."""
    spec = JobSpec(
        name=JOB, compute_pool=POOL, directory=StagePath(QualifiedName(DB, ML, Identifier(text))), env_vars={"A": text}
    )
    payload = Payload(archive=b"", arguments=f'["{text}"]')
    runtime = Runtime(image=text, resources=Resources(cpu=1, memory_gib=1))
    statement = statements.execute_job_service(spec, render(spec.specification(payload, runtime)))
    before, quoted, after = statement.split("$$")

    assert before.endswith("FROM SPECIFICATION ")
    assert "$" not in quoted
    assert "" == after
