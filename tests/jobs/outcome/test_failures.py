import itertools

import pytest

from airflow_provider_mljobs import exceptions
from airflow_provider_mljobs.jobs.outcome.failures import (
    KINDS,
    ContainerEnd,
    Diagnosis,
    Failure,
    Retry,
    diagnose,
    diagnose_wait,
)
from airflow_provider_mljobs.jobs.outcome.results import JobResult
from airflow_provider_mljobs.jobs.outcome.status import JobStatus

OOM = "Container was OOMKilled due to resource usage"
FATAL = "Encountered fatal error while running, check container logs"
USER = "User application error, check container logs"
PULL = "Failed to pull image"
ROOM = "Unschedulable due to insufficient resources"
RAISED = JobResult(success=False, remote_type="builtins.ValueError", message="no rows", exit_code=1)


def failed(exit_code=None, message=FATAL, instance=0, status="FAILED"):
    """Build a container that failed."""
    return ContainerEnd(instance=instance, name="main", status=status, message=message, exit_code=exit_code)


@pytest.mark.parametrize(
    ("status", "container", "expected"),
    [
        (JobStatus.FAILED, failed(137, OOM), (Failure.OUT_OF_MEMORY, 137)),
        (JobStatus.FAILED, failed(None, OOM), (Failure.OUT_OF_MEMORY, None)),
        (JobStatus.FAILED, failed(1, OOM), (Failure.OUT_OF_MEMORY, 1)),
        (JobStatus.INTERNAL_ERROR, failed(137, OOM), (Failure.OUT_OF_MEMORY, 137)),
        (JobStatus.FAILED, failed(137), (Failure.KILLED, 137)),
        (JobStatus.FAILED, failed(143, USER), (Failure.KILLED, 143)),
        (JobStatus.FAILED, failed(3), (Failure.EXIT_CODE, 3)),
        (JobStatus.FAILED, failed(255, USER), (Failure.EXIT_CODE, 255)),
        (JobStatus.FAILED, failed(3, status="DONE"), (Failure.EXIT_CODE, 3)),
        (JobStatus.FAILED, failed(None, PULL), (Failure.IMAGE_PULL, None)),
        (JobStatus.FAILED, failed(None, "Provided image name uses an invalid format"), (Failure.IMAGE_PULL, None)),
        (JobStatus.FAILED, failed(None, ROOM), (Failure.CAPACITY, None)),
        (JobStatus.FAILED, failed(None, "The node was lost"), (Failure.PLATFORM, None)),
        (JobStatus.FAILED, failed(143, "Stopped for MAINTENANCE"), (Failure.PLATFORM, None)),
        (JobStatus.INTERNAL_ERROR, failed(1), (Failure.PLATFORM, None)),
        (JobStatus.FAILED, failed(None, "Encountered fatal error"), (Failure.UNKNOWN, None)),
        (JobStatus.FAILED, failed(None, "Encountered fatal error while starting container"), (Failure.UNKNOWN, None)),
        (JobStatus.FAILED, failed(None, "", status="UNKNOWN"), (Failure.UNKNOWN, None)),
        (JobStatus.CANCELLED, failed(137, OOM), (Failure.CANCELLED, None)),
        (JobStatus.DELETED, failed(3), (Failure.LOST, None)),
    ],
)
def test_what_snowflake_says_of_a_container(status, container, expected):
    """Each of its messages, with and without an exit code."""
    found = diagnose(status, [container])

    assert expected == (found.failure, found.exit_code)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (JobStatus.FAILED, Failure.UNKNOWN),
        (JobStatus.INTERNAL_ERROR, Failure.PLATFORM),
        (JobStatus.CANCELLED, Failure.CANCELLED),
        (JobStatus.DELETED, Failure.LOST),
        (JobStatus.UNKNOWN, Failure.UNKNOWN),
    ],
)
def test_containers_that_nobody_can_ask_for(status, expected):
    """Then the status is all that is known."""
    assert Diagnosis(failure=expected) == diagnose(status)


@pytest.mark.parametrize(
    ("containers", "stopped", "expected"),
    [
        ([failed(143), failed(3, instance=1)], (), 1),
        ([failed(137), failed(3, instance=1)], (), 1),
        ([failed(143), failed(137, instance=1)], (), 1),
        ([failed(3), failed(137, OOM, instance=1)], (), 1),
        ([failed(None), failed(3, instance=1)], (), 1),
        ([failed(1), failed(137, instance=1)], (0,), 1),
        ([failed(3), failed(3, instance=1)], (), 0),
        ([failed(0, "Completed successfully", status="DONE"), failed(143, instance=1)], (), 1),
        ([failed(None, ROOM, status="PENDING"), failed(3, instance=1)], (), 1),
    ],
)
def test_the_container_that_a_job_failed_by(containers, stopped, expected):
    """Whose message says why, then who failed by itself; in any order, and not who waits or ended well."""
    for order in itertools.permutations(containers):
        assert expected == diagnose(JobStatus.FAILED, order, stopped=stopped).instance


def test_what_the_payload_raised():
    """With the exit code that the launcher has written, or else its container's."""
    known, unknown = RAISED, JobResult(success=False, remote_type="ValueError", instance=2)
    containers = [failed(143, USER), failed(4, instance=2)]

    assert Diagnosis(failure=Failure.USER_ERROR, exit_code=1, container_message=USER, instance=0) == diagnose(
        JobStatus.FAILED, containers, known
    )
    assert Diagnosis(failure=Failure.USER_ERROR, exit_code=4, container_message=FATAL, instance=2) == diagnose(
        JobStatus.FAILED, containers, unknown
    )
    assert Failure.USER_ERROR is diagnose(JobStatus.INTERNAL_ERROR, [failed(1)], known).failure
    assert Failure.USER_ERROR is diagnose(JobStatus.DONE, [], known).failure


def test_what_snowflake_says_outright_goes_before_what_the_payload_saw_of_it():
    """The head of a cluster fails because a worker was out of memory."""
    found = diagnose(JobStatus.FAILED, [failed(1, USER), failed(137, OOM, instance=1)], RAISED)

    assert (Failure.OUT_OF_MEMORY, 1, 137) == (found.failure, found.instance, found.exit_code)


def test_a_result_that_is_well_says_nothing_of_another_container():
    """A sidecar, or another instance, may have failed."""
    found = diagnose(JobStatus.FAILED, [failed(3, instance=1)], JobResult(success=True))

    assert (Failure.EXIT_CODE, 3) == (found.failure, found.exit_code)


@pytest.mark.parametrize(
    ("remote_type", "words"),
    [
        ("builtins.ModuleNotFoundError", "pip_requirements"),
        ("builtins.FileNotFoundError", "source's directory"),
        ("builtins.PermissionError", "WRITE"),
        ("requests.exceptions.ConnectionError", "external_access_integrations"),
        ("ConnectionError", "external_access_integrations"),
        ("snowflake.connector.errors.ProgrammingError", "grant"),
        ("torch.OutOfMemoryError", "larger instance family"),
    ],
)
def test_advice_for_common_exceptions(remote_type, words):
    """By the exception's class, wherever it is from."""
    assert words in diagnose(JobStatus.FAILED, [], JobResult(success=False, remote_type=remote_type)).advice


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (PULL, Failure.IMAGE_PULL),
        (f"Waiting to start; {PULL}", Failure.IMAGE_PULL),
        (ROOM, Failure.CAPACITY),
        ("Compute pool node(s) are being provisioned", Failure.CAPACITY),
        ("Waiting to start", Failure.CAPACITY),
        ("", Failure.CAPACITY),
    ],
)
def test_why_a_job_did_not_begin(reason, expected):
    """An image that can't be pulled will not be there later; nodes may be."""
    assert Diagnosis(failure=expected, container_message=reason) == diagnose_wait(reason)


def test_every_failure_has_a_meaning():
    """An error of its own, and advice; the payload's own exception has that of its class."""
    errors = [kind.error for kind in KINDS.values()]

    assert set(Failure) == set(KINDS)
    assert len(errors) == len(set(errors))
    assert {Failure.USER_ERROR} == {failure for failure, kind in KINDS.items() if not kind.advice}
    assert {Failure.CAPACITY, Failure.PLATFORM} == {f for f, kind in KINDS.items() if kind.retry is Retry.LATER}


def test_an_error_tells_what_is_known():
    """Its attributes, and the advice of its class, or one of its own."""
    error = Diagnosis(failure=Failure.LOST, instance=1).put_into(exceptions.MLJobLostError("Gone.", "J", "DELETED"))

    assert (Failure.LOST, 1, None, "") == (error.failure, error.instance, error.exit_code, error.container_message)
    assert f"Gone.\nWhat to do: {KINDS[Failure.LOST].advice}" == str(error)


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        (failed(137, OOM, 1), f"Instance 1, container main: {OOM} (exit code 137)."),
        (failed(None, ""), "Instance 0, container main: FAILED."),
    ],
)
def test_a_container_in_words(container, expected):
    """As it stands in the error's message."""
    assert expected == str(container)
