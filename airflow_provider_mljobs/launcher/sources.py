"""Brings the payload's code into the container: out of the archive, from the job's stage, from a git repository."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

from .contract import APP, CONDA_FILE, IMPORTS, MLRS_STAGE_RESULT_PATH
from .errors import LauncherError
from .git import clone

MAX_LISTED = 20


def unpack(directory: Path) -> None:
    """Extract the archive that the launcher runs from; programs in it can be run."""
    with zipfile.ZipFile(sys.path[0]) as archive:
        for info in archive.infolist():
            path = Path(archive.extract(info, directory))
            if info.external_attr >> 16 & 0o100:
                path.chmod(path.stat().st_mode | 0o111)


def prepare(manifest: dict[str, Any], directory: Path) -> Path:
    """Complete what was unpacked, and return the directory that the payload runs in."""
    app = directory / APP
    for needed in (app, directory / IMPORTS):
        needed.mkdir(exist_ok=True)
    if "stage" in manifest:
        copy(manifest["stage"], app)
        check(manifest, app, repr(manifest["stage"]["from"]))
    elif "git" in manifest:
        app = clone(manifest["git"], directory)
        check(manifest, app, "{url!r} at {ref!r}".format(**manifest["git"]))
    for entry in manifest["imports"]:
        if "input" in entry:
            copy(entry, directory / IMPORTS / entry["target"])
    return app


def copy(entry: dict[str, str], target: Path) -> None:
    """Copy what Snowflake has copied into the job's own directory."""
    source = Path(os.environ.get(MLRS_STAGE_RESULT_PATH, ""), entry["input"])
    if not source.exists():
        raise LauncherError(
            f"There was nothing to copy from {entry['from']!r}. A path that ends in .py or .zip is one file, any other "
            "is a directory."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=shutil.copyfile, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target / source.name if target.is_dir() else target)


def check(manifest: dict[str, Any], app: Path, source: str) -> None:
    """Refuse a source that can't run as the task says. One on the worker's disk was checked there."""
    if (app / CONDA_FILE).exists():
        raise LauncherError(
            f"Source {source} has an {CONDA_FILE}, but ML jobs take no conda environments. Write a requirements.txt."
        )
    if manifest["kind"] == "script" and not (app / manifest["command"][0]).is_file():
        there = sorted(f"{path.name}/" if path.is_dir() else path.name for path in app.iterdir())
        listed = ", ".join([*there[:MAX_LISTED], "…"] if len(there) > MAX_LISTED else there)
        raise LauncherError(f"Entrypoint {manifest['command'][0]!r} is not in source {source}. There is: {listed}.")
    for entry in manifest["imports"]:
        top = entry["name"].partition(".")[0]
        if top and ((app / f"{top}.py").exists() or (app / top / "__init__.py").exists()):
            raise LauncherError(
                f"Import {entry['name']!r} is hidden by module {top!r} of source {source}; give it another name."
            )
