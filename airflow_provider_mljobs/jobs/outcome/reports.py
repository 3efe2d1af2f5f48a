"""What a job reports while it runs: found in its log, and kept in a state that doesn't grow.

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

# The time, the step and the value of a metric; no value if it was no number (NaN), infinite, or of more than
# 64 bits.
Point = tuple[float, float | None, float | None]

# A pipe takes less than this at once, so the job prints no longer ones.
_MOST_CHARACTERS = 4096
_MOST_POINTS = 500
_MOST_METRICS = 100
_MOST_ARTIFACTS = 100
_MOST_ASSETS = 20
_MESSAGE_CHARACTERS, _NAME_CHARACTERS, _PLACE_CHARACTERS = 200, 100, 1000
_DEEPEST = 8
# A job that reports a hundred times a second has one line in this time.
_SECONDS_BETWEEN_LINES = 10
_EXACT = 2**53
# What Ray puts before each line of a worker. Its pattern takes the square of a text's length.
_RAY_PREFIX, _PREFIX_CHARACTERS = re.compile(r"\([^()]*\bpid=\d+[^()]*\)"), 300


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    :param fraction: from 0 to 1.
    :param message: what it says about that.
    :param at: when it said so, in seconds since the epoch.
    """

    fraction: float
    message: str
    at: float

    def __str__(self) -> str:
        # Not rounded up: 100 % is the end.
        percent = f"progress {math.floor(self.fraction * 100 + 1e-9)} %"
        return f"{percent}: {self.message}" if self.message else percent

    def is_worth_a_line(self, last: Progress | None) -> bool:
        """Tell whether people want to read it in the log, after the one before."""
        if last is None:
            return True
        if self.at < last.at or str(self) == str(last):
            return False
        is_new_time = self.at // _SECONDS_BETWEEN_LINES != last.at // _SECONDS_BETWEEN_LINES
        return is_new_time or (self.fraction == 1 and last.fraction < 1)

    def to_json(self) -> dict[str, Any]:
        """Write it as JSON; the time as ISO 8601 in UTC."""
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        return {"fraction": self.fraction, "message": self.message, "at": at}


@dataclass(frozen=True)
class Metrics:
    """Numbers that a job reports.

    :param values: by name; ``None`` for what is no number (NaN), infinite, or larger than 64 bits.
    :param at: when it did, in seconds since the epoch.
    :param step: of what they are.
    """

    values: Mapping[str, float | None]
    at: float
    step: float | None = None


@dataclass(frozen=True)
class Artifact:
    """A file or directory that a job has saved.

    :param path: its path below ``$MLRS_STAGE_RESULT_PATH``.
    """

    path: str


@dataclass(frozen=True)
class Asset:
    """What a job has made or changed elsewhere.

    :param uri: what it is called.
    :param extra: what there is to say about it; JSON.
    """

    uri: str
    extra: Mapping[str, Any]


Report = Progress | Metrics | Artifact | Asset


@dataclass(frozen=True, kw_only=True)
class Reported:
    """All that a job has reported so far, cut down to what Airflow can keep.

    The same report twice is the same as once, so a log may be read again. Whichever process or instance of the job
    reports a metric: it is one metric, its value is the last one by time, and its series has the points of all.

    :param progress: how far it is, by the last report.
    :param metrics: the last value of each metric; the first 100 names.
    :param series: the points of each, by time: 500 in all, the first and the last one of each among them.
    :param artifacts: the paths that it has saved; the first 100.
    :param assets: ``uri`` and ``extra`` of each asset; the first 20. The last report on an asset counts.
    """

    progress: Progress | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    series: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    assets: tuple[Mapping[str, Any], ...] = ()

    def folded(self, reports: Sequence[Report]) -> Reported:
        """Take note of reports."""
        if not reports:
            return self
        progress = [each for each in reports if isinstance(each, Progress)]
        known = [] if self.progress is None else [self.progress]
        paths = dict.fromkeys((*self.artifacts, *(each.path for each in reports if isinstance(each, Artifact))))
        assets = {str(asset["uri"]): dict(asset["extra"]) for asset in self.assets}
        assets |= {each.uri: dict(each.extra) for each in reports if isinstance(each, Asset)}
        found = replace(
            self,
            # Of several at one time the last one.
            progress=max((*reversed(progress), *known), key=lambda each: each.at, default=None),
            artifacts=tuple(paths)[:_MOST_ARTIFACTS],
            assets=tuple({"uri": uri, "extra": extra} for uri, extra in assets.items())[:_MOST_ASSETS],
        )
        measured = [each for each in reports if isinstance(each, Metrics)]
        return found._measured(measured) if measured else found  # noqa: SLF001 (a copy of this very object)

    def _measured(self, reports: Iterable[Metrics]) -> Reported:
        metrics = dict(self.metrics)
        series = {name: list(points) for name, points in self.series.items()}
        for report in reports:
            for name, value in report.values.items():
                if name not in metrics and len(metrics) >= _MOST_METRICS:
                    continue
                points = series.setdefault(name, [])
                if not points or report.at >= points[-1][0]:
                    metrics[name] = value
                points.append((report.at, report.step, value))
        ordered = {name: sorted(dict.fromkeys(points), key=_time) for name, points in series.items()}
        return replace(self, metrics=metrics, series=_thinned(ordered))

    def to_json(self) -> dict[str, Any]:
        """Write it as JSON."""
        return {
            "progress": None if self.progress is None else self.progress.to_json(),
            "metrics": dict(self.metrics),
            "series": {name: [list(point) for point in points] for name, points in self.series.items()},
            "artifacts": list(self.artifacts),
            "assets": [dict(asset) for asset in self.assets],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reported:
        """Read it again; what isn't there, or is something else, counts as not reported."""
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
    """Take the reports out of lines of a log.

    :param lines: whole lines, as the container has printed them.
    :param reported: what is known already.
    :param now: the time of reports that have none.
    :param mask: stars secrets in texts, before these are cut.
    :returns: the lines as people read them, with a line for progress now and then; and what is known then.
    """
    shown: list[str] = []
    reports: list[Report] = []
    last, is_after_blank = reported.progress, False
    for line in lines:
        before, report, after = _split(line, now, mask)
        if report is None:
            shown.append(line)
            is_after_blank = not line.strip()
            continue
        if is_after_blank and not before:
            # The line feed that a report begins with, in case that somebody else's line is unfinished.
            shown.pop()
        is_after_blank = False
        shown += filter(None, (before, after))
        reports.append(report)
        if isinstance(report, Progress):
            if report.is_worth_a_line(last):
                shown.append(str(report))
            last = report
    return shown, reported.folded(reports)


def without_reports(text: str) -> str:
    """Return a log as people read it, with a line for progress now and then instead of the reports."""
    if MARK not in text:
        return text
    return "\n".join(take_reports(text.split("\n"), Reported(), 0.0)[0])


def _split(line: str, now: float, mask: Callable[[str], str]) -> tuple[str, Report | None, str]:
    """Return what stands before a report in a line, the report, and what stands behind it."""
    # A report has no mark in it.
    before, mark, rest = line.rpartition(MARK)
    if not mark:
        return line, None, ""
    try:
        document, end = read_json_prefix(rest[:_MOST_CHARACTERS], "The report")
        with reading("The report"):
            report = _report_of(jsonb_safe(document), now, mask)
    except UnreadableError:
        # Somebody has printed what looks like one; people may read it.
        return line, None, ""
    return "" if _is_prefix(before) else before, report, rest[end:].strip()


def _is_prefix(text: str) -> bool:
    """Tell whether nobody needs to read what stands before a report."""
    text = readable(text)
    return not text or (len(text) <= _PREFIX_CHARACTERS and _RAY_PREFIX.fullmatch(text) is not None)


def _report_of(document: Mapping[str, Any], now: float, mask: Callable[[str], str]) -> Report:
    at = _moment(now if document.get("at") is None else document["at"])
    if "progress" in document:
        return _progress(document["progress"], _text(document.get("message") or "", _MESSAGE_CHARACTERS, mask), at)
    if "metrics" in document:
        step = document.get("step")
        return Metrics(_values_of(document["metrics"], mask), at, None if step is None else _number(step))
    if "artifact" in document:
        return Artifact(_path(document["artifact"]))
    return _asset(document["asset"], document.get("extra") or {})


def _progress(fraction: Any, message: Any, at: float) -> Progress:
    return Progress(min(max(_number(fraction), 0.0), 1.0), _text(message, _MESSAGE_CHARACTERS), at)


def _progress_of(value: Mapping[str, Any]) -> Progress:
    at = datetime.fromisoformat(value["at"]).timestamp()
    return _progress(value["fraction"], value["message"], at)


def _values_of(values: Mapping[str, Any], mask: Callable[[str], str] = str) -> dict[str, float | None]:
    named = list(values.items())[:_MOST_METRICS]
    return {_name(name, mask): _measure(value) for name, value in named}


def _series_of(value: Mapping[str, Any]) -> Mapping[str, Sequence[Point]]:
    return _thinned({_name(name): sorted(map(_point, points), key=_time) for name, points in value.items()})


def _point(value: Sequence[Any]) -> Point:
    at, step, number = value
    return _moment(at), None if step is None else _number(step), _measure(number)


def _paths_of(value: Iterable[Any]) -> list[str]:
    return [_path(path) for path in value][:_MOST_ARTIFACTS]


def _assets_of(value: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = [_asset(asset["uri"], asset["extra"]) for asset in value]
    return [{"uri": asset.uri, "extra": dict(asset.extra)} for asset in found][:_MOST_ASSETS]


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
    """Read a metric. To Airflow's database a number of more than 64 bits is no more than an infinity is."""
    number = None if value is None else _finite(value)
    return None if number is None or not fits(number) else number


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    # What isn't exact in JavaScript isn't kept as if it were.
    number = value if abs(value) <= _EXACT else float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _moment(value: Any) -> float:
    # So exactly it is written, too.
    at = round(_number(value), 3)
    # Refuses what no calendar has.
    datetime.fromtimestamp(at, UTC)
    return at


def _text(value: Any, most: int, mask: Callable[[str], str] = str) -> str:
    if not isinstance(value, str):
        raise TypeError
    return mask(readable(value))[:most]


def _name(value: Any, mask: Callable[[str], str] = str) -> str:
    name = _text(value, _NAME_CHARACTERS, mask)
    # Airflow gives keys of its own a meaning that begin so.
    if not name or name.startswith("__"):
        raise ValueError
    return name


def _path(value: Any) -> str:
    path = PurePosixPath(_place(value))
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError
    return str(path)


def _place(value: Any) -> str:
    place = _text(value, _PLACE_CHARACTERS)
    # One that was cut is another one.
    if not place or place != value:
        raise ValueError
    return place


def _asset(uri: Any, extra: Any) -> Asset:
    if not isinstance(extra, dict) or not _is_plain(extra, _DEEPEST):
        raise TypeError
    return Asset(_place(uri), extra)


def _is_plain(value: Any, levels: int) -> bool:
    """Tell whether JSON is not too deep, and has no keys that mean something to Airflow."""
    if not isinstance(value, dict | list):
        return not isinstance(value, int | float) or fits(value)
    inner = value.values() if isinstance(value, dict) else value
    is_free = isinstance(value, list) or not any(key.startswith("__") for key in value)
    return levels > 0 and is_free and all(_is_plain(item, levels - 1) for item in inner)


def _time(point: Point) -> float:
    return point[0]


def _thinned(series: Mapping[str, Sequence[Point]]) -> Mapping[str, Sequence[Point]]:
    """Leave points away until there are few enough in all; metrics that have few keep theirs."""
    left = _MOST_POINTS
    kept: dict[str, Sequence[Point]] = {}
    for count, (name, points) in enumerate(sorted(series.items(), key=lambda each: len(each[1]))):
        most = left // (len(series) - count)
        kept[name] = points if len(points) <= most else _spread(points, most)
        left -= len(kept[name])
    return {name: kept[name] for name in series}


def _spread(points: Sequence[Point], most: int) -> Sequence[Point]:
    """Return at most so many points, evenly in time: the first one of each part of it, and the last one of all."""
    start, end = points[0][0], points[-1][0]
    width = (end - start) / (most - 1) or 1.0
    # What comes last wins, so the first one of a part comes last.
    parts = {int((point[0] - start) / width): point for point in reversed(points[:-1])}
    return [*sorted((point for part, point in parts.items() if part < most - 1), key=_time), points[-1]]
