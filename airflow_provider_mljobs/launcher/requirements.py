"""Installs the payload's requirements with the installer that the image has."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from typing import TYPE_CHECKING

from .contract import REQUIREMENTS_FILE
from .errors import LauncherError

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping
    from pathlib import Path

_PYTHON = "{}.{}".format(*sys.version_info)
# Lines of the installer's messages, and characters of one, that a cause is looked for in.
_MAX_LINES, _MAX_LINE = 500, 1_000
_MAX_QUOTE = 300
# uv reads none of pip's variables.
_UV_VARIABLES = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_CONSTRAINT": "UV_CONSTRAINT",
    "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
}
_TRUE = {"1", "true", "yes", "on"}
# Words of pip 22 to 26 and of uv 0.4 to 0.13, with the cause and its fix. The first that any line has counts: without a
# network pip ends with "no matching distribution", too.
_CAUSES = {
    "externally[- ]managed": (
        "the image's Python is externally managed (PEP 668), and the job may not override that. Remove "
        "PIP_BREAK_SYSTEM_PACKAGES and UV_BREAK_SYSTEM_PACKAGES from env_vars: the job sets them itself"
    ),
    "Invalid requirement|Failed to parse|Couldn't parse": "a requirement is invalid",
    "CERTIFICATE_VERIFY_FAILED|invalid peer certificate": (
        "the container doesn't trust the certificate of the package index: name a file with its authority in "
        "PIP_CERT or, for uv, in SSL_CERT_FILE"
    ),
    (
        "Failed to establish a new connection|Max retries exceeded|name resolution|NameResolutionError|ConnectTimeout"
        "|Read timed out|Network is unreachable|Connection refused|dns error|tcp connect error|error sending request"
    ): (
        "the container can't reach the package index. It reaches other hosts only through an external access "
        "integration: pass one that allows the index as external_access_integrations"
    ),
    "not a trusted or secure host": "pip refuses the index: use its https address, or set PIP_TRUSTED_HOST",
    r"40[13] (Client Error|Unauthorized|Forbidden)|HTTP error 40[13]|\(40[13] ": (
        "the package index refuses the login: pass its address with valid credentials as secrets"
    ),
    "No space left on device": "the container's disk is full: choose a pool of a larger instance family",
    "Permission denied": "the container's user may not write there: choose another runtime_environment",
    "requires? a different (P|p)ython|does not satisfy Python": (
        f"a package doesn't support this container's Python {_PYTHON}: choose another version of it, or a "
        "runtime_environment with another Python"
    ),
    "no wheels with a matching|not a supported wheel": (
        f"no wheel of a package fits Python {_PYTHON} on this platform: choose another version of it, or a "
        "runtime_environment with another Python"
    ),
    r"from versions: (?!none)|there (is|are) no versions? of": (
        "the package index doesn't have this version of a package"
    ),
    "from versions: none|No matching distribution|was not found in the": (
        f"the package index has no such package, or no file of it for Python {_PYTHON}: check its name and versions"
    ),
    "Failed building wheel|Failed to build|metadata-generation-failed|subprocess-exited-with-error": (
        "a package has no wheel here and can't be built in this container: choose a version with a wheel"
    ),
    "ResolutionImpossible|unsatisfiable": "the requirements contradict each other",
}


def install(requirements: list[str], app: Path) -> None:
    """Install the requirements of source and task for this interpreter."""
    lines = [*([f"-r {REQUIREMENTS_FILE}"] if has_requirements(app / REQUIREMENTS_FILE) else []), *requirements]
    if not lines:
        return
    command = installer()
    print(f"Installing {', '.join(lines)} with {command[0]}", flush=True)
    use_system(os.environ)
    # Beside the source, because "-r more.txt" in a requirements file names a file beside it.
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8", dir=app) as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        code, messages = _run([*command[1], "-r", file.name])
    if code:
        raise LauncherError(f"{command[0]} could not install {lines}: {cause(messages, code)}")
    importlib.invalidate_caches()


def installer() -> tuple[str, list[str]]:
    """Return name and command of an installer for this interpreter: its own pip, uv, or another Python's pip."""
    if importlib.util.find_spec("pip") is not None:
        return "pip", [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    if uv := shutil.which("uv"):
        no_index = ["--no-index"] if os.environ.get("PIP_NO_INDEX", "").lower() in _TRUE else []
        return "uv", [uv, "pip", "install", *no_index, "--python", sys.executable]
    if pip := shutil.which("pip"):
        return "pip", [pip, "--python", sys.executable, "install", "--disable-pip-version-check"]
    raise LauncherError(
        "The job has requirements, but this image has no installer: neither a pip for its Python nor uv. Choose a "
        "runtime_environment with one of them, or with the packages."
    )


def use_system(environ: MutableMapping[str, str]) -> None:
    """Let installers change this container's Python, which belongs to the job alone, and give uv pip's settings."""
    environ.setdefault("PIP_BREAK_SYSTEM_PACKAGES", "1")
    environ.setdefault("UV_BREAK_SYSTEM_PACKAGES", "true")
    for of_pip, of_uv in _UV_VARIABLES.items():
        if of_pip in environ:
            environ.setdefault(of_uv, environ[of_pip])


def cause(messages: Iterable[str], code: int) -> str:
    """Return the cause of a failed installation with its fix, from the installer's own messages."""
    messages = list(messages)
    for pattern, text in _CAUSES.items():
        for message in messages:
            if re.search(pattern, message):
                return f"{text}. The message: {message.strip()[:_MAX_QUOTE]}"
    return f"it ended with exit code {code}; its output is in the log above."


def has_requirements(file: Path) -> bool:
    """Return whether a requirements file has more than comments."""
    return file.is_file() and any(
        line.strip() and not line.lstrip().startswith(b"#") for line in file.read_bytes().splitlines()
    )


def _run(command: list[str]) -> tuple[int, deque[str]]:
    """Run an installer; return its exit code and its last messages, which stay in the log."""
    messages: deque[str] = deque(maxlen=_MAX_LINES)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace") as process:
        for line in process.stderr or ():
            print(line, end="", file=sys.stderr, flush=True)
            messages.append(line[:_MAX_LINE])
    return process.returncode, messages
