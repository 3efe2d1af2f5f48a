"""A browser, a real Airflow, and jobs that are over or wait for instructions of a test."""

import contextlib
import itertools
from types import SimpleNamespace

import pytest
from playwright.sync_api import expect

from tests.budget import budget
from tests.ui.airflow import shown
from tests.ui.browser.visitor import Visitor
from tests.ui.chromium import launched

WEEKS = ("week-1", "week-2", "week-3")
REGIONS = ("emea", "apac", "americas")
# The pages refresh every five seconds, from an Airflow that shares its machine.
expect.set_options(timeout=budget() * 1000)


@pytest.fixture(scope="session")
def airflow():
    """A real Airflow; see :class:`tests.ui.airflow.ShownAirflow`."""
    with shown() as airflow:
        yield airflow


@pytest.fixture(scope="session")
def below(airflow):
    """The URL of the same Airflow below a path of its host."""
    return airflow.serve_below("/team/airflow")


@pytest.fixture(scope="session")
def chromium():
    """A browser with a profile of its own."""
    with launched() as browser:
        yield browser


@pytest.fixture
def visit(airflow, chromium):
    """Open a page as one of the users; complaints of the browser fail the test at its end.

    ``visit("plugin/mljobs", user="viewer", dark=True)`` returns Playwright's page. ``url`` is another Airflow's;
    ``forgiven`` matches complaints that the test provokes.
    """
    with contextlib.ExitStack() as visitors:

        def visit(path, user="admin", *, url=airflow.url, dark=False, forgiven=None):
            visitor = Visitor(chromium, url, airflow.token(user), dark=dark, forgiven=forgiven)
            visitors.callback(visitor.close)
            return visitor.open(path)

        yield visit


@pytest.fixture(scope="session")
def finished(airflow):
    """Finished runs: three of "churn" with improving metrics, one of "regions", one of "plain"."""
    for run_id in WEEKS:
        airflow.trigger("churn", run_id)
    airflow.trigger("regions", "finished")
    airflow.trigger("plain", "finished")
    for number, run_id in enumerate(WEEKS):
        job = airflow.jobs.take(run_id)
        for epoch in range(1, 5):
            job.print(f"epoch {epoch} of {run_id}")
            job.metrics(step=epoch, auc=0.7 + 0.05 * number + 0.02 * epoch, loss=1 / epoch)
            job.progress(epoch / 4, f"epoch {epoch}/4")
        job.finish({"rows": 1000 + number})
    for index, region in enumerate(REGIONS):
        job = airflow.jobs.take("finished", index)
        job.print(f"hello from {region}")
        job.metrics(auc=0.8 + index / 100)
        job.finish()
    for run_id in WEEKS:
        airflow.await_state("success", "churn", run_id)
    for index in range(len(REGIONS)):
        airflow.await_state("success", "regions", "finished", map_index=index)
    airflow.await_state("success", "plain", "finished", "greet")
    return SimpleNamespace(weeks=WEEKS, regions=REGIONS)


_names = (f"live-{number}" for number in itertools.count(1))


@pytest.fixture
def running(airflow):
    """A run of "churn" whose job waits for instructions: ``run_id`` and ``job``."""
    run_id = next(_names)
    airflow.trigger("churn", run_id)
    job = airflow.jobs.take(run_id)
    airflow.await_state("deferred", "churn", run_id)
    yield SimpleNamespace(run_id=run_id, job=job)
    job.close()
