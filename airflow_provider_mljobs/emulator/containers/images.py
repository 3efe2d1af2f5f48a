"""The images of containers: their entrypoint, their Python and its installers."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.errors import NOT_SUPPORTED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_START_SCRIPT = "startup.sh"
_LAUNCHER = "mljob_launcher.py"
_SHELLS = {"bash", "sh"}
_ABSENT = {"python", "python3", "pip", "pip3", "uv", "uvx"}


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image, as far as it differs from this machine, whose software its containers run.

    :param entrypoint: its ENTRYPOINT: a program and arguments, before those of the specification.
    :param cmd: its CMD: the arguments of a specification without any.
    :param files: executable scripts in it, by path. Without namespaces only a container's own command finds them.
    :param programs: which of ``python``, ``python3``, ``pip`` and ``uv`` are on PATH, as far as this machine has them.
    :param has_pip_module: whether ``python -m pip`` works.
    :param is_externally_managed: whether its Python refuses installations, as PEP 668 describes.
    """

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    programs: frozenset[str] = frozenset({"python", "python3", "pip", "uv"})
    has_pip_module: bool = True
    is_externally_managed: bool = False

    @property
    def hidden_programs(self) -> frozenset[str]:
        """The programs of this machine that its containers don't see, without versions."""
        offered = self.programs | ({"pip3"} if "pip" in self.programs else set())
        return frozenset(_ABSENT - offered - ({"uvx"} if "uv" in self.programs else set()))


# The client of ML jobs 1.x names this entrypoint in the specifications that it writes.
_SNOWBOOKS = Image(
    entrypoint=("/usr/local/bin/_entrypoint.sh",), files={"/usr/local/bin/_entrypoint.sh": '#!/bin/sh\nexec "$@"\n'}
)
# Its entrypoint is documented (Custom Runtime Images), and so is uv. Measured by others on 2.9.0: "pip install" without
# the entrypoint is refused as externally managed. Snowflake's start script calls plain pip behind the entrypoint, and
# its tests install packages that way, so the entrypoint is believed to allow it.
_CONTAINER_RUNTIME = Image(
    entrypoint=("/usr/local/bin/entrypoint.sh",),
    files={"/usr/local/bin/entrypoint.sh": '#!/bin/sh\nexport PIP_BREAK_SYSTEM_PACKAGES=1\nexec "$@"\n'},
    has_pip_module=False,
    is_externally_managed=True,
)
# Custom runtime environments are made from a container runtime.
_BUILT_IN = {"*/runtime_image/*": _SNOWBOOKS, "*/container_runtime/*": _CONTAINER_RUNTIME, "cre@*": _CONTAINER_RUNTIME}
# An image of which nothing is known: a command runs the software of this machine.
_UNKNOWN = Image()


class ImageError(Exception):
    """Raised when an image has no program to run."""


@dataclass(frozen=True)
class Program:
    """The program of a container.

    :param argv: the program and its arguments.
    :param directory: its working directory.
    :param ml_job: arguments of the ML jobs' start script, which replace it behind ``argv``; ``None`` for others.
    """

    argv: tuple[str, ...]
    directory: str | None = None
    ml_job: tuple[str, ...] | None = None


def image_of(path: str, own: Mapping[str, Image]) -> Image:
    """Return the image with a path.

    :param own: images of the user's, by patterns of paths.
    """
    images = (*own.items(), *_BUILT_IN.items())
    return next((image for pattern, image in images if fnmatchcase(path, pattern)), _UNKNOWN)


def program(
    path: str,
    image: Image,
    command: Sequence[str],
    args: Sequence[str],
    env: Mapping[str, str],
    find: Callable[[str], Path],
) -> Program:
    """Return the program of a container, chosen as container runtimes do.

    A command replaces the image's ENTRYPOINT and CMD; arguments alone replace its CMD.

    :param path: path of the image.
    :param command: the command of the specification.
    :param args: its arguments.
    :param env: environment of the container.
    :param find: turns a path of the container into one on the host.
    """
    if not command and image is _UNKNOWN:
        raise ImageError(
            f"Running the entrypoint of an unknown image is {NOT_SUPPORTED}: add a command for image {path} to the "
            "specification, or describe the image with serve(images=…)"
        )
    argv = (*command, *args) if command else (*image.entrypoint, *(args or image.cmd))
    if not argv or (not command and argv == image.entrypoint and argv[0] in image.files):
        raise ImageError(f"Nothing to run: image {path} has neither command nor arguments in the specification")
    begin = len(image.entrypoint) if argv[: len(image.entrypoint)] == image.entrypoint else 0
    first, *rest = argv[begin:] or ("",)
    script = rest[0] if posixpath.basename(first) in _SHELLS and rest else first
    if not posixpath.isabs(script) or posixpath.basename(script) != _START_SCRIPT:
        return Program(argv)
    system = posixpath.dirname(script)
    if image is _UNKNOWN and not find(f"{system}/{_LAUNCHER}").exists():
        return Program(argv)
    # The ML client's start script installs cron jobs, and must not run on a host.
    directory = None
    if env.get("MLRS_PAYLOAD_DIR"):
        directory = posixpath.join(env.get("MLRS_STAGE_MOUNT_PATH", "/mnt/job_stage"), env["MLRS_PAYLOAD_DIR"])
    return Program(argv[:begin], directory, (system, *argv[argv.index(script) + 1 :]))
