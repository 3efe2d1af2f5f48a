"""Runs packed payloads as a container does: reads the specification as YAML, and the archive in another process."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest
import yaml

from airflow_provider_mljobs.emulator.containers.instance import Mount
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.payload.archive import ARCHIVE, Payload
from airflow_provider_mljobs.jobs.spec.job import JobSpec, Resources, Runtime
from airflow_provider_mljobs.jobs.spec.rendering import RESULT_MOUNT, STAGE_MOUNT, render, specification
from airflow_provider_mljobs.jobs.values.arguments import Arguments
from airflow_provider_mljobs.launcher.contract import ARGUMENTS_FILE, END
from tests.budget import budget
from tests.containers import Container, make_plan

DATABASE, SCHEMA = Identifier("DB"), Identifier("ML")


@dataclass
class Run:
    """The end of a payload's run.

    :param code: the exit code.
    :param output: its stdout, without the launcher's last line.
    :param has_end: whether that line was there.
    :param errors: its stderr.
    :param stage: the job's own directory on the stage.
    """

    code: int
    output: str
    errors: str
    stage: Path
    has_end: bool = False

    @property
    def record(self):
        """The result that the launcher wrote."""
        return json.loads((self.stage / "output" / "mljob_result").read_text())


@pytest.fixture
def spec():
    """Make a job specification with the fields of a test, and defaults for the others."""

    def spec(**fields):
        name = QualifiedName(DATABASE, SCHEMA, Identifier("MLJOB_TRAIN_1"))
        stage = StagePath.parse("payloads", "stage_name", Namespace(DATABASE, SCHEMA))
        return JobSpec(**{"name": name, "compute_pool": Identifier("ML_POOL"), "stage": stage} | fields)

    return spec


@pytest.fixture
def runtime():
    """Return the runtime of a small node."""
    return Runtime(image="/snowflake/images/snowflake_images/snowbooks:1.2", resources=Resources(cpu=3, memory_gib=13))


@pytest.fixture
def run(tmp_path, spec, runtime):
    """Run a payload; keyword arguments are the environment of the container beside that of the specification.

    ``staged`` are local paths of files and directories on stages, by their addresses. ``python`` are options of the
    interpreter. ``stdout`` is its stdout, by default a pipe.
    """

    def run(payload, arguments=None, env_vars=None, staged=None, python=(), stdout=subprocess.PIPE, **environment):
        arguments = arguments or Arguments.of_script(())
        job = spec(env_vars=env_vars or {})
        text = render(specification(job, job.stage / "payload_1", arguments, runtime))
        (container,) = yaml.safe_load(text)["spec"]["containers"]
        stage, result = tmp_path / "stage", tmp_path / "result"
        stage.mkdir()
        (result / "input").mkdir(parents=True)
        (stage / ARCHIVE).write_bytes(payload.archive)
        if arguments.files:
            (result / ARGUMENTS_FILE).write_bytes(arguments.archive)
        for copy in payload.copies:
            copy_files((staged or {}).get(copy.source, tmp_path / "nowhere"), result / copy.target)
        places = {STAGE_MOUNT: str(stage), RESULT_MOUNT: str(result)}
        mounted = {name: places.get(value, value) for name, value in container["env"].items()}
        ended = subprocess.run(
            [sys.executable, *python, stage / ARCHIVE],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **mounted, **environment},
            cwd=tmp_path,
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
        )
        output, end, _ = (ended.stdout or b"").decode().partition(f"\n{END}\n")
        return Run(ended.returncode, output, ended.stderr.decode(), result, has_end=bool(end))

    return run


@pytest.fixture
def contain(tmp_path, spec, runtime):
    """Run a payload in a container of the embedded Snowflake, as its specification says.

    Returns exit code and output, without the line at which a reader recognises the end of the output.

    ``image`` describes the image, ``volumes`` are directories by their mount paths, and keyword arguments are
    environment variables of the container.
    """
    numbers = count()

    def contain(payload, image=None, path="/db/schema/repository/image:1", volumes=None, **env_vars):
        job = spec(env_vars=env_vars)
        node = replace(runtime, image=path)
        document = specification(job, job.stage / "payload_1", Arguments.of_script(()), node)
        (container,) = document["spec"]["containers"]
        place = tmp_path / f"container-{next(numbers)}"
        stage, result = place / "stage", place / "result"
        stage.mkdir(parents=True)
        (result / "output").mkdir(parents=True)
        (stage / ARCHIVE).write_bytes(payload.archive)
        directories = {STAGE_MOUNT: stage, RESULT_MOUNT: result, **(volumes or {})}
        plan = make_plan(
            place / "own",
            *container["command"],
            args=tuple(container["args"]),
            env=container["env"],
            image=path,
            images={} if image is None else {path: image},
            mounts=tuple(Mount(source=source, path=target) for target, source in directories.items()),
        )
        running = Container(plan, place / "log")
        try:
            code, output = running.finish()
            return code, output.replace(f"\n{END}\n", "")
        finally:
            running.instance.kill()
            running.instance.wait(budget())

    return contain


def copy_files(source, directory):
    """Copy a directory or one file as Snowflake does, without empty directories."""
    for path in [source] if source.is_file() else source.rglob("*"):
        if path.is_file():
            target = directory / (path.name if path == source else path.relative_to(source))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


@pytest.fixture
def call(run):
    """Run a function with arguments as a payload."""

    def call(function, *args, **kwargs):
        return run(Payload.of_function(function), Arguments.of_function(function, args, kwargs))

    return call


@pytest.fixture
def in_any_process():
    """Run a program in processes with different orders of sets; return their distinct outputs."""

    def in_any_process(program):
        places = [str(Path(__file__).with_name("jobs") / part) for part in ("payload", "values")]
        program = f"import sys\nsys.path[:0] = {places!r}\n{program}"
        return {
            subprocess.run(
                [sys.executable, "-c", program],
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
                text=True,
            ).stdout
            for seed in "12"
        }

    return in_any_process


@pytest.fixture
def script(tmp_path):
    """Write a script to a separate directory."""

    def script(text, name="job.py"):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return script


@pytest.fixture
def write(tmp_path):
    """Write files below a directory of the test, and return that directory."""

    def write(directory, files):
        for name, text in files.items():
            path = tmp_path / directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / directory).mkdir(parents=True, exist_ok=True)
        return tmp_path / directory

    return write
