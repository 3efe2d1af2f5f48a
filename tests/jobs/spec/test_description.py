"""Specifications as DESCRIBE SERVICE shows them: the parts that are needed, or one error."""

import pytest
import yaml

from airflow_provider_mljobs.exceptions import UnreadableError
from airflow_provider_mljobs.jobs.spec.description import Description
from tests.jobs.test_untrusted import LAUGHS

SPEC = {
    "containers": [{"name": "main", "image": "/a/b/c/d:1", "env": {"A": "1"}}, {"name": "second", "env": None}],
    "volumes": [
        {"name": "result", "source": "stage", "stageConfig": {"name": "@db.ml.payloads/x"}},
        {"name": "cache", "source": "block", "size": "10Gi"},
    ],
    "platformMonitor": {"metricConfig": {"groups": ["system"]}},
}


def text(**parts):
    """Write a specification with other parts."""
    return yaml.safe_dump({"spec": SPEC | parts})


def test_the_parts_of_a_specification():
    """A description has the containers, their variables, the places of volumes and the groups of metrics."""
    assert (
        Description(
            containers=("main", "second"),
            environment={"A": "1"},
            volumes={"result": "@db.ml.payloads/x", "cache": "block"},
            metric_groups=("system",),
        )
        == Description.parse(text())
    )  # fmt: skip


@pytest.mark.parametrize("missing", [None, {}, []], ids=str)
def test_parts_that_are_missing(missing):
    """A specification needs only containers; an empty part counts as absent."""
    description = Description.parse(text(volumes=missing, platformMonitor=missing))

    assert ({}, ()) == (description.volumes, description.metric_groups)


@pytest.mark.parametrize("unseen", [None, ""], ids=repr)
def test_a_role_that_is_not_the_owner(unseen):
    """A role that doesn't own the job gets no description."""
    assert Description.parse(unseen) is None


@pytest.mark.parametrize(
    "hostile",
    [
        "spec: 3",
        "spec: {}",
        "- spec",
        text(containers=3),
        text(containers=[3]),
        text(containers=[{"image": "x"}]),
        text(containers=[{"name": "main", "env": ["A"]}]),
        text(volumes=[3]),
        text(volumes=[{"name": "x", "source": "stage"}]),
        text(platformMonitor=[1]),
        LAUGHS,
        "[" * 5000,
        "a: &a {<<: *a}",
        "!!python/object/apply:os.system [id]",
    ],
    ids=[
        *("spec is a number", "empty spec", "list", "containers are a number", "a container is a number"),
        *("container without a name", "variables are a list", "a volume is a number", "stage without a place"),
        *("monitor is a list", "aliases", "deep", "merges itself", "tag"),
    ],
)
def test_specifications_of_another_shape(hostile):
    """A specification in any other shape raises one error with the reason."""
    with pytest.raises(UnreadableError, match=r"^The specification can't be read"):
        Description.parse(hostile)
