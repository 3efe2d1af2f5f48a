"""Reports of a running job: read from its log, and folded into a state of bounded size.

A report is a line with a mark and a JSON object; ``airflow_provider_mljobs.report`` prints it in the job. Any line of
the log may look like one, so nothing in a line is trusted to be short, flat, finite or of the right type.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
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
    """The progress of a job.

    :param fraction: from 0 to 1.
    :param message: the job's words on it.
    :param at: the time of the report, in seconds since the epoch.
    """

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


@dataclass(frozen=True)
class Metrics:
    """Metrics of a job.

    :param values: by name; ``None`` for NaN, infinities and numbers of more than 64 bits.
    :param at: the time of the report, in seconds since the epoch.
    :param step: the epoch, round or batch of the values.
    """

    values: Mapping[str, float | None]
    at: float
    step: float | None = None


@dataclass(frozen=True)
class Artifact:
    """A file or directory that a job saved.

    :param path: its path below ``$MLRS_STAGE_RESULT_PATH``.
    """

    path: str


@dataclass(frozen=True)
class Asset:
    """An asset that a job creates or changes elsewhere.

    :param uri: its URI.
    :param extra: facts about it; JSON.
    """

    uri: str
    extra: Mapping[str, Any]


Report = Progress | Metrics | Artifact | Asset


@dataclass(frozen=True, kw_only=True)
class Reported:
    """All reports of a job so far, cut to a size that Airflow can store.

    A report counts once even if the log is read twice. All processes and instances share the names of metrics: the
    value of one is the last by time, and its series has the points of all.

    :param progress: the last progress.
    :param metrics: the last value of each metric; the first 100 names.
    :param series: the points of each metric, by time: 500 in all, among them the first and the last of each.
    :param artifacts: the paths of artifacts; the first 100.
    :param assets: ``uri`` and ``extra`` of each asset; the first 20. The last report on an asset counts.
    """

    progress: Progress | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    series: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    assets: tuple[Mapping[str, Any], ...] = ()

    def folded(self, reports: Sequence[Report]) -> Reported:
        """Return the state after more reports."""
        if not reports:
            return self
        progress = [each for each in reports if isinstance(each, Progress)]
        earlier = [] if self.progress is None else [self.progress]
        paths = dict.fromkeys((*self.artifacts, *(each.path for each in reports if isinstance(each, Artifact))))
        assets = {str(asset["uri"]): dict(asset["extra"]) for asset in self.assets}
        assets |= {each.uri: dict(each.extra) for each in reports if isinstance(each, Asset)}
        reported = replace(
            self,
            # Of several at one time the last counts.
            progress=max((*reversed(progress), *earlier), key=lambda each: each.at, default=None),
            artifacts=tuple(paths)[:_MAX_ARTIFACTS],
            assets=tuple({"uri": uri, "extra": extra} for uri, extra in assets.items())[:_MAX_ASSETS],
        )
        measured = [each for each in reports if isinstance(each, Metrics)]
        return reported._measured(measured) if measured else reported  # noqa: SLF001 (a copy of this object)

    def _measured(self, reports: Iterable[Metrics]) -> Reported:
        metrics = dict(self.metrics)
        series = {name: list(points) for name, points in self.series.items()}
        for report in reports:
            for name, value in report.values.items():
                if name not in metrics and len(metrics) >= _MAX_METRICS:
                    continue
                points = series.setdefault(name, [])
                if not points or report.at >= points[-1][0]:
                    metrics[name] = value
                points.append((report.at, report.step, value))
        ordered = {name: sorted(dict.fromkeys(points), key=_time) for name, points in series.items()}
        return replace(self, metrics=metrics, series=_thinned(ordered))

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "progress": None if self.progress is None else self.progress.to_json(),
            "metrics": dict(self.metrics),
            "series": {name: [list(point) for point in points] for name, points in self.series.items()},
            "artifacts": list(self.artifacts),
            "assets": [dict(asset) for asset in self.assets],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reported:
        """Read the state from JSON; parts that are missing or invalid count as not reported."""
        return cls(
            progress=_or_none(_progress_of, value.get("progress")),
            metrics=_or_none(_values_of, value.get("metrics")) or {},
            series=_or_none(_series_of, value.get("series")) or {},
            artifacts=tuple(_or_none(_paths_of, value.get("artifacts")) or ()),
            assets=tuple(_or_none(_assets_of, value.get("assets")) or ()),
        )


def take_reports(
    lines: Iterable[str], reported: Reported, now: float, mask: Callable[[str], str] = str
) -> tuple[list[str], Reported]:
    """Separate the reports from the other lines of a log.

    :param lines: whole lines, as the container printed them.
    :param reported: the reports so far.
    :param now: the time of reports without one.
    :param mask: stars secrets in texts, before these are cut.
    :returns: the lines for people, some of them for progress, and all reports so far.
    """
    readable_lines: list[str] = []
    reports: list[Report] = []
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
        if isinstance(report, Progress):
            if report.is_worth_a_line(last):
                readable_lines.append(str(report))
            last = report
    return readable_lines, reported.folded(reports)


def without_reports(text: str) -> str:
    """Return a log for people: without reports, but with some lines of progress."""
    if MARK not in text:
        return text
    return "\n".join(take_reports(text.split("\n"), Reported(), 0.0)[0])


def _split(line: str, now: float, mask: Callable[[str], str]) -> tuple[str, Report | None, str]:
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


def _report_of(document: Mapping[str, Any], now: float, mask: Callable[[str], str]) -> Report:
    at = _moment(now if document.get("at") is None else document["at"])
    if "progress" in document:
        return _progress(document["progress"], _text(document.get("message") or "", _MAX_MESSAGE, mask), at)
    if "metrics" in document:
        step = document.get("step")
        return Metrics(_values_of(document["metrics"], mask), at, None if step is None else _number(step))
    if "artifact" in document:
        return Artifact(_path(document["artifact"]))
    return _asset(document["asset"], document.get("extra") or {})


def _progress(fraction: Any, message: Any, at: float) -> Progress:
    return Progress(min(max(_number(fraction), 0.0), 1.0), _text(message, _MAX_MESSAGE), at)


def _progress_of(value: Mapping[str, Any]) -> Progress:
    at = datetime.fromisoformat(value["at"]).timestamp()
    return _progress(value["fraction"], value["message"], at)


def _values_of(values: Mapping[str, Any], mask: Callable[[str], str] = str) -> dict[str, float | None]:
    named = list(values.items())[:_MAX_METRICS]
    return {_name(name, mask): _measure(value) for name, value in named}


def _series_of(value: Mapping[str, Any]) -> Mapping[str, Sequence[Point]]:
    return _thinned({_name(name): sorted(map(_point, points), key=_time) for name, points in value.items()})


def _point(value: Sequence[Any]) -> Point:
    at, step, number = value
    return _moment(at), None if step is None else _number(step), _measure(number)


def _paths_of(value: Iterable[Any]) -> list[str]:
    return [_path(path) for path in value][:_MAX_ARTIFACTS]


def _assets_of(value: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    assets = [_asset(asset["uri"], asset["extra"]) for asset in value]
    return [{"uri": asset.uri, "extra": dict(asset.extra)} for asset in assets][:_MAX_ASSETS]


def _or_none(read: Any, value: Any) -> Any:
    try:
        with reading("The report"):
            return None if value is None else read(jsonb_safe(value))
    except UnreadableError:
        return None


def _number(value: Any) -> float:
    number = _finite(value)
    if not fits(number):
        raise ValueError
    return number


def _measure(value: Any) -> float | None:
    """Read a metric; ``None`` for numbers that Airflow's database doesn't take."""
    number = None if value is None else _finite(value)
    return None if number is None or not fits(number) else number


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    # JavaScript reads a larger integer as a float as well.
    number = value if abs(value) <= _EXACT else float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


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


def _asset(uri: Any, extra: Any) -> Asset:
    if not isinstance(extra, dict) or not _is_plain(extra, _MAX_DEPTH):
        raise TypeError
    return Asset(_place(uri), extra)


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
