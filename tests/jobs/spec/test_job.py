import dataclasses
import json

import pytest
import yaml

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.spec.job import (
    Resources,
    Runtime,
    is_managed,
    validate_artifact_repositories,
    validate_env_vars,
    validate_instances,
    validate_log_level,
    validate_runtime_environment,
)
from airflow_provider_mljobs.jobs.spec.rendering import (
    ml_job_options,
    render,
    specification,
    unsupported_overrides,
    validate_overrides,
)
from airflow_provider_mljobs.jobs.values.arguments import Arguments

ARGUMENTS = Arguments.of_script(["--depth", 3])
DB, ML, JOB = Identifier("DB"), Identifier("ML"), Identifier("JOB")


def document(job, runtime):
    """Build the specification of a job."""
    return specification(job, job.stage / "payload_1", ARGUMENTS, runtime)


def test_specification(spec, runtime):
    """A job is one container of the ML runtime that takes the whole node and starts the archive on the stage."""
    resources = {
        "requests": {"memory": "11980Mi", "cpu": "3000m"},
        "limits": {"cpu": "3000m", "memory": "13Gi"},
    }

    assert {
        "spec": {
            "containers": [
                {
                    "name": "main",
                    "image": "/snowflake/images/snowflake_images/snowbooks:1.2",
                    "command": ["/bin/sh"],
                    "args": ["/mnt/job_stage/payload.pyz"],
                    "env": {
                        "MODE": "fast",
                        "MLRS_STAGE_MOUNT_PATH": "/mnt/job_stage",
                        "MLRS_STAGE_RESULT_PATH": "/mnt/job_result",
                        "MLRS_RESULT_PATH": "output/mljob_result",
                        "MLJOBS_ARGS": '["--depth","3"]',
                    },
                    "resources": resources,
                    "volumeMounts": [
                        {"name": "dshm", "mountPath": "/dev/shm"},
                        {"name": "stage-volume", "mountPath": "/mnt/job_stage"},
                        {"name": "result-volume", "mountPath": "/mnt/job_result"},
                    ],
                }
            ],
            "volumes": [
                {"name": "dshm", "source": "memory", "size": "4Gi"},
                {
                    "name": "stage-volume",
                    "source": "stage",
                    "stageConfig": {
                        "name": "@DB.ML.PAYLOADS/payload_1",
                        "resources": {"requests": {"memory": "0Gi", "cpu": "0"}},
                    },
                },
                {
                    "name": "result-volume",
                    "source": "stage",
                    "stageConfig": {
                        "name": "@DB.ML.PAYLOADS/payload_1/MLJOB_TRAIN_1",
                        "resources": {"requests": {"memory": "0Gi", "cpu": "0"}},
                    },
                },
            ],
            "platformMonitor": {
                "metricConfig": {"groups": ["system", "system_limits", "status", "network", "storage"]}
            },
        }
    } == document(spec(env_vars={"MODE": "fast"}), runtime)


def test_the_first_instance_starts_first(spec, runtime):
    """Several instances start after the first one, to which they connect; a single one needs no order."""
    order = {"controlPolicy": {"startupOrder": {"type": "FirstInstance"}}}

    assert order == document(spec(target_instances=2), runtime)["spec"]["resourceManagement"]
    assert "resourceManagement" not in document(spec(), runtime)["spec"]


def test_gpus_are_asked_for_where_the_node_has_some(spec):
    """A GPU node's GPUs are requested, as a node without them could not start otherwise."""
    runtime = Runtime(image="/a/b/c/d:1", resources=Resources(cpu=6, memory_gib=28, gpu=1))
    (container,) = document(spec(), runtime)["spec"]["containers"]

    assert {"cpu": "6000m", "memory": "28Gi", "nvidia.com/gpu": 1} == container["resources"]["limits"]


def test_rendered_specification_is_yaml_without_dollars(spec, runtime):
    """The rendered text fits into $$ … $$ and reads back as the same specification."""
    stage = StagePath.parse('@"größe $$"/$$ a', "stage_name", Namespace(DB, ML))
    job = spec(stage=stage, env_vars={"A": "$$", "B": "$(HOME)", "C": "a\nb\u2028\x85🚀", "D": "\\\"'"})
    built = document(job, runtime)
    text = render(built)

    assert "$" not in text
    assert text.isascii()
    assert built == yaml.safe_load(text)


def test_unusual_variables_travel_encoded(spec, runtime):
    """Plain variables are in env; the others travel in one variable that nothing can expand."""
    job = spec(env_vars={"PLAIN": "a b", "NOT": "$(HOME)"})
    env = document(job, runtime)["spec"]["containers"][0]["env"]

    assert "a b" == env["PLAIN"]
    assert "NOT" not in env
    assert {"NOT": "$(HOME)"} == json.loads(env["MLJOBS_ENV"])


@pytest.mark.parametrize(("ray", "expected"), [(True, "1"), (False, "0"), (None, None)])
def test_ray_of_one_instance(spec, runtime, ray, expected):
    """The choice of Ray travels to the job; without one the payload's imports decide there."""
    env = document(spec(ray=ray), runtime)["spec"]["containers"][0]["env"]

    assert expected == env.get("MLJOBS_RAY")


def test_specs_are_frozen(spec):
    """A spec is a value."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec().target_instances = 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": QualifiedName(DB, Identifier("ml"), JOB)}, 'A job can\'t have the name DB."ml".JOB'),
        ({"compute_pool": Identifier("my pool")}, 'compute_pool "my pool" isn\'t valid'),
        ({"stage": StagePath(QualifiedName(DB, ML, JOB), "🚀")}, "use a path without emoji"),
        ({"target_instances": 0}, "target_instances must be a whole number of at least 1, got 0."),
        ({"ray": True, "parallel": True}, "ray=True is for one entrypoint"),
        ({"ray": False, "target_instances": 2}, "ray=False, but Ray connects the instances of target_instances=2"),
        ({"target_instances": True}, "target_instances must be a whole number of at least 1, got True."),
        ({"target_instances": 1.0}, "target_instances must be a whole number of at least 1, got 1.0."),
        ({"min_instances": 0}, "min_instances must be a whole number of at least 1, got 0."),
        ({"target_instances": 2, "min_instances": 3}, "min_instances=3 is more than target_instances=2"),
        ({"compute_pool": Identifier("SYSTEM_COMPUTE_POOL_CPU")}, "which runs only managed ML jobs"),
        ({"artifact_repositories": ["r"]}, "artifact_repositories needs a managed job"),
        ({"managed": True, "volumes": [{}], "log_level": "INFO"}, "volumes and log_level can't be given to a managed"),
        ({"comment": "\0"}, "comment holds a NUL character"),
        ({"query_tag": "\ud800"}, "query_tag holds half a surrogate pair"),
        ({"query_tag": "x" * 2001}, "query_tag has 2001 characters; Snowflake accepts 2000."),
        ({"env_vars": {"A": "\0"}}, "env_vars['A'] holds a NUL character"),
    ],
)
def test_what_can_not_run_is_refused(spec, fields, message):
    """A job that Snowflake would refuse or run wrongly is refused before it is submitted."""
    with pytest.raises(InvalidJobSpecError) as caught:
        spec(**fields)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("env_vars", "message"),
    [
        ("A=secret", "env_vars must map names to text, got a value of type str."),
        ({"": "1"}, "'' in env_vars can't be the name of an environment variable."),
        ({"1A": "1"}, "'1A' in env_vars can't be the name of an environment variable."),
        ({"A=": "1"}, "'A=' in env_vars can't be the name of an environment variable."),
        ({1: "1"}, "1 in env_vars can't be the name of an environment variable."),
        ({"MLRS_RESULT_PATH": "x"}, "'MLRS_RESULT_PATH' in env_vars is set by Snowflake or by the provider"),
        ({"MLJOBS_ENV": "x"}, "'MLJOBS_ENV' in env_vars is set by"),
        ({"SNOWFLAKE_HOST": "x"}, "'SNOWFLAKE_HOST' in env_vars is set by"),
        ({"A": 1}, "env_vars['A'] is of type int; write it as a string."),
        ({"A": "\ud800"}, "env_vars['A'] holds half a surrogate pair"),
        ({f"V{n}": "x" * 90_000 for n in range(6)}, "env_vars have 540018 bytes together, more than the 500000"),
        ({"A": "é" * 9_000, "B": "é" * 9_000}, "env_vars, with what isn't plain ASCII in it written as JSON, has 108"),
    ],
)
def test_env_vars_that_no_process_can_have_are_refused(env_vars, message):
    """The message about an invalid variable names it."""
    with pytest.raises(InvalidJobSpecError) as caught:
        validate_env_vars(env_vars)

    assert str(caught.value).startswith(message)


def test_other_variables_of_snowflake_are_allowed():
    """Only variables that the platform sets are refused."""
    validate_env_vars({"SNOWFLAKE_HOME": "/tmp", "A.b-c_1": "", "MLRS_INSTANCES_TIMEOUT": "60"})


@pytest.mark.parametrize(
    ("validate", "value", "message"),
    [
        (validate_runtime_environment, "a b", "runtime_environment 'a b' is neither a version"),
        (validate_runtime_environment, 2.9, "runtime_environment 2.9 is neither a version"),
        (validate_log_level, "DEBUG", "log_level must be one of INFO, ERROR, NONE; got 'DEBUG'."),
        (validate_artifact_repositories, "r", "artifact_repositories must be a list of names"),
        (validate_artifact_repositories, [1], "artifact_repositories must be a list of names"),
        (validate_instances, "2", "target_instances must be a whole number of at least 1, got '2'."),
        (validate_overrides, [], "spec_overrides must be a dict in the shape of a specification, got []."),
        (
            validate_overrides,
            {"spec": {"volumes": [{"name": "stage-volume", "source": "local"}]}},
            "spec_overrides.spec.volumes[0]",
        ),
        (validate_overrides, {"spec": {"containers": None}}, "spec_overrides.spec.containers"),
        (validate_overrides, {"containers": []}, "spec_overrides"),
    ],
)
def test_other_arguments_are_checked(validate, value, message):
    """The message names the argument and its valid values."""
    with pytest.raises(InvalidJobSpecError) as caught:
        validate(value)

    assert message in str(caught.value)


def test_opaque_runtimes_are_for_managed_jobs(spec):
    """An image that only Snowflake can resolve is refused before a statement is sent."""
    runtime = Runtime(image="cre@abc", resources=Resources(cpu=1, memory_gib=6))

    with pytest.raises(InvalidJobSpecError, match="only 'cre@abc': set managed=True"):
        document(spec(), runtime)


@pytest.mark.parametrize(
    ("pool", "managed", "repositories", "expected"),
    [
        ("ML_POOL", None, (), False),
        ("ML_POOL", True, (), True),
        ("ML_POOL", None, ("r",), True),
        ("SYSTEM_COMPUTE_POOL_GPU", None, (), True),
        ("SYSTEM_COMPUTE_POOL_GPU", False, (), False),
    ],
)
def test_the_way_to_submit(pool, managed, repositories, expected):
    """The caller decides, or else the pool and the features do."""
    assert expected is is_managed(Identifier(pool), managed=managed, artifact_repositories=repositories)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, []),
        ({"spec": {"containers": [{"name": "main", "secrets": []}]}}, []),
        ({"spec": {"containers": [{"name": "main", "env": {}, "image": "i"}, {"name": "main", "args": []}]}},
         ["spec.containers[].args", "spec.containers[].env", "spec.containers[].image"]),
        ({"spec": {"volumes": [], "endpoints": []}}, ["spec.endpoints", "spec.volumes"]),
        ({"capabilities": {}, "spec": None}, ["capabilities"]),
    ],
)  # fmt: skip
def test_overrides_that_managed_jobs_need_not_have(overrides, expected):
    """Snowflake promises nothing about the overrides of managed jobs but secrets."""
    assert expected == unsupported_overrides(overrides)


def test_options_of_a_managed_job(spec):
    """Snowflake writes the specification; command, environment and secrets are the same."""
    job = spec(
        managed=True,
        target_instances=3,
        min_instances=2,
        secrets=[{"snowflakeSecret": "DB.ML.KEY", "envVarName": "KEY", "secretKeyRef": "secret_string"}],
        artifact_repositories=["repository"],
        query_warehouse=Identifier("WH"),
        comment="who",
    )
    options, job_options = ml_job_options(job, job.stage / "payload_1", ARGUMENTS, "image:1")

    assert "@DB.ML.PAYLOADS/payload_1" == options["STAGE_PATH"]
    assert ["python", "/mnt/job_stage/payload.pyz"] == options["ARGS"]
    assert {"MLJOBS_ARGS": '["--depth","3"]', "MLRS_MIN_INSTANCES": "2"}.items() <= options["ENV_VARS"].items()
    assert [{"name": "main", "secrets": list(job.secrets)}] == options["SPEC_OVERRIDES"]["spec"]["containers"]
    assert ("image:1", ["repository"]) == (options["RUNTIME"], options["ARTIFACT_REPOSITORIES"])
    assert {
        "EXTERNAL_ACCESS_INTEGRATIONS": [],
        "QUERY_WAREHOUSE": "WH",
        "TARGET_INSTANCES": 3,
        "MIN_INSTANCES": 2,
        "COMMENT": "who",
        "GENERATE_SUFFIX": False,
        "ASYNC": True,
    } == job_options


def test_instances_reach_each_other(spec, runtime):
    """Instances have endpoints for the ports that the ML runtime uses for Ray."""
    built = document(spec(target_instances=2), runtime)["spec"]
    ports = {endpoint["name"]: endpoint.get("port") or endpoint["portRange"] for endpoint in built["endpoints"]}

    assert (12001, "12031-13000") == (ports["ray-gcs"], ports["ray-worker-ports"])
    assert "2" == built["containers"][0]["env"]["MLRS_MIN_INSTANCES"]


def test_the_ports_of_instances_are_not_the_users(spec, runtime):
    """A variable that the instances need for their ports is refused."""
    with pytest.raises(InvalidJobSpecError, match="HEAD_GCS_PORT in env_vars sets the ports of the instances"):
        document(spec(target_instances=2, env_vars={"HEAD_GCS_PORT": "1"}), runtime)


def test_overrides_are_merged_by_name(spec, runtime):
    """Overrides merge lists of named items by name, and None removes a key."""
    overrides = {
        "spec": {
            "containers": [
                {"name": "main", "env": {"MORE": "1"}},
                {"name": "sidecar", "image": "/a/b/c/d:1"},
            ],
            "platformMonitor": None,
        }
    }
    built = document(spec(spec_overrides=overrides), runtime)["spec"]

    assert ["main", "sidecar"] == [container["name"] for container in built["containers"]]
    assert "1" == built["containers"][0]["env"]["MORE"]
    assert "platformMonitor" not in built
