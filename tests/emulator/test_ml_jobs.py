"""SYSTEM$EXECUTE_ML_JOB and SYSTEM$GET_ML_JOB_RUNTIME, called as ``snowflake.ml.jobs`` calls them."""

import json
import uuid

import pytest
import yaml

from airflow_provider_mljobs.emulator.containers.instance import probe_isolation
from airflow_provider_mljobs.emulator.spcs.ml_jobs import merge
from tests.budget import budget

CPU = "/snowflake/images/snowflake_images/container_runtime/cpu_x86_64"
GPU = "/snowflake/images/snowflake_images/container_runtime/gpu_x86_64"
RUNTIME = "/snowflake/images/snowflake_images/st_plat/runtime/x86/runtime_image/snowbooks:1.8.0"


@pytest.fixture
def sql(connection):
    """Run a statement in a new schema, with a stage and a pool; the schema is dropped after the test."""
    from snowflake.connector import DictCursor

    def run(text, *binds):
        return connection.cursor(DictCursor).execute(text, binds or None).fetchall()

    schema = f"ML_{uuid.uuid4().hex[:8]}".upper()
    run("CREATE COMPUTE POOL IF NOT EXISTS ML MIN_NODES = 1 MAX_NODES = 4 INSTANCE_FAMILY = CPU_X64_S")
    run("CREATE COMPUTE POOL IF NOT EXISTS ML_GPU MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = GPU_NV_S")
    run(f"CREATE SCHEMA {schema}")
    run(f"USE SCHEMA {schema}")
    run("CREATE STAGE PAYLOADS ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
    yield run
    run(f"DROP SCHEMA {schema}")


def failure(sql, text, *binds):
    """Run a statement that fails; return the error."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError) as caught:
        sql(text, *binds)
    return caught.value


def execute(sql, name="train_", pool="ML", spec=None, **options):
    """Submit a job as the client does; return its id."""
    spec = {"STAGE_PATH": "@PAYLOADS/train", "ARGS": ["true"], "RUNTIME": RUNTIME} | (spec or {})
    options = {"TARGET_INSTANCES": 1, "GENERATE_SUFFIX": True, "ASYNC": True} | options
    (row,) = sql("CALL SYSTEM$EXECUTE_ML_JOB(?, ?, ?, ?)", name, pool, json.dumps(spec), json.dumps(options))
    return row["SYSTEM$EXECUTE_ML_JOB"]


def runtime(sql, *arguments):
    """Return the image of a runtime."""
    marks = ", ".join("?" * len(arguments))
    (row,) = sql(f"CALL SYSTEM$GET_ML_JOB_RUNTIME({marks})", *arguments)
    return row["SYSTEM$GET_ML_JOB_RUNTIME"]


def specification(sql, job):
    """Return the specification of a job as the client reads it."""
    return yaml.safe_load(sql(f"DESCRIBE SERVICE {job}")[0]["spec"])["spec"]


def test_runtime_of_a_pool(sql):
    """The latest image fits the pool; without a Python version it is that of the default Python."""
    assert f"{CPU}:3.0.0" == runtime(sql, "ML", "")
    assert f"{GPU}:3.0.0" == runtime(sql, "ML_GPU")


@pytest.mark.parametrize(
    ("wanted", "python", "image"),
    [
        (None, "3.12", f"{CPU}:3.0.0-py312"),
        ("2.9.0", None, f"{CPU}:2.9.0"),
        ("2.9.0", "3.11", f"{CPU}:2.9.0-py311"),
        ("2.9.0", "3.10", f"{CPU}:2.9.0"),
        ("2.5.1-py310", "3.11", f"{CPU}:2.5.1-py310"),
        ("2.5.0-py311", "3.12", f"{CPU}:2.5.1-py311"),
        ("2.7", "3.11", f"{CPU}:2.7.2-py311"),
        ("2.7.99", "3.11", f"{CPU}:2.7.2-py311"),
        (f"{CPU}:2.7.0", "3.11", f"{CPU}:2.7.2-py311"),
        ("1.8.0", None, RUNTIME),
        ("/a/b/c/d:1", "3.11", "/a/b/c/d:1"),
        ("cre@mine", "3.11", "cre@mine"),
        ("@test", "3.11", f"{CPU}@test"),
    ],
)
def test_runtime_by_version(sql, wanted, python, image):
    """A version leads to its newest patch, with the Python of its suffix, or else the client's; others stay.

    So do Snowflake's own tests of the resolution. The answer to "@test" is no valid image for its client.
    """
    asked = {"runtimeEnvironment": wanted, "pythonVersion": python}

    assert image == runtime(sql, "ML", json.dumps({name: value for name, value in asked.items() if value}))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"pythonVersion": "3.13"}, "Python version 3.13 is not supported. Supported versions: 3.10, 3.11, 3.12."),
        ({"runtimeEnvironment": "2.9.0-py313"}, "Python version 3.13 is not supported."),
        ({"runtimeEnvironment": "nonsense"}, "Runtime environment 'nonsense' does not exist."),
        ({"runtimeEnvironment": "2.9-py3.11"}, "Runtime environment '2.9-py3.11' does not exist."),
        ({"runtimeEnvironment": "4.0"}, "Runtime environment '4.0' does not exist. Available versions: 1.0,"),
    ],
)
def test_runtime_that_does_not_exist(sql, asked, message):
    """A version and a Python without an image are errors that name the alternatives."""
    error = failure(sql, "CALL SYSTEM$GET_ML_JOB_RUNTIME('ML', ?)", json.dumps(asked))

    assert 395091 == error.errno
    assert message in error.msg


def test_runtime_of_an_unknown_pool(sql):
    """An unknown pool is an error."""
    assert 2003 == failure(sql, "CALL SYSTEM$GET_ML_JOB_RUNTIME('NONE')").errno


@pytest.mark.parametrize("tag", ["2.9", "2.9.7", "2.9.0-py39", "latest"])
def test_an_image_that_is_not_published(sql, tag):
    """A job with a tag of the ML runtime that isn't published is refused at once, and leaves no service."""
    spec = f"{{spec: {{containers: [{{name: main, image: '{CPU}:{tag}', command: ['true']}}]}}}}"
    error = failure(sql, f"EXECUTE JOB SERVICE IN COMPUTE POOL ML NAME = unpublished FROM SPECIFICATION $${spec}$$")

    assert f"Image {CPU}:{tag} not found." in error.msg
    assert [] == sql("SHOW JOB SERVICES LIKE 'unpublished'")


def test_a_managed_job_of_a_runtime_that_does_not_exist(sql):
    """A managed job with an unknown runtime is refused like the question for its image."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError, match="Runtime environment 'nonsense' does not exist"):
        execute(sql, spec={"RUNTIME": "nonsense"})


def test_job_id_has_a_suffix(sql):
    """The id is fully qualified, and the server makes it unique."""
    ids = {execute(sql) for _ in range(2)}

    assert len(ids) == 2
    for job in ids:
        name = job.rpartition(".")[2]
        assert name.startswith("TRAIN_")
        assert len(name) > len("TRAIN_")


def test_job_id_without_suffix(sql):
    """Without GENERATE_SUFFIX the name is the job's."""
    assert execute(sql, "exact", GENERATE_SUFFIX=False).endswith(".EXACT")
    assert (
        failure(sql, "CALL SYSTEM$EXECUTE_ML_JOB('exact', 'ML', '{\"STAGE_PATH\": \"@PAYLOADS\"}', '{}')").errno == 2002
    )


def test_specification(sql):
    """The service has the shape that the client reads: volumes, environment, a whole node."""
    job = execute(sql, spec={"ENV_VARS": {"MINE": "1"}, "ENABLE_METRICS": True}, COMMENT="why", QUERY_WAREHOUSE='"WH"')

    spec = specification(sql, job)
    (container,) = spec["containers"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    database, schema, name = job.split(".")
    assert container["name"] == "main"
    assert container["env"] | {"MINE": "1", "MLRS_RESULT_PATH": "output/mljob_result"} == container["env"]
    assert container["resources"]["limits"] == {"cpu": "3000m", "memory": "13Gi"}
    assert volumes["stage-volume"]["stageConfig"]["name"] == f"@{database}.{schema}.PAYLOADS/train"
    assert volumes["result-volume"]["stageConfig"]["name"] == f"@{database}.{schema}.PAYLOADS/train/{name}"
    assert volumes["dshm"] == {"name": "dshm", "source": "memory", "size": "4Gi"}
    assert spec["platformMonitor"]["metricConfig"]["groups"] == ["system", "status", "network", "storage"]
    (described,) = sql(f"DESCRIBE SERVICE {job}")
    assert (described["comment"], described["query_warehouse"]) == ("why", "WH")


def test_result_reaches_the_stage(sql):
    """Files below a job's result path are on the stage, below its name."""
    script = 'mkdir -p "$MLRS_STAGE_RESULT_PATH/output"; echo "{}" > "$MLRS_STAGE_RESULT_PATH/$MLRS_RESULT_PATH"'
    job = execute(sql, spec={"ARGS": ["sh", "-c", script]}, ASYNC=False)

    name = job.rpartition(".")[2]
    assert [row["name"] for row in sql("LIST @PAYLOADS")] == [f"payloads/train/{name}/output/mljob_result"]


def test_many_instances(sql):
    """Each instance has its index and the ports of Ray; the least number is in the environment."""
    job = execute(sql, spec={"ARGS": ["sh", "-c", "echo $SNOWFLAKE_JOB_INDEX"]}, TARGET_INSTANCES=2, MIN_INSTANCES=1)
    sql(f"CALL {job}!SPCS_WAIT_FOR('DONE', {budget():.0f})")

    spec = specification(sql, job)
    assert spec["containers"][0]["env"]["MLRS_MIN_INSTANCES"] == "1"
    assert {"ray-gcs", "ray-client-server"} <= {endpoint["name"] for endpoint in spec["endpoints"]}
    assert [sql(f"SELECT SYSTEM$GET_SERVICE_LOGS('{job}', {i}, 'main') AS L")[0]["L"] for i in range(2)] == [
        "0\n",
        "1\n",
    ]


def test_system_pools_take_ml_jobs(sql):
    """The pools that Snowflake manages are for jobs such as these."""
    job = execute(sql, pool="SYSTEM_COMPUTE_POOL_CPU")

    sql(f"CALL {job}!SPCS_WAIT_FOR('DONE', {budget():.0f})")


@pytest.mark.parametrize("pool", ["ML", "SYSTEM_COMPUTE_POOL_CPU"])
@pytest.mark.parametrize("image", [None, "2.9.0-py311", RUNTIME, f"{CPU}:2.9.0", "cre@mine"])
def test_runtime_of_a_job(sql, pool, image):
    """A job runs without a runtime, with a tag, with an image and with a reference to one, on all pools."""
    job = execute(sql, pool=pool, spec={"RUNTIME": image, "ARGS": ["echo", "ran"]}, ASYNC=False)

    assert sql(f"SELECT SYSTEM$GET_SERVICE_LOGS('{job}', 0, 'main') AS L") == [{"L": "ran\n"}]


HOSTILE = [
    "",
    " ",
    "$HOME",
    "${PATH}",
    "$(id)",
    "$$",
    "'",
    '"',
    "\\",
    "\\'",
    "a\nb",
    "\t",
    "`id`",
    "{{ x }}",
    "é☃🚀",
    "*",
    "-x",
    "%s ?",
]


def test_arguments_and_environment_arrive_byte_for_byte(sql):
    """Arguments reach the process unchanged by shell, template or JSON."""
    program = "import json, os, sys; print(json.dumps([sys.argv[1:], [os.environ[f'V{i}'] for i in range(%d)]]))"
    variables = {f"V{index}": text for index, text in enumerate(HOSTILE)}
    arguments = ["python", "-c", program % len(HOSTILE), *HOSTILE]
    job = execute(sql, spec={"ARGS": arguments, "ENV_VARS": variables}, ASYNC=False)

    (row,) = sql(f"SELECT SYSTEM$GET_SERVICE_LOGS('{job}', 0, 'main') AS L")
    assert [HOSTILE, HOSTILE] == json.loads(row["L"])


def test_all_options(sql):
    """All options of the client are accepted; null counts as absent."""
    sql("CREATE NETWORK RULE OUT TYPE = HOST_PORT MODE = EGRESS VALUE_LIST = ('pypi.org:443')")
    sql('CREATE OR REPLACE EXTERNAL ACCESS INTEGRATION "Pypi" ALLOWED_NETWORK_RULES = (OUT) ENABLED = TRUE')
    spec = {
        "ARGS": ["true"], "ENV_VARS": None, "ENABLE_METRICS": None, "SPEC_OVERRIDES": None, "RUNTIME": None,
        "ENABLE_STAGE_MOUNT_V2": True, "ARTIFACT_REPOSITORIES": ["snowflake.snowpark.pypi_shared_repository"],
    }  # fmt: skip
    job = execute(
        sql,
        spec=spec,
        EXTERNAL_ACCESS_INTEGRATIONS=["Pypi", '"Pypi"'],
        QUERY_WAREHOUSE='"my wh"',
        MIN_INSTANCES=1,
        COMMENT=None,
    )

    (described,) = sql(f"DESCRIBE SERVICE {job}")
    assert ('"my wh"', "[Pypi, Pypi]", None) == (
        described["query_warehouse"],
        described["external_access_integrations"],
        described["comment"],
    )


def test_stage_volumes_are_of_the_second_form(sql):
    """The specification that Snowflake writes has no volumes of the first form, also where the client asks for them."""
    job = execute(sql, spec={"ENABLE_STAGE_MOUNT_V2": False})

    volumes = {volume["name"]: volume["source"] for volume in specification(sql, job)["volumes"]}
    assert ("stage", "stage") == (volumes["stage-volume"], volumes["result-volume"])


@pytest.mark.parametrize(
    ("spec", "options", "reason"),
    [
        ({"ARGS": "true"}, {}, 'ARGS must be a list of strings, got "true"'),
        ({"ARGS": [["true"]]}, {}, "ARGS must be a list of strings"),
        ({"ENV_VARS": ["A"]}, {}, "ENV_VARS must be an object of strings"),
        ({"ENABLE_METRICS": "yes"}, {}, "ENABLE_METRICS must be true or false"),
        ({"RUNTIME": 2}, {}, "RUNTIME must be a string"),
        ({"STAGE_PATH": None}, {}, "STAGE_PATH is missing"),
        ({"SPEC_OVERRIDES": []}, {}, "SPEC_OVERRIDES must be an object"),
        ({"ARTIFACT_REPOSITORIES": {"pypi": "a.b.c"}}, {}, "ARTIFACT_REPOSITORIES must be a list of names"),
        ({}, {"TARGET_INSTANCES": 0}, "TARGET_INSTANCES must be a whole number from 1"),
        ({}, {"TARGET_INSTANCES": True}, "TARGET_INSTANCES must be a whole number from 1"),
        ({}, {"MIN_INSTANCES": 2}, "MIN_INSTANCES must not be greater than TARGET_INSTANCES"),
        ({}, {"EXTERNAL_ACCESS_INTEGRATIONS": "A"}, "EXTERNAL_ACCESS_INTEGRATIONS must be a list of names"),
        ({}, {"ASYNC": "true"}, "ASYNC must be true or false"),
    ],
)
def test_options_of_wrong_types(sql, spec, options, reason):
    """An error names the invalid option and its expected type."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError) as caught:
        execute(sql, spec=spec, **options)

    assert 939 == caught.value.errno
    assert reason in caught.value.msg


@pytest.mark.parametrize(("spec", "options"), [({"COLOUR": 1}, {}), ({}, {"REPLICAS": 2})])
def test_unknown_options(sql, spec, options):
    """Options whose effect in a real account is unknown are refused by name."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError, match="not supported by the embedded Snowflake"):
        execute(sql, spec=spec, **options)


@pytest.mark.skipif(probe_isolation() == "rewrite", reason="without namespaces jobs have the network of the machine")
@pytest.mark.parametrize(
    ("spec", "options", "is_refused"),
    [
        ({}, {}, True),
        ({}, {"EXTERNAL_ACCESS_INTEGRATIONS": ["OUTSIDE"]}, False),
        ({"ARTIFACT_REPOSITORIES": ["snowflake.snowpark.pypi_shared_repository"]}, {}, False),
    ],
)
def test_network(sql, spec, options, is_refused):
    """A job reaches other machines with an integration, or packages with an artifact repository; otherwise none."""
    sql("CREATE NETWORK RULE OUT TYPE = HOST_PORT MODE = EGRESS VALUE_LIST = ('pypi.org:443')")
    sql("CREATE OR REPLACE EXTERNAL ACCESS INTEGRATION OUTSIDE ALLOWED_NETWORK_RULES = (OUT) ENABLED = TRUE")
    job = execute(sql, spec={"ARGS": ["grep", "^hosts:", "/etc/nsswitch.conf"], **spec}, ASYNC=False, **options)

    (row,) = sql(f"SELECT SYSTEM$GET_SERVICE_LOGS('{job}', 0, 'main') AS L")
    assert is_refused == (["hosts:", "files"] == row["L"].split())


def test_missing_integration(sql):
    """A job may only name existing integrations, in their exact spelling."""
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError) as caught:
        execute(sql, EXTERNAL_ACCESS_INTEGRATIONS=["no_integration"])

    assert 2003 == caught.value.errno
    assert "Integration '\"no_integration\"' does not exist or not authorized" in caught.value.msg


def test_overrides_with_secrets(sql):
    """The documented use of SPEC_OVERRIDES: a secret for the container."""
    sql("CREATE SECRET FEED TYPE = GENERIC_STRING SECRET_STRING = 'https://u:p@feed'")
    secret = {"snowflakeSecret": "FEED", "envVarName": "PIP_INDEX_URL", "secretKeyRef": "secret_string"}
    change = {"spec": {"containers": [{"name": "main", "secrets": [secret]}]}}
    job = execute(sql, spec={"SPEC_OVERRIDES": change, "ARGS": ["sh", "-c", "echo $PIP_INDEX_URL"]}, ASYNC=False)

    assert sql(f"SELECT SYSTEM$GET_SERVICE_LOGS('{job}', 0, 'main') AS L") == [{"L": "https://u:p@feed\n"}]


def test_overrides(sql):
    """SPEC_OVERRIDES are merged into the specification, and checked like one."""
    change = {"spec": {"containers": [{"name": "main", "env": {"ADDED": "1"}}], "platformMonitor": None}}
    job = execute(sql, spec={"SPEC_OVERRIDES": change, "ENABLE_METRICS": True})

    spec = specification(sql, job)
    assert spec["containers"][0]["env"]["ADDED"] == "1"
    assert "platformMonitor" not in spec


@pytest.mark.parametrize(
    ("base", "patch", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": None, "c": 3}, {"a": 1, "c": 3}),
        ([{"name": "x", "v": 1}], [{"name": "x", "v": 2}, {"name": "y"}], [{"name": "x", "v": 2}, {"name": "y"}]),
        (["a"], ["b"], ["b"]),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"d": 2}}}, {"a": {"b": {"c": 1, "d": 2}}}),
    ],
)
def test_merge(base, patch, expected):
    """Mappings merge by key and lists of named items by name; anything else is replaced."""
    assert merge(base, patch) == expected


@pytest.mark.parametrize("arguments", ["'a'", "'a', 'ML', 'x', '{}'", "'a', 'ML', '[]', '{}'", "'a', 'ML', '{}', '{}'"])
def test_wrong_arguments(sql, arguments):
    """Broken JSON and missing values are the caller's errors."""
    assert failure(sql, f"CALL SYSTEM$EXECUTE_ML_JOB({arguments})").errno == 939


def test_owner(sql):
    """Snowflake owns the service of a job that it manages; the history of its role has it until it is dropped."""
    job = execute(sql)
    history = f"SELECT * FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY()) WHERE NAME = '{job.rpartition('.')[2]}'"
    described, seen = sql(f"DESCRIBE SERVICE {job}"), sql(history)
    sql(f"DROP SERVICE {job}")

    assert ["SYSTEM$MANAGED"] == [row["owner"] for row in described]
    assert [job] == [f"{row['DATABASE_NAME']}.{row['SCHEMA_NAME']}.{row['NAME']}" for row in seen]
    assert [] == sql(history)
    assert 2003 == failure(sql, f"DESCRIBE SERVICE {job}").errno
