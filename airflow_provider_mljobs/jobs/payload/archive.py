"""The payload of a job: a function, a file or a directory, packed into one archive that starts itself.

The archive is a zipapp that begins with a shell script: ``sh payload.pyz`` finds the Python of any image and runs the
launcher in the archive, so a job needs one upload and one command. The same code gives the same bytes (files are
sorted, times and modes are fixed), and their hash is its name on the stage.
Arguments and other facts of a single job are not in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.jobs.payload import functions
from airflow_provider_mljobs.jobs.payload.files import SourceFile, refuse_large
from airflow_provider_mljobs.jobs.payload.git import GIT_SECRET_DIRECTORY, GitSource
from airflow_provider_mljobs.jobs.payload.imports import collect
from airflow_provider_mljobs.jobs.payload.requirements import refuse_credentials, validate_requirements
from airflow_provider_mljobs.jobs.payload.sources import (
    Place,
    StageCopy,
    is_on_stage,
    locate,
    staged,
    start_of_directory,
)
from airflow_provider_mljobs.launcher.contract import APP, FUNCTION_PICKLE, INSIDE, MANIFEST, PROTOCOL

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_mljobs.jobs.payload.functions import Serializer
    from airflow_provider_mljobs.jobs.payload.imports import Import, Imports
    from airflow_provider_mljobs.jobs.payload.sources import Start

ARCHIVE = "payload.pyz"
# The beginning of the name of its directory on the stage.
PREFIX = "payload_"
_PACKAGE = Path(__file__).parents[2]
# In the job the package has report.py, and all other modules where the image has the provider installed.
_EXTEND = b"\n__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"
_MAIN = b"import sys\n\nfrom mljob_launcher.main import main\n\nsys.exit(main())\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_FILE_MODE, _PROGRAM_MODE = 0o100644 << 16, 0o100755 << 16
_DIGEST_LENGTH = 32
_ANYWHERE = Place()


@dataclass(frozen=True, kw_only=True)
class Payload:
    """A packed payload, ready to be uploaded.

    Each constructor takes ``imports``, code for the job to import beside its source, e.g. ``[("src/utils", "utils")]``,
    and ``place``, the origin of relative paths and unqualified stage names. A constructor raises a PayloadError if code
    is missing, unreadable or can't be sent, and an InvalidJobSpecError if an argument is invalid.

    :param archive: the bytes of the zipapp.
    :param copies: code on stages that Snowflake copies into each job's own directory.
    :param pickled: the parts of it that are pickled, for messages.
    """

    archive: bytes
    copies: tuple[StageCopy, ...] = ()
    pickled: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """The archive's name on the stage: the beginning of its SHA-256."""
        return hashlib.sha256(self.archive).hexdigest()[:_DIGEST_LENGTH]

    @classmethod
    def of_function(
        cls,
        function: Callable[..., Any],
        *,
        serializer: Serializer = "auto",
        imports: Sequence[Import] = (),
        pip_requirements: Sequence[str] = (),
        place: Place = _ANYWHERE,
    ) -> Payload:
        """Pack a function.

        A function that stands alone travels as source, which any Python can run. A function with a closure is pickled
        by value, and the job needs the same Python.
        """
        extra = collect(imports, place)
        packed = functions.pack(function, serializer, extra.called)
        manifest = {
            "kind": "function",
            "entrypoint": functions.FILE,
            "function": packed.name,
            "file": packed.file,
            "pickled_by": packed.pickled_by,
        }
        files: dict[str, bytes | SourceFile] = {}
        if packed.source is not None:
            files[f"{APP}/{functions.FILE}"] = packed.source.encode()
        if packed.pickle is not None:
            files[FUNCTION_PICKLE] = packed.pickle
        payload = cls._pack(manifest, files, extra, pip_requirements)
        return payload if packed.pickle is None else replace(payload, pickled=(f"Function {packed.name!r}",))

    @classmethod
    def of_source(
        cls,
        source: str | os.PathLike[str] | GitSource,
        entrypoint: str | os.PathLike[str] | Sequence[str] | None,
        *,
        imports: Sequence[Import] = (),
        pip_requirements: Sequence[str] = (),
        place: Place = _ANYWHERE,
    ) -> Payload:
        """Pack a file or a directory, or the address of these in Snowflake or in a git repository.

        :param source: a path, an address that starts with ``@`` or ``snow://``, or a GitSource. The worker never
            downloads an address. The container needs the secret of a GitSource, as files in ``GIT_SECRET_DIRECTORY``.
        :param entrypoint: a Python file of the source, or a command such as ``["torchrun", "train.py"]``.
        """
        extra = collect(imports, place)
        if isinstance(source, GitSource):
            source.validate()
            git = {"url": source.url, "ref": source.ref, "path": source.path}
            git["secret_directory"] = GIT_SECRET_DIRECTORY if source.secret is not None else ""
            manifest = _manifest(start_of_directory(entrypoint, f"source {source.url!r}")) | {"git": git}
            return cls._pack(manifest, {}, extra, pip_requirements)
        if is_on_stage(source):
            copy, start = staged(str(source), entrypoint, place)
            manifest = _manifest(start) | {"stage": {"from": copy.source, "input": copy.target}}
            return cls._pack(manifest, {}, extra, pip_requirements, copy)
        local = locate(place.path(source), entrypoint)
        source_files = local.files()
        extra.refuse_hidden(source_files, f"source {str(source)!r}")
        refuse_credentials(source_files)
        files: dict[str, bytes | SourceFile] = {f"{APP}/{name}": file for name, file in source_files.items()}
        return cls._pack(_manifest(local.start), files, extra, pip_requirements)

    @classmethod
    def _pack(
        cls,
        manifest: Mapping[str, Any],
        files: Mapping[str, bytes | SourceFile],
        imports: Imports,
        pip_requirements: Sequence[str],
        *copies: StageCopy,
    ) -> Payload:
        content = {**files, **imports.files}
        refuse_large(content)
        content["__main__.py"] = _MAIN
        for module in _PACKAGE.joinpath("launcher").glob("*.py"):
            content[f"mljob_launcher/{module.name}"] = module.read_bytes()
        content[f"{INSIDE}/{_PACKAGE.name}/__init__.py"] = _PACKAGE.joinpath("__init__.py").read_bytes() + _EXTEND
        content[f"{INSIDE}/{_PACKAGE.name}/report.py"] = _PACKAGE.joinpath("report.py").read_bytes()
        document = {
            **manifest,
            "protocol": PROTOCOL,
            "pip_requirements": validate_requirements(pip_requirements),
            "imports": imports.manifest,
        }
        content[MANIFEST] = json.dumps(document, sort_keys=True).encode()
        return cls(archive=_archive(content), copies=(*copies, *imports.copies))


def _manifest(start: Start) -> dict[str, Any]:
    return {"kind": start.kind, "command": start.command, "pickled_by": None}


def _archive(files: Mapping[str, bytes | SourceFile]) -> bytes:
    """Write a zip file that depends on names, contents and executability only."""
    buffer = io.BytesIO()
    # Before the first entry: Python looks for a zip file's directory at its end.
    buffer.write(_PACKAGE.joinpath("launcher", "start.sh").read_bytes())
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, file in sorted(files.items()):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = _FILE_MODE
            info.compress_type = zipfile.ZIP_DEFLATED
            if isinstance(file, SourceFile):
                info.external_attr = _PROGRAM_MODE if file.is_executable else _FILE_MODE
                archive.writestr(info, file.read())
            else:
                archive.writestr(info, file)
    return buffer.getvalue()
