from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from itertools import count
from pathlib import Path

import pytest

from airflow_provider_mljobs.emulator.containers.images import Image, image_of
from airflow_provider_mljobs.emulator.containers.instance import (
    JobLog,
    Mount,
    RunnerError,
    can_isolate,
    probe_isolation,
)
from tests.budget import budget, slowness, wait_until
from tests.containers import Container, make_plan

ML_IMAGE = "/snowflake/images/snowflake_images/st_plat/runtime/x86/runtime_image/snowbooks:1.8.0"


@pytest.fixture(params=["namespace", "rewrite"])
def isolation(request, monkeypatch):
    """Run the test in both modes, where the machine allows."""
    if request.param == "namespace" and not can_isolate():
        pytest.skip("this machine lets users make no namespaces")
    monkeypatch.setenv("MLJOBS_EMULATOR_ISOLATION", request.param)
    return request.param


def is_running(pid):
    """Return whether a process of the host runs; a zombie doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_mentioning(text):
    """Return processes of the host by their command line."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text.encode() in command and path.parent.name != str(os.getpid()):
            pids.append(path.parent.name)
    return [pid for pid in pids if is_running(pid)]


@pytest.fixture
def start(tmp_path, isolation):
    """Start containers; all are killed after the test."""
    numbers = count()
    started = []

    def _start(*command, **changes):
        number = next(numbers)
        plan = make_plan(tmp_path / str(number), *command, **changes)
        started.append(Container(plan, tmp_path / f"{number}.log"))
        return started[-1]

    yield _start
    for container in started:
        container.instance.kill()
        container.instance.wait(budget())


@pytest.fixture
def run(start):
    """Run a container to its end; return exit code and output."""
    return lambda *command, **changes: start(*command, **changes).finish()


@pytest.fixture
def volume(tmp_path):
    """Create a directory to mount."""
    directory = tmp_path / "volume"
    directory.mkdir()
    return directory


# --- the view of a job


def test_environment_is_minimal(run, isolation, monkeypatch):
    """Nothing of the server's environment reaches the job."""
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    _, text = run("env", "-0", env={"SNOWFLAKE_HOST": "127.0.0.1", "EMPTY": "", "LINES": "a\nb", "LANG": "C"})
    names = {entry.partition("=")[0] for entry in text.split("\0") if entry}
    expected = {"PATH", "HOME", "LANG", "VIRTUAL_ENV", "SNOWFLAKE_DISABLE_PLATFORM_DETECTION"}
    expected |= {"SNOWFLAKE_HOST", "SNOWFLAKE_PORT", "SNOWFLAKE_PROTOCOL", "EMPTY", "LINES"}

    assert expected | ({"SNOWFLAKE_TOKEN_FILE", "TMPDIR"} if isolation == "rewrite" else set()) == names
    assert {"LINES=a\nb", "LANG=C", "EMPTY="} <= set(text.split("\0"))


def test_server_is_not_readable_in_proc(run, monkeypatch):
    """The supervisor doesn't hold the server's environment either."""
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    _, text = run("sh", "-c", "cat /proc/$PPID/environ")

    assert "" == text


def test_arguments_arrive_byte_for_byte(run):
    """Arguments reach the program unchanged, without a shell."""
    arguments = ("$(HOME)", "$HOME", "'\"\\", "two\nlines", "🚀", "", " ", "-x", "*", "\udcff")
    show = "import os, sys; sys.stdout.write(repr([os.fsencode(a) for a in sys.argv[1:]]))"
    code, text = run("python", "-c", show, args=arguments)

    assert (0, repr([os.fsencode(argument) for argument in arguments])) == (code, text)


def test_mounts(run, volume):
    """Mounted directories are readable and writable at the paths of the specification."""
    (volume / "in.txt").write_text("hello")
    script = 'cat /mnt/job_stage/in.txt; echo -n "$WHERE" > /mnt/job_stage/out.txt; ls "$WHERE"'
    code, text = run(
        "sh", "-c", script, env={"WHERE": "/mnt/job_stage"}, mounts=(Mount(source=volume, path="/mnt/job_stage"),)
    )

    assert (0, "helloin.txt\nout.txt\n") == (code, text)
    assert not Path("/mnt/job_stage").exists()


def test_mounts_where_the_host_has_nothing(run, tmp_path):
    """Mount points are created without changing the host, nested and side by side."""
    paths = ["/mnt/b", "/mnt/a", "/mnt/a/inner", "/var/log/managed/user", "/var/other", "/dev/shm", "/new/deep/path"]
    mounts = []
    for path in paths:
        source = tmp_path / "volumes" / path.replace("/", "_")
        source.mkdir(parents=True)
        (source / "name").write_text(path)
        mounts.append(Mount(source=source, path=path))
    code, text = run("cat", *[f"{path}/name" for path in paths], mounts=tuple(mounts))

    assert (0, "".join(paths)) == (code, text)
    assert not any(Path(path).exists() for path in paths if path != "/dev/shm")


def test_a_mount_that_hides_the_interpreter(run, isolation, volume):
    """A volume over the directory with the job's own files doesn't hide them from the job."""
    code, text = run("python", "-c", "print(6 * 7)", mounts=(Mount(source=volume, path="/tmp"),))

    assert (0, "42\n") == (code, text)


def test_temporary_files_are_private(run, isolation, tmp_path):
    """The temporary directory of a job is private."""
    code, text = run("sh", "-c", "echo mine > ${TMPDIR:-/tmp}/of-a-job && ls ${TMPDIR:-/tmp}")

    assert (0, True) == (code, "of-a-job" in text.splitlines())
    assert not Path("/tmp/of-a-job").exists()


def test_memory_volumes_have_a_size(run, isolation, volume):
    """A volume in memory has the requested size; beyond it a write fails as on a full disk."""
    if isolation == "rewrite":
        pytest.skip("there it is a directory on disk")
    script = "df --output=size -B1 /dev/shm | tail -1; head -c 5M /dev/zero > /dev/shm/x"
    code, text = run("sh", "-c", script, mounts=(Mount(source=volume, path="/dev/shm", memory=4 << 20),))

    assert (1, str(4 << 20)) == (code, text.splitlines()[0].strip())
    assert "No space left" in text


def test_own_host_name(run, isolation):
    """A program resolves its host name to its address, and the machine's other names as well."""
    if isolation == "rewrite":
        pytest.skip("there the host is the machine")
    script = (
        "import socket; print(socket.gethostname(), *map(socket.gethostbyname, (socket.gethostname(), 'localhost')))"
    )
    plan = {"address": "127.7.7.7", "hostname": "statefulset-3"}

    assert (0, "statefulset-3 127.7.7.7 127.0.0.1\n") == run("python", "-c", script, **plan)
    assert "statefulset-3" != socket.gethostname()


def _wheel(directory, version):
    """Write a wheel of a package that consists of its version."""
    files = {
        "example.py": f"version = {version!r}\n",
        f"example-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: example\nVersion: {version}\n",
        f"example-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"example-{version}.dist-info/RECORD"
    files[record] = "".join(f"{name},,\n" for name in (*files, record))
    with zipfile.ZipFile(directory / f"example-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)


@pytest.mark.parametrize("has_pip_module", [True, False])
def test_pip_leaves_the_packages_of_the_machine(run, tmp_path, has_pip_module):
    """Another version installed by a job, also by one whose Python looks like a system's, is the job's alone."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "base"], check=True)
    (packages,) = tmp_path.glob("base/lib/python*/site-packages")
    packages.joinpath("pip.pth").write_text(str(Path(importlib.util.find_spec("pip").origin).parents[1]))
    for version in ("1.0", "2.0"):
        _wheel(tmp_path, version)
    with zipfile.ZipFile(tmp_path / "example-1.0-py3-none-any.whl") as wheel:
        wheel.extractall(packages)
    install = f"pip install --no-index --find-links {tmp_path} example==2.0"
    code, text = run(
        "sh", "-c", f"{install}; python -c 'import example; print(example.version)'",
        python=tmp_path / "base/bin/python",
        images={"*": Image(has_pip_module=has_pip_module, is_externally_managed=True)},
        env={"PIP_BREAK_SYSTEM_PACKAGES": "1"},
        shared=(tmp_path,),
    )  # fmt: skip

    assert (0, "2.0") == (code, text.splitlines()[-1]), text
    assert "version = '1.0'\n" == packages.joinpath("example.py").read_text()


@pytest.mark.parametrize("pattern", ["*", "*/runtime_image/*"])
def test_own_images_come_first(pattern):
    """An image of the user's replaces a built-in one, also by the same pattern."""
    own = Image(entrypoint=("own",))

    assert own == image_of(ML_IMAGE, {pattern: own})


def test_egress(run, isolation):
    """Without egress no names of other machines resolve; with it the machine's resolver is used."""
    if isolation == "rewrite":
        pytest.skip("there the host is the machine")
    program = """
import socket
from pathlib import Path
print([line for line in Path("/etc/resolv.conf").read_text().splitlines() if line.startswith("nameserver")])
try:
    socket.getaddrinfo("pypi.org", 443)
except socket.gaierror:
    print("unknown", socket.gethostbyname("localhost"))
"""
    resolver = Path("/etc/resolv.conf")

    assert (0, "[]\nunknown 127.0.0.1\n") == run("python", "-c", program, egress=False)
    assert (0, resolver.read_text() if resolver.exists() else "") == run("sh", "-c", f"cat {resolver} || true")


def test_egress_without_namespaces(run, isolation, caplog):
    """Where no namespaces can be made the network can't be refused; the server's log says so."""
    run("true", egress=False)

    assert ["has the network of this machine" in text for text in caplog.messages] == [True] * (isolation == "rewrite")


def test_read_only_mounts(run, isolation, volume):
    """A read-only mount can't be written to, where the kernel supports it."""
    code, _ = run("touch", "/data/x", mounts=(Mount(source=volume, path="/data", read_only=True),))

    assert (isolation == "namespace") == (code != 0)


def test_a_missing_volume_fails_the_start(start, isolation, tmp_path):
    """The error for a missing volume names it."""
    if isolation == "rewrite":
        pytest.skip("paths are only replaced")
    with pytest.raises(RunnerError) as error:
        start("true", mounts=(Mount(source=tmp_path / "none", path="/data"),))

    assert f"volume /data: {tmp_path}/none does not exist" in error.value.detail


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("/mnt/app", True),
        ("--out=/mnt/app/x", True),
        ("file:///mnt/app", True),
        ("/mnt/application", False),
        ("@stage/mnt/app", False),
        ("/mnt/app.bak", False),
        ("/data/mnt/app", False),
    ],
)
def test_only_whole_paths_are_rewritten(run, isolation, volume, text, rewritten):
    """Texts that contain a mount path as part of another word stay."""
    code, said = run("printf", "%s", text, mounts=(Mount(source=volume, path="/mnt/app"),))
    expected = text.replace("/mnt/app", str(volume)) if rewritten and isolation == "rewrite" else text

    assert (0, expected) == (code, said)


def test_token(run, tmp_path):
    """The token is at the path of real containers, readable by this user only."""
    code, text = run("sh", "-c", "cat /snowflake/session/token; stat -c ' %a' /snowflake/session/token")

    assert (0, "s3cret 600\n") == (code, text)


def test_connections_file(start):
    """Connectors use the default connection, which only the user may read."""
    show = "stat -c %a $HOME/.snowflake/connections.toml; cat $HOME/.snowflake/connections.toml"
    container = start("sh", "-c", show)
    _, text = container.finish()
    mode, section, *lines = text.splitlines()

    assert ("600", "[default]") == (mode, section)
    assert {"port = 4242", 'host = "127.0.0.1"', 'protocol = "http"', 'authenticator = "oauth"'} <= set(lines)


# --- Python


def test_python_is_an_overlay(start):
    """The job's prefix is private and pip would install there; packages of the base environment are visible."""
    container = start(
        "python",
        "-c",
        "import json, sys, sysconfig, pytest;"
        "print(json.dumps([sys.prefix, sysconfig.get_path('purelib'), pytest.__file__,"
        " sys.base_prefix != sys.prefix, 'snowflake.connector' in sys.modules]))",
    )
    _, text = container.finish()
    venv = container.plan.directory / "venv"
    packages = venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"

    assert [str(venv), str(packages), pytest.__file__, True, False] == json.loads(text)


def test_snowpark_is_importable(run):
    """Namespace packages of the base environment work through the overlay."""
    code, text = run("python3", "-c", "import snowflake.snowpark; print(snowflake.snowpark.__name__)")

    assert (0, "snowflake.snowpark\n") == (code, text)


def test_console_scripts_run_in_the_overlay(start):
    """Scripts of the base environment are on PATH and run with the job's interpreter, pip above all."""
    container = start("sh", "-c", "command -v pytest; command -v pip; head -1 $(command -v pip); pytest --version")
    code, text = container.finish()
    programs = container.plan.directory / "venv" / "bin"

    assert 0 == code
    assert [f"{programs}/pytest", f"{programs}/pip"] == text.splitlines()[:2]
    assert text.splitlines()[2] in {f"#!{programs}/python", "#!/bin/sh"}
    assert f"pytest {pytest.__version__}" in text


def test_login_without_port_reaches_the_emulator(run):
    """The documented login names no port and no protocol; the overlay fills them in, for the emulator only."""
    script = """
from snowflake.connector import SnowflakeConnection
seen = []
SnowflakeConnection._SnowflakeConnection__open_connection = lambda self: seen.append(
    (self.host, str(self.port), self._protocol))
for address in {"host": "127.0.0.1"}, {"host": "127.0.0.1", "port": 4242}, {"host": "other.example.com"}:
    try:
        SnowflakeConnection(**address, account="a", token="t", authenticator="oauth")
    except Exception:
        pass  # the login itself needs a server
print(seen)
"""
    _, text = run("python", "-c", script)

    emulator = ("127.0.0.1", "4242", "http")
    assert f"{[emulator, emulator, ('other.example.com', '443', 'https')]}\n" == text


# --- exit codes, signals, orphans


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_exit_codes(run, script, code):
    """Exit codes are those that a container reports."""
    assert (code, "") == run("sh", "-c", script)


@pytest.mark.parametrize(
    ("command", "detail"),
    [
        ("no-such-program", 'exec: "no-such-program": executable file not found in $PATH'),
        ("/no/such/program", 'exec: "/no/such/program": no such file or directory'),
        ("nul\0byte", 'exec: "nul\\u0000byte": execve: embedded null character in path'),
    ],
)
def test_a_program_that_can_not_start(start, command, detail):
    """A program that can't start fails the start, with the container's message and the reason."""
    with pytest.raises(RunnerError) as error:
        start(command)

    assert detail == error.value.detail
    assert f"Encountered fatal error while starting container: {detail}" == str(error.value)


def test_terminate_lets_the_job_clean_up(start):
    """SIGTERM reaches the job's handler; its output is logged before the exit is reported."""
    script = """
import os, signal, sys, time
def stop(*_):
    # The signal may come in the middle of the print before.
    os.write(1, b"cleaning up\\n")
    sys.exit(7)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""
    container = start("python", "-c", script)
    container.wait_for("ready")
    container.instance.terminate()
    container.instance.terminate()

    assert (7, "ready\ncleaning up\n") == container.finish()


def test_kill_after_grace(start):
    """A job that ignores SIGTERM is killed, without blocking the caller."""
    container = start("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    container.wait_for("ready")
    grace = slowness()
    began = time.monotonic()
    container.instance.terminate(grace=grace)

    assert time.monotonic() - began < grace / 2
    assert container.instance.wait(0.05) is None
    assert (137, "ready\n") == container.finish()
    assert grace <= time.monotonic() - began


def test_kill(start):
    """Kill returns at once, and does nothing after the end."""
    container = start("sh", "-c", "trap '' TERM; echo ready; sleep 60; sleep 60")
    container.wait_for("ready")
    container.instance.kill()

    assert (137, "ready\n") == container.finish()

    container.instance.kill()
    container.instance.terminate()


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(1)
    os._exit(0)
print("daemon started", flush=True)
time.sleep(float(sys.argv[1]))
"""


def test_daemons_end_with_their_container(start, tmp_path):
    """A grandchild in another session that holds the pipes neither survives nor delays the exit."""
    mark = f"daemon-{tmp_path.name}-{os.getpid()}"
    container = start("python", "-c", DAEMON, "0", mark)

    assert (0, "daemon started\n") == container.finish()
    assert [] == processes_mentioning(mark)


def test_nothing_outlives_a_killed_server(isolation, tmp_path):
    """SIGKILL of the server ends all processes of its containers, daemons included."""
    mark = f"orphan-{tmp_path.name}-{os.getpid()}"
    server = tmp_path / "server.py"
    server.write_text(
        "import sys, threading, time\n"
        "from pathlib import Path\n"
        "from airflow_provider_mljobs.emulator.containers.instance import Instance, InstancePlan, JobLog\n"
        f"plan = InstancePlan(directory=Path({str(tmp_path / 'one')!r}), image='i', command=('python', '-c', "
        f"{DAEMON!r}, '60', {mark!r}), args=(), env={{}}, mounts=(), token='t', python=Path(sys.executable),\n"
        "    connection={'host': 'h', 'port': '1', 'protocol': 'http'})\n"
        f"start = lambda: Instance.start(plan, JobLog(Path({str(tmp_path / 'log')!r})), print)\n"
        # The thread that started it ends first: a job must not depend on it.
        "thread = threading.Thread(target=start); thread.start(); thread.join()\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, server], env=environment, start_new_session=True) as process:
        wait_until(lambda: len(processes_mentioning(mark)) == 2 and "daemon" in JobLog(tmp_path / "log").tail())
        process.send_signal(signal.SIGKILL)

    wait_until(lambda: not processes_mentioning(mark))


# --- output


def test_output_is_logged_by_stream_and_in_order(start):
    """Both streams are complete, in their order, and never before the start."""
    # A reader that is late by more than the pause can't know which stream came first.
    pause = f"sleep {0.1 * slowness():.2f}"
    script = f"for i in 1 2 3; do echo out $i; {pause}; echo err $i >&2; {pause}; done"
    container = start("sh", "-c", script)
    container.finish()
    records = list(container.log.records())

    assert [("stdout", "out 1"), ("stderr", "err 1"), ("stdout", "out 2"), ("stderr", "err 2")] == [
        (record.stream, record.line) for record in records[:4]
    ]
    assert sorted(record.at for record in records) == [record.at for record in records]


def test_large_output_is_complete(start):
    """20 MB arrive; the last line is there when the exit is reported."""
    container = start("python", "-c", "for i in range(200_000): print(f'{i:>99}')")
    code, text = container.finish()

    assert (0, 20_000_000) == (code, len(text))
    assert 199_999 == int(text[-10:])


def test_lines_are_logged_when_they_end(start):
    """A progress bar becomes one line, as with containerd, logged when it or its stream ends."""
    container = start("sh", "-c", "printf '50%%\\r100%%\\r\\n10%%\\r'; echo ready >&2; sleep 60")
    container.wait_for("ready\n")
    container.wait_for("50%\r100%\n")
    before = container.log.tail()
    container.instance.kill()
    _, text = container.finish()

    assert "10%\r" not in before
    assert "10%\r" == text.removeprefix(before)


def test_a_long_line_is_logged_in_parts(start):
    """A line longer than 16 KiB is logged in parts before its end."""
    container = start("sh", "-c", "printf '%16385s' x; sleep 60")
    container.wait_for(" " * 16_384)
    before = container.log.tail()
    container.instance.kill()

    assert " " * 16_384 == before
    assert before + "x" == container.finish()[1]


def test_output_that_is_no_text(run):
    """Invalid UTF-8 is replaced, also at the very end."""
    assert (0, "a\ufffdb\n\ufffd") == run("printf", "a\\377b\\n\\360\\237")


def test_twenty_at_once(start):
    """Containers that run side by side have their own output and exit."""
    containers = {}

    def begin(number):
        containers[number] = start("sh", "-c", f"echo {number}; exit {number}")

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {number: (number, f"{number}\n") for number in range(20)} == {
        number: container.finish() for number, container in containers.items()
    }


def test_nothing_is_left_open(start):
    """An ended instance holds no file descriptor."""
    start("true").finish()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        start("echo", "x").finish()

    assert before == len(list(Path("/proc/self/fd").iterdir()))


# --- images


@pytest.mark.parametrize("command", [(), ("/usr/local/bin/_entrypoint.sh",)])
def test_entrypoint_of_the_ml_runtime(run, command):
    """The entrypoint of the ML runtime runs its arguments, named or implied."""
    assert (0, "a b\n") == run(*command, args=("echo", "a b"), image=ML_IMAGE)


def test_entrypoint_file_of_the_ml_runtime(run, isolation):
    """Programs of the job can run the entrypoint, too."""
    if isolation == "rewrite":
        pytest.skip("there is no file at its path")

    assert (0, "x\n") == run("sh", "-c", "/usr/local/bin/_entrypoint.sh echo x", image=ML_IMAGE)
    assert not Path("/usr/local/bin/_entrypoint.sh").exists()


@pytest.mark.parametrize(
    ("image", "args", "detail"),
    [
        ("/db/sc/r/mine:1", ("x",), "add a command for image /db/sc/r/mine:1 to the specification"),
        (ML_IMAGE, (), "has neither command nor arguments"),
    ],
)
def test_images_without_a_command(start, image, args, detail):
    """An unknown image without a command is an error that names it."""
    with pytest.raises(RunnerError) as error:
        start(image=image, args=args)

    assert detail in error.value.detail


@pytest.fixture
def payload(volume):
    """Create a job's stage as the ML client uploads it, with a start script that must not run."""
    (volume / "system").mkdir()
    (volume / "app").mkdir()
    (volume / "system" / "startup.sh").write_text("echo the start script ran\n")
    (volume / "system" / "mljob_launcher.py").write_text("import os, sys; print(os.getcwd(), sys.argv[1:])\n")
    (volume / "system" / "sitecustomize.py").write_text("import sys; sys.modules['ray'] = None\n")
    return Mount(source=volume, path="/mnt/job_stage")


@pytest.fixture
def run_payload(run, payload):
    """Run the job of the stage as the service that the client creates, without Ray, which starts a cluster for each."""

    def _run(**env):
        stage = payload.path
        return run(
            args=("bash", f"{stage}/system/startup.sh", f"{stage}/app/train.py", "--lr", "0.1"),
            image=ML_IMAGE,
            mounts=(payload,),
            env={"MLRS_STAGE_MOUNT_PATH": stage, "MLRS_PAYLOAD_DIR": "app", "PYTHONPATH": f"{stage}/system", **env},
        )

    return _run


def test_start_script_of_the_ml_client(run_payload, payload, isolation):
    """The launcher runs instead of the start script, in the payload's directory."""
    stage = payload.path if isolation == "namespace" else payload.source

    assert (0, f"{stage}/app ['{stage}/app/train.py', '--lr', '0.1']\n") == run_payload()


def test_own_start_script(run, volume):
    """A user's script named like the start script runs as it is."""
    (volume / "startup.sh").write_text('echo mine "$1"\n')

    assert (0, "mine x\n") == run("bash", "/app/startup.sh", "x", mounts=(Mount(source=volume, path="/app"),))


def test_workers_of_head_driven_jobs(run_payload):
    """Without Ray workers exit at once, except in jobs that start on every instance."""
    worker = {"SNOWFLAKE_JOBS_COUNT": "2", "SNOWFLAKE_JOB_INDEX": "1"}
    code, text = run_payload(**worker)

    assert (0, "Worker instance 1: Ray is not available here; see the log of the head instance\n") == (code, text)
    assert "--lr" in run_payload(**worker, MLRS_LAUNCH_BACKEND="passthrough")[1]
    assert "--lr" in run_payload(**{**worker, "SNOWFLAKE_JOB_INDEX": "0"})[1]


@pytest.mark.parametrize(("requirements", "installs"), [("", False), ("# none\n\n", False), ("pytest\n", True)])
def test_requirements(run_payload, payload, requirements, installs):
    """Requirements are installed before the launcher runs; without pip the job fails with a message."""
    (payload.source / "app" / "requirements.txt").write_text(requirements)
    code, text = run_payload()
    has_pip = subprocess.run([sys.executable, "-c", "import pip"], capture_output=True, check=False).returncode == 0

    assert ((1, True) if installs and not has_pip else (0, False)) == (code, "has no pip" in text)
    assert (installs and has_pip) == ("Installing packages" in text)


def test_conda_environments_are_refused(run_payload, payload):
    """A conda environment is refused, as by the image."""
    (payload.source / "app" / "environment.yml").write_text("dependencies: [numpy]")

    assert (1, "Custom conda environments not currently supported\n") == run_payload()


# --- modes


def test_isolation_can_be_forced(monkeypatch):
    """An unknown isolation mode is an error."""
    monkeypatch.setenv("MLJOBS_EMULATOR_ISOLATION", "rewrite")

    assert "rewrite" == probe_isolation()

    monkeypatch.setenv("MLJOBS_EMULATOR_ISOLATION", "docker")
    with pytest.raises(RunnerError) as error:
        probe_isolation()

    assert "MLJOBS_EMULATOR_ISOLATION must be 'namespace' or 'rewrite'; got 'docker'" == error.value.detail


def test_isolation_is_probed(monkeypatch):
    """Without the variable the machine decides."""
    monkeypatch.delenv("MLJOBS_EMULATOR_ISOLATION", raising=False)

    assert ("namespace" if can_isolate() else "rewrite") == probe_isolation()
