"""The page's requests to Snowflake, by Airflow's own app, with jobs of real tasks."""

import json
from datetime import datetime

import pytest
import yaml
from airflow.models.log import Log
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.sdk import DAG
from airflow.utils.session import create_session
from sqlalchemy import delete, select, update

from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.task.query_tags import role_tag
from tests.budget import budget
from tests.lab import POOL, STAGE, submit
from tests.ui.api import ONE_DAG, served

SECRET, PASSWORD = "the-token-of-this-test", "a password: \N{ROCKET} $x\n"
# No names of the task's jobs.
FOREIGN = (
    "MLJOBS_DB.PUBLIC.MLJOB_TRAIN_0123456789AB_0_1", "MLJOB_OTHER", "A.B.C", "A.B.C_1_1", "A.B.X; DROP SERVICE Y",
    f"A.B.{'C' * 240}_1_1", f"A.B.C_{'9' * 200}_1", "",
)  # fmt: skip
SCRIPT = "import time\ntime.sleep(300)\n"


def sleeper():
    """Run longer than any test."""
    import time

    time.sleep(300)


@pytest.fixture(scope="module")
def monkeymodule():
    """A monkeypatch for the whole module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield monkeypatch


@pytest.fixture(scope="module")
def visitor(monkeymodule):
    """Serve the API; returns visitors by name."""
    monkeymodule.setenv("AIRFLOW__MLJOBS__DEPLOYMENT", "tests of the page")
    with served(monkeymodule) as visitors:
        yield visitors


@pytest.fixture
def user(visitor):
    """A user who may edit DAGs."""
    return visitor("user")


class Submitted:
    """An ended task whose job still runs.

    :param mapped: how many instances the task has, each with a job; without it, it isn't mapped.
    """

    def __init__(self, airflow, mapped=None, **options):
        settings = {"source": sleeper, "compute_pool": POOL, "stage_name": STAGE, "wait_for_completion": False}
        with DAG(ONE_DAG, schedule=None, start_date=datetime(2026, 1, 1)) as dag:
            if mapped is None:
                MLJobOperator(task_id="train", **settings | options)
            else:
                task = MLJobOperator.partial(task_id="train", **settings | options)
                task.expand(env_vars=[{"NUMBER": str(number)} for number in range(mapped)])
        run = airflow.run(dag)
        assert "success" == run.state, run.errors
        self.airflow = airflow
        self.run_id = run.instances[0].run_id
        self.path = f"dags/{ONE_DAG}/runs/{self.run_id}/tasks/train"

    def job_id(self, index=-1):
        """The id of the job in the XCom."""
        return self.xcom(index)["job_id"]

    def _of(self, model, index, **more):
        return select(model).filter_by(dag_id=ONE_DAG, run_id=self.run_id, task_id="train", map_index=index, **more)

    def xcom(self, index=-1):
        """The XCom of a job."""
        with create_session() as session:
            return session.scalars(self._of(XComModel, index, key="mljob")).one().value

    def forge(self, **facts):
        """Edit the XCom of the job."""
        with create_session() as session:
            xcom = session.scalars(self._of(XComModel, -1, key="mljob")).one()
            xcom.value = {**xcom.value, **facts}

    def set_state(self, state):
        """Set the state of the task instance."""
        place = {"dag_id": ONE_DAG, "run_id": self.run_id, "task_id": "train"}
        with create_session() as session:
            session.execute(update(TaskInstance).filter_by(**place).values(state=state))

    def statuses(self):
        """The statuses of the jobs."""
        return {row["name"]: row["status"] for row in self.airflow.query("SHOW JOB SERVICES IN ACCOUNT")}

    def end(self, visitor, index=-1):
        """Cancel a job, and wait until it has ended."""
        assert 200 == self.post(visitor, "cancel", index).status_code
        self.airflow.query(f"CALL {self.job_id(index)}!SPCS_WAIT_FOR('CANCELLED', {budget():.0f})")

    def post(self, visitor, action, index=-1, **body):
        """Press a button."""
        return visitor.post(f"{self.path}/{action}", **{"map_index": index, "job_id": self.job_id(index), **body})


def forget_rendered_fields():
    """Remove the rendered fields, which Airflow keeps for the newest runs only."""
    with create_session() as session:
        session.execute(delete(RenderedTaskInstanceFields))


@pytest.fixture
def submitted(airflow, visitor):
    """Have a task submit a job."""
    return Submitted(airflow)


def detail(answer):
    """Return the message of an error."""
    assert ["detail"] == list(answer.json())
    assert "\n" not in answer.json()["detail"]
    return answer.json()["detail"]


class TestCancel:
    """POST cancel."""

    def test_cancel(self, submitted, user):
        """Cancel stops a running job, and leaves an ended one unchanged."""
        first = submitted.post(user, "cancel")
        submitted.end(user)
        second = submitted.post(user, "cancel")

        assert [200, 200] == [first.status_code, second.status_code]
        assert first.json()["status"] in {"CANCELLING", "CANCELLED"}
        assert {"job_id": submitted.job_id(), "status": "CANCELLED"} == second.json()

    def test_event_log(self, submitted, user):
        """The user is recorded in Airflow's audit log."""
        submitted.post(user, "cancel")
        with create_session() as session:
            entry = session.scalars(select(Log).filter_by(event="mljobs.cancel").order_by(Log.id.desc())).first()

            assert (ONE_DAG, submitted.run_id, "train", "user") == (
                entry.dag_id, entry.run_id, entry.task_id, entry.owner,
            )  # fmt: skip
            assert submitted.job_id() == json.loads(entry.extra)["job_id"]

    def test_mapped(self, airflow, user):
        """Cancel stops only the job of one mapped instance."""
        submitted = Submitted(airflow, mapped=2)
        submitted.end(user, 1)
        names = [submitted.job_id(index).rpartition(".")[2] for index in (0, 1)]

        assert dict(zip(names, ["RUNNING", "CANCELLED"], strict=True)) == submitted.statuses()
        assert 404 == submitted.post(user, "cancel", 1, map_index=-1).status_code

    def test_another_job(self, submitted, user):
        """A cancel from an outdated page is refused: the task has a newer job."""
        answer = submitted.post(user, "cancel", job_id="MLJOBS_DB.PUBLIC.MLJOB_TRAIN_0123456789AB_0_1")

        assert (409, {"RUNNING"}) == (answer.status_code, set(submitted.statuses().values()))
        assert submitted.job_id() in detail(answer)

    @pytest.mark.parametrize("action", ["cancel", "drop"])
    def test_gone(self, submitted, user, action):
        """Cancel and drop of a dropped job are 404."""
        submitted.airflow.query(f"DROP SERVICE {submitted.job_id()}")
        answer = submitted.post(user, action)

        assert 404 == answer.status_code
        assert "does not exist or not authorized" in detail(answer)

    @pytest.mark.parametrize("path", ["runs/nobodys/tasks/train", "runs/{}/tasks/nobodys"])
    def test_no_job(self, submitted, user, path):
        """A task instance without a job is 404."""
        path = f"dags/{ONE_DAG}/{path.format(submitted.run_id)}/cancel"

        assert 404 == user.post(path, job_id=submitted.job_id()).status_code


class TestDrop:
    """POST drop."""

    def test_drop(self, submitted, user):
        """A running job must be cancelled before it is dropped."""
        running = submitted.post(user, "drop")
        remaining = submitted.airflow.jobs
        submitted.end(user)
        dropped = submitted.post(user, "drop")

        assert (409, 1) == (running.status_code, len(remaining))
        assert "is RUNNING. Cancel it before you drop it." in detail(running)
        assert (200, "DROPPED", []) == (dropped.status_code, dropped.json()["status"], submitted.airflow.jobs)

    def test_of_a_task_that_goes_on(self, submitted, user):
        """The job of an unfinished task can't be dropped: the task needs the result."""
        submitted.end(user)
        answers = []
        for state in ("deferred", "running", "up_for_retry", None):
            submitted.set_state(state)
            answers.append(submitted.post(user, "drop"))

        assert ([409] * 4, 1) == ([answer.status_code for answer in answers], len(submitted.airflow.jobs))
        assert all("still needs the result" in detail(answer) for answer in answers)


class TestForgedXComs:
    """Forged XComs name other jobs and connections."""

    def test_names(self, airflow, user, submitted):
        """A job with a foreign name is refused without a request to Snowflake."""
        other = submit("MLJOB_OTHER", sleeper)
        airflow.snowflake.statements.clear()
        answers = []
        for job_id in (other, *FOREIGN):
            submitted.forge(job_id=job_id)
            answers += [submitted.post(user, action) for action in ("cancel", "drop")]
            answers += [user.get(f"{submitted.path}/{what}") for what in ("specification", "usage")]

        assert {409} == {answer.status_code for answer in answers}
        assert all(map(detail, answers))
        assert [] == airflow.snowflake.statements.matching("")

    @pytest.mark.parametrize("comment", ["", "{}", "mine", "of another"])
    def test_comment(self, airflow, user, submitted, comment):
        """A job with the right name and a foreign COMMENT is neither shown nor changed."""
        name = submitted.job_id().rpartition(".")[2]
        if comment == "of another":
            comment = airflow.query(f"DESCRIBE SERVICE {name}")[0]["comment"].replace('"train"', '"evaluate"')
        airflow.query(f"DROP SERVICE {name}")
        submit(name, sleeper, comment=comment)
        answers = [submitted.post(user, action) for action in ("cancel", "drop")]
        answers += [user.get(f"{submitted.path}/{what}") for what in ("specification", "usage")]

        assert [409] * 4 == [answer.status_code for answer in answers]
        assert {name: "RUNNING"} == submitted.statuses()
        assert all("[mljobs] deployment" in detail(answer) for answer in answers)

    @pytest.mark.parametrize("connection", ["elsewhere", "nobodys", "", 7, None])
    def test_connection(self, airflow, user, submitted, monkeypatch, connection):
        """The API server uses only the task's connection, not one that the XCom names."""
        monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", airflow.snowflake.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
        submitted.forge(snowflake_conn_id=connection)
        airflow.snowflake.statements.clear()
        answers = [submitted.post(user, action) for action in ("cancel", "drop")]
        answers += [user.get(f"{submitted.path}/{what}") for what in ("specification", "usage")]

        assert [409] * 4 == [answer.status_code for answer in answers]
        assert all(map(detail, answers))
        assert [] == airflow.snowflake.statements.matching("")

    @pytest.mark.parametrize("is_mapped", [False, True], ids=["task", "mapped"])
    def test_an_old_run(self, airflow, user, is_mapped):
        """Without rendered fields, the version of the DAG names the connection."""
        settings = {"mapped": 1, "snowflake_conn_id": "snowflake_default"} if is_mapped else {}
        submitted, index = Submitted(airflow, **settings), 0 if is_mapped else -1
        forget_rendered_fields()
        answer = user.get(f"{submitted.path}/specification", map_index=index)

        assert 200 == answer.status_code

    def test_an_old_run_of_a_template(self, airflow, user):
        """Without rendered fields, a templated connection is unknown, and the API server doesn't log in."""
        with create_session() as session:
            # Airflow writes a DAG that has changed again after half a minute.
            session.execute(delete(SerializedDagModel))
        submitted = Submitted(airflow, snowflake_conn_id="{{ 'snowflake_default' }}")
        before = submitted.post(user, "cancel")
        forget_rendered_fields()
        after = submitted.post(user, "cancel")

        assert [200, 409] == [before.status_code, after.status_code]
        assert "no longer recorded in Airflow" in detail(after)

    @pytest.mark.parametrize(
        ("connection", "expected"),
        [("{}", 409), ("postgres://somebody:hunter2@127.0.0.1:1/x", 409), ({"password": "hunter2"}, 502)],
        ids=["empty", "elsewhere", "wrong password"],
    )
    def test_broken_connection(self, airflow, user, submitted, monkeypatch, connection, expected):
        """A connection of another type or with a refused login is reported without its password."""
        if isinstance(connection, dict):
            parts = json.loads(airflow.snowflake.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
            connection = json.dumps({**parts, **connection})
        monkeypatch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", connection)
        answer = submitted.post(user, "cancel")

        assert (expected, {"RUNNING"}) == (answer.status_code, set(submitted.statuses().values()))
        assert "hunter2" not in detail(answer)

    def test_another_airflow(self, user, submitted, monkeypatch):
        """The job of a task with the same ids in another Airflow is refused."""
        monkeypatch.setenv("AIRFLOW__MLJOBS__DEPLOYMENT", "another")

        assert 409 == submitted.post(user, "cancel").status_code


class TestSpecification:
    """GET specification."""

    def test_secrets(self, airflow, user, tmp_path):
        """Values with a sensitive name and function arguments are masked; other values are shown."""
        from airflow.sdk._shared.secrets_masker import _secrets_masker

        script = tmp_path / "job.py"
        script.write_text(SCRIPT)
        environment = {"API_TOKEN": SECRET, "ODD_PASSWORD": PASSWORD, "EPOCHS": "12", "ODD": "\N{ROCKET}"}
        submitted = Submitted(airflow, source=str(script), args=["--key", SECRET], env_vars=environment)
        # The task ran in this process and registered its secrets with Airflow, which must not help here.
        _secrets_masker().reset_masker()
        answer = user.get(f"{submitted.path}/specification")
        container = yaml.safe_load(answer.json()["specification"])["spec"]["containers"][0]

        assert (200, submitted.job_id()) == (answer.status_code, answer.json()["job_id"])
        assert {"API_TOKEN": "***", "ODD_PASSWORD": "***", "MLJOBS_ARGS": "***"}.items() <= container["env"].items()
        assert {"EPOCHS": "12", "ODD": "\N{ROCKET}"}.items() <= container["env"].items()
        assert SECRET not in answer.text
        assert "a password" not in answer.text
        assert ["/mnt/job_stage/payload.pyz"] == container["args"]

    def test_of_the_users_own(self, airflow, user):
        """In an author's own specification, the values of options with a sensitive name are masked."""
        args = ["--password", SECRET, f"--api-key={SECRET}", "--epochs", "12", f"TOKEN={SECRET}"]
        container = {
            "name": "main",
            "image": "/db/schema/repository/image:1",
            "command": ["sleep", "300"],
            "args": args,
        }
        submitted = Submitted(airflow, source=None, stage_name=None, spec={"spec": {"containers": [container]}})
        answer = user.get(f"{submitted.path}/specification")
        container = yaml.safe_load(answer.json()["specification"])["spec"]["containers"][0]

        assert ["--password", "***", "--api-key=***", "--epochs", "12", "TOKEN=***"] == container["args"]

    def test_of_a_job_that_is_gone(self, submitted, user):
        """The specification of a dropped job is 404 with an explanation."""
        submitted.airflow.query(f"DROP SERVICE {submitted.job_id()}")
        answer = user.get(f"{submitted.path}/specification")

        assert 404 == answer.status_code
        assert f"Job {submitted.job_id()} was dropped" in detail(answer)

    def test_query_tag(self, submitted, user):
        """The page's statements have their own QUERY_TAG."""
        user.get(f"{submitted.path}/specification")
        history = "SELECT QUERY_TEXT, QUERY_TAG FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY(RESULT_LIMIT => 10000))"
        tags = {row["query_tag"] for row in submitted.airflow.query(history) if "DESCRIBE" in row["query_text"]}

        assert role_tag("ui") in tags

    def test_no_rights(self, submitted, user):
        """A specification that Snowflake hides from the role is 404: only the owner may see it."""
        submitted.airflow.snowflake.faults.add(Fault(matching="DESCRIBE SERVICE", effect="error", errno=3001))
        answer = user.get(f"{submitted.path}/specification")
        submitted.airflow.snowflake.faults.clear()

        assert 404 == answer.status_code


class TestUsage:
    """GET usage."""

    def test_usage(self, submitted, user):
        """Usage has series for charts, or the reason why there are none."""
        answer = user.get(f"{submitted.path}/usage")

        assert (200, submitted.job_id()) == (answer.status_code, answer.json()["job_id"])
        assert answer.json()["usage"] or answer.json()["reason"]

    def test_of_a_job_that_is_gone(self, submitted, user):
        """Usage of a dropped job may still exist; its name belongs to the task."""
        submitted.airflow.query(f"DROP SERVICE {submitted.job_id()}")

        assert 200 == user.get(f"{submitted.path}/usage").status_code


class TestCleanUp:
    """POST clean-up."""

    @pytest.fixture
    def admin(self, visitor):
        """A user who may clean up."""
        return visitor("admin")

    def test_clean_up(self, submitted, admin):
        """A dry run lists the jobs; the real run drops them."""
        submitted.end(admin)
        wanted = {"older_than_hours": 0, "stages": [STAGE]}
        dry = admin.post("clean-up", **wanted)
        remaining = submitted.airflow.jobs
        wet = admin.post("clean-up", **wanted, dry_run=False)

        assert ([200, 200], 1, []) == ([dry.status_code, wet.status_code], len(remaining), submitted.airflow.jobs)
        assert ["would drop", "dropped"] == [answer.json()["items"][0]["action"] for answer in (dry, wet)]
        item = wet.json()["items"][0]
        assert ("job", submitted.job_id(), "success", "CANCELLED", "") == tuple(
            item[name] for name in ("kind", "name", "task_state", "job_status", "error")
        )
        assert datetime.fromisoformat(item["created"])
        assert "dropped 1 job" in wet.json()["summary"]

    @pytest.mark.parametrize("schema", [None, "account", "MLJOBS_DB.PUBLIC", "public"])
    def test_schemas(self, submitted, admin, schema):
        """Clean-up searches the connection's schema, a named one, or the account, and keeps new jobs."""
        submitted.end(admin)
        young = admin.post("clean-up", schema=schema)
        old = admin.post("clean-up", schema=schema, older_than_hours=0)

        assert [0, 1] == [len(answer.json()["items"]) for answer in (young, old)]

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ({"older_than_hours": -1}, 400),
            ({"older_than_hours": "NaN"}, 400),
            ({"older_than_hours": 1e300}, 400),
            ({"stages": ["a b"]}, 400),
            ({"stages": STAGE}, 400),
            ({"schema": "a.b.c"}, 400),
            ({"snowflake_conn_id": "nobodys"}, 502),
            ({"snowflake_conn_id": "\0"}, 400),
            ({"stages": ["NOWHERE"], "older_than_hours": 0}, 404),
        ],
        ids=str,
    )
    def test_mistakes(self, airflow, admin, body, expected):
        """An invalid clean-up is refused with one sentence."""
        answer = admin.post("clean-up", **body)

        assert expected == answer.status_code
        assert detail(answer)

    def test_connection_of_the_database(self, submitted, admin, monkeypatch):
        """Connections in Airflow's database work."""
        from airflow.models.connection import Connection

        # Airflow sets it when the API server starts.
        monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
        parts = json.loads(submitted.airflow.snowflake.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
        with create_session() as session:
            session.add(Connection(conn_id="of_the_page", **{**parts, "extra": json.dumps(parts["extra"])}))
        submitted.end(admin)
        answer = admin.post("clean-up", snowflake_conn_id="of_the_page", older_than_hours=0)
        with create_session() as session:
            session.delete(session.scalars(select(Connection).filter_by(conn_id="of_the_page")).one())

        assert (200, 1) == (answer.status_code, len(answer.json()["items"]))


class TestTrouble:
    """Requests while Snowflake fails."""

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(matching="DESCRIBE SERVICE", effect="error"),
            Fault(matching="DESCRIBE SERVICE", effect="master_expired"),
            Fault(request="login", effect="error"),
        ],
        ids=lambda fault: f"{fault.request}:{fault.effect}",
    )
    def test_refused(self, submitted, user, fault):
        """The error of Snowflake is reported in one sentence."""
        submitted.airflow.snowflake.faults.add(fault)
        answer = submitted.post(user, "cancel")
        submitted.airflow.snowflake.faults.clear()

        assert 502 == answer.status_code
        assert detail(answer).startswith("Snowflake request failed: ")
