"""Runs packed payloads as a container would: their specification read as YAML, their archive in another Python."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from airflow_provider_mljobs.jobs.identifiers import Identifier, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.payload import ARCHIVE
from airflow_provider_mljobs.jobs.spec import MOUNT_PATH, JobSpec, Resources, Runtime, render

DATABASE, SCHEMA = Identifier("DB"), Identifier("ML")


@dataclass
class Run:
    """The end of a payload's run.

    :param code: the exit code.
    :param output: what it printed to stdout, without the banners where it ended well.
    :param errors: what it printed to stderr.
    :param stage: its directory on the stage.
    """

    code: int
    output: str
    errors: str
    stage: Path

    @property
    def record(self):
        """What the launcher wrote as the result."""
        return json.loads((self.stage / "output" / "mljob_result").read_text())


@pytest.fixture
def spec():
    """Make a job specification: what a test names, and something for all the rest."""

    def spec(**fields):
        name = QualifiedName(DATABASE, SCHEMA, Identifier("MLJOB_TRAIN_1"))
        directory = StagePath.parse("payloads/MLJOB_TRAIN_1", "stage_name", DATABASE, SCHEMA)
        return JobSpec(**{"name": name, "compute_pool": Identifier("ML_POOL"), "directory": directory} | fields)

    return spec


@pytest.fixture
def runtime():
    """Describe a small node."""
    return Runtime(image="/snowflake/images/snowbooks:1.2", resources=Resources(cpu=3, memory_gib=13))


@pytest.fixture
def run(tmp_path, spec, runtime):
    """Run a payload; keyword arguments are the environment of the container beside that of the specification."""

    def run(payload, env_vars=None, **environment):
        text = render(spec(env_vars=env_vars or {}).specification(payload, runtime))
        (container,) = yaml.safe_load(text)["spec"]["containers"]
        stage = tmp_path / "stage"
        stage.mkdir()
        (stage / ARCHIVE).write_bytes(payload.archive)
        mounted = {name: value.replace(MOUNT_PATH, str(stage)) for name, value in container["env"].items()}
        ended = subprocess.run(
            [sys.executable, stage / ARCHIVE],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **mounted, **environment},
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        return Run(ended.returncode, ended.stdout.decode(), ended.stderr.decode(), stage)

    return run


@pytest.fixture
def script(tmp_path):
    """Write a script, in a directory of its own."""

    def script(text, name="job.py"):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return script
