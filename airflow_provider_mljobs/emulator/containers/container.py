"""Prepares a container: turns its plan into files, environment and arguments."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_mljobs.emulator.containers import ml_start, overlay, runtime_image
from airflow_provider_mljobs.emulator.containers.mounts import Mount, host_path, rewriter

if TYPE_CHECKING:
    from collections.abc import Mapping

Isolation = Literal["namespace", "rewrite"]

SESSION_DIRECTORY = "/snowflake/session"
_HOSTS, _TMP = "/etc/hosts", "/tmp"  # noqa: S108 - a path of the container


class RunnerError(Exception):
    """Raised when a container can't start.

    :param detail: the cause.
    """

    # Snowflake's message for such a container.
    message = "Encountered fatal error while starting container"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.message}: {self.detail}"


@dataclass(frozen=True, kw_only=True)
class InstancePlan:
    """The plan of a container.

    :param directory: private directory of the container; created here, removed by the caller.
    :param image: name of its image.
    :param command: command of its specification; may be empty.
    :param args: arguments of its specification.
    :param env: environment of its specification and of the platform.
    :param mounts: directories that are mounted into it.
    :param shared: directories of the host that stay visible even below a mount: clients in the container exchange
        files with the server through them.
    :param address: its own IP address; also that of its host name, in namespaces.
    :param hostname: name of its host, in namespaces.
    :param token: token that it logs in with.
    :param connection: how to reach the server from inside: host, port, protocol, account, database, schema.
    :param python: interpreter that the image offers as ``python``.
    """

    directory: Path
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    env: Mapping[str, str]
    mounts: tuple[Mount, ...]
    token: str
    connection: Mapping[str, str]
    python: Path
    shared: tuple[Path, ...] = ()
    address: str = "127.0.0.1"
    hostname: str = "localhost"


def prepare(plan: InstancePlan, isolation: Isolation) -> dict[str, Any]:
    """Create the container's directory and return the order for its supervisor.

    :param plan: the plan of the container.
    :param isolation: whether mounts appear at their paths, or paths are rewritten.
    """
    home, tmp, session = (plan.directory / name for name in ("home", "tmp", "session"))
    for directory in (home, tmp, session):
        directory.mkdir(parents=True, mode=0o700)
    token = session / "token"
    token.touch(mode=0o600)
    token.write_text(plan.token, encoding="utf-8")
    interpreter = overlay.describe(plan.python)
    programs = overlay.build(plan.directory / "venv", interpreter, plan.connection)
    program = _program(plan)
    argv = _start_script(plan, program) if program.starts_ml_job else program.argv
    environment = _environment(plan, (programs, interpreter.scripts_directory), home)
    order: dict[str, Any] = {"namespace": isolation == "namespace", "argv": argv}
    if isolation == "namespace":
        overlay.write_login(home, plan.connection, f"{SESSION_DIRECTORY}/token")
        _add_mounts(order, plan, interpreter)
        return {**order, "env": {**environment, **plan.env}, "cwd": program.directory or str(home)}
    overlay.write_login(home, plan.connection, str(token))
    environment |= {"SNOWFLAKE_TOKEN_FILE": str(token), "TMPDIR": str(tmp)}
    rewrite = rewriter((*plan.mounts, Mount(source=session, path=SESSION_DIRECTORY)))
    return {
        **order,
        "argv": [rewrite(argument) for argument in argv],
        "env": {**environment, **{name: rewrite(value) for name, value in plan.env.items()}},
        "cwd": rewrite(program.directory) if program.directory else str(home),
    }


def _environment(plan: InstancePlan, programs: tuple[Path, ...], home: Path) -> dict[str, str]:
    path = (*map(str, programs), "/usr/local/bin", "/usr/bin", "/bin")
    return {
        "PATH": os.pathsep.join(path),
        "VIRTUAL_ENV": str(plan.directory / "venv"),  # for uv, which otherwise looks for one in the working directory
        "HOME": str(home),
        "LANG": "C.UTF-8",
        # No PYTHONUNBUFFERED: piped output is block-buffered in real containers too, and a job that needs it unbuffered
        # should fail here first.
        # Not in real containers: here is no cloud to detect, and the connector would search for seconds.
        "SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true",
        # Not in real containers either, where port and protocol are the defaults.
        "SNOWFLAKE_PORT": str(plan.connection["port"]),
        "SNOWFLAKE_PROTOCOL": plan.connection["protocol"],
    }


def _hosts(plan: InstancePlan) -> Path:
    """Write the hosts file: the container's own name, then the entries of the host."""
    path = plan.directory / "hosts"
    entries = Path(_HOSTS).read_text(encoding="utf-8") if Path(_HOSTS).exists() else ""
    path.write_text(f"{plan.address} {plan.hostname}\n127.0.0.1 localhost\n{entries}", encoding="utf-8")
    return path


def _program(plan: InstancePlan) -> runtime_image.Program:
    try:
        return runtime_image.program(
            plan.image, plan.command, plan.args, plan.env, lambda path: host_path(path, plan.mounts)
        )
    except runtime_image.ImageError as error:
        raise RunnerError(str(error)) from error


def _start_script(plan: InstancePlan, program: runtime_image.Program) -> tuple[str, ...]:
    """Copy the start script of ML jobs into the container; return its command."""
    script = plan.directory / "ml_start.py"
    shutil.copyfile(ml_start.__file__, script)
    return ("python", str(script), plan.address, *program.argv)


def _add_mounts(order: dict[str, Any], plan: InstancePlan, interpreter: overlay.Interpreter) -> None:
    root = plan.directory / "root"
    root.mkdir()
    mounts = [
        Mount(source=plan.directory / "session", path=SESSION_DIRECTORY),
        Mount(source=_hosts(plan), path=_HOSTS),
        *plan.mounts,
    ]
    if all(mount.path.rstrip("/") != _TMP for mount in mounts):
        mounts.append(Mount(source=plan.directory / "tmp", path=_TMP))
    if runtime_image.is_ml_runtime(plan.image) and not Path(runtime_image.ENTRYPOINT).exists():
        script = plan.directory / "entrypoint.sh"
        script.write_text(runtime_image.ENTRYPOINT_SCRIPT, encoding="utf-8")
        script.chmod(0o755)
        mounts.append(Mount(source=script, path=runtime_image.ENTRYPOINT))
    order["root"] = str(root)
    order["hostname"] = plan.hostname
    order["binds"] = [(str(mount.source), mount.path.rstrip("/"), mount.read_only, mount.memory) for mount in mounts]
    order["keep"] = [*map(str, plan.shared), str(plan.directory), *interpreter.prefixes, *interpreter.sites]
