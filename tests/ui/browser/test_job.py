"""The view of one job."""

from playwright.sync_api import expect

from tests.budget import wait_until
from tests.ui.browser import pages

# How many of a canvas' dots have a colour; axes and grid are grey.
_COLOURED = """
canvas => {
    const dots = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    let count = 0;
    for (let dot = 0; dot < dots.length; dot += 4) {
        const [red, green, blue, opacity] = dots.slice(dot, dot + 4);
        count += opacity > 128 && Math.max(red, green, blue) - Math.min(red, green, blue) > 80;
    }
    return count;
}
"""


def test_a_running_job(visit, running):
    """Progress, metrics and lines appear while the job runs, and its value at the end."""
    page = visit(pages.job(running.run_id))
    view = page.get_by_test_id("job-view")
    expect(view.get_by_test_id("timeline")).to_contain_text("Running")
    running.job.print("reading the table")
    running.job.progress(0.5, "epoch 2/4")
    running.job.metrics(step=1, auc=0.7)
    running.job.metrics(step=2, auc=0.75)
    expect(view.get_by_test_id("log-tail")).to_contain_text("reading the table")
    expect(view.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
    expect(view.get_by_test_id("metric-chart")).to_be_visible()
    running.job.finish({"rows": 1234})
    expect(view).to_contain_text("success")
    expect(view.get_by_label("Result", exact=True)).to_contain_text("1234")


def test_curves(visit, finished):
    """A curve is drawn for each metric, and is there as text and as a table for those who can't see it."""
    chart = visit(pages.job("week-3")).get_by_test_id("metric-chart").filter(has_text="auc")
    expect(chart.get_by_role("img")).to_have_accessible_name(
        "Line chart of auc from 1 to 4. auc: last 0.88, lowest 0.82, highest 0.88."
    )
    assert chart.locator("canvas").evaluate(_COLOURED) > 200
    chart.get_by_role("button", name="auc as a table").click()
    expect(chart.get_by_role("row")).to_have_text(["Stepauc", "10.82", "20.84", "30.86", "40.88"])


def test_each_instance_has_its_log(visit, airflow):
    """The log of a job of several instances is selectable by instance."""
    airflow.trigger("cluster", "two")
    jobs = [airflow.jobs.take("two", instance=instance) for instance in range(2)]
    page = visit(pages.job("two", "cluster"))
    for instance, job in enumerate(jobs):
        job.print(f"hello from {instance}")
    log = page.get_by_test_id("log-tail")
    for instance in range(2):
        expect(log).to_contain_text(f"hello from {instance}")
    page.get_by_test_id("log-choice").select_option("1")
    expect(log).to_contain_text("hello from 1")
    expect(log).not_to_contain_text("hello from 0")
    for job in jobs:
        job.finish()


def test_cancelling(visit, airflow, running):
    """A user with the right to edit the DAG cancels its job by keyboard, after a confirmation."""
    page = visit(pages.job(running.run_id), user="user")
    page.get_by_test_id("cancel").press("Enter")
    expect(page.get_by_role("button", name="Go back")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("job-view")).to_contain_text("CANCELLED")
    airflow.await_state("failed", "churn", running.run_id)


def test_a_viewer_can_not_cancel(visit, airflow, running):
    """A viewer sees no buttons, and the server refuses the requests behind them."""
    page = visit(pages.job(running.run_id), user="viewer")
    view = page.get_by_test_id("job-view")
    expect(view.get_by_test_id("timeline")).to_be_visible()
    (job_id,) = view.get_by_text("MLJOBS_DB.PUBLIC.MLJOB_TRAIN_").all_inner_texts()
    for action in ("cancel", "drop"):
        expect(page.get_by_test_id(action)).to_have_count(0)
        route = f"{airflow.url}/mljobs/api/dags/churn/runs/{running.run_id}/tasks/train/{action}"
        answer = page.request.post(route, data={"map_index": -1, "job_id": job_id})
        assert 403 == answer.status
    running.job.finish()
    airflow.await_state("success", "churn", running.run_id)


def test_usage(visit, airflow, running):
    """The usage charts of the job's containers appear on demand."""
    page = visit(pages.job(running.run_id))
    route = f"{airflow.url}/mljobs/api/dags/churn/runs/{running.run_id}/tasks/train/usage"
    wait_until(lambda: page.request.get(route).json()["usage"])
    page.get_by_text("CPU, memory and GPU").click()
    charts = page.get_by_test_id("usage-chart")
    expect(charts.filter(has_text="CPU")).to_be_visible()
    expect(charts.filter(has_text="Memory")).to_be_visible()


def test_specification(visit, running):
    """The specification appears on demand."""
    page = visit(pages.job(running.run_id))
    page.get_by_text("Specification").click()
    expect(page.get_by_test_id("specification")).to_contain_text("containers:")


def test_the_specification_of_a_job_that_was_dropped(visit, finished):
    """For the specification of a dropped job the page explains that it is gone with the job."""
    page = visit(pages.job(finished.weeks[0]), forgiven="status of 404")
    page.get_by_text("Specification").click()
    expect(page.get_by_test_id("specification")).to_contain_text("was dropped")
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)


def test_a_job_that_failed(visit, airflow, running):
    """The end of the log of a job that failed says why."""
    running.job.fail("the table is empty")
    airflow.await_state("failed", "churn", running.run_id)
    page = visit(pages.job(running.run_id))
    expect(page.get_by_test_id("job-view")).to_contain_text("FAILED")
    expect(page.get_by_test_id("log-tail")).to_contain_text("RuntimeError: the table is empty")
