"""Reports of a running job: read from its log, and folded into a state of bounded size.

A report is a line with a mark and a JSON object; ``airflow_provider_mljobs.report`` prints it in the job. Any line of
the log may look like one, so nothing in a line is trusted to be short, flat, finite or of the right type.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import UnreadableError
from airflow_provider_mljobs.jobs.logs.text import readable
from airflow_provider_mljobs.jobs.untrusted import read_json_prefix, reading
from airflow_provider_mljobs.jobs.values.portability import fits, jsonb_safe
from airflow_provider_mljobs.launcher.contract import MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

# The time, the step and the value of a metric; ``None`` for NaN, infinities and numbers of more than 64 bits.
Point = tuple[float, float | None, float | None]

# A pipe takes this much as one piece, so the job prints no longer reports.
_MAX_CHARACTERS = 4096
_MAX_POINTS = 500
_MAX_METRICS = 100
_MAX_ARTIFACTS = 100
_MAX_ASSETS = 20
_MAX_MESSAGE, _MAX_NAME, _MAX_PLACE = 200, 100, 1000
_MAX_DEPTH = 8
# The log shows one line of progress in this time.
_SECONDS_BETWEEN_LINES = 10
_EXACT = 2**53
# Ray's prefix of each line of a worker. Matching takes the square of the text's length.
_RAY_PREFIX, _MAX_PREFIX = re.compile(r"\([^()]*\bpid=\d+[^()]*\)"), 300


@dataclass(frozen=True)
class Progress:
    """The progress of a job: a fraction from 0 to 1, and the time of the report in seconds since the epoch."""

    fraction: float
    message: str
    at: float

    def __str__(self) -> str:
        # Not rounded up: 100 % is the end.
        percent = f"progress {math.floor(self.fraction * 100 + 1e-9)} %"
        return f"{percent}: {self.message}" if self.message else percent

    def is_worth_a_line(self, last: Progress | None) -> bool:
        """Return whether it is shown in the log, after the last progress."""
        if last is None:
            return True
        if self.at < last.at or str(self) == str(last):
            return False
        is_new_time = self.at // _SECONDS_BETWEEN_LINES != last.at // _SECONDS_BETWEEN_LINES
        return is_new_time or (self.fraction == 1 and last.fraction < 1)

    def to_json(self) -> dict[str, Any]:
        """Return the progress as JSON, with the time as ISO 8601 in UTC."""
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        return {"fraction": self.fraction, "message": self.message, "at": at}


@dataclass(frozen=True, kw_only=True)
class Reported:
    """One report of a job, or all so far, cut to a size that Airflow can store.

    A report counts once even if the log is read twice. All processes and instances share the names of metrics: the
    value of one is the last by time, and its series has the points of all.

    :param progress: the last progress.
    :param series: the points of the first 100 metrics, by time: 500 in all, among them the first and the last of each.
    :param artifacts: the paths of artifacts; the first 100.
    :param assets: ``uri`` and ``extra`` of each asset; the first 20. The last report on an asset counts.
    """

    progress: Progress | None = None
    series: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    assets: tuple[Mapping[str, Any], ...] = ()

    @property
    def metrics(self) -> dict[str, float | None]:
        """The last value of each metric."""
        return {name: points[-1][2] for name, points in self.series.items()}

    def folded(self, reports: Sequence[Reported]) -> Reported:
        """Return the state after more reports."""
        if not reports:
            return self
        everything = (self, *reports)
        series: dict[str, list[Point]] = {}
        assets: dict[str, Mapping[str, Any]] = {}
        for each in everything:
            assets |= {asset["uri"]: asset for asset in each.assets}
            for name, points in each.series.items():
                if name in series or len(series) < _MAX_METRICS:
                    series.setdefault(name, []).extend(points)
        return Reported(
            # Of several at one time the last counts.
            progress=max(
                (each.progress for each in reversed(everything) if each.progress is not None),
                key=lambda progress: progress.at,
                default=None,
            ),
            series=_thinned({name: sorted(dict.fromkeys(points), key=_time) for name, points in series.items()}),
            artifacts=tuple(dict.fromkeys(path for each in everything for path in each.artifacts))[:_MAX_ARTIFACTS],
            assets=tuple(assets.values())[:_MAX_ASSETS],
        )

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "progress": None if self.progress is None else self.progress.to_json(),
            "metrics": self.metrics,
            "series": {name: [list(point) for point in points] for name, points in self.series.items()},
            "artifacts": list(self.artifacts),
            "assets": [dict(asset) for asset in self.assets],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reported:
        """Read the state from JSON; parts that are missing or invalid count as not reported."""
        return cls(
            progress=_or_none(_progress_of, value.get("progress")),
            series=_or_none(_series_of, value.get("series")) or {},
            artifacts=_or_none(_artifacts_of, value.get("artifacts")) or (),
            assets=_or_none(_assets_of, value.get("assets")) or (),
        )


def take_reports(
    lines: Iterable[str], reported: Reported, now: float, mask: Callable[[str], str] = str
) -> tuple[list[str], Reported]:
    """Separate the reports from the other lines of a log.

    :param now: the time of reports without one.
    :param mask: stars secrets in texts, before these are cut.
    :returns: the lines for people, some of them for progress, and all reports so far.
    """
    readable_lines: list[str] = []
    reports: list[Reported] = []
    last, is_after_blank = reported.progress, False
    for line in lines:
        before, report, after = _split(line, now, mask)
        if report is None:
            readable_lines.append(line)
            is_after_blank = not line.strip()
            continue
        if is_after_blank and not before:
            # A report begins with a line feed, because another process may have written half a line.
            readable_lines.pop()
        is_after_blank = False
        readable_lines += filter(None, (before, after))
        reports.append(report)
        if report.progress is not None:
            if report.progress.is_worth_a_line(last):
                readable_lines.append(str(report.progress))
            last = report.progress
    return readable_lines, reported.folded(reports)


def without_reports(text: str) -> str:
    """Return a log for people: without reports, but with some lines of progress."""
    if MARK not in text:
        return text
    return "\n".join(take_reports(text.split("\n"), Reported(), 0.0)[0])


def _split(line: str, now: float, mask: Callable[[str], str]) -> tuple[str, Reported | None, str]:
    """Return the text before a report in a line, the report, and the text behind it."""
    # A report has no mark in it.
    before, mark, rest = line.rpartition(MARK)
    if not mark:
        return line, None, ""
    try:
        document, end = read_json_prefix(rest[:_MAX_CHARACTERS], "The report")
        with reading("The report"):
            report = _report_of(jsonb_safe(document), now, mask)
    except UnreadableError:
        # A line that only looks like a report stays in the log.
        return line, None, ""
    return "" if _is_prefix(before) else before, report, rest[end:].strip()


def _is_prefix(text: str) -> bool:
    """Return whether the text before a report is empty or Ray's prefix."""
    text = readable(text)
    return not text or (len(text) <= _MAX_PREFIX and _RAY_PREFIX.fullmatch(text) is not None)


def _report_of(document: Mapping[str, Any], now: float, mask: Callable[[str], str]) -> Reported:
    if "end" in document:
        # The launcher's last line, which has no news.
        return Reported()
    at = _moment(now if document.get("at") is None else document["at"])
    if "progress" in document:
        message = _text(document.get("message") or "", _MAX_MESSAGE, mask)
        return Reported(progress=_progress(document["progress"], message, at))
    if "metrics" in document:
        points = {name: [(at, document.get("step"), value)] for name, value in document["metrics"].items()}
        return Reported(series=_series_of(points, mask))
    if "artifact" in document:
        return Reported(artifacts=_artifacts_of([document["artifact"]]))
    return Reported(assets=_assets_of([{"uri": document["asset"], "extra": document.get("extra") or {}}]))


def _progress(fraction: Any, message: Any, at: float) -> Progress:
    return Progress(min(max(_number(fraction), 0.0), 1.0), _text(message, _MAX_MESSAGE), at)


def _progress_of(value: Mapping[str, Any]) -> Progress:
    at = datetime.fromisoformat(value["at"]).timestamp()
    return _progress(value["fraction"], value["message"], at)


def _series_of(value: Mapping[str, Any], mask: Callable[[str], str] = str) -> Mapping[str, Sequence[Point]]:
    named = list(value.items())[:_MAX_METRICS]
    return _thinned({_name(name, mask): sorted(map(_point, points), key=_time) for name, points in named if points})


def _point(value: Sequence[Any]) -> Point:
    at, step, number = value
    return _moment(at), None if step is None else _number(step), _measure(number)


def _artifacts_of(value: Iterable[Any]) -> tuple[str, ...]:
    return tuple(map(_path, value))[:_MAX_ARTIFACTS]


def _assets_of(value: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple(_asset(asset["uri"], asset["extra"]) for asset in value)[:_MAX_ASSETS]


def _or_none(read: Any, value: Any) -> Any:
    try:
        with reading("The report"):
            return None if value is None else read(jsonb_safe(value))
    except UnreadableError:
        return None


def _number(value: Any) -> float:
    number = _measure(value)
    if number is None:
        raise ValueError
    return number


def _measure(value: Any) -> float | None:
    """Read a metric; ``None`` for numbers that Airflow's database doesn't take."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    # JavaScript reads a larger integer as a float as well.
    number = value if abs(value) <= _EXACT else float(value)
    return number if fits(number) else None


def _moment(value: Any) -> float:
    # The precision of the written time.
    at = round(_number(value), 3)
    # Raises an error for a time that no calendar has.
    datetime.fromtimestamp(at, UTC)
    return at


def _text(value: Any, limit: int, mask: Callable[[str], str] = str) -> str:
    if not isinstance(value, str):
        raise TypeError
    return mask(readable(value))[:limit]


def _name(value: Any, mask: Callable[[str], str] = str) -> str:
    name = _text(value, _MAX_NAME, mask)
    # Airflow's serialization reserves keys that begin with two underscores.
    if not name or name.startswith("__"):
        raise ValueError
    return name


def _path(value: Any) -> str:
    path = PurePosixPath(_place(value))
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError
    return str(path)


def _place(value: Any) -> str:
    place = _text(value, _MAX_PLACE)
    # A path or URI that was cut is another one.
    if not place or place != value:
        raise ValueError
    return place


def _asset(uri: Any, extra: Any) -> dict[str, Any]:
    if not isinstance(extra, dict) or not _is_plain(extra, _MAX_DEPTH):
        raise TypeError
    return {"uri": _place(uri), "extra": extra}


def _is_plain(value: Any, levels: int) -> bool:
    """Return whether JSON is not too deep, and has no keys or numbers that Airflow reads otherwise."""
    if not isinstance(value, dict | list):
        return not isinstance(value, int | float) or fits(value)
    inner = value.values() if isinstance(value, dict) else value
    is_free = isinstance(value, list) or not any(key.startswith("__") for key in value)
    return levels > 0 and is_free and all(_is_plain(item, levels - 1) for item in inner)


def _time(point: Point) -> float:
    return point[0]


def _thinned(series: Mapping[str, Sequence[Point]]) -> Mapping[str, Sequence[Point]]:
    """Drop points of the longest series until the limit for all is met."""
    remaining = _MAX_POINTS
    thinned: dict[str, Sequence[Point]] = {}
    for count, (name, points) in enumerate(sorted(series.items(), key=lambda each: len(each[1]))):
        share = remaining // (len(series) - count)
        thinned[name] = points if len(points) <= share else _spread(points, share)
        remaining -= len(thinned[name])
    return {name: thinned[name] for name in series}


def _spread(points: Sequence[Point], limit: int) -> Sequence[Point]:
    """Return at most ``limit`` points, evenly in time: the first of each part of it, and the last of all."""
    start, end = points[0][0], points[-1][0]
    width = (end - start) / (limit - 1) or 1.0
    # Reversed, so that the first point of a part replaces the others.
    parts = {int((point[0] - start) / width): point for point in reversed(points[:-1])}
    return [*sorted((point for part, point in parts.items() if part < limit - 1), key=_time), points[-1]]
