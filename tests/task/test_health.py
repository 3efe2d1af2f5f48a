"""The checks of this Airflow."""

from datetime import timedelta
from importlib.metadata import PackageNotFoundError

import pytest

from airflow_provider_mljobs.jobs.checkup import State
from airflow_provider_mljobs.task import health

VERSIONS = {"apache-airflow": "3.3.2", "PyYAML": "6.0", "snowflake-connector-python": "4.8.1"}


def installed(name):
    """Return the version of a package in a made-up environment."""
    if name not in VERSIONS:
        raise PackageNotFoundError(name)
    return VERSIONS[name]


def test_versions_of_this_environment():
    """The tests' own environment fits the provider's requirements."""
    finding = health.airflow_checks()[0].look()

    assert State.OK is finding.state
    assert "apache-airflow 3" in finding.detail


def test_versions_that_fit():
    """All packages of the provider are shown, and the connector; requirements of extras don't count."""
    finding = health.versions(["PyYAML>=6", "apache-airflow<4,>=3.3", "ray>=2 ; extra == 'ray'"], installed)

    assert State.OK is finding.state
    assert finding.detail.endswith(", apache-airflow 3.3.2, PyYAML 6.0, snowflake-connector-python 4.8.1.")


@pytest.mark.parametrize("requirement", ["apache-airflow>=3.4", "nothing-like-it>=1"])
def test_versions_that_do_not_fit(requirement):
    """A package that is too old or absent is named, with the command that installs it."""
    finding = health.versions([requirement, "PyYAML>=6"], installed)

    assert (State.MISSING, f"pip install '{requirement}'") == (finding.state, finding.setting)


@pytest.fixture
def triggerers(airflow):
    """Airflow's database, without triggerers before and after."""
    from airflow.jobs.job import Job
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    def forget():
        with create_session() as session:
            session.execute(delete(Job))

    forget()
    yield create_session
    forget()


def test_no_triggerer_has_ever_run(triggerers):
    """Without a triggerer, deferred tasks wait for ever."""
    finding = health.triggerer()

    assert (State.MISSING, "airflow triggerer") == (finding.state, finding.setting)
    assert "none has ever run" in finding.detail


@pytest.mark.parametrize(("age", "state"), [(0, State.OK), (3600, State.MISSING)], ids=["alive", "dead"])
def test_a_triggerer(triggerers, age, state):
    """A triggerer is alive if its last heartbeat in Airflow's database is young."""
    from airflow.jobs.job import Job
    from airflow.sdk.timezone import utcnow

    with triggerers() as session:
        session.add(Job(job_type="TriggererJob", state="running", latest_heartbeat=utcnow() - timedelta(seconds=age)))

    assert state is health.triggerer().state


def test_a_task_can_not_see_triggerers(airflow):
    """A task reaches Airflow's API only, which doesn't list triggerers."""
    from airflow.sdk import task

    @task
    def look():
        return health.triggerer().to_json()

    run = airflow.run_task(look)

    assert "can't be seen" == run.xcom("look")["state"]


def test_the_name_of_this_airflow(monkeypatch):
    """An Airflow without a name can't recognise its jobs; the finding has the setting to paste."""
    nameless = health.name()
    monkeypatch.setenv("AIRFLOW__MLJOBS__DEPLOYMENT", "production")
    named = health.name()

    assert (State.MISSING, "AIRFLOW__MLJOBS__DEPLOYMENT=production") == (nameless.state, nameless.setting)
    assert (State.OK, "This Airflow is 'production'.") == (named.state, named.detail)
