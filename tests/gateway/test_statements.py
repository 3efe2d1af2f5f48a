import json
import re
from pathlib import Path

import pytest

from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.jobs.names import ANYWHERE, Identifier, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.spec.job import JobSpec, Resources, Runtime
from airflow_provider_mljobs.jobs.spec.rendering import SpecificationSource, ml_job_options, render, specification
from airflow_provider_mljobs.jobs.values.arguments import Arguments

DB, ML = Identifier("DB"), Identifier("ML")
POOL = Identifier("ML_POOL")
JOB = QualifiedName(DB, ML, Identifier("MLJOB_A"))
STAGE = QualifiedName(DB, ML, Identifier("payloads"))
# Quotes, backslashes, line feeds, dollars and emoji, wherever a name can hold them.
EXTENT = statements.Extent(lines=5, characters=20, line_characters=9)
ODD = QualifiedName(Identifier('d"b'), Identifier("m'l"), Identifier("a\\b\n$$ 🚀"))
DIRECTORY = StagePath(STAGE, "A b/MLJOB_A")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (statements.show_compute_pools(POOL), "SHOW COMPUTE POOLS LIKE 'ML_POOL'"),
        (statements.pending_maintenance(), "SELECT SYSTEM$GET_COMPUTE_POOL_PENDING_MAINTENANCE()"),
        (statements.show_nodes(Identifier("a b")), 'SHOW NODES IN COMPUTE POOL "a b"'),
        (statements.show_instance_families(), "SHOW COMPUTE POOL INSTANCE FAMILIES"),
        (
            statements.get_ml_job_runtime(POOL, None, "3.11"),
            """CALL SYSTEM$GET_ML_JOB_RUNTIME('ML_POOL', '{"pythonVersion": "3.11"}')""",
        ),
        (
            statements.get_ml_job_runtime(POOL, "2.9.0", None),
            """CALL SYSTEM$GET_ML_JOB_RUNTIME('ML_POOL', '2.9.0')""",
        ),
        (
            statements.get_ml_job_runtime(POOL, "2.9", "3.11"),
            """CALL SYSTEM$GET_ML_JOB_RUNTIME('ML_POOL', '{"pythonVersion": "3.11", "runtimeEnvironment": "2.9"}')""",
        ),
        (statements.list_files(DIRECTORY, r".*/a[.]b"), "LIST '@DB.ML.\"payloads\"/A b/MLJOB_A' PATTERN = '.*/a[.]b'"),
        (statements.remove(DIRECTORY, "it's"), "REMOVE '@DB.ML.\"payloads\"/A b/MLJOB_A' PATTERN = 'it''s'"),
        (
            statements.copy_files("@S/it's/", DIRECTORY),
            "COPY FILES INTO '@DB.ML.\"payloads\"/A b/MLJOB_A/' FROM '@S/it''s/'",
        ),
        (
            statements.execute_ml_job("DB.ML.A_", POOL, '{"a": "it\'s \\\\"}', "{}"),
            """CALL SYSTEM$EXECUTE_ML_JOB('DB.ML.A_', 'ML_POOL', '{"a": "it''s \\\\\\\\"}', '{}')""",
        ),
        (
            statements.put(Path("/tmp/it's [ü]*/payload.pyz"), DIRECTORY),
            (
                "PUT 'file:///tmp/it''s [[]ü][*]/payload.pyz' '@DB.ML.\"payloads\"/A b/MLJOB_A' "
                "AUTO_COMPRESS = FALSE SOURCE_COMPRESSION = NONE OVERWRITE = TRUE"
            ),
        ),
        (
            statements.get_matching(DIRECTORY / "output/mljob_result", Path("/tmp/x"), ".*result"),
            "GET '@DB.ML.\"payloads\"/A b/MLJOB_A/output/mljob_result' 'file:///tmp/x/' PATTERN = '.*result'",
        ),
        (statements.remove(DIRECTORY / ""), "REMOVE '@DB.ML.\"payloads\"/A b/MLJOB_A/'"),
        (statements.remove(StagePath(ODD)), 'REMOVE \'@"d""b"."m\'\'l"."a\\\\b\\n$$ 🚀"\''),
        (statements.describe_service(JOB), "DESCRIBE SERVICE DB.ML.MLJOB_A"),
        (statements.show_job_services(ANYWHERE, "MLJOB_"), "SHOW JOB SERVICES LIKE 'MLJOB_%' IN ACCOUNT"),
        (statements.show_job_services(JOB.namespace, "it's"), "SHOW JOB SERVICES LIKE 'it''s%' IN SCHEMA DB.ML"),
        (
            statements.show_job_services(JOB.namespace, "", limit=10_000, after="it's a job"),
            "SHOW JOB SERVICES LIKE '%' IN SCHEMA DB.ML LIMIT 10000 FROM 'it''s a job'",
        ),
        (
            statements.show_job_services(ANYWHERE, "MLJOB_", limit=3),
            "SHOW JOB SERVICES LIKE 'MLJOB_%' IN ACCOUNT LIMIT 3",
        ),
        (statements.show_service_containers(JOB), "SHOW SERVICE CONTAINERS IN SERVICE DB.ML.MLJOB_A"),
        (
            statements.get_job_history(JOB),
            (
                "SELECT STATUS, CREATED_TIME, COMPLETED_TIME, DELETED_TIME "
                "FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 10000)) "
                "WHERE NAME = 'MLJOB_A' AND SCHEMA_NAME = 'ML' AND DATABASE_NAME = 'DB' "
                "ORDER BY CREATED_TIME DESC LIMIT 1"
            ),
        ),
        (
            statements.get_job_instances(JOB),
            (
                "SELECT INSTANCE_STATUSES FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 10000)) "
                "WHERE NAME = 'MLJOB_A' AND SCHEMA_NAME = 'ML' AND DATABASE_NAME = 'DB' "
                "ORDER BY CREATED_TIME DESC LIMIT 1"
            ),
        ),
        (
            statements.get_jobs_called(JOB.namespace, "MLJOB_A_1_"),
            (
                "SELECT NAME, STATUS, DELETED_TIME FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 10000)) "
                "WHERE STARTSWITH(NAME, 'MLJOB_A_1_') AND SCHEMA_NAME = 'ML' AND DATABASE_NAME = 'DB'"
            ),
        ),
        (
            statements.get_living_jobs(),
            (
                "SELECT NAME, SCHEMA_NAME, DATABASE_NAME "
                "FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 10000)) "
                "WHERE COMPLETED_TIME IS NULL AND DELETED_TIME IS NULL"
            ),
        ),
        (
            statements.get_service_logs(JOB, 0, "main"),
            "SELECT SYSTEM$GET_SERVICE_LOGS('DB.ML.MLJOB_A', 0, 'main')",
        ),
        (
            statements.get_stamped_service_logs(JOB, 2, "it's", "2026-01-01T00:00:00Z"),
            (
                "SELECT SYSTEM$GET_SERVICE_LOGS("
                "'DB.ML.MLJOB_A', 2, 'it''s', 1000000, FALSE, '2026-01-01T00:00:00Z', TRUE)"
            ),
        ),
        (
            statements.get_stamped_service_logs(JOB, 0, "main", ""),
            "SELECT SYSTEM$GET_SERVICE_LOGS('DB.ML.MLJOB_A', 0, 'main', 1000000, FALSE, '', TRUE)",
        ),
        (
            statements.spcs_get_logs(JOB, 1, "it's", start="1970-01-01T00:00:00Z"),
            (
                "SELECT TIMESTAMP, LOG FROM TABLE(DB.ML.MLJOB_A!SPCS_GET_LOGS("
                "START_TIME => TO_TIMESTAMP_LTZ('1970-01-01T00:00:00Z'))) "
                "WHERE INSTANCE_ID = 1 AND CONTAINER_NAME = 'it''s' ORDER BY TIMESTAMP ASC"
            ),
        ),
        (
            statements.spcs_get_logs(JOB, 0, "main", start="2026-01-01T00:00:00Z", end="2026-01-02T00:00:00.5Z"),
            (
                "SELECT TIMESTAMP, LOG FROM TABLE(DB.ML.MLJOB_A!SPCS_GET_LOGS("
                "START_TIME => TO_TIMESTAMP_LTZ('2026-01-01T00:00:00Z'), "
                "END_TIME => TO_TIMESTAMP_LTZ('2026-01-02T00:00:00.5Z'))) "
                "WHERE INSTANCE_ID = 0 AND CONTAINER_NAME = 'main' ORDER BY TIMESTAMP ASC"
            ),
        ),
        (statements.show_event_table(), "SHOW PARAMETERS LIKE 'event_table' IN ACCOUNT"),
        (
            statements.event_table_logs(
                ODD, JOB, 1, "it's", start="2026-01-01T00:00:00Z", end="2026-01-02T00:00:00Z", most=EXTENT
            ),
            (
                "SELECT TIMESTAMP, LINE, LINES FROM (SELECT TIMESTAMP, LEFT(LOG, 9) AS LINE, "
                "COUNT(*) OVER () AS LINES, SUM(LENGTH(LEFT(LOG, 9))) "
                "OVER (ORDER BY TIMESTAMP DESC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT "
                "ROW) AS CHARACTERS FROM ("
                'SELECT TIMESTAMP, VALUE::STRING AS LOG FROM "d""b"."m\'l"."a\\b\n$$ 🚀" WHERE RECORD_TYPE = \'LOG\' '
                "AND RESOURCE_ATTRIBUTES['snow.database.name']::STRING = 'DB' "
                "AND RESOURCE_ATTRIBUTES['snow.schema.name']::STRING = 'ML' "
                "AND RESOURCE_ATTRIBUTES['snow.service.name']::STRING = 'MLJOB_A' "
                "AND RESOURCE_ATTRIBUTES['snow.service.container.name']::STRING = 'it''s' "
                "AND (RESOURCE_ATTRIBUTES['snow.service.container.instance']::STRING = '1' "
                "OR RESOURCE_ATTRIBUTES['snow.service.instance']::STRING = '1' "
                "OR RESOURCE_ATTRIBUTES['snow.container.instance']::STRING = '1') "
                "AND TIMESTAMP >= TO_TIMESTAMP_NTZ('2026-01-01T00:00:00') "
                "AND TIMESTAMP <= TO_TIMESTAMP_NTZ('2026-01-02T00:00:00'))) "
                "WHERE CHARACTERS <= 20 ORDER BY TIMESTAMP DESC LIMIT 5"
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
    """Each function returns exactly this text."""
    assert expected == statement


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            statements.get_matching(DIRECTORY / "output/a", Path("/tmp/x"), r".*/it's\d"),
            "GET '@DB.ML.\"payloads\"/A b/MLJOB_A/output/a' 'file:///tmp/x/' PATTERN = '.*/it''s\\\\d'",
        ),
        (
            statements.copy_named_files(StagePath(STAGE), ["it's", "b"], DIRECTORY / "input"),
            (
                "COPY FILES INTO '@DB.ML.\"payloads\"/A b/MLJOB_A/input/' "
                "FROM '@DB.ML.\"payloads\"/' FILES = ('it''s', 'b')"
            ),
        ),
    ],
    ids=["get", "copy"],
)
def test_statements_about_chosen_files(statement, expected):
    """Files are chosen by a pattern of their whole path, or by name."""
    assert expected == statement


def test_starting_a_job_with_what_is_needed():
    """The specification is the last clause."""
    spec = JobSpec(name=JOB, compute_pool=POOL)

    assert (
        "EXECUTE JOB SERVICE\n"
        "IN COMPUTE POOL ML_POOL\n"
        "NAME = DB.ML.MLJOB_A\n"
        "ASYNC = TRUE\n"
        "FROM SPECIFICATION $${}$$"
    ) == statements.execute_job_service(spec, SpecificationSource(text="{}"))  # fmt: skip


def test_starting_a_job_with_everything():
    """Names are quoted where necessary, and texts are literals."""
    spec = JobSpec(
        name=JOB,
        compute_pool=POOL,
        target_instances=3,
        query_warehouse=Identifier('w"h'),
        external_access_integrations=(Identifier("PYPI"), Identifier("my own")),
        comment='{"dag_id": "it\'s \\ $$\n🚀"}',
    )

    assert (
        "EXECUTE JOB SERVICE\n"
        "IN COMPUTE POOL ML_POOL\n"
        "NAME = DB.ML.MLJOB_A\n"
        "ASYNC = TRUE\n"
        "REPLICAS = 3\n"
        'QUERY_WAREHOUSE = "w""h"\n'
        "COMMENT = '{\"dag_id\": \"it''s \\\\ $$\\n🚀\"}'\n"
        'EXTERNAL_ACCESS_INTEGRATIONS = (PYPI, "my own")\n'
        "FROM SPECIFICATION $${}$$"
    ) == statements.execute_job_service(spec, SpecificationSource(text="{}"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"text": "a $x"}, "FROM SPECIFICATION $$a $x$$"),
        ({"text": "it's $$"}, "FROM SPECIFICATION 'it''s $$'"),
        ({"text": "it's $"}, "FROM SPECIFICATION 'it''s $'"),
        ({"file": DIRECTORY / "j.yaml"}, "FROM @DB.ML.\"payloads\" SPECIFICATION_FILE = 'A b/MLJOB_A/j.yaml'"),
        (
            {"text": "{{ a }}", "using": {"a": "it's", 'b"': "2"}},
            "FROM SPECIFICATION_TEMPLATE $${{ a }}$$\nUSING (\"a\" => 'it''s', \"b\"\"\" => '2')",
        ),
        (
            {"file": DIRECTORY / "job.yaml", "using": {}},
            "FROM @DB.ML.\"payloads\" SPECIFICATION_TEMPLATE_FILE = 'A b/MLJOB_A/job.yaml'\nUSING ()",
        ),
    ],
    ids=["text", "dollars", "a dollar at the end", "file", "template", "template file"],
)
def test_sources_of_a_specification(source, expected):
    """A specification is in the statement between dollar signs, as a literal, or in a file."""
    statement = statements.execute_job_service(JobSpec(name=JOB, compute_pool=POOL), SpecificationSource(**source))

    assert expected == statement.partition("ASYNC = TRUE\n")[2]


@pytest.mark.parametrize("text", ["$$", "$", "a$$b", "$(X)", "\\$$", "$$; DROP DATABASE DB; --"])
def test_no_specification_ends_its_own_quotes(text):
    """No value of a job can end the dollar quotes around its specification."""
    stage = StagePath(QualifiedName(DB, ML, Identifier(text)))
    spec = JobSpec(name=JOB, compute_pool=POOL, stage=stage, env_vars={"A": text}, query_tag=text)
    runtime = Runtime(image="/a/b/c/d:1", resources=Resources(cpu=1, memory_gib=1))
    document = specification(spec, stage / "payload_1", Arguments.of_script([text]), runtime)
    statement = statements.execute_job_service(spec, SpecificationSource(text=render(document)))
    before, quoted, after = statement.split("$$")

    assert before.endswith("FROM SPECIFICATION ")
    assert "$" not in quoted
    assert "" == after


@pytest.mark.parametrize("text", ["it's", '"', "\\", "$$", "a\nb", "'); DROP DATABASE DB; --", "ü🚀"])
def test_options_of_managed_jobs_are_literals(text):
    """Options of managed jobs read back unchanged."""
    spec = JobSpec(name=JOB, compute_pool=POOL, managed=True, env_vars={"A": text}, comment=text)
    options, job = ml_job_options(spec, StagePath(STAGE), Arguments.of_script([text]), None)
    statement = statements.execute_ml_job(str(JOB), POOL, render(options), render(job))
    literals = re.findall(r"'((?:[^'\\]|''|\\.)*)'", statement.partition("(")[2])
    read = [json.loads(text.replace("''", "'").replace("\\\\", "\\")) for text in literals[2:]]

    assert [options, job] == read
