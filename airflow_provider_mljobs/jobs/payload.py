"""What a job runs: a function, a file or a directory, packed into one archive that starts itself.

The archive is a zipapp: ``python payload.pyz`` runs the launcher in it. One file is one upload and one command. The
same code gives the same bytes: files are sorted, times and modes are fixed.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError
from airflow_provider_mljobs.jobs import functions
from airflow_provider_mljobs.jobs.transport import to_ascii, validate_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ARCHIVE = "payload.pyz"
PROTOCOL = 1
_LAUNCHER = Path(__file__).with_name("launcher.py")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = 0o100644 << 16
# Larger arguments travel in the archive: the specification is one SQL statement of at most 1 MB.
_MAX_INLINE_ARGUMENTS = 50_000
_MAX_SOURCE_BYTES = 512 * 1024 * 1024
_LEFT_OUT = {"__pycache__"}
_REQUIREMENT = re.compile(r"[^\x00-\x1f\x7f]+")


@dataclass(frozen=True, kw_only=True)
class Payload:
    """A packed payload, ready to be uploaded.

    :param archive: the bytes of the zipapp.
    :param arguments: the arguments as JSON for the specification; ``None`` when they are in the archive.
    """

    archive: bytes
    arguments: str | None

    @classmethod
    def of_function(
        cls,
        function: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        pip_requirements: Sequence[str] = (),
    ) -> Payload:
        """Pack a function with its arguments.

        A function that stands alone travels as source, so that any Python can run it; one that closes over something
        is pickled by value and needs the same Python in the job.

        :raises PayloadError: if the function or an argument can't be packed; the message names it.
        """
        named = dict(kwargs or {})
        validate_arguments(args)
        functions.refuse_call(function, args, named)
        packed = functions.pack(function)
        pickled = functions.pickle_arguments(function, args, named)
        manifest = {
            "kind": "function",
            "entrypoint": functions.FILE,
            "function": packed.name,
            "file": packed.file,
            "pickled_function": packed.pickle is not None,
            "wants_session": functions.wants_session(function, args, named),
            "pickled_by": _pickled_by() if packed.pickle is not None or pickled is not None else None,
        }
        files: dict[str, bytes] = {}
        if packed.source is not None:
            files[f"app/{functions.FILE}"] = packed.source.encode()
        if packed.pickle is not None:
            files["function.pkl"] = packed.pickle
        if pickled is not None:
            files["arguments.pkl"] = pickled
            return cls._pack(manifest, files, None, pip_requirements)
        return cls._pack(manifest, files, {"args": list(args), "kwargs": named}, pip_requirements)

    @classmethod
    def of_source(
        cls, source: str | os.PathLike[str], entrypoint: str | None, args: Sequence[Any] = (), *,
        pip_requirements: Sequence[str] = (),
    ) -> Payload:  # fmt: skip
        """Pack a file, or a directory with an entrypoint in it.

        :raises PayloadError: if a file can't be found or read.
        :raises InvalidJobSpecError: if the entrypoint isn't a Python file of the source, or an argument is no text.
        """
        root, start = locate(source, entrypoint)
        files = {f"app/{name}": content for name, content in _read(Path(source), root)}
        requirements = validate_requirements(pip_requirements)
        if "app/requirements.txt" in files:
            requirements = [*_requirement_lines(files["app/requirements.txt"], source), *requirements]
        manifest = {"kind": "script", "entrypoint": start, "pickled_by": None}
        return cls._pack(manifest, files, script_arguments(args), requirements)

    @classmethod
    def _pack(
        cls, manifest: dict[str, Any], files: dict[str, bytes], arguments: Any, pip_requirements: Sequence[str]
    ) -> Payload:
        manifest |= {"protocol": PROTOCOL, "pip_requirements": validate_requirements(pip_requirements)}
        inline: str | None = None
        if arguments is not None:
            inline = to_ascii(arguments)
            if len(inline) > _MAX_INLINE_ARGUMENTS:
                files["arguments.json"] = inline.encode()
                inline = None
        files["__main__.py"] = _LAUNCHER.read_bytes()
        files["mljob.json"] = json.dumps(manifest, sort_keys=True).encode()
        return cls(archive=_archive(files), arguments=inline)


def locate(source: str | os.PathLike[str], entrypoint: str | None) -> tuple[Path, str]:
    """Find the directory that becomes the job's working directory, and the file in it to start.

    :raises PayloadError: if the source or the entrypoint doesn't exist.
    :raises InvalidJobSpecError: if the entrypoint is missing, outside the source, or no Python file.
    """
    path = Path(source)
    if not path.exists():
        raise PayloadError(f"source {str(source)!r} does not exist (looked for it at {path.absolute()}).")
    root, start = (path.parent, path.name) if path.is_file() else (path, _relative(path, entrypoint))
    if path.is_file() and entrypoint is not None and Path(entrypoint).name != path.name:
        raise InvalidJobSpecError(f"entrypoint {entrypoint!r} is not the file that source {str(source)!r} names.")
    if not (root / start).is_file():
        raise PayloadError(f"entrypoint {entrypoint!r} is not a file in source {str(source)!r}.")
    if Path(start).suffix != ".py":
        raise InvalidJobSpecError(f"entrypoint {start!r} is not a Python file: its name must end in .py.")
    return root, Path(start).as_posix()


def _relative(directory: Path, entrypoint: str | None) -> str:
    if not entrypoint:
        raise InvalidJobSpecError(f"source {str(directory)!r} is a directory: entrypoint must name the file to start.")
    path = os.path.relpath(directory / entrypoint, directory)
    if path.split(os.sep, 1)[0] == os.pardir:
        raise InvalidJobSpecError(f"entrypoint {entrypoint!r} is outside of source {str(directory)!r}.")
    return path


def script_arguments(args: Sequence[Any]) -> list[str]:
    """Return a script's arguments as text, each exactly as it was given."""
    validate_arguments(args)
    texts = []
    for index, arg in enumerate(args):
        if not isinstance(arg, (str, int, float, Path)):
            raise InvalidJobSpecError(
                f"args[{index}] is of type {type(arg).__name__}; a script takes text and numbers. Write it as a string."
            )
        validate_text(str(arg), f"args[{index}]")
        texts.append(str(arg))
    return texts


def validate_arguments(args: object) -> None:
    """Refuse what is no list, above all a text, which is one of letters."""
    if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
        raise InvalidJobSpecError(f"args must be a list of arguments, got {args!r}.")


def validate_requirements(pip_requirements: object) -> list[str]:
    """Refuse what can't be the lines of a requirements file."""
    if isinstance(pip_requirements, str) or not hasattr(pip_requirements, "__iter__"):
        raise InvalidJobSpecError(f"pip_requirements must be a list of requirements, got {pip_requirements!r}.")
    lines = list(pip_requirements)
    for index, line in enumerate(lines):
        if not isinstance(line, str) or not _REQUIREMENT.fullmatch(line):
            raise InvalidJobSpecError(
                f"pip_requirements[{index}] is {line!r}; write one requirement, e.g. 'lightgbm==4.*'."
            )
    return lines


def _requirement_lines(content: bytes, source: str | os.PathLike[str]) -> list[str]:
    try:
        lines = content.decode("utf-8-sig").expandtabs(1).splitlines()
    except UnicodeDecodeError as error:
        raise PayloadError(f"requirements.txt of source {str(source)!r} is no UTF-8 text: {error}.") from error
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _pickled_by() -> dict[str, str]:
    major, minor, _ = platform.python_version_tuple()
    return {"python": f"{major}.{minor}"}


def _read(source: Path, root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files below a source, by their path in the job; a source file stands alone."""
    total = 0
    for path in [source] if source.is_file() else _walk(root):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise _unreadable(error) from error
        total += len(content)
        if total > _MAX_SOURCE_BYTES:
            raise PayloadError(
                f"source {str(source)!r} is larger than {_MAX_SOURCE_BYTES // 2**20} MiB. "
                "Put data on a stage and let the job read it there."
            )
        yield _text(path.relative_to(root).as_posix(), path), content


def _text(name: str, path: Path) -> str:
    """Refuse a name that no archive can hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise PayloadError(f"{str(path)!r} has a name that is no UTF-8 text; rename it, or take it out.") from None
    return name


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files below a directory, hidden ones too, and those that links within it lead to."""
    inside = root.resolve()
    for directory, subdirectories, names in os.walk(root, onerror=_refuse_unreadable, followlinks=True):
        subdirectories[:] = [name for name in subdirectories if name not in _LEFT_OUT]
        for path in (Path(directory, name) for name in [*subdirectories, *names]):
            if path.is_symlink():
                _refuse_link(path, inside)
            if path.is_file():
                yield path


def _refuse_link(path: Path, inside: Path) -> None:
    target = path.resolve()
    if not target.exists():
        raise PayloadError(f"{str(path)!r} is a symbolic link to {str(target)!r}, which does not exist; take it out.")
    if not target.is_relative_to(inside):
        raise PayloadError(
            f"{str(path)!r} is a symbolic link to {str(target)!r}, outside of the source. "
            "Copy what the job needs into the source."
        )
    if path.parent.resolve().is_relative_to(target):
        raise PayloadError(f"{str(path)!r} is a symbolic link to a directory that it lies in; take it out.")


def _refuse_unreadable(error: OSError) -> NoReturn:
    raise _unreadable(error) from error


def _unreadable(error: OSError) -> PayloadError:
    return PayloadError(f"{error.filename!r} of the payload can't be read: {error.strerror}.")


def _archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = _FILE_MODE
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])
    return buffer.getvalue()
