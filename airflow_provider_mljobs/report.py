"""Report progress, metrics, artifacts and assets from within an ML job.

Example::

    from airflow_provider_mljobs import report

    for epoch in range(1, 11):
        auc = train(epoch)
        report.progress(epoch / 10, f"epoch {epoch}/10")
        report.metrics(step=epoch, auc=auc)
    report.artifact("model.json")
    report.asset("s3://models/loan_default", {"auc": auc})

Any process of the job can report. Each call adds a line to the container's log, from which Airflow reads it. Outside a
job a call prints a line for people. Nothing is patched.

An invalid argument raises a TypeError or a ValueError. A report that can't be written is lost; the job continues.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The beginning of a report.
MARK = "::mljobs::"
# The variable that names the container's stdout, for all processes of the job.
STDOUT = "MLJOBS_STDOUT"
# A pipe takes up to 4096 bytes as one piece, so that lines of several processes don't mix.
_MAX_BYTES = 4000
_MAX_NAME, _MAX_MESSAGE, _MAX_URI = 100, 200, 1000
_MAX_DEPTH = 8
# The sum of ten tenths is a little more than 1.
_ROUNDING = 1e-6
# The launcher's own files in the job's directory.
_RESERVED = ("input/", "output/mljob_", "output/instances/")


def progress(fraction: float, message: str = "") -> None:
    """Report how far the job is.

    :param fraction: from 0 to 1.
    :param message: a few words, e.g. ``"epoch 4/10"``; cut after 200 characters.
    """
    number = _number("fraction", fraction)
    if number is None or not -_ROUNDING <= number <= 1 + _ROUNDING:
        raise ValueError(f"fraction must be from 0 to 1, e.g. 0.4 for 40 %; got {fraction!r}.")
    if not isinstance(message, str):
        raise TypeError(f"message must be a text, got {message!r}.")
    number = min(max(number, 0.0), 1.0)
    if len(message) > _MAX_MESSAGE:
        message = message[: _MAX_MESSAGE - 1] + "…"
    percent = f"progress {math.floor(100 * number + 1e-9)} %"
    _report({"progress": number, "message": message}, f"{percent}: {message}" if message else percent)


def metrics(step: float | None = None, **values: Any) -> None:
    """Report how well the job does.

    All processes and instances share the names. Let one of them report, e.g. rank 0, or put the rank into the name:
    ``report.metrics(**{f"loss/{rank}": loss})``.

    :param step: the epoch, round or batch of the values.
    :param values: numbers, also scalars of numpy and torch. NaN, infinities and numbers of more than 64 bits are
        reported as no value.
    """
    if not values:
        raise ValueError("metrics() needs at least one value, e.g. report.metrics(auc=0.91).")
    for name in values:
        _refuse_name("The name of a metric", name)
    numbers = {name: _number(f"Metric {name!r}", value) for name, value in values.items()}
    document: dict[str, Any] = {}
    if step is not None:
        document["step"] = _number("step", step)
    text = " ".join(f"{name}={value}" for name, value in (*document.items(), *numbers.items()))
    _report({**document, "metrics": numbers}, f"metrics {text}")


def artifact(path: str | os.PathLike[str]) -> None:
    """Keep a file or a directory beside the job's result, and report it.

    It is copied into ``$MLRS_STAGE_RESULT_PATH`` under its own name and replaces a file of that name, unless it lies
    there already.

    :param path: the file or directory to keep.
    """
    source = Path(path).resolve()
    if not source.exists():
        raise ValueError(f"No file or directory {str(path)!r} (looked at {source}).")
    if STDOUT not in os.environ or "MLRS_STAGE_RESULT_PATH" not in os.environ:
        _report({"artifact": source.name}, f"artifact {path}")
        return
    results = Path(os.environ["MLRS_STAGE_RESULT_PATH"]).resolve()
    if source in (results, *results.parents):
        raise ValueError(f"{str(path)!r} can't be an artifact: it contains the job's directory {str(results)!r}.")
    is_saved = results in source.parents
    target = source if is_saved else results / source.name
    name = target.relative_to(results).as_posix()
    if f"{name}/".startswith(_RESERVED):
        raise ValueError(f"{name!r} in the job's directory is reserved for the launcher; rename {str(path)!r}.")
    document = {"artifact": name}
    _refuse_large("path", document)
    try:
        if not is_saved:
            _copy(source, target)
    except OSError as error:
        # A lost artifact must not end a job that may have run for hours.
        _say(f"Could not save artifact {str(path)!r}: {error}", sys.stderr)
        return
    _report(document, f"artifact {path}")


def asset(uri: str, extra: Mapping[str, Any] | None = None) -> None:
    """Report an asset that the job creates or changes elsewhere, e.g. a table or the version of a model.

    :param uri: its URI, e.g. ``"s3://models/loan_default"``.
    :param extra: facts about it, as JSON.
    """
    if not isinstance(uri, str):
        raise TypeError(f"uri must be a text, e.g. 's3://models/loan_default'; got {uri!r}.")
    if not 0 < len(uri) <= _MAX_URI or not uri.isprintable():
        raise ValueError(f"uri must have 1 to {_MAX_URI} printable characters, got {uri!r}.")
    text = json.dumps(dict(extra or {}), default=_plain)
    # JSON has no NaN and no infinities.
    document = {"asset": uri, "extra": json.loads(text, parse_constant=lambda _: None)}
    _refuse_deep(document["extra"])
    _refuse_large("The asset", document)
    _report(document, f"asset {uri} {text}" if extra else f"asset {uri}")


def _number(label: str, value: Any) -> float | None:
    """Return a number of JSON; ``None`` for NaN and infinities."""
    try:
        number = value.item() if hasattr(value, "item") else value
        is_finite = math.isfinite(number)
    except Exception:  # noqa: BLE001 (an array of several numbers raises any error)
        is_finite, number = False, True
    if isinstance(number, bool):
        raise TypeError(f"{label} must be a number, got {value!r}.")
    if not is_finite:
        return None
    return number if isinstance(number, int) else float(number)


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"extra must be JSON, got {value!r}.")


def _refuse_name(label: str, name: str) -> None:
    # Airflow's serialization reserves keys that begin with two underscores.
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable() or name.startswith("__"):
        raise ValueError(
            f"{label} must have 1 to {_MAX_NAME} printable characters and not begin with '__'; got {name!r}."
        )


def _refuse_deep(value: Any, levels: int = _MAX_DEPTH) -> None:
    if isinstance(value, (dict, list)):
        if not levels:
            raise ValueError(f"extra must have at most {_MAX_DEPTH} levels.")
        for name in value if isinstance(value, dict) else ():
            _refuse_name("A key of extra", name)
        for item in value.values() if isinstance(value, dict) else value:
            _refuse_deep(item, levels - 1)


def _refuse_large(label: str, document: Mapping[str, Any]) -> None:
    (line,) = _lines(document)
    # The rest is for the time.
    limit = _MAX_BYTES - 100
    if len(line) > limit:
        raise ValueError(f"{label} takes {len(line)} bytes; a report has room for {limit}.")


def _copy(source: Path, target: Path) -> None:
    """Copy contents only: a mounted stage has no modes and no times."""
    if not source.is_dir():
        shutil.copyfile(source, target)
        return
    for directory, _, names in os.walk(source):
        place = target / Path(directory).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(Path(directory, name), place / name)


def _report(document: Mapping[str, Any], text: str) -> None:
    """Write a report to the container's log; outside a job, print ``text``."""
    if STDOUT not in os.environ:
        _say(text, sys.stdout)
        return
    with contextlib.suppress(Exception):
        # Earlier output of this process comes first in the log.
        sys.stdout.flush()
    for line in _lines({**document, "at": round(time.time(), 3)}):
        _write(line)


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a report: several for very many metrics."""
    text = json.dumps(document, separators=(",", ":")).replace("::", ":\\u003a")
    numbers = document.get("metrics", {})
    if len(text) <= _MAX_BYTES or len(numbers) <= 1:
        yield MARK + text
        return
    names = list(numbers)
    middle = len(names) // 2
    for half in (names[:middle], names[middle:]):
        yield from _lines({**document, "metrics": {name: numbers[name] for name in half}})


def _write(line: str) -> None:
    try:
        # Opening a pipe without a reader would block.
        stdout = os.open(os.environ[STDOUT], os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
    except OSError:
        # A socket can't be opened, nor a file of another user.
        _say(line, sys.stdout)
        return
    try:
        os.set_blocking(stdout, True)
        # Another process may have written half a line.
        os.write(stdout, f"\n{line}\n".encode())
    except OSError:
        # The reader of the pipe is gone.
        pass
    finally:
        os.close(stdout)


def _say(text: str, stream: TextIO) -> None:
    with contextlib.suppress(Exception):
        print(text, file=stream, flush=True)
