"""Specifications of job services: the reference, refusals, and the text that DESCRIBE shows."""

import pytest
import yaml

from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.spcs.instance_families import FAMILIES
from airflow_provider_mljobs.emulator.spcs.specification import REGISTRY, Resources, parse_specification
from airflow_provider_mljobs.emulator.spcs.specification_template import render

FAMILY = FAMILIES["CPU_X64_S"]


def container(**fields):
    """Return a container with these options."""
    return {"name": "main", "image": "/db/schema/repo/image:1", **fields}


def document(*containers, **spec):
    """Return a specification of these containers."""
    return {"spec": {"containers": list(containers or [container()]), **spec}}


def parse(document):
    """Parse a specification."""
    return parse_specification(yaml.safe_dump(document), FAMILY)


def refusal(document):
    """Parse a specification that is refused; return the error."""
    with pytest.raises(SnowflakeError) as caught:
        parse(document)
    return caught.value


def test_everything_that_the_reference_names_is_accepted():
    """A specification with every option of the reference parses."""
    spec = document(
        container(
            command=["python"],
            args=["-m", "train", "3"],
            env={"EPOCHS": 5, "DEBUG": True},
            readinessProbe={"port": 8080, "path": "/healthz"},
            livenessProbe={"port": 8080, "path": "/live", "periodSeconds": 10, "failureThreshold": 3},
            volumeMounts=[{"name": "scratch", "mountPath": "/scratch"}],
            resources={"requests": {"memory": "1Gi", "cpu": 0.5}, "limits": {"memory": "2G", "cpu": "1500m"}},
            mountSessionToken=True,
            sessionTokenConfig={"path": "/run/token", "permission": "0644", "mountConnectionConfig": False},
            secrets=[{"snowflakeSecret": "db.s.key", "envVarName": "KEY", "secretKeyRef": "secret_string"}],
        ),
        endpoints=[
            {"name": "api", "port": 8000, "public": True},
            {"name": "range", "portRange": "8001-8010", "protocol": "TCP"},
        ],
        volumes=[
            {"name": "scratch", "source": "local"},
            {"name": "shm", "source": "memory", "size": "2Gi"},
            {"name": "disk", "source": "block", "size": "10Gi", "blockConfig": {"iops": 3000, "throughput": 125}},
            {"name": "new", "source": "stage", "stageConfig": {"name": "@db.s.st/p", "metadataCache": "1h30m"}},
            {"name": "owned", "source": "stage", "stageConfig": {"name": "@db.s.st/p"}, "uid": 1000, "gid": 1000},
        ],
        logExporters={"eventTableConfig": {"logLevel": "ERROR"}},
        platformMonitor={"metricConfig": {"groups": ["system", "storage"]}},
    )
    spec["capabilities"] = {"securityContext": {"executeAsCaller": True}}
    spec["serviceRoles"] = [{"name": "reader", "endpoints": ["api"]}]

    specification = parse(spec)

    assert specification.containers[0].args == ("-m", "train", "3")
    assert specification.containers[0].env == {"EPOCHS": "5", "DEBUG": "true"}
    assert specification.has_block_volumes
    assert specification.log_level == "ERROR"


def test_json_is_accepted():
    """JSON is YAML, so clients may send it."""
    text = '{"spec": {"containers": [{"name": "main", "image": "/a/b/c/d:1", "args": ["\\u0024{X}"]}]}}'

    assert parse_specification(text, FAMILY).containers[0].args == ("${X}",)


def test_text_is_normalised_yaml():
    """DESCRIBE shows quoted strings, the image with its registry and digest, and resources filled in."""
    specification = parse(document(container(args=["1"])))

    assert specification.text.startswith('---\nspec:\n  containers:\n  - name: "main"\n')
    described = yaml.safe_load(specification.text)["spec"]["containers"][0]
    assert described["image"] == f"{REGISTRY}/db/schema/repo/image:1"
    assert described["sha256"].startswith("@sha256:")
    assert described["args"] == ["1"]
    assert described["resources"] == {
        "limits": {"memory": "13Gi", "cpu": "3"},
        "requests": {"memory": "0.5Gi", "cpu": "0.5"},
    }


def test_requests_are_summed_over_containers():
    """An instance needs room for all of its containers at once."""
    resources = {"requests": {"memory": "1Gi", "cpu": "500m"}, "limits": {"memory": "1Gi", "cpu": 1}}

    specification = parse(document(container(resources=resources), container(name="two", resources=resources)))

    assert specification.requests() == Resources(1.0, 2 * 2**30, 0)


def test_limits_end_at_the_node():
    """A limit beyond the node is the node's size, and with it the request that Snowflake derives from the limit."""
    resources = {"limits": {"memory": "64Gi", "cpu": 8}}
    described = yaml.safe_load(parse(document(container(resources=resources))).text)["spec"]["containers"][0]

    node = {"memory": "13Gi", "cpu": "3"}
    assert {"limits": node, "requests": node} == described["resources"]


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, Resources(1.0, 1.5 * 2**30, 0)),
        ({"resources": {"limits": {"memory": "2Gi"}}}, Resources(1.0, 1.5 * 2**30, 0)),
        ({"resources": {"requests": {"memory": "0Gi", "cpu": "0"}}}, Resources(1.0, 2**30, 0)),
        ({"resources": {"requests": {"cpu": 0.25}}}, Resources(1.25, 1.5 * 2**30, 0)),
    ],
)
def test_stage_volumes_request_resources(stated, expected):
    """A stage volume requests half a gibibyte for its sidecar unless it states otherwise (using stage volumes)."""
    volume = {"name": "v", "source": "stage", "stageConfig": {"name": "@db.s.st", **stated}}
    resources = {"requests": {"memory": "1Gi", "cpu": "1"}}

    specification = parse(document(container(resources=resources), volumes=[volume, {"name": "w", "source": "local"}]))

    assert expected == specification.requests()
    assert Resources(1.0, 2**30, 0) == specification.container_requests()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"serviceRoles": []}, "unknown option 'serviceRoles' for 'spec'."),
        ({"containers": []}, "'containers' must have at least 1 item(s)."),
        ({"containers": [{"image": "/a/b/c/d"}]}, "missing required option 'name' for 'containers[0]'."),
        ({"containers": [container(foo=1)]}, "unknown option 'foo' for 'containers[0]'."),
        ({"containers": [container(), container()]}, "duplicate name 'main' for 'containers'."),
        ({"endpoints": [{"name": "a", "port": 1, "x": 1}]}, "unknown option 'x' for 'endpoints[0]'."),
        ({"endpoints": [{"name": "a"}]}, "exactly one of 'port' and 'portRange' must be given for 'endpoints[0]'."),
        ({"volumes": [{"name": "v", "source": "memory"}]}, "missing required option 'size' for 'volumes[0]'."),
        ({"volumes": [{"name": "v", "source": "stage"}]}, "missing required option 'stageConfig' for 'volumes[0]'."),
        (
            {"volumes": [{"name": "v", "source": "local", "uid": 1}]},
            "option 'uid' is not supported for source 'local' of 'volumes[0]'.",
        ),
        (
            {"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/x"}])]},
            "invalid value v for 'containers[0].volumeMounts[0].name'. No such volume.",
        ),
        (
            {"containers": [container(resources={"limits": {"memory": 1000000}})]},
            "invalid value 1000000 for 'limits.memory'. Missing unit. Supported units are [G, Gi, M, Mi, T, Ti].",
        ),
        (
            {"containers": [container(resources={"requests": {"nvidia.com/gpu": 1}})]},
            "invalid value 1 for 'requests.nvidia.com/gpu'. The request of GPUs must equal the limit.",
        ),
        (
            {"containers": [container(secrets=[{"snowflakeSecret": "s"}])]},
            "exactly one of 'directoryPath' and 'envVarName' must be given for 'containers[0].secrets[0]'.",
        ),
        ({"containers": [container(name=f"c{n}") for n in range(21)]}, "'containers' has 21 items, the limit is 20."),
    ],
)
def test_invalid_specification_names_the_place(change, message):
    """A fault is refused with 395018, the option and its place."""
    error = refusal(document(**change) if "containers" not in change else {"spec": change})

    assert (error.errno, error.sqlstate) == (395018, "22023")
    assert error.message == f"Invalid spec: {message}"


@pytest.mark.parametrize("name", ["Main", "1st", "a_b", "a-", "a" * 64, ""])
def test_names_are_checked(name):
    """Names of containers are those of DNS labels."""
    assert refusal(document(container(name=name))).errno == 395018


@pytest.mark.parametrize("text", ["", "spec", "[1]", "spec: {", "spec: {containers: 1}"])
def test_other_shapes_are_refused(text):
    """Broken YAML and other shapes are invalid specifications, not internal errors."""
    with pytest.raises(SnowflakeError) as caught:
        parse_specification(text, FAMILY)

    assert caught.value.errno == 395018


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        ("a: {{ tag }}", {"tag": "v1.2"}, "a: v1.2"),
        ("a: {{tag | default('x')}}", {}, "a: x"),
        ('a: {{ tag | default("x", true) }}', {"tag": ""}, "a: x"),
        ("a: {{ tag | default('x') }}", {"tag": ""}, "a: "),
        ("a: {{ list }}", {"list": '["a", "b c"]'}, 'a: ["a", "b c"]'),
    ],
)
def test_templates_render(template, values, expected):
    """A template renders variables, defaults, and JSON as a value."""
    assert render(template, values) == expected


@pytest.mark.parametrize(
    ("template", "values"), [("{{ a }}", {}), ("{{ A }}", {"a": "1"}), ("{{ a }}", {"a": "x y"}), ("{{ 1 + 1 }}", {})]
)
def test_templates_that_do_not_render(template, values):
    """Missing values, values that aren't allowed, and other expressions fail with 395069."""
    with pytest.raises(SnowflakeError) as caught:
        render(template, values)

    assert (caught.value.errno, caught.value.sqlstate) == (395069, "23001")
