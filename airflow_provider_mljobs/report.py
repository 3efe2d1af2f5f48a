"""Tell from within an ML job how far it is, how well it does, and what it has made.

Example::

    from airflow_provider_mljobs import report

    for epoch in range(1, 11):
        auc = train(epoch)
        report.progress(epoch / 10, f"epoch {epoch}/10")
        report.metrics(step=epoch, auc=auc)
    report.artifact("model.json")
    report.asset("s3://models/loan_default", {"auc": auc})

Any process of the job may do so. Each call adds a line to the container's log, where Airflow finds it; outside a job it
prints one for people. Nothing else is needed, and nothing is patched.

Arguments that can't be meant raise a TypeError or a ValueError at once. A report that can't be written is lost, and the
job goes on.
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

# What a report begins with.
MARK = "::mljobs::"
# Names the container's stdout, for all processes of the job.
STDOUT = "MLJOBS_STDOUT"
# A pipe takes less than 4096 bytes as one piece, whoever else writes to it.
_MOST_BYTES = 4000
_NAME_CHARACTERS, _MESSAGE_CHARACTERS, _URI_CHARACTERS = 100, 200, 1000
_DEEPEST = 8
# What is too much when ten tenths are added up.
_ROUNDING = 1e-6
# What of the job's directory is the launcher's.
_RESERVED = ("input/", "output/mljob_", "output/instances/")


def progress(fraction: float, message: str = "") -> None:
    """Tell how far the job is.

    :param fraction: from 0 to 1.
    :param message: a few words, e.g. ``"epoch 4/10"``; cut after 200 characters.
    """
    number = _number("The fraction", fraction)
    if number is None or not -_ROUNDING <= number <= 1 + _ROUNDING:
        raise ValueError(f"The fraction is from 0 to 1, e.g. 0.4 for 40 %; got {fraction!r}.")
    if not isinstance(message, str):
        raise TypeError(f"The message is a text, got {message!r}.")
    number = min(max(number, 0.0), 1.0)
    if len(message) > _MESSAGE_CHARACTERS:
        message = message[: _MESSAGE_CHARACTERS - 1] + "…"
    percent = f"progress {math.floor(100 * number + 1e-9)} %"
    _report({"progress": number, "message": message}, f"{percent}: {message}" if message else percent)


def metrics(step: float | None = None, **values: Any) -> None:
    """Tell how well the job does.

    A metric is one thing by its name, whichever process or instance reports it. Let one of them do so, e.g. rank 0, or
    have the rank in the name: ``report.metrics(**{f"loss/{rank}": loss})``.

    :param step: the epoch, round or batch that the values are of.
    :param values: numbers, also those of numpy and torch. NaN, infinities and numbers of more than 64 bits are
        reported as no value.
    """
    if not values:
        raise ValueError("There is no metric; name one, e.g. report.metrics(auc=0.91).")
    for name in values:
        _refuse_name("A metric", name)
    numbers = {name: _number(f"Metric {name!r}", value) for name, value in values.items()}
    document: dict[str, Any] = {}
    if step is not None:
        document["step"] = _number("The step", step)
    text = " ".join(f"{name}={value}" for name, value in (*document.items(), *numbers.items()))
    _report({**document, "metrics": numbers}, f"metrics {text}")


def artifact(path: str | os.PathLike[str]) -> None:
    """Keep a file or a directory beside the job's result, and tell so.

    It is copied into ``$MLRS_STAGE_RESULT_PATH`` under its own name, in place of what is called so there, unless it
    lies there already.

    :param path: what to keep.
    """
    source = Path(path).resolve()
    if not source.exists():
        raise ValueError(f"There is no file or directory {str(path)!r} (looked for it at {source}).")
    if STDOUT not in os.environ or "MLRS_STAGE_RESULT_PATH" not in os.environ:
        _report({"artifact": source.name}, f"artifact {path}")
        return
    results = Path(os.environ["MLRS_STAGE_RESULT_PATH"]).resolve()
    if source in (results, *results.parents):
        raise ValueError(f"{str(path)!r} is no artifact: the job's own directory {str(results)!r} is in it.")
    is_there = results in source.parents
    kept = source if is_there else results / source.name
    name = kept.relative_to(results).as_posix()
    if f"{name}/".startswith(_RESERVED):
        raise ValueError(f"{name!r} in the job's own directory is not the payload's; call {str(path)!r} otherwise.")
    document = {"artifact": name}
    _refuse_large("The path", document)
    try:
        if not is_there:
            _copy(source, kept)
    except OSError as error:
        # What else has been computed is worth more.
        _say(f"Artifact {str(path)!r} can't be kept: {error}", sys.stderr)
        return
    _report(document, f"artifact {path}")


def asset(uri: str, extra: Mapping[str, Any] | None = None) -> None:
    """Tell what the job has made or changed elsewhere, e.g. a table, or the version of a model.

    :param uri: what it is called, e.g. ``"s3://models/loan_default"``.
    :param extra: what there is to say about it, as JSON.
    """
    if not isinstance(uri, str):
        raise TypeError(f"The URI is a text, e.g. 's3://models/loan_default'; got {uri!r}.")
    if not 0 < len(uri) <= _URI_CHARACTERS or not uri.isprintable():
        raise ValueError(f"The URI has 1 to {_URI_CHARACTERS} characters that can be printed, got {uri!r}.")
    text = json.dumps(dict(extra or {}), default=_plain)
    # What is no number there is none in JSON.
    document = {"asset": uri, "extra": json.loads(text, parse_constant=lambda _: None)}
    _refuse_deep(document["extra"])
    _refuse_large("The asset", document)
    _report(document, f"asset {uri} {text}" if extra else f"asset {uri}")


def _number(what: str, value: Any) -> float | None:
    """Return a number that JSON has; ``None`` for NaN and infinities."""
    try:
        number = value.item() if hasattr(value, "item") else value
        is_finite = math.isfinite(number)
    except Exception:  # noqa: BLE001 (whatever an array raises that has several numbers)
        is_finite, number = False, True
    if isinstance(number, bool):
        raise TypeError(f"{what} is a number, got {value!r}.")
    if not is_finite:
        return None
    return number if isinstance(number, int) else float(number)


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"What is said about an asset is JSON, got {value!r}.")


def _refuse_name(what: str, name: str) -> None:
    # Airflow gives keys a meaning that begin so.
    if not 0 < len(name) <= _NAME_CHARACTERS or not name.isprintable() or name.startswith("__"):
        raise ValueError(
            f"{what} has a name of 1 to {_NAME_CHARACTERS} characters that doesn't begin with '__'; got {name!r}."
        )


def _refuse_deep(value: Any, levels: int = _DEEPEST) -> None:
    if isinstance(value, (dict, list)):
        if not levels:
            raise ValueError(f"What is said about an asset is nested deeper than {_DEEPEST} levels.")
        for name in value if isinstance(value, dict) else ():
            _refuse_name("What is said about an asset", name)
        for item in value.values() if isinstance(value, dict) else value:
            _refuse_deep(item, levels - 1)


def _refuse_large(what: str, document: Mapping[str, Any]) -> None:
    (line,) = _lines(document)
    # The time comes to it.
    most = _MOST_BYTES - 100
    if len(line) > most:
        raise ValueError(f"{what} takes {len(line)} bytes; a report has room for {most}.")


def _copy(source: Path, target: Path) -> None:
    """Copy contents only: what is mounted from a stage has no modes and no times."""
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
        # What was printed before stands before it.
        sys.stdout.flush()
    for line in _lines({**document, "at": round(time.time(), 3)}):
        _write(line)


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a report: several for very many metrics."""
    text = json.dumps(document, separators=(",", ":")).replace("::", ":\\u003a")
    numbers = document.get("metrics", {})
    if len(text) <= _MOST_BYTES or len(numbers) <= 1:
        yield MARK + text
        return
    names = list(numbers)
    middle = len(names) // 2
    for half in (names[:middle], names[middle:]):
        yield from _lines({**document, "metrics": {name: numbers[name] for name in half}})


def _write(line: str) -> None:
    try:
        # Only to open it must not wait, should nobody read it any more.
        stdout = os.open(os.environ[STDOUT], os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
    except OSError:
        # A socket can't be opened, nor what is another user's.
        _say(line, sys.stdout)
        return
    try:
        os.set_blocking(stdout, True)
        # Somebody may have left a line unfinished.
        os.write(stdout, f"\n{line}\n".encode())
    except OSError:
        # Nobody reads it any more.
        pass
    finally:
        os.close(stdout)


def _say(text: str, stream: TextIO) -> None:
    with contextlib.suppress(Exception):
        print(text, file=stream, flush=True)
