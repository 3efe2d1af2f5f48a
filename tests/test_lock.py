"""The lock: every checkout installs the same versions, on every supported Python, from PyPI or a mirror of it."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[1]
PROJECTS = [pytest.param(ROOT, id="airflow-provider-mljobs"), pytest.param(ROOT / "tests/ml_client", id="ml-client")]
PYTHONS = [(3, minor) for minor in range(11, 15)]
PLATFORMS = [
    *(f"manylinux_2_{glibc}_x86_64" for glibc in range(28, 4, -1)),
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
]


def packages(project):
    """Return the packages of a project's lock, without the project itself."""
    lock = tomllib.loads((project / "uv.lock").read_text())
    return [package for package in lock["package"] if "registry" in package["source"]]


def requirements(project, python=None):
    """Return the versions that the lock has for a Python on Linux, by name."""
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "export", "--frozen", "--all-extras", "--no-emit-project", "--no-hashes", "--no-annotate"]
    options = ["--no-header", "--quiet", "--offline", "--project", project]
    exported = subprocess.run([*command, *options], check=True, capture_output=True, text=True, cwd=project).stdout
    environment = default_environment()
    if python is not None:
        version = ".".join(map(str, python))
        environment |= {"python_version": version, "python_full_version": f"{version}.0"}
    requirements = [Requirement(line) for line in exported.splitlines()]
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }


def test_the_environment_is_that_of_the_lock():
    """An environment set up by make has exactly the packages of the lock."""
    installed = {canonicalize_name(each.name): each.version for each in importlib.metadata.distributions()}
    del installed["airflow-provider-mljobs"]

    assert requirements(ROOT) == installed


@pytest.mark.parametrize("project", PROJECTS)
@pytest.mark.parametrize("python", PYTHONS, ids=lambda python: ".".join(map(str, python)))
def test_every_python_finds_wheels(project, python):
    """Every package in the lock has a wheel for every supported Python on Linux: nothing is built."""
    tags = {*cpython_tags(python, platforms=PLATFORMS), *compatible_tags(python, platforms=PLATFORMS)}
    wheels = {
        (package["name"], package["version"]): [wheel["url"].rpartition("/")[2] for wheel in package.get("wheels", ())]
        for package in packages(project)
    }

    assert [] == [
        (name, version)
        for name, version in requirements(project, python).items()
        if not any(tags & parse_wheel_filename(wheel)[3] for wheel in wheels[name, version])
    ]


@pytest.mark.parametrize("project", PROJECTS)
def test_the_lock_names_files_of_pypi(project):
    """A lock names PyPI and the hash of each file, even if it was updated from a mirror."""
    files = [
        file
        for package in packages(project)
        for file in [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else [])]
    ]

    assert {"https://pypi.org/simple"} == {package["source"]["registry"] for package in packages(project)}
    assert [] == [file for file in files if not file["url"].startswith("https://files.pythonhosted.org/packages/")]
    assert [] == [file for file in files if not file["hash"].startswith("sha256:")]


class TestStaleLock:
    """If lock and pyproject.toml disagree, make fails and names the command that fixes it."""

    @pytest.fixture
    def checkout(self, tmp_path):
        """A copy of the files that make reads, with this environment's uv."""
        for name in (
            "Makefile",
            "pyproject.toml",
            "uv.lock",
            "tests/ml_client/pyproject.toml",
            "tests/ml_client/uv.lock",
        ):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
        (tmp_path / ".venv/bin").mkdir(parents=True)
        for name in ("python", "uv"):
            (tmp_path / ".venv/bin" / name).symlink_to(Path(sys.executable).with_name(name))
        return tmp_path

    def check(self, checkout, **environment):
        """Run make's check."""
        command = ["make", "--silent", "check-lock"]
        variables = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | environment
        return subprocess.run(command, cwd=checkout, env=variables, capture_output=True, text=True, check=False)

    def test_a_lock_that_matches_is_accepted(self, checkout):
        """A matching lock is accepted, from any mirror."""
        checked = self.check(checkout, UV_DEFAULT_INDEX="https://mirror.example/simple")

        assert (0, "", "") == (checked.returncode, checked.stdout, checked.stderr)

    @pytest.mark.parametrize(
        ("project", "before", "after"),
        [
            (".", '"cloudpickle>=3"', '"cloudpickle>=3.1"'),
            (".", 'ray = ["ray>=2.40,<3"]', 'ray = ["ray>=2.40,<3", "tqdm"]'),
            (".", '">=3.11,<3.15"', '">=3.12,<3.15"'),
            ("tests/ml_client", "snowflake-ml-python>=2.6", "snowflake-ml-python>=2.5"),
        ],
    )
    def test_a_lock_that_does_not_match_is_refused(self, checkout, project, before, after):
        """A changed range, extra or Python is refused, also for Snowflake's own client."""
        file = checkout / project / "pyproject.toml"
        file.write_text(file.read_text().replace(before, after))

        checked = self.check(checkout)

        assert 0 != checked.returncode
        assert f"The lock {project}/uv.lock doesn't match {project}/pyproject.toml. Run: make lock\n" == checked.stdout
