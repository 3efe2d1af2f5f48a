"""The shell script at the beginning of an archive, in images of each kind."""

import pytest

from airflow_provider_mljobs.emulator.containers.images import Image
from airflow_provider_mljobs.emulator.containers.instance import can_isolate
from airflow_provider_mljobs.jobs.payload.archive import Payload
from tests.launcher.test_launcher import FINISHED, STARTED

NEW, OLD = "/usr/local/bin/entrypoint.sh", "/usr/local/bin/_entrypoint.sh"
ACTIVATE = "export ACTIVATED=yes\n"
PRINT = "import os; print(os.environ.get('ACTIVATED'), os.environ.get('MLJOBS_STARTED'))"
RUNTIME = "/snowflake/images/snowflake_images"


@pytest.fixture
def start(contain, script):
    """Run a payload that prints whether an entrypoint ran before it."""
    payload = Payload.of_source(script(PRINT), None)
    return lambda *image, **fields: contain(payload, *image, **fields)


def printed(text):
    """Return the output of a payload that prints a text."""
    return f"{STARTED}{text}\n{FINISHED}"


def image(path, text):
    """Describe an image with a script as its entrypoint."""
    return Image(entrypoint=(path,), files={path: f"#!/bin/sh\n{text}"})


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
def test_a_payload_starts_in_images_of_each_kind(start, image, activated):
    """The runtime's entrypoint sets up Python before the payload starts, unless it would not run the payload."""
    if image.files and not can_isolate():
        pytest.skip("this machine lets users make no namespaces")

    assert (0, printed(f"{activated} None")) == start(image)


@pytest.mark.parametrize(
    "path", ["container_runtime/cpu_x86_64:3.0.0", "st_plat/runtime/x86/generic_gpu/runtime_image/snowbooks:1.8.0"]
)
def test_a_payload_starts_in_snowflakes_images(start, path):
    """The images of both generations of Snowflake's ML runtime start a payload."""
    assert (0, printed("None None")) == start(path=f"{RUNTIME}/{path}")


def test_python3_is_enough(start):
    """A payload starts where only python3 is on PATH."""
    assert (0, printed("None None")) == start(Image(programs=frozenset({"python3"})))


def test_an_image_without_python_is_reported(start):
    """An image without Python fails with the reason and the fix."""
    code, text = start(Image(programs=frozenset()))

    assert 127 == code
    assert text.startswith("This image has no Python: neither python nor python3 is on PATH (/")
    assert "Choose a runtime_environment with Python 3.9 or newer" in text
