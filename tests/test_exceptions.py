import inspect
import pickle

import pytest

from airflow_provider_mljobs import exceptions
from airflow_provider_mljobs.exceptions import Failure, GatewayError, MLJobError, MLJobFailedError, RemoteError
from airflow_provider_mljobs.jobs.outcome.failures import Diagnosis

CLASSES = [
    kind
    for _, kind in inspect.getmembers(exceptions, inspect.isclass)
    if kind.__module__ == exceptions.__name__ and issubclass(kind, Exception)
]


def make(kind):
    """Create an error with a different value in each parameter, or with a message."""
    signed = any("__init__" in vars(base) for base in kind.__mro__ if base in CLASSES)
    return kind(*(f"the {name}" for name in (inspect.signature(kind).parameters if signed else ["message"])))


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_survive_pickling(kind):
    """Errors can be pickled, as Airflow sends them between processes, with class, text and attributes."""
    error = make(kind)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)

    assert kind is type(copy)
    assert str(error) == str(copy)
    assert vars(error) == vars(copy)
    assert "the message" in str(copy)


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if issubclass(kind, MLJobFailedError)])
def test_what_is_known_of_a_failure_survives_pickling(kind):
    """An error has the failure, the container's exit code and message, its instance and the advice."""
    diagnosis = Diagnosis(
        failure=Failure.KILLED, exit_code=137, container_message="It ended.", instance=2, advice="Run!"
    )
    copy = pickle.loads(pickle.dumps(diagnosis.put_into(make(kind))))  # noqa: S301 (our own)

    assert kind is type(copy)
    assert Failure.KILLED is copy.failure
    assert (137, "It ended.", 2, "Run!") == (copy.exit_code, copy.container_message, copy.instance, copy.advice)
    assert "the message\nWhat to do: Run!\n--- last log lines ---\nthe log_tail" in str(copy)


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_have_one_root(kind):
    """``except MLJobError`` catches all."""
    assert issubclass(kind, MLJobError)


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_stand_in_the_drawing_under_their_parent(kind):
    """The tree in the module's docstring is the tree of the classes."""
    lines = [line for line in exceptions.__doc__.splitlines() if "Error" in line]
    drawn = [line.lstrip(" │├└─").split()[0] for line in lines]
    depth = [len(line) - len(line.lstrip(" │├└─")) for line in lines]
    place = drawn.index(kind.__name__)
    parent = next((drawn[i] for i in range(place, -1, -1) if depth[i] < depth[place]), "Exception")
    others = [base.__name__ for base in kind.__bases__[1:]]

    assert parent == kind.__bases__[0].__name__
    assert all(f"({base})" in lines[place] for base in others)


def test_nothing_is_drawn_that_is_not_there():
    """Each line of the tree is a class."""
    drawn = [line.lstrip(" │├└─").split()[0] for line in exceptions.__doc__.splitlines() if "Error" in line]

    assert sorted(kind.__name__ for kind in CLASSES) == sorted(drawn)


def test_what_snowflake_said_is_in_the_message():
    """A message of Snowflake has the query id, which support needs."""
    assert "No. [errno 2003, sqlstate 02000, query id 01b]" == str(GatewayError("No.", 2003, "02000", "01b"))
    assert "No." == str(GatewayError("No."))


def test_the_last_lines_and_the_remote_traceback_are_in_the_message():
    """The message has the last log lines and the remote traceback."""
    assert "It failed." == str(MLJobFailedError("It failed.", "JOB", "FAILED"))
    assert "It failed.\n--- last log lines ---\nboom" == str(MLJobFailedError("It failed.", "JOB", "FAILED", "boom"))
    assert "It failed.\n--- remote traceback ---\nline 1" == str(
        RemoteError("It failed.", "JOB", "FAILED", remote_traceback="line 1")
    )
