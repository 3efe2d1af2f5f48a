import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.budget import budget

CLI = [sys.executable, "-m", "airflow_provider_mljobs.emulator"]


def run(*arguments, **options):
    """Run the program to its end."""
    return subprocess.run([*CLI, *arguments], capture_output=True, text=True, check=False, timeout=budget(), **options)


@pytest.mark.parametrize("names", [("protocol",), ()], ids=["http", "https"])
def test_command_gets_the_environment(names):
    """The command finds the server in its environment, and its exit code is the program's."""
    code = (
        "import os, snowflake.connector as c\n"
        f"names = {('host', 'port', 'account', 'user', 'password', *names)}\n"
        "v = {name: os.environ['SNOWFLAKE_' + name.upper()] for name in names}\n"
        "print(c.connect(**v).cursor().execute('SELECT 40 + 2').fetchone()[0])\n"
        "raise SystemExit(3)"
    )
    done = run("--", sys.executable, "-c", code)

    assert (done.returncode, done.stdout) == (3, "42\n")


def test_sql_runs_first(tmp_path):
    """Statements of a file run before the command, so that it finds a pool or a table."""
    file = tmp_path / "setup.sql"
    file.write_text("CREATE STAGE first;\n-- a comment; with a semicolon\nCREATE TABLE second (a INT);")
    code = (
        "import os, snowflake.connector as c\n"
        "names = ('host', 'port', 'protocol', 'account', 'user', 'password', 'database', 'schema')\n"
        "v = {name: os.environ['SNOWFLAKE_' + name.upper()] for name in names}\n"
        "print([row[1] for row in c.connect(**v).cursor().execute('SHOW STAGES').fetchall()])"
    )

    assert run("--sql", str(file), "--", sys.executable, "-c", code).stdout == "['FIRST']\n"


def test_realistic_times(tmp_path):
    """With --realistic a new pool takes time to start."""
    file = tmp_path / "setup.sql"
    file.write_text("CREATE COMPUTE POOL P MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_S;")
    code = (
        "import os, snowflake.connector as c\n"
        "names = ('host', 'port', 'protocol', 'account', 'user', 'password')\n"
        "v = {name: os.environ['SNOWFLAKE_' + name.upper()] for name in names}\n"
        "print(c.connect(**v).cursor().execute('DESCRIBE COMPUTE POOL P').fetchone()[1])"
    )

    assert run("--realistic", "--sql", str(file), "--", sys.executable, "-c", code).stdout == "STARTING\n"


def test_impossible_speed():
    """A wrong --speed is an error of one line."""
    done = run("--realistic", "--speed", "0", "--", "echo", "started")

    assert (done.returncode, done.stdout, done.stderr) == (1, "", "speed must be more than 0; got 0.0\n")


def test_wrong_sql(tmp_path):
    """A failing statement is reported, and the command isn't started."""
    file = tmp_path / "setup.sql"
    file.write_text("CREATE STAGE a; DROP TABLE missing;")
    done = run("--sql", str(file), "--", "echo", "started")

    assert (done.returncode, done.stdout) == (1, "")
    assert "MISSING" in done.stderr


def test_killed_command():
    """A command that a signal ends gives 128 plus its number."""
    assert run("--", "sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL


def test_missing_command():
    """A command that doesn't exist gives the shell's code."""
    done = run("--", "no-such-command")

    assert (done.returncode, done.stderr) == (127, "no-such-command: No such file or directory\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_foreground(tmp_path, number):
    """In the foreground the program prints how to connect, keeps its root private and stops on a signal."""
    root = tmp_path / "root"
    with subprocess.Popen(
        [*CLI, "--root", str(root)], stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    ) as process:
        lines = []
        while "Ctrl-C" not in "".join(lines):
            lines.append(process.stdout.readline())
        second = run("--root", str(root), "--", "true")
        process.send_signal(number)
        code = process.wait(budget())

    printed = "".join(lines)
    assert code == 0
    assert "Not a sandbox" in printed
    assert f"export SNOWFLAKE_PASSWORD={(root / 'password').read_text()}" in printed
    assert second.returncode == 1
    assert re.search(rf"process {process.pid}, port [0-9]+", second.stderr)


def test_signals_are_forwarded():
    """SIGTERM reaches the command, which decides how to end."""
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen([*CLI, "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        ready = process.stdout.readline()
        process.send_signal(signal.SIGTERM)

        assert (ready, process.wait(budget())) == ("ready\n", 7)


def test_default_root_is_in_the_state_directory(tmp_path):
    """The help names the default root, in XDG_STATE_HOME."""
    done = run("--help", env=os.environ | {"XDG_STATE_HOME": str(tmp_path), "COLUMNS": "500"})

    assert f"{tmp_path}/airflow-provider-mljobs/emulator" in done.stdout


def test_fixtures(tmp_path):
    """Another project can use the fixtures, and give the server settings."""
    (tmp_path / "conftest.py").write_text(
        "import pytest\n"
        "pytest_plugins = ['airflow_provider_mljobs.emulator.fixtures']\n\n\n"
        "@pytest.fixture(scope='session')\n"
        "def snowflake_emulator_settings():\n"
        "    return {'realistic': True, 'speed': 60}\n"
    )
    (tmp_path / "test_it.py").write_text(
        "def test_it(snowflake_emulator, snowflake_connection):\n"
        "    assert (1,) == snowflake_connection.cursor().execute('SELECT 1').fetchone()\n"
        "    assert 2.0 == snowflake_emulator.settings.event_table_lag\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
