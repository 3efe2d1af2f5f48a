import copy

import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.spec.specification import is_template, merge, template_variables, validate_using

BASE = {
    "spec": {
        "containers": [
            {
                "name": "main",
                "image": "i:1",
                "args": ["a", "b"],
                "env": {"A": "1", "B": "2"},
                "volumeMounts": [
                    {"name": "stage-volume", "mountPath": "/mnt/job_stage"},
                    {"name": "mine", "mountPath": "/one"},
                    {"name": "mine", "mountPath": "/two"},
                ],
            }
        ],
        "volumes": [{"name": "stage-volume", "source": "@s"}, {"name": "mine", "source": "local"}],
        "endpoints": [{"name": "api", "port": 80}],
    }
}


def raised(call, *args, **kwargs):
    """Return the message of the error that a call raises."""
    with pytest.raises(InvalidJobSpecError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def main_with(**fields):
    """Return overrides of container main."""
    return {"spec": {"containers": [{"name": "main", **fields}]}}


def changed(overrides):
    """Return a specification with overrides, and check that neither of them is changed itself."""
    before = copy.deepcopy((BASE, overrides))
    merged = merge(BASE, overrides, protected=("stage-volume",), required_containers=("main",))

    assert before == (BASE, overrides)
    return merged["spec"]


@pytest.mark.parametrize("overrides", [{}, {"spec": {}}, {"spec": {"containers": [{"name": "main"}]}}])
def test_nothing_changed(overrides):
    """Empty overrides change nothing."""
    assert BASE["spec"] == changed(overrides)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"image": "i:2"}, {"image": "i:2"}),
        ({"env": {"B": "3", "C": "4"}}, {"env": {"A": "1", "B": "3", "C": "4"}}),
        ({"env": {"A": None, "X": None}}, {"env": {"B": "2"}}),
        ({"args": ["c"]}, {"args": ["c"]}),
        ({"args": []}, {"args": []}),
        ({"image": {"name": "i", "tag": None}}, {"image": {"name": "i"}}),
        ({"resources": {"limits": {"cpu": 1, "memory": None}}}, {"resources": {"limits": {"cpu": 1}}}),
        ({"secrets": [{"snowflakeSecret": "s"}]}, {"secrets": [{"snowflakeSecret": "s"}]}),
    ],
    ids=["scalar", "mapping", "removed", "list", "empty list", "scalar replaced", "new mapping", "new list"],
)
def test_containers_are_merged_by_name(fields, expected):
    """Mappings merge by key, other lists are replaced, and None removes a key."""
    assert {**BASE["spec"]["containers"][0], **expected} == changed(main_with(**fields))["containers"][0]


def test_what_is_new_is_added():
    """Items with new names are added."""
    spec = changed(
        {
            "spec": {
                "containers": [{"name": "b", "image": "x", "env": None}],
                "volumes": [{"name": "v"}],
                "endpoints": None,
            }
        }
    )

    assert [*BASE["spec"]["containers"], {"name": "b", "image": "x"}] == spec["containers"]
    assert [*BASE["spec"]["volumes"], {"name": "v"}] == spec["volumes"]
    assert "endpoints" not in spec


def test_a_volume_that_is_mounted_twice():
    """Items that share a name are merged in order."""
    mounts = [{"name": "mine", "mountPath": "/1"}, {"name": "v", "mountPath": "/3"}, {"name": "v", "mountPath": "/4"}]
    (container,) = changed(main_with(volumeMounts=mounts))["containers"]

    assert ["/mnt/job_stage", "/1", "/two", "/3", "/4"] == [each["mountPath"] for each in container["volumeMounts"]]


def test_other_parts_of_a_specification():
    """Overrides can change the parts beside spec."""
    capabilities = {"securityContext": {"executeAsCaller": True}}

    assert BASE | {"capabilities": capabilities} == merge(BASE, {"capabilities": capabilities})


ITS_OWN = "volume stage-volume belongs to the provider and can't be"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "spec_overrides must be a dict in the shape of a specification, got a list."),
        ("spec: {}", "spec_overrides must be a dict in the shape of a specification, got 'spec: {}'."),
        (
            {"containers": [{"name": "main"}]},
            (
                "spec_overrides.containers is unknown: spec_overrides has the shape of a specification, e.g. "
                "{'spec': {'containers': [{'name': 'main', …}]}}."
            ),
        ),
        ({"spec": {1: 2}}, "spec_overrides.spec has the key 1; keys must be strings."),
        (main_with(env={"A": {"b"}}), "spec_overrides.spec.containers[0].env.A is {'b'}, of type set, and"),
        ({"spec": None}, "spec_overrides.spec can't be removed: the job needs main, stage-volume."),
        ({"spec": {"containers": None}}, "spec_overrides.spec.containers can't be removed: the job needs main."),
        ({"spec": {"containers": []}}, "spec_overrides.spec.containers can't be removed: the job needs main."),
        ({"spec": {"volumes": None}}, "spec_overrides.spec.volumes can't be removed: the job needs stage-volume."),
        (
            main_with(volumeMounts=None),
            "spec_overrides.spec.containers[0].volumeMounts can't be removed: the job needs stage-volume.",
        ),
        (
            {"spec": {"volumes": [{"name": "stage-volume", "source": "@other"}]}},
            f"spec_overrides.spec.volumes[0]: {ITS_OWN} changed; choose another name.",
        ),
        (
            main_with(volumeMounts=[{"name": "v"}, {"name": "stage-volume", "mountPath": "/x"}]),
            f"spec_overrides.spec.containers[0].volumeMounts[1]: {ITS_OWN} mounted elsewhere; choose another name.",
        ),
        (
            {"spec": {"containers": [{"name": "b", "volumeMounts": [{"name": "stage-volume"}]}]}},
            f"spec_overrides.spec.containers[0].volumeMounts[0]: {ITS_OWN} mounted elsewhere",
        ),
        (
            {"spec": {"containers": [{"image": "x"}]}},
            "spec_overrides.spec.containers[0] needs a name to be merged by; the specification has main.",
        ),
        (
            {"spec": {"containers": {"main": {"image": "x"}}}},
            "spec_overrides.spec.containers must be a list, as it is in the specification; got a mapping.",
        ),
        (
            main_with(env="A=1"),
            "spec_overrides.spec.containers[0].env must be a mapping, as it is in the specification;",
        ),
    ],
)
def test_overrides_that_are_refused(overrides, message):
    """The message about an invalid override has its path in the overrides."""
    assert message in raised(merge, BASE, overrides, protected=("stage-volume",), required_containers=("main",))


def test_nothing_is_protected_unless_said():
    """Without protected volumes, overrides can remove everything."""
    assert {"spec": {}} == merge(BASE, {"spec": dict.fromkeys(BASE["spec"])})


@pytest.mark.parametrize(
    ("text", "expected", "variables"),
    [
        ("image: i:1", False, ()),
        ("env: {A: {B: 1}}", False, ()),
        ("image: {{ image }}:{{tag}}", True, ("image", "tag")),
        ("a: {{- a -}}", True, ("a",)),
        ("{{ b }} {{ a }} {{ b }} {{ B }}", True, ("b", "a", "B")),
        ("{{ a | default('x') }}", True, ()),
        ("{{ a | upper | default('x', true) }}", True, ()),
        ("{{ a | upper }}", True, ("a",)),
        ("{{ 'text' }} {{ 3 }} {{ secret.name.secret_string }}", True, ()),
        ("{% for x in xs %}{{ x }}{% endfor %}", True, ()),
        ("{% set x = 1 %}{{ x }}{{ y }}", True, ("y",)),
    ],
)
def test_templates(text, expected, variables):
    """A variable without a default needs a value."""
    assert expected == is_template(text)
    assert variables == template_variables(text)


def test_values_for_templates():
    """A value for a template is alphanumeric or JSON."""
    validate_using({})
    validate_using({"tag": "latest", "n": 3, "share": 0.5, "on": True, "args": ["a b", 1], "env": {"A": "é"}})
    validate_using({"image": '"/db/schema/repository/image:1.0"', "number": "1.5", "args": '["a"]'})
    validate_using(
        {"tag": "v1", "xs": [1]}, template="{{ tag }}{% for x in xs %}{{ x }}{% endfor %}{{ n | default(1) }}"
    )


@pytest.mark.parametrize(
    ("using", "message"),
    [
        ("tag=latest", "using must map names of variables to values, got 'tag=latest'."),
        ({1: "a"}, "1 in using can't be the name of a variable: use letters, digits and '_', a letter first."),
        ({"a-b": "a"}, "'a-b' in using can't be the name of a variable: use letters, digits and '_', a letter first."),
        (
            {"image": "/db/s/r/i:1"},
            (
                "using['image'] '/db/s/r/i:1' is neither alphanumeric nor JSON, as Snowflake's templates require; "
                "write it as a JSON string, e.g. '\"/db/schema/repository/image:1.0\"'."
            ),
        ),
        ({"a": ""}, "using['a'] '' is neither alphanumeric nor JSON"),
        ({"a": "[" * 90_000}, "is neither alphanumeric nor JSON"),
        ({"a": "\0"}, "using['a'] holds a NUL character"),
        ({"a": ["\ud800"]}, "using['a'] holds half a surrogate pair"),
        ({"a": {"b": {1}}}, "using['a'].b is {1}, of type set"),
        ({"a": float("nan")}, "using['a'] is nan, of type float"),
    ],
    ids=["text", "no text", "name", "path", "empty", "deep", "nul", "surrogate", "set", "nan"],
)
def test_values_that_templates_do_not_take(using, message):
    """The message about an invalid value names its variable."""
    assert message in raised(validate_using, using)


def test_values_are_held_against_the_template():
    """A variable without a value is refused, and a value without a variable."""
    template = "{{ image }} {{ tag | default('latest') }}"

    assert "using has no value for image, which the template needs." == raised(validate_using, {}, template=template)
    assert ("using has a value for Tag, which the template doesn't have; names are case-sensitive.") == raised(
        validate_using, {"image": "x", "Tag": "y"}, template=template
    )
