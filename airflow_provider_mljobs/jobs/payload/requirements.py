"""Requirements for the job's pip, and the settings that pip and uv read from the environment."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.credentials import passwords, starred
from airflow_provider_mljobs.launcher.contract import REQUIREMENTS_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_mljobs.jobs.payload.files import SourceFile

_REQUIREMENT = re.compile(r"[^\x00-\x1f\x7f]+")
# A backslash joins a line with the next one.
_CONTINUATION = re.compile(r"\\\r?\n")
_INCLUDE = re.compile(r"^\s*(?:-[rc]|--requirement|--constraint)[ =]*(\S+)", re.MULTILINE)
_SETTING = re.compile(r"(?:PIP|UV)_\w+", re.IGNORECASE)
_LOGIN = re.compile(r"UV_\w*(?:PASSWORD|TOKEN)", re.IGNORECASE)


def validate_requirements(pip_requirements: object) -> list[str]:
    """Refuse invalid lines of a requirements file, and credentials in them."""
    if isinstance(pip_requirements, str) or not hasattr(pip_requirements, "__iter__"):
        raise InvalidJobSpecError(
            f"pip_requirements must be a list of requirements, got {starred(repr(pip_requirements))}."
        )
    lines = list(pip_requirements)
    for index, line in enumerate(lines):
        if not isinstance(line, str) or not _REQUIREMENT.fullmatch(line):
            raise InvalidJobSpecError(
                f"pip_requirements[{index}] is {starred(repr(line))}; write one requirement, e.g. 'lightgbm==4.*'."
            )
        _refuse_credentials(line, f"pip_requirements[{index}]")
    _refuse_credentials(_CONTINUATION.sub("", "\n".join(lines)), "pip_requirements")
    return lines


def refuse_credentials(files: Mapping[str, SourceFile]) -> None:
    """Refuse credentials in a source's ``requirements.txt``, and in the files that it includes."""
    for name in _included(files):
        for line in _text(files[name]).split("\n"):
            _refuse_credentials(line.strip(), name)


def validate_settings(environment: Mapping[str, object], label: str) -> None:
    """Refuse credentials in the variables of pip and uv."""
    for name in settings_with_credentials(environment):
        raise InvalidJobSpecError(
            f"{label}[{name!r}] holds credentials, and the job's specification would show them. Put the value into a "
            f"Snowflake secret and name it: secrets={{{name!r}: 'db.schema.name'}}."
        )


def settings_with_credentials(environment: Mapping[str, object]) -> list[str]:
    """Return the variables of pip and uv that hold credentials."""
    names = [str(name) for name in environment if _SETTING.fullmatch(str(name))]
    return [name for name in names if _LOGIN.fullmatch(name) or passwords(str(environment[name]))]


def _refuse_credentials(line: str, label: str) -> None:
    if passwords(line):
        raise InvalidJobSpecError(
            f"{label}, {starred(line)!r}, holds credentials, and every reader of the stage could see them. Put them "
            "into a Snowflake secret and write its variable in their place: secrets={'FEED_TOKEN': 'db.schema.name'} "
            "and https://user:${FEED_TOKEN}@…; or put the whole address of an index there: "
            "secrets={'PIP_INDEX_URL': 'db.schema.name'}."
        )


def _included(files: Mapping[str, SourceFile]) -> Iterator[str]:
    """Yield the travelling files that pip reads as requirements."""
    names, seen = [REQUIREMENTS_FILE], set()
    while names:
        name = names.pop()
        if name in seen or name not in files:
            continue
        seen.add(name)
        yield name
        folder = posixpath.dirname(name)
        names += (posixpath.normpath(posixpath.join(folder, other)) for other in _INCLUDE.findall(_text(files[name])))


def _text(file: SourceFile) -> str:
    """Return a file's text, with continued lines joined."""
    return _CONTINUATION.sub("", file.read().decode(errors="replace"))
