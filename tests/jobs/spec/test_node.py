"""The requests of a job, compared with a node."""

import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.spec.job import Resources, Runtime
from airflow_provider_mljobs.jobs.spec.node import check_fit, requests_gpus
from airflow_provider_mljobs.jobs.spec.rendering import specification
from airflow_provider_mljobs.jobs.values.arguments import Arguments

SMALL = Resources(cpu=3, memory_gib=13, family="CPU_X64_S")
IMAGE = "/snowflake/images/snowflake_images/x:1"


def volume(name, **requests):
    """A stage volume, with or without requests of its own."""
    resources = {"resources": {"requests": requests}} if requests else {}
    return {"name": name, "source": "stage", "stageConfig": {"name": "@db.s.data", **resources}}


def built(spec, runtime=None, **fields):
    """Build the specification of a task's job, on a small node or a given one."""
    job = spec(**fields)
    runtime = runtime or Runtime(image=IMAGE, resources=SMALL)
    return specification(job, job.stage / "payload_1", Arguments.of_script(()), runtime)


def requests(document):
    """Return the requests of the first container."""
    return document["spec"]["containers"][0]["resources"]["requests"]


@pytest.mark.parametrize(
    ("margin", "volumes", "expected"),
    [
        (0, [], {"memory": "13312Mi", "cpu": "3000m"}),
        (0.1, [], {"memory": "11980Mi", "cpu": "3000m"}),
        (0, [volume("data")], {"memory": "12800Mi", "cpu": "3000m"}),
        (0.1, [volume("data"), volume("more")], {"memory": "10956Mi", "cpu": "3000m"}),
        (0, [volume("data", memory="2Gi", cpu=0.35)], {"memory": "11264Mi", "cpu": "2650m"}),
        (0, [volume("data", memory="0Gi", cpu="0")], {"memory": "13312Mi", "cpu": "3000m"}),
        (0, [{"name": "cache", "source": "memory", "size": "4Gi"}], {"memory": "13312Mi", "cpu": "3000m"}),
        (0.1, [volume(f"data-{number}", memory="700Mi") for number in range(17)], {"memory": "512Mi", "cpu": "3000m"}),
    ],
)
def test_the_container_requests_what_its_volumes_leave(spec, margin, volumes, expected):
    """The job's container requests the rest of the node, at least half a gibibyte; its limit is the whole node."""
    document = built(spec, node_memory_margin=margin, volumes=volumes)

    assert expected == requests(document)
    assert {"memory": "13Gi", "cpu": "3000m"} == document["spec"]["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"requests": {"memory": "2Gi"}}, {"memory": "2Gi", "cpu": "3000m"}),
        ({"limits": {"memory": "4Gi", "cpu": "1"}}, {"memory": "4096Mi", "cpu": "1000m"}),
        ({"requests": {"cpu": 1}, "limits": {"memory": None}}, {"memory": "11980Mi", "cpu": 1}),
    ],
)
def test_overrides_decide(spec, resources, expected):
    """Requests in spec_overrides are the author's, and no request exceeds a limit there."""
    overrides = {"spec": {"containers": [{"name": "main", "resources": resources}]}}

    assert expected == requests(built(spec, spec_overrides=overrides))


def test_other_containers_get_their_part(spec):
    """A container that spec_overrides add has room beside the job's own."""
    helper = {"name": "helper", "image": IMAGE, "resources": {"requests": {"memory": "3Gi", "cpu": 1}}}
    document = built(spec, node_memory_margin=0, spec_overrides={"spec": {"containers": [helper]}})

    assert {"memory": "10240Mi", "cpu": "2000m"} == requests(document)
    check_fit(document, "ML_POOL", SMALL)


def test_backup_families(spec):
    """A job requests what the smallest node of a pool has, and may use what the pool's own family has."""
    large = Resources(cpu=44, memory_gib=178, gpu=4)
    runtime = Runtime(image=IMAGE, resources=large, smallest=Resources(cpu=6, memory_gib=28, gpu=1))
    resources = built(spec, runtime, node_memory_margin=0)["spec"]["containers"][0]["resources"]

    assert {"nvidia.com/gpu": 1, "memory": "28672Mi", "cpu": "6000m"} == resources["requests"]
    assert {"cpu": "44000m", "memory": "178Gi", "nvidia.com/gpu": 1} == resources["limits"]


@pytest.mark.parametrize(
    ("container", "volumes", "message"),
    [
        (
            {"requests": {"memory": "13Gi"}},
            [volume("data"), volume("more", memory="1Gi")],
            (
                "The job requests 14.5 GiB of memory (main 13, stage volume more 1, stage volume data 0.5), but a node "
                "of compute pool ML_POOL (CPU_X64_S) has 13. Lower resources.requests of containers, or of stage "
                "volumes in stageConfig; or choose a pool of a larger instance family."
            ),
        ),
        ({"requests": {"cpu": "2500m"}}, [volume("data", cpu=0.6)], "requests 3.1 CPUs"),
        (
            {"requests": {"nvidia.com/gpu": 2}, "limits": {"nvidia.com/gpu": 2}},
            [],
            "requests 2 GPUs (main 2), but a node of compute pool ML_POOL (CPU_X64_S) has 0.",
        ),
        (
            {"requests": {"memory": "2Gi"}},
            [volume(f"v-{number}", memory="1Gi") for number in range(12)],
            (
                "requests 14 GiB of memory (main 2, stage volume v-0 1, stage volume v-1 1, stage volume v-2 1, stage "
                "volume v-3 1, 8 more 8), but"
            ),
        ),
    ],
    ids=["memory", "CPU", "GPU", "many"],
)
def test_jobs_that_fit_no_node_are_refused(container, volumes, message):
    """A specification whose containers and stage volumes exceed a node is refused with the numbers."""
    document = {"spec": {"containers": [{"name": "main", "image": IMAGE, "resources": container}], "volumes": volumes}}

    with pytest.raises(InvalidJobSpecError) as refusal:
        check_fit(document, "ML_POOL", SMALL)

    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "resources",
    [None, {}, {"limits": {"memory": "64Gi", "cpu": 8}}, {"requests": {"memory": "12.5Gi", "cpu": "3"}}],
)
def test_jobs_that_may_fit_are_not_refused(resources):
    """Unstated requests are those that Snowflake derives; a limit without a request refuses no job."""
    container = {"name": "main", "image": IMAGE} | ({} if resources is None else {"resources": resources})

    check_fit({"spec": {"containers": [container], "volumes": [volume("data")]}}, "ML_POOL", SMALL)
    assert not requests_gpus({"spec": {"containers": [container]}})


@pytest.mark.parametrize("margin", [-0.1, 1, 10])
def test_margins_that_make_no_sense_are_refused(spec, margin):
    """A margin is a share of the node."""
    with pytest.raises(InvalidJobSpecError, match="node_memory_margin must be from 0 to less than 1"):
        spec(node_memory_margin=margin)
