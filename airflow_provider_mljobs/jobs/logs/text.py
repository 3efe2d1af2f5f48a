"""A job's log as text: the payload's own output, its tail, and blocks for a task's log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_provider_mljobs.launcher.contract import BANNER, TITLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_STARTED = f"{BANNER}\n{TITLES[0]}\n{BANNER}\n"
_FINISHED = f"{BANNER}\n{TITLES[1]}\n{BANNER}"
# One record a line would cost Airflow as much as the job; one record for all may be too large for a log store.
_BLOCK_BYTES = 64 * 1024
_TAIL_BYTES = 8 * 1024
# Colours, cursor movements, titles of windows: ECMA-48's control sequences, strings and single escapes.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*(?:[@-~]|$)|[P^_X\]].*?(?:\x07|\x1b\\|$)|[ -/]*[0-~])")
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x80-\x9f]")
# Commands to a terminal, also those that reorder letters; and halves of characters, which can't be encoded. Line feeds
# and tabs may stay.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def readable(line: str) -> str:
    """Return a line as a terminal finally shows it: without colours, and of a progress bar its last state."""
    plain = _ESCAPES.sub("", line)
    drawn = [part for part in plain.split("\r") if part.strip()]
    return _CONTROLS.sub("", drawn[-1] if drawn else "").rstrip()


def printable(text: str) -> str:
    r"""Return a text for a terminal, with commands to it written out as ``\u001b``, which is the same in JSON."""
    return _COMMANDS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def between_banners(log: str) -> str:
    """Return the payload's own output: the lines between the first start banner and the last end banner."""
    _, started, rest = log.partition(_STARTED)
    text = rest if started else log
    head, finished, _ = text.rpartition(_FINISHED)
    return (head if finished else text).strip("\n")


def without_banners(log: str) -> str:
    """Return a log without the lines that the launcher puts around the output."""
    return f"{log}\n".replace(_STARTED, "").replace(f"{_FINISHED}\n", "").strip("\n")


def tail(log: str) -> str:
    """Return the last whole lines of a log, at most 8 KB."""
    if len(log.encode()) <= _TAIL_BYTES:
        return log
    cut = log.encode()[-_TAIL_BYTES:].decode(errors="ignore")
    return cut.partition("\n")[2] or cut


def blocks(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines in blocks of at most 64 KB; a longer line is cut into several."""
    block: list[str] = []
    size = 0
    for line in lines:
        for part in _parts(line):
            length = len(part.encode(errors="replace")) + 1
            if block and size + length > _BLOCK_BYTES:
                yield "\n".join(block)
                block, size = [], 0
            block.append(part)
            size += length
    if block:
        yield "\n".join(block)


def _parts(line: str) -> Iterator[str]:
    # A character has up to four bytes.
    if len(line) * 4 < _BLOCK_BYTES:
        yield line
        return
    content = line.encode(errors="replace")
    while content:
        part = content[: _BLOCK_BYTES - 1].decode(errors="ignore")
        yield part
        content = content[len(part.encode()) :]
