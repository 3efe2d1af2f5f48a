"""What the page asks Snowflake, and does there: by Airflow's own app, with jobs that tasks have submitted."""

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
    """Run for longer than any test."""
    import time

    time.sleep(300)


@pytest.fixture(scope="module")
def monkeymodule():
    """Patch something for the whole module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield monkeypatch


@pytest.fixture(scope="module")
def visitor(monkeymodule):
    """Serve the API; makes visitors by their names."""
    monkeymodule.setenv("AIRFLOW__MLJOBS__DEPLOYMENT", "tests of the page")
    with served(monkeymodule) as visitors:
        yield visitors


@pytest.fixture
def user(visitor):
    """Somebody who may edit DAGs."""
    return visitor("user")


class Submitted:
    """A task that is over, and its job, which isn't.

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
        """The id of a job, as the page is told it."""
        return self.xcom(index)["job_id"]

    def _of(self, model, index, **more):
        return select(model).filter_by(dag_id=ONE_DAG, run_id=self.run_id, task_id="train", map_index=index, **more)

    def xcom(self, index=-1):
        """The XCom of a job."""
        with create_session() as session:
            return session.scalars(self._of(XComModel, index, key="mljob")).one().value

    def forge(self, **facts):
        """Edit the XCom of the job, as its API lets those who may."""
        with create_session() as session:
            xcom = session.scalars(self._of(XComModel, -1, key="mljob")).one()
            xcom.value = {**xcom.value, **facts}

    def set_state(self, state):
        """Set the state of the task instance."""
        place = {"dag_id": ONE_DAG, "run_id": self.run_id, "task_id": "train"}
        with create_session() as session:
            session.execute(update(TaskInstance).filter_by(**place).values(state=state))

    def statuses(self):
        """Where the jobs stand."""
        return {row["name"]: row["status"] for row in self.airflow.query("SHOW JOB SERVICES IN ACCOUNT")}

    def end(self, visitor, index=-1):
        """Cancel a job, and wait until it has ended."""
        assert 200 == self.post(visitor, "cancel", index).status_code
        self.airflow.query(f"CALL {self.job_id(index)}!SPCS_WAIT_FOR('CANCELLED', {budget():.0f})")

    def post(self, visitor, action, index=-1, **body):
        """Press a button."""
        return visitor.post(f"{self.path}/{action}", **{"map_index": index, "job_id": self.job_id(index), **body})


def forget_rendered_fields():
    """Remove what Airflow keeps of the newest runs only."""
    with create_session() as session:
        session.execute(delete(RenderedTaskInstanceFields))


@pytest.fixture
def submitted(airflow, visitor):
    """Have a task submit a job."""
    return Submitted(airflow)


def detail(answer):
    """Return the one sentence of an error."""
    assert ["detail"] == list(answer.json())
    assert "\n" not in answer.json()["detail"]
    return answer.json()["detail"]


class TestCancel:
    """POST cancel."""

    def test_cancel(self, submitted, user):
        """The job is stopped; one that is over stays as it is."""
        first = submitted.post(user, "cancel")
        submitted.end(user)
        second = submitted.post(user, "cancel")

        assert [200, 200] == [first.status_code, second.status_code]
        assert first.json()["status"] in {"CANCELLING", "CANCELLED"}
        assert {"job_id": submitted.job_id(), "status": "CANCELLED"} == second.json()

    def test_event_log(self, submitted, user):
        """Airflow's event log says who it was."""
        submitted.post(user, "cancel")
        with create_session() as session:
            entry = session.scalars(select(Log).filter_by(event="mljobs.cancel").order_by(Log.id.desc())).first()

            assert (ONE_DAG, submitted.run_id, "train", "user") == (
                entry.dag_id, entry.run_id, entry.task_id, entry.owner,
            )  # fmt: skip
            assert submitted.job_id() == json.loads(entry.extra)["job_id"]

    def test_mapped(self, airflow, user):
        """One of a mapped task's jobs."""
        submitted = Submitted(airflow, mapped=2)
        submitted.end(user, 1)
        names = [submitted.job_id(index).rpartition(".")[2] for index in (0, 1)]

        assert dict(zip(names, ["RUNNING", "CANCELLED"], strict=True)) == submitted.statuses()
        assert 404 == submitted.post(user, "cancel", 1, map_index=-1).status_code

    def test_another_job(self, submitted, user):
        """The page may be older than the task's job."""
        answer = submitted.post(user, "cancel", job_id="MLJOBS_DB.PUBLIC.MLJOB_TRAIN_0123456789AB_0_1")

        assert (409, {"RUNNING"}) == (answer.status_code, set(submitted.statuses().values()))
        assert submitted.job_id() in detail(answer)

    @pytest.mark.parametrize("action", ["cancel", "drop"])
    def test_gone(self, submitted, user, action):
        """A job that has been dropped."""
        submitted.airflow.query(f"DROP SERVICE {submitted.job_id()}")
        answer = submitted.post(user, action)

        assert 404 == answer.status_code
        assert "does not exist or not authorized" in detail(answer)

    @pytest.mark.parametrize("path", ["runs/nobodys/tasks/train", "runs/{}/tasks/nobodys"])
    def test_no_job(self, submitted, user, path):
        """A task instance without a job."""
        path = f"dags/{ONE_DAG}/{path.format(submitted.run_id)}/cancel"

        assert 404 == user.post(path, job_id=submitted.job_id()).status_code


class TestDrop:
    """POST drop."""

    def test_drop(self, submitted, user):
        """A job that runs has to be cancelled first."""
        running = submitted.post(user, "drop")
        left = submitted.airflow.jobs
        submitted.end(user)
        dropped = submitted.post(user, "drop")

        assert (409, 1) == (running.status_code, len(left))
        assert "is RUNNING. Cancel it before you drop it." in detail(running)
        assert (200, "DROPPED", []) == (dropped.status_code, dropped.json()["status"], submitted.airflow.jobs)

    def test_of_a_task_that_goes_on(self, submitted, user):
        """A task that isn't over would miss the result of its job."""
        submitted.end(user)
        answers = []
        for state in ("deferred", "running", "up_for_retry", None):
            submitted.set_state(state)
            answers.append(submitted.post(user, "drop"))

        assert ([409] * 4, 1) == ([answer.status_code for answer in answers], len(submitted.airflow.jobs))
        assert all("still needs the result" in detail(answer) for answer in answers)


class TestForgedXComs:
    """Whoever may edit a task's XComs may name any job and any connection in them."""

    def test_names(self, airflow, user, submitted):
        """By its name a job isn't the task's: Snowflake isn't even asked."""
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
        """A job of that name that another has made: it isn't shown, and nothing of it is touched."""
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
        """The API server logs in by the task's connection only, whatever other one the XCom names."""
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
        """Of runs whose rendered fields Airflow keeps no more, the DAG in its version names the connection."""
        settings = {"mapped": 1, "snowflake_conn_id": "snowflake_default"} if is_mapped else {}
        submitted, index = Submitted(airflow, **settings), 0 if is_mapped else -1
        forget_rendered_fields()
        answer = user.get(f"{submitted.path}/specification", map_index=index)

        assert 200 == answer.status_code

    def test_an_old_run_of_a_template(self, airflow, user):
        """A connection that was a template is known no more then, and nobody logs in by a guess."""
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
        """A connection that is none to Snowflake, or doesn't let us in, is said in a sentence without a password."""
        if isinstance(connection, dict):
            parts = json.loads(airflow.snowflake.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
            connection = json.dumps({**parts, **connection})
        monkeypatch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", connection)
        answer = submitted.post(user, "cancel")

        assert (expected, {"RUNNING"}) == (answer.status_code, set(submitted.statuses().values()))
        assert "hunter2" not in detail(answer)

    def test_another_airflow(self, user, submitted, monkeypatch):
        """The job of a task of the same names in another Airflow."""
        monkeypatch.setenv("AIRFLOW__MLJOBS__DEPLOYMENT", "another")

        assert 409 == submitted.post(user, "cancel").status_code


class TestSpecification:
    """GET specification."""

    def test_secrets(self, airflow, user, tmp_path):
        """What is secret by its name isn't shown, nor arguments, which have no names; anything else is."""
        from airflow.sdk._shared.secrets_masker import _secrets_masker

        script = tmp_path / "job.py"
        script.write_text(SCRIPT)
        environment = {"API_TOKEN": SECRET, "ODD_PASSWORD": PASSWORD, "EPOCHS": "12", "ODD": "\N{ROCKET}"}
        submitted = Submitted(airflow, source=str(script), args=["--key", SECRET], env_vars=environment)
        # The task has run in this process, and told Airflow what is secret: that must not help here.
        _secrets_masker().reset_masker()
        answer = user.get(f"{submitted.path}/specification")
        shown = yaml.safe_load(answer.json()["specification"])["spec"]["containers"][0]

        assert (200, submitted.job_id()) == (answer.status_code, answer.json()["job_id"])
        assert {"API_TOKEN": "***", "ODD_PASSWORD": "***", "MLJOBS_ARGS": "***"}.items() <= shown["env"].items()
        assert {"EPOCHS": "12", "ODD": "\N{ROCKET}"}.items() <= shown["env"].items()
        assert SECRET not in answer.text
        assert "a password" not in answer.text
        assert ["python", "/mnt/job_stage/payload.pyz"] == shown["args"]

    def test_of_the_users_own(self, airflow, user):
        """In a specification of the user's own, the values of options that are secret by their names are hidden."""
        args = ["--password", SECRET, f"--api-key={SECRET}", "--epochs", "12", f"TOKEN={SECRET}"]
        container = {
            "name": "main",
            "image": "/db/schema/repository/image:1",
            "command": ["sleep", "300"],
            "args": args,
        }
        submitted = Submitted(airflow, source=None, stage_name=None, spec={"spec": {"containers": [container]}})
        answer = user.get(f"{submitted.path}/specification")
        shown = yaml.safe_load(answer.json()["specification"])["spec"]["containers"][0]

        assert ["--password", "***", "--api-key=***", "--epochs", "12", "TOKEN=***"] == shown["args"]

    def test_of_a_job_that_is_gone(self, submitted, user):
        """Tasks drop their jobs, unless told otherwise."""
        submitted.airflow.query(f"DROP SERVICE {submitted.job_id()}")
        answer = user.get(f"{submitted.path}/specification")

        assert 404 == answer.status_code
        assert f"Job {submitted.job_id()} was dropped" in detail(answer)

    def test_query_tag(self, submitted, user):
        """Snowflake's history tells that the page has asked."""
        user.get(f"{submitted.path}/specification")
        told = "SELECT QUERY_TEXT, QUERY_TAG FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY(RESULT_LIMIT => 10000))"
        tags = {row["query_tag"] for row in submitted.airflow.query(told) if "DESCRIBE" in row["query_text"]}

        assert role_tag("ui") in tags

    def test_no_rights(self, submitted, user):
        """A role that isn't shown the specification, as Snowflake has it for all but the owner's."""
        submitted.airflow.snowflake.faults.add(Fault(matching="DESCRIBE SERVICE", effect="error", errno=3001))
        answer = user.get(f"{submitted.path}/specification")
        submitted.airflow.snowflake.faults.clear()

        assert 404 == answer.status_code


class TestUsage:
    """GET usage."""

    def test_usage(self, submitted, user):
        """Series for charts, or why there are none."""
        answer = user.get(f"{submitted.path}/usage")

        assert (200, submitted.job_id()) == (answer.status_code, answer.json()["job_id"])
        assert answer.json()["usage"] or answer.json()["reason"]

    def test_of_a_job_that_is_gone(self, submitted, user):
        """Snowflake may know it still: its name is the task's."""
        submitted.airflow.query(f"DROP SERVICE {submitted.job_id()}")

        assert 200 == user.get(f"{submitted.path}/usage").status_code


class TestCleanUp:
    """POST clean-up."""

    @pytest.fixture
    def admin(self, visitor):
        """Somebody who may clean up."""
        return visitor("admin")

    def test_clean_up(self, submitted, admin):
        """First what would be done; then it is."""
        submitted.end(admin)
        wanted = {"older_than_hours": 0, "stages": [STAGE]}
        dry = admin.post("clean-up", **wanted)
        left = submitted.airflow.jobs
        wet = admin.post("clean-up", **wanted, dry_run=False)

        assert ([200, 200], 1, []) == ([dry.status_code, wet.status_code], len(left), submitted.airflow.jobs)
        assert ["would drop", "dropped"] == [answer.json()["items"][0]["action"] for answer in (dry, wet)]
        item = wet.json()["items"][0]
        assert ("job", submitted.job_id(), "success", "CANCELLED", "") == tuple(
            item[name] for name in ("kind", "name", "task_state", "job_status", "error")
        )
        assert datetime.fromisoformat(item["created"])
        assert "dropped 1 job" in wet.json()["summary"]

    @pytest.mark.parametrize("schema", [None, "account", "MLJOBS_DB.PUBLIC", "public"])
    def test_schemas(self, submitted, admin, schema):
        """The connection's schema, one by its name, or the whole account; what is young is left alone."""
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
        """One sentence says what is wrong."""
        answer = admin.post("clean-up", **body)

        assert expected == answer.status_code
        assert detail(answer)

    def test_connection_of_the_database(self, submitted, admin, monkeypatch):
        """The API server finds connections in Airflow's database."""
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
    """When Snowflake can't be asked."""

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
        """One sentence says what Snowflake says."""
        submitted.airflow.snowflake.faults.add(fault)
        answer = submitted.post(user, "cancel")
        submitted.airflow.snowflake.faults.clear()

        assert 502 == answer.status_code
        assert detail(answer).startswith("Snowflake request failed: ")
