"""The example DAGs, run to their end, because people copy them: with an account's times, a minute in a second."""

import base64
import importlib.util
import json
import runpy
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.dag_processing.dagbag import DagBag

from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.jobs.comment import Origin, TaskKey
from airflow_provider_mljobs.jobs.names import Identifier
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.spec.job import JobSpec
from tests import git_server
from tests.lab import served

EXAMPLES = Path(__file__).parents[1] / "example_dags"
DAGS = [
    "data_frames",
    "definition",
    "file_with_args",
    "function_job",
    "git_source",
    "maintenance",
    "notifications",
    "own_image",
    "private_packages",
    "ray_cluster",
    "sql_and_jobs",
    "sweep",
    "weekly_retraining",
]


def test_all_are_here():
    """Every DAG file is run below."""
    files = {path.stem for path in EXAMPLES.glob("*.py")} - {"demo"}

    assert set(DAGS) == files


@pytest.fixture(scope="module")
def jobs_snowflake():
    """Serve a Snowflake that takes its time."""
    with served(realistic=True, speed=60) as server:
        yield server


@pytest.fixture
def example(airflow, monkeypatch):
    """Run an example DAG by its name. Tasks wait as long for the end of a log as five minutes would be."""
    monkeypatch.setenv("AIRFLOW__MLJOBS__MAX_LOG_LAG_SECONDS", "5")

    def run(name, **params):
        bag = DagBag(EXAMPLES / f"{name}.py")
        assert {} == bag.import_errors
        return airflow.run(bag.dags[name], params)

    return run


def test_function_job(example):
    """A function's result goes to the next task."""
    run = example("function_job")

    assert {"mean": 7.25, "stdev": pytest.approx(4.35, abs=0.01)} == run.xcom("describe")
    assert "success" == run.state


def test_file_with_args(example):
    """A script gets rendered arguments, and an environment in which nothing is expanded."""
    run = example("file_with_args")

    expected = {
        "title": "Report for week 47",
        "lines": 3,
        "greeting": "Hello from $(anywhere), nothing is expanded",
    }
    assert expected == run.xcom("report")


def test_sweep(example):
    """One job per candidate; the best one is taken."""
    run = example("sweep")

    assert "success" == run.state
    assert run.xcom("best")["depth"] in {2, 3, 4}


def allow(airflow, name):
    """Make an external access integration; here jobs reach this machine anyway."""
    airflow.query(f"CREATE OR REPLACE NETWORK RULE {name}_RULE MODE = EGRESS TYPE = HOST_PORT VALUE_LIST = ('0.0.0.0')")
    airflow.query(
        f"CREATE OR REPLACE EXTERNAL ACCESS INTEGRATION {name} ALLOWED_NETWORK_RULES = ({name}_RULE) ENABLED = TRUE"
    )


def test_data_frames(example):
    """A frame goes from job to job by reference, and to a plain task through the hook."""
    run = example("data_frames")

    assert 7425.0 == run.xcom("total")
    assert [{"id": 0, "amount": 0.0}, {"id": 1, "amount": 1.5}] == run.xcom("first_rows")


def test_sql_and_jobs(example, airflow):
    """Airflow's SQL and Snowpark tasks and a job share one connection and its tables."""
    airflow.query("DROP TABLE IF EXISTS SALES_TRENDS")
    run = example("sql_and_jobs", days=50)

    assert "success" == run.state
    assert [{"n": 50}] == airflow.query("SELECT COUNT(*) AS N FROM SALES")
    assert {"slope": 3.0, "base": 7.0} == run.xcom("fit")
    assert 1 == run.xcom("record")
    assert [{"base": 7.0, "slope": 3.0}] == airflow.query("SELECT * FROM SALES_TRENDS")


def test_definition(example, airflow):
    """Four tasks, one upload; the best is taken."""
    airflow.snowflake.statements.clear()
    run = example("definition")

    assert {"depth": 4, "loss": 0.0} == run.xcom("best")
    assert 1 == len(airflow.snowflake.statements.matching("^PUT"))


def test_own_image(example, airflow):
    """An image runs with its own specification; files of its volume are on the stage."""
    airflow.query("CREATE IMAGE REPOSITORY IF NOT EXISTS IMAGES")
    run = example("own_image")

    assert "scored 10 rows of LOAN_APPLICATIONS" == run.xcom("score", "logs")
    assert 1 == len([row for row in airflow.query("LIST @ML_PAYLOADS/scores") if row["name"].endswith("scores.csv")])


@pytest.mark.skipif(not git_server.has_backend(), reason="this git has no http-backend")
def test_git_source(example, airflow, tmp_path):
    """The job clones a private repository with the secret; the commit is in XCom."""
    repository = tmp_path / "models"
    (repository / "training").mkdir(parents=True)
    (repository / "training" / "train.py").write_text("import sys\n__return__ = {'auc': 0.9, 'args': sys.argv[1:]}\n")
    for command in (["init", "--quiet", "--initial-branch=main"], ["add", "."], ["commit", "--quiet", "-m", "first"]):
        git_server.git(repository, *command)
    airflow.query("CREATE OR REPLACE SECRET GIT_TOKEN TYPE = PASSWORD USERNAME = 'me' PASSWORD = 't0ken'")
    allow(airflow, "GIT_HOST")
    with git_server.serving(tmp_path) as server:
        server.credentials = "Basic " + base64.b64encode(b"me:t0ken").decode()
        run = example("git_source", repository=f"http://127.0.0.1:{server.server_port}/models")

    commit = git_server.git(repository, "rev-parse", "main")
    assert f"{commit[:7]} reached 0.9" == run.xcom("record")
    assert {"auc": 0.9, "args": ["--rounds", "3"]} == run.xcom("train")


@pytest.fixture
def feed(tmp_path):
    """Serve a package index that wants a password."""
    distribution, package = "mljobs_example_features-1.0", tmp_path / "simple" / "mljobs-example-features"
    package.mkdir(parents=True)
    with zipfile.ZipFile(package / f"{distribution}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            "mljobs_example_features.py", "def scale(values):\n    return [v / max(values) for v in values]\n"
        )
        wheel.writestr(
            f"{distribution}.dist-info/METADATA", "Metadata-Version: 2.1\nName: mljobs-example-features\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{distribution}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{distribution}.dist-info/RECORD", "")

    class Index(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def do_GET(self):
            if self.headers.get("Authorization") != "Basic " + base64.b64encode(b"me:t0ken").decode():
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="feed"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            super().do_GET()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://me:t0ken@127.0.0.1:{server.server_port}/simple"
        server.shutdown()
        thread.join()


def test_private_packages(example, airflow, feed):
    """Pip finds the feed in a secret, which is neither in the specification nor in Airflow."""
    airflow.query(f"CREATE OR REPLACE SECRET PRIVATE_FEED_URL TYPE = GENERIC_STRING SECRET_STRING = '{feed}'")
    allow(airflow, "PRIVATE_FEED")
    run = example("private_packages")

    assert [0.25, 0.5, 1.0] == run.xcom("features")
    assert [] == airflow.snowflake.statements.matching("EXECUTE JOB.*t0ken")


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray isn't installed: pip install '.[ray]'")
def test_ray_cluster(example):
    """The instances form one Ray cluster, which starts with at least two of them."""
    run = example("ray_cluster")

    search = run.xcom("search")
    assert 0.3 == search["best"]
    assert search["instances"] in {2, 3}


def latest_event(asset):
    """Return the latest event of an asset from Airflow's database."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        events = session.scalars(
            select(AssetEvent)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(AssetModel.name == asset)
            .order_by(AssetEvent.id.desc())
        )
        return events.first()


def test_weekly_retraining(example, airflow):
    """The model is trained, evaluated and promoted; the asset event carries its metrics; only saved files stay."""
    run = example("weekly_retraining")

    metrics = run.xcom("evaluate")
    assert {
        "prepare": "success",
        "train": "success",
        "evaluate": "success",
        "good_enough": "success",
        "promote": "success",
        "keep_current": "skipped",
    } == run.tasks
    assert metrics["auc"] > 0.7
    assert 20_000 == metrics["rows"]
    assert [] == airflow.jobs
    assert {"metrics.json", "model.json"} == {name.rpartition("/")[2] for name in airflow.files}
    assert 1 == len(airflow.query("LIST @ML_PAYLOADS/models/current/model.json"))
    assert metrics == latest_event("loan_default_model").extra


@pytest.fixture
def webhook(monkeypatch):
    """Serve the address in the variable; returns the posted messages."""
    messages = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self):
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AIRFLOW_VAR_MLJOBS_WEBHOOK", f"http://127.0.0.1:{server.server_port}/")
        yield messages
        server.shutdown()
        thread.join()


def test_notifications(example, webhook):
    """A failed job sends a message with the class of its failure and the person in charge."""
    run = example("notifications", rows=0)

    (message,) = webhook
    assert ("user error", run.xcom("train", "job_id")) == (message["failure"], message["job_id"])
    assert "There are no rows this week." in message["text"]
    assert message["text"].endswith("In charge: the authors of the DAG.")


def test_notifications_of_success(example, webhook):
    """A successful job sends no message."""
    assert ("success", []) == (example("notifications").state, webhook)


def test_notifications_of_a_lost_worker():
    """For a lost worker Airflow calls back without an exception, and the message says so."""
    describe = runpy.run_path(str(EXAMPLES / "notifications.py"))["describe"]

    message = describe({"ti": SimpleNamespace(dag_id="d", task_id="t", run_id="r", log_url="http://log")})

    assert "d.t failed without an exception" in message["text"]


def test_notifications_without_a_webhook(example, capsys):
    """Without a webhook the messages are in the log."""
    example("notifications", rows=0)

    assert "notifications.train failed (user error): Job" in capsys.readouterr().out


@pytest.mark.parametrize(("dry_run", "expected"), [(True, "would drop 1 job"), (False, "dropped 1 job")])
def test_maintenance(example, airflow, monkeypatch, dry_run, expected):
    """A job whose DAG run is gone is dropped; one that was submitted by hand stays."""
    monkeypatch.setenv("AIRFLOW__MLJOBS__DEPLOYMENT", "lab")
    task = TaskKey(airflow="lab", dag_id="deleted", run_id="r", task_id="train")
    origin = Origin(task=task, run_started="2026-01-01", epoch=0, try_number=1)
    with MLJobHook() as hook:
        common = {"compute_pool": Identifier("ML_POOL"), "stage": hook.stage("@ML_PAYLOADS")}
        for name, comment in ((str(task.job_name(0, 1)), origin.to_comment()), ("MLJOB_BY_HAND", "")):
            hook.submit(JobSpec(name=hook.job(name), comment=comment, **common), Payload.of_function(lambda: 1))
    run = example("maintenance", days=0, dry_run=dry_run)

    assert run.xcom("collect").startswith(f"{expected}; 0 jobs kept; 1 job not of this Airflow")
    assert (2 if dry_run else 1) == len(airflow.jobs)
    assert "MLJOB_BY_HAND" in airflow.jobs
