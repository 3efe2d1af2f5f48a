"""The page as a plugin, and its files."""

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

import airflow_provider_mljobs.ui
from airflow_provider_mljobs.plugin import MLJobsPlugin
from airflow_provider_mljobs.ui.files import PageFiles, version
from tests.ui.api import served

OTHERS = (
    "../app.py", "..%2fapp.py", "%2e%2e/app.py", "..%5capp.py", "%2fetc/passwd", "%00", "a" * 5000, "nothing.js", "",
)  # fmt: skip
FILES = Path(airflow_provider_mljobs.ui.__file__).with_name("static")
FOR_EVER = "public, max-age=31536000, immutable"


@pytest.fixture(scope="module")
def visitor():
    """Serve the API; returns visitors by name."""
    with pytest.MonkeyPatch.context() as monkeypatch, served(monkeypatch) as visitors:
        yield visitors


@pytest.fixture
def anonymous(visitor):
    """An anonymous visitor: the page's files are public."""
    return visitor(None)


def run(program, **environment):
    """Run a Python program and return the JSON in its last line."""
    settings = {f"AIRFLOW__{name}": value for name, value in environment.items()}
    process = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **settings}, capture_output=True, text=True, check=True
    )
    return json.loads(process.stdout.splitlines()[-1])


class TestPlugin:
    """Data for Airflow's plugin manager."""

    def test_entry_point(self):
        """The entry point leads to the plugin."""
        (plugin,) = entry_points(group="airflow.plugins", name="mljobs")

        assert MLJobsPlugin is plugin.load()

    def test_airflow_shows_it(self, visitor):
        """Airflow's API lists the page, the tab of task instances and the tab of tasks, without import errors."""
        admin = visitor("admin")
        plugins = admin.request("GET", "/api/v2/plugins").json()["plugins"]
        (plugin,) = (plugin for plugin in plugins if plugin["name"] == "mljobs")

        assert [("nav", "mljobs"), ("task_instance", "mljob"), ("task", "mlmodel")] == [
            (each["destination"], each["url_route"]) for each in plugin["react_apps"]
        ]
        assert ["ML Jobs", "ML Job", "ML Model"] == [each["name"] for each in plugin["react_apps"]]
        assert {f"/mljobs/static/{version()}/mljobs.js"} == {each["bundle_url"] for each in plugin["react_apps"]}
        assert 0 == admin.request("GET", "/api/v2/plugins/importErrors").json()["total_entries"]

    def test_imports(self):
        """The plugin adds no imports to a process of Airflow."""
        imported = run(
            "import airflow.plugins_manager, airflow.sdk.plugins_manager, json, sys\n"
            "before = set(sys.modules)\n"
            "import airflow_provider_mljobs.plugin\n"
            "print(json.dumps(sorted(set(sys.modules) - before)))"
        )

        assert {"airflow_provider_mljobs.plugin"} == set(imported) - {"airflow_provider_mljobs"}

    def test_prefix(self):
        """Bundle and routes respect the path of Airflow's base URL."""
        urls, statuses = run(
            "import json\n"
            "from airflow.api_fastapi.app import create_app\n"
            "from airflow_provider_mljobs.plugin import MLJobsPlugin\n"
            "from starlette.testclient import TestClient\n"
            "urls = {app['bundle_url'] for app in MLJobsPlugin().react_apps}\n"
            "client = TestClient(create_app(apps='core'))\n"
            "statuses = [client.get(path).status_code for path in (*urls, '/team/airflow/mljobs/api/jobs')]\n"
            "print(json.dumps([list(urls), statuses]))",
            API__BASE_URL="https://example.com/team/airflow/",
        )

        assert [f"/team/airflow/mljobs/static/{version()}/mljobs.js"] == urls
        assert [200, 401] == statuses

    def test_nothing_else(self, visitor):
        """Unknown routes of the page are 404; other paths are Airflow's."""
        paths = ("", "nothing", "api/nothing", "docs")
        answers = [visitor("admin").request("GET", f"/mljobs/{path}") for path in paths]

        assert [404] * 4 == [answer.status_code for answer in answers]


class TestFiles:
    """The page's files."""

    @pytest.mark.parametrize(("version", "cached"), [(version(), FOR_EVER), ("another", "no-cache")])
    def test_bundle(self, anonymous, version, cached):
        """Modules of the current version are immutable; those of other versions are revalidated."""
        url = f"/mljobs/static/{version}/mljobs.js"
        first = anonymous.request("GET", url)
        tag = first.headers["ETag"]
        again = anonymous.request("GET", url, headers={"If-None-Match": tag})
        head = anonymous.request("HEAD", url)

        assert (200, (FILES / "mljobs.js").read_text()) == (first.status_code, first.text)
        assert "text/javascript; charset=utf-8" == first.headers["Content-Type"]
        assert (cached, "nosniff") == (first.headers["Cache-Control"], first.headers["X-Content-Type-Options"])
        assert (304, b"", tag, cached) == (
            again.status_code, again.content, again.headers["ETag"], again.headers["Cache-Control"],
        )  # fmt: skip
        assert (200, b"", tag) == (head.status_code, head.content, head.headers["ETag"])

    @pytest.mark.parametrize("path", OTHERS)
    def test_nothing_else(self, anonymous, path):
        """No path leaves the folder or lists it."""
        answers = [anonymous.request("GET", f"/mljobs/static/{place}{path}") for place in ("", "a-version/")]

        assert {404} == {answer.status_code for answer in answers}

    def test_read_only(self, anonymous):
        """All files can be read."""
        assert 405 == anonymous.request("POST", "/mljobs/static/a-version/mljobs.js").status_code

    def test_upgrade(self, tmp_path):
        """Version and ETag depend on the content, not on dates and sizes."""
        file = tmp_path / "a.mjs"
        client = TestClient(Starlette(routes=[Mount("/{version}", PageFiles(tmp_path))]))
        versions, tags, cached = [], [], []
        for text in ("first", "other"):
            file.write_text(text)
            os.utime(file, (1_580_601_600, 1_580_601_600))
            versions.append(version(tmp_path))
            answers = [client.get(f"/{requested}/a.mjs") for requested in (versions[0], versions[-1])]
            tags.append({answer.headers["ETag"] for answer in answers})
            cached.append([answer.headers["Cache-Control"] for answer in answers])

        assert versions[0] != versions[1]
        assert [1, 1] == [len(each) for each in tags]
        assert tags[0] != tags[1]
        assert [[FOR_EVER, FOR_EVER], ["no-cache", FOR_EVER]] == cached
