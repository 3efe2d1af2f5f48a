"""Prepares a container: turns its plan into files, environment and arguments."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_mljobs.emulator.containers import images, ml_start, overlay
from airflow_provider_mljobs.emulator.containers.mounts import Mount, host_path, rewriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Isolation = Literal["namespace", "rewrite"]

SESSION_DIRECTORY = "/snowflake/session"
_HOSTS, _TMP = "/etc/hosts", "/tmp"  # noqa: S108 - a path of the container
_RESOLVER, _NAME_SERVICES = "/etc/resolv.conf", "/etc/nsswitch.conf"


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
    :param image: path of its image.
    :param images: images of the user's, by patterns of paths.
    :param command: command of its specification; may be empty.
    :param args: arguments of its specification.
    :param env: environment of its specification and of the platform.
    :param mounts: directories that are mounted into it.
    :param shared: directories of the host that stay visible even below a mount: clients in the container exchange
        files with the server through them.
    :param address: its own IP address; also that of its host name, in namespaces.
    :param hostname: name of its host, in namespaces.
    :param egress: whether it resolves the names of other machines; refused in namespaces only.
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
    images: Mapping[str, images.Image] = field(default_factory=dict)
    shared: tuple[Path, ...] = ()
    address: str = "127.0.0.1"
    hostname: str = "localhost"
    egress: bool = True


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
    image = images.image_of(plan.image, plan.images)
    interpreter = overlay.describe(plan.python)
    programs = overlay.build(plan.directory / "venv", interpreter, plan.connection, image)
    program = _program(plan, image)
    argv = program.argv if program.ml_job is None else (*program.argv, *_start_script(plan, program.ml_job))
    files = _files(plan, image)
    environment = _environment(plan, image, [programs, *_programs_of_host(plan, interpreter, image)], home)
    order: dict[str, Any] = {"namespace": isolation == "namespace", "argv": argv}
    if isolation == "namespace":
        overlay.write_login(home, plan.connection, f"{SESSION_DIRECTORY}/token")
        _add_mounts(order, plan, interpreter, files)
        return {**order, "env": {**environment, **plan.env}, "cwd": program.directory or str(home)}
    overlay.write_login(home, plan.connection, str(token))
    environment |= {"SNOWFLAKE_TOKEN_FILE": str(token), "TMPDIR": str(tmp)}
    rewrite = rewriter((*plan.mounts, *files, Mount(source=session, path=SESSION_DIRECTORY)))
    return {
        **order,
        "argv": [rewrite(argument) for argument in argv],
        "env": {**environment, **{name: rewrite(value) for name, value in plan.env.items()}},
        "cwd": rewrite(program.directory) if program.directory else str(home),
    }


def _programs_of_host(plan: InstancePlan, interpreter: overlay.Interpreter, image: images.Image) -> list[Path]:
    """Return the directories of this machine's programs; one with links to them if the image lacks some."""
    directories = [interpreter.scripts_directory, *map(Path, ("/usr/local/bin", "/usr/bin", "/bin"))]
    hidden = image.hidden_programs
    if not hidden:
        return directories
    links = plan.directory / "bin"
    links.mkdir()
    offered: dict[str, Path] = {}
    for directory in directories:
        for program in directory.iterdir() if directory.is_dir() else ():
            if hidden.isdisjoint({program.name, program.name.rstrip("0123456789.")}):
                offered.setdefault(program.name, program)
    for name, program in offered.items():
        (links / name).symlink_to(program)
    return [links]


def _environment(plan: InstancePlan, image: images.Image, programs: Sequence[Path], home: Path) -> dict[str, str]:
    # For uv, which otherwise looks for an environment in the working directory. A system's Python is no environment.
    own = {} if image.is_externally_managed else {"VIRTUAL_ENV": str(plan.directory / "venv")}
    return {
        "PATH": os.pathsep.join(map(str, programs)),
        **own,
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


def _resolver(plan: InstancePlan) -> list[Mount]:
    """Write the settings of a resolver that knows the hosts file only: some programs read the one, some the other."""
    settings = Path(_NAME_SERVICES).read_text(encoding="utf-8") if Path(_NAME_SERVICES).exists() else ""
    others = [line for line in settings.splitlines() if not line.startswith("hosts:")]
    texts = {_NAME_SERVICES: "\n".join([*others, "hosts: files", ""]), _RESOLVER: ""}
    mounts = []
    for path, text in texts.items():
        file = plan.directory / Path(path).name
        file.write_text(text, encoding="utf-8")
        mounts.append(Mount(source=file, path=path))
    return mounts


def _program(plan: InstancePlan, image: images.Image) -> images.Program:
    try:
        return images.program(
            plan.image, image, plan.command, plan.args, plan.env, lambda path: host_path(path, plan.mounts)
        )
    except images.ImageError as error:
        raise RunnerError(str(error)) from error


def _start_script(plan: InstancePlan, arguments: Sequence[str]) -> tuple[str, ...]:
    """Copy the start script of ML jobs into the container; return its command."""
    script = plan.directory / "ml_start.py"
    shutil.copyfile(ml_start.__file__, script)
    return ("python", str(script), plan.address, *arguments)


def _files(plan: InstancePlan, image: images.Image) -> list[Mount]:
    """Write the files of the image."""
    mounts = []
    for number, (path, text) in enumerate(image.files.items()):
        file = plan.directory / f"file-{number}"
        file.write_text(text, encoding="utf-8")
        file.chmod(0o755)
        mounts.append(Mount(source=file, path=path))
    return mounts


def _add_mounts(
    order: dict[str, Any], plan: InstancePlan, interpreter: overlay.Interpreter, files: Sequence[Mount]
) -> None:
    root = plan.directory / "root"
    root.mkdir()
    mounts = [
        Mount(source=plan.directory / "session", path=SESSION_DIRECTORY),
        Mount(source=_hosts(plan), path=_HOSTS),
        *([] if plan.egress else _resolver(plan)),
        *files,
        *plan.mounts,
    ]
    if all(mount.path.rstrip("/") != _TMP for mount in mounts):
        mounts.append(Mount(source=plan.directory / "tmp", path=_TMP))
    order["root"] = str(root)
    order["hostname"] = plan.hostname
    order["binds"] = [(str(mount.source), mount.path.rstrip("/"), mount.read_only, mount.memory) for mount in mounts]
    order["keep"] = [*map(str, plan.shared), str(plan.directory), *interpreter.prefixes, *interpreter.sites]
