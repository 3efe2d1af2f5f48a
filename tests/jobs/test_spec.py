import dataclasses
import json

import pytest
import yaml

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.identifiers import Identifier, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.payload import Payload
from airflow_provider_mljobs.jobs.spec import Resources, Runtime, render, validate_env_vars

PAYLOAD = Payload(archive=b"", arguments='["--depth","3"]')
DB, ML, JOB = Identifier("DB"), Identifier("ML"), Identifier("JOB")


def test_specification(spec, runtime):
    """A job is one container of the ML runtime that takes the whole node and starts the archive on the stage."""
    limits = {"cpu": "3000m", "memory": "13Gi"}

    assert {
        "spec": {
            "containers": [
                {
                    "name": "main",
                    "image": "/snowflake/images/snowbooks:1.2",
                    "command": ["/usr/local/bin/_entrypoint.sh"],
                    "args": ["python", "/mnt/job_stage/payload.pyz"],
                    "env": {
                        "MODE": "fast",
                        "MLRS_STAGE_MOUNT_PATH": "/mnt/job_stage",
                        "MLRS_STAGE_RESULT_PATH": "/mnt/job_stage",
                        "MLRS_RESULT_PATH": "output/mljob_result",
                        "MLJOBS_ARGS": '["--depth","3"]',
                    },
                    "resources": {"requests": limits, "limits": limits},
                    "volumeMounts": [
                        {"name": "dshm", "mountPath": "/dev/shm"},
                        {"name": "stage-volume", "mountPath": "/mnt/job_stage"},
                    ],
                }
            ],
            "volumes": [
                {"name": "dshm", "source": "memory", "size": "4Gi"},
                {
                    "name": "stage-volume",
                    "source": "stage",
                    "stageConfig": {"name": "@DB.ML.PAYLOADS/MLJOB_TRAIN_1"},
                },
            ],
        }
    } == spec(env_vars={"MODE": "fast"}).specification(PAYLOAD, runtime)


def test_gpus_are_asked_for_where_the_node_has_some(spec):
    """A GPU node's GPUs are requested, as a node without them could not start otherwise."""
    runtime = Runtime(image="i", resources=Resources(cpu=6, memory_gib=28, gpu=1))
    (container,) = spec().specification(PAYLOAD, runtime)["spec"]["containers"]

    assert {"cpu": "6000m", "memory": "28Gi", "nvidia.com/gpu": 1} == container["resources"]["limits"]


def test_rendered_specification_is_yaml_without_dollars(spec, runtime):
    """The text fits into $$ … $$ whatever the job is given, and reads back as the same specification."""
    directory = StagePath.parse('@"größe $$"/$$ a', "stage_name", DB, ML)
    job = spec(directory=directory, env_vars={"A": "$$", "B": "$(HOME)", "C": "a\nb\u2028\x85🚀", "D": "\\\"'"})
    specification = job.specification(PAYLOAD, runtime)
    text = render(specification)

    assert "$" not in text
    assert text.isascii()
    assert specification == yaml.safe_load(text)


def test_unusual_variables_travel_encoded(spec, runtime):
    """Plain variables are where everybody looks for them; the others go through one that nothing can expand."""
    job = spec(env_vars={"PLAIN": "a b", "NOT": "$(HOME)"})
    env = job.specification(PAYLOAD, runtime)["spec"]["containers"][0]["env"]

    assert "a b" == env["PLAIN"]
    assert "NOT" not in env
    assert {"NOT": "$(HOME)"} == json.loads(env["MLJOBS_ENV"])


def test_specs_are_frozen(spec):
    """A spec is a value."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec().target_instances = 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": QualifiedName(DB, Identifier("ml"), JOB)}, 'A job can\'t be called DB."ml".JOB'),
        ({"compute_pool": Identifier("my pool")}, 'compute_pool "my pool" can\'t be a pool'),
        ({"directory": StagePath(QualifiedName(DB, ML, JOB), "🚀")}, "no emoji in stage paths"),
        ({"target_instances": 0}, "target_instances must be a whole number from 1 on, got 0."),
        ({"target_instances": True}, "target_instances must be a whole number from 1 on, got True."),
        ({"target_instances": 1.0}, "target_instances must be a whole number from 1 on, got 1.0."),
        ({"target_instances": 2}, "target_instances=2 is not supported yet"),
        ({"env_vars": {"A": "\0"}}, "env_vars['A'] holds a NUL character"),
    ],
)
def test_what_can_not_run_is_refused(spec, fields, message):
    """Nothing is sent that Snowflake would refuse, or would run wrongly."""
    with pytest.raises(InvalidJobSpecError) as caught:
        spec(**fields)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("env_vars", "message"),
    [
        ("A=1", "env_vars must map names to text, got 'A=1'."),
        ({"": "1"}, "'' in env_vars can't be the name of an environment variable."),
        ({"1A": "1"}, "'1A' in env_vars can't be the name of an environment variable."),
        ({"A=": "1"}, "'A=' in env_vars can't be the name of an environment variable."),
        ({1: "1"}, "1 in env_vars can't be the name of an environment variable."),
        ({"MLRS_RESULT_PATH": "x"}, "'MLRS_RESULT_PATH' in env_vars is set by the platform or by this provider"),
        ({"MLJOBS_ENV": "x"}, "'MLJOBS_ENV' in env_vars is set by"),
        ({"SNOWFLAKE_HOST": "x"}, "'SNOWFLAKE_HOST' in env_vars is set by"),
        ({"A": 1}, "env_vars['A'] is of type int; write it as a string."),
        ({"A": "\ud800"}, "env_vars['A'] holds half a surrogate pair"),
        ({f"V{n}": "x" * 90_000 for n in range(6)}, "env_vars have 540018 bytes together, more than the 500000"),
        ({"A": "é" * 9_000, "B": "é" * 9_000}, "env_vars, with what isn't plain ASCII in it written as JSON, has 108"),
    ],
)
def test_env_vars_that_no_process_can_have_are_refused(env_vars, message):
    """Each message names the variable."""
    with pytest.raises(InvalidJobSpecError) as caught:
        validate_env_vars(env_vars)

    assert str(caught.value).startswith(message)


def test_other_variables_of_snowflake_are_allowed():
    """Only what the platform itself sets is refused."""
    validate_env_vars({"SNOWFLAKE_HOME": "/tmp", "A.b-c_1": ""})


def test_a_runtime_has_an_image():
    """What only Snowflake's own way of submitting can resolve is refused before anything is uploaded."""
    with pytest.raises(InvalidJobSpecError, match="'cre@abc', which is no image"):
        Runtime(image="cre@abc", resources=Resources(cpu=1, memory_gib=6))
