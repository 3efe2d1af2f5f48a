"""Replaces the start script of the ML runtime image in the container: packages, Ray, then the job's launcher.

The image's own script installs cron jobs and takes fixed ports, which instances on one machine can't share.
It runs in the interpreter of the job, so it uses the standard library only. Its arguments are the instance's address,
the directory of the ML client's scripts, and the launcher's arguments.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Seconds that the image waits for workers to confirm the end.
_FAREWELL = "15"
# Below the ports that systems hand out by themselves.
_FIRST_PORT, _PORTS = 20_000, 6_000
_STORE_SHARE = 0.3
# Ray chooses the ports: fixed ones would clash on one machine, because Ray listens on all addresses.
_FREE_PORTS = (
    "--object-manager-port=0",
    "--node-manager-port=0",
    "--runtime-env-agent-port=0",
    "--dashboard-agent-grpc-port=0",
    "--dashboard-agent-listen-port=0",
    "--min-worker-port=0",
    "--max-worker-port=0",
    "--metrics-export-port=0",
)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the job's log


def install_packages() -> None:
    """Install the payload's requirements, or end the instance."""
    if Path(os.environ.get("MLRS_CONDA_ENV_FILE", "environment.yml")).is_file():
        sys.exit("Custom conda environments not currently supported")
    path = Path(os.environ.get("MLRS_REQUIREMENTS_FILE", "requirements.txt"))
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    if not any(line.strip() and not line.strip().startswith("#") for line in lines):
        return
    _say(f"Installing packages from {path.resolve()}")
    if code := subprocess.call(["pip", "install", "-r", str(path)]):  # noqa: S607 - the image's
        sys.exit(code)
    importlib.invalidate_caches()


@contextmanager
def _ray_directory() -> Iterator[str]:
    """Create Ray's directory. Its path must be short, for the sockets in it; that of ``TMPDIR`` may be long."""
    directory = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _start_ray(address: str, directory: str, *arguments: str) -> None:
    command = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        f"--node-ip-address={address}",
        f"--temp-dir={directory}",
        "--disable-usage-stats",
        *_FREE_PORTS,
        *arguments,
    ]
    code = subprocess.call(command, stdout=sys.stderr)
    if code:
        sys.exit(code)


def _ray_port(head: str) -> int:
    """Return the port of a head, derived from its address so that jobs side by side get different ones."""
    return _FIRST_PORT + 2 * (zlib.crc32(head.encode()) % _PORTS)


def _store_size() -> int:
    """Return the size of a worker's object store: all of the shared memory, as far as the machine can give it."""
    shared = os.statvfs("/dev/shm")  # noqa: S108 - of the container
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(shared.f_frsize * shared.f_blocks, int(_STORE_SHARE * memory))


def run_head(address: str, system: Path, launch: list[str]) -> int:
    """Start Ray, run the launcher, and signal the workers when it ends; return the exit code."""
    port = _ray_port(address)
    with _ray_directory() as directory:
        _start_ray(
            address,
            directory,
            "--head",
            f"--port={port}",
            # Ray refuses the option without gRPC.
            *([f"--ray-client-server-port={port + 1}"] if importlib.util.find_spec("grpc") else []),
            "--include-dashboard=false",
            f"--resources={json.dumps({'node_tag:head': 1})}",
        )
        os.environ["RAY_ADDRESS"] = f"{address}:{port}"
        code = subprocess.call(launch)
        if code == 0 and _instances() > 1:
            _say("User job completed. Signaling workers to shut down...")
            code = subprocess.call([sys.executable, str(system / "signal_workers.py"), "--wait-time", _FAREWELL])
        return code


def run_worker(address: str, system: Path) -> int:
    """Join the head's Ray and stay until the head signals the end; return the exit code."""
    service = os.environ["SNOWFLAKE_SERVICE_NAME"]
    answer = subprocess.check_output([sys.executable, str(system / "get_instance_ip.py"), service, "--head"], text=True)
    _, head, status = answer.split()
    if status not in {"READY", "PENDING"}:
        _say("Head instance status is not READY or PENDING. Exiting.")
        return 0
    os.environ["RAY_ADDRESS"] = f"{head}:{_ray_port(head)}"
    with _ray_directory() as directory:
        _start_ray(
            address,
            directory,
            f"--address={os.environ['RAY_ADDRESS']}",
            f"--resources={json.dumps({service: 1, 'node_tag:worker': 1})}",
            f"--object-store-memory={_store_size()}",
        )
        _say(f"Worker node started on address {address}. See more logs in the head node.")
        return subprocess.call([sys.executable, str(system / "worker_shutdown_listener.py")])


def _instances() -> int:
    return int(os.environ.get("SNOWFLAKE_JOBS_COUNT") or 1)


def _can_meet(address: str) -> bool:
    """Return whether instances can form a cluster: with Ray, and with private directories for its shared files."""
    try:
        return importlib.util.find_spec("ray") is not None and socket.gethostbyname(socket.gethostname()) == address
    except OSError:
        return False


def leave_alone(index: int, *, is_parallel: bool) -> None:
    """Run the payload without Ray: in each instance of a parallel job, otherwise in the head only."""
    if index > 0 and not is_parallel:
        _say(f"Worker instance {index}: Ray is not available here; see the log of the head instance")
        sys.exit(0)
    # Otherwise the launcher would wait for the other instances in Ray.
    os.environ |= {"SNOWFLAKE_JOBS_COUNT": "1", "MLRS_MIN_INSTANCES": "1"}


def main(address: str, system: Path, arguments: list[str]) -> int:
    """Run the steps of the start script; return the exit code of the instance."""
    install_packages()
    launch = [sys.executable, str(system / "mljob_launcher.py"), *arguments]
    index = int(os.environ.get("SNOWFLAKE_JOB_INDEX") or 0)
    is_parallel = os.environ.get("MLRS_LAUNCH_BACKEND") == "passthrough"
    if _instances() > 1 and (is_parallel or not _can_meet(address)):
        leave_alone(index, is_parallel=is_parallel)
    if importlib.util.find_spec("ray") is None:
        os.execv(launch[0], launch)  # noqa: S606 - the job's own program
    # The platform signals all processes; this one stays until the launcher ends.
    signal.signal(signal.SIGTERM, lambda *_: None)
    return run_worker(address, system) if _instances() > 1 and index > 0 else run_head(address, system, launch)


if __name__ == "__main__":
    code = main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
    sys.exit(code if code >= 0 else 128 - code)
