"""The page's lists of jobs, by Airflow's own app, on a database with jobs of five DAGs."""

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
# Forged values of an XCom.
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
    """A monkeypatch for the whole module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield monkeypatch


@pytest.fixture(scope="module")
def database(monkeymodule, tmp_path_factory):
    """A database full of jobs."""
    with seeded(monkeymodule, tmp_path_factory.mktemp("database"), JOBS, now=NOW) as sessions:
        yield sessions


@pytest.fixture(scope="module")
def visitor(monkeymodule, database):
    """Serve the API; returns visitors by name."""
    with served(monkeymodule) as visitors:
        yield visitors


@pytest.fixture
def viewer(visitor):
    """A user who may see everything."""
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
    """Return the newest matching job."""
    return viewer.get("jobs", limit=1, **params).json()["jobs"][0]


def same(viewer, job):
    """Return the current row of a job."""
    jobs = viewer.get("jobs", limit=500, dag_id=job["dag_id"]).json()["jobs"]
    return next(each for each in jobs if all(each[name] == job[name] for name in KEY))


def place(job):
    """Return the path of a task instance."""
    return f"dags/{job['dag_id']}/runs/{job['run_id']}/tasks/{job['task_id']}"


class TestList:
    """GET jobs."""

    def test_a_job(self, viewer):
        """A row has everything that the list shows of a running job, without curves and log positions."""
        job = one(viewer, dag_id="churn_weekly", text="tune")

        assert ("churn_weekly", "tune", 3, "depth 8", 1, "deferred") == tuple(
            job[name] for name in ("dag_id", "task_id", "map_index", "map_label", "try_number", "state")
        )
        assert ("ML_POOL", 2, "RUNNING", "running", "snowflake_default") == tuple(
            job[name] for name in ("compute_pool", "target_instances", "status", "phase", "snowflake_conn_id")
        )
        assert {"fraction": 0.4, "message": "epoch 4/10"}.items() <= job["progress"].items()
        assert {"auc", "loss"} == job["metrics"].keys()
        assert "https://abcdef-spcs.org-account.us-west-2.aws.snowflake.app" == job["ray_dashboard"]
        assert job["snowsight"].endswith(job["job_id"])
        assert 5 <= job["queued_seconds"] <= 90
        assert {"series", "cursors", "timeline"}.isdisjoint(job)

    def test_times(self, viewer):
        """An ended job has its queue and run time."""
        job = one(viewer, state="success")
        begin, started, ended = (
            datetime.fromisoformat(job[name]) for name in ("submitted_at", "started_at", "ended_at")
        )

        assert ("DONE", "finishing", "DONE") == (job["status"], job["phase"], job["message"])
        assert round((started - begin).total_seconds(), 3) == job["queued_seconds"]
        assert round((ended - started).total_seconds(), 3) == job["run_seconds"]

    def test_running(self, viewer, xcom):
        """The run time of a running job, and the queue time of a waiting one, last until now."""
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
        """The times of a job that its task no longer watches last until the task's end."""
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
        current = same(viewer, job)
        end(state=job["state"], end_date=None)

        assert (10.0, 60.0, None) == (current["queued_seconds"], current["run_seconds"], current["ray_dashboard"])
        assert "RUNNING" == current["status"]

    def test_unwatched(self, viewer, xcom):
        """The queue time of a job that its task didn't wait for is unknown."""
        job = one(viewer, state="success")
        xcom(job, "mljob_watched", ...)
        current = same(viewer, job)

        assert (None, None) == (current["queued_seconds"], current["run_seconds"])

    @pytest.mark.parametrize(("status", "queued"), [("DONE", None), ("CANCELLED", 30.0)])
    def test_never_seen_running(self, viewer, xcom, status, queued):
        """A DONE job has run, even if no look saw it; a cancelled one may only have been queued."""
        job = one(viewer, state="success")
        submitted = datetime.fromisoformat(job["submitted_at"])
        steps = [
            {"phase": phase, "at": (submitted + timedelta(seconds=seconds)).isoformat(), "message": ""}
            for phase, seconds in (("queued", 1), ("finishing", 30))
        ]
        xcom(job, "mljob_watched", {"job_id": job["job_id"], "status": status, "timeline": steps})
        current = same(viewer, job)

        assert (queued, None) == (current["queued_seconds"], current["run_seconds"])

    def test_ray_dashboard(self, viewer, xcom):
        """The Ray dashboard is the endpoint of that name."""
        job = one(viewer)
        others = {"a": "https://a.example", "tensorboard": "https://b.example"}
        current = []
        for endpoints in (others, {**others, "ray-dashboard-endpoint": "https://ray.example"}):
            xcom(job, "mljob_watched", {"job_id": job["job_id"], "endpoints": endpoints})
            current.append(same(viewer, job)["ray_dashboard"])

        assert [None, "https://ray.example"] == current

    def test_pages(self, viewer):
        """Pages are newest first, without overlaps and gaps."""
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
        """Filters by DAG, task state, compute pool and text in the ids are combined with AND."""
        assert total == viewer.get("jobs", **params).json()["total"]

    def test_no_state(self, viewer, database):
        """A task that was cleared has no state; its last job is still shown."""
        job = one(viewer, dag_id="fraud_weekly")
        of_job = [getattr(TaskInstance, name) == job[name] for name in KEY]
        with database() as session:
            session.execute(update(TaskInstance).where(*of_job).values(state=None))
            session.commit()
        current = viewer.get("jobs", state="none").json()
        with database() as session:
            session.execute(update(TaskInstance).where(*of_job).values(state=job["state"]))
            session.commit()

        assert (1, None, job["job_id"]) == (current["total"], current["jobs"][0]["state"], current["jobs"][0]["job_id"])

    @pytest.mark.parametrize(
        "params",
        [
            {"limit": 0}, {"limit": 501}, {"limit": "x"}, {"offset": -1}, {"offset": 10**20}, {"state": "bogus"},
            {"text": "a\0b"}, {"dag_id": "\0"}, {"pool": "\0"}, {"text": "x" * 1001}, {"state": ["failed"] * 101},
        ],
        ids=str,
    )  # fmt: skip
    def test_bad_requests(self, viewer, params):
        """An invalid request is refused with one sentence."""
        answer = viewer.get("jobs", **params)

        assert 400 == answer.status_code
        assert answer.json()["detail"].endswith(".")

    @pytest.mark.parametrize("name", ["dag_id", "run_id", "task_id"])
    @pytest.mark.parametrize("what", ["specification", "usage", "cancel", "drop"])
    def test_long_names(self, visitor, name, what):
        """Names of more than 1000 characters are refused: Airflow has none."""
        place = {"dag_id": "recommender", "run_id": "r", "task_id": "train", name: "x" * 1001}
        path = "dags/{dag_id}/runs/{run_id}/tasks/{task_id}/".format(**place) + what
        answer = visitor("admin").get(path) if what in {"specification", "usage"} else visitor("admin").post(path)

        assert 400 == answer.status_code
        assert "at most 1000 characters" in answer.json()["detail"]

    @pytest.mark.parametrize(
        "body", [{"job_id": "x" * 1001}, {"job_id": "a", "map_index": 2**31}], ids=["name", "index"]
    )
    def test_long_names_in_a_body(self, visitor, body):
        """Long names in a body are refused as well."""
        answer = visitor("admin").post("dags/recommender/runs/r/tasks/train/cancel", **body)

        assert 400 == answer.status_code

    def test_many_stages(self, visitor):
        """Clean-up takes at most 100 stages."""
        answer = visitor("admin").post("clean-up", stages=["@a.b.c"] * 101)

        assert 400 == answer.status_code

    def test_filter_values(self, visitor):
        """The filters offer the DAGs and pools with jobs."""
        expected = {"dag_ids": list(DAGS), "pools": sorted(POOLS)}

        assert {**expected, "can_clean_up": False} == visitor("user").get("filters").json()
        assert {**expected, "can_clean_up": True} == visitor("admin").get("filters").json()


class TestForgedXComs:
    """Users who may edit XComs can write anything into them."""

    @pytest.mark.parametrize("value", FORGED, ids=repr)
    def test_of_the_job(self, viewer, xcom, value):
        """A forged XCom makes its values unknown; the job is still listed and can be found."""
        job = one(viewer, dag_id="loan_default")
        xcom(job, "mljob", value)
        current = same(viewer, job)
        answers = [viewer.get(*way) for way in (("filters",), ("dags/loan_default/tasks/train/runs",))]
        answers += [viewer.get("jobs", **params) for params in ({"pool": "ML_POOL"}, {"text": "mljob_"}, {})]

        assert [200] * 5 == [answer.status_code for answer in answers]
        assert JOBS == answers[-1].json()["total"]
        assert (None, None, {}) == (current["status"], current["snowsight"], current["metrics"])
        assert current["job_id"] in {None, "A.B.C", "\ufffd"}
        assert {None} == {current[name] for name in ("target_instances", "compute_pool", "submitted_at")}

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
        """Forged parts of the progress are unknown."""
        job = one(viewer)
        xcom(job, "mljob_watched", {**watched, "job_id": job["job_id"]})
        current = same(viewer, job)

        assert (None, {}, None) == (current["progress"], current["metrics"], current["phase"])
        assert current["ray_dashboard"] is None
        assert current["status"] in {None, "UNKNOWN"}

    def test_a_metric_that_is_no_number(self, viewer, xcom):
        """A metric reported as NaN has a name and no value."""
        job = one(viewer)
        metrics = {"auc": 0.9, "loss": None}
        xcom(job, "mljob_watched", {"job_id": job["job_id"], "metrics": metrics})

        assert {"auc": 0.9, "loss": None} == same(viewer, job)["metrics"]

    @pytest.mark.parametrize("value", [*FORGED, ...], ids=repr)
    def test_no_watch(self, viewer, xcom, value):
        """A forged or missing XCom of the progress is ignored."""
        job = one(viewer)
        xcom(job, "mljob_watched", value)
        current = same(viewer, job)

        assert (None, None, {}) == (current["status"], current["progress"], current["metrics"])

    def test_of_another_job(self, viewer, xcom):
        """The progress of an earlier job is not shown for the current one."""
        job = one(viewer)
        xcom(job, "mljob_watched", {"job_id": "A.B.EARLIER", "status": "FAILED", "metrics": {"auc": 1}})
        current = same(viewer, job)

        assert (None, {}) == (current["status"], current["metrics"])

    def test_sizes(self, viewer, xcom):
        """Long texts are cut, and a progress above 1 is 1."""
        job = one(viewer)
        metrics = {f"{number} {'m' * 5000}": number for number in range(500)}
        progress = {"fraction": 7, "message": "m" * 5000}
        xcom(job, "mljob_watched", {"job_id": job["job_id"], "metrics": metrics, "progress": progress})
        current = same(viewer, job)

        assert (1.0, 1000) == (current["progress"]["fraction"], len(current["progress"]["message"]))
        assert (100, {1000}) == (len(current["metrics"]), set(map(len, current["metrics"])))


class TestRuns:
    """GET runs, for the model view."""

    def test_oldest_first(self, viewer):
        """The newest runs are listed oldest first, with one row for each mapped instance."""
        runs = viewer.get("dags/recommender/tasks/train/runs").json()["runs"]
        newest = viewer.get("dags/recommender/tasks/tune/runs", limit=1).json()["runs"]

        assert sorted(run["run_after"] for run in runs) == [run["run_after"] for run in runs]
        assert OF_EACH_DAG // 5 == len(runs)
        assert [0, 1, 2, 3] == [run["map_index"] for run in newest]
        assert {"deferred"} == {run["state"] for run in newest}
        assert all(run["metrics"]["auc"] > 0.5 for run in runs)

    @pytest.mark.parametrize(("limit", "jobs"), [(1, 4), (2, 8), (500, 4 * 3)])
    def test_limit(self, viewer, limit, jobs):
        """The limit counts runs; each has its mapped instances up to a maximum."""
        answer = viewer.get("dags/recommender/tasks/tune/runs", limit=limit).json()
        of_each = min(4, answer["map_indexes"])

        assert jobs * of_each // 4 == len(answer["runs"])
        assert set(range(of_each)) == {run["map_index"] for run in answer["runs"]}

    def test_no_job(self, viewer):
        """A task without jobs has no runs."""
        assert [] == viewer.get("dags/recommender/tasks/nobodys/runs").json()["runs"]


class TestRights:
    """Permissions to see jobs."""

    @pytest.mark.parametrize(
        "path", ["jobs", "filters", "dags/recommender/tasks/train/runs", "dags/recommender/rights"]
    )
    def test_anonymous(self, visitor, path):
        """Anonymous users see nothing."""
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
        """The DAG in the path is authorized, not the one in the query."""
        assert 403 == visitor(OF_ONE_DAG).get(path, dag_id=ONE_DAG).status_code

    def test_without_xcoms(self, visitor):
        """A user without permission for XComs sees no jobs."""
        user = visitor(WITHOUT_XCOMS)

        assert {"total": 0, "jobs": []} == user.get("jobs").json()
        assert 403 == user.get("dags/recommender/tasks/train/runs").status_code

    @pytest.mark.parametrize(
        ("name", "expected"), [("viewer", False), ("user", True), ("admin", True), (OF_ONE_DAG, True)]
    )
    def test_edit(self, visitor, name, expected):
        """Permission to edit the task instances of a DAG."""
        assert {"can_edit": expected} == visitor(name).get("dags/recommender/rights").json()

    @pytest.mark.parametrize("action", ["cancel", "drop"])
    @pytest.mark.parametrize(("name", "expected"), [(None, 401), ("viewer", 403)])
    def test_no_edit(self, visitor, viewer, action, name, expected):
        """Without permission to edit task instances, a user can't end their jobs."""
        job = one(viewer)
        answer = visitor(name).post(f"{place(job)}/{action}", map_index=job["map_index"], job_id=job["job_id"])

        assert expected == answer.status_code

    @pytest.mark.parametrize("action", ["cancel", "drop"])
    def test_edit_of_another_dag(self, visitor, viewer, action):
        """Permission to edit another DAG doesn't help, whatever is in query and body."""
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
        """Users who may not read the job trigger no request to Snowflake."""
        job = one(viewer, dag_id="churn_weekly")

        assert expected == visitor(name).get(f"{place(job)}/{what}", map_index=job["map_index"]).status_code

    @pytest.mark.parametrize(
        ("name", "expected"), [(None, 401), ("viewer", 403), ("user", 403), (OF_ONE_DAG, 403), (WITHOUT_XCOMS, 403)]
    )
    def test_no_clean_up(self, visitor, name, expected):
        """Clean-up needs permission for all DAGs and connections, whichever DAG the query names."""
        answer = visitor(name).request("POST", f"/mljobs/api/clean-up?dag_id={ONE_DAG}", json={})

        assert expected == answer.status_code


class TestMutations:
    """Requests that change something."""

    @pytest.mark.parametrize("path", [f"{OF_TASK}/cancel", f"{OF_TASK}/drop", "clean-up"])
    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
    def test_forms(self, visitor, path, kind):
        """Forms of other sites can't send JSON."""
        answer = visitor("admin").request("POST", f"/mljobs/api/{path}", content=b"{}", headers={"Content-Type": kind})

        assert 415 == answer.status_code

    @pytest.mark.parametrize("path", [f"{OF_TASK}/cancel", "clean-up"])
    def test_methods(self, visitor, path):
        """GET is not allowed."""
        assert 405 == visitor("admin").get(path).status_code

    @pytest.mark.parametrize(
        "body", [b"{", b"[]", b"null", b'{"job_id": 7}', b'{"job_id": "x", "map_index": -2}', b"\xff"]
    )
    def test_bad_bodies(self, visitor, body):
        """An invalid request is refused with one sentence."""
        path = f"/mljobs/api/{OF_TASK}/cancel"
        answer = visitor("admin").request("POST", path, content=body, headers={"Content-Type": "application/json"})

        assert 400 == answer.status_code
        assert isinstance(answer.json()["detail"], str)
