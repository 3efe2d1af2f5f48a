"""The mounts of a container: directories of the host at paths of the container."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A directory of a stage, or a scratch directory, visible in the container.

    :param source: directory on the host.
    :param path: absolute path in the container, e.g. ``/mnt/job_stage``.
    :param read_only: whether the container may not write; enforced in namespaces only.
    :param memory: size in bytes of a volume in memory, which is private to the container; ``source`` is used where
        there are no namespaces.
    """

    source: Path
    path: str
    read_only: bool = False
    memory: int | None = None

    def __post_init__(self) -> None:
        """Refuse paths that no container runtime accepts."""
        if not self.path.startswith("/") or not self.path.strip("/"):
            msg = f"A mount path must be absolute and not the root directory; got {self.path!r}"
            raise ValueError(msg)


def host_path(path: str, mounts: Sequence[Mount]) -> Path:
    """Return the file on the host that the container sees at ``path``."""
    wanted = PurePosixPath(path)
    for mount in sorted(mounts, key=lambda mount: len(mount.path.rstrip("/")), reverse=True):
        if wanted.is_relative_to(mount.path):
            return mount.source / wanted.relative_to(mount.path)
    return Path(path)


def rewriter(mounts: Sequence[Mount]) -> Callable[[str], str]:
    """Build a function that replaces mount paths in a text by the directories on the host.

    Only whole paths: ``/mnt/app`` is replaced in ``--out=/mnt/app/x`` and ``file:///mnt/app``, but neither in
    ``/mnt/application`` nor in ``@stage/mnt/app``.
    """
    sources = {mount.path.rstrip("/"): str(mount.source) for mount in mounts}
    if not sources:
        return lambda text: text
    # Longest first, and in one pass, so that replacements are not replaced again.
    paths = "|".join(re.escape(path) for path in sorted(sources, key=len, reverse=True))
    pattern = re.compile(rf"(?:(?<![\w./~@-])|(?<=file://))(?:{paths})(?![\w.-])")
    return lambda text: pattern.sub(lambda match: sources[match[0]], text)
