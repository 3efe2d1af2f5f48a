"""Routes a statement to its handler or to the SQL engine."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator import errors
from airflow_provider_mljobs.emulator.access.needs import named
from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.parsing import Parser, leading_words, without_comments
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.server.calls import Calls, scalar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_mljobs.emulator.registry import Context, Extension, Method, Statement
    from airflow_provider_mljobs.emulator.sql.engine import Engine


class Router:
    """Finds the handler of a statement.

    :param extensions: the statements and functions of the emulator's parts; all others go to the SQL engine.
    :param of_engine: the extensions whose statements a session runs one at a time.
    :param engine: the SQL engine.
    """

    def __init__(self, extensions: Iterable[Extension], of_engine: Iterable[Extension], engine: Engine) -> None:
        self._of_engine = frozenset(id(statement) for part in of_engine for statement in part.statements)
        self._statements: defaultdict[str, list[Statement]] = defaultdict(list)
        self._methods: dict[str, Method] = {}
        extensions = tuple(extensions)
        for extension in extensions:
            for statement in extension.statements:
                self._statements[statement.keywords[0]].append(statement)
            self._methods.update({method.name: method for method in extension.methods})
        for statements in self._statements.values():
            statements.sort(key=lambda statement: len(statement.keywords), reverse=True)
        self._calls = Calls(extensions, engine)

    def run(self, context: Context, sql: str, binds: Sequence[object], *, describe_only: bool = False) -> Result:
        """Run one statement, or describe its answer without running it."""
        # sqlglot nests comments and moves them to other places; Snowflake does neither.
        sql = without_comments(sql)
        words = leading_words(sql)
        if not words:
            return self._without_word(context, sql, binds, describe_only=describe_only)
        (word,) = words
        if word != "CALL" and word not in self._statements and not self._calls.may_occur(sql):
            return self._calls.run_in_engine(context, sql, binds, describe_only=describe_only)
        # A client that describes a statement may leave the binds out.
        parser = Parser(sql, binds or (None if describe_only else ()))
        for statement in self._statements.get(word, ()):
            if parser.accept(*statement.keywords):
                if describe_only:
                    return Result(statement.columns, statement="show")
                return self._handle(context, statement, parser)
        if parser.looking_at("CALL"):
            return self._call(context, parser, binds, describe_only=describe_only)
        return self._calls.run(context, parser, binds, describe_only=describe_only)

    def _handle(self, context: Context, statement: Statement, parser: Parser) -> Result:
        absent = _check(context, statement, parser)
        if absent is not None:
            return absent
        if id(statement) not in self._of_engine:
            return statement.handler(context, parser)
        with context.session.running(context.query_id, context.cancelled):
            return statement.handler(context, parser)

    def _without_word(self, context: Context, sql: str, binds: Sequence[object], *, describe_only: bool) -> Result:
        if Parser(sql).at_end():
            raise SnowflakeError(900, "42601", "SQL compilation error:\nEmpty SQL statement.")
        return self._calls.run_in_engine(context, sql, binds, describe_only=describe_only)

    def _call(self, context: Context, parser: Parser, binds: Sequence[object], *, describe_only: bool) -> Result:
        parser.expect("CALL")
        name = parser.qualified_name()
        if parser.accept("!"):
            method = self._methods.get(word := parser.identifier())
            if method is None:
                raise errors.unknown_function(f"{name}!{word}")
            args, _ = self._calls.arguments(context, parser, describe_only=describe_only)
            parser.expect_end()
            if describe_only:
                return Result((Column(method.name),))
            return replace(scalar(method.name, method.run(context, name, args)), statement="other")
        parser.position = 0
        return self._calls.run(context, parser, binds, describe_only=describe_only)


def _check(context: Context, statement: Statement, parser: Parser) -> Result | None:
    """Raise unless the session has the privileges that a statement declares.

    With IF EXISTS, an object that the role doesn't see is one that doesn't exist: the answer says so.
    """
    if not statement.needs:
        return None
    command = " ".join(statement.keywords)
    name, if_exists = named(parser)
    try:
        for need in statement.needs:
            need.check(context.session, name, command)
    except SnowflakeError as error:
        if not if_exists or error.errno != errors.DOES_NOT_EXIST:
            raise
        if statement.keywords[0] != "DROP":
            return Result.status("Statement executed successfully.")
        return Result.status(f"Drop statement executed successfully ({name.name} already dropped).")
    return None
