"""Reports of jobs, from all of their processes to the task's log and XComs, while they run and at the end."""

import json
import re
import threading
from contextlib import closing
from queue import SimpleQueue

import pytest

from airflow_provider_mljobs import report
from airflow_provider_mljobs.exceptions import RemoteError
from airflow_provider_mljobs.gateway.watcher.follower import LogOutput, WaitEnded
from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.jobs.outcome.wait_plan import WaitPlan
from airflow_provider_mljobs.launcher.contract import MARK
from airflow_provider_mljobs.operators import MLJobOperator
from airflow_provider_mljobs.task.joblog import mask_environment, redacted
from airflow_provider_mljobs.task.xcoms import PROGRESS_XCOM
from tests.budget import budget
from tests.lab import POOL, STAGE, submit

BOTH = pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "in the worker"])
IMAGE = "/snowflake/images/snowflake_images/st_plat/runtime/x86/runtime_image/snowbooks:1.8.0"
SCRIPT = """
import multiprocessing, subprocess, sys
from airflow_provider_mljobs import report

def work(rank):
    report.metrics(**{f"loss/{rank}": rank / 10})

if __name__ == "__main__":
    code = "from airflow_provider_mljobs import report; report.progress(0.5, 'in a process of its own')"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(work, range(2))
    report.progress(1)
"""


def train(epochs):
    """Report from a function, whose name for it is the module's."""
    import time
    from pathlib import Path

    for epoch in range(1, epochs + 1):
        print("epoch", epoch)
        report.progress(epoch / epochs, f"epoch {epoch}/{epochs}")
        report.metrics(step=epoch, auc=0.5 + epoch / 100)
        time.sleep(0.1)
    Path("model.json").write_text("{}")
    report.artifact("model.json")
    report.asset("s3://models/churn", {"auc": 0.9})
    return epochs


def train_and_fail():
    """Fail behind a report."""
    print("all is well")
    report.metrics(loss=7.5)
    raise ValueError("no such table")


def train_here():
    """Report from each instance."""
    import os

    rank = os.environ["SNOWFLAKE_JOB_INDEX"]
    report.progress(0.5, f"rank {rank}")
    report.metrics(**{f"loss/{rank}": 1.5})


def train_slowly():
    """Report for some seconds."""
    import time

    for step in range(1, 41):
        print("step", step)
        report.progress(step / 40)
        report.metrics(step=step, loss=1 / step)
        time.sleep(0.05)


def task(source, **settings):
    """Build a task that looks at its job often."""
    defaults = {"task_id": "task", "compute_pool": POOL, "stage_name": STAGE, "poll_interval": 0.2, "log_interval": 0.2}
    return MLJobOperator(source=source, **{**defaults, **settings})


@BOTH
@pytest.mark.parametrize("log_interval", [0.2, 0], ids=["live", "at the end"])
def test_a_function(airflow, capsys, deferrable, log_interval):
    """The log shows the progress, XCom has the reports, and neither shows their marks."""
    run = airflow.run_task(lambda: task(train, args=[10], deferrable=deferrable, log_interval=log_interval))

    output = capsys.readouterr().out
    assert 10 == run.xcom("task")
    assert MARK not in output + run.xcom("task", "logs")
    assert [f"epoch {number}" for number in range(1, 11)] == re.findall(r"^epoch \d+", output, re.MULTILINE)
    assert re.search(r"^progress 10 %: epoch 1/10", output, re.MULTILINE)
    assert re.search(r"^progress 100 %: epoch 10/10", output, re.MULTILINE)
    assert {"auc": 0.6} == run.xcom("task", "metrics")
    watched = run.xcom("task", PROGRESS_XCOM)
    assert (1, "epoch 10/10") == (watched["progress"]["fraction"], watched["progress"]["message"])
    assert list(range(1, 11)) == [step for _, step, _ in watched["series"]["auc"]]
    assert ["model.json"] == watched["artifacts"]
    assert [{"uri": "s3://models/churn", "extra": {"auc": 0.9}}] == watched["assets"]
    assert ["model.json"] == [file["path"] for file in run.xcom("task", "artifacts") if file.get("reported")]


def test_a_script_of_several_processes(airflow, tmp_path, capsys):
    """Reports of child processes count, also when their stdout is redirected."""
    (tmp_path / "train.py").write_text(SCRIPT)

    run = airflow.run_task(lambda: task("train.py"), folder=tmp_path)

    assert {"loss/0": 0.0, "loss/1": 0.1} == run.xcom("task", "metrics")
    output = capsys.readouterr().out
    assert "progress 50 %: in a process of its own" in output
    assert MARK not in output


def test_several_instances(airflow, capsys):
    """Each instance may report; the log names the instance of each progress."""
    run = airflow.run_task(lambda: task(train_here, target_instances=2, parallel=True))

    assert {"loss/0": 1.5, "loss/1": 1.5} == run.xcom("task", "metrics")
    assert 0.5 == run.xcom("task", PROGRESS_XCOM)["progress"]["fraction"]
    assert re.search(r"^\[instance [01]\] progress 50 %: rank [01]", capsys.readouterr().out, re.MULTILINE)


def test_an_image_of_somebodys_own(airflow, capsys):
    """A program without the package reports by printing the lines itself."""
    line = MARK + json.dumps({"metrics": {"auc": 0.91}, "step": 4})
    container = {"name": "main", "image": IMAGE, "command": ["sh", "-c", f"echo before; echo '{line}'; echo behind"]}

    run = airflow.run_task(lambda: task(None, stage_name=None, spec={"spec": {"containers": [container]}}))

    assert {"auc": 0.91} == run.xcom("task", "metrics")
    assert "before\nbehind" in capsys.readouterr().out


def test_a_job_that_fails(airflow):
    """Reports of a failed job are kept; the end of its log, in the error, has no marks."""
    run = airflow.run_task(lambda: task(train_and_fail))

    error = run.errors["task"]
    assert RemoteError is type(error)
    assert "all is well" == error.log_tail
    assert {"loss": 7.5} == run.xcom("task", "metrics")


def xcom_while_it_runs(seen, stop):
    """Collect the XComs of a running job."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    while not stop.wait(0.1):
        with create_session() as session:
            for row in session.query(XComModel).filter(XComModel.key == PROGRESS_XCOM):
                seen.append(row.value if isinstance(row.value, dict) else json.loads(row.value))


def test_xcom_while_the_job_runs(airflow):
    """A task that waits in its worker pushes the progress of its job, too."""
    seen, stop = [], threading.Event()
    watching = threading.Thread(target=xcom_while_it_runs, args=(seen, stop))
    watching.start()
    try:
        airflow.run_task(lambda: task(train_slowly, deferrable=False))
    finally:
        stop.set()
        watching.join()

    halfway = [each for each in seen if each["status"] == "RUNNING" and each["progress"]]
    assert {"fraction", "message", "at"} == halfway[0]["progress"].keys()
    assert 0 < halfway[0]["progress"]["fraction"] < 1
    assert halfway[0]["metrics"]["loss"] == halfway[0]["series"]["loss"][-1][2]
    assert "running" == halfway[0]["timeline"][-1]["phase"]


def follow(hook, job, **settings):
    """Follow a job; yields the reports on it."""
    reports = SimpleQueue()
    plan = WaitPlan(job_id=str(job), poll_interval=0.1, log_interval=0.2)
    with closing(hook.follow(plan, reports.put, **settings)):
        while True:
            item = reports.get(timeout=budget())
            yield item
            if isinstance(item, WaitEnded):
                return


def test_another_triggerer_goes_on(airflow):
    """The second trigger continues from the first one's XCom, reads some lines again, and counts nothing twice."""
    job_id = submit("MLJOB_SLOW", train_slowly)
    with MLJobHook() as hook:
        job = hook.job(job_id)
        for item in follow(hook, job):
            if isinstance(item, LogOutput) and item.state["progress"] and item.state["progress"]["fraction"] > 0.3:
                break
        *_, ended = follow(hook, job, state=json.loads(json.dumps(item.state)))

    printed = ended.event["printed"]
    assert list(range(1, 41)) == [step for _, step, _ in printed["series"]["loss"]]
    assert {"loss": 1 / 40} == printed["metrics"]
    assert 1 == printed["progress"]["fraction"]


def test_no_marks_for_people(airflow, capsys):
    """Marks are hidden by the hook and by the command line."""
    from airflow.cli.cli_parser import get_parser

    job_id = submit("MLJOB_TOLD", train_and_fail, wait_for="FAILED")
    with MLJobHook() as hook:
        text = hook.logs(job_id)
    args = get_parser().parse_args(["mljobs", "logs", job_id])
    args.func(args)

    assert MARK not in text + capsys.readouterr().out
    assert "all is well" in text


def test_secrets_are_masked():
    """Secrets in reports are masked by their values only: a metric may have the name of a secret."""
    mask_environment({"DB_PASSWORD": "hunter2of"})
    asset = {
        "uri": "s3://hunter2of/a",
        "extra": {"password": "none", "hunter2of": ["hunter2of"]},
    }
    progress = {
        "metrics": {"tokens": 5.0},
        "progress": {"message": "as hunter2of"},
        "assets": [asset],
        "at": "now",
    }

    assert {
        "metrics": {"tokens": 5.0},
        "progress": {"message": "as ***"},
        "assets": [{"uri": "s3://***/a", "extra": {"password": "none", "***": ["***"]}}],
        "at": "now",
    } == redacted(progress)
