"""The shell script at the beginning of an archive, in images of each kind."""

import io
import zipfile
from itertools import count

import pytest

from airflow_provider_mljobs.emulator.containers.images import Image
from airflow_provider_mljobs.emulator.containers.instance import Mount, can_isolate
from airflow_provider_mljobs.jobs.payload.archive import Payload
from tests.budget import budget
from tests.containers import Container, make_plan

PATH = "/db/schema/repository/image:1"
MAIN = "import os, sys; print(os.environ.get('ACTIVATED'), os.environ.get('MLJOBS_STARTED'), sys.argv[1:])"
ACTIVATE = "export ACTIVATED=yes\n"
NEW, OLD = "/usr/local/bin/entrypoint.sh", "/usr/local/bin/_entrypoint.sh"


@pytest.fixture
def start(tmp_path, script):
    """Start an archive in a container of an image, as the specification does; return exit code and output."""
    payload = zipfile.ZipFile(io.BytesIO(Payload.of_source(script(""), None).archive))
    prefix = payload.fp.getvalue()[: min(entry.header_offset for entry in payload.infolist())]
    stage = tmp_path / "stage"
    stage.mkdir()
    numbers = count()

    def start(image, path=PATH):
        archive = io.BytesIO()
        archive.write(prefix)
        with zipfile.ZipFile(archive, "w") as content:
            content.writestr("__main__.py", MAIN)
        (stage / "payload.pyz").write_bytes(archive.getvalue())
        number = next(numbers)
        plan = make_plan(
            tmp_path / str(number),
            "/bin/sh",
            args=("/mnt/job_stage/payload.pyz",),
            image=path,
            images={path: image} if image else {},
            mounts=(Mount(source=stage, path="/mnt/job_stage"),),
        )
        container = Container(plan, tmp_path / f"{number}.log")
        try:
            return container.finish()
        finally:
            container.instance.kill()
            container.instance.wait(budget())

    return start


def image(path, text, **fields):
    """Describe an image with a script as its entrypoint."""
    return Image(entrypoint=(path,), files={path: f"#!/bin/sh\n{text}"}, **fields)


@pytest.mark.parametrize(
    ("image", "activated"),
    [
        (image(NEW, ACTIVATE + 'exec "$@"\n'), "yes"),
        (image(OLD, ACTIVATE + "exec env ${@}\n"), "yes"),
        (image(NEW, ACTIVATE + '[ $# -gt 0 ] && exec "$@"\n'), "yes"),
        (image(NEW, ACTIVATE + '# exec "$@"\nexec sleep "${TIME}"\n'), None),
        (image("/opt/serve", ACTIVATE + 'exec "$@"\n'), None),
        (Image(), None),
    ],
    ids=["container runtime", "snowbooks", "conditional", "ignores its arguments", "another", "none"],
)
def test_an_archive_starts_in_images_of_each_kind(start, image, activated):
    """The runtime's entrypoint sets up Python before the archive starts, unless it would not run the archive."""
    if image.files and not can_isolate():
        pytest.skip("this machine lets users make no namespaces")

    assert (0, f"{activated} None []\n") == start(image)


def test_python3_is_enough(start):
    """An archive starts where only python3 is on PATH."""
    assert (0, "None None []\n") == start(Image(programs=frozenset({"python3"})))


def test_an_image_without_python_is_named(start):
    """An image without Python fails with the reason and the fix."""
    code, text = start(Image(programs=frozenset()))

    assert 127 == code
    assert text.startswith("This image has no Python: neither python nor python3 is on PATH (/")
    assert "Choose a runtime_environment with Python 3.9 or newer" in text


@pytest.mark.parametrize("path", ["cpu_x86_64:3.0.0", "gpu_x86_64:2.9.0-py311"])
def test_an_archive_starts_in_the_container_runtime(start, path):
    """The images of Snowflake's container runtime start an archive."""
    assert (0, "None None []\n") == start(None, f"/snowflake/images/snowflake_images/container_runtime/{path}")
