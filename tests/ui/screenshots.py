"""Take the pictures in docs/images: ``make screenshots``."""

from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from tests.budget import budget
from tests.ui.airflow import learn, shown
from tests.ui.browser import pages
from tests.ui.browser.visitor import Visitor
from tests.ui.chromium import launched

IMAGES = Path(__file__).parents[2] / "docs" / "images"
EPOCH, EPOCHS = 24, 40
MOST_BYTES = 100_000


def main():
    """Fill an Airflow with jobs, let one more run, and take a picture of each view."""
    IMAGES.mkdir(exist_ok=True)
    expect.set_options(timeout=budget() * 1000)
    with shown() as airflow, launched() as chromium:
        airflow.remember(500)

        def take(name, path, wait_for, dark=False):
            visitor = Visitor(chromium, airflow.url, airflow.token(), dark=dark)
            page = visitor.open(path)
            wait_for(page)
            expect(page.get_by_test_id("loading")).to_have_count(0)
            _save(page.screenshot(animations="disabled", caret="hide"), IMAGES / f"{name}.png")
            visitor.close()

        airflow.trigger("churn", "weekly-2026-11-21")
        job = airflow.jobs.take("weekly-2026-11-21")
        for epoch in range(1, EPOCH + 1):
            learn(job, epoch, EPOCHS)
        take("job", pages.job("weekly-2026-11-21"), _is_on_its_way)
        take("list", f"{pages.LIST}?text=train", _has_rows)
        take("list-dark", f"{pages.LIST}?text=train", _has_rows, dark=True)
        take("model", pages.model("loan_default"), _has_curves)
        job.finish()


def _save(picture, file):
    """Save a picture with a palette: a quarter of the bytes."""
    Image.open(BytesIO(picture)).quantize(256, method=Image.Quantize.MAXCOVERAGE).save(file, optimize=True)
    assert file.stat().st_size < MOST_BYTES, file


def _is_on_its_way(page):
    words = f"epoch {EPOCH}/{EPOCHS}"
    expect(page.get_by_test_id("progress")).to_contain_text(words)
    expect(page.get_by_test_id("log-tail")).to_contain_text(words)
    _has_curves(page)


def _has_rows(page):
    expect(page.get_by_test_id("job-row")).to_have_count(50)


def _has_curves(page):
    expect(page.get_by_test_id("metric-chart")).to_have_count(2)


if __name__ == "__main__":
    main()
