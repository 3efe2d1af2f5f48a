"""References to values that stay on a stage.

In XCom a reference is a JSON object, which templates, the UI and other providers can read. A job that has it among its
arguments gets the value: Snowflake copies the files into the job's own directory, and the launcher loads them. No data
passes through the Airflow worker.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, cast

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.names import StagePath
from airflow_provider_mljobs.jobs.values.portability import REFERENCE as MARKER
from airflow_provider_mljobs.launcher.contract import TAG

_FORM = 1
_TEXTS = ("version", "python", "type", "repr")
# Jobs save files in their own directory below a payload, or in the directory for results.
_OF_JOB = re.compile(r"(?:.*/)?(?:payload_[0-9a-f]+_[^/]+/[^/]+/.+|output/(?:instances/[0-9]+/)?[^/]+)")


@dataclass(frozen=True, kw_only=True)
class StageRef:
    """A value in files on a stage.

    Example: ``train(StageRef(stage_paths=("@ml.data.raw/loans.parquet",), protocol="pandas"))`` hands a
    ``@task.mljob`` a DataFrame.

    :param stage_paths: the files, each with database and schema, e.g. ``@db.ml.data/model.bin``.
    :param protocol: the format of the files. ``pandas`` and ``pyarrow``: Parquet; ``numpy``: npy; ``json``: an object
        with the value under ``value``; ``cloudpickle``: a pickle; ``file``: the files are the value, and the job gets
        their paths.
    :param version: the version of the package that wrote them.
    :param python: the Python that pickled them.
    :param type: the name of the value's class.
    :param repr: the value as text, shortened.
    :param bytes: their size.
    :raises InvalidJobSpecError: if a field is invalid.
    """

    stage_paths: tuple[str, ...]
    protocol: str = "file"
    version: str | None = None
    python: str | None = None
    type: str | None = None
    repr: str | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        """Refuse an empty list, files that aren't on a stage, and files of the same name."""
        # DAG authors are not type-checked.
        paths, protocol = cast("Any", self.stage_paths), cast("Any", self.protocol)
        if isinstance(paths, str):
            raise InvalidJobSpecError(f"stage_paths must be a list of files, got the text {paths!r}.")
        object.__setattr__(self, "stage_paths", tuple(paths))
        if not self.stage_paths:
            raise InvalidJobSpecError("stage_paths is empty; name at least one file, e.g. '@db.ml.data/model.bin'.")
        if not isinstance(protocol, str) or not protocol:
            raise InvalidJobSpecError(f"protocol must be a name such as 'pandas' or 'file', got {protocol!r}.")
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise InvalidJobSpecError(f"stage_paths names {min(twice)!r} twice; in a job both would be one file.")

    @cached_property
    def paths(self) -> tuple[StagePath, ...]:
        """The files, parsed."""
        return tuple(_file(path) for path in self.stage_paths)

    @property
    def names(self) -> tuple[str, ...]:
        """The files' names without their directories."""
        return tuple(path.name for path in self.paths)

    @property
    def names_by_directory(self) -> dict[StagePath, list[str]]:
        """The files' names by their directories."""
        names: dict[StagePath, list[str]] = {}
        for path in self.paths:
            names.setdefault(path.parent, []).append(path.name)
        return names

    def to_xcom(self) -> dict[str, Any]:
        """Return the reference as a JSON object.

        Example: ``context["ti"].xcom_push("model", ref.to_xcom())``
        """
        return {MARKER: _FORM, **asdict(self), "stage_paths": list(self.stage_paths)}

    @classmethod
    def from_xcom(cls, value: Any) -> StageRef:
        """Read the JSON object of :meth:`to_xcom`; a reference is returned as it is.

        Example: ``StageRef.from_xcom(ti.xcom_pull("train")).stage_paths``

        :raises InvalidJobSpecError: if the value is no reference, or a damaged one.
        """
        if isinstance(value, StageRef):
            return value
        if not is_reference(value):
            raise InvalidJobSpecError(
                f"{value!r} is no reference to a value on a stage: it has no key {MARKER!r}. Pass a job's XCom."
            )
        if value[MARKER] != _FORM:
            raise InvalidJobSpecError(
                f"The reference has form {value[MARKER]!r}, but this provider reads form {_FORM}. Update the provider, "
                "or run the task that returned it again."
            )
        paths, texts = value.get("stage_paths"), {key: value.get(key) for key in _TEXTS}
        wrong = [key for key, text in texts.items() if text is not None and not isinstance(text, str)]
        if not isinstance(paths, list) or wrong:
            raise InvalidJobSpecError(
                f"The reference {value!r} is damaged: {(wrong or ['stage_paths'])[0]} is of another type."
            )
        size = value.get("bytes")
        return cls(
            stage_paths=tuple(paths),
            protocol=value.get("protocol", "file"),
            bytes=size if isinstance(size, int) else None,
            **texts,
        )

    def entry(self, number: int) -> dict[str, Any]:
        """Return the JSON for the value in a job's arguments."""
        details = {key: getattr(self, key) for key in ("version", "python", "type")}
        return {
            TAG: "ref",
            "n": number,
            "protocol": self.protocol,
            "names": list(self.names),
            **{key: value for key, value in details.items() if value is not None},
        }


def is_reference(value: object) -> bool:
    """Return whether a value is a reference, or the JSON object of one."""
    return isinstance(value, StageRef) or (isinstance(value, dict) and MARKER in value)


def argument_reference(value: Any) -> StageRef:
    """Return the reference in an argument of a job, or of a hook.

    A StageRef comes from the code of a DAG author. A JSON object may come from any data, so it may refer only to files
    that jobs save.
    """
    reference = StageRef.from_xcom(value)
    if isinstance(value, StageRef):
        return reference
    for path in reference.paths:
        if not _OF_JOB.fullmatch(path.path):
            raise InvalidJobSpecError(
                f"The reference leads to {path}, which is no file of a job: its directory is neither payload_…/MLJOB_… "
                f"nor output. To use it all the same, pass StageRef(stage_paths=[{str(path)!r}], …)."
            )
    return reference


def references_in(value: Any) -> tuple[StageRef, ...]:
    """Return the references in arguments, at any depth of lists, tuples and dicts; each once, in their order."""
    references: dict[StageRef, None] = {}
    pending, seen = [value], set()
    while pending:
        item = pending.pop()
        if is_reference(item):
            references[argument_reference(item)] = None
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            pending += reversed(item.values() if isinstance(item, dict) else item)
    return tuple(references)


def _file(path: object) -> StagePath:
    if not isinstance(path, str) or not path.startswith("@") or path.endswith("/") or "/" not in path:
        raise InvalidJobSpecError(
            f"stage_paths has {path!r}, which is no file on a stage. Write '@db.schema.stage/path/file'; to use a "
            "whole directory, mount the stage with volumes."
        )
    return StagePath.parse(path, "stage_paths")
