"""Runs one container of one instance of a job as a process on this machine.

Not a sandbox: a job runs as the user of the server, with the network and the user's files. It has a container's view:
its mounts at their paths, a minimal environment and its own home. It ends with the server.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from airflow_provider_mljobs.emulator.containers.container import InstancePlan, Isolation, RunnerError, prepare
from airflow_provider_mljobs.emulator.containers.joblog import LONGEST_RECORD, JobLog, Stream
from airflow_provider_mljobs.emulator.containers.mounts import Mount

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Instance", "InstancePlan", "Isolation", "JobLog", "Mount", "RunnerError", "probe_isolation"]

ISOLATION_VARIABLE = "MLJOBS_EMULATOR_ISOLATION"

# Its folder is last in the path, so that no file in it hides the standard library. Imported modules are compiled once.
_SUPERVISOR = "import sys; sys.path.append(sys.argv.pop(1)); import supervisor; supervisor.main()"
_START_TIMEOUT = 60.0
_CHUNK = 64 * 1024

_log = logging.getLogger(__name__)


def probe_isolation() -> Isolation:
    """Return how containers get their mounts: at their paths, or by rewriting paths.

    ``MLJOBS_EMULATOR_ISOLATION`` decides; by default it is ``namespace`` where users may create namespaces.
    """
    forced = os.environ.get(ISOLATION_VARIABLE)
    if forced in {"namespace", "rewrite"}:
        return cast("Isolation", forced)
    if forced:
        raise RunnerError(f"{ISOLATION_VARIABLE} must be 'namespace' or 'rewrite'; got {forced!r}")
    return "namespace" if can_isolate() else "rewrite"


@cache
def can_isolate() -> bool:
    """Return whether a container starts in namespaces; kernels, containers and security modules may forbid them."""
    with tempfile.TemporaryDirectory(prefix="mljobs-probe-") as directory:
        volume = Path(directory, "volume")
        root = Path(directory, "root")
        volume.mkdir()
        root.mkdir()
        order = {
            "argv": ["test", "-d", "/mnt/mljobs-probe"],
            "env": {"PATH": os.defpath},
            "cwd": "/",
            "namespace": True,
            "root": str(root),
            "hostname": "probe",
            "binds": [(str(volume), "/mnt/mljobs-probe", True, None)],
            "keep": [],
        }
        try:
            supervisor = _Supervisor(order)
        except RunnerError as error:
            _log.info("Cannot create namespaces (%s); rewriting the paths of mounts in jobs instead.", error.detail)
            return False
        code = supervisor.process.wait()
        supervisor.close()
        return code == 0


class _Supervisor:
    """The supervisor's process and our ends of its pipes."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        """Start it and wait until the program runs; raises its error otherwise."""
        self.status, writing = os.pipe()
        # Hides the server's environment from the job, also in /proc; libpython may need its path.
        environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", "-c", _SUPERVISOR, str(Path(__file__).parent), str(writing)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=[writing],
                env=environment,
                cwd="/",
                start_new_session=True,  # only the server handles Ctrl-C in its terminal
            )
        except OSError as error:
            os.close(self.status)
            raise RunnerError(f"no process: {error}") from error
        finally:
            os.close(writing)
        answer = self._send({**order, "server": os.getpid()})
        if answer != "started":
            self.process.kill()
            output = self.process.communicate()[1].decode(errors="replace").strip()
            self.close()
            raise RunnerError(answer or output or "the supervisor ended")

    def _send(self, order: Mapping[str, Any]) -> str:
        if self.process.stdin is None:
            return ""
        try:
            view = memoryview(json.dumps(order).encode() + b"\n")
            while view:
                view = view[self.process.stdin.write(view) :]
        except BrokenPipeError:
            return ""
        if not select.select([self.status], [], [], _START_TIMEOUT)[0]:
            return f"the supervisor did not answer within {_START_TIMEOUT:g} seconds"
        return os.read(self.status, _CHUNK).decode(errors="replace").removeprefix("error ").strip()

    def send(self, command: str) -> None:
        """Send a command, unless the supervisor has ended."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            try:
                self.process.stdin.write(command.encode())
            except BrokenPipeError:
                return

    def outputs(self) -> list[tuple[IO[bytes], Stream]]:
        """Return the pipes that the container writes to."""
        pipes: tuple[tuple[IO[bytes] | None, Stream], ...]
        pipes = ((self.process.stdout, "stdout"), (self.process.stderr, "stderr"))
        return [(pipe, stream) for pipe, stream in pipes if pipe is not None]

    def close(self) -> None:
        """Close our ends."""
        os.close(self.status)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


class Instance:
    """A container that runs or has ended; created by :meth:`start`.

    :param supervisors: how many processes stand between the server and those of the container; ``pid`` is the first.
    """

    def __init__(
        self, supervisor: _Supervisor, log: JobLog, on_exit: Callable[[int], None], *, supervisors: int
    ) -> None:
        self.pid = supervisor.process.pid
        self.supervisors = supervisors
        self._supervisor = supervisor
        self._log = log
        self._on_exit = on_exit
        self._code: int | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._terminating = False

    @classmethod
    def start(cls, plan: InstancePlan, log: JobLog, on_exit: Callable[[int], None]) -> Instance:
        """Start a container and return once its program runs.

        :param plan: its plan.
        :param log: where its output goes.
        :param on_exit: called once, with the exit code, in a thread of this instance, when all output is in the log;
            perhaps before this method returns.
        """
        isolation = probe_isolation()
        if isolation == "rewrite" and not plan.egress:
            _log.warning(
                "A job without EXTERNAL_ACCESS_INTEGRATIONS has the network of this machine; in Snowflake it has none."
            )
        try:
            order = prepare(plan, isolation)
        except (OSError, subprocess.SubprocessError) as error:
            raise RunnerError(str(error)) from error
        instance = cls(_Supervisor(order), log, on_exit, supervisors=2 if isolation == "namespace" else 1)
        threading.Thread(target=instance._watch, name=f"container-{instance.pid}", daemon=True).start()
        return instance

    def poll(self) -> int | None:
        """Return the exit code, 0 to 255 and 128 + n after signal n, or ``None`` while it runs."""
        return self._code

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until it has ended and ``on_exit`` returned; return the exit code, or ``None`` after ``timeout``."""
        self._ended.wait(timeout)
        return self._code

    def terminate(self, grace: float = 30.0) -> None:
        """Send SIGTERM to all processes in it, and SIGKILL to the rest after ``grace`` seconds; don't wait."""
        with self._lock:
            if not self._terminating and self._code is None:
                self._terminating = True
                self._supervisor.send(f"T{grace}\n")

    def kill(self) -> None:
        """Send SIGKILL to all processes in it."""
        with self._lock:
            if self._code is None:
                self._supervisor.send("K\n")

    def _watch(self) -> None:
        try:
            self._copy_output()
            code = self._supervisor.process.wait()
            with self._lock:
                self._supervisor.close()
                self._log.close()
                self._code = code if code >= 0 else 128 - code
            self._on_exit(self._code)
        finally:
            self._ended.set()

    def _copy_output(self) -> None:
        """Copy all output. No process that might still write survives the supervisor."""
        sources: dict[int, _Output | None] = {self._supervisor.status: None}
        for pipe, stream in self._supervisor.outputs():
            sources[pipe.fileno()] = _Output(self._log, stream)
        poller = select.poll()
        for fd in sources:
            poller.register(fd, select.POLLIN)
        while self._copy_some(poller, sources):
            pass
        for output in sources.values():
            if output is not None:
                output.end()

    def _copy_some(self, poller: select.poll, sources: dict[int, _Output | None]) -> bool:
        """Wait for output and copy it; return whether more may follow."""
        running = self._supervisor.status in sources
        ready = poller.poll(None if running else 0)
        for fd, _ in ready:
            source = sources[fd]
            if source is None or not source.copy(fd):
                poller.unregister(fd)
                del sources[fd]
        return bool(sources) and (running or bool(ready))


class _Output:
    """Copies one stream of a container to the log.

    As on a node, a line is logged when it ends, when it exceeds a record, or when its stream ends.
    """

    def __init__(self, log: JobLog, stream: Stream) -> None:
        self._log = log
        self._stream: Stream = stream
        self._partial = b""

    def copy(self, fd: int) -> bool:
        """Read output and log its complete lines; return whether more may follow."""
        data = os.read(fd, _CHUNK)
        text = self._partial + data
        end = text.rfind(b"\n") + 1
        while len(text) - end > LONGEST_RECORD:
            end += LONGEST_RECORD
        self._partial = text[end:]
        self._log.append(text[:end], self._stream)
        if not data:
            self.end()
        return bool(data)

    def end(self) -> None:
        """Log the last line, which has no end."""
        self._log.append(self._partial, self._stream)
        self._partial = b""
