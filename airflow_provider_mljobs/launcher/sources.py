"""Brings the payload's code into the container: from the archive, the job's stage or a git repository."""

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
    """Extract the launcher's archive, and make the programs in it executable."""
    with zipfile.ZipFile(sys.path[0]) as archive:
        for info in archive.infolist():
            path = Path(archive.extract(info, directory))
            if info.external_attr >> 16 & 0o100:
                path.chmod(path.stat().st_mode | 0o111)


def prepare(manifest: dict[str, Any], directory: Path) -> Path:
    """Fetch the sources that the archive doesn't hold; return the payload's working directory."""
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
    """Copy files that Snowflake copied into the job's own directory."""
    source = Path(os.environ.get(MLRS_STAGE_RESULT_PATH, ""), entry["input"])
    if not source.exists():
        raise LauncherError(
            f"{entry['from']!r} is empty or missing: Snowflake copied no file from it. A path that ends in .py or .zip "
            "is one file, any other a directory."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=shutil.copyfile, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target / source.name if target.is_dir() else target)


def check(manifest: dict[str, Any], app: Path, source: str) -> None:
    """Refuse a source that can't run. A source on the worker's disk is checked there."""
    if (app / CONDA_FILE).exists():
        raise LauncherError(
            f"Source {source} has an {CONDA_FILE}, but ML jobs take no conda environments. Write a requirements.txt."
        )
    if manifest["kind"] == "script" and not (app / manifest["command"][0]).is_file():
        names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in app.iterdir())
        listed = ", ".join([*names[:MAX_LISTED], "…"] if len(names) > MAX_LISTED else names)
        raise LauncherError(f"Entrypoint {manifest['command'][0]!r} is not in source {source}, which has: {listed}.")
    for entry in manifest["imports"]:
        top = entry["name"].partition(".")[0]
        if top and ((app / f"{top}.py").exists() or (app / top / "__init__.py").exists()):
            raise LauncherError(
                f"Import {entry['name']!r} is hidden by module {top!r} of source {source}; give it another name."
            )
