"""The images of the ML runtime: their releases, and the choice of one for a pool, a version and a Python."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.spcs.errors import image_not_found, no_runtime

if TYPE_CHECKING:
    from airflow_provider_mljobs.emulator.spcs.pool import Pool

_IMAGES = "/snowflake/images/snowflake_images/"
# By whether the image is for GPUs: "snowbooks" until 1.8, then the container runtime.
_OLD = {
    False: f"{_IMAGES}st_plat/runtime/x86/runtime_image/snowbooks",
    True: f"{_IMAGES}st_plat/runtime/x86/generic_gpu/runtime_image/snowbooks",
}
_NEW = {False: f"{_IMAGES}container_runtime/cpu_x86_64", True: f"{_IMAGES}container_runtime/gpu_x86_64"}
_REPOSITORIES = frozenset({*_OLD.values(), *_NEW.values()})
_FIRST_NEW = 2
# The newest patch of each release that Snowflake's documentation or tests name; the last is Latest since 2026-10-27.
_PATCHES = {
    "1.0": 1, "1.5": 1, "1.6": 0, "1.7": 1, "1.8": 0, "2.2": 0, "2.3": 0, "2.4": 0, "2.5": 1, "2.6": 0, "2.7": 2,
    "2.8": 0, "2.9": 0, "2.10": 0, "3.0": 0,
}  # fmt: skip
_LATEST = "3.0"
# That of tags without a suffix is the first.
_PYTHONS = ("3.10", "3.11", "3.12")
_TAG = re.compile(r"(?P<line>\d+\.\d+)(?:\.(?P<patch>\d+))?(?:-py(?P<python>3\d+))?")


def runtime_image(pool: Pool, runtime: str | None, python: str | None) -> str:
    """Return the image of a runtime, as SYSTEM$GET_ML_JOB_RUNTIME does; raises 395091 if there is none.

    Snowflake's own tests (runtime_env_integration_test.py of snowflake-ml-python) show: a version counts up to its
    minor number and leads to the newest patch, whether it is a tag or stands in the full path of a runtime's image. A
    suffix such as ``-py311`` outranks the client's Python.

    :param runtime: a version, a tag, an image or a ``cre@`` reference; ``None`` for the latest.
    :param python: the client's Python, e.g. ``3.11``.
    """
    path, _, tag = (runtime or "").rpartition(":")
    if path in _REPOSITORIES:
        runtime = tag
    elif runtime and ("/" in runtime or runtime.startswith("cre@")):
        return runtime
    if runtime and runtime.startswith("@"):
        return f"{_repository(pool, _LATEST)}{runtime}"
    match = _TAG.fullmatch(runtime or _LATEST)
    if match is None or match["line"] not in _PATCHES:
        raise no_runtime(f"Runtime environment '{runtime}' does not exist. Available versions: {', '.join(_PATCHES)}.")
    suffix = match["python"]
    wanted = f"3.{suffix[1:]}" if suffix else python or _PYTHONS[0]
    if wanted not in _PYTHONS:
        raise no_runtime(f"Python version {wanted} is not supported. Supported versions: {', '.join(_PYTHONS)}.")
    line = match["line"]
    ending = "" if wanted == _PYTHONS[0] and not suffix else f"-py{wanted.replace('.', '')}"
    return f"{_repository(pool, line)}:{line}.{_PATCHES[line]}{ending}"


def check_image(image: str) -> None:
    """Raise an error for an image of the ML runtime with a tag that is not published.

    Seen on an account by others: such a job is refused at once, also for a tag without a patch number, e.g. ``2.9``.
    """
    path, _, tag = image.rpartition(":")
    if path not in _REPOSITORIES:
        return
    match = _TAG.fullmatch(tag)
    if (
        match is None
        or match["patch"] is None
        or int(match["patch"]) > _PATCHES.get(match["line"], -1)
        or (match["python"] is not None and f"3.{match['python'][1:]}" not in _PYTHONS)
    ):
        raise image_not_found(image)


def _repository(pool: Pool, line: str) -> str:
    repositories = _NEW if int(line.partition(".")[0]) >= _FIRST_NEW else _OLD
    return repositories[bool(pool.family.gpu_count)]
