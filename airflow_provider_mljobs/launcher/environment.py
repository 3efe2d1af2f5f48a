"""The interpreter that the payload runs in: its packages, its connection, its session."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from .contract import MLJOBS_QUERY_TAG, REQUIREMENTS_FILE
from .errors import LauncherError

# The ML runtime image keeps its packages here; its own start script puts them on PYTHONPATH.
RUNTIME_PACKAGES = "/opt/env/site-packages"
TOKEN = Path("/snowflake/session/token")


def find_packages(*directories: Path) -> None:
    """Make the payload, its imports, their zip files and the image's packages importable, here and in child processes.

    :param directories: the payload's working directory, that of its imports, and that of what is ours.
    """
    own = [place for directory in directories for place in (directory, *zip_files(directory))]
    image = [RUNTIME_PACKAGES] if Path(RUNTIME_PACKAGES).is_dir() else []
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    added = [path for path in (*map(str, own), *image) if path not in inherited]
    # In place of the archive, which is sys.path[0].
    sys.path[:1] = [path for path in added if path not in sys.path]
    os.environ["PYTHONPATH"] = os.pathsep.join([*added, *inherited])


def zip_files(directory: Path) -> list[Path]:
    """Return the zip files below a directory."""
    return sorted(path for path in directory.rglob("*.zip") if path.is_file() and zipfile.is_zipfile(path))


def find_programs() -> None:
    """Let commands and child processes find this interpreter, and the programs that its packages bring, first."""
    own = [str(Path(sys.executable).parent), sysconfig.get_path("scripts"), sysconfig.get_path("scripts", "posix_user")]
    inherited = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(dict.fromkeys([*own, *inherited]))


def connect_by_default(directory: Path) -> None:
    """Let ``Session.builder.getOrCreate()`` and ``connect()`` find the container's own login.

    The platform gives a host and a token file, but no connection file. The token is named by its path: the platform
    rewrites the file every few minutes.
    """
    home = Path(os.environ.get("SNOWFLAKE_HOME", "~/.snowflake")).expanduser()
    place = directory / "snowflake"
    if (home / "connections.toml").exists():
        # The platform can write one itself, if a specification asks it to.
        if MLJOBS_QUERY_TAG in os.environ:
            shutil.copytree(home, place)
            tag_sessions(place / "connections.toml")
            os.environ["SNOWFLAKE_HOME"] = str(place)
        return
    if "SNOWFLAKE_HOST" not in os.environ or not TOKEN.exists():
        return
    names = ("HOST", "ACCOUNT", "DATABASE", "SCHEMA", "PORT", "PROTOCOL")
    known = {name.lower(): os.environ[f"SNOWFLAKE_{name}"] for name in names if f"SNOWFLAKE_{name}" in os.environ}
    lines = [f"{name} = {json.dumps(value)}" for name, value in known.items()]
    file = place / "connections.toml"
    place.mkdir(mode=0o700)
    file.touch(mode=0o600)
    lines = ["[default]", *lines, 'authenticator = "oauth"', f'token_file_path = "{TOKEN}"']
    file.write_text("\n".join(lines) + "\n", "utf-8")
    os.environ["SNOWFLAKE_HOME"] = str(place)
    tag_sessions(file)


def tag_sessions(file: Path) -> None:
    """Let the queries of the default connection be found by the job's QUERY_TAG."""
    tag = os.environ.pop(MLJOBS_QUERY_TAG, None)
    if tag is None:
        return
    # What JSON escapes, TOML reads alike; what it needn't escape stands as it is.
    text = json.dumps(json.loads(tag), ensure_ascii=False).replace("\x7f", "\\u007f")
    with file.open("a", encoding="utf-8") as connections:
        connections.write(f"\n[default.session_parameters]\nQUERY_TAG = {text}\n")


def install(requirements: list[str], app: Path) -> None:
    """Install what the payload's requirements.txt and the task ask for with the container's pip."""
    lines = [*([f"-r {REQUIREMENTS_FILE}"] if has_requirements(app / REQUIREMENTS_FILE) else []), *requirements]
    if not lines:
        return
    print(f"Installing {', '.join(lines)}", flush=True)
    # Beside the payload: "-r more.txt" in a requirements file means a file beside it.
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8", dir=app) as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-r", file.name]
        code = subprocess.run(command, check=False).returncode
    if code:
        raise LauncherError(
            f"pip ended with exit code {code} while installing {lines}; its output is in the log above. A "
            "container reaches a package index only through an external access integration: pass it as "
            "external_access_integrations."
        )
    importlib.invalidate_caches()


def has_requirements(file: Path) -> bool:
    """Tell whether a requirements file has more than comments."""
    return file.is_file() and any(
        line.strip() and not line.lstrip().startswith(b"#") for line in file.read_bytes().splitlines()
    )


def mentions_active_session(*directories: Path) -> bool:
    """Tell whether the payload expects the session that the ML runtime has open before any user code starts."""
    files = (path for directory in directories for path in directory.rglob("*.py"))
    return any(b"get_active_session" in path.read_bytes() for path in files if path.is_file())


def session() -> Any:
    """Return the job's Snowpark session."""
    from snowflake.snowpark import Session

    return Session.builder.getOrCreate()
