"""The cost of a submit: first time, unchanged, and 500 mapped tasks of the same code, next to Snowflake's client."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
ML_PYTHON = ROOT / os.environ.get("ML_VENV", ".venv-ml") / "bin/python"
FILES, TASKS, AT_ONCE = 1000, 500, 16


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement."""

    who: str
    case: str
    files: int
    statements: int
    puts: int
    seconds: float


def measure(snowflake: Any) -> list[Row]:
    """Submit to an embedded Snowflake in this process whose jobs only pretend to run."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        for number in range(FILES - 1):
            path = source / f"package_{number % 20}" / f"module_{number}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"VALUE = {number}\n")
        (source / "main.py").write_text("__return__ = 1\n")
        return [*_ours(snowflake, source), *_clients(snowflake, source)]


def show(rows: list[Row]) -> None:
    """Print the rows as a table, and the ratios."""
    print("who     case         files  statements  PUTs  seconds")
    for row in rows:
        print(f"{row.who:7} {row.case:12} {row.files:5}  {row.statements:10}  {row.puts:4}  {row.seconds:7.2f}")
    ours = {row.case: row for row in rows if row.who == "ours"}
    for row in rows:
        if row.who != "ours":
            other = ours[row.case]
            print(
                f"{row.case}: {row.statements / other.statements:.1f}x fewer statements, "
                f"{row.seconds / other.seconds:.1f}x less time than {row.who}"
            )


def save(rows: list[Row], directory: Path) -> None:
    """Write the rows as JSON, to compare runs."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "submit.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def _ours(snowflake: Any, source: Path) -> list[Row]:
    from airflow_provider_mljobs.hooks import MLJobHook

    names = iter(range(10_000))
    with MLJobHook() as hook:
        hook.run("SELECT 1")
        submit = partial(_submit, hook, names)
        rows = [
            _row(snowflake, "ours", "first", FILES, partial(submit, source)),
            _row(snowflake, "ours", "unchanged", FILES, partial(submit, source)),
        ]
    return [*rows, _row(snowflake, "ours", "mapped_500", 1, partial(_mapped, names, source / "main.py"))]


def _submit(hook: Any, names: Any, source: Path) -> None:
    """Submit as a task does: pack, upload unless the payload exists, start."""
    from airflow_provider_mljobs.jobs.names import Identifier
    from airflow_provider_mljobs.jobs.payload.archive import Payload
    from airflow_provider_mljobs.jobs.spec.job import JobSpec

    name = hook.job(f"MLJOB_BENCH_{next(names)}")
    spec = JobSpec(name=name, compute_pool=Identifier("ML_POOL"), stage=hook.stage("@ML_PAYLOADS"), comment="bench")
    hook.submit(spec, Payload.of_source(source, "main.py"))


def _mapped(names: Any, source: Path) -> None:
    """Let each task have a connection of its own, as tasks do; the first ones start at the same moment."""
    from airflow_provider_mljobs.hooks import MLJobHook

    together = threading.Barrier(AT_ONCE)

    def task(number: int) -> None:
        with MLJobHook() as hook:
            if number < AT_ONCE:
                together.wait()
            _submit(hook, names, source)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(task, range(TASKS)))


def _clients(snowflake: Any, source: Path) -> list[Row]:
    if not ML_PYTHON.exists():
        print("snowflake-ml-python isn't installed in .venv-ml: no rival to compare with")
        return []
    command = [ML_PYTHON, Path(__file__).with_name("ml_client.py"), json.dumps(snowflake.connection_kwargs), source]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:

        def submit(what: str, times: int = 1) -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            for _ in range(times):
                process.stdin.write(f"{what}\n")
                process.stdin.flush()
                float(process.stdout.readline())

        assert process.stdout is not None
        process.stdout.readline()
        return [
            _row(snowflake, "client", "first", FILES, partial(submit, "directory")),
            _row(snowflake, "client", "unchanged", FILES, partial(submit, "directory")),
            _row(snowflake, "client", "mapped_500", 1, partial(submit, "file", TASKS)),
        ]


def _row(snowflake: Any, who: str, case: str, files: int, run: Callable[[], None]) -> Row:
    snowflake.statements.clear()
    started = time.perf_counter()
    run()
    seconds = time.perf_counter() - started
    # Statements of many tasks are more than the recorder keeps the text of; PUTs come first.
    puts = len(snowflake.statements.matching(r"^\s*PUT\b"))
    return Row(
        who=who,
        case=case,
        files=files,
        statements=snowflake.statements.total,
        puts=puts,
        seconds=round(seconds, 3),
    )
