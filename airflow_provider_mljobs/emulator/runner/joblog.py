"""The output of one container: a file that survives the server, in the format of Kubernetes' container logs.

A record is a line ``<timestamp> <stream> <F|P> <text>``: F ends a line of the program's output, P is a part of one.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Stream = Literal["stdout", "stderr"]

_BLOCK = 256 * 1024
_log = logging.getLogger(__name__)


class LogLine(NamedTuple):
    """A line that a container wrote.

    :param at: when the server received its first part.
    :param stream: where it was written to.
    :param line: its text, without the line feed that ended it.
    """

    at: datetime
    stream: Stream
    line: str

    @property
    def stamped(self) -> str:
        """The line behind its time, as Snowflake writes it: in UTC, to the nanosecond."""
        return f"{self.at:%Y-%m-%dT%H:%M:%S.%f}000Z {self.line}"


class _Record(NamedTuple):
    at: datetime
    stream: Stream
    ended: bool
    text: str


def _parse(line: bytes) -> _Record | None:
    try:
        at, stream, tag, text = line.split(b" ", 3)
        moment = datetime.fromisoformat(at.decode())
    except ValueError:
        # Torn by a crash of the machine.
        return None
    return _Record(moment, cast("Stream", stream.decode(errors="replace")), tag == b"F", text.decode(errors="replace"))


def _joined(records: Iterable[_Record]) -> Iterator[tuple[LogLine, bool]]:
    """Put parts of lines together; streams may take turns in the middle of a line."""
    parts: dict[str, LogLine] = {}
    for record in records:
        part = parts.pop(record.stream, None)
        line = LogLine(record.at, record.stream, record.text)
        if part is not None:
            line = part._replace(line=part.line + record.text)
        if record.ended:
            yield line, True
        else:
            parts[record.stream] = line
    for line in parts.values():
        yield line, False


class JobLog:
    """The log of one container of one instance.

    One writer at a time, any number of readers. When the limit is reached the oldest half goes, as on a real node.

    :param path: the file; what was logged before goes to ``<path>.1``.
    :param limit: bytes that both may take together.
    """

    def __init__(self, path: Path, *, limit: int = 64 * 1024 * 1024) -> None:
        self._path = path
        self._older = path.with_name(path.name + ".1")
        self._limit = limit // 2
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._size = 0

    def append(self, text: str, stream: Stream = "stdout", at: datetime | None = None) -> None:
        """Add what a program wrote: any number of lines, the last one perhaps without its end.

        :param text: the output; it goes on where the last call for this stream ended.
        :param stream: where it was written to.
        :param at: when; now, if not given.
        """
        if not text:
            return
        moment = (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        full, part = f"\n{moment} {stream} F ", f"\n{moment} {stream} P "
        *lines, rest = text.split("\n")
        content = "".join(full + line for line in lines) + (part + rest if rest else "")
        data = (content[1:] + "\n").encode(errors="replace")
        with self._lock:
            try:
                self._write(data)
            except OSError as error:
                # A full disk must stop neither the job nor the thread that empties its pipes.
                _log.warning("Lost %d bytes of the job log %s: %s", len(data), self._path, error)

    def close(self) -> None:
        """Close the file; it stays readable, and appending opens it again."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def records(self) -> Iterator[LogLine]:
        """Iterate over all lines, oldest first; a last line without an end is included."""
        for line, _ in _joined(self._forwards()):
            yield line

    def tail(self, lines: int | None = None, max_bytes: int | None = None, *, timestamps: bool = False) -> str:
        """Return the end of the output.

        :param lines: at most so many lines.
        :param max_bytes: at most so many bytes, counted in UTF-8; the first line may be cut.
        :param timestamps: whether to put the time before each line.
        """
        records: list[_Record] = []
        size = ended = 0
        for record in self._backwards():
            records.append(record)
            size += len(record.text) + 1
            ended += record.ended
            if (lines is not None and ended > lines) or (max_bytes is not None and size > max_bytes):
                break
        found = list(_joined(reversed(records)))
        if lines is not None:
            found = found[len(found) - lines :] if 0 < lines < len(found) else found[: len(found) * (lines > 0)]
        text = "".join((line.stamped if timestamps else line.line) + "\n" * done for line, done in found)
        if max_bytes is None:
            return text
        data = text.encode(errors="replace")
        return data[max(0, len(data) - max_bytes) :].decode(errors="ignore")

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._open()
        if self._size and self._size + len(data) > self._limit:
            if self._file is not None:
                self._file.close()
            self._path.replace(self._older)
            self._open()
        view = memoryview(data)
        while view and self._file is not None:
            written = self._file.write(view)
            self._size += written
            view = view[written:]

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = cast("BinaryIO", self._path.open("ab+", buffering=0))
        self._size = self._file.seek(0, os.SEEK_END)
        self._drop_torn_record(self._file)

    def _drop_torn_record(self, file: BinaryIO) -> None:
        """Cut a record without an end, which would swallow the next one."""
        while self._size:
            start = max(0, self._size - _BLOCK)
            file.seek(start)
            end = file.read(self._size - start).rfind(b"\n")
            if end == self._size - start - 1:
                return
            self._size = start + end + 1
            file.truncate(self._size)

    def _snapshot(self, stack: ExitStack) -> list[tuple[BinaryIO, int]]:
        """Open what there is, oldest first, with the size to read; rotation renames, so open files stay complete."""
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


def _lines_backwards(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Iterate over the lines that have an end, last one first."""
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
