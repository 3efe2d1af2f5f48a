import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.spec.refusals import check

MAIN = {"name": "main", "image": "/db/schema/repository/image:1.0"}


def refusal(document, *what):
    """Return the message of the error that a specification is refused with."""
    with pytest.raises(InvalidJobSpecError) as caught:
        check(document, *what)
    return str(caught.value)


def of(**fields):
    """Return a specification whose container has these fields."""
    return {"spec": {"containers": [MAIN | fields]}}


def test_one_problem_is_in_the_same_line():
    """A single problem follows the name of the argument."""
    assert "job.yaml is not valid: spec.containers is missing." == refusal({"spec": {}}, "job.yaml")


def test_all_problems_at_once():
    """One message lists everything that the author has to correct."""
    document = of(imag="x", env={"A": None}) | {"kind": "Job"}

    assert (
        "spec is not valid:\n"
        "- spec.containers[0].env.A must be a string, a number, true or false; got nothing (null).\n"
        "- spec.containers[0].imag is unknown; did you mean image?\n"
        "- kind is unknown; use spec, capabilities, serviceRoles."
    ) == refusal(document)


def test_many_problems_are_counted():
    """The message lists the first twenty problems and counts the others."""
    lines = refusal(of(env={f"A{n}": None for n in range(30)})).splitlines()

    assert 22 == len(lines)
    assert "- … and 10 more" == lines[-1]


@pytest.mark.parametrize("name", ["x" * 90_000, ["x"] * 90_000, {"x": "y" * 90_000}])
def test_messages_are_short(name):
    """The message shows an excerpt of a long value."""
    assert len(refusal(of(name=name))) < 300


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (float("nan"), "must be a string, a number, true or false; got nan."),
        ("\0", "holds a NUL character, which no process accepts. Remove it."),
        ("\udc00", "holds half a surrogate pair, which is no valid text. Remove it."),
        ("x" * 100_001, "has 100001 bytes, more than the limit of 100000. Pass it in a file or on a stage."),
    ],
    ids=["nan", "nul", "surrogate", "long"],
)
def test_values_that_no_process_can_receive(value, problem):
    """A value of the environment is refused if it can't reach the process."""
    assert f"spec is not valid: spec.containers[0].env.A {problem}" == refusal(of(env={"A": value}))


@pytest.mark.parametrize("flag", [0, 1, "true", "false", None])
def test_nothing_is_converted(flag):
    """A flag is true or false, and no number or string that may mean the same."""
    assert "spec.containers[0].mountSessionToken must be true or false, got " in refusal(of(mountSessionToken=flag))


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (of() | {"[key]": 1}, "['[key]'] is unknown; use spec, capabilities, serviceRoles."),
        (of() | {"{got}": 1}, "['{got}'] is unknown; use spec, capabilities, serviceRoles."),
        (of(**{"\ud800": 1}), "spec.containers[0] holds half a surrogate pair, which is no valid text."),
        (of(env={"[key]": 1}), "must be the name of an environment variable, got '[key]'."),
        (of(resources={"limits": {"cpu": "٣"}}), "limits.cpu must be a number of cores, e.g. 0.5 or 500m, got '٣'."),
    ],
    ids=["mark", "braces", "surrogate", "mark in env", "digit"],
)
def test_unusual_keys_and_digits(document, problem):
    """Keys that pydantic or the message could mistake for its own are refused like others."""
    assert problem in refusal(document)
