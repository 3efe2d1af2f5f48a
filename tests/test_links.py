"""Links of task instances, as Airflow's own API gives them to its pages."""

import threading
import time
from datetime import datetime
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG

from airflow_provider_mljobs.jobs.names import Identifier, QualifiedName
from airflow_provider_mljobs.links import MLJobLink, RayDashboardLink, SnowsightLink
from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.sensors import MLJobSensor
from airflow_provider_mljobs.task.xcoms import snowsight_url
from tests.budget import budget
from tests.lab import POOL, STAGE, submit

SETTINGS = {"compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.05, "deferrable": True}
SNOWSIGHT = "https://app.snowflake.com/_deeplink/#/compute/job/MLJOBS_DB/PUBLIC/"


@pytest.fixture(scope="module")
def client():
    """Airflow's API as an admin."""
    from airflow.api_fastapi.app import create_app, get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi.testclient import TestClient

    with pytest.MonkeyPatch.context() as patch:
        # Its own one is too short for PyJWT's taste.
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "s" * 64)
        client = TestClient(create_app())
        token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="admin", role="admin"))
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


@pytest.fixture
def links(client):
    """Return the links of a task instance from Airflow's API."""

    def ask(dag_id, run_id, task_id, map_index=-1):
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/links"
        return client.get(path, params={"map_index": map_index}).json()["extra_links"]

    return ask


def links_of(run, links, task_id="job", map_index=-1):
    """Return the links of a task of a run, and its run's id."""
    (ti,) = (ti for ti in run.instances if (ti.task_id, ti.map_index) == (task_id, map_index))
    return links(ti.dag_id, ti.run_id, task_id, map_index)


def number(value):
    """Return a number."""
    return value


def sleep():
    """Run for a minute."""
    import time

    time.sleep(60)


def fail():
    """Raise."""
    raise ValueError("no such table")


@pytest.fixture
def look(airflow, client, links):
    """Run a task with a long job, and drop the job once it has a link; returns the run and the links."""

    def run(dag_id, wanted, **settings):
        addresses = {}

        def wait():
            give_up = time.monotonic() + budget()
            while not addresses.get(wanted) and time.monotonic() < give_up:
                for run in client.get(f"/api/v2/dags/{dag_id}/dagRuns").json().get("dag_runs", ()):
                    addresses.update(links(dag_id, run["dag_run_id"], "job"))
            airflow.query(f"DROP SERVICE {airflow.jobs[0]}")

        looking = threading.Thread(target=wait)
        looking.start()
        run = airflow.run_task(lambda: MLJobOperator(task_id="job", source=sleep, **{**SETTINGS, **settings}), dag_id)
        looking.join()
        return run, addresses

    return run


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "blocking"])
def test_while_somebody_waits(look, links, deferrable):
    """Links exist while the job runs and after it has failed."""
    run, addresses = look(f"waits_{deferrable}", "ML job", deferrable=deferrable)

    name = run.xcom("job", "job_id").rpartition(".")[2]
    assert {"ML job", "Ray dashboard", "Snowsight job"} == addresses.keys()
    assert f"{SNOWSIGHT}{name}" == addresses["Snowsight job"]
    assert ("failed", addresses) == (run.state, links_of(run, links))


def test_ray_dashboard(look, links):
    """A public Ray dashboard is linked while the job runs, and not afterwards."""
    endpoint = {"name": "ray-dashboard-endpoint", "port": 12003, "protocol": "HTTP", "public": True}
    settings = {"deferrable": False, "log_interval": 0.1, "target_instances": 2, "parallel": True}
    run, addresses = look("dashboard", "Ray dashboard", endpoints=[endpoint], **settings)

    assert addresses["Ray dashboard"].startswith("https://")
    assert links_of(run, links)["Ray dashboard"] is None
    assert {} == run.xcom("job", "mljob_watched")["endpoints"]


def test_mapped_tasks(airflow, links):
    """Each instance links to its own job and its own tab."""
    run = airflow.run_task(
        lambda: MLJobOperator.partial(task_id="job", source=number, **SETTINGS).expand(args=[[1], [2]])
    )

    addresses = [links_of(run, links, map_index=index) for index in (0, 1)]
    names = [run.xcom("job", "job_id", index).rpartition(".")[2] for index in (0, 1)]
    assert [f"{SNOWSIGHT}{name}" for name in names] == [each["Snowsight job"] for each in addresses]
    assert ["0", "1"] == [each["ML job"].split("/mapped/")[1].removesuffix("/plugin/mljob") for each in addresses]


def test_retries(airflow, links, tmp_path):
    """A retried task links to the job of its last try, even a failed one."""
    run = airflow.run_task(lambda: MLJobOperator(task_id="job", source=fail, retries=1, retry_delay=0.1, **SETTINGS))

    name = run.xcom("job", "job_id").rpartition(".")[2]
    assert ("failed", "2") == (run.state, name[-1])
    assert f"{SNOWSIGHT}{name}" == links_of(run, links)["Snowsight job"]


def test_task_without_a_job(airflow, links):
    """A task that failed before its submit links only to its tab."""
    run = airflow.run_task(
        lambda: MLJobOperator(task_id="job", source=number, args=[1], **{**SETTINGS, "compute_pool": "NO_POOL"})
    )

    addresses = links_of(run, links)
    assert {"ML job": addresses["ML job"], "Ray dashboard": None, "Snowsight job": None} == addresses


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "blocking"])
def test_sensor(airflow, links, deferrable):
    """A sensor links to its job in Snowsight only: in Airflow the job belongs to another task."""
    job_id = submit("NIGHTLY", lambda: None)
    wait = {"deferrable": deferrable, "poll_interval": 0.05}
    run = airflow.run_task(lambda: MLJobSensor(task_id="job", job_id=job_id, **wait), dag_id="sensor")

    assert {"Snowsight job": f"{SNOWSIGHT}NIGHTLY"} == links_of(run, links)


@pytest.mark.parametrize(
    ("account", "place"),
    [
        ("myorg-account1", "myorg/account1"),
        ("MYORG-MY-ACCOUNT", "MYORG/MY_ACCOUNT"),
        ("myorg-my_account", "myorg/my_account"),
        ("xy12345", "_deeplink"),
        ("xy12345.eu-central-1", "_deeplink"),
        ("myorg-account1.privatelink", "_deeplink"),
    ],
)
def test_snowsight_address(account, place):
    """The address has the account if its organization is known; otherwise Snowsight asks for it."""
    job = QualifiedName(Identifier("DB"), Identifier("a schema/#"), Identifier("JOB_1"))

    assert f"https://app.snowflake.com/{place}/#/compute/job/DB/a%20schema%2F%23/JOB_1" == snowsight_url(account, job)


def test_snowsight_address_without_an_account():
    """A connection without an account has no link."""
    assert not snowsight_url("", QualifiedName.parse("a.b.c", "job"))


@pytest.mark.parametrize(
    ("base_url", "prefix"), [("http://host:8080", ""), ("https://host/team/airflow/", "/team/airflow"), ("", "")]
)
def test_tab_below_a_prefix(monkeypatch, base_url, prefix):
    """The tab's address has the path of Airflow's base URL, with all ids quoted."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    ti = SimpleNamespace(dag_id="d", run_id="manual__1+00:00", task_id="group.train", map_index=3)

    expected = f"{prefix}/dags/d/runs/manual__1%2B00%3A00/tasks/group.train/mapped/3/plugin/mljob"
    assert expected == MLJobLink().get_link(None, ti_key=ti)


@pytest.mark.parametrize("link", [SnowsightLink(), RayDashboardLink()])
def test_nobody_to_ask(link):
    """If Airflow doesn't answer, a link is empty, without an error."""
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, state="deferred")

    assert not link.get_link(SimpleNamespace(target_instances=2), ti_key=ti)


def test_links_of_decorated_tasks():
    """@task.mljob has the links of the operator."""
    from airflow_provider_mljobs.decorators import mljob_task

    with DAG("decorated", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
        mljob_task(number, **SETTINGS)(1)

    assert ["Snowsight job", "Ray dashboard", "ML job"] == [link.name for link in dag.tasks[0].operator_extra_links]
