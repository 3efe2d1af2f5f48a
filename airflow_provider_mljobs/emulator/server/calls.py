"""Calls of our functions and table functions, as whole statements and within statements of the SQL engine."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator import errors
from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.results import Column, Result, Type
from airflow_provider_mljobs.emulator.server.array_binds import has_arrays, select_from_arrays
from airflow_provider_mljobs.emulator.server.arrow import engine_table
from airflow_provider_mljobs.emulator.server.encoding import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

    from airflow_provider_mljobs.emulator.parsing import Parser, QualifiedName
    from airflow_provider_mljobs.emulator.registry import Context, Extension, Function, TableFunction
    from airflow_provider_mljobs.emulator.sql.engine import Engine

_CONSTANTS = {"TRUE": True, "FALSE": False, "NULL": None}
_TIMESTAMPS = frozenset({"TO_TIMESTAMP", "TO_TIMESTAMP_LTZ", "TO_TIMESTAMP_NTZ", "TO_TIMESTAMP_TZ"})
_TYPES: dict[type, Type] = {bool: "boolean", int: "fixed", float: "real"}


@dataclass
class _Replacements:
    """The replacements of our calls in a statement for the SQL engine."""

    texts: list[tuple[int, int, str]] = field(default_factory=list)
    tables: dict[str, pa.Table] = field(default_factory=dict)

    def apply(self, parser: Parser, binds: Sequence[object]) -> tuple[str, list[object]]:
        """Return the statement with the replacements, and the binds that it still has."""
        pieces: list[str] = []
        position = 0
        for start, end, text in self.texts:
            pieces += [parser.text[position:start], text]
            position = end
        pieces.append(parser.text[position:])
        marks = [token.start for token in parser.tokens if token.kind == "bind" and token.text == "?"]
        gone = {index for index, mark in enumerate(marks) if any(start <= mark < end for start, end, _ in self.texts)}
        return "".join(pieces), [bind for index, bind in enumerate(binds) if index not in gone]


class Calls:
    """Our functions and table functions.

    :param extensions: the parts of the emulator.
    :param engine: runs the statements around them.
    """

    def __init__(self, extensions: Iterable[Extension], engine: Engine) -> None:
        self._engine = engine
        self._functions: dict[str, Function] = {}
        self._tables: dict[str, TableFunction] = {}
        self._service_tables: dict[str, TableFunction] = {}
        self._views: dict[str, TableFunction] = {}
        for extension in extensions:
            self._functions.update({function.name: function for function in extension.functions})
            for table in extension.table_functions:
                if table.view:
                    self._views[table.name] = table
                    continue
                tables = self._service_tables if table.of_service else self._tables
                tables[table.name.rpartition(".")[2]] = table
        names = "|".join(re.escape(name) for name in self._functions)
        views = "".join(rf"|\b{re.escape(name)}\b" for name in self._views)
        self._occurrence = re.compile(rf"\btable\s*\(|\b(?:{names or 'table'})\s*\({views}", re.IGNORECASE)

    def may_occur(self, sql: str) -> bool:
        """Return whether a text may contain a call of ours: a quick check that also matches strings and comments."""
        return self._occurrence.search(sql) is not None

    def run(self, context: Context, parser: Parser, binds: Sequence[object], *, describe_only: bool) -> Result:
        """Run a statement that may contain calls of ours."""
        whole = self._whole(context, parser, describe_only=describe_only)
        if whole is not None:
            return whole
        replacements = _Replacements()
        while parser.current.kind != "end":
            self._replace_next(context, parser, replacements, describe_only=describe_only)
        sql, remaining = replacements.apply(parser, binds)
        return self.run_in_engine(context, sql, remaining, describe_only=describe_only, tables=replacements.tables)

    def _whole(self, context: Context, parser: Parser, *, describe_only: bool) -> Result | None:
        """Answer ``SELECT F(…)``, ``CALL F(…)`` and ``SELECT * FROM TABLE(F(…))`` without the SQL engine."""
        is_call = parser.looking_at("CALL")
        if parser.accept("SELECT", "*", "FROM"):
            result = self._table(context, parser, describe_only=describe_only)
            if result is not None and parser.at_end():
                return replace(result, statement="select", extra={})
        elif is_call or parser.looking_at("SELECT"):
            parser.next()
            function = self._function(parser)
            if function is not None:
                args, _ = self.arguments(context, parser, describe_only=describe_only)
                name = _alias(parser) or function.name
                if parser.at_end():
                    return _run_function(context, function, args, name, is_call=is_call, describe_only=describe_only)
        parser.position = 0
        return None

    def _replace_next(
        self, context: Context, parser: Parser, replacements: _Replacements, *, describe_only: bool
    ) -> None:
        start = parser.current.start
        position = parser.position
        table = self._table(context, parser, describe_only=describe_only)
        if table is not None:
            name = f"TABLE_FUNCTION_{secrets.token_hex(8)}".upper()
            replacements.tables[name] = engine_table(table)
            replacements.texts.append((start, parser.tokens[parser.position - 1].end, name))
            return
        function = self._function(parser)
        if function is None:
            parser.position = position + 1
            return
        args, _ = self.arguments(context, parser, describe_only=describe_only)
        value = None if describe_only else function.run(context, args)
        replacements.texts.append((start, parser.tokens[parser.position - 1].end, _literal(value)))

    def _function(self, parser: Parser) -> Function | None:
        """Step over the name of a function of ours that is called here."""
        function = self._functions.get(parser.current.keyword)
        if function is None or parser.peek(1).text != "(":
            return None
        # a.f( is a method, or a function of another schema
        if parser.position and parser.peek(-1).text in {".", "!"}:
            return None
        parser.next()
        return function

    def _table(self, context: Context, parser: Parser, *, describe_only: bool) -> Result | None:
        """Evaluate our ``TABLE(F(…))`` or view under the cursor; for any other leave the cursor there."""
        position = parser.position
        view = self._view(parser)
        if view is not None:
            return _rows_of(view, context, describe_only=describe_only)
        if not parser.accept("TABLE", "(") or parser.current.kind not in {"word", "quoted"}:
            parser.position = position
            return None
        name = parser.qualified_name()
        service: QualifiedName | None = None
        if parser.accept("!"):
            service, word = name, parser.identifier()
            table = self._service_tables.get(word)
            if table is None:
                raise errors.unknown_table_function(f"{name}!{word}")
        else:
            table = self._tables.get(name.name)
            if table is None and name.database == "SNOWFLAKE":
                raise errors.unknown_table_function(str(name))
        if table is None:
            parser.position = position
            return None
        args, named = self.arguments(context, parser, describe_only=describe_only and bool(table.columns))
        parser.expect(")")
        return _rows_of(table, context, service, args, named, describe_only=describe_only)

    def _view(self, parser: Parser) -> TableFunction | None:
        """Step over the name of a view of ours."""
        for name, view in self._views.items():
            words = name.replace(".", " . ").split()
            tokens = [parser.peek(ahead) for ahead in range(len(words))]
            if [token.text.upper() for token in tokens] == words and parser.peek(-1).text != ".":
                for _ in words:
                    parser.next()
                return view
        return None

    def arguments(
        self, context: Context, parser: Parser, *, describe_only: bool = False
    ) -> tuple[list[Any], dict[str, Any]]:
        """Read ``(value, …, name => value)``.

        :param describe_only: step over them, because evaluating them would run the calls among them.
        """
        positional: list[Any] = []
        named: dict[str, Any] = {}
        if describe_only:
            _skip_parentheses(parser)
            return positional, named
        parser.expect("(")
        while not parser.accept(")"):
            if positional or named:
                parser.expect(",")
            if parser.peek(1).text == "=>":
                name = parser.identifier()
                parser.expect("=>")
                named[name] = self._value(context, parser)
            else:
                positional.append(self._value(context, parser))
        return positional, named

    def _value(self, context: Context, parser: Parser) -> Any:
        value = self._plain_value(context, parser)
        while parser.accept("::"):
            kind = parser.identifier()
            value = _timestamp(value) if kind.startswith("TIMESTAMP") else value
        return value

    def _plain_value(self, context: Context, parser: Parser) -> Any:
        token = parser.current
        if token.kind == "bind":
            return parser.bind()
        if token.kind == "string":
            return parser.string()
        if token.keyword in _CONSTANTS:
            parser.next()
            return _CONSTANTS[token.keyword]
        if token.keyword in _TIMESTAMPS:
            parser.next()
            (value, *_), _ = self.arguments(context, parser)
            return _timestamp(value)
        function = self._function(parser)
        if function is not None:
            args, _ = self.arguments(context, parser)
            return function.run(context, args)
        computed = token.kind == "word" and parser.peek(1).text == "("
        return self._computed(context, parser) if computed else _number(parser)

    def _computed(self, context: Context, parser: Parser) -> Any:
        """Let the SQL engine compute an argument, such as ``DATEADD('day', -1, CURRENT_TIMESTAMP())``."""
        expression = parser.next().text + _skip_parentheses(parser)
        return rows_of(self.run_in_engine(context, f"SELECT {expression}", (), describe_only=False))[0][0]

    def run_in_engine(
        self,
        context: Context,
        sql: str,
        binds: Sequence[object],
        *,
        describe_only: bool,
        tables: Mapping[str, pa.Table] | None = None,
    ) -> Result:
        """Let the SQL engine run a statement.

        :param tables: further tables that the statement selects from, by name.
        """
        engine = context.session.engine
        tables = dict(tables or {})
        if not describe_only and has_arrays(binds):
            sql, name, tables[name] = select_from_arrays(sql, binds)
            binds = ()
        with context.session.running(context.query_id, context.cancelled):
            registered: list[str] = []
            try:
                for name, table in tables.items():
                    engine.register(name, table)
                    registered.append(name)
                return self._engine.execute(context, sql, binds, describe_only=describe_only)
            finally:
                for name in registered:
                    engine.unregister(name)


def _rows_of(
    table: TableFunction,
    context: Context,
    service: QualifiedName | None = None,
    args: Sequence[Any] = (),
    named: Mapping[str, Any] = MappingProxyType({}),
    *,
    describe_only: bool,
) -> Result:
    if describe_only and table.columns:
        return Result(table.columns)
    context.session.check_warehouse()
    return table.run(context, service, args, named)


def _skip_parentheses(parser: Parser) -> str:
    """Step over a pair of parentheses; return its text."""
    start, depth = parser.current.start, 0
    while True:
        token = parser.next()
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if not depth:
            return parser.text[start : token.end]


def _number(parser: Parser) -> int | float:
    sign = -1 if parser.accept("-") else 1
    token = parser.current
    if token.kind != "number":
        raise parser.error()
    parser.next()
    return sign * (int(token.text) if token.text.isdigit() else float(token.text))


def _timestamp(value: Any) -> Any:
    """Return a timestamp as text, because it may have more digits than a datetime; raises for other texts."""
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise SnowflakeError(100035, "22007", f"Timestamp '{value}' is not recognized") from None
    return value


def _alias(parser: Parser) -> str | None:
    if parser.accept("AS") or parser.current.kind in {"word", "quoted"}:
        return parser.identifier()
    return None


def _run_function(
    context: Context, function: Function, args: Sequence[Any], name: str, *, is_call: bool, describe_only: bool
) -> Result:
    result = Result((Column(name),)) if describe_only else scalar(name, function.run(context, args))
    return replace(result, statement="other" if is_call else "select")


def scalar(name: str, value: object) -> Result:
    """Build the one-row answer of a function."""
    kind = _TYPES.get(type(value), "text")
    return Result((Column(name, kind),), [(value if kind != "text" or value is None else str(value),)])


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float | Decimal):
        return str(value)
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"
