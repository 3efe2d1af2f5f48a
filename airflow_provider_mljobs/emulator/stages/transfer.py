"""PUT and GET: the answer names files and directories, and the client, which shares our disk, copies them."""

from __future__ import annotations

import glob
import os
import re
import shutil
import time
import uuid
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.options import flag, parse_options
from airflow_provider_mljobs.emulator.parsing import Parser, parse_stage, unescape
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.stages.files import inside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.stages.store import Stages

_PUT = (
    Column("source"),
    Column("target"),
    Column("source_size", "fixed", precision=38, scale=0),
    Column("target_size", "fixed", precision=38, scale=0),
    Column("source_compression"),
    Column("target_compression"),
    Column("status"),
    Column("message"),
)
_GET = (Column("file"), Column("size", "fixed", precision=38, scale=0), Column("status"), Column("message"))
_PUT_OPTIONS = {"PARALLEL", "AUTO_COMPRESS", "SOURCE_COMPRESSION", "OVERWRITE"}
_GET_OPTIONS = {"PARALLEL", "PATTERN"}
_MOST_PARALLEL = 99
_UPLOAD_TAKES_AT_MOST = 24 * 3600.0
# A file URL without quotes, cut out before the rest is parsed, because its `//` and `/*` would start comments.
_BARE_URL = re.compile(r"\s+(file://[^\s;]+)", re.IGNORECASE)
_QUOTED_URL = re.compile(r"\s+('(?:[^'\\]|\\.|'')*')", re.DOTALL)
_PLAIN_STAGE = re.compile(r"""\s*(@(?:"(?:[^"]|"")*"|[^\s'"(),;])+)""")


def _local(url: str) -> str:
    """Return the path of a file URL; the name of a stream stays as it is."""
    return url[len("file://") :] if url.lower().startswith("file://") else url


def _url(text: str, position: int) -> tuple[str, int]:
    """Return the local path at a position, and its end."""
    match = _QUOTED_URL.match(text, position)
    if match:
        return _local(unescape(match[1])), match.end()
    match = _BARE_URL.match(text, position)
    if match:
        return _local(match[1]), match.end()
    raise Parser(text[position:]).error()


def _location(directory: str) -> dict[str, object]:
    return {"locationType": "LOCAL_FS", "location": directory, "creds": {}}


class Transfers:
    """PUT and GET.

    :param stages: the stages of the account.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages

    @property
    def extension(self) -> Extension:
        """The statements."""
        return Extension(
            statements=(
                Statement(
                    ("PUT",),
                    self.put,
                    _PUT,
                    "PUT { 'file://<path>' | file://<path> } @<stage>[/<path>] [ PARALLEL = <n> ] "
                    "[ AUTO_COMPRESS = { TRUE | FALSE } ] [ SOURCE_COMPRESSION = … ] [ OVERWRITE = { TRUE | FALSE } ]",
                ),
                Statement(
                    ("GET",),
                    self.get,
                    _GET,
                    "GET @<stage>[/<path>] { 'file://<directory>' | file://<directory> } [ PARALLEL = <n> ] "
                    "[ PATTERN = '…' ]",
                ),
            )
        )

    def put(self, context: Context, parser: Parser) -> Result:
        """Run ``PUT``: answer with the directory that the client copies its files into."""
        # The parser has dropped URLs as comments; the text still contains them.
        source, end = _url(parser.text, parser.tokens[0].end)
        rest = Parser(parser.text[end:], parser.binds)
        location = self._stages.locate(context, rest.stage(), "WRITE")
        options = parse_options(rest, _PUT_OPTIONS, "PUT")
        rest.expect_end()
        target = inside(location.directory, location.path)
        sources = _sources(source)
        overwrite = flag(options, "OVERWRITE", default=False)
        compress = flag(options, "AUTO_COMPRESS", default=True)
        names = list(_names(sources, compress=compress))
        location.arrivals.uploaded(target / name for name in names)
        if not overwrite:
            target = _keeping(self._stages.scratch, target, names)
        extra = {
            "command": "UPLOAD",
            "src_locations": sources,
            "parallel": min(int(str(options.get("PARALLEL", 4))), _MOST_PARALLEL),
            "autoCompress": compress,
            "sourceCompression": str(options.get("SOURCE_COMPRESSION", "auto_detect")).lower(),
            "overwrite": overwrite,
            "stageInfo": _location(f"{target}/"),
        }
        return Result(_PUT, statement="other", extra=extra)

    def get(self, context: Context, parser: Parser) -> Result:
        """Run ``GET``: answer with the files that the client copies; without any, the client raises 253006."""
        text, position = parser.text, parser.tokens[0].end
        quoted = _QUOTED_URL.match(text, position)
        bare = _PLAIN_STAGE.match(text, position)
        if quoted:
            reference, end = parse_stage(unescape(quoted[1])), quoted.end()
        elif bare:
            reference, end = parse_stage(bare[1]), bare.end()
        else:
            reference = parser.stage()
            end = parser.tokens[parser.position - 1].end
        local, end = _url(text, end)
        rest = Parser(text[end:], parser.binds)
        options = parse_options(rest, _GET_OPTIONS, "GET")
        rest.expect_end()
        location = self._stages.locate(context, reference, "READ")
        pattern = str(options["PATTERN"]) if "PATTERN" in options else None
        selected = location.files(pattern)
        extra = {
            "command": "DOWNLOAD",
            # Absolute, with "/" as the location: the client would resolve relative names in its own working directory.
            "src_locations": [str(file.file) for file in selected],
            "localLocation": local,
            "parallel": min(int(str(options.get("PARALLEL", 10))), _MOST_PARALLEL),
            "encryptionMaterial": [None] * len(selected),
            "stageInfo": _location("/"),
        }
        return Result(_GET, statement="other", extra=extra)


def _sources(source: str) -> list[str]:
    """Return the paths of the files to upload.

    Snowflake has two wildcards, ``*`` and ``?``. The connector expands brackets as well, so it gets a path with
    brackets twice: as written, for users of the connector and for streams, and with the brackets escaped. If both match
    files, only the second one counts, as documented.
    """
    plain = source.replace("[", "[[]")
    return [plain] if plain != source and _matches(plain) and _matches(source) else list(dict.fromkeys([source, plain]))


def _matches(source: str) -> list[str]:
    return glob.glob(os.path.expanduser(source))  # noqa: PTH111, PTH207 as the client does it


def _names(sources: list[str], *, compress: bool) -> Iterator[str]:
    """Yield the possible names of uploaded files; the client decides by content which ones it compresses."""
    for path in [path for source in sources for path in _matches(source)] or sources[:1]:
        name = os.path.basename(path)  # noqa: PTH119 a stream's name is no path
        yield name
        if compress:
            yield f"{name}.gz"


def _keeping(scratch: Path, target: Path, names: list[str]) -> Path:
    """Return a directory for an upload that must not change the existing files of the target.

    Over LOCAL_FS the connector always overwrites. So the upload goes to a scratch directory: existing files are written
    there and discarded, and links direct the others to the target.
    """
    if not any((target / name).exists() for name in names):
        return target
    target.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(exist_ok=True)
    for old in scratch.iterdir():
        if old.stat().st_mtime < time.time() - _UPLOAD_TAKES_AT_MOST:
            shutil.rmtree(old, ignore_errors=True)
    room = scratch / uuid.uuid4().hex
    room.mkdir()
    for name in names:
        if not (target / name).exists():
            (room / name).symlink_to(target / name)
    return room
