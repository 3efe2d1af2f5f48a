"""Checks of all pages: their places in Airflow, the model and clean-up views, looks, rights and accessibility."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.ui.browser import pages

VIEWS = {
    pages.LIST: "jobs-list",
    pages.job("week-3"): "job-view",
    pages.model(): "model-view",
    pages.CLEAN_UP: "clean-up-view",
}


def test_the_way_from_the_menu(visit, finished):
    """Airflow's menu leads to the page, and the page to a job's view."""
    page = visit("dags")
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="ML Jobs").click()
    page.get_by_test_id("job-row").filter(has_text="week-2").get_by_role("link", name="train").click()
    expect(page.get_by_test_id("job-view")).to_contain_text("week-2")
    page.go_back()
    expect(page.get_by_test_id("jobs-list")).to_be_visible()


def test_the_tab_of_a_task_instance(visit, finished):
    """A task instance that ran a job has a tab for it."""
    page = visit(pages.task_instance("week-1"))
    page.get_by_role("link", name="ML Job", exact=True).click()
    expect(page.get_by_test_id("log-tail")).to_contain_text("epoch 4 of week-1")


def test_the_tab_of_a_mapped_task_instance(visit, finished):
    """Each instance of a mapped task shows its own job."""
    for index, region in enumerate(finished.regions):
        page = visit(f"{pages.task_instance('finished', 'regions', map_index=index)}/plugin/mljob")
        expect(page.get_by_test_id("log-tail")).to_contain_text(f"hello from {region}")


def test_the_tab_of_another_task(visit, finished):
    """The tab of a task without a job says so."""
    page = visit(f"{pages.task_instance('finished', 'plain', 'greet')}/plugin/mljob")
    expect(page.get_by_test_id("job-empty")).to_contain_text("Not an ML job")


def test_links_of_a_deferred_task(visit, running):
    """A deferred task has links to its job."""
    page = visit(f"{pages.task_instance(running.run_id)}/details")
    expect(page.get_by_role("link", name="Snowsight job")).to_have_attribute("href", pages.SNOWSIGHT)
    expect(page.get_by_role("link", name="ML job", exact=True)).to_have_attribute(
        "href", f"/{pages.task_instance(running.run_id)}/plugin/mljob"
    )


def test_the_model_view(visit, finished):
    """The metrics of a task's runs form a curve, and the newest run is compared with the one before."""
    page = visit("dags/churn/tasks/train/plugin/mlmodel")
    view = page.get_by_test_id("model-view")
    expect(view.get_by_test_id("metric-chart").filter(has_text="auc")).to_be_visible()
    newest = view.get_by_role("table", name="Metrics of the latest run and the previous one")
    expect(newest.get_by_role("row").filter(has_text="auc")).to_contain_text("0.88")
    for run_id in finished.weeks:
        expect(view.get_by_role("link", name=run_id)).to_be_visible()


def test_clean_up(visit, finished):
    """An admin gets a list of orphans from the collector's dry run."""
    page = visit(pages.CLEAN_UP)
    page.get_by_test_id("clean-up-stages").fill("@ML_PAYLOADS")
    page.get_by_test_id("dry-run").click()
    expect(page.get_by_role("heading", name="Orphaned jobs and files")).to_be_visible()


def test_clean_up_is_for_admins(visit, airflow):
    """Users other than admins see a message, and the server refuses their requests."""
    page = visit(pages.CLEAN_UP, user="user")
    expect(page.get_by_test_id("clean-up-view")).to_contain_text("Administrators only")
    asked = {"snowflake_conn_id": "snowflake_default", "older_than_hours": 24, "stages": [], "dry_run": True}
    assert 403 == page.request.post(f"{airflow.url}/mljobs/api/clean-up", data=asked).status


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("path", VIEWS, ids=VIEWS.values())
def test_accessible(visit, finished, path, dark):
    """Each view obeys the rules of axe, light and dark: names, roles, and the contrast of every text."""
    page = visit(path, dark=dark)
    expect(page.get_by_test_id(VIEWS[path])).to_be_visible()
    expect(page.get_by_test_id("loading")).to_have_count(0)
    assert ("dark" if dark else "light") == page.locator("html").get_attribute("class")
    violations = Axe().run(page, context=f"[data-testid={VIEWS[path]}]").response["violations"]
    assert [] == [(each["id"], each["impact"], [node["html"][:200] for node in each["nodes"]]) for each in violations]


def test_below_a_path(visit, below, finished, running):
    """Pages, data, tabs and actions work for an Airflow below a path of its host."""
    page = visit(pages.LIST, url=below)
    page.get_by_test_id("job-row").filter(has_text="week-3").get_by_role("link", name="train").click()
    expect(page.get_by_test_id("metric-chart").first).to_be_visible()
    page.get_by_role("link", name="Model over the runs").click()
    expect(page.get_by_test_id("metric-chart").first).to_be_visible()
    assert page.url.startswith(f"{below}/{pages.LIST}")
    page.goto(f"{below}/{pages.task_instance(running.run_id)}/plugin/mljob")
    page.get_by_test_id("cancel").click()
    page.get_by_test_id("cancel-confirm").click()
    expect(page.get_by_test_id("job-view")).to_contain_text("CANCELLED")
