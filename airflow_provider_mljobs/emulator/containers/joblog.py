"""The output of one container: a file that survives the server, in the format of Kubernetes' container logs.

A record is a line ``<timestamp> <stream> <F|P> <text>``: F ends a line of the program's output, P is a part of one.
As on a node, each record has its own time, and a long line is split into parts of 16 KiB.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

Stream = Literal["stdout", "stderr"]

# The longest record of containerd; a longer line is cut into several.
LONGEST_RECORD = 16 * 1024
_BLOCK = 64 * 1024
# The least distance of two records in nanoseconds: readers with microseconds must see their order.
_APART = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NANOSECONDS = re.compile(r"\.\d{6}(\d{1,3})")
_STAMP_LENGTH = len("2026-01-02T03:04:05.678901234Z ")
_log = logging.getLogger(__name__)


def nanoseconds(moment: str | datetime) -> int:
    """Return a time in nanoseconds since the epoch, in UTC unless it has a zone.

    :param moment: a time, or its ISO 8601 form with up to nine digits behind the point; raises :class:`ValueError` for
        other texts.
    """
    beyond = None
    if isinstance(moment, str):
        # datetime drops these digits.
        beyond = _NANOSECONDS.search(moment)
        moment = datetime.fromisoformat(moment)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND * 1000 + (int(beyond[1].ljust(3, "0")) if beyond else 0)


def stamp(at: int) -> str:
    """Write a time as Snowflake does in logs: in UTC, to the nanosecond."""
    seconds, rest = divmod(at, 1_000_000_000)
    return f"{_second(seconds)}.{rest:09d}Z"


@lru_cache(64)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class LogLine(NamedTuple):
    """A line that a container wrote.

    :param at: when it was logged, in nanoseconds since the epoch; of a line in parts, when the first one was.
    :param stream: the stream that it was written to.
    :param line: its text, without the line feed that ended it.
    """

    at: int
    stream: Stream
    line: str

    @property
    def stamped(self) -> str:
        """The line with its time before it."""
        return f"{stamp(self.at)} {self.line}"


class _Record(NamedTuple):
    at: int
    stream: Stream
    ended: bool
    text: bytes


def _parse(line: bytes) -> _Record | None:
    try:
        at, stream, tag, text = line.split(b" ", 3)
        moment = nanoseconds(at.decode())
    except ValueError:
        # Cut off by a crash of the machine.
        return None
    return _Record(moment, cast("Stream", stream.decode(errors="replace")), tag == b"F", text)


def _joined(records: Iterable[_Record]) -> Iterator[tuple[LogLine, bool]]:
    """Join the parts of lines; the two streams may alternate within a line."""
    parts: dict[Stream, list[_Record]] = {}
    for record in records:
        parts.setdefault(record.stream, []).append(record)
        if record.ended:
            yield _line(parts.pop(record.stream)), True
    for part in parts.values():
        yield _line(part), False


def _line(parts: list[_Record]) -> LogLine:
    text = b"".join(part.text for part in parts)
    return LogLine(parts[0].at, parts[0].stream, text.decode(errors="replace"))


class JobLog:
    """The log of one container of one instance.

    One writer at a time, any number of readers. At the limit the older half is deleted, as on a real node.

    :param path: the file; the older half of the log is in ``<path>.1``.
    :param limit: the limit of both files together, in bytes.
    :param clock: returns the time in nanoseconds since the epoch.
    """

    def __init__(self, path: Path, *, limit: int = 64 * 1024 * 1024, clock: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._clock = clock
        self._latest = 0
        self._older = path.with_name(path.name + ".1")
        self._limit = limit // 2
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._size = 0

    def append(self, text: str | bytes, stream: Stream = "stdout") -> None:
        """Append output of a program: any number of lines, the last one possibly incomplete.

        :param text: the output; it continues the last line of this stream.
        :param stream: the stream that it was written to.
        """
        if not text:
            return
        data = text.encode(errors="replace") if isinstance(text, str) else text
        with self._lock:
            try:
                self._write(data, stream)
            except OSError as error:
                # A full disk must stop neither the job nor the thread that empties its pipes.
                _log.warning("Could not write %d bytes to the job log %s: %s", len(data), self._path, error)

    def close(self) -> None:
        """Close the file; reading still works, and appending reopens it."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def records(self, since: int | None = None) -> Iterator[LogLine]:
        """Iterate over the lines, oldest first; a last line without an end is included.

        :param since: only lines logged at this time or later.
        """
        records = self._forwards() if since is None else reversed(list(self._until(since)))
        for line, _ in _joined(records):
            yield line

    def tail(
        self,
        lines: int | None = None,
        max_bytes: int | None = None,
        *,
        since: int | None = None,
        timestamps: bool = False,
    ) -> str:
        """Return the end of the output without reading the rest.

        :param lines: at most so many lines.
        :param max_bytes: at most so many bytes, counted in UTF-8; the first line may be cut.
        :param since: only lines logged at this time or later.
        :param timestamps: whether to put the time before each line.
        """
        records: list[_Record] = []
        size = ended = 0
        for record in self._until(since):
            records.append(record)
            size += len(record.text) + (1 + timestamps * _STAMP_LENGTH) * record.ended
            ended += record.ended
            if (lines is not None and ended > lines) or (max_bytes is not None and size > max_bytes):
                break
        ending = list(_joined(reversed(records)))
        if lines is not None:
            ending = ending[max(0, len(ending) - max(0, lines)) :]
        return clipped(
            "".join((line.stamped if timestamps else line.line) + "\n" * done for line, done in ending), max_bytes
        )

    def _write(self, data: bytes, stream: Stream) -> None:
        if self._file is None:
            self._open()
        content = b"".join(self._records_of(data, stream.encode()))
        if self._size and self._size + len(content) > self._limit:
            if self._file is not None:
                self._file.close()
            self._path.replace(self._older)
            self._open()
        view = memoryview(content)
        while view and self._file is not None:
            written = self._file.write(view)
            self._size += written
            view = view[written:]

    def _records_of(self, data: bytes, stream: bytes) -> Iterator[bytes]:
        *lines, rest = data.split(b"\n")
        for whole in lines:
            # A carriage return is part of the line's end, as for containerd.
            line = whole.removesuffix(b"\r")
            while len(line) > LONGEST_RECORD:
                yield self._record(stream, b"P", line[:LONGEST_RECORD])
                line = line[LONGEST_RECORD:]
            yield self._record(stream, b"F", line)
        for start in range(0, len(rest), LONGEST_RECORD):
            yield self._record(stream, b"P", rest[start : start + LONGEST_RECORD])

    def _record(self, stream: bytes, tag: bytes, text: bytes) -> bytes:
        self._latest = max(self._clock(), self._latest + _APART)
        return b"%b %b %b %b\n" % (stamp(self._latest).encode(), stream, tag, text)

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = cast("BinaryIO", self._path.open("ab+", buffering=0))
        self._size = self._file.seek(0, os.SEEK_END)
        self._drop_torn_record(self._file)
        latest = next(filter(None, map(_parse, _lines_backwards(self._file, self._size))), None)
        if latest is not None:
            self._latest = max(self._latest, latest.at)

    def _drop_torn_record(self, file: BinaryIO) -> None:
        """Cut off an incomplete record, which would merge with the next one."""
        while self._size:
            start = max(0, self._size - _BLOCK)
            file.seek(start)
            end = file.read(self._size - start).rfind(b"\n")
            if end == self._size - start - 1:
                return
            self._size = start + end + 1
            file.truncate(self._size)

    def _snapshot(self, stack: ExitStack) -> list[tuple[BinaryIO, int]]:
        """Open the files, oldest first, with the size to read; rotation renames files, so open ones stay complete."""
        opened: list[tuple[BinaryIO, int]] = []
        with self._lock:
            for path in (self._older, self._path):
                try:
                    file = stack.enter_context(path.open("rb"))
                except FileNotFoundError:
                    continue
                opened.append((file, os.fstat(file.fileno()).st_size))
        return opened

    def _forwards(self) -> Iterator[_Record]:
        with ExitStack() as stack:
            for file, size in self._snapshot(stack):
                while file.tell() < size:
                    line = file.readline()
                    record = _parse(line[:-1]) if line.endswith(b"\n") else None
                    if record is not None:
                        yield record

    def _backwards(self) -> Iterator[_Record]:
        with ExitStack() as stack:
            for file, size in reversed(self._snapshot(stack)):
                for line in _lines_backwards(file, size):
                    record = _parse(line)
                    if record is not None:
                        yield record

    def _until(self, since: int | None) -> Iterator[_Record]:
        """Iterate over the records, latest first, back to a time."""
        for record in self._backwards():
            if since is not None and record.at < since:
                return
            yield record


def clipped(text: str, most: int | None) -> str:
    """Return the end of a text.

    :param most: at most so many bytes, counted in UTF-8.
    """
    data = text.encode(errors="replace")
    return text if most is None or len(data) <= most else data[len(data) - most :].decode(errors="ignore")


def _lines_backwards(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Iterate over the complete lines, last one first."""
    rest: list[bytes] = []  # the beginning of a line that an earlier block ends, last part first
    torn = True
    while size:
        start = max(0, size - _BLOCK)
        file.seek(start)
        first, *others = file.read(size - start).split(b"\n")
        size = start
        if others:
            rest.insert(0, others.pop())
            if not torn:
                yield b"".join(rest)
            torn = False
            yield from reversed(others)
            rest = []
        rest.insert(0, first)
    if rest and not torn:
        yield b"".join(rest)
