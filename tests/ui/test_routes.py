"""What the page is told of jobs: by Airflow's own app, out of a database with jobs of five DAGs."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import delete, select, update

from tests.ui.api import OF_ONE_DAG, ONE_DAG, WITHOUT_XCOMS, seeded, served
from tests.ui.seeds import DAGS, POOLS

JOBS = 75
OF_EACH_DAG = JOBS // len(DAGS)
RUNNING = 25
KEY = ("dag_id", "run_id", "task_id", "map_index")
NOW = datetime.now(UTC)
OF_TASK = "dags/recommender/runs/r/tasks/train"
OLD = "2026-01-01T00:00:00"
# What an XCom may be instead of what the task has pushed.
FORGED = [
    None, True, 7, 1e308, "s3://bucket/of/a/custom/backend", "\ud800", "", [], [1, [2]], {}, math.nan, math.inf,
    {"job_id": {}}, {"job_id": ["x"]}, {"job_id": "\ud800"}, {"job_id": 10**400, "compute_pool": 10**400},
    {"job_id": "A.B.C", "compute_pool": 3, "target_instances": "two", "submitted_at": "yesterday", "snowsight": 1},
    {"job_id": "A.B.C", "submitted_at": OLD, "snowsight": "javascript:alert(1)", "target_instances": 10**400},
    {"job_id": "A.B.C", "submitted_at": f"0001{OLD[4:]}+23:00", "snowsight": "https://[", "compute_pool": math.nan},
]  # fmt: skip
PARTS = ("timeline", "progress", "metrics", "endpoints", "status")
UNREADABLE = [value for value in FORGED if not isinstance(value, dict)] + [{"running": {}}]
BAD_STEPS = [None, 1, {}, {"phase": "running"}, {"phase": [], "at": []}, {"phase": "x", "at": f"{OLD}Z"}]


@pytest.fixture(scope="module")
def monkeymodule():
    """Patch something for the whole module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield monkeypatch


@pytest.fixture(scope="module")
def database(monkeymodule, tmp_path_factory):
    """Fill a database."""
    with seeded(monkeymodule, tmp_path_factory.mktemp("database"), JOBS, now=NOW) as sessions:
        yield sessions


@pytest.fixture(scope="module")
def visitor(monkeymodule, database):
    """Serve the API; makes visitors by their names."""
    with served(monkeymodule) as visitors:
        yield visitors


@pytest.fixture
def viewer(visitor):
    """Somebody who may see everything."""
    return visitor("viewer")


@pytest.fixture
def xcom(database):
    """Write an XCom of a task instance for the length of a test; ``...`` removes it."""
    before = []

    def write(job, key, value):
        place = [getattr(XComModel, name) == job[name] for name in KEY]
        with database() as session:
            columns = XComModel.__table__.columns
            (row,) = session.execute(select(*columns).where(*place, XComModel.key == key)).mappings()
            before.append(dict(row))
            statement = delete(XComModel) if value is ... else update(XComModel).values(value=value)
            session.execute(statement.where(*place, XComModel.key == key))
            session.commit()

    yield write
    with database() as session:
        for row in reversed(before):
            key = {name: row[name] for name in ("dag_run_id", "task_id", "map_index", "key")}
            session.execute(delete(XComModel).filter_by(**key))
            session.execute(XComModel.__table__.insert(), [row])
        session.commit()


def one(viewer, **params):
    """Return the newest job that fits."""
    return viewer.get("jobs", limit=1, **params).json()["jobs"][0]


def same(viewer, job):
    """Return a job as it is now."""
    jobs = viewer.get("jobs", limit=500, dag_id=job["dag_id"]).json()["jobs"]
    return next(each for each in jobs if all(each[name] == job[name] for name in KEY))


def place(job):
    """Return the way to a task instance."""
    return f"dags/{job['dag_id']}/runs/{job['run_id']}/tasks/{job['task_id']}"


class TestList:
    """GET jobs."""

    def test_a_job(self, viewer):
        """Everything that the page shows of a job that runs; no curves, and nothing of the next triggerer's."""
        job = one(viewer, dag_id="churn_weekly", text="tune")

        assert ("churn_weekly", "tune", 3, "depth 8", 1, "deferred") == tuple(
            job[name] for name in ("dag_id", "task_id", "map_index", "map_label", "try_number", "state")
        )
        assert ("ML_POOL", 2, "RUNNING", "running", "snowflake_default") == tuple(
            job[name] for name in ("compute_pool", "target_instances", "status", "phase", "snowflake_conn_id")
        )
        assert {"fraction": 0.4, "message": "epoch 4/10"}.items() <= job["progress"].items()
        assert {"auc", "loss"} == job["metrics"].keys()
        assert "https://abcdef-org-account.snowflakecomputing.app" == job["ray_dashboard"]
        assert job["snowsight"].endswith(job["job_id"])
        assert 5 <= job["queued_seconds"] <= 90
        assert {"series", "cursors", "timeline"}.isdisjoint(job)

    def test_times(self, viewer):
        """A job that is over: how long it has waited and run."""
        job = one(viewer, state="success")
        begin, started, ended = (
            datetime.fromisoformat(job[name]) for name in ("submitted_at", "started_at", "ended_at")
        )

        assert ("DONE", "finishing", "DONE") == (job["status"], job["phase"], job["message"])
        assert round((started - begin).total_seconds(), 3) == job["queued_seconds"]
        assert round((ended - started).total_seconds(), 3) == job["run_seconds"]

    def test_running(self, viewer, xcom):
        """A job that runs has run until now; one that waits has waited until now, and has not run."""
        job = one(viewer)
        ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        steps = [{"phase": "queued", "at": ago, "message": ""}, {"phase": "running", "at": ago, "message": ""}]
        watched = {"job_id": job["job_id"], "status": "RUNNING", "timeline": steps}
        xcom(job, "mljob_watched", watched)
        running = same(viewer, job)
        xcom(job, "mljob_watched", watched | {"timeline": steps[:1], "status": "PENDING"})
        queued = same(viewer, job)

        assert 3600 <= running["run_seconds"] < 3700
        assert (None, "queued", "PENDING") == (queued["run_seconds"], queued["phase"], queued["status"])
        submitted = datetime.fromisoformat(queued["submitted_at"])
        assert 0 <= (datetime.now(UTC) - submitted).total_seconds() - queued["queued_seconds"] < 100

    @pytest.mark.parametrize("state", ["failed", "up_for_retry", "queued", None])
    def test_lost(self, viewer, xcom, database, state):
        """Of a job whose task is over nobody says any more how it goes on: it counts until the task's end."""
        job = one(viewer)
        begin = datetime.fromisoformat(job["submitted_at"])
        steps = [{"phase": "running", "at": (begin + timedelta(seconds=10)).isoformat(), "message": ""}]
        endpoints = {"ray-dashboard-endpoint": "https://ray.example"}
        watched = {"job_id": job["job_id"], "status": "RUNNING", "timeline": steps, "endpoints": endpoints}
        xcom(job, "mljob_watched", watched)
        of_job = [getattr(TaskInstance, name) == job[name] for name in KEY]

        def end(**values):
            with database() as session:
                session.execute(update(TaskInstance).where(*of_job).values(**values))
                session.commit()

        end(state=state, end_date=begin + timedelta(seconds=70))
        found = same(viewer, job)
        end(state=job["state"], end_date=None)

        assert (10.0, 60.0, None) == (found["queued_seconds"], found["run_seconds"], found["ray_dashboard"])
        assert "RUNNING" == found["status"]

    def test_unwatched(self, viewer, xcom):
        """Of a job that its task hasn't waited for, nobody knows how long it was queued."""
        job = one(viewer, state="success")
        xcom(job, "mljob_watched", ...)
        found = same(viewer, job)

        assert (None, None) == (found["queued_seconds"], found["run_seconds"])

    @pytest.mark.parametrize(("status", "queued"), [("DONE", None), ("CANCELLED", 30.0)])
    def test_never_seen_running(self, viewer, xcom, status, queued):
        """A job that is done has run, between two looks at it; one that was cancelled may have been queued only."""
        job = one(viewer, state="success")
        submitted = datetime.fromisoformat(job["submitted_at"])
        steps = [
            {"phase": phase, "at": (submitted + timedelta(seconds=seconds)).isoformat(), "message": ""}
            for phase, seconds in (("queued", 1), ("finishing", 30))
        ]
        xcom(job, "mljob_watched", {"job_id": job["job_id"], "status": status, "timeline": steps})
        found = same(viewer, job)

        assert (queued, None) == (found["queued_seconds"], found["run_seconds"])

    def test_ray_dashboard(self, viewer, xcom):
        """It is one endpoint of several, by its name."""
        job = one(viewer)
        others = {"a": "https://a.example", "tensorboard": "https://b.example"}
        found = []
        for endpoints in (others, {**others, "ray-dashboard-endpoint": "https://ray.example"}):
            xcom(job, "mljob_watched", {"job_id": job["job_id"], "endpoints": endpoints})
            found.append(same(viewer, job)["ray_dashboard"])

        assert [None, "https://ray.example"] == found

    def test_pages(self, viewer):
        """The newest first; pages neither overlap nor leave anything out."""
        pages = [viewer.get("jobs", limit=7, offset=offset).json() for offset in range(0, JOBS, 7)]
        jobs = [job for page in pages for job in page["jobs"]]
        times = [job["submitted_at"] for job in jobs]

        assert {JOBS} == {page["total"] for page in pages}
        assert (JOBS, JOBS) == (len(jobs), len({tuple(job[name] for name in KEY) for job in jobs}))
        assert sorted(times, reverse=True) == times
        assert {"total": JOBS, "jobs": []} == viewer.get("jobs", offset=10**9).json()

    @pytest.mark.parametrize(
        ("params", "total"),
        [
            ({}, JOBS),
            ({"dag_id": "recommender"}, OF_EACH_DAG),
            ({"dag_id": "nobodys"}, 0),
            ({"dag_id": "", "state": "", "pool": "", "text": ""}, JOBS),
            ({"pool": "ML_POOL_GPU"}, 2 * OF_EACH_DAG),
            ({"pool": "ml_pool_gpu"}, 0),
            ({"state": "deferred"}, RUNNING),
            ({"state": ["failed", "success", "none"]}, JOBS - RUNNING),
            ({"state": "none"}, 0),
            ({"text": "RECOMM"}, OF_EACH_DAG),
            ({"text": "mljob_train_"}, OF_EACH_DAG),
            ({"text": "scheduled__"}, JOBS),
            ({"text": "%"}, 0),
            ({"text": "' OR 1=1 --"}, 0),
            ({"text": "tune", "dag_id": "recommender", "state": "deferred", "pool": "ML_POOL"}, 4),
        ],
        ids=str,
    )
    def test_filters(self, viewer, params, total):
        """By DAG, state of the task, compute pool, and a text in the ids; together they all have to fit."""
        assert total == viewer.get("jobs", **params).json()["total"]

    def test_no_state(self, viewer, database):
        """A task that was cleared has no state; its last job is still shown."""
        job = one(viewer, dag_id="fraud_weekly")
        of_job = [getattr(TaskInstance, name) == job[name] for name in KEY]
        with database() as session:
            session.execute(update(TaskInstance).where(*of_job).values(state=None))
            session.commit()
        found = viewer.get("jobs", state="none").json()
        with database() as session:
            session.execute(update(TaskInstance).where(*of_job).values(state=job["state"]))
            session.commit()

        assert (1, None, job["job_id"]) == (found["total"], found["jobs"][0]["state"], found["jobs"][0]["job_id"])

    @pytest.mark.parametrize(
        "params",
        [
            {"limit": 0}, {"limit": 501}, {"limit": "x"}, {"offset": -1}, {"offset": 10**20}, {"state": "bogus"},
            {"text": "a\0b"}, {"dag_id": "\0"}, {"pool": "\0"}, {"text": "x" * 1001}, {"state": ["failed"] * 101},
        ],
        ids=str,
    )  # fmt: skip
    def test_bad_requests(self, viewer, params):
        """One sentence says what is wrong."""
        answer = viewer.get("jobs", **params)

        assert 400 == answer.status_code
        assert answer.json()["detail"].endswith(".")

    @pytest.mark.parametrize("name", ["dag_id", "run_id", "task_id"])
    @pytest.mark.parametrize("what", ["specification", "usage", "cancel", "drop"])
    def test_long_names(self, visitor, name, what):
        """Nothing in Airflow has a name of more than 1000 characters, so nothing is looked for."""
        place = {"dag_id": "recommender", "run_id": "r", "task_id": "train", name: "x" * 1001}
        path = "dags/{dag_id}/runs/{run_id}/tasks/{task_id}/".format(**place) + what
        answer = visitor("admin").get(path) if what in {"specification", "usage"} else visitor("admin").post(path)

        assert 400 == answer.status_code
        assert "at most 1000 characters" in answer.json()["detail"]

    @pytest.mark.parametrize(
        "body", [{"job_id": "x" * 1001}, {"job_id": "a", "map_index": 2**31}], ids=["name", "index"]
    )
    def test_long_names_in_a_body(self, visitor, body):
        """The same holds for the job that a button is pressed for."""
        answer = visitor("admin").post("dags/recommender/runs/r/tasks/train/cancel", **body)

        assert 400 == answer.status_code

    def test_many_stages(self, visitor):
        """Clean-up takes some stages at once, not any number."""
        answer = visitor("admin").post("clean-up", stages=["@a.b.c"] * 101)

        assert 400 == answer.status_code

    def test_filter_values(self, visitor):
        """What there is to choose from."""
        expected = {"dag_ids": list(DAGS), "pools": sorted(POOLS)}

        assert {**expected, "can_clean_up": False} == visitor("user").get("filters").json()
        assert {**expected, "can_clean_up": True} == visitor("admin").get("filters").json()


class TestForgedXComs:
    """Whoever may edit XComs of a task may write anything into them."""

    @pytest.mark.parametrize("value", FORGED, ids=repr)
    def test_of_the_job(self, viewer, xcom, value):
        """What can't be read is unknown; the others are shown, and all can be looked for."""
        job = one(viewer, dag_id="loan_default")
        xcom(job, "mljob", value)
        found = same(viewer, job)
        answers = [viewer.get(*way) for way in (("filters",), ("dags/loan_default/tasks/train/runs",))]
        answers += [viewer.get("jobs", **params) for params in ({"pool": "ML_POOL"}, {"text": "mljob_"}, {})]

        assert [200] * 5 == [answer.status_code for answer in answers]
        assert JOBS == answers[-1].json()["total"]
        assert (None, None, {}) == (found["status"], found["snowsight"], found["metrics"])
        assert found["job_id"] in {None, "A.B.C", "\ufffd"}
        assert {None} == {found[name] for name in ("target_instances", "compute_pool", "submitted_at")}

    @pytest.mark.parametrize(
        "watched",
        [
            *(dict.fromkeys(PARTS, value) for value in UNREADABLE),
            {"timeline": BAD_STEPS},
            {"progress": {"fraction": math.nan}},
            {"progress": {"fraction": True}},
            {"metrics": {"loss": "low", "f1": True, "auc": [0.9]}},
            {"endpoints": {"ray": "javascript:alert(1)", "other": ["https://x"]}},
        ],
        ids=repr,
    )  # fmt: skip
    def test_of_the_watch(self, viewer, xcom, watched):
        """What can't be read is unknown."""
        job = one(viewer)
        xcom(job, "mljob_watched", {**watched, "job_id": job["job_id"]})
        found = same(viewer, job)

        assert (None, {}, None) == (found["progress"], found["metrics"], found["phase"])
        assert found["ray_dashboard"] is None
        assert found["status"] in {None, "UNKNOWN"}

    def test_a_metric_that_is_no_number(self, viewer, xcom):
        """It was reported as NaN: it has a name, and no value."""
        job = one(viewer)
        metrics = {"auc": 0.9, "loss": None}
        xcom(job, "mljob_watched", {"job_id": job["job_id"], "metrics": metrics})

        assert {"auc": 0.9, "loss": None} == same(viewer, job)["metrics"]

    @pytest.mark.parametrize("value", [*FORGED, ...], ids=repr)
    def test_no_watch(self, viewer, xcom, value):
        """An XCom that is none of ours, or isn't there."""
        job = one(viewer)
        xcom(job, "mljob_watched", value)
        found = same(viewer, job)

        assert (None, None, {}) == (found["status"], found["progress"], found["metrics"])

    def test_of_another_job(self, viewer, xcom):
        """What was seen of an earlier job isn't told of this one."""
        job = one(viewer)
        xcom(job, "mljob_watched", {"job_id": "A.B.EARLIER", "status": "FAILED", "metrics": {"auc": 1}})
        found = same(viewer, job)

        assert (None, {}) == (found["status"], found["metrics"])

    def test_sizes(self, viewer, xcom):
        """What is too long is cut; a progress beyond its end is at its end."""
        job = one(viewer)
        metrics = {f"{number} {'m' * 5000}": number for number in range(500)}
        progress = {"fraction": 7, "message": "m" * 5000}
        xcom(job, "mljob_watched", {"job_id": job["job_id"], "metrics": metrics, "progress": progress})
        found = same(viewer, job)

        assert (1.0, 1000) == (found["progress"]["fraction"], len(found["progress"]["message"]))
        assert (100, {1000}) == (len(found["metrics"]), set(map(len, found["metrics"])))


class TestRuns:
    """GET runs: what the model view shows."""

    def test_oldest_first(self, viewer):
        """The newest runs, of which the oldest comes first; each mapped instance is one."""
        runs = viewer.get("dags/recommender/tasks/train/runs").json()["runs"]
        newest = viewer.get("dags/recommender/tasks/tune/runs", limit=1).json()["runs"]

        assert sorted(run["run_after"] for run in runs) == [run["run_after"] for run in runs]
        assert OF_EACH_DAG // 5 == len(runs)
        assert [0, 1, 2, 3] == [run["map_index"] for run in newest]
        assert {"deferred"} == {run["state"] for run in newest}
        assert all(run["metrics"]["auc"] > 0.5 for run in runs)

    @pytest.mark.parametrize(("limit", "jobs"), [(1, 4), (2, 8), (500, 4 * 3)])
    def test_limit(self, viewer, limit, jobs):
        """So many runs, each with all its mapped instances, as far as there is room for them."""
        answer = viewer.get("dags/recommender/tasks/tune/runs", limit=limit).json()
        of_each = min(4, answer["map_indexes"])

        assert jobs * of_each // 4 == len(answer["runs"])
        assert set(range(of_each)) == {run["map_index"] for run in answer["runs"]}

    def test_no_job(self, viewer):
        """A task without jobs has no runs."""
        assert [] == viewer.get("dags/recommender/tasks/nobodys/runs").json()["runs"]


class TestRights:
    """Who may see what."""

    @pytest.mark.parametrize(
        "path", ["jobs", "filters", "dags/recommender/tasks/train/runs", "dags/recommender/rights"]
    )
    def test_anonymous(self, visitor, path):
        """Nobody sees anything."""
        assert 401 == visitor(None).get(path).status_code

    def test_one_dag(self, visitor):
        """A user who may read one DAG sees nothing of the others: no job, no total, no pool, no id."""
        user = visitor(OF_ONE_DAG)
        jobs = user.get("jobs").json()

        assert (OF_EACH_DAG, {ONE_DAG}) == (jobs["total"], {job["dag_id"] for job in jobs["jobs"]})
        assert 0 == user.get("jobs", dag_id="churn_weekly").json()["total"]
        assert 0 == user.get("jobs", text="churn").json()["total"]
        assert {"dag_ids": [ONE_DAG], "pools": ["ML_POOL"], "can_clean_up": False} == user.get("filters").json()
        assert [200, 403] == [user.get(f"dags/{dag}/tasks/train/runs").status_code for dag in (ONE_DAG, "churn_weekly")]
        assert [200, 403] == [user.get(f"dags/{dag}/rights").status_code for dag in (ONE_DAG, "churn_weekly")]

    @pytest.mark.parametrize("path", ["dags/~/tasks/train/runs", "dags/churn_weekly/tasks/train/runs"])
    def test_another_dag_in_the_query(self, visitor, path):
        """The DAG that counts is the one in the path."""
        assert 403 == visitor(OF_ONE_DAG).get(path, dag_id=ONE_DAG).status_code

    def test_without_xcoms(self, visitor):
        """Jobs are told by XComs: who may not read these sees none."""
        user = visitor(WITHOUT_XCOMS)

        assert {"total": 0, "jobs": []} == user.get("jobs").json()
        assert 403 == user.get("dags/recommender/tasks/train/runs").status_code

    @pytest.mark.parametrize(
        ("name", "expected"), [("viewer", False), ("user", True), ("admin", True), (OF_ONE_DAG, True)]
    )
    def test_edit(self, visitor, name, expected):
        """Who may edit the task instances of a DAG."""
        assert {"can_edit": expected} == visitor(name).get("dags/recommender/rights").json()

    @pytest.mark.parametrize("action", ["cancel", "drop"])
    @pytest.mark.parametrize(("name", "expected"), [(None, 401), ("viewer", 403)])
    def test_no_edit(self, visitor, viewer, action, name, expected):
        """Who may not edit them can't end their jobs."""
        job = one(viewer)
        answer = visitor(name).post(f"{place(job)}/{action}", map_index=job["map_index"], job_id=job["job_id"])

        assert expected == answer.status_code

    @pytest.mark.parametrize("action", ["cancel", "drop"])
    def test_edit_of_another_dag(self, visitor, viewer, action):
        """Nor can those who may edit another DAG, whatever they write into query and body."""
        job = one(viewer, dag_id="churn_weekly")
        answer = visitor(OF_ONE_DAG).request(
            "POST",
            f"/mljobs/api/{place(job)}/{action}?dag_id={ONE_DAG}",
            json={"dag_id": ONE_DAG, "map_index": job["map_index"], "job_id": job["job_id"]},
        )

        assert 403 == answer.status_code

    @pytest.mark.parametrize("what", ["specification", "usage"])
    @pytest.mark.parametrize(("name", "expected"), [(None, 401), (OF_ONE_DAG, 403), (WITHOUT_XCOMS, 403)])
    def test_no_reading(self, visitor, viewer, what, name, expected):
        """Snowflake is asked for nobody who may not read the job."""
        job = one(viewer, dag_id="churn_weekly")

        assert expected == visitor(name).get(f"{place(job)}/{what}", map_index=job["map_index"]).status_code

    @pytest.mark.parametrize(
        ("name", "expected"), [(None, 401), ("viewer", 403), ("user", 403), (OF_ONE_DAG, 403), (WITHOUT_XCOMS, 403)]
    )
    def test_no_clean_up(self, visitor, name, expected):
        """Only who may edit all DAGs and connections cleans up, whichever DAG the query names."""
        answer = visitor(name).request("POST", f"/mljobs/api/clean-up?dag_id={ONE_DAG}", json={})

        assert expected == answer.status_code


class TestMutations:
    """What may not come from elsewhere."""

    @pytest.mark.parametrize("path", [f"{OF_TASK}/cancel", f"{OF_TASK}/drop", "clean-up"])
    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
    def test_forms(self, visitor, path, kind):
        """Forms of other sites can't send JSON."""
        answer = visitor("admin").request("POST", f"/mljobs/api/{path}", content=b"{}", headers={"Content-Type": kind})

        assert 415 == answer.status_code

    @pytest.mark.parametrize("path", [f"{OF_TASK}/cancel", "clean-up"])
    def test_methods(self, visitor, path):
        """Nothing is done for a GET."""
        assert 405 == visitor("admin").get(path).status_code

    @pytest.mark.parametrize(
        "body", [b"{", b"[]", b"null", b'{"job_id": 7}', b'{"job_id": "x", "map_index": -2}', b"\xff"]
    )
    def test_bad_bodies(self, visitor, body):
        """One sentence says what is wrong."""
        path = f"/mljobs/api/{OF_TASK}/cancel"
        answer = visitor("admin").request("POST", path, content=body, headers={"Content-Type": "application/json"})

        assert 400 == answer.status_code
        assert isinstance(answer.json()["detail"], str)
