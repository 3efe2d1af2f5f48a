"""A Ray cluster of the job's instances: the first is the head and runs the entrypoint, the others are workers.

Ports, resources, log lines and the rule for waiting are those of Snowflake's ML runtime.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .contract import HEAD_PORTS, INSTANCE_PORTS, MLRS_MIN_INSTANCES
from .environment import session
from .errors import LauncherError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# Tools look for Ray's logs here.
TEMPORARY_DIRECTORY = "/tmp/ray"  # noqa: S108 (a path in the container)
SHARED_MEMORY = "/dev/shm"  # noqa: S108 (as above)
_STORE_SHARE = 0.3
_DASHBOARD_MEMORY = 8 * 1024**3
# Below the ports that the system assigns by itself.
_FIRST_PORT, _PORTS = 20_000, 6_000
# The specification doesn't declare the port of metrics.
_RAYLET_PORTS = {**INSTANCE_PORTS, "METRICS_EXPORT_PORT": 11502}
_ALIVE = ("PENDING", "READY")
# Seconds between two checks, and for one connection.
_PAUSE, _CONNECT_TIMEOUT = 1.0, 5.0
# One lost packet doesn't mean that the head is gone.
_MISSES = 3
# In a separate process, because a process has one connection to Ray, and that is the payload's.
_COUNTER = """
import sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
for _ in sys.stdin:
    print(sum(node["Alive"] for node in ray.nodes()), flush=True)
"""


@dataclass(frozen=True)
class Requirement:
    """The number of instances that the entrypoint waits for, and the time.

    :param target: the number of the job's instances.
    :param least: the number that is enough after ``min_wait``.
    :param min_wait: seconds to wait for all instances.
    :param timeout: seconds after which fewer instances are an error.
    :param interval: seconds between two queries to Snowflake.
    """

    target: int
    least: int
    min_wait: float
    timeout: float
    interval: float

    @classmethod
    def of(cls, target: int, environ: Mapping[str, str]) -> Requirement:
        """Read the job's environment."""
        timeout = float(environ.get("MLRS_INSTANCES_TIMEOUT") or 720)
        min_wait = float(environ.get("MLRS_INSTANCES_MIN_WAIT") or -1)
        return cls(
            target=target,
            least=int(environ.get(MLRS_MIN_INSTANCES) or target),
            min_wait=min_wait if min_wait >= 0 else min(3 * math.log2(target), timeout / 10),
            timeout=timeout,
            interval=float(environ.get("MLRS_INSTANCES_CHECK_INTERVAL") or 10),
        )

    def met(self, available: int, elapsed: float) -> str:
        """Return the log line for a requirement that is met; an empty text until then."""
        after = f"{available} instances available after {elapsed:.1f}s"
        if available >= self.target:
            return f"Target instance requirement met: {after}"
        if available >= self.least and elapsed >= self.min_wait:
            return f"Minimum instance requirement met: {after}"
        if elapsed >= self.timeout:
            raise TimeoutError(
                f"Timed out after {elapsed:.0f}s waiting for {self.least} instances, only {available} available. Check "
                "that the compute pool has as many nodes, lower min_instances, or allow more time with "
                "env_vars={'MLRS_INSTANCES_TIMEOUT': '…'}."
            )
        return ""


@dataclass(frozen=True)
class Peer:
    """An instance as Snowflake lists it."""

    address: str
    status: str


def on_one_machine(address: str) -> bool:
    """Return whether the instances are processes on one machine and share its ports and directories."""
    return ipaddress.ip_address(address).is_loopback


def head_port(head: str, environ: Mapping[str, str]) -> int:
    """Return the port of a head: on one machine another one for each, since Ray listens on all addresses."""
    if on_one_machine(head):
        return _FIRST_PORT + 2 * (int(ipaddress.ip_address(head)) % _PORTS)
    return int(_port("HEAD_GCS_PORT", environ))


def raylet_options(address: str, directory: str, store: int, environ: Mapping[str, str]) -> list[str]:
    """Return the options of ``ray start`` that are the same on every instance."""
    shared = on_one_machine(address)
    # Ray's options have the names of the runtime's variables.
    ports = {name.lower().replace("_", "-"): environ.get(name, default) for name, default in _RAYLET_PORTS.items()}
    return [
        f"--node-ip-address={address}",
        f"--temp-dir={directory}",
        f"--object-store-memory={store}",
        "--disable-usage-stats",
        "--log-color=false",
        # 0: Ray chooses a free port.
        *(f"--{option}={0 if shared else port}" for option, port in ports.items()),
    ]


def head_options(
    address: str, memory: int, environ: Mapping[str, str], *, port: int | None = None, has_grpc: bool = True
) -> list[str]:
    """Return the options of the head; a small machine runs no dashboard.

    :param port: its port, if not that of the job's environment.
    :param has_grpc: whether the server for ``ray://`` addresses can run; without gRPC, Ray refuses its option.
    """
    shared = on_one_machine(address)
    port = head_port(address, environ) if port is None else port
    dashboard = memory >= _DASHBOARD_MEMORY and not shared
    client_port = port + 1 if shared else _port("HEAD_CLIENT_SERVER_PORT", environ)
    return [
        "--head",
        f"--port={port}",
        *([f"--ray-client-server-port={client_port}"] if has_grpc else []),
        f"--resources={json.dumps({'node_tag:head': 1})}",
        f"--include-dashboard={json.dumps(dashboard)}",
        *(
            ["--dashboard-host=0.0.0.0", f"--dashboard-port={_port('HEAD_DASHBOARD_PORT', environ)}"]
            if dashboard
            else []
        ),
    ]


def worker_options(head: str, service: str, environ: Mapping[str, str]) -> list[str]:
    """Return the options of the other instances."""
    return [
        f"--address={head}:{head_port(head, environ)}",
        f"--resources={json.dumps({'node_tag:worker': 1, service: 1})}",
    ]


def is_installed() -> bool:
    """Return whether the container has Ray."""
    return importlib.util.find_spec("ray") is not None


def has_grpc() -> bool:
    """Return whether the container has gRPC, which Ray needs for clients with ``ray://`` addresses."""
    return importlib.util.find_spec("grpc") is not None


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Run Ray on the only instance of a job."""
    if not is_installed():
        raise LauncherError(
            "ray=True needs Ray, which this container doesn't have: add 'ray' to pip_requirements, or choose a "
            "runtime_environment that has it."
        )
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        address = "127.0.0.1"
    # Jobs on one machine can't share the ports of the environment.
    port = _free_port(address) if on_one_machine(address) else None
    options = head_options(address, _memory(), os.environ, port=port, has_grpc=has_grpc())
    cluster = _cluster(address) if port is None else f"{address}:{port}"
    with _ray(address, options) as process:
        _wait_until_listening(process, cluster, Requirement.of(1, os.environ).timeout)
        with _address_of(cluster):
            yield


@contextlib.contextmanager
def head(index: int, count: int) -> Iterator[None]:
    """Run the cluster's head; the payload starts once enough instances have joined."""
    if not is_installed():
        raise LauncherError(
            f"target_instances={count} needs Ray, which this container doesn't have: add 'ray' to pip_requirements, "
            "choose a runtime_environment that has it, or set parallel=True to run the entrypoint on every instance."
        )
    address = _own_address(index)
    cluster = _cluster(address)
    requirement = Requirement.of(count, os.environ)
    with _ray(address, head_options(address, _memory(), os.environ, has_grpc=has_grpc())) as process:
        _wait_until_listening(process, cluster, requirement.timeout)
        with _counter(cluster) as available:
            started = time.monotonic()
            while not (met := requirement.met(available(), time.monotonic() - started)):
                time.sleep(_PAUSE)
        print(met, flush=True)
        with _address_of(cluster):
            yield


@contextlib.contextmanager
def _address_of(cluster: str) -> Iterator[None]:
    """Let ``ray.init()`` connect to a cluster, and disconnect at the end."""
    os.environ["RAY_ADDRESS"] = cluster
    try:
        yield
    finally:
        if "ray" in sys.modules:
            # Stopping Ray ends the processes that are still connected.
            sys.modules["ray"].shutdown()


def _free_port(address: str) -> int:
    """Return a free port, with a free one after it."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind((address, 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind((address, port + 1))
                return port


def work(index: int, count: int) -> None:
    """Work for the head until it ends; the job's outcome is the head's."""
    if not is_installed():
        print(f"Instance {index} of {count} has no Ray and does nothing; see the log of instance 0.", flush=True)
        return
    address = find_head(_peers, Requirement.of(count, os.environ))
    if address is None:
        print("The head has ended before this instance joined it.", flush=True)
        return
    cluster = _cluster(address)
    with _ray(
        _own_address(index), worker_options(address, os.environ["SNOWFLAKE_SERVICE_NAME"], os.environ)
    ) as process:
        print(f"Instance {index} of {count} works for the head at {cluster}.", flush=True)
        misses = 0
        while misses < _MISSES:
            misses = 0 if _is_listening(cluster) else misses + 1
            if not misses:
                _check(process)
            time.sleep(_PAUSE)
    print("The head has ended.", flush=True)


def find_head(peers: Callable[[], dict[int, Peer]], requirement: Requirement) -> str | None:
    """Return the address of a head that accepts workers; ``None`` if the head has ended."""
    deadline = time.monotonic() + requirement.timeout
    while time.monotonic() < deadline:
        peer, next_look = peers().get(0), time.monotonic() + requirement.interval
        if peer is not None and peer.status not in _ALIVE:
            return None
        while time.monotonic() < next_look:
            if peer is not None and peer.address and _is_listening(_cluster(peer.address)):
                return peer.address
            time.sleep(min(_PAUSE, requirement.interval))
    raise TimeoutError(
        f"Instance 0 of the job did not start Ray within {requirement.timeout:.0f}s; see its log. Allow more time with "
        "env_vars={'MLRS_INSTANCES_TIMEOUT': '…'}."
    )


def _port(name: str, environ: Mapping[str, str]) -> str:
    return environ.get(name, str(HEAD_PORTS[name]))


def _own_address(index: int) -> str:
    own = _peers().get(index)
    return own.address if own is not None and own.address else socket.gethostbyname(socket.gethostname())


def _peers() -> dict[int, Peer]:
    """Return the job's instances."""
    try:
        rows = session().sql(f"SHOW SERVICE INSTANCES IN SERVICE {os.environ['SNOWFLAKE_SERVICE_NAME']}").collect()
    except ImportError as error:
        raise LauncherError(
            "Instances find each other through Snowpark, which this container doesn't have "
            f"({error}): add 'snowflake-snowpark-python' to pip_requirements."
        ) from error
    return {int(row["instance_id"]): Peer(row["ip_address"] or "", row["status"]) for row in rows}


@contextlib.contextmanager
def _ray(address: str, options: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run an instance's part of Ray."""
    directory = TEMPORARY_DIRECTORY
    if on_one_machine(address):
        # The paths of Ray's sockets must be short, and the default directory of tempfile may have a long one.
        directory = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    options = [*raylet_options(address, directory, _store_size(), os.environ), *options]
    # With --block it ends when one of its processes does, and they end when it does.
    process = subprocess.Popen([sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options])
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if directory != TEMPORARY_DIRECTORY:
            # Ray may still be writing logs.
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _counter(cluster: str) -> Iterator[Callable[[], int]]:
    """Yield a function that counts the instances in the cluster."""
    with subprocess.Popen(
        [sys.executable, "-c", _COUNTER, cluster], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        stdin: Any = process.stdin
        stdout: Any = process.stdout

        def count() -> int:
            print(file=stdin, flush=True)
            answer = stdout.readline()
            if not answer:
                raise LauncherError(
                    "Could not count the instances of the Ray cluster; Ray's output is in the log above."
                )
            return int(answer)

        yield count


def _wait_until_listening(process: subprocess.Popen[bytes], cluster: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not _is_listening(cluster):
        _check(process)
        if time.monotonic() > deadline:
            raise TimeoutError(f"Ray did not start within {timeout:.0f}s; its output is in the log above.")
        time.sleep(_PAUSE / 4)


def _check(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        raise LauncherError(f"Ray ended with exit code {process.returncode}; its output is in the log above.")


def _cluster(head: str) -> str:
    return f"{head}:{head_port(head, os.environ)}"


def _is_listening(cluster: str) -> bool:
    address, _, port = cluster.rpartition(":")
    try:
        with socket.create_connection((address, int(port)), _CONNECT_TIMEOUT):
            return True
    except OSError:
        return False


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _store_size() -> int:
    """Return the size of the shared memory, at most 30 % of the machine's memory."""
    shared = os.statvfs(SHARED_MEMORY)
    return min(shared.f_frsize * shared.f_blocks, int(_STORE_SHARE * _memory()))
