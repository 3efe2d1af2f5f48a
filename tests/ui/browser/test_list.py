"""The list of jobs."""

from datetime import UTC, datetime, timedelta

from playwright.sync_api import expect

from tests.budget import wait_until
from tests.ui.browser import pages


def row_of(page, run_id):
    """The rows of a run."""
    return page.get_by_test_id("job-row").filter(has=page.get_by_text(run_id, exact=True))


def test_a_running_job(visit, running):
    """Reports and the end of a job appear without a reload."""
    row = row_of(visit(pages.LIST), running.run_id)
    running.job.progress(0.25, "epoch 1/4")
    expect(row.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "25")
    running.job.progress(0.5, "epoch 2/4")
    running.job.metrics(auc=0.75)
    expect(row.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
    expect(row).to_contain_text("epoch 2/4")
    expect(row).to_contain_text("0.75")
    running.job.finish()
    expect(row).to_contain_text("success")


def test_refreshes_ask_airflow_only(visit, airflow, finished):
    """Viewing the list sends no statement to Snowflake."""
    wait_until(airflow.is_idle)
    before = airflow.snowflake.statements.texts
    page = visit(pages.LIST)
    expect(row_of(page, finished.weeks[0])).to_be_visible()
    for _ in range(2):
        with page.expect_response("**/mljobs/api/jobs?*"):
            pass
    assert before == airflow.snowflake.statements.texts


def test_filters(visit, finished):
    """Filters select rows by DAG, state and text; the URL keeps the selection."""
    page = visit(pages.LIST)
    page.get_by_test_id("filter-dag").select_option("regions")
    expect(page.get_by_test_id("total")).to_have_text("3")
    page.get_by_test_id("filter-text").fill("week-2")
    expect(page.get_by_test_id("empty")).to_be_visible()
    page.get_by_test_id("filter-dag").select_option("")
    expect(page.get_by_test_id("total")).to_have_text("1")
    page.reload()
    expect(row_of(page, "week-2")).to_contain_text("success")
    page.get_by_test_id("filter-state").select_option("failed")
    expect(page.get_by_test_id("empty")).to_be_visible()


def test_pages(visit, airflow, finished):
    """The list has pages, newest first."""
    airflow.remember(300, now=datetime.now(UTC) - timedelta(days=365))
    page = visit(f"{pages.LIST}?pool=ML_POOL_GPU")
    expect(page.get_by_role("status")).to_contain_text("50 of 120 jobs")
    page.get_by_test_id("pager-next").click()
    expect(page.get_by_role("status")).to_contain_text("100 of 120 jobs")
    page.get_by_test_id("pager-next").click()
    expect(page.get_by_test_id("job-row")).to_have_count(20)
    expect(page.get_by_test_id("pager-next")).to_be_disabled()
    page.go_back()
    expect(page.get_by_role("status")).to_contain_text("100 of 120 jobs")


def test_mapped_instances(visit, finished):
    """Each instance of a mapped task has a row under its own name, which leads to its own job."""
    page = visit(f"{pages.LIST}?dag_id=regions")
    for region in finished.regions:
        expect(page.get_by_role("link", name=f"train [{region}]")).to_be_visible()
    page.get_by_role("link", name="train [apac]").click()
    expect(page.get_by_test_id("job-view")).to_contain_text("0.81")


def test_by_keyboard(visit, finished):
    """The Tab key reaches filters and rows, and Enter opens a row's job."""
    page = visit(f"{pages.LIST}?text=week-1")
    expect(row_of(page, "week-1")).to_be_visible()
    page.get_by_test_id("filter-text").focus()
    for name in ("filter-dag", "filter-state", "filter-pool"):
        page.keyboard.press("Tab")
        expect(page.get_by_test_id(name)).to_be_focused()
    page.keyboard.press("Tab")
    expect(row_of(page, "week-1").get_by_role("link", name="train")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("job-view")).to_be_visible()


def test_an_answer_that_fails(visit, airflow):
    """An error of Airflow is shown, and a retry recovers."""
    page = visit("plugin/mljobs?view=clean-up", forgiven="status of 500")
    page.route(
        "**/mljobs/api/jobs?*", lambda route: route.fulfill(status=500, json={"detail": "The database is gone."})
    )
    page.goto(page.url.partition("?")[0])
    expect(page.get_by_test_id("error")).to_contain_text("The database is gone.")
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_test_id("error")).to_be_hidden()
    expect(page.get_by_test_id("jobs-list")).to_be_visible()


def test_the_end_of_a_session(visit, finished):
    """An expired session is reported."""
    page = visit(pages.LIST, forgiven="status of 401")
    expect(row_of(page, finished.weeks[0])).to_be_visible()
    page.context.clear_cookies()
    expect(page.get_by_test_id("error")).to_contain_text("session has expired")
