import itertools

import pytest

from airflow_provider_mljobs import exceptions
from airflow_provider_mljobs.jobs.outcome.failures import (
    KINDS,
    ContainerEnd,
    Diagnosis,
    Failure,
    Retry,
    described,
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
MEMORY = "Unschedulable due to insufficient memory resources."
GPU = "Unschedulable due to insufficient GPU resources."
RAISED = JobResult(success=False, remote_type="builtins.ValueError", message="no rows", exit_code=1)


def failed(exit_code=None, message=FATAL, instance=0, status="FAILED"):
    """Return a container that failed."""
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
        (
            JobStatus.FAILED,
            failed(None, "Unschedulable due to insufficient memory resources."),
            (Failure.CAPACITY, None),
        ),
        (JobStatus.FAILED, failed(None, GPU), (Failure.CAPACITY, None)),
        (JobStatus.FAILED, failed(None, MEMORY), (Failure.CAPACITY, None)),
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
    """Each message of Snowflake for a container has a failure, with and without an exit code."""
    diagnosis = diagnose(status, [container])

    assert expected == (diagnosis.failure, diagnosis.exit_code)


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
    """Without containers, the status alone decides."""
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
    """A container with a known message is the reason, then one that failed by itself, in any order."""
    for order in itertools.permutations(containers):
        assert expected == diagnose(JobStatus.FAILED, order, stopped=stopped).instance


def test_what_the_payload_raised():
    """The exit code of an exception is the launcher's, or else its container's."""
    raised, other = RAISED, JobResult(success=False, remote_type="ValueError", instance=2)
    containers = [failed(143, USER), failed(4, instance=2)]

    assert Diagnosis(failure=Failure.USER_ERROR, exit_code=1, container_message=USER, instance=0) == diagnose(
        JobStatus.FAILED, containers, raised
    )
    assert Diagnosis(failure=Failure.USER_ERROR, exit_code=4, container_message=FATAL, instance=2) == diagnose(
        JobStatus.FAILED, containers, other
    )
    assert Failure.USER_ERROR is diagnose(JobStatus.INTERNAL_ERROR, [failed(1)], raised).failure
    assert Failure.USER_ERROR is diagnose(JobStatus.DONE, [], raised).failure


def test_what_snowflake_says_outright_goes_before_what_the_payload_saw_of_it():
    """A worker that ran out of memory is the reason, not the exception of its head."""
    diagnosis = diagnose(JobStatus.FAILED, [failed(1, USER), failed(137, OOM, instance=1)], RAISED)

    assert (Failure.OUT_OF_MEMORY, 1, 137) == (diagnosis.failure, diagnosis.instance, diagnosis.exit_code)


def test_a_result_that_is_well_says_nothing_of_another_container():
    """A successful result doesn't hide the failure of a sidecar or another instance."""
    diagnosis = diagnose(JobStatus.FAILED, [failed(3, instance=1)], JobResult(success=True))

    assert (Failure.EXIT_CODE, 3) == (diagnosis.failure, diagnosis.exit_code)


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
    """Advice for an exception depends on the name of its class, from any module."""
    assert words in diagnose(JobStatus.FAILED, [], JobResult(success=False, remote_type=remote_type)).advice


@pytest.mark.parametrize(
    ("remote_type", "message", "words"),
    [
        ("builtins.ImportError", "attempted relative import with no known parent package", "start it as a module"),
        ("builtins.ImportError", "cannot import name 'x' from 'y' (/app/y.py)", "its version differs"),
        ("SnowparkSQLException", "(1304): Object 'LOANS' does not exist or not authorized.", "Check the name"),
        ("SnowparkSQLException", "(1304): SQL compilation error: syntax error line 1", "Correct the statement."),
        ("SnowparkSQLException", "(1304): 003001 (42501): Insufficient privileges", "grant it the privileges"),
    ],
)
def test_advice_by_message(remote_type, message, words):
    """Where the message says more than the class, advice comes from the message."""
    result = JobResult(success=False, remote_type=remote_type, message=message)

    assert words in diagnose(JobStatus.FAILED, [], result).advice


@pytest.mark.parametrize(("code", "signal"), [(139, "SIGSEGV"), (134, "SIGABRT")])
def test_crashes_of_native_code(code, signal):
    """An exit code that stands for a crash is named by its signal; a chosen one is not."""
    crashed, chosen = diagnose(JobStatus.FAILED, [failed(code)]), diagnose(JobStatus.FAILED, [failed(3)])

    assert f"Exit code {code} is {signal}" in crashed.advice
    assert (Failure.EXIT_CODE, "") == (chosen.failure, chosen.advice)


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
    """A job that can't pull its image fails for good; one that waits for nodes may start later."""
    assert Diagnosis(failure=expected, container_message=reason) == diagnose_wait(reason)


SIDECAR = "stage-mount-v2-sidecar-data"
BUSY = ContainerEnd(instance=0, name=SIDECAR, status="FAILED", message=OOM, exit_code=137)
STOPPED = ContainerEnd(instance=0, name=SIDECAR, status="FAILED", message=FATAL, exit_code=1)


@pytest.mark.parametrize(
    ("containers", "result", "expected"),
    [
        # It says so: then the payload's own error is a consequence.
        ([failed(1), BUSY], RAISED, (Failure.OUT_OF_MEMORY, 137)),
        ([failed(3), BUSY], None, (Failure.OUT_OF_MEMORY, 137)),
        # It is alone.
        ([failed(0, "Completed successfully", status="DONE"), STOPPED], None, (Failure.EXIT_CODE, 1)),
    ],
)
def test_the_container_of_a_stage_volume_is_the_cause(containers, result, expected):
    """A stage volume that failed first, or alone, is the reason; the advice is about its resources."""
    diagnosis = diagnose(JobStatus.FAILED, containers, result)

    assert expected == (diagnosis.failure, diagnosis.exit_code)
    assert "volume 'data'" in diagnosis.advice
    assert "stageConfig.resources" in diagnosis.advice


@pytest.mark.parametrize(
    ("containers", "result", "expected"),
    [
        ([STOPPED, failed(3)], None, (Failure.EXIT_CODE, 3)),
        ([STOPPED, failed(143)], None, (Failure.KILLED, 143)),
        ([BUSY, failed(137, OOM)], None, (Failure.OUT_OF_MEMORY, 137)),
        ([STOPPED, failed(1)], RAISED, (Failure.USER_ERROR, 1)),
    ],
)
def test_the_container_of_a_stage_volume_is_no_cause(containers, result, expected):
    """A stage volume that ends with the job's own container explains nothing, and gives no advice."""
    diagnosis = diagnose(JobStatus.FAILED, containers, result)

    assert expected == (diagnosis.failure, diagnosis.exit_code)
    assert "stageConfig" not in diagnosis.advice


def test_a_description_of_containers():
    """A stage volume is described if it has a known reason, or if the job's own containers are fine."""
    own, done = failed(3), failed(0, "Completed successfully", status="DONE")

    assert str(own) == described([own, STOPPED])
    assert f"{own} {BUSY}" == described([own, BUSY])
    assert f"{done} {STOPPED}" == described([done, STOPPED])


def test_every_failure_has_a_meaning():
    """Every failure has an error class and advice; that of exceptions depends on their class."""
    errors = [kind.error for kind in KINDS.values()]

    assert set(Failure) == set(KINDS)
    assert len(errors) == len(set(errors))
    assert {Failure.USER_ERROR} == {failure for failure, kind in KINDS.items() if not kind.advice}
    assert {Failure.CAPACITY, Failure.PLATFORM} == {f for f, kind in KINDS.items() if kind.retry is Retry.LATER}


def test_an_error_tells_what_is_known():
    """An error has the attributes of the diagnosis and its advice, or that of the failure."""
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
    """The text of a container in an error's message has instance, name, message and exit code."""
    assert expected == str(container)
