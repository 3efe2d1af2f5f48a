"""A job's private Python environment and home directory, laid over an interpreter without copying anything.

``python -m pip install`` inside a job writes to the overlay and leaves the developer's environment unchanged.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.containers import image_shim, login_shim

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_mljobs.emulator.containers.images import Image

_DESCRIBE = """
import json, os, site, sys
sites = site.getsitepackages()
if site.ENABLE_USER_SITE:
    sites.append(site.getusersitepackages())
print(json.dumps({
    "executable": getattr(sys, "_base_executable", sys.executable),
    "version": "%d.%d" % sys.version_info[:2],
    "sites": [path for path in sites if os.path.isdir(path)],
    "prefixes": sorted({sys.prefix, sys.base_prefix, *filter(os.path.isdir, sys.path)}),
}))
"""
# Names that no job imports by accident.
_SHIM, _TRAITS = "_embedded_snowflake", "_embedded_image"
# As PEP 668 describes; the text is that of uv, which manages the Python of Snowflake's images.
_EXTERNALLY_MANAGED = """[externally-managed]
Error=This Python installation is managed by uv and should not be modified.
"""
_PIP = b"import runpy\nrunpy.run_module('pip', run_name='__main__')\n"
_PIP_OF_ANOTHER_PYTHON = (
    b"import importlib.machinery, sys\nsys.meta_path.append(importlib.machinery.PathFinder)\n" + _PIP
)
# Some kernels cut off longer first lines.
_LONGEST_SHEBANG = 120


@dataclass(frozen=True)
class Interpreter:
    """The description of an interpreter.

    :param executable: the interpreter, or the base interpreter of its virtual environment.
    :param version: e.g. ``3.11``.
    :param sites: its directories of installed packages.
    :param prefixes: the directories of its installation and of its path, editable projects included.
    :param scripts: its console scripts, without their first line.
    :param scripts_directory: the directory of these scripts.
    """

    executable: Path
    version: str
    sites: tuple[str, ...]
    prefixes: tuple[str, ...]
    scripts: Mapping[str, bytes]
    scripts_directory: Path


@cache
def describe(python: Path) -> Interpreter:
    """Return the description of an interpreter; it runs once for that.

    :param python: the interpreter.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    answer = subprocess.run(
        [python, "-c", _DESCRIBE], cwd="/", env=environment, check=True, capture_output=True, timeout=60
    ).stdout
    described = json.loads(answer)
    return Interpreter(
        Path(described["executable"]),
        described["version"],
        tuple(described["sites"]),
        tuple(described["prefixes"]),
        _console_scripts(python.parent),
        python.parent,
    )


def _console_scripts(directory: Path) -> dict[str, bytes]:
    """Read the scripts that name an interpreter of their own directory.

    Run from there, ``pip`` would install into the developer's environment and ``torchrun`` not see the job's packages.
    """
    scripts: dict[str, bytes] = {}
    if directory in {Path("/bin"), Path("/usr/bin")}:
        return scripts  # the system's own tools
    prefix = os.fsencode(f"#!{directory}/python")
    for path in directory.iterdir():
        if path.name.startswith("python") or not path.is_file() or path.stat().st_size > 1 << 16:
            continue
        try:
            first, _, body = path.read_bytes().partition(b"\n")
        except OSError:
            continue
        if first.startswith(prefix):
            scripts[path.name] = body
    return scripts


def build(directory: Path, interpreter: Interpreter, connection: Mapping[str, str], image: Image) -> Path:
    """Create a virtual environment in ``directory``, with a few file operations instead of ``python -m venv``.

    :param directory: a new directory.
    :param interpreter: the interpreter below it.
    :param connection: ``host``, ``port`` and ``protocol`` that logins from inside get if they leave them out.
    :param image: the image that the environment belongs to.
    :return: the directory of its programs.
    """
    programs = directory / "bin"
    packages = directory / "lib" / f"python{interpreter.version}" / "site-packages"
    programs.mkdir(parents=True)
    packages.mkdir(parents=True)
    (directory / "lib64").symlink_to("lib")
    (directory / "pyvenv.cfg").write_text(
        f"home = {interpreter.executable.parent}\ninclude-system-site-packages = false\n", encoding="utf-8"
    )
    names = sorted({"python", "python3"} & image.programs)
    for name in (*names, f"python{interpreter.version}") if names else ():
        (programs / name).symlink_to(interpreter.executable)
    lines = [f"import site; site.addsitedir({path!a})" for path in interpreter.sites]
    login = (connection["host"], str(connection["port"]), connection["protocol"])
    lines.append(f"import {_SHIM}; {_SHIM}.install(*{login!a})")
    (packages / f"{_SHIM}.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (packages / f"{_SHIM}.py").write_bytes(_source(login_shim.__file__))
    _write_traits(packages, image)
    if names:
        _write_scripts(programs, programs / names[0], interpreter, image)
    return programs


@cache
def _source(module: str) -> bytes:
    return Path(module).read_bytes()


def _write_traits(packages: Path, image: Image) -> None:
    calls = [
        *(["hide_pip()"] if not image.has_pip_module else []),
        *(["be_system()"] if image.is_externally_managed else []),
    ]
    if calls:
        (packages / f"{_TRAITS}.py").write_bytes(_source(image_shim.__file__))
        # By its name it is read before the other file: the interpreter's own packages come last.
        lines = "; ".join(f"{_TRAITS}.{call}" for call in calls)
        (packages / f"{_TRAITS}.pth").write_text(f"import {_TRAITS}; {lines}\n", encoding="utf-8")
    if image.is_externally_managed:
        (packages.parent / "EXTERNALLY-MANAGED").write_text(_EXTERNALLY_MANAGED, encoding="utf-8")
        packages.parents[2].joinpath("local", "lib", packages.parent.name, "dist-packages").mkdir(parents=True)


def _write_scripts(programs: Path, python: Path, interpreter: Interpreter, image: Image) -> None:
    shebang = b"#!" + os.fsencode(python) + b"\n"
    if len(shebang) > _LONGEST_SHEBANG or len(os.fsencode(python).split()) > 1:
        # sh runs the second line, which Python reads as a string; the interpreter lies beside the script.
        shebang = b"""#!/bin/sh\n'''exec' "${0%%/*}/%b" "$0" "$@"\n' '''\n""" % os.fsencode(python.name)
    scripts = {name: body for name, body in interpreter.scripts.items() if not name.startswith("pip")}
    if "pip" in image.programs:
        pip = _PIP if image.has_pip_module else _PIP_OF_ANOTHER_PYTHON
        scripts |= {"pip": pip, "pip3": pip, f"pip{interpreter.version}": pip}
    for name, body in scripts.items():
        descriptor = os.open(programs / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o755)
        with os.fdopen(descriptor, "wb") as file:
            file.write(shebang + body)


def write_login(home: Path, connection: Mapping[str, str], token_path: str) -> None:
    """Write the file that ``snowflake.connector.connect()`` and ``Session.builder.getOrCreate()`` read.

    :param home: home directory of the job.
    :param connection: parameters of the connection.
    :param token_path: where the job finds its token.
    """
    settings = {**connection, "authenticator": "oauth", "token_file_path": token_path}
    # The port must be a number. JSON strings are TOML strings, except for JSON's escapes of emoji.
    texts = {name: json.dumps(str(value), ensure_ascii=False) for name, value in settings.items()}
    lines = [f"{name} = {text}" for name, text in (texts | {"port": settings["port"]}).items()]
    path = home / ".snowflake" / "connections.toml"
    path.parent.mkdir(mode=0o700, parents=True)
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(["[default]", *lines, ""]))
