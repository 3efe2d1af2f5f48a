"""The program of an image: its command, or the ML container runtime's entrypoint and start script."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.errors import NOT_SUPPORTED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

ENTRYPOINT = "/usr/local/bin/_entrypoint.sh"
# The content of the file, for jobs that run it themselves, e.g. from a shell.
ENTRYPOINT_SCRIPT = '#!/bin/sh\nexec "$@"\n'

_START_SCRIPT = "startup.sh"
_LAUNCHER = "mljob_launcher.py"


class ImageError(Exception):
    """Raised when an image has no program to run."""


@dataclass(frozen=True)
class Program:
    """The program of a container.

    :param argv: the program and its arguments.
    :param directory: its working directory.
    :param starts_ml_job: whether ``argv`` holds the arguments of the ML jobs' start script instead.
    """

    argv: tuple[str, ...]
    directory: str | None = None
    starts_ml_job: bool = False


def is_ml_runtime(image: str) -> bool:
    """Return whether an image is Snowflake's ML container runtime."""
    return "/runtime_image/" in image


def program(
    image: str,
    command: Sequence[str],
    args: Sequence[str],
    env: Mapping[str, str],
    find: Callable[[str], Path],
) -> Program:
    """Return the program of a container.

    :param image: name of the image.
    :param command: the command of the specification.
    :param args: its arguments.
    :param env: environment of the container.
    :param find: turns a path of the container into one on the host.
    """
    if not command and not is_ml_runtime(image):
        raise ImageError(
            f"Running an image's own entrypoint is {NOT_SUPPORTED}: "
            f"add a command for image {image} to the specification; only ML runtime images may omit it"
        )
    argv = (*command, *args)
    if argv[:1] == (ENTRYPOINT,):
        argv = argv[1:]
    if not argv:
        raise ImageError(f"Nothing to run: image {image} has neither command nor arguments in the specification")
    script = argv[1] if posixpath.basename(argv[0]) in {"bash", "sh"} and len(argv) > 1 else argv[0]
    if not posixpath.isabs(script) or posixpath.basename(script) != _START_SCRIPT:
        return Program(argv)
    system = posixpath.dirname(script)
    if not is_ml_runtime(image) and not find(f"{system}/{_LAUNCHER}").exists():
        return Program(argv)
    return _start_job(system, argv[argv.index(script) + 1 :], env)


def _start_job(system: str, args: Sequence[str], env: Mapping[str, str]) -> Program:
    """Replace the ML client's start script, which installs cron jobs and must not run on a host."""
    directory = None
    if env.get("MLRS_PAYLOAD_DIR"):
        directory = posixpath.join(env.get("MLRS_STAGE_MOUNT_PATH", "/mnt/job_stage"), env["MLRS_PAYLOAD_DIR"])
    return Program((system, *args), directory, starts_ml_job=True)
