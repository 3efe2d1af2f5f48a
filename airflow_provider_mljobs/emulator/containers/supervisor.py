"""The process between the server and one container: starts it, signals it, and ends it with the server.

It runs with ``python -I -S`` and is never imported by the server. It forks, so it is single-threaded, and uses the
standard library only.

The server writes one line of JSON to our stdin (never to argv: the order holds the job's environment), then commands:
``T<seconds>`` terminates, ``K`` kills. The pipe closes when the server ends. As a process that the server forked could
keep the pipe open, the server's pidfd is watched as well.

With namespaces there are two supervisors: the outer one waits, the inner one is process 1 of the container's PID
namespace, so the kernel kills the remaining processes when it ends. Without namespaces, orphans of the container are
re-parented to the one supervisor.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from airflow_provider_mljobs.emulator.containers import rootfs
else:
    # The path contains this directory and not the package, whose import could take longer than the whole start.
    import rootfs

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
EX_SUPERVISOR = 125


class Namespaced:
    """All processes of a PID namespace, seen by its process 1."""

    def signal(self, number: int) -> None:
        """Send a signal to each but ourselves."""
        try:
            os.kill(-1, number)
        except ProcessLookupError:
            return

    def clear(self) -> None:
        """Do nothing: the kernel ends the namespace with its process 1."""


class Descendants:
    """All processes below us on the host, those that daemonised included."""

    def signal(self, number: int) -> None:
        """Send a signal to each."""
        for pid in self._find():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def clear(self) -> None:
        """Kill all and wait for their end; they may fork meanwhile."""
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                self.signal(signal.SIGKILL)
                time.sleep(0.002)

    @staticmethod
    def _find() -> list[int]:
        children: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):  # noqa: PTH208 - no pathlib, as in rootfs
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                        # The command's name, in parentheses, may hold anything.
                        parent = int(file.read().rpartition(b")")[2].split()[1])
                except (OSError, IndexError):
                    continue
                children.setdefault(parent, []).append(int(name))
        descendants, queue = [], [os.getpid()]
        while queue:
            below = children.get(queue.pop(), [])
            descendants += below
            queue += below
        return descendants


def _exec(order: dict[str, Any], report: int) -> NoReturn:
    """Become the container's program, or report why not."""
    try:
        os.setsid()
        if not order["namespace"]:
            rootfs.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in signal.valid_signals():
            if number not in {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(order["cwd"])
    except OSError as error:
        os.write(report, f"working directory {order['cwd']}: {error.strerror}".encode(errors="replace"))
        os._exit(127)
    try:
        os.execvpe(order["argv"][0], order["argv"], order["env"])  # noqa: S606
    except FileNotFoundError:
        where = "no such file or directory" if "/" in order["argv"][0] else "executable file not found in $PATH"
        os.write(report, f"exec: {json.dumps(order['argv'][0])}: {where}".encode())
    except (OSError, ValueError) as error:
        os.write(report, f"exec: {json.dumps(order['argv'][0])}: {error}".encode(errors="replace"))
    os._exit(127)


def _spawn(order: dict[str, Any], status: int) -> int:
    """Start the program; report to the server that it runs, or the error."""
    reading, writing = os.pipe()  # closed by a successful exec: an empty report means success
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _exec(order, writing)
    os.close(writing)
    failure = b""
    while part := os.read(reading, 4096):
        failure += part
    os.close(reading)
    os.write(status, b"error " + failure[:4000] + b"\n" if failure else b"started\n")
    if failure:
        os._exit(EX_SUPERVISOR)
    return pid


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _reap(job: int) -> int | None:
    """Reap ended processes; return the exit code of the job if it is among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == job:
            code = _exit_code(status)


class Lifeline:
    """Waits for the server's commands, and for its end."""

    def __init__(self, server: int | None, wakeup: int) -> None:
        self._wakeup = wakeup
        self._server = server
        self._deadline: float | None = None
        self._poll = select.poll()
        for fd in (0, wakeup, server):
            if fd is not None:
                self._poll.register(fd, select.POLLIN)

    def wait(self) -> int | None:
        """Wait for an event; return the signal to send, if any."""
        timeout = None if self._deadline is None else max(0.0, self._deadline - time.monotonic()) * 1000
        ready = {fd for fd, _ in self._poll.poll(timeout)}
        if self._wakeup in ready:
            os.read(self._wakeup, 4096)
        if self._server in ready:
            return signal.SIGKILL
        if 0 in ready:
            return self._command(os.read(0, 4096))
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._deadline = None
            return signal.SIGKILL
        return None

    def _command(self, commands: bytes) -> int | None:
        if not commands:
            self._poll.unregister(0)
        if not commands or b"K" in commands:
            return signal.SIGKILL
        if self._deadline is not None:
            return None
        self._deadline = time.monotonic() + float(commands.split()[0][1:])
        return signal.SIGTERM


def _supervise(order: dict[str, Any], status: int, server: int | None) -> int:
    """Run the program to its end, end the processes that it started, and return its exit code."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    job = _spawn(order, status)
    if order["namespace"]:
        os.close(status)  # the outer process keeps it open
    # The container's ends of the log must close with the container, not with us.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    container = Namespaced() if order["namespace"] else Descendants()
    lifeline = Lifeline(server, reading)
    while (code := _reap(job)) is None:
        number = lifeline.wait()
        if number is not None:
            container.signal(number)
    container.clear()
    return code


def _contain(order: dict[str, Any], status: int, server: int | None) -> int:
    """Run the program in namespaces of its own and return its exit code."""
    rootfs.enter_namespaces(order["hostname"])
    rootfs.build(order)
    inner = os.fork()
    if inner == 0:
        rootfs.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        rootfs.mount_proc()
        return _supervise(order, status, server)
    for fd in (0, 1, 2):
        os.close(fd)
    _, ended = os.waitpid(inner, 0)
    return _exit_code(ended)


def _read_order() -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 65536)
        if not part:
            sys.exit(EX_SUPERVISOR)
        line += part
    order: dict[str, Any] = json.loads(line)
    return order


def _watch_server(pid: int) -> int | None:
    try:
        server = os.pidfd_open(pid)
    except OSError:
        # Kernels before 5.3 and strict containers have no pidfd; the pipe has to suffice.
        return None
    if os.getppid() != pid:
        sys.exit(EX_SUPERVISOR)
    return server


def main() -> NoReturn:
    """Carry out the order on stdin; our exit code is the container's."""
    status = int(sys.argv[1])
    os.set_inheritable(status, False)  # noqa: FBT003 - takes no name
    order = _read_order()
    server = _watch_server(order["server"])
    code = EX_SUPERVISOR
    try:
        if order["namespace"]:
            code = _contain(order, status, server)
        else:
            rootfs.libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
            code = _supervise(order, status, server)
    except OSError as error:
        os.write(status, f"error {error.strerror}\n".encode(errors="replace"))
    # Not sys.exit: two processes end here, and neither has anything to clean up.
    os._exit(code)
