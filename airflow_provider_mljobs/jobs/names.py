"""Names and literals, quoted by type: the only place that turns user input into SQL."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Self

from airflow_provider_mljobs.exceptions import InvalidJobSpecError

_PART = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([A-Za-z_][A-Za-z0-9_$]*))\s*')
_BARE = re.compile(r"[A-Z_][A-Z0-9_$]*")
_STAGE_PATH = re.compile(r"[^\x00-\x1f\x7f'\\]*")
MAX_NAME_LENGTH = 255
# A DNS label: a job's name is part of its host name, by which its instances find each other.
MAX_JOB_NAME_LENGTH = 63
_USUAL_ATTEMPT_LENGTH = 8
JOB_NAME_PREFIX = "MLJOB_"


@dataclass(frozen=True)
class Identifier:
    """One name as Snowflake stores it: upper case unless it was written in double quotes."""

    value: str

    def __post_init__(self) -> None:
        """Refuse names that no object can have."""
        if not self.value or len(self.value) > MAX_NAME_LENGTH or "\0" in self.value:
            raise InvalidJobSpecError(
                f"{self.value!r} is not a valid name in Snowflake: names have 1 to {MAX_NAME_LENGTH} characters."
            )

    @classmethod
    def parse(cls, text: str, what: str) -> Self:
        """Read one name as users write it, e.g. ``ml_pool`` or ``"my pool"``."""
        (identifier,) = cls.parse_path(text, what, most=1)
        return identifier

    @classmethod
    def parse_path(cls, text: str, what: str, *, most: int) -> tuple[Self, ...]:
        """Read ``a.b.c``, at most ``most`` parts."""
        parts: list[Self] = []
        position = 0
        while (match := _PART.match(text, position)) is not None:
            quoted, bare = match.groups()
            parts.append(cls(quoted.replace('""', '"') if quoted is not None else bare.upper()))
            position = match.end()
            if position == len(text) and len(parts) <= most:
                return tuple(parts)
            if text[position : position + 1] != ".":
                break
            position += 1
        shape = "a name" if most == 1 else f"a name of at most {most} parts"
        raise InvalidJobSpecError(
            f'{what} {text!r} is not {shape}. Write letters, digits, "_" and "$", or put the name in double quotes.'
        )

    @property
    def is_bare(self) -> bool:
        """Whether the name needs no quotes."""
        return _BARE.fullmatch(self.value) is not None

    def __str__(self) -> str:
        return self.value if self.is_bare else quoted(self.value)


@dataclass(frozen=True)
class Namespace:
    """A database and a schema in it, for names that are written without. Either may be missing."""

    database: Identifier | None = None
    schema: Identifier | None = None

    @classmethod
    def parse(cls, text: str, what: str, default: Identifier | None = None) -> Self:
        """Read ``[db.]schema``.

        :raises InvalidJobSpecError: if no database is given at all.
        """
        *database, schema = Identifier.parse_path(text, what, most=2)
        return cls(database[0] if database else default, schema).checked()

    def checked(self) -> Self:
        """Refuse a schema without a database."""
        if self.schema is not None and self.database is None:
            raise InvalidJobSpecError(
                f"Schema {self.schema} has no database: write DATABASE.SCHEMA, or set a database."
            )
        return self

    def __str__(self) -> str:
        return ".".join(str(part) for part in (self.database, self.schema) if part is not None)


# A listing covers the whole account, and a name has to be complete.
ANYWHERE = Namespace()
# Stands in for the connection's database and schema in checks that run before the connection is read.
PLACEHOLDER = Namespace(Identifier("ANY"), Identifier("ANY"))


@dataclass(frozen=True)
class QualifiedName:
    """A schema-level object, always with database and schema: it never depends on a session's current schema."""

    database: Identifier
    schema: Identifier
    name: Identifier

    @classmethod
    def parse(cls, text: str, what: str, namespace: Namespace = ANYWHERE) -> Self:
        """Read ``[[db.]schema.]name`` and fill in the missing parts from a namespace."""
        parts = Identifier.parse_path(text, what, most=3)
        head = [namespace.database, namespace.schema]
        head[len(head) - len(parts) + 1 :] = parts[:-1]
        missing = [label for label, part in zip(("database", "schema"), head, strict=True) if part is None]
        if head[0] is None or head[1] is None:
            raise InvalidJobSpecError(
                f"{what} {text!r} has no {' and '.join(missing)}. Write it as DATABASE.SCHEMA.NAME, pass "
                f"{' and '.join(missing)} to the task, or set them on the Snowflake connection."
            )
        return cls(head[0], head[1], parts[-1])

    @property
    def namespace(self) -> Namespace:
        """The schema that holds the object."""
        return Namespace(self.database, self.schema)

    def __str__(self) -> str:
        return f"{self.database}.{self.schema}.{self.name}"


@dataclass(frozen=True)
class StagePath:
    """A stage and a path in it: ``@db.schema.stage/some/path``. The path keeps its case."""

    stage: QualifiedName
    path: str = ""

    def __post_init__(self) -> None:
        """Refuse paths that could leave the SQL literal or the stage."""
        if not _STAGE_PATH.fullmatch(self.path) or ".." in self.path.split("/"):
            raise InvalidJobSpecError(
                f"{self.path!r} can't be a path on a stage: it has quotes, backslashes, control characters or '..'."
            )

    @classmethod
    def parse(cls, text: str, what: str, namespace: Namespace = ANYWHERE) -> Self:
        """Read ``[@][[db.]schema.]stage[/path]`` and fill in the missing parts from a namespace."""
        head, _, path = text.strip().removeprefix("@").partition("/")
        return cls(QualifiedName.parse(head, what, namespace), path.strip("/"))

    @property
    def name(self) -> str:
        """The last part of the path; empty for the stage itself, and for a path that ends with a slash."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> Self:
        """The path without its last part; for the stage itself, the stage."""
        return type(self)(self.stage, self.path.rpartition("/")[0])

    def __truediv__(self, name: str) -> Self:
        return type(self)(self.stage, f"{self.path}/{name}" if self.path else name)

    def __str__(self) -> str:
        return f"@{self.stage}/{self.path}" if self.path else f"@{self.stage}"


def quoted(name: str) -> str:
    """Write a name in double quotes, which preserve its case."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """Write a text as an SQL string literal that means exactly that text."""
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return "'" + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t").replace("\0", "\\0") + "'"


def job_name(*, airflow: str, dag_id: str, run_id: str, task_id: str, map_index: int, attempt: str) -> Identifier:
    """Choose the name of a task instance's job before the job is submitted.

    The first part is for people. The hash identifies the task instance. The attempt is unique among its jobs, so that a
    late kill of an older job can't hit a newer one.

    :param attempt: unique among the jobs of a task instance; letters, digits and ``_``.
    """
    instance = (airflow, dag_id, run_id, task_id, str(map_index))
    digest = hashlib.sha256("\0".join(instance).encode(errors="surrogatepass")).hexdigest()[:12]
    tail = f"_{digest}_{attempt}".upper()
    slug = "_".join(re.findall(r"[A-Z0-9]+", task_id.upper())) or "TASK"
    # All jobs of a task instance share the beginning of their names, by which they are listed.
    room = MAX_JOB_NAME_LENGTH - len(JOB_NAME_PREFIX) - len(tail) - max(0, _USUAL_ATTEMPT_LENGTH - len(attempt))
    return Identifier(f"{JOB_NAME_PREFIX}{slug[:room].rstrip('_')}{tail}")
