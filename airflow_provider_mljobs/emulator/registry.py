"""The statements and functions that the parts of the emulator offer to the router, as data that the docs can list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.parsing import QualifiedName, parse_name

if TYPE_CHECKING:
    import threading

    from airflow_provider_mljobs.emulator.access.needs import Need
    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.results import Column, Result
    from airflow_provider_mljobs.emulator.sessions import Session


@dataclass(frozen=True)
class Context:
    """The surroundings of a running statement.

    :param session: the session: user, role, current database and schema, parameters.
    :param query_id: the id of the query and its result.
    :param cancelled: set when the client cancels the statement; handlers that wait must check it.
    """

    session: Session
    query_id: str
    cancelled: threading.Event


Handler = Callable[[Context, "Parser"], "Result"]


@dataclass(frozen=True)
class Statement:
    """A statement that the emulator answers without the SQL engine.

    :param keywords: the leading words that select it, e.g. ``("SHOW", "COMPUTE", "POOLS")``. The longest match wins.
    :param handler: runs it; the parser's cursor stands behind the keywords.
    :param columns: the columns of its answer, for clients that describe a statement without running it.
    :param syntax: the supported form, one line, for the documentation.
    :param needs: the privileges that the role must have on the object whose name follows the keywords.
    """

    keywords: tuple[str, ...]
    handler: Handler
    columns: Sequence[Column]
    syntax: str
    needs: Sequence[Need] = ()


@dataclass(frozen=True)
class Function:
    """A scalar function: ``SELECT NAME(…)`` or ``CALL NAME(…)`` as the whole statement.

    :param name: upper case, e.g. ``SYSTEM$GET_SERVICE_LOGS``.
    :param handler: gets the context and the argument values, returns the one value.
    :param needs: the privileges that the role must have on the object that the first argument names.
    """

    name: str
    handler: Callable[[Context, Sequence[Any]], object]
    syntax: str
    needs: Sequence[Need] = ()

    def run(self, context: Context, args: Sequence[Any]) -> object:
        """Return the value for these arguments."""
        if self.needs and args:
            _check(self.needs, context, parse_name(str(args[0])), self.name)
        return self.handler(context, args)


@dataclass(frozen=True)
class Method:
    """A method of a service: ``CALL service!NAME(…)``."""

    name: str
    handler: Callable[[Context, QualifiedName, Sequence[Any]], object]
    syntax: str
    needs: Sequence[Need] = ()

    def run(self, context: Context, service: QualifiedName, args: Sequence[Any]) -> object:
        """Return the value for these arguments."""
        _check(self.needs, context, service, self.name)
        return self.handler(context, service, args)


TableHandler = Callable[[Context, "QualifiedName | None", Sequence[Any], Mapping[str, Any]], "Result"]


@dataclass(frozen=True)
class TableFunction:
    """A table function: ``TABLE(NAME(…))``, or ``TABLE(service!NAME(…))`` when ``of_service``; or a ``view``, by name.

    :param handler: gets the context, the service's name (``None`` unless ``of_service``), the positional and the named
        argument values. It must not change anything, because it also runs when a client only wants a description.
    :param needs: the privileges that the role must have on the service, or on the view.
    """

    name: str
    handler: TableHandler
    columns: Sequence[Column]
    syntax: str
    of_service: bool = False
    view: bool = False
    needs: Sequence[Need] = ()

    def run(
        self, context: Context, service: QualifiedName | None, args: Sequence[Any], named: Mapping[str, Any]
    ) -> Result:
        """Return the rows for these arguments."""
        name = service if self.of_service else parse_name(self.name)
        if name is not None:
            _check(self.needs, context, name, self.name)
        return self.handler(context, service, args, named)


def _check(needs: Sequence[Need], context: Context, name: QualifiedName, command: str) -> None:
    for need in needs:
        need.check(context.session, name, command)


@dataclass(frozen=True)
class Extension:
    """The statements and functions of one part of the emulator."""

    statements: Sequence[Statement] = field(default=())
    functions: Sequence[Function] = field(default=())
    methods: Sequence[Method] = field(default=())
    table_functions: Sequence[TableFunction] = field(default=())
