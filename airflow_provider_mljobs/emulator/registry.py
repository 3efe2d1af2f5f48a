"""How the parts of the emulator offer statements and functions to the router: as data, so that docs can list them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading

    from airflow_provider_mljobs.emulator.parsing import Parser, QualifiedName
    from airflow_provider_mljobs.emulator.results import Column, Result
    from airflow_provider_mljobs.emulator.sessions import Session


@dataclass(frozen=True)
class Context:
    """What a statement runs in.

    :param session: the session: user, role, current database and schema, parameters.
    :param query_id: the id under which the result will be kept.
    :param cancelled: set when the client gives the statement up; what waits must watch it.
    """

    session: Session
    query_id: str
    cancelled: threading.Event


Handler = Callable[[Context, "Parser"], "Result"]


@dataclass(frozen=True)
class Statement:
    """A statement that the emulator itself answers.

    :param keywords: the leading words that select it, e.g. ``("SHOW", "COMPUTE", "POOLS")``. The longest match wins.
    :param handler: runs it; the parser's cursor stands behind the keywords.
    :param columns: the columns of its answer, for a client that asks for a description without running it.
    :param syntax: the supported form, one line, for the documentation.
    """

    keywords: tuple[str, ...]
    handler: Handler
    columns: Sequence[Column]
    syntax: str


@dataclass(frozen=True)
class Function:
    """A scalar function: ``SELECT NAME(…)`` or ``CALL NAME(…)`` as the whole statement.

    :param name: upper case, e.g. ``SYSTEM$GET_SERVICE_LOGS``.
    :param handler: gets the context and the argument values, returns the one value.
    """

    name: str
    handler: Callable[[Context, Sequence[Any]], object]
    syntax: str


@dataclass(frozen=True)
class Method:
    """A method of a service: ``CALL service!NAME(…)``."""

    name: str
    handler: Callable[[Context, QualifiedName, Sequence[Any]], object]
    syntax: str


TableHandler = Callable[[Context, "QualifiedName | None", Sequence[Any], Mapping[str, Any]], "Result"]


@dataclass(frozen=True)
class TableFunction:
    """A table function: ``TABLE(NAME(…))``, or ``TABLE(service!NAME(…))`` when ``of_service``; or a ``view``, by name.

    :param handler: gets the context, the service's name (``None`` unless ``of_service``), the positional and the named
        argument values. It runs also when a client only asks for a description, so it must not change anything.
    """

    name: str
    handler: TableHandler
    columns: Sequence[Column]
    syntax: str
    of_service: bool = False
    view: bool = False


@dataclass(frozen=True)
class Extension:
    """All that one part of the emulator adds to SQL."""

    statements: Sequence[Statement] = field(default=())
    functions: Sequence[Function] = field(default=())
    methods: Sequence[Method] = field(default=())
    table_functions: Sequence[TableFunction] = field(default=())
