"""The payload's interpreter: its packages, its connection, its session."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

from .contract import MLJOBS_QUERY_TAG

# The ML runtime image keeps its packages here; its own start script puts them on PYTHONPATH.
RUNTIME_PACKAGES = "/opt/env/site-packages"
TOKEN = Path("/snowflake/session/token")
_ACTIVE_SESSION = re.compile(rb"get_active_session")
_RAY_MODULES = rb"ray|snowflake\.ml\.(data|ray|modeling\.(distributors|tune))"
_IMPORTS_RAY = re.compile(
    # Statements; then names in pickled code: opcode, length, text, opcode.
    rb"^\s*(import|from)\s+(%b)\b" % _RAY_MODULES
    + rb"|^\s*from\s+snowflake\.ml(\.modeling)?\s+import\s+.*\b(data|ray|distributors|tune)\b"
    + rb"|\x8c(?s:.)(%b)(\.[\w.]*)?\x94" % _RAY_MODULES,
    re.MULTILINE,
)


def find_packages(*directories: Path) -> None:
    """Make the payload, its imports, their zip files and the image's packages importable, also in child processes."""
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
    """Put this interpreter and the programs of its packages first on PATH."""
    own = [str(Path(sys.executable).parent), sysconfig.get_path("scripts"), sysconfig.get_path("scripts", "posix_user")]
    inherited = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(dict.fromkeys([*own, *inherited]))


def connect_by_default(directory: Path) -> None:
    """Let ``Session.builder.getOrCreate()`` and ``connect()`` find the container's own login.

    The platform provides a host and a token file, but no connection file. The connection names the token by its path,
    because the platform rewrites the file every few minutes.
    """
    home = Path(os.environ.get("SNOWFLAKE_HOME", "~/.snowflake")).expanduser()
    place = directory / "snowflake"
    if (home / "connections.toml").exists():
        # A specification can have the platform write one.
        if MLJOBS_QUERY_TAG in os.environ:
            shutil.copytree(home, place)
            tag_sessions(place / "connections.toml")
            os.environ["SNOWFLAKE_HOME"] = str(place)
        return
    if "SNOWFLAKE_HOST" not in os.environ or not TOKEN.exists():
        return
    names = ("HOST", "ACCOUNT", "DATABASE", "SCHEMA", "PORT", "PROTOCOL")
    variables = {name.lower(): os.environ.get(f"SNOWFLAKE_{name}") for name in names}
    lines = [f"{name} = {json.dumps(value)}" for name, value in variables.items() if value is not None]
    file = place / "connections.toml"
    place.mkdir(mode=0o700)
    file.touch(mode=0o600)
    lines = ["[default]", *lines, 'authenticator = "oauth"', f'token_file_path = "{TOKEN}"']
    file.write_text("\n".join(lines) + "\n", "utf-8")
    os.environ["SNOWFLAKE_HOME"] = str(place)
    tag_sessions(file)


def tag_sessions(file: Path) -> None:
    """Give the sessions of the default connection the job's QUERY_TAG."""
    tag = os.environ.pop(MLJOBS_QUERY_TAG, None)
    if tag is None:
        return
    # TOML reads JSON's escapes but no surrogate pairs, and wants DEL to be escaped.
    text = json.dumps(json.loads(tag), ensure_ascii=False).replace("\x7f", "\\u007f")
    with file.open("a", encoding="utf-8") as connections:
        connections.write(f"\n[default.session_parameters]\nQUERY_TAG = {text}\n")


def mentions_active_session(*directories: Path) -> bool:
    """Return whether the payload uses the session that the ML runtime opens before the user's code."""
    return mentions(_ACTIVE_SESSION, *directories)


def imports_ray(*places: Path) -> bool:
    """Return whether the payload imports Ray, or a part of ``snowflake.ml`` that uses the ML runtime's Ray."""
    return mentions(_IMPORTS_RAY, *places)


def mentions(pattern: re.Pattern[bytes], *places: Path) -> bool:
    """Return whether a pattern occurs in one of some files, or in a Python file below a directory."""
    files = (path for place in places for path in (place, *place.rglob("*.py")))
    return any(pattern.search(path.read_bytes()) for path in files if path.is_file())


def session() -> Any:
    """Return the job's Snowpark session."""
    from snowflake.snowpark import Session

    return Session.builder.getOrCreate()
